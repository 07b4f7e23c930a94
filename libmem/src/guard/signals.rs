//! Signal masks by the kernel's own call and in its own form: 64 bits, signal `n` is bit `n - 1`.

use std::ptr;

/// Bytes of a mask as the kernel takes it, on every architecture of ours.
pub(super) const MASK_BYTES: usize = size_of::<u64>();

/// This thread takes no signal until the value is dropped.
pub(crate) struct Blocked {
    before: u64,
}

impl Blocked {
    /// Blocks every signal that can be blocked. Faults cannot: one that happens meanwhile ends the process.
    pub(crate) fn all() -> Self {
        Self { before: set(u64::MAX) }
    }

    /// Blocks them for the rest of the thread's life.
    pub(crate) fn for_ever() {
        set(u64::MAX);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Sets this thread's mask and returns the one before. Async-signal-safe.
pub(super) fn set(mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: both masks are words of the size that is said; the call cannot fail with these arguments.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            MASK_BYTES,
        );
    }
    before
}

/// The mask with this one signal.
pub(super) const fn only(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// The kernel's part of a C library's set.
pub(super) const fn word(set: &libc::sigset_t) -> u64 {
    // SAFETY: the set begins with the kernel's mask, and is aligned as a word is.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}
