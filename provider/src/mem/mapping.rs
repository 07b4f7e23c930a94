//! One owner of one mapping of a region's file in this process.
//!
//! The provider maps a region to fill and pin it, which reads and writes nothing through the mapping, and to change words
//! of it ([`words`](super::words)), which keeps its instructions apart from a cut. So no cut can fault the provider.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr;

use caps::error::Result;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use crate::factory::failed;

/// The size and alignment of a huge page on the architectures we compile for with 4 KiB pages. With larger base pages
/// the alignment is merely not needed.
pub(super) const HUGE_BYTES: usize = 2 << 20;

/// A shared, readable and writable mapping of the first `len` bytes of a file. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: *mut c_void,
    len: usize,
}

// SAFETY: an address of the process, not of a thread, which stays mapped until this is dropped.
unsafe impl Send for Mapping {}
// SAFETY: as above. What is done by reference asks the kernel for pages, or hands out an address to whoever has facts of
// its own about what may be done there.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `file`, at a multiple of 2 MiB when it is at least that long, so that its huge pages are mapped as such:
    /// pinning 1 GiB in 4 KiB steps takes ten times as long.
    pub(super) fn of(file: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let mapping = Self::anywhere(file, len)?;
        if len < HUGE_BYTES || mapping.start.addr().is_multiple_of(HUGE_BYTES) {
            return Ok(mapping);
        }
        // The kernel chose otherwise: reserve enough to hold an aligned piece, and put the file there.
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
        let reserved = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len + HUGE_BYTES,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(failed("reserve addresses"))?;
        let reserved = Self { start: reserved, len: len + HUGE_BYTES };
        let skip = reserved.start.addr().next_multiple_of(HUGE_BYTES) - reserved.start.addr();
        let start = reserved.start.wrapping_byte_add(skip);
        // SAFETY: MAP_FIXED over `len` bytes inside the reservation just made (`skip` is below HUGE_BYTES), which this
        // function owns and nobody has a reference into.
        let aligned = unsafe { mmap(start, len, prot, MapFlags::SHARED | MapFlags::FIXED, file, 0) }
            .map_err(failed("map a region"))?;
        std::mem::forget(reserved);
        let (head, tail) = (skip, HUGE_BYTES - skip);
        release(aligned.wrapping_byte_sub(head), head);
        release(aligned.wrapping_byte_add(len), tail);
        Ok(Self { start: aligned, len })
    }

    fn anywhere(file: BorrowedFd<'_>, len: usize) -> Result<Self> {
        // SAFETY: a mapping at an address of the kernel's choice replaces nothing; no Rust reference is ever made
        // into it, so that other processes may change or cut it at any time.
        let start = unsafe {
            mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)
        }
        .map_err(failed("map a region"))?;
        Ok(Self { start, len })
    }

    /// Makes every page present and zeroed.
    ///
    /// A step at a time: `fallocate` commits tmpfs pages and leaves the zeroing to the first fault, and the kernel
    /// faults a range in, or pins it, under the lock of this process' addresses. With one step for all of 1 GiB every
    /// other thread that maps, unmaps or starts a thread would wait for 0.2 s, the cut threads' neighbours among them.
    pub(super) fn populate(&self) -> Result<()> {
        for step in (0..self.len).step_by(HUGE_BYTES) {
            let bytes = HUGE_BYTES.min(self.len - step);
            // SAFETY: the step lies in this mapping (`step` is below `len`), which lives across the call.
            // MADV_POPULATE_WRITE changes no bytes, and reports instead of raising a signal.
            unsafe { madvise(self.start.wrapping_byte_add(step), bytes, Advice::LinuxPopulateWrite) }
                .map_err(failed("fill a region"))?;
        }
        Ok(())
    }

    /// Makes the page present in which the byte at `offset` lies.
    ///
    /// # Errors
    /// `E_SYSTEM` if there is no such page, as after a cut; `E_NOMEM`.
    pub(super) fn make_present(&self, offset: usize) -> Result<()> {
        let page = page_size();
        let start = offset - offset % page;
        assert!(start < self.len, "the page lies in the mapping");
        // SAFETY: the page lies in this mapping, which lives across the call. MADV_POPULATE_WRITE changes no bytes, and
        // reports instead of raising a signal.
        unsafe { madvise(self.start.wrapping_byte_add(start), page, Advice::LinuxPopulateWrite) }
            .map_err(failed("fill a region's page"))
    }

    /// Gives up the page in which the byte at `offset` lies: its bytes stay in the file, and whoever touches it makes it
    /// present again.
    pub(super) fn make_absent(&self, offset: usize) {
        let page = page_size();
        let start = offset - offset % page;
        assert!(start < self.len, "the page lies in the mapping");
        // SAFETY: the page lies in this mapping, which lives across the call. Of a shared mapping MADV_DONTNEED changes no
        // bytes: they are the file's.
        let gone = unsafe { madvise(self.start.wrapping_byte_add(start), page, Advice::LinuxDontNeed) };
        debug_assert!(gone.is_ok(), "{gone:?}");
    }

    /// The address of the byte at `offset`, which lies in it.
    pub(super) fn at(&self, offset: usize) -> *mut c_void {
        assert!(offset < self.len, "the byte lies in the mapping");
        self.start.wrapping_byte_add(offset)
    }

    /// The start, for the kernel.
    pub(super) fn address(&self) -> usize {
        self.start.expose_provenance()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        release(self.start, self.len);
    }
}

/// Unmaps. A failure is fatal: every later claim of this process about who maps what would be a lie.
fn release(start: *mut c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: called with ranges of mappings that this file made and owns, each once, with no reference into them.
    if unsafe { munmap(start, len) }.is_err() {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn large_mappings_are_aligned() {
        for len in [4096, HUGE_BYTES, HUGE_BYTES + 4096, 3 * HUGE_BYTES] {
            let file = memfd_create("mapping", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&file, len as u64).unwrap();
            // An unaligned neighbour, so that the kernel's own choice is rarely aligned.
            let _neighbour = Mapping::anywhere(file.as_fd(), 4096).unwrap();
            let mapping = Mapping::of(file.as_fd(), len).unwrap();
            assert!(len < HUGE_BYTES || mapping.address().is_multiple_of(HUGE_BYTES));
            mapping.populate().unwrap();
            assert_eq!(rustix::fs::fstat(&file).unwrap().st_blocks * 512, len as i64);
        }
    }
}
