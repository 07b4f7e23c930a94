//! When rights were taken back, where every process of a test can read it while it is being done.
//!
//! A page of shared memory, with the times of the clock that all processes share. What a process reads there before an
//! access begins, it knows of that access: it began after the revoke was called, or after that was acknowledged.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::time::{ClockId, clock_gettime};

/// Grants that one board has room for.
pub const GRANTS: usize = 16;
/// Bytes of a board.
const BYTES: usize = GRANTS * size_of::<Times>();

/// Now, on the clock that all processes share, in nanoseconds. It steps back for nobody.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Of one grant. 0: not yet.
#[repr(C)]
#[derive(Default)]
struct Times {
    called_ns: AtomicU64,
    acknowledged_ns: AtomicU64,
}

/// The times of some grants.
pub struct Board {
    page: MmapRaw,
    file: File,
}

impl Board {
    /// With nothing on it.
    pub fn new() -> Self {
        let file = File::from(memfd_create("board", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(BYTES as u64).unwrap();
        Self::of(file)
    }

    /// The one that another process made.
    pub fn received(descriptor: OwnedFd) -> Self {
        Self::of(File::from(descriptor))
    }

    fn of(file: File) -> Self {
        let page = MmapOptions::new().len(BYTES).map_raw(&file).unwrap();
        Self { page, file }
    }

    /// For other processes.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn times(&self, grant: usize) -> &Times {
        assert!(grant < GRANTS);
        // SAFETY: within the mapping, which lives as long as `self`, begins with a page and is as long as GRANTS of these;
        // all bytes are valid for them, and whoever else has it touches them as atomics too.
        unsafe { &*self.page.as_ptr().cast::<Times>().add(grant) }
    }

    /// Forgets all times.
    pub fn clear(&self) {
        for grant in 0..GRANTS {
            let times = self.times(grant);
            times.called_ns.store(0, Ordering::Release);
            times.acknowledged_ns.store(0, Ordering::Release);
        }
    }

    /// From here on the revoke is called: the caller calls it next.
    pub fn call(&self, grant: usize) {
        self.times(grant).called_ns.store(now_ns(), Ordering::SeqCst);
    }

    /// From here on the revoke is acknowledged: the caller has its receipt.
    pub fn acknowledge(&self, grant: usize) {
        self.times(grant).acknowledged_ns.store(now_ns(), Ordering::SeqCst);
    }

    /// When that was; 0 if it was not yet.
    pub fn called_ns(&self, grant: usize) -> u64 {
        self.times(grant).called_ns.load(Ordering::SeqCst)
    }

    /// When that was; 0 if it was not yet.
    pub fn acknowledged_ns(&self, grant: usize) -> u64 {
        self.times(grant).acknowledged_ns.load(Ordering::SeqCst)
    }
}
