//! The other process: a client that receives descriptors, does what its script says, and reports.

use std::ffi::c_void;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::harness::{become_user, in_child};

/// A line between two processes: single bytes, and descriptors.
pub(crate) struct Line(OwnedFd);

impl Line {
    pub(crate) fn pair() -> (Self, Self) {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Self(a), Self(b))
    }

    pub(crate) fn say(&self, word: u8) {
        assert_eq!(rustix::net::send(&self.0, &[word], SendFlags::NOSIGNAL).unwrap(), 1);
    }

    /// Waits for a word and checks that it is the expected one.
    pub(crate) fn hear(&self, expected: u8) {
        let mut word = [0];
        let (_, n) = rustix::net::recv(&self.0, &mut word, RecvFlags::empty()).unwrap();
        assert_eq!(
            (n, word[0] as char),
            (1, expected as char),
            "the other side said something else, or died"
        );
    }

    pub(crate) fn give(&self, descriptor: BorrowedFd<'_>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&self.0, &[IoSlice::new(b"d")], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn take(&self) -> OwnedFd {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0];
        recvmsg(&self.0, &mut [IoSliceMut::new(&mut word)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut parts = control.drain();
        let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = parts.next() else {
            panic!("no descriptor came")
        };
        descriptors.next().unwrap()
    }
}

/// A client process.
pub(crate) struct Client {
    pub(crate) pid: Pid,
    pub(crate) line: Line,
}

impl Client {
    /// Forks a client of user `uid` (if this process may choose) that runs `script`. Fork clients before the factory.
    pub(crate) fn fork(uid: u32, script: impl FnOnce(&Line)) -> Self {
        let (ours, theirs) = Line::pair();
        let pid = in_child(|| {
            // The child's copy of our end must close, or it would never see the end of the line.
            // SAFETY: closes the child's copy of a descriptor that the child does not use; it leaves through _exit.
            unsafe { libc::close(ours.0.as_raw_fd()) };
            if Uid::effective().is_root() && uid != 0 {
                become_user(uid);
            }
            // SAFETY: prctl(PR_SET_PDEATHSIG) takes numbers only. A failed test leaves no client behind.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            script(&theirs);
        });
        Self { pid, line: ours }
    }
}

impl Client {
    /// Waits for the client's end and checks that its script ran to its end.
    pub(crate) fn succeeds(self) {
        assert_eq!(waitpid(self.pid, None).unwrap(), WaitStatus::Exited(self.pid, 0));
    }

    /// Waits for the client's end and checks that it died of SIGBUS.
    pub(crate) fn dies_of_sigbus(self) {
        let status = waitpid(self.pid, None).unwrap();
        assert!(matches!(status, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGBUS, _)), "{status:?}");
    }
}

/// Maps `len` bytes.
pub(crate) fn map(fd: impl AsFd, len: usize, prot: i32) -> Result<*mut u8, i32> {
    // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
    let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_fd().as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(errno()) } else { Ok(at.cast()) }
}

pub(crate) const READ: i32 = libc::PROT_READ;
pub(crate) const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

pub(crate) fn load(at: *mut u8, offset: usize) -> u8 {
    // SAFETY: tests pass mappings they made and offsets inside; a cut mapping raises SIGBUS, which is the point.
    unsafe { at.add(offset).read_volatile() }
}

pub(crate) fn store(at: *mut u8, offset: usize, byte: u8) {
    // SAFETY: as for `load`, with mappings made for writing.
    unsafe { at.add(offset).write_volatile(byte) }
}

pub(crate) fn void(at: *mut u8) -> *mut c_void {
    at.cast()
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// The errno of a failed call, or panics because it worked.
#[track_caller]
pub(crate) fn refused(what: &str, result: i64) -> i32 {
    let errno = errno();
    assert!(result < 0, "{what} must fail, and returned {result}");
    errno
}
