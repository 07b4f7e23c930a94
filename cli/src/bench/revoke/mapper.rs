//! A mapper: a process that maps what it is told to, touches it, and says when it was gone.
//!
//! Leases and the baselines' files go through the same [`Mapping`] and are touched by the same guarded word access, which
//! survives the cut: so the process can say itself when its first touch failed.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::GrantId;
use caps::key::SigningKey;
use caps::rights::Rights;
use libmem::{Access, Client, Endpoint, Lifetime, Mapping, Region, Revocation, Segment};
use policy::limits::PAGE_BYTES;

use super::message::{Answer, Death, Order, Side, now_ns, receive, send};
use super::writer::Writer;
use crate::bench::machine;

/// A mapping that lives longer after it was to be touched will never be cut.
const LIFE: Duration = Duration::from_secs(60);
/// How many touches pass between two looks at [`LIFE`].
const TOUCHES: u32 = 1 << 16;

struct Session {
    client: Client,
    key: SigningKey,
}

/// What is mapped.
pub enum Held {
    Lease(Region),
    File(Mapping),
}

impl Held {
    pub const fn mapping(&self) -> &Mapping {
        match self {
            Self::Lease(region) => region.mapping(),
            Self::File(mapping) => mapping,
        }
    }

    /// Reads a word, or reads and writes it where the mapping allows.
    fn touch(&self, offset: usize) -> Result<()> {
        let mapping = self.mapping();
        match mapping.access() {
            Access::Read => mapping.load_u64(offset).map(drop),
            Access::ReadWrite => mapping.fetch_add_u64(offset, 1).map(drop),
        }
    }

    fn touch_every_page(&self) -> Result<Answer> {
        for offset in (0..self.mapping().len()).step_by(PAGE_BYTES as usize) {
            self.touch(offset)?;
        }
        Ok(Answer::Mapped { huge_bytes: machine::huge_bytes(self.mapping().as_ptr() as usize) })
    }

    /// Touches the last page until it is gone. The kernel empties a mapping from its first page to its last, so no
    /// other page of it outlives this one.
    fn touch_to_death(&self) -> Result<Answer> {
        let last = self.mapping().len() - PAGE_BYTES as usize;
        let (started, mut alive_ns) = (Instant::now(), None);
        while started.elapsed() < LIFE {
            for _ in 0..TOUCHES {
                // Before it: a touch that succeeded is late only if it began late, however long the process waited for
                // its next turn.
                let began_ns = now_ns();
                match self.touch(last) {
                    Ok(()) => alive_ns = Some(began_ns),
                    Err(error) if error.code() == Code::Revoked => {
                        return Ok(Answer::Dead(Death { alive_ns, dead_ns: now_ns() }));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Error::new(Code::Timeout, "the mapping outlived its cut"))
    }
}

/// Does what it is told until the benchmark hangs up.
///
/// # Errors
/// What kept it from beginning. What fails later is an answer.
pub fn serve() -> Result<()> {
    let socket = stdin();
    let socket = socket.as_fd();
    let (Order::Begin { socket: node, seed }, _) = receive(socket)? else {
        return Err(Error::new(Code::Protocol, "the benchmark's mappers are started by the benchmark"));
    };
    let key = crate::identity::key_of_seed(&seed)?;
    let session = Session { client: Client::connect(&Endpoint::unix(node), &key)?, key };
    send(socket, &Answer::Ready, None)?;
    let mut held = None;
    let (mut lease, mut file) = (None, None);
    while let Ok((order, descriptor)) = receive::<Order>(socket) {
        let answer = match order {
            Order::Begin { .. } => Err(Error::new(Code::Protocol, "a mapper begins once")),
            Order::MapGrant { grant, write } => {
                session.map(grant, write).and_then(|lease| held.insert(Held::Lease(lease)).touch_every_page())
            }
            Order::MapFile { bytes, write } => {
                map_file(descriptor, bytes, write).and_then(|file| held.insert(file).touch_every_page())
            }
            Order::SurviveGrant { grant, writer, writers } => session
                .map(grant, true)
                .and_then(|region| Writer::new(Held::Lease(region), writer, writers))
                .map(|writer| ready(lease.insert(writer))),
            Order::SurviveFile { bytes, writer, writers } => map_file(descriptor, bytes, true)
                .and_then(|held| Writer::new(held, writer, writers))
                .map(|writer| ready(file.insert(writer))),
            Order::Go { side } => writer(&mut lease, &mut file, side).map(|writer| {
                writer.go();
                Answer::Done
            }),
            Order::Halt { side } => {
                writer(&mut lease, &mut file, side).and_then(Writer::halt).map(|()| Answer::Done)
            }
            Order::Advance => writer(&mut lease, &mut file, Side::Lease).and_then(|writer| writer.advance()),
            Order::Judge => writer(&mut lease, &mut file, Side::Lease).and_then(Writer::judge),
            Order::Touch => of(&held).and_then(|held| {
                held.touch(held.mapping().len() - PAGE_BYTES as usize)?;
                send(socket, &Answer::Touching, None)?;
                held.touch_to_death()
            }),
            Order::Probe => of(&held).and_then(Held::touch_to_death),
            Order::Forget => {
                (held, file) = (None, None);
                Ok(Answer::Forgotten)
            }
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed { code: error.code().to_string() });
        send(socket, &answer, None)?;
    }
    Ok(())
}

fn map_file(descriptor: Option<OwnedFd>, bytes: u64, write: bool) -> Result<Held> {
    let descriptor =
        descriptor.ok_or(Error::new(Code::DescriptorType, "no descriptor came with the file to map"))?;
    let access = if write { Access::ReadWrite } else { Access::Read };
    Mapping::new(vec![Segment { descriptor, bytes }], access, Revocation::new()).map(Held::File)
}

/// A survivor has nothing in its page tables yet: it gets that by writing.
fn ready(_: &Writer) -> Answer {
    Answer::Mapped { huge_bytes: 0 }
}

fn writer<'a>(
    lease: &'a mut Option<Writer>,
    file: &'a mut Option<Writer>,
    side: Side,
) -> Result<&'a mut Writer> {
    let writer = match side {
        Side::Lease => lease,
        Side::File => file,
    };
    writer.as_mut().ok_or(Error::new(Code::Protocol, "a survivor writes to what it has mapped"))
}

fn of(held: &Option<Held>) -> Result<&Held> {
    held.as_ref().ok_or(Error::new(Code::Protocol, "a mapper touches what it has mapped"))
}

impl Session {
    /// Accepts a grant and maps what it gives.
    fn map(&self, grant: GrantId, write: bool) -> Result<Region> {
        let rights = if write { Rights::READ_WRITE } else { Rights::READ };
        let proposal = self.client.share_show(grant)?;
        let accepted = self.client.share_accept(&proposal.contract, Lifetime::Process, &self.key)?;
        self.client.open_mapped(&accepted.token, rights)
    }
}
