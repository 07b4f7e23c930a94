//! Which program a client runs: the SHA-256 of its executable, for the log.
//!
//! The file is the client's own, and may lie on a file system that answers when it likes, or never. So it is read on
//! a thread of the blocking pool, never by a worker of the gate; a session waits for it a bounded time and then goes
//! on without; and one user keeps only a few threads busy with it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Most executables whose hash is remembered. A machine runs few programs that lease memory.
const EXE_HASHES_MAX: usize = 64;
/// Largest executable that is hashed, in bytes: hashing runs at over 1 GB/s, and a session's start waits for it once
/// a file.
const EXE_BYTES_MAX: u64 = 256 << 20;
/// How long a session's start waits for the hash, in milliseconds. The hash of a large file is finished all the same,
/// and there for the next session.
const EXE_MS_MAX: u64 = 500;
/// Most threads that read executables of one user's processes at one time. Reading one that is known takes a few
/// microseconds; a user whose file system answers late has these late and nobody else's.
const EXE_READERS_PER_UID_MAX: usize = 4;

/// What this guards: how many readers each user has. Held for an addition.
static READERS: Mutex<Option<HashMap<u32, usize>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A user's place among the readers, given back when dropped.
struct Reader(u32);

impl Reader {
    fn of(uid: u32) -> Option<Self> {
        let mut readers = lock(&READERS);
        let own = readers.get_or_insert_default().entry(uid).or_default();
        (*own < EXE_READERS_PER_UID_MAX).then(|| {
            *own += 1;
            Self(uid)
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = lock(&READERS);
        let readers = readers.get_or_insert_default();
        if let Some(own) = readers.get_mut(&self.0) {
            *own -= 1;
            if *own == 0 {
                readers.remove(&self.0);
            }
        }
    }
}

/// The hash of the executable of process `pid`, which `uid` runs, where it can be had in time.
pub(super) async fn hash(uid: u32, pid: u32) -> Option<[u8; 32]> {
    let reader = Reader::of(uid)?;
    let read = tokio::task::spawn_blocking(move || {
        let _reader = reader;
        read(pid).ok().flatten()
    });
    tokio::time::timeout(Duration::from_millis(EXE_MS_MAX), read).await.ok()?.ok()?
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
fn read(pid: u32) -> io::Result<Option<[u8; 32]>> {
    let file = File::open(format!("/proc/{pid}/exe"))?;
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
    if let Some(hash) = known(&lock(&HASHES)) {
        return Ok(Some(hash));
    }
    if !meta.is_file() || meta.len() > EXE_BYTES_MAX {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    // No further than the bound, should the file grow while it is read.
    let mut file = file.take(EXE_BYTES_MAX);
    while let Some(read) = NonZeroUsize::new(file.read(&mut buffer)?) {
        hasher.update(&buffer[..read.get()]);
    }
    let hash = hasher.finalize().into();
    let mut hashes = lock(&HASHES);
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
    fn our_own_executable_has_a_hash_that_is_remembered() {
        let first = read(std::process::id()).unwrap().unwrap();
        assert_eq!(read(std::process::id()).unwrap(), Some(first));
    }

    #[test]
    fn one_user_has_a_few_readers_and_gives_them_back() {
        let nobody = u32::MAX; // no process of a test runs as it
        let some: Vec<_> = (0..EXE_READERS_PER_UID_MAX).map(|_| Reader::of(nobody).unwrap()).collect();
        assert!(Reader::of(nobody).is_none());
        assert!(Reader::of(nobody - 1).is_some(), "another user's are its own");
        drop(some);
        assert!(Reader::of(nobody).is_some());
    }
}
