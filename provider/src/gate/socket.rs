//! Packets in and out of one session's socket.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use caps::error::{Code, Error};
use caps::limits::FRAME_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::unix::AsyncFd;

thread_local! {
    /// One buffer a worker thread, not one a session: ten thousand idle sessions hold no buffers. It is only
    /// borrowed between two awaits.
    static PACKET: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRAME_BYTES_MAX + 1].into_boxed_slice());
}

/// A session's socket.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Takes over a connected, non-blocking socket.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(crate::sys::watch(fd)?))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }

    /// Receives one packet and decodes it with `decode`; `None` when the client hung up.
    ///
    /// There is no room for control data: the kernel drops descriptors that a client sends instead of installing
    /// them here, where closing one of a client's own file system could hang.
    pub(super) async fn receive<T>(&self, decode: impl Fn(&[u8]) -> T) -> io::Result<Option<T>> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| {
                PACKET.with_borrow_mut(|packet| {
                    let (received, _) =
                        rustix::net::recv(socket.get_ref(), &mut packet[..], RecvFlags::DONTWAIT)?;
                    // An empty packet and the end both read as nothing; only the end leaves the socket hung up.
                    let is_end = received == 0 && has_hung_up(socket.get_ref().as_fd());
                    Ok((!is_end).then(|| decode(&packet[..received])))
                })
            });
            match received {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }

    /// Whether the client has read everything that was sent. The kernel counts descriptors in flight per user, so
    /// the next one is sent only when none is.
    fn is_drained(&self) -> bool {
        // SIOCOUTQ on a Unix socket: what the peer has not read (unix(7), net/unix/af_unix.c unix_outq_len). It wakes us
        // while it frees a packet, whose last byte it takes off the count just after (net/core/sock.c sock_wfree); the
        // packet's descriptors are off theirs by then, and no packet counts for a single byte.
        crate::sys::unread_bytes(self.as_fd()).is_ok_and(|bytes| bytes <= 1)
    }

    /// Waits until the client has read everything that was sent.
    pub(super) async fn drained(&self) -> io::Result<()> {
        loop {
            // The kernel says that a socket is writable each time its peer has read a packet. What it says between
            // here and `clear_ready` is not cleared, so no reading is missed.
            let mut ready = self.0.writable().await?;
            if self.is_drained() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Tries to send one packet now; `false` if the socket's buffer is full.
    pub(super) fn try_send(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match descriptor {
            None => rustix::net::send(self.as_fd(), packet, flags),
            Some(descriptor) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [descriptor];
                let fits = control.push(SendAncillaryMessage::ScmRights(&descriptors));
                debug_assert!(fits, "the space is for one descriptor");
                rustix::net::sendmsg(self.as_fd(), &[io::IoSlice::new(packet)], &mut control, flags)
            }
        };
        match sent {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a packet may fit.
    pub(super) async fn writable(&self) -> io::Result<()> {
        let mut ready = self.0.writable().await?;
        ready.clear_ready();
        Ok(())
    }

    /// Sends one packet, waiting for room.
    pub(super) async fn send(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        while !self.try_send(packet, descriptor)? {
            self.writable().await?;
        }
        Ok(())
    }

    /// Ends the connection in both directions: what is not sent yet never leaves.
    pub(super) fn shut_down(&self) {
        let _ = rustix::net::shutdown(self.as_fd(), rustix::net::Shutdown::Both); // it may be gone already
    }
}

/// Whether the other side will send nothing more.
fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut sockets = [PollFd::new(&socket, PollFlags::RDHUP)];
    // HUP and ERR are reported unasked. A poll that fails cannot tell: the session ends, which is safe.
    poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_or(true, |ready| ready > 0)
}

/// An error of the socket, as a client would be told if it could be told anything.
pub(super) fn lost(_: io::Error) -> Error {
    Error::new(Code::Unreachable, "the client's socket failed")
}
