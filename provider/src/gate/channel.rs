//! A session's rotation channel: [`caps::wire::channel`] from the node's side.
//!
//! ```text
//! Post ──letter──▶ deliver ──▶ send ──▶ wait for Taken ──▶ the next letter
//!                  Ready ──▶ Provider::listen ──▶ Post
//! ```
//! One message at a time, so at most one descriptor is under way to a client, whatever it does. A client that does not
//! take its message gets no other, and nobody waits for it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::wire::channel::Message;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::task::AbortHandle;

use super::socket::{Socket, lost};
use crate::runtime::{Post, Provider};

/// A channel that is served. Dropping it hangs up.
pub(super) struct Channel(AbortHandle);

impl Drop for Channel {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Channel {
    /// Makes a channel and serves it until it is dropped or the client breaks its rules. Second: the client's end.
    ///
    /// # Errors
    /// `E_BUSY` if there is no descriptor for it.
    pub(super) fn open(provider: Provider, session: u64, post: Arc<Post>) -> Result<(Self, OwnedFd)> {
        let busy = || Error::new(Code::Busy, "the node has no descriptor for a rotation channel");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(|_| busy())?;
        crate::sys::refuse_descriptors(ours.as_fd());
        let socket = Socket::new(ours).map_err(|_| busy())?;
        let served = tokio::spawn(async move {
            if let Err(error) = serve(&provider, session, &socket, &post).await {
                tracing::debug!(%error, session, "a rotation channel ended");
            }
            // Hung up: every mapping of the session takes that for the end of its memory.
        });
        Ok((Self(served.abort_handle()), theirs))
    }
}

async fn serve(provider: &Provider, session: u64, socket: &Socket, post: &Post) -> Result<()> {
    // What the client has to say before it is told anything else.
    let mut awaited: Option<(SlotHandle, u32)> = None;
    loop {
        if post.is_overrun() {
            return Err(Error::new(Code::Protocol, "more ends than a session has rights were not read"));
        }
        while awaited.is_none()
            && let Some(letter) = post.next()
        {
            if let Some(delivery) = provider.deliver(letter).await {
                let beside = delivery.descriptor.as_ref().map(AsFd::as_fd);
                socket.send(&delivery.message.encode(), beside).await.map_err(lost)?;
                awaited = subject(delivery.message);
            }
        }
        tokio::select! {
            received = socket.receive(Message::decode) => {
                match received.map_err(lost)?.transpose()? {
                    None => return Ok(()),
                    Some(Message::Ready { handle }) => provider.listen(session, handle)?,
                    Some(Message::Taken { handle, index }) if awaited == Some((handle, index)) => awaited = None,
                    Some(_) => return Err(Error::new(Code::Protocol, "not what the channel's order asks for")),
                }
            }
            () = post.wait(), if awaited.is_none() => {}
        }
    }
}

/// What the answer to a message names.
const fn subject(message: Message) -> Option<(SlotHandle, u32)> {
    match message {
        Message::Segment { handle, index, .. } | Message::Withdrawn { handle, index } => {
            Some((handle, index))
        }
        Message::Ended { handle } => Some((handle, 0)),
        Message::Ready { .. } | Message::Taken { .. } => None,
    }
}
