//! The Unix socket: one packet a call, and never more than the one descriptor that was announced.
//!
//! No call here waits, except [`connect`]: waiting is the business of whoever has a clock ([`crate::Client`] by
//! `poll`, [`crate::aio::Client`] by its runtime).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::limits::FRAME_BYTES_MAX;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use super::protocol::Packet;

/// Longest path of a Unix socket in bytes: the kernel's `sun_path` without its closing zero.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Bytes of a control message header, whose alignment is that of a `usize`.
const CONTROL_HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<u32>();
/// Room for exactly one descriptor. Not rounded up to the alignment, as `CMSG_SPACE` would be: the kernel would put
/// a second descriptor into the padding.
const CONTROL_BYTES: usize = CONTROL_HEADER_BYTES + size_of::<u32>();
/// What must be set aside to find [`CONTROL_BYTES`] aligned ones.
const CONTROL_ROOM_BYTES: usize = CONTROL_BYTES + align_of::<usize>() - 1;

/// A failure of the socket itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not now: wait until the socket is ready.
    NotNow,
    /// The other end is gone.
    HungUp,
    /// A system call that must not fail did.
    System(Errno),
}

impl Failure {
    /// As an error of the session.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::NotNow => Error::new(Code::Timeout, "the node did not answer in time"),
            Self::HungUp => Error::new(Code::Unreachable, "the node hung up"),
            Self::System(errno) => {
                Error::with(Code::System, format!("the socket failed with errno {}", errno.raw_os_error()))
            }
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN | Errno::INTR => Self::NotNow,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::SHUTDOWN => Self::HungUp,
            other => Self::System(other),
        }
    }
}

/// Connects to the socket at `path`, waiting at most `timeout` for a place in the node's queue.
///
/// # Errors
/// `E_UNREACHABLE` if nobody listens there or this user may not connect; `E_TIMEOUT`; `E_RANGE` if the path is too
/// long for a socket; `E_SYSTEM`.
pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<OwnedFd> {
    let too_long = || {
        let bytes = SOCKET_PATH_BYTES_MAX;
        Error::with(Code::Range, format!("the path of a socket has at most {bytes} bytes and no zero byte"))
    };
    // The kernel would take one byte more, without the closing zero; a node cannot bind there.
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(too_long());
    }
    let address = SocketAddrUnix::new(path).map_err(|_| too_long())?;
    let system = |errno: Errno| Failure::System(errno).error();
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(system)?;
    // The one wait that `poll` cannot do: connect(2) on a Unix socket blocks while the listener's queue is full.
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout)).map_err(system)?;
    match rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address)) {
        Ok(()) => Ok(socket),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => {
            Err(Error::new(Code::Unreachable, "no node listens on this socket"))
        }
        Err(Errno::ACCESS | Errno::PERM) => {
            Err(Error::new(Code::Unreachable, "this user may not connect to the node's socket"))
        }
        Err(Errno::PROTOTYPE | Errno::NOTSOCK) => {
            Err(Error::new(Code::Unreachable, "what is at this path is not a node's socket"))
        }
        Err(Errno::AGAIN) => Err(Error::new(Code::Timeout, "the node did not take the connection in time")),
        Err(errno) => Err(system(errno)),
    }
}

/// Sends one packet, whole or not at all.
pub(crate) fn send(socket: impl AsFd, packet: &[u8]) -> Result<(), Failure> {
    // A SEQPACKET socket takes a packet whole, so the count says nothing.
    rustix::net::send(socket, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// Receives one packet into `buffer`.
///
/// Without `descriptor_may_come` there is no control buffer at all: a descriptor that a lying node attaches is
/// dropped by the kernel and never enters this process.
pub(crate) fn receive<'a>(
    socket: impl AsFd,
    buffer: &'a mut [u8; FRAME_BYTES_MAX],
    descriptor_may_come: bool,
) -> Result<Packet<'a>, Failure> {
    let mut room = [MaybeUninit::uninit(); CONTROL_ROOM_BYTES];
    let start = room.as_ptr().align_offset(align_of::<usize>());
    let mut control = if descriptor_may_come {
        RecvAncillaryBuffer::new(&mut room[start..start + CONTROL_BYTES])
    } else {
        RecvAncillaryBuffer::default()
    };
    let mut receive = || {
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags)
    };
    let received = match receive() {
        // Said once, when the node closed with requests of ours unread. Its answers may still lie behind it.
        Err(Errno::CONNRESET) => receive()?,
        received => received?,
    };
    // Dropping what the iterator yields closes it; all but the first go that way, should the kernel ever deliver
    // more than there is room for.
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut batch| batch.next());
    let extra = descriptors.flatten().count() > 0;
    if received.bytes == 0 {
        return Err(Failure::HungUp); // no frame is empty, so this is the end of the stream
    }
    Ok(Packet {
        bytes: &buffer[..received.bytes],
        descriptor,
        payload_cut: received.flags.contains(ReturnFlags::TRUNC),
        descriptors_cut: extra || received.flags.contains(ReturnFlags::CTRUNC),
    })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn buffer() -> Box<[u8; FRAME_BYTES_MAX]> {
        vec![0; FRAME_BYTES_MAX].try_into().unwrap()
    }

    fn send_with(socket: &OwnedFd, descriptors: usize) {
        let files: Vec<OwnedFd> =
            (0..descriptors).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
        rustix::net::sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    #[test]
    fn one_descriptor_arrives_where_it_was_announced_and_a_second_never_does() {
        for (sent, expected_some, expected_cut) in [(1, true, false), (2, true, true), (8, true, true)] {
            let (near, far) = pair();
            send_with(&far, sent);
            let mut buffer = buffer();
            let packet = receive(&near, &mut buffer, true).unwrap();
            assert_eq!(packet.descriptor.is_some(), expected_some, "{sent} sent");
            assert_eq!(packet.descriptors_cut, expected_cut, "{sent} sent");
            if let Some(descriptor) = packet.descriptor {
                let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
    }

    #[test]
    fn an_unannounced_descriptor_never_enters_the_process() {
        let (near, far) = pair();
        send_with(&far, 1);
        let mut buffer = buffer();
        let packet = receive(&near, &mut buffer, false).unwrap();
        assert!(packet.descriptor.is_none() && packet.descriptors_cut);
    }

    #[test]
    fn nothing_waits_and_a_hang_up_is_seen() {
        let (near, far) = pair();
        let mut buffer = buffer();
        assert_eq!(receive(&near, &mut buffer, false).err(), Some(Failure::NotNow));
        drop(far);
        assert_eq!(receive(&near, &mut buffer, false).err(), Some(Failure::HungUp));
        assert_eq!(send(&near, b"x").err(), Some(Failure::HungUp));
    }

    #[test]
    fn a_packet_over_the_bound_is_marked() {
        let (near, far) = pair();
        rustix::net::send(&far, &vec![0; FRAME_BYTES_MAX + 1], SendFlags::NOSIGNAL).unwrap();
        let mut buffer = buffer();
        assert!(receive(&near, &mut buffer, false).unwrap().payload_cut);
    }

    #[test]
    fn connecting_says_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let second = Duration::from_secs(1);
        let code = |path: &Path| connect(path, second).err().unwrap().code();
        assert_eq!(code(&directory.path().join("nobody")), Code::Unreachable);
        assert_eq!(code(Path::new(&"x".repeat(SOCKET_PATH_BYTES_MAX + 1))), Code::Range);
        let file = directory.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(code(&file), Code::Unreachable);
        let stream = directory.path().join("stream");
        let _listener = std::os::unix::net::UnixListener::bind(&stream).unwrap();
        assert_eq!(code(&stream), Code::Unreachable);
    }
}
