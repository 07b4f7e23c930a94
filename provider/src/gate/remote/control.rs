//! The requests of the local socket, worked on beside the shard.
//!
//! Whatever the broker or the audit log decides is waited for, and a shard waits for nothing. So the visitor goes with the
//! request to a task of its own and comes back with the answer; until then its connection is held up. It comes back
//! however the task ends, also when it is given up: a session is over when nobody can open anything in its name.

use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::RequestId;
use caps::wire::request::Path;
use caps::wire::{Reply, Request};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::mailbox::{Letter, Mailbox};
use super::table::Key;
use crate::gate::answered::Identity;
use crate::gate::memory::Answer;
use crate::gate::visitor::Visitor;

/// A visitor with what it asked for.
pub(super) struct Errand {
    pub(super) visitor: Box<Visitor>,
    pub(super) request: RequestId,
    /// `None` for a request that only reads.
    pub(super) identity: Option<Identity>,
    /// `None` if it was given up.
    pub(super) answer: Option<Result<Reply>>,
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

/// Sends an errand off. It is back in the mailbox at the latest after `limit`, or soon after it was aborted.
pub(super) fn send_off(
    runtime: &Handle,
    mailbox: &Arc<Mailbox>,
    key: Key,
    errand: Errand,
    request: Request,
    limit: Duration,
) -> AbortHandle {
    let mut carrier = Carrier { errand: Some(errand), key, mailbox: mailbox.clone() };
    let task = runtime.spawn(async move {
        let Some(errand) = &mut carrier.errand else { return };
        let answered = timeout(limit, answer(&mut errand.visitor, request)).await;
        let late = |_| Err(Error::new(Code::Timeout, "the request was not answered within its deadline"));
        errand.answer = Some(answered.unwrap_or_else(late));
    });
    task.abort_handle()
}

/// Answers one request. What hands out descriptors is the local socket's.
async fn answer(visitor: &mut Visitor, request: Request) -> Result<Reply> {
    let local = || Error::new(Code::Protocol, "this is asked for on the local socket alone");
    match request {
        Request::Open { path: Path::Mapped, .. } => {
            Err(Error::new(Code::MediatedOnly, "memory of another machine cannot be mapped"))
        }
        Request::Open { token, rights, path: Path::Mediated } => {
            reply(visitor.open(&token, rights, Path::Mediated).await?)
        }
        Request::Close { handle } => reply(visitor.close(handle)?),
        Request::Read { .. }
        | Request::Write { .. }
        | Request::Segment { .. }
        | Request::Channel
        | Request::Confine => Err(local()),
        request => visitor.answer(request).await,
    }
}

fn reply(answer: Answer) -> Result<Reply> {
    match answer {
        Answer::Reply(reply) => Ok(reply),
        Answer::WithDescriptor(..) | Answer::Sent => {
            Err(Error::new(Code::Internal, "a mediated right came with a descriptor"))
        }
    }
}
