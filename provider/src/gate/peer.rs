//! Who is at the other end of a session, and how it died.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

/// Most executables whose hash is remembered. A machine runs few programs that lease memory.
const EXE_HASHES_MAX: usize = 64;
/// Largest executable that is hashed, in bytes: hashing runs at over 1 GB/s, and a session's start waits for it once
/// a file.
const EXE_BYTES_MAX: u64 = 256 << 20;

/// The process that connected. The kernel says so; nothing here is the client's word.
#[derive(Debug)]
pub struct Peer {
    /// Its user id when it connected.
    pub uid: u32,
    /// Its process id when it connected, for people to read. Never used to reach the process.
    pub pid: u32,
    /// The process itself.
    pub pidfd: OwnedFd,
    /// SHA-256 of its executable, where it could be read.
    pub exe: Option<[u8; 32]>,
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
        let exe = exe_hash(pid).ok().flatten();
        Ok(Self { uid: credentials.uid.as_raw(), pid, pidfd, exe })
    }
}

/// What a file is, as far as a hash of it can be reused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// What this guards: the remembered hashes, newest last. Held for a look-up or an insertion, never while hashing.
static HASHES: Mutex<Vec<(Identity, [u8; 32])>> = Mutex::new(Vec::new());

/// The hash of a process' executable. By its pid: should the pid have come to mean another process, the hash is that
/// one's, and the entry it goes into says no more than what was found at that pid.
fn exe_hash(pid: u32) -> io::Result<Option<[u8; 32]>> {
    let mut file = File::open(format!("/proc/{pid}/exe"))?;
    let meta = file.metadata()?;
    let identity = Identity {
        device: meta.dev(),
        inode: meta.ino(),
        bytes: meta.len(),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    let known = |hashes: &Vec<(Identity, [u8; 32])>| {
        hashes.iter().find(|(known, _)| *known == identity).map(|&(_, hash)| hash)
    };
    let lock = || HASHES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(hash) = known(&lock()) {
        return Ok(Some(hash));
    }
    if meta.len() > EXE_BYTES_MAX {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Some(read) = NonZeroUsize::new(file.read(&mut buffer)?) {
        hasher.update(&buffer[..read.get()]);
    }
    let hash = hasher.finalize().into();
    let mut hashes = lock();
    if hashes.len() == EXE_HASHES_MAX {
        hashes.remove(0);
    }
    hashes.push((identity, hash));
    Ok(Some(hash))
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

    #[test]
    fn our_own_executable_has_a_hash_that_is_remembered() {
        let first = exe_hash(std::process::id()).unwrap().unwrap();
        assert_eq!(exe_hash(std::process::id()).unwrap(), Some(first));
    }
}
