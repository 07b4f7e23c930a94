//! The client's end of the rotation channel: one packet in, one answer out, in any thread and in signal handlers.
//!
//! Nothing here allocates, and nothing waits except [`wait`] and, for a node that does not read, the answer.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use caps::error::{Code, Error};
use caps::wire::channel::{MESSAGE_BYTES, Message};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
    SocketType, sockopt,
};

use super::signals::MASK_BYTES;
use super::table::Slot;

/// Bytes of a control message header, whose alignment is that of a `usize`.
const CONTROL_HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<u32>();
/// Room for exactly one descriptor: rounded up, the kernel would put a second one into the padding.
const CONTROL_BYTES: usize = CONTROL_HEADER_BYTES + size_of::<u32>();
/// What must be set aside to find [`CONTROL_BYTES`] aligned ones.
const CONTROL_ROOM_BYTES: usize = CONTROL_BYTES + align_of::<usize>() - 1;
/// How long an answer may wait for room in the channel. Only one is ever under way, so there is room at once unless the
/// node stopped reading, and then it is not waited for.
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// What a look into the channel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// A message. It was carried out and answered.
    Message,
    /// The end: the node is gone, or broke the channel's rules.
    End,
}

/// Whether a received descriptor is a channel at all: a socket that carries packets between processes of this host.
///
/// # Errors
/// `E_FD_TYPE`.
pub(crate) fn check(channel: BorrowedFd<'_>) -> Result<(), Error> {
    let kind = (sockopt::socket_domain(channel), sockopt::socket_type(channel));
    if kind == (Ok(AddressFamily::UNIX), Ok(SocketType::SEQPACKET)) {
        Ok(())
    } else {
        Err(Error::new(Code::DescriptorType, "the rotation channel is not a socket that carries packets"))
    }
}

/// Takes the next message, if there is one, carries it out and answers it. Async-signal-safe; with every signal blocked.
pub(crate) fn take(channel: BorrowedFd<'_>) -> Found {
    let found = receive(channel);
    let (message, descriptor) = match found {
        Ok(Some(packet)) => packet,
        Ok(None) => return Found::Nothing,
        Err(Broken) => return end(channel),
    };
    let (handle, index) = match message {
        Message::Segment { handle, index, .. } | Message::Withdrawn { handle, index } => (handle, index),
        Message::Ended { handle } => (handle, 0),
        // A client's to say, not a node's.
        Message::Ready { .. } | Message::Taken { .. } => return end(channel),
    };
    // A right that is not there any more was closed while the message was under way.
    Slot::with_right(channel.as_raw_fd(), handle, |rotating| rotating.apply(message, descriptor));
    crate::sync::rotation::installed();
    match send(channel, Message::Taken { handle, index }, ANSWER_WAIT) {
        Ok(()) => Found::Message,
        // The node would never send anything again: better to know it now.
        Err(_) => end(channel),
    }
}

/// Sends one message, waiting at most `wait` for room.
///
/// # Errors
/// What the kernel says; `EAGAIN` if there was no room.
pub(crate) fn send(channel: BorrowedFd<'_>, message: Message, wait: Duration) -> Result<(), Errno> {
    let packet = message.encode();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::net::send(channel, &packet, flags) {
        Err(Errno::AGAIN | Errno::INTR) if !wait.is_zero() => {
            poll(channel, libc::POLLOUT, wait, u64::MAX);
            rustix::net::send(channel, &packet, flags).map(drop)
        }
        sent => sent.map(drop),
    }
}

/// Waits until there may be something in the channel, at most `timeout`, with this mask of signals: a handler of the
/// program may run meanwhile. Async-signal-safe.
pub(super) fn wait(channel: BorrowedFd<'_>, timeout: Duration, mask: u64) {
    poll(channel, libc::POLLIN, timeout, mask);
}

fn poll(channel: BorrowedFd<'_>, events: libc::c_short, timeout: Duration, mask: u64) {
    let mut socket = libc::pollfd { fd: channel.as_raw_fd(), events, revents: 0 };
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: one entry, a whole span, and a mask of the size that is said. Whatever comes of it, the caller looks into
    // the channel next.
    unsafe {
        libc::syscall(libc::SYS_ppoll, &raw mut socket, 1, &raw const timeout, &raw const mask, MASK_BYTES);
    }
}

/// Ends the channel for every thread: whoever waits at it wakes and finds the end too.
pub(crate) fn shut(channel: BorrowedFd<'_>) {
    let _ = rustix::net::shutdown(channel, Shutdown::Both); // it fails only if the other end is gone already
}

fn end(channel: BorrowedFd<'_>) -> Found {
    shut(channel);
    Found::End
}

/// The channel is of no use any more.
struct Broken;

/// The next packet, without waiting. A descriptor is handed on only beside a message that announces one, and only if it
/// came alone.
fn receive(channel: BorrowedFd<'_>) -> Result<Option<(Message, Option<OwnedFd>)>, Broken> {
    let mut bytes = [0; MESSAGE_BYTES];
    let mut room = [MaybeUninit::uninit(); CONTROL_ROOM_BYTES];
    let start = room.as_ptr().align_offset(align_of::<usize>());
    let mut control = RecvAncillaryBuffer::new(&mut room[start..start + CONTROL_BYTES]);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        match rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(_) => return Err(Broken),
        };
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptors.for_each(|next| descriptor = Some(next));
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) || received.bytes == 0 {
        return Err(Broken); // too long for a message; or the end of the stream
    }
    let message = Message::decode(&bytes[..received.bytes]).map_err(|_| Broken)?;
    // CTRUNC: more than one was sent, or this process has no room for another descriptor. Either way it is not the
    // segment's file that we hold.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        descriptor = None;
    }
    Ok(Some((message, descriptor)))
}
