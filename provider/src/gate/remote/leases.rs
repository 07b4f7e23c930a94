//! CREATE and DELETE: leases made and given back many at a time.
//!
//! ```text
//!   CREATE ──▶ make all leases ──▶ no bytes follow ──────────────────────────────────────────▶ answered
//!             (a task of its own)  └▶ open each ──▶ Filling: bytes as they come ──▶ last frame ──┘
//!                                          │                │
//!                                          └── breaks off ──┴──▶ given back, then the number is nobody's again
//! ```
//! A request that has come whole is carried to its end, whether or not somebody still listens, and its answer is kept: who
//! asks again is told of the leases that there are. One whose first bytes break off, because the connection went, the time
//! was over or its frames made no sense, is undone: what was made is given back, and until that is done the same number
//! is answered with `E_BUSY`. Either way asking again leaves the leases that were asked for once.
//!
//! An item fails by itself: its bytes are read and forgotten, what was made for it is given back, and the others go on.

use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, SlotHandle};
use caps::limits::{VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use caps::rights::Rights;
use caps::wire::remote::header::BODY_BYTES_MAX;
use caps::wire::remote::leases::{Create, Created, Creations, Delete, Deletions, bounded};
use caps::wire::remote::{Flags, Header, Piece};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::{Reply, Request, cbor};
use policy::limits::{REMOTE_UNDO_RETRY_MS, REMOTE_UNDO_TRIES_MAX};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::effects::UnderWay;
use super::job::{Answering, Sink, Went};
use super::keeping::whole;
use crate::gate::answered::Identity;
use crate::gate::fault::Access;
use crate::gate::memory::Answer;
use crate::gate::visitor::Visitor;
use crate::gate::{Caller, ControlPlane};
use crate::runtime::Progress;

/// A request for leases whose first frame is here.
pub(super) struct Asked {
    /// Its header.
    pub(super) header: Header,
    /// Its number, held for as long as something of it is to be done or undone.
    pub(super) under_way: UnderWay,
    /// What it is told apart by, if it is here whole.
    pub(super) identity: Identity,
}

impl Asked {
    /// The frame of its answer, which is kept from here on.
    fn answered(&self, body: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let header = Header::of(self.header.verb, Flags::ANSWER, self.header.request, body.len())?;
        let checked = self.header.flags.contains(Flags::CRC);
        let frame = whole(if checked { header.checked(body) } else { header }, body);
        self.under_way.answered(self.identity, &frame);
        Ok(frame)
    }
}

/// The body of an answer to `CREATE`: it holds tokens.
fn encode(results: &Creations) -> Result<Zeroizing<Vec<u8>>> {
    // Once: what grows leaves its bytes behind where it was.
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_BYTES_MAX));
    cbor::append(results, &mut body)?;
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::new(Code::Internal, "the leases of a request do not fit its answer"));
    }
    Ok(body)
}

/// What making leases came to.
pub(super) enum Made {
    /// The frame of the answer, which is kept already.
    Answered(Zeroizing<Vec<u8>>),
    /// Their first bytes are still to come: [`Job::filling`](super::job::Job::filling) goes on, through a sink that keeps
    /// the answer.
    Filling(Box<Filling>),
}

/// Makes the leases that `body` asks for. To be awaited to its end, with the session alive: a lease that ends with the
/// session has to be made before it is over.
///
/// # Errors
/// `E_FRAME_TYPE` for a body that is none; `E_RANGE` unless there are 1 to 64 items; `E_INTERNAL`. Nothing is left behind
/// then. What there is to say of an item is in the answer.
pub(super) async fn create(visitor: &mut Visitor, asked: Asked, body: &[u8]) -> Result<Made> {
    let Create { leases } = cbor::decode(body)?;
    bounded(leases.len())?;
    let follows = asked.header.has_more();
    let mut undo = Undo::new(visitor, asked.under_way.clone());
    // A task of its own: what is made for a future that is dropped meanwhile has to be known to somebody.
    let making = tokio::spawn(async move {
        let made = undo.make(leases).await;
        let answer = if follows { None } else { Some(asked.answered(&encode(&made)?)?) };
        if answer.is_some() {
            undo.leases.clear();
        }
        Ok((made, undo, answer))
    });
    let (made, undo, answer) = making.await.unwrap_or_else(|_| Err(panicked()))?;
    if made.iter().any(|one| one.as_ref().is_err_and(|error| error.code() == Code::Quota)) {
        visitor.refused_by_quota();
    }
    if let Some(frame) = answer {
        return Ok(Made::Answered(frame));
    }
    let mut items = Vec::with_capacity(made.len());
    for created in made {
        items.push(match created {
            Ok(created) => match open(visitor, &created).await {
                Ok(handle) => Item { created: Ok(created), handle: Some(handle) },
                Err(error) => Item { created: Err(error), handle: None },
            },
            Err(error) => Item { created: Err(error), handle: None },
        });
    }
    let (pieces, data) = (Vec::new(), Vec::new());
    Ok(Made::Filling(Box::new(Filling { items, undo, at: 0, pieces, data, done: 0 })))
}

/// Opens a lease that was just made, for its first bytes.
async fn open(visitor: &mut Visitor, created: &Created) -> Result<SlotHandle> {
    match visitor.open(&created.token, Rights::WRITE, Path::Mediated).await? {
        Answer::Reply(Reply::Opened(opened)) => Ok(opened.handle),
        _ => Err(Error::new(Code::Internal, "an opening was answered with something else")),
    }
}

/// Gives leases back and returns the frame of the answer, which is kept already. To be awaited to its end, as [`create`].
///
/// # Errors
/// `E_FRAME_TYPE` for a body that is none; `E_RANGE` unless there are 1 to 64 items; `E_INTERNAL`.
pub(super) async fn delete(visitor: &Visitor, asked: Asked, body: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let Delete { leases } = cbor::decode(body)?;
    bounded(leases.len())?;
    let (control, caller) = (visitor.shared.control.clone(), visitor.caller());
    let deleting = tokio::spawn(async move {
        let requests = leases.into_iter().map(|lease| Ok(Request::LeaseRelease { lease }));
        let released: Deletions =
            all(&control, caller, requests).await.into_iter().map(|reply| reply.map(drop)).collect();
        let mut body = Vec::new();
        cbor::append(&released, &mut body)?;
        asked.answered(&body)
    });
    deleting.await.unwrap_or_else(|_| Err(panicked()))
}

/// Asks the control plane everything at once, so that what it records becomes durable together. The answers in the order
/// of the requests.
async fn all(
    control: &Arc<dyn ControlPlane>,
    caller: Caller,
    requests: impl Iterator<Item = Result<Request>>,
) -> Vec<Result<Reply>> {
    let (mut replies, mut tasks) = (Vec::new(), JoinSet::new());
    for (at, request) in requests.enumerate() {
        replies.push(match request {
            Ok(request) => {
                let control = control.clone();
                tasks.spawn(async move { (at, control.request(caller, request).await) });
                Err(panicked()) // until it has answered
            }
            Err(error) => Err(error),
        });
    }
    while let Some(done) = tasks.join_next().await {
        if let Ok((at, reply)) = done {
            replies[at] = reply;
        }
    }
    replies
}

const fn panicked() -> Error {
    Error::new(Code::Internal, "a request for leases panicked")
}

/// A value's lease, if it is as large as values are.
fn value(spec: LeaseSpec) -> Result<LeaseSpec> {
    if !(VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&spec.bytes) {
        return Err(Error::new(Code::Range, "a value has 64 KiB to 1 GiB"));
    }
    Ok(spec)
}

/// Leases that were made for a request that is not answered. Dropped, it gives them back, and holds the request's number
/// until that is done.
struct Undo {
    control: Arc<dyn ControlPlane>,
    caller: Caller,
    runtime: Handle,
    under_way: UnderWay,
    leases: Vec<LeaseId>,
}

impl Undo {
    fn new(visitor: &Visitor, under_way: UnderWay) -> Self {
        let (control, caller) = (visitor.shared.control.clone(), visitor.caller());
        Self { control, caller, runtime: Handle::current(), under_way, leases: Vec::new() }
    }

    /// Makes leases, and remembers them.
    async fn make(&mut self, specs: Vec<LeaseSpec>) -> Creations {
        let requests = specs.into_iter().map(|spec| value(spec).map(Request::LeaseCreate));
        let mut made = Creations::new();
        for reply in all(&self.control, self.caller, requests).await {
            made.push(match reply {
                Ok(Reply::Leased { lease, token }) => {
                    self.leases.push(lease.id);
                    Ok(Created { lease, token, written: 0 })
                }
                Ok(_) => Err(Error::new(Code::Internal, "a lease was answered with something else")),
                Err(error) => Err(error),
            });
        }
        made
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let (leases, control) = (std::mem::take(&mut self.leases), self.control.clone());
        let (caller, under_way) = (self.caller, self.under_way.clone());
        self.runtime.spawn(async move {
            give_back(&control, caller, leases).await;
            drop(under_way);
        });
    }
}

/// Gives back leases that nobody was told of. What stands in the way, such as a full audit log, is tried again for a
/// while: nobody else would ask for it.
async fn give_back(control: &Arc<dyn ControlPlane>, caller: Caller, mut leases: Vec<LeaseId>) {
    let mut pause = Duration::from_millis(REMOTE_UNDO_RETRY_MS);
    for attempt in 1..=REMOTE_UNDO_TRIES_MAX {
        let requests = leases.iter().map(|&lease| Ok(Request::LeaseRelease { lease }));
        let mut left = Vec::new();
        for (released, lease) in all(control, caller, requests).await.into_iter().zip(&leases) {
            match released.map_err(|error| error.code()) {
                Ok(_) | Err(Code::LeaseUnknown | Code::LeaseExpired) => {} // it has ended
                Err(code) if attempt == REMOTE_UNDO_TRIES_MAX => {
                    tracing::warn!(
                        ?code,
                        ?lease,
                        "a lease that nobody was told of is kept until its time is over"
                    );
                }
                Err(_) => left.push(*lease),
            }
        }
        if left.is_empty() {
            return;
        }
        leases = left;
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// A lease that was asked for.
struct Item {
    created: Result<Created>,
    /// The right by which its first bytes are written.
    handle: Option<SlotHandle>,
}

/// Leases that are made and whose first bytes come.
pub(super) struct Filling {
    items: Vec<Item>,
    undo: Undo,
    /// Whose bytes came last: those of the ones before are all here.
    at: usize,
    /// What came last, of which `done` pieces were dealt with. Nothing while more is waited for.
    pieces: Vec<(usize, usize)>,
    data: Vec<u8>,
    done: usize,
}

impl Filling {
    /// More first bytes.
    ///
    /// # Errors
    /// `E_RANGE` for pieces of leases that were not asked for, or that go back.
    pub(super) fn feed(&mut self, pieces: &[Piece], data: &[u8]) -> Result<()> {
        self.pieces.clear();
        self.done = 0;
        for piece in pieces {
            let index = piece.index() as usize;
            if index < self.at || index >= self.items.len() {
                return Err(Error::new(Code::Range, "first bytes come in the order of the leases"));
            }
            self.at = index;
            // The pieces of a frame are as long as its bytes.
            self.pieces.push((index, piece.length() as usize));
        }
        self.data = data.to_vec();
        Ok(())
    }

    /// Writes one piece of what came; answers when all of the request did.
    pub(super) fn step(
        &mut self,
        more: bool,
        answer: &Answering,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<Went> {
        if let Some(&(index, length)) = self.pieces.get(self.done) {
            let begin: usize = self.pieces[..self.done].iter().map(|(_, length)| length).sum();
            match self.items[index].write(&self.data[begin..begin + length], visitor) {
                Ok(Progress::Done) => self.done += 1,
                Ok(Progress::Rotating(rotating)) => return Ok(Went::Rotating(rotating)),
                // Narrowed: it is judged again.
                Ok(Progress::Full) => {}
                Err(error) => self.skip(error),
            }
            return Ok(Went::On);
        }
        // All of it was dealt with, and the client may take its time.
        (self.pieces, self.data, self.done) = (Vec::new(), Vec::new(), 0);
        if more {
            return Ok(Went::Wants);
        }
        if !out.has_room() {
            return Ok(Went::Full);
        }
        for item in &mut self.items {
            item.close(visitor);
        }
        let results: Creations = self.items.drain(..).map(|item| item.created).collect();
        let body = encode(&results)?;
        // It is kept by the sink before it leaves, so the leases stay: whoever asks again is told of them. Nobody to tell
        // is no failure.
        let _ = answer.frame(out, false, 0, &[&body], &[]);
        let made = |lease: &LeaseId| results.iter().flatten().any(|created| created.lease.id == *lease);
        self.undo.leases.retain(|lease| !made(lease));
        Ok(Went::Done)
    }

    /// Gives the item up whose bytes are being dealt with.
    pub(super) fn skip(&mut self, error: Error) {
        if let Some(&(index, _)) = self.pieces.get(self.done) {
            self.items[index].created = Err(error);
            self.done += 1;
        }
    }
}

impl Item {
    /// Writes the next of its first bytes, as many as it has room for.
    fn write(&mut self, bytes: &[u8], visitor: &mut Visitor) -> Result<Progress> {
        let (Ok(created), Some(handle)) = (&mut self.created, self.handle) else {
            return Ok(Progress::Done); // nobody reads what comes for it
        };
        let left = created.lease.range.len() - created.written;
        let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        if bytes.is_empty() {
            return Ok(Progress::Done);
        }
        let (offset, length) = (created.written, bytes.len() as u64);
        let session = visitor.opener.session;
        let written = visitor.shared.provider.write(session, handle, offset, bytes, crc32c::crc32c(bytes));
        let asked = Access { rights: Rights::WRITE, offset, bytes: length };
        let progress = written.map_err(|refused| visitor.refused(handle, asked, refused))?;
        if matches!(progress, Progress::Done) {
            created.written += length;
        }
        Ok(progress)
    }

    fn close(&mut self, visitor: &mut Visitor) {
        if let Some(handle) = self.handle.take() {
            // It may have ended with its lease.
            let _ = visitor.shared.provider.close(visitor.opener.session, handle);
        }
    }
}
