//! Who tells whom: a writer that makes no system call while nobody sleeps, and a sleeper that misses nothing.
//!
//! ```text
//! writer                              sleeper
//! store word                          store flag = 1        announce
//! load flag ─ 1 ─▶ wake               load word ─ changed ─▶ no sleep
//!                                     sleep while word == seen
//!                                     store flag = 0        withdraw
//! ```
//!
//! Each stores first and looks afterwards, and all four accesses are sequentially consistent: one of the two sees the
//! other. Either the writer sees the flag and wakes, or the sleeper sees the new word and stays up. Between the
//! sleeper's look and its sleep, the kernel compares once more. The model check at the end of this file
//! (`--cfg leasehold_loom`) explores every interleaving, rotations included.
//!
//! Each word and each flag has one writer, so no two ends of a ring need to write to the same range.

use caps::error::Result;

use super::word::Word;

/// What the protocol needs of a word. One more implementation is the model's.
pub(super) trait Bell {
    fn load(&self) -> Result<u64>;
    fn store(&self, value: u64) -> Result<()>;
    /// Wakes whoever sleeps on the word.
    fn wake(&self) -> Result<()>;
}

impl Bell for Word<'_> {
    fn load(&self) -> Result<u64> {
        Word::load(*self)
    }
    fn store(&self, value: u64) -> Result<()> {
        Word::store(*self, value)
    }
    fn wake(&self) -> Result<()> {
        // One end sleeps on it, but whoever may read it can: all, so that no stranger takes the wake-up.
        Word::wake(*self, i32::MAX as u32)
    }
}

/// Writes the word and wakes its sleeper if the flag says that there is one.
pub(super) fn publish(word: &impl Bell, value: u64, flag: &impl Bell) -> Result<()> {
    word.store(value)?;
    // A flag that a dead or hostile peer left behind costs a system call each time, nothing else.
    if flag.load()? != 0 { word.wake() } else { Ok(()) }
}

/// Says that we are about to sleep on `word`. `true`: it still is `seen`, so sleep. The count of rotations must have
/// been read before.
pub(super) fn announce(word: &impl Bell, seen: u64, flag: &impl Bell) -> Result<bool> {
    flag.store(1)?;
    Ok(word.load()? == seen)
}

/// Says that we are up again.
pub(super) fn withdraw(flag: &impl Bell) -> Result<()> {
    flag.store(0)
}

#[cfg(all(test, leasehold_loom))]
mod model {
    use loom::sync::atomic::{AtomicU64, Ordering, fence};
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// The kernel's queue of one futex word: who sleeps, and under which file.
    #[derive(Default)]
    struct Kernel {
        /// The file under the word's address. A rotation changes it.
        file: u64,
        rotations: u64,
        /// The file under which the one sleeper sleeps.
        sleeper: Option<u64>,
    }

    struct Shared {
        word: AtomicU64,
        flag: AtomicU64,
        kernel: Mutex<Kernel>,
        woken: Condvar,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                word: AtomicU64::new(0),
                flag: AtomicU64::new(0),
                kernel: Mutex::new(Kernel::default()),
                woken: Condvar::new(),
            })
        }

        /// `futex_waitv` without a time-out: a lost wake-up is a deadlock, which the checker reports.
        fn sleep(&self, seen: u64, rotations: u64) {
            let mut kernel = self.kernel.lock().unwrap();
            if self.word.load(Ordering::SeqCst) != seen || kernel.rotations != rotations {
                return;
            }
            kernel.sleeper = Some(kernel.file);
            while kernel.sleeper.is_some() {
                kernel = self.woken.wait(kernel).unwrap();
            }
        }

        fn wake(&self) {
            let mut kernel = self.kernel.lock().unwrap();
            // A sleeper under the old file is not found through the new one.
            if kernel.sleeper == Some(kernel.file) {
                kernel.sleeper = None;
                self.woken.notify_all();
            }
        }

        /// Two steps, as in the handler: the segment is in place, then everybody is told. Without the second one the
        /// checker finds a deadlock.
        fn rotate(&self) {
            self.kernel.lock().unwrap().file += 1;
            let mut kernel = self.kernel.lock().unwrap();
            kernel.rotations += 1;
            kernel.sleeper = None;
            self.woken.notify_all();
        }

        fn rotations(&self) -> u64 {
            self.kernel.lock().unwrap().rotations
        }
    }

    struct Part<'a>(&'a Shared, &'a AtomicU64);

    /// The real words are sequentially consistent. The checker takes such loads and stores for acquire and release
    /// only, and honours fences; so the order is spelled with those.
    impl Bell for Part<'_> {
        fn load(&self) -> Result<u64> {
            fence(Ordering::SeqCst);
            Ok(self.1.load(Ordering::SeqCst))
        }
        fn store(&self, value: u64) -> Result<()> {
            self.1.store(value, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            Ok(())
        }
        fn wake(&self) -> Result<()> {
            self.0.wake();
            Ok(())
        }
    }

    fn wait_for(shared: &Shared, target: u64) {
        let (word, flag) = (Part(shared, &shared.word), Part(shared, &shared.flag));
        loop {
            let rotations = shared.rotations();
            let seen = word.load().unwrap();
            if seen == target {
                return;
            }
            if announce(&word, seen, &flag).unwrap() {
                shared.sleep(seen, rotations);
            }
            withdraw(&flag).unwrap();
        }
    }

    fn run(messages: u64, rotates: bool) {
        let shared = Shared::new();
        let sleeper = thread::spawn({
            let shared = shared.clone();
            move || wait_for(&shared, messages)
        });
        let rotates = rotates.then(|| {
            let shared = shared.clone();
            thread::spawn(move || shared.rotate())
        });
        for value in 1..=messages {
            publish(&Part(&shared, &shared.word), value, &Part(&shared, &shared.flag)).unwrap();
        }
        sleeper.join().unwrap();
        if let Some(thread) = rotates {
            thread.join().unwrap();
        }
    }

    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| run(2, false));
    }

    #[test]
    fn no_wake_up_is_lost_in_a_rotation() {
        loom::model(|| run(1, true));
    }
}
