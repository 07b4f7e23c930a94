//! One message with at most one descriptor over a `SOCK_SEQPACKET` pair.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A connected pair: datagrams that keep their borders and an end that shows when the other is gone.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message, with a descriptor if there is one.
pub(super) fn send<T: IntoBytes + Immutable>(
    socket: impl AsFd,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|fd| [fd]);
    if let Some(descriptors) = &descriptors {
        // One descriptor always fits: the space above was computed for one.
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let iov = [IoSlice::new(message.as_bytes())];
    // NOSIGNAL: a dead peer is an error to return, never a SIGPIPE.
    let sent = retry_on_intr(|| sendmsg(&socket, &iov, &mut control, SendFlags::NOSIGNAL))?;
    if sent == size_of::<T>() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one message of exactly the size of `T`, and the descriptor that came with it. `Ok(None)` is the end.
pub(super) fn receive<T: FromBytes + IntoBytes + KnownLayout>(
    socket: impl AsFd,
) -> Result<Option<(T, Option<OwnedFd>)>> {
    let mut message = T::new_zeroed();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(message.as_mut_bytes())],
            &mut control,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC,
        )
    })?;
    let mut descriptor = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = part {
            for fd in descriptors {
                // A space for one can hold two because of alignment; the factory never sends two.
                descriptor = Some(fd);
            }
        }
    }
    match received.bytes {
        0 => Ok(None),
        n if n == size_of::<T>() => Ok(Some((message, descriptor))),
        _ => Err(Errno::MSGSIZE),
    }
}

/// Receives one message without room for descriptors: whatever the peer attached is dropped by the kernel, never by
/// us. `Ok(None)` is the end.
pub(super) fn receive_plain<T: FromBytes + IntoBytes + KnownLayout>(socket: impl AsFd) -> Result<Option<T>> {
    receive_with(socket, RecvFlags::empty())
}

/// The message that [`receive_plain`] would receive next, which stays where it is. [`Errno::AGAIN`] if there is none.
pub(super) fn peek<T: FromBytes + IntoBytes + KnownLayout>(socket: impl AsFd) -> Result<Option<T>> {
    receive_with(socket, RecvFlags::PEEK | RecvFlags::DONTWAIT)
}

fn receive_with<T: FromBytes + IntoBytes + KnownLayout>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<Option<T>> {
    let mut message = T::new_zeroed();
    let (_, received) =
        retry_on_intr(|| rustix::net::recv(&socket, message.as_mut_bytes(), flags | RecvFlags::TRUNC))?;
    match received {
        0 => Ok(None),
        n if n == size_of::<T>() => Ok(Some(message)),
        _ => Err(Errno::MSGSIZE),
    }
}
