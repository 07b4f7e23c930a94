//! How many segments this process has replaced: the word that ends every sleep when one more is.
//!
//! The kernel knows a futex by its file. After a rotation the word lies in another file, and a wake-up through the
//! new one does not reach those who sleep on the old one. So every sleeper of this process also sleeps on
//! [`ROTATIONS`], which is private memory and never moves.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex;

/// Segments replaced since the process began, wrapping.
pub(super) static ROTATIONS: AtomicU32 = AtomicU32::new(0);

/// The count now. A sleeper reads it *before* it looks at its word: if a segment is replaced after that, the
/// kernel finds another count and does not let it sleep.
pub(super) fn count() -> u32 {
    ROTATIONS.load(Ordering::SeqCst)
}

/// To be called once a fresh segment lies at its addresses: wakes every sleeper of this process, who then looks
/// again, through the new file.
///
/// Async-signal-safe: an addition and a system call, made without libc, so `errno` stays as it was.
pub(crate) fn installed() {
    ROTATIONS.fetch_add(1, Ordering::SeqCst);
    // The only failure is a bad address, and this one is a static's. Sleepers look again by themselves anyway.
    let _ = futex::wake(&ROTATIONS, futex::Flags::PRIVATE, i32::MAX as u32);
}
