//! A lock that is held for an instruction or two by threads of any priority, and waited for by those that cut.
//!
//! A cutting thread is a real-time one where that is allowed, and whoever holds an ordinary lock may have lost its
//! processor for as long as ordinary threads wait for one. The kernel lends the holder of this lock the priority of who
//! waits for it (`FUTEX_LOCK_PI`, futex(2)), so a cut waits for the instruction and not for the holder's turn.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};
use rustix::thread::gettid;

/// The lock: 0, or the thread that holds it, with the kernel's mark if somebody waits.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU32);

/// The lock is held. Given back when dropped, by the thread that took it.
#[must_use]
pub(super) struct Held<'a> {
    turn: &'a Turn,
    me: u32,
    /// The kernel expects the thread that took it, so this stays there.
    _here: PhantomData<*const ()>,
}

impl Turn {
    /// Waits for the lock and takes it. Not by a thread that holds it.
    pub(super) fn take(&self) -> Held<'_> {
        // A thread's number is positive and below 2^30: the bits above are the kernel's marks.
        let me = gettid().as_raw_nonzero().get().unsigned_abs();
        let held = || Held { turn: self, me, _here: PhantomData };
        loop {
            // Acquire: what the last holder did is visible to this one.
            if self.0.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return held();
            }
            match futex::lock_pi(&self.0, Flags::PRIVATE, None) {
                Ok(()) => return held(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                // A kernel without such locks: the holder needs an instruction, and a processor.
                Err(_) => std::thread::sleep(std::time::Duration::from_micros(10)),
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Release: what was done under the lock is visible to the next holder.
        let waited_for =
            self.turn.0.compare_exchange(self.me, 0, Ordering::Release, Ordering::Relaxed).is_err();
        if waited_for && futex::unlock_pi(&self.turn.0, Flags::PRIVATE).is_err() {
            // The word names this thread as its holder, so the kernel has no reason to refuse; a cut would wait for ever.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_holds_it_at_a_time() {
        const THREADS: u64 = 4;
        const TIMES: u64 = if cfg!(miri) { 10 } else { 20_000 };
        let (turn, count) = (Turn::default(), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for time in 0..TIMES {
                        let _held = turn.take();
                        // Two steps, which lose counts wherever two threads are between them.
                        let seen = count.load(Ordering::Relaxed);
                        if time % 64 == 0 {
                            thread::yield_now();
                        }
                        count.store(seen + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), THREADS * TIMES);
        assert_eq!(turn.0.into_inner(), 0, "nobody holds it, and nobody waits");
    }
}
