//! The canary: one page of a segment, mapped in this process through the very descriptor that clients receive.
//!
//! It is there to be killed. After a cut the provider looks at it, and only when the kernel says that the page is gone
//! is the cut over: the time of death on a receipt is a measurement, not the assumption that `ftruncate` did its
//! work. One mapping among many proves what the kernel did to this file's mappings, because a truncation takes them
//! all before it returns (`truncate_pagecache` in mm/truncate.c unmaps the whole range once before and once after the
//! pages leave the file); the canary would show it if a kernel, a file system between, or a defect here broke that.
//!
//! Nothing is ever loaded or stored through it, so its death raises no signal.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr;

use caps::error::Result;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::param::page_size;

use crate::factory::failed;

/// One page of a segment, mapped to be watched. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Canary {
    page: *mut c_void,
}

// SAFETY: an address of the process, not of a thread, that nobody loads from or stores to.
unsafe impl Send for Canary {}
// SAFETY: as above; asking the kernel about it changes nothing.
unsafe impl Sync for Canary {}

impl Canary {
    /// Maps the first page behind `descriptor` and makes it present, so that a cut has something to take.
    ///
    /// # Errors
    ///
    /// [`Code::NoMemory`](caps::error::Code::NoMemory) or [`Code::System`](caps::error::Code::System) if it cannot be
    /// mapped.
    pub(super) fn of(descriptor: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let page =
            unsafe { mmap(ptr::null_mut(), page_size(), ProtFlags::READ, MapFlags::SHARED, descriptor, 0) }
                .map_err(failed("map a canary"))?;
        let canary = Self { page };
        canary.populate().map_err(failed("fill a canary"))?;
        Ok(canary)
    }

    /// Whether the page is gone: an access would be SIGBUS. Takes about a microsecond.
    pub(super) fn is_dead(&self) -> bool {
        // MADV_POPULATE_READ fails with EFAULT exactly where an access would raise SIGBUS (madvise(2)), and raises
        // nothing itself. Any other failure proves nothing.
        self.populate() == Err(Errno::FAULT)
    }

    fn populate(&self) -> rustix::io::Result<()> {
        // SAFETY: the page is this canary's own mapping; the advice reads no byte into this process.
        unsafe { madvise(self.page, page_size(), Advice::LinuxPopulateRead) }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, never given out, unmapped once.
        if unsafe { munmap(self.page, page_size()) }.is_err() {
            // Leased memory would stay mapped here behind the back of everyone who believes that it is gone.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn it_lives_as_long_as_its_page() {
        let file = memfd_create("canary", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 2 * page_size() as u64).unwrap();
        let canary = Canary::of(file.as_fd()).unwrap();
        assert!(!canary.is_dead());
        ftruncate(&file, page_size() as u64).unwrap();
        assert!(!canary.is_dead(), "its page is still there");
        ftruncate(&file, 0).unwrap();
        assert!(canary.is_dead());
    }
}
