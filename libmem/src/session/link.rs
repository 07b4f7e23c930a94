//! The socket and the protocol together, without ever waiting.
//!
//! Both clients and everything that was opened hold the link in an `Arc`, so a mapping outlives the client that made
//! it, and the session ends with the last of them.
//!
//! Dropping an opened right must tell the node, and a `drop` must not wait: [`Link::close`] sends the request without
//! waiting for its answer, which is taken off the socket by whoever asks next.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::limits::FRAME_BYTES_MAX;
use caps::wire::Request;
use caps::wire::channel::Message;

use super::hangup::Hangup;
use super::protocol::{Answer, Protocol};
use super::socket::{self, Failure};
use crate::guard::{Rotation, channel};
use crate::mapping::Revocation;

/// Most closings in flight that nobody has taken the answers of. Half of what may be outstanding at all, so that
/// closing never keeps a request from being sent.
const CLOSINGS_MAX: usize = super::protocol::OUTSTANDING_MAX / 2;

const NO_CHANNEL: Error = Error::new(Code::Protocol, "the session has no rotation channel");

/// What a mapping of this session is made with.
pub(crate) struct Watched {
    pub(crate) revocation: Revocation,
    pub(crate) rotation: Rotation,
}

/// A session's connection.
pub(crate) struct Link {
    socket: Arc<OwnedFd>,
    hangup: Arc<Hangup>,
    /// The rotation channel, from the first mapping on.
    channel: OnceLock<Arc<OwnedFd>>,
    /// How long an access waits for a fresh segment.
    rotation_wait: Duration,
    wire: Mutex<Wire>,
    /// The process that connected. A forked child that drops its copy must not end its parent's session.
    process: u32,
    /// Whether another program goes on with the session, which this one must then not end.
    handed_over: AtomicBool,
}

struct Wire {
    protocol: Protocol,
    buffer: Box<[u8; FRAME_BYTES_MAX]>,
    /// Rights that were dropped and could not yet be closed.
    to_close: Vec<SlotHandle>,
}

/// A request that is on its way. Dropping it gives the answer up.
pub(crate) struct Ticket<'a> {
    link: &'a Link,
    id: RequestId,
    done: bool,
}

impl Link {
    /// A session over `socket`, whose mappings wait at most `rotation_wait` for a fresh segment.
    pub(crate) fn new(socket: OwnedFd, rotation_wait: Duration) -> Self {
        let buffer =
            vec![0; FRAME_BYTES_MAX].try_into().unwrap_or_else(|_| unreachable!("the lengths agree"));
        Self {
            socket: Arc::new(socket),
            hangup: Arc::new(Hangup::new()),
            channel: OnceLock::new(),
            rotation_wait,
            wire: Mutex::new(Wire { protocol: Protocol::new(), buffer, to_close: Vec::new() }),
            process: std::process::id(),
            handed_over: AtomicBool::new(false),
        }
    }

    /// The socket, to wait on.
    pub(crate) fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// A copy of the socket for the program that goes on with the session. Dropping this link does not end it then.
    ///
    /// # Errors
    /// `E_SYSTEM` if there is no descriptor to be had.
    pub(crate) fn hand_over(&self) -> Result<OwnedFd> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&*self.socket, 0)
            .map_err(|errno| Failure::System(errno).error())?;
        self.handed_over.store(true, Ordering::Relaxed); // read by the drop, which no other thread is beside
        Ok(socket)
    }

    /// Whether the session has its rotation channel.
    pub(crate) fn has_channel(&self) -> bool {
        self.channel.get().is_some()
    }

    /// Keeps what the node sent as the session's rotation channel. Whoever asked: the caller may have given up.
    ///
    /// # Errors
    /// `E_FD_TYPE` if it is none.
    pub(crate) fn keep_channel(&self, answer: &mut Answer) -> Result<()> {
        let Some(descriptor) = answer.take_channel() else { return Ok(()) };
        channel::check(descriptor.as_fd())?;
        // A second one is closed: the mappings there are hear of the first.
        let _ = self.channel.set(Arc::new(descriptor));
        Ok(())
    }

    /// What the mapping of `handle` must know: a flag that is set when the node hangs up, even if nobody asks it
    /// anything by then, and where its fresh segments come from.
    ///
    /// # Errors
    /// `E_SYSTEM` if there is no thread to be had that would notice; `E_PROTOCOL` without a channel.
    pub(crate) fn watch(&self, handle: SlotHandle, first: u32, segment_bytes: usize) -> Result<Watched> {
        let channel = self.channel.get().ok_or(NO_CHANNEL)?.clone();
        self.hangup.watch(&self.socket, &channel)?;
        let rotation = Rotation { channel, handle, first, segment_bytes, wait: self.rotation_wait };
        Ok(Watched { revocation: self.hangup.add(handle), rotation })
    }

    /// The segments of `handle` are mapped and registered: from now on the node tells what becomes of them, beginning
    /// with what changed since it handed them out.
    ///
    /// # Errors
    /// `E_PROTOCOL` without a channel; `E_UNREACHABLE` if the node is gone or does not read.
    pub(crate) fn ready(&self, handle: SlotHandle) -> Result<()> {
        let channel = self.channel.get().ok_or(NO_CHANNEL)?;
        // A node that reads has room for it at once; one that does not will not rotate either.
        channel::send(channel.as_fd(), Message::Ready { handle }, Duration::ZERO)
            .map_err(|_| Error::new(Code::Unreachable, "the node does not read the rotation channel"))
    }

    /// Sends a request. `Ok(None)`: the socket is full, wait until it is writable.
    ///
    /// # Errors
    /// What broke the session, or `E_BUSY`.
    pub(crate) fn send(&self, request: &Request) -> Result<Option<Ticket<'_>>> {
        let mut wire = self.wire();
        self.flush(&mut wire);
        let outgoing = wire.protocol.encode(request)?;
        match socket::send(&self.socket, &outgoing.bytes) {
            Ok(()) => {
                let id = wire.protocol.sent(&outgoing, true);
                Ok(Some(Ticket { link: self, id, done: false }))
            }
            Err(Failure::NotNow) => Ok(None),
            Err(failure) => Err(self.failed(&mut wire, failure)),
        }
    }

    /// Closes a right that nobody holds any more. Never waits and never fails: a session that is gone has no rights.
    /// A forked child closes nothing: the right is its parent's, and so is the socket.
    pub(crate) fn close(&self, handle: SlotHandle) {
        if self.process != std::process::id() {
            return;
        }
        self.hangup.remove(handle);
        let mut wire = self.wire();
        wire.to_close.push(handle);
        self.flush(&mut wire);
    }

    /// Takes answers off the socket until request `id` is answered. `Ok(None)`: not yet, wait until it is readable.
    fn answer(&self, id: RequestId) -> Result<Option<Answer>> {
        let mut wire = self.wire();
        loop {
            let Some(mut answer) = self.next(&mut wire)? else { return Ok(None) };
            if answer.is_for(id) {
                self.flush(&mut wire);
                return Ok(Some(answer));
            }
            self.orphan(&mut wire, &mut answer);
        }
    }

    /// An answer that nobody waits for any more. A channel is kept: the node gives it once.
    fn orphan(&self, wire: &mut Wire, answer: &mut Answer) {
        let _ = self.keep_channel(answer); // what is no channel is closed; the next mapping asks again
        wire.to_close.extend(answer.orphan());
    }

    fn next(&self, wire: &mut Wire) -> Result<Option<Answer>> {
        let Wire { protocol, buffer, .. } = wire;
        match socket::receive(&self.socket, buffer, protocol.descriptor_may_come()) {
            Ok(packet) => protocol.receive(packet).map(Some).inspect_err(|_| self.hangup.happened()),
            Err(Failure::NotNow) => Ok(None),
            Err(failure) => Err(self.failed(wire, failure)),
        }
    }

    /// Sends what is to be closed, as far as it goes without waiting.
    fn flush(&self, wire: &mut Wire) {
        while let Some(&handle) = wire.to_close.last() {
            if wire.protocol.outstanding() >= CLOSINGS_MAX {
                // A waiting caller takes the answers in order; only where there is none may they be taken here.
                if wire.protocol.anybody_waits() {
                    return;
                }
                let Ok(Some(mut answer)) = self.next(wire) else { return };
                self.orphan(wire, &mut answer);
                continue;
            }
            let Ok(outgoing) = wire.protocol.encode(&Request::Close { handle }) else {
                return wire.to_close.clear(); // broken: every right ended with the session
            };
            match socket::send(&self.socket, &outgoing.bytes) {
                Ok(()) => {
                    wire.protocol.sent(&outgoing, false);
                    wire.to_close.pop();
                }
                Err(_) => return,
            }
        }
    }

    /// The socket failed. If the node hung up, its last words may still lie in the socket: they say why.
    fn failed(&self, wire: &mut Wire, failure: Failure) -> Error {
        if failure == Failure::HungUp {
            let Wire { protocol, buffer, .. } = wire;
            while let Ok(packet) = socket::receive(&self.socket, buffer, protocol.descriptor_may_come()) {
                if protocol.receive(packet).is_err() {
                    break;
                }
            }
        }
        self.hangup.happened();
        wire.protocol.break_with(failure.error())
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        // No code under this lock panics in the middle of a change, so a poisoned lock holds a whole value.
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Wakes the watching thread, which holds the socket too. A forked child shares the socket with its parent
        // and leaves it alone.
        if self.process == std::process::id() && !*self.handed_over.get_mut() {
            let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
        }
    }
}

impl Ticket<'_> {
    /// The answer, if it is there. `Ok(None)`: wait until the socket is readable, then ask again.
    ///
    /// # Errors
    /// What broke the session; `E_UNCERTAIN` if it broke while a change was under way.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>> {
        match self.link.answer(self.id) {
            Ok(None) => Ok(None),
            Ok(answer) => {
                self.done = true;
                Ok(answer)
            }
            Err(error) if error.code() == Code::Unreachable => Err(self.abandon(error)),
            Err(error) => {
                self.done = true;
                Err(error)
            }
        }
    }

    /// Gives the answer up after waiting long enough.
    pub(crate) fn give_up(mut self) -> Error {
        self.abandon(Failure::NotNow.error())
    }

    fn abandon(&mut self, error: Error) -> Error {
        self.done = true;
        self.link.wire().protocol.abandon(self.id, error)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.link.wire().protocol.abandon(self.id, Code::Timeout.into());
        }
    }
}
