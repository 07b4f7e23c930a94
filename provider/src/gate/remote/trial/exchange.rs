//! Whole requests on connections that come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::ClientId;
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Header};
use caps::wire::{Request, cbor};

use super::Guest;
use crate::gate::remote::effects::{Begun, Connected, Effects};
use crate::gate::remote::fingerprint::{Fingerprint, only_reads};
use crate::gate::remote::job::{Job, Sink, Step};
use crate::gate::remote::keeping::{self, Keeping};
use crate::gate::remote::leases::{self, Asked, Made};
use crate::gate::remote::share::Share;
use crate::gate::remote::words::Word;
use crate::gate::visitor::Visitor;

/// Frames of one request that a connection still brings.
type Frames = VecDeque<(Header, Vec<u8>)>;

/// What is known of all clients.
pub struct Clients(Arc<Effects>);

impl Clients {
    /// Nothing, by the clock of this guest's provider. In the runtime.
    #[must_use]
    pub fn start(guest: &Guest) -> Self {
        let provider = guest.0.shared.provider.clone();
        Self(Effects::start(move || provider.clock().boot()))
    }

    /// A connection of a client, which this guest says it is.
    ///
    /// # Errors
    /// `E_BUSY`.
    pub fn resume(&self, guest: &Guest, client: ClientId) -> Result<Connection> {
        guest.0.resume(&self.0, client).map(Connection)
    }
}

/// A connection, without its socket.
pub struct Connection(Connected);

impl Connection {
    /// One that has not said whose it is.
    #[must_use]
    pub fn alone() -> Self {
        Self(Connected::alone())
    }

    /// Works on a request until it is answered: `false` if its frames broke off before that, as when a connection goes.
    /// Waits where a connection would be held up; `out` has room for everything.
    ///
    /// # Errors
    /// What would be told instead of an answer.
    pub async fn exchange(&self, guest: &mut Guest, mut frames: Frames, out: &mut dyn Sink) -> Result<bool> {
        let Some((header, body)) = frames.pop_front() else { return Ok(false) };
        let (ask, visitor) = (Ask::decode(&header, &body)?, &mut guest.0);
        let now = visitor.shared.provider.clock().boot();
        let print = match &ask {
            Ask::Control(body) => Fingerprint::of_control(&cbor::decode::<Request>(body)?, body),
            ask => Fingerprint::of(ask, |handle| visitor.lease_of(handle)),
        };
        let Some(mut print) = print else {
            if only_reads(&ask) {
                self.0.refuse_known(header.request)?;
            }
            return run(Job::begin(&header, ask, now), None, visitor, frames, out).await;
        };
        let under_way = match self.0.begin(header.request)? {
            Begun::New(under_way) => under_way,
            Begun::Answered => {
                let mut more = header.has_more();
                while more {
                    let Some((header, body)) = frames.pop_front() else { return Ok(false) };
                    print.feed(&Further::decode(&header, &body)?, |handle| visitor.lease_of(handle));
                    more = header.has_more();
                }
                let kept = self.0.again(header.request, Some(print.identity()))?;
                match ask {
                    Ask::Cas(swap) => Word::from(swap).repeat(&kept, header.request, visitor, out)?,
                    Ask::FetchAdd(add) => Word::from(add).repeat(&kept, header.request, visitor, out)?,
                    _ => keeping::repeat(&kept, header.request, out, &[])?,
                }
                return Ok(true);
            }
        };
        let asked = || Asked { header, under_way: under_way.clone(), identity: print.identity() };
        let job = match ask {
            Ask::Create(body) => match leases::create(visitor, asked(), body).await? {
                Made::Answered(frame) => {
                    keeping::repeat(&frame, header.request, out, &[])?;
                    return Ok(true);
                }
                Made::Filling(filling) => Job::filling(&header, filling, now),
            },
            Ask::Delete(body) => {
                let frame = leases::delete(visitor, asked(), body).await?;
                keeping::repeat(&frame, header.request, out, &[])?;
                return Ok(true);
            }
            Ask::Control(_) => return Err(Error::new(Code::Protocol, "no trial asks for that")),
            ask => Job::begin(&header, ask, now),
        };
        run(job, Some(Keeping::new(under_way, print)), visitor, frames, out).await
    }
}

async fn run(
    mut job: Job,
    mut keeping: Option<Keeping>,
    visitor: &mut Visitor,
    mut frames: Frames,
    out: &mut dyn Sink,
) -> Result<bool> {
    loop {
        let step = match &mut keeping {
            Some(keeping) => job.run(visitor, &mut keeping.through(out), &mut Share::whole()),
            None => job.run(visitor, out, &mut Share::whole()),
        };
        match step {
            Step::Done => return Ok(true),
            Step::Turn => {}
            Step::Full => return Err(Error::new(Code::Internal, "a trial has room for every answer")),
            Step::Rotating(rotating) => rotating.over().await,
            Step::Wants => {
                let Some((header, body)) = frames.pop_front() else { return Ok(false) };
                let further = Further::decode(&header, &body)?;
                if let Some(keeping) = &mut keeping {
                    keeping.print().feed(&further, |handle| visitor.lease_of(handle));
                }
                job.feed(&header, further)?;
            }
        }
    }
}
