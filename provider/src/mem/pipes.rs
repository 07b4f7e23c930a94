//! The weaker hold on a region's pages: pipes, where io_uring is not to be had or may pin no more.
//!
//! ```text
//!   file ── splice ──▶ pipe ── a reference to each page ──▶ the page, cut or not ── splice ──▶ a fresh file
//! ```
//! A page in a pipe stays after the cut has taken it out of the file, with every store that was made to it until then,
//! so that a rotation loses nothing. But nobody can write *into* a page through a pipe: what a hostile holder pinned for
//! itself cannot be wiped, and is readable to it until it lets go. `doctor` says so.
//!
//! An ordinary user may have 16,384 pages in pipes by default (`pipe-user-pages-soft`), all its programs together, and
//! pipes made beyond that are tiny; so a node of an ordinary user holds half of that at most.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caps::error::{Code, Error, Result};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::factory::failed;

/// Bytes of a pipe that everybody may have (`pipe-max-size`).
const PIPE_BYTES_USUAL: usize = 1 << 20;
/// Bytes of a pipe where the node may have larger ones (`CAP_SYS_RESOURCE`), so that 1 GiB takes 16 of them.
const PIPE_BYTES_LARGE: usize = 64 << 20;
/// Bytes in pipes of all regions, for a node that may not have larger ones: see the module's documentation.
const HELD_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one splice.
const STEP_BYTES_MAX: usize = 1 << 20;

/// What the pipes of one node hold, and may.
#[derive(Debug)]
pub(super) struct PipeTable {
    pipe_bytes: usize,
    bytes_max: u64,
    held: AtomicU64,
}

impl PipeTable {
    /// Finds out which pipes this process may have.
    ///
    /// # Errors
    ///
    /// [`Code::System`] or [`Code::Busy`] if it may have none.
    pub(super) fn new() -> Result<Arc<Self>> {
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let (pipe_bytes, bytes_max) = match fcntl_setpipe_size(&writer, PIPE_BYTES_LARGE) {
            Ok(_) => (PIPE_BYTES_LARGE, u64::MAX),
            Err(_) => (PIPE_BYTES_USUAL, HELD_BYTES_MAX),
        };
        Ok(Arc::new(Self { pipe_bytes, bytes_max, held: AtomicU64::new(0) }))
    }

    /// Holds the pages of `file` from `start` to its end at `len`. They are present: of a page that is only committed
    /// a pipe would hold zeros of its own.
    ///
    /// # Errors
    ///
    /// [`Code::NoMemory`] beyond what may be held; [`Code::Busy`] when descriptors run out; [`Code::System`].
    pub(super) fn hold(self: &Arc<Self>, file: BorrowedFd<'_>, start: usize, len: usize) -> Result<Held> {
        let bytes = (len - start) as u64;
        let room = |held: u64| held.checked_add(bytes).filter(|&all| all <= self.bytes_max);
        if self.held.try_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            return Err(Error::new(Code::NoMemory, "no more pages may be held by pipes"));
        }
        let mut held = Held { table: self.clone(), pipes: Vec::new(), start, bytes };
        let mut done = start;
        while done < len {
            let pipe = Pipe::filled(file, done, (len - done).min(self.pipe_bytes))?;
            done += pipe.bytes;
            held.pipes.push(pipe);
        }
        Ok(held)
    }
}

/// One pipe and what is in it.
#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    /// Never read from: a pipe whose writer is closed would do as well, but then nobody could say how full it is.
    _writer: OwnedFd,
    bytes: usize,
}

impl Pipe {
    /// A pipe with at most `wanted` bytes of `file` from `offset` on, and at least a page.
    fn filled(file: BorrowedFd<'_>, offset: usize, wanted: usize) -> Result<Self> {
        let (reader, writer) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed("make a pipe"))?;
        // Fails beyond the user's share: the pipe keeps the size it was made with.
        let _ = fcntl_setpipe_size(&writer, wanted.next_power_of_two());
        let mut bytes = 0;
        while bytes < wanted {
            let mut from = (offset + bytes) as u64;
            let step = (wanted - bytes).min(STEP_BYTES_MAX);
            let moved =
                retry_on_intr(|| splice(file, Some(&mut from), &writer, None, step, SpliceFlags::NONBLOCK));
            match moved {
                Ok(0) => break,
                Ok(moved) => bytes += moved,
                Err(Errno::AGAIN) => break, // full
                Err(errno) => return Err(failed("hold a region's pages by a pipe")(errno)),
            }
        }
        if bytes == 0 {
            return Err(Error::new(Code::System, "a pipe holds nothing of a region"));
        }
        Ok(Self { reader, _writer: writer, bytes })
    }
}

/// Some pages of one region, held. Dropping it lets them go.
#[derive(Debug)]
pub(super) struct Held {
    table: Arc<PipeTable>,
    pipes: Vec<Pipe>,
    /// Where in the region the first page lies.
    start: usize,
    bytes: u64,
}

impl Held {
    /// Bytes held.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the held pages to their places in `file`. Once: a pipe is empty after it was read.
    ///
    /// # Errors
    ///
    /// [`Code::System`] if the kernel refuses or a pipe ends too soon.
    pub(super) fn copy_to(&self, file: BorrowedFd<'_>) -> Result<()> {
        let mut offset = self.start as u64;
        for pipe in &self.pipes {
            let end = offset + pipe.bytes as u64;
            while offset < end {
                let step = usize::try_from(end - offset).unwrap_or(usize::MAX).min(STEP_BYTES_MAX);
                let moved = retry_on_intr(|| {
                    splice(pipe.reader.as_fd(), None, file, Some(&mut offset), step, SpliceFlags::empty())
                });
                match moved {
                    Ok(0) | Err(Errno::AGAIN) => {
                        return Err(Error::new(Code::System, "a pipe held less of a region than it should"));
                    }
                    Ok(_) => {} // the kernel moved `offset`
                    Err(errno) => return Err(failed("copy a region's pages from a pipe")(errno)),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.table.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::io::{pread, pwrite};

    use super::*;

    #[test]
    fn pages_outlive_the_cut_with_their_last_stores() {
        const BYTES: usize = (1 << 20) + 3 * 4096;
        let (file, fresh) =
            (memfd_create("held", MemfdFlags::CLOEXEC), memfd_create("fresh", MemfdFlags::CLOEXEC));
        let (file, fresh) = (file.unwrap(), fresh.unwrap());
        ftruncate(&file, BYTES as u64).unwrap();
        pwrite(&file, &[1; BYTES], 0).unwrap();
        let table = PipeTable::new().unwrap();
        let held = table.hold(file.as_fd(), 4096, BYTES).unwrap();
        assert_eq!(held.bytes(), BYTES as u64 - 4096);
        // After it was held and before it is cut.
        pwrite(&file, b"late", 8192).unwrap();
        ftruncate(&file, 0).unwrap();
        ftruncate(&fresh, BYTES as u64).unwrap();
        held.copy_to(fresh.as_fd()).unwrap();
        let mut found = vec![9; BYTES];
        assert_eq!(pread(&fresh, &mut found, 0).unwrap(), BYTES);
        assert_eq!(&found[..4096], &[0; 4096], "not held, not copied");
        assert_eq!(&found[8192..8196], b"late");
        assert!(found[4096..8192].iter().chain(&found[8196..]).all(|&byte| byte == 1));
        assert!(held.copy_to(fresh.as_fd()).is_err(), "a pipe is read once");
        drop(held);
        assert_eq!(table.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_may_be_held_is_bounded() {
        let table = Arc::new(PipeTable { pipe_bytes: 1 << 20, bytes_max: 8192, held: AtomicU64::new(0) });
        let file = memfd_create("held", MemfdFlags::CLOEXEC).unwrap();
        pwrite(&file, &[1; 12288], 0).unwrap();
        let first = table.hold(file.as_fd(), 0, 8192).unwrap();
        assert_eq!(table.hold(file.as_fd(), 0, 4096).unwrap_err().code(), Code::NoMemory);
        drop(first);
        table.hold(file.as_fd(), 0, 4096).unwrap();
    }
}
