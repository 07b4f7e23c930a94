//! Who is at the other end of a session, and how it died.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The process that connected. The kernel says so; nothing here is the client's word.
#[derive(Debug)]
pub struct Peer {
    /// Its user id when it connected.
    pub uid: u32,
    /// Its process id when it connected, for people to read. Never used to reach the process.
    pub pid: u32,
    /// The process itself.
    pub pidfd: OwnedFd,
}

/// How a process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this status.
    Status(u8),
    /// This signal ended it.
    Signal(u8),
}

impl Exit {
    /// Reads a wait status (wait(2)).
    pub(super) fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Status((status >> 8) as u8),
            signal => Self::Signal(signal as u8), // seven bits
        }
    }
}

impl Peer {
    /// Asks the kernel who connected.
    ///
    /// # Errors
    /// Whatever the kernel says if the peer is gone already.
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        let credentials = rustix::net::sockopt::socket_peercred(&socket)?;
        let pid = credentials.pid.as_raw_nonzero().get().unsigned_abs();
        let pidfd = crate::sys::peer_pidfd(socket.as_fd())?;
        Ok(Self { uid: credentials.uid.as_raw(), pid, pidfd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_read_as_wait_2_says() {
        assert_eq!(Exit::from_wait_status(0), Exit::Status(0));
        assert_eq!(Exit::from_wait_status(3 << 8), Exit::Status(3));
        assert_eq!(Exit::from_wait_status(libc::SIGBUS), Exit::Signal(7));
        assert_eq!(Exit::from_wait_status(libc::SIGSEGV | 0x80), Exit::Signal(11), "with a core dump");
    }
}
