//! The word that counts what the rotation channel brought: whoever sleeps on leased memory is woken by it.
//!
//! A futex in a shared mapping is keyed to the file behind it, so a waiter that sleeps on a word of a segment that was
//! rotated would sleep on a file that nobody touches any more. Waiters sleep on this word of the process' own instead,
//! or beside it, and look again when it changes.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

static INSTALLED: AtomicU32 = AtomicU32::new(0);

/// The word: changed by every segment that was replaced or withdrawn, every right that ended, every session that was
/// lost. It wraps.
pub(crate) fn word() -> &'static AtomicU32 {
    &INSTALLED
}

/// Something changed: counts it, and wakes every thread that sleeps on the word. Async-signal-safe.
pub(crate) fn rotation_installed() {
    let word = word();
    word.fetch_add(1, Ordering::SeqCst);
    // SAFETY: wakes sleepers on a static word; it writes to no memory. Its result is a count that nobody needs.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            ptr::from_ref(word),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            libc::c_int::MAX,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake() {
        let seen = word().load(Ordering::SeqCst);
        let sleeper = std::thread::spawn(move || {
            while word().load(Ordering::SeqCst) == seen {
                // SAFETY: sleeps while the static word is `seen`; no time-out.
                unsafe {
                    libc::syscall(
                        libc::SYS_futex,
                        ptr::from_ref(word()),
                        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                        seen,
                        ptr::null::<libc::timespec>(),
                    );
                }
            }
        });
        rotation_installed();
        sleeper.join().unwrap();
    }
}
