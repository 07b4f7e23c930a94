//! What the tests of this folder share: files in RAM, a rotation, and threads that are certain to sleep.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::rotation;
use crate::mapping::{Access, Mapping, Revocation, Segment};

/// A segment's file.
pub(super) struct File {
    descriptor: OwnedFd,
    bytes: usize,
}

impl File {
    pub(super) fn new(pages: usize) -> Self {
        let bytes = pages * rustix::param::page_size();
        let descriptor = rustix::fs::memfd_create("libmem-sync", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&descriptor, bytes as u64).unwrap();
        Self { descriptor, bytes }
    }

    pub(super) fn map(&self, access: Access) -> Mapping {
        let segment = Segment { descriptor: self.descriptor.try_clone().unwrap(), bytes: self.bytes as u64 };
        Mapping::new(vec![segment], access, Revocation::new()).unwrap()
    }

    pub(super) fn cut(&self) {
        rustix::fs::ftruncate(&self.descriptor, 0).unwrap();
    }

    /// Puts a fresh file with the same bytes under the mappings, as a rotation does, and cuts this one. Nobody may
    /// write meanwhile: only the provider, which has the pages pinned, can copy what is written up to the cut.
    ///
    /// The fresh file is in place before the cut, so that no access meets a hole: this checks what happens to the
    /// words and their sleepers, and the fault handler is not part of it.
    pub(super) fn rotate(self, mappings: &[&Mapping]) -> Self {
        let fresh = Self::new(self.bytes / rustix::param::page_size());
        let mut offset = 0;
        let mut bytes = vec![0; self.bytes];
        let read = rustix::io::pread(&self.descriptor, &mut bytes, 0).unwrap();
        assert_eq!(read, self.bytes);
        while offset < bytes.len() {
            offset += rustix::io::pwrite(&fresh.descriptor, &bytes[offset..], offset as u64).unwrap();
        }
        for mapping in mappings {
            assert_eq!((mapping.len(), mapping.access()), (self.bytes, Access::ReadWrite));
            // SAFETY: exactly the mapping's own range, which stays mapped, shared and writable as it was; the mapping
            // unmaps it when it is dropped, whatever file lies there.
            unsafe {
                rustix::mm::mmap(
                    mapping.as_ptr().cast(),
                    self.bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    fresh.descriptor.as_fd(),
                    0,
                )
            }
            .unwrap();
        }
        self.cut();
        rotation::installed();
        assert_ne!(fresh.descriptor.as_raw_fd(), self.descriptor.as_raw_fd());
        fresh
    }
}

/// What waits without looks waits for this long, if nobody wakes it.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// Runs what must be over long before anybody would look by itself.
pub(super) fn promptly(test: impl FnOnce()) {
    let began = Instant::now();
    test();
    assert!(began.elapsed() < LONG / 2, "nobody was woken: {:?}", began.elapsed());
}

/// A thread that others wait for until it sleeps on a futex.
pub(super) struct Sleeper(AtomicI32);

impl Sleeper {
    pub(super) fn new() -> Self {
        Self(AtomicI32::new(0))
    }

    /// Runs `sleeps` in this thread, which becomes the one to be waited for.
    pub(super) fn run<T>(&self, sleeps: impl FnOnce() -> T) -> T {
        self.0.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        sleeps()
    }

    /// Returns once the kernel says that the thread is in a futex call.
    pub(super) fn wait_until_asleep(&self) {
        loop {
            let thread = self.0.load(Ordering::Acquire);
            let call =
                std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
            let number = call.split(' ').next().and_then(|number| number.parse().ok());
            if number == Some(libc::SYS_futex) || number == Some(libc::SYS_futex_waitv) {
                return;
            }
            std::thread::yield_now();
        }
    }
}
