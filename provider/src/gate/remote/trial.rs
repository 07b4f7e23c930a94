//! Requests without a socket: what tests and measurements of the data verbs begin with.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::rights::Rights;
use caps::time::BootNanos;
use caps::token::Token;
use caps::wire::Reply;
use caps::wire::remote::ask::Further;
use caps::wire::remote::{Ask, Header};
use caps::wire::reply::Opened;
use caps::wire::request::Path;

use super::job::Job;
pub use super::job::{Sink, Step};
use super::share::Share;
use crate::gate::Gate;
use crate::gate::memory::Answer;
use crate::gate::visitor::Visitor;
use crate::runtime::{Client, Opener, Outgoing};

/// A session of a client that is somewhere else. Over when dropped.
pub struct Guest(Visitor);

impl Guest {
    /// A session whose key is proven. `end` is called when the provider ends it; `outgoing` is what it is sent.
    #[must_use]
    pub fn new(
        gate: &Gate,
        opener: Opener,
        end: Box<dyn Fn() + Send>,
        outgoing: Option<Arc<Outgoing>>,
    ) -> Self {
        let shared = gate.shared();
        shared.provider.register_session(opener.session, Client::new(opener, None), end, outgoing);
        Self(Visitor::new(shared, opener, None))
    }

    /// Opens a right to be used by requests.
    ///
    /// # Errors
    /// Those of a session's.
    pub async fn open(&mut self, token: &Token, rights: Rights) -> Result<Opened> {
        match self.0.open(token, rights, Path::Mediated).await? {
            Answer::Reply(Reply::Opened(opened)) => Ok(opened),
            _ => Err(Error::new(Code::Internal, "an opening was answered with something else")),
        }
    }

    /// Gives a right back.
    ///
    /// # Errors
    /// `E_REVOKED` if it is over.
    pub fn close(&mut self, handle: SlotHandle) -> Result<()> {
        self.0.close(handle).map(drop)
    }

    /// Whether the session would end after the answer, for what it did.
    #[must_use]
    pub fn is_done_for(&self) -> bool {
        self.0.conduct.ends()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.shared.provider.session_ended(self.0.opener.session);
    }
}

/// A data request.
pub struct Request(Job);

impl Request {
    /// As it comes in its first frame.
    ///
    /// # Errors
    /// Those of the frame.
    pub fn begin(header: &Header, body: &[u8], now: BootNanos) -> Result<Self> {
        header.verify(body)?;
        Ok(Self(Job::begin(header, Ask::decode(header, body)?, now)))
    }

    /// A further frame.
    ///
    /// # Errors
    /// Those of the frame.
    pub fn feed(&mut self, header: &Header, body: &[u8]) -> Result<()> {
        header.verify(body)?;
        self.0.feed(header, Further::decode(header, body)?)
    }

    /// Does as much as it can.
    pub fn run(&mut self, guest: &mut Guest, out: &mut dyn Sink) -> Step {
        self.0.run(&mut guest.0, out, &mut Share::whole())
    }

    /// When it is over unanswered.
    #[must_use]
    pub fn deadline(&self) -> BootNanos {
        self.0.deadline()
    }
}

mod exchange;
pub use exchange::{Clients, Connection};
