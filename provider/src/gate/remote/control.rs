//! What waits for somebody, worked on beside the shard: the requests of the local socket, and leases by the batch.
//!
//! Whatever the broker or the audit log decides is waited for, and a shard waits for nothing. So the visitor goes with the
//! request to a task of its own and comes back with the answer; until then its connection is held up, and what its client
//! sends meanwhile, more frames of the same request among it, is taken afterwards. It comes back however the task ends,
//! also when it is given up: a session is over when nobody can open anything in its name.
//!
//! A request whose effect outlives the connection is not given up with it: its answer is kept in the task, so that who asks
//! again on another connection is told of the effect that there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::time::BootNanos;
use caps::wire::remote::{Flags, Header, Verb};
use caps::wire::request::Path;
use caps::wire::{Reply, Request, cbor};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::effects::UnderWay;
use super::keeping::{Keeping, whole};
use super::leases::{self, Asked, Filling, Made};
use super::mailbox::{Letter, Mailbox};
use super::requests::failure;
use super::table::Key;
use crate::gate::answered::Identity;
use crate::gate::memory::Answer;
use crate::gate::visitor::Visitor;

/// A visitor with what it asked for.
pub(super) struct Errand {
    pub(super) visitor: Box<Visitor>,
    /// Of the request's first frame, which came at `begun`.
    pub(super) header: Header,
    pub(super) begun: BootNanos,
    /// For a request that goes on with more frames: what its answer is kept by.
    pub(super) keeping: Option<Box<Keeping>>,
    /// `None` if it was given up.
    pub(super) outcome: Option<Result<Brought>>,
}

/// What a task asks for.
pub(super) enum Wish {
    /// A request of the local socket. With its number, held, and what it is told apart by, if its effect lasts.
    Control(Box<Request>, Option<(UnderWay, Identity)>),
    /// Leases to be made, as the body says.
    Create(Asked, Vec<u8>),
    /// Leases to be given back.
    Delete(Asked, Vec<u8>),
}

impl Wish {
    /// Whether it is carried to its end, whoever still listens. Leases always are: what is made in a session's name has
    /// to be there before the session is over, or nothing ends it with the session.
    fn lasts(&self) -> bool {
        matches!(self, Self::Control(_, Some(_)) | Self::Create(..) | Self::Delete(..))
    }
}

/// What it came to. What went wrong with the request as a whole is an error instead.
pub(super) enum Brought {
    /// The answer's frame, which is kept already if it is to be.
    Frame(Zeroizing<Vec<u8>>),
    /// Leases that are made and whose first bytes are still to come.
    Filling(Box<Filling>),
}

/// A task with somebody's visitor.
pub(super) struct Task {
    handle: AbortHandle,
    lasts: bool,
}

impl Task {
    /// Nobody waits for it any more: it is given up, unless its effect would outlive the connection.
    pub(super) fn give_up(&self) {
        if !self.lasts {
            self.handle.abort();
        }
    }
}

/// Brings an errand back when dropped.
struct Carrier {
    errand: Option<Errand>,
    key: Key,
    mailbox: Arc<Mailbox>,
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(errand) = self.errand.take() {
            self.mailbox.put(Letter::Back(self.key, Box::new(errand)));
        }
    }
}

/// Sends an errand off. It is back in the mailbox at the latest after `limit`, or soon after it was given up; one whose
/// effect lasts when that is done.
pub(super) fn send_off(
    runtime: &Handle,
    mailbox: &Arc<Mailbox>,
    key: Key,
    errand: Errand,
    wish: Wish,
    limit: Duration,
) -> Task {
    let lasts = wish.lasts();
    let mut carrier = Carrier { errand: Some(errand), key, mailbox: mailbox.clone() };
    let task = runtime.spawn(async move {
        let Some(errand) = &mut carrier.errand else { return };
        errand.outcome = Some(grant(&mut errand.visitor, &errand.header, wish, limit).await);
    });
    Task { handle: task.abort_handle(), lasts }
}

async fn grant(visitor: &mut Visitor, header: &Header, wish: Wish, limit: Duration) -> Result<Brought> {
    let late = || Error::new(Code::Timeout, "the request was not answered within its deadline");
    let begun = Instant::now();
    let in_time = || if begun.elapsed() < limit { Ok(()) } else { Err(late()) };
    match wish {
        Wish::Control(request, kept) => {
            // What lasts is not broken off when the time is over, for the same reasons as below: a lease that ends with
            // the session is made before that is over, and who asks again is told what came of it.
            let lasts = kept.is_some();
            let answer = match lasts {
                true => answer(visitor, *request).await,
                false => timeout(limit, answer(visitor, *request)).await.unwrap_or_else(|_| Err(late())),
            };
            if answer.as_ref().is_err_and(|error| error.code() == Code::Quota) {
                visitor.refused_by_quota();
            }
            let refused =
                |error: &Error| Zeroizing::new(failure(Verb::Control, header.request, error).concat());
            let frame = match &answer {
                // One that fits no frame is told of as well, and that is kept: what was asked for is done.
                Ok(reply) => control_frame(header, reply).unwrap_or_else(|_| {
                    refused(&Error::new(Code::Internal, "it was done, and its answer does not fit a frame"))
                }),
                Err(error) => refused(error),
            };
            // A refusal as well. Only who is told to ask again is not told the same for ever: nothing was done.
            let busy = answer.as_ref().is_err_and(|error| error.code() == Code::Busy);
            if let Some((under_way, identity)) = kept.filter(|_| !busy) {
                under_way.answered(identity, &frame);
            }
            if lasts {
                in_time()?;
            }
            Ok(Brought::Frame(frame))
        }
        // Not broken off when the time is over: the visitor must not come back, and its session end, while something is
        // still made in its name.
        Wish::Create(asked, body) => {
            let made = leases::create(visitor, asked, &body).await;
            in_time()?;
            Ok(match made? {
                Made::Answered(frame) => Brought::Frame(frame),
                Made::Filling(filling) => Brought::Filling(filling),
            })
        }
        Wish::Delete(asked, body) => {
            let deleted = leases::delete(visitor, asked, &body).await;
            in_time()?;
            deleted.map(Brought::Frame)
        }
    }
}

/// A reply with its header before it.
///
/// # Errors
/// `E_FRAME_SIZE` for one that fits no frame.
pub(super) fn control_frame(asked: &Header, reply: &Reply) -> Result<Zeroizing<Vec<u8>>> {
    let mut body = Zeroizing::default();
    cbor::append(reply, &mut body)?;
    Ok(whole(Header::of(Verb::Control, Flags::ANSWER, asked.request, body.len())?, &body))
}

/// Answers one request. What hands out descriptors is the local socket's.
async fn answer(visitor: &mut Visitor, request: Request) -> Result<Reply> {
    match request {
        Request::Open { path: Path::Mapped, .. } => {
            Err(Error::new(Code::MediatedOnly, "memory of another machine cannot be mapped"))
        }
        Request::Open { token, rights, path: Path::Mediated } => {
            reply(visitor.open(&token, rights, Path::Mediated).await?)
        }
        Request::Close { handle } => reply(visitor.close(handle)?),
        // What is the local socket's was refused before.
        request => visitor.answer(request).await,
    }
}

/// Whether this is asked for on the local socket alone: it is about descriptors, or has a verb of its own over TLS.
pub(super) const fn is_local(request: &Request) -> bool {
    matches!(
        request,
        Request::Read { .. }
            | Request::Write { .. }
            | Request::Segment { .. }
            | Request::Channel
            | Request::Confine
    )
}

fn reply(answer: Answer) -> Result<Reply> {
    match answer {
        Answer::Reply(reply) => Ok(reply),
        Answer::WithDescriptor(..) | Answer::Sent => {
            Err(Error::new(Code::Internal, "a mediated right came with a descriptor"))
        }
    }
}
