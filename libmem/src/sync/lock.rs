//! A lock whose owner may die, be stopped, or be revoked.
//!
//! ```text
//!  63                                 3        2        1      0
//!  ┌──────────────────────────────────┬──────────┬────────┬──────┐
//!  │ turn: acquisitions and renewals  │ poisoned │ waited │ held │
//!  └──────────────────────────────────┴──────────┴────────┴──────┘
//! ```
//!
//! # How the death of an owner is seen
//!
//! By its silence. Every acquisition and every renewal makes the turn one more, so a turn belongs to one owner. Who waits and
//! sees the *same* turn for the whole patience, by its own clock, takes the lock over with a compare-and-swap on that
//! turn; an owner that renewed in time makes the swap fail. The owner counts its patience from *before* its own swap, the
//! waiter from *after* it saw the result, so the owner's time is over first. No clock is shared and no time is
//! stored, so nothing depends on how clocks of different processes (or time namespaces) relate, and a peer cannot lie about
//! either. One process may share a lock between its threads, which are owners like any other.
//!
//! # What was not taken
//!
//! - *Robust futexes.* The kernel follows a list through the dying process' memory and marks the words it finds. libc owns
//!   that list, one a thread; its links would lie in leased memory, where every writer could change where the kernel goes
//!   next; a word whose pages were cut at that moment is skipped in silence; and it knows owners by thread ids, which mean
//!   something else in another pid namespace.
//! - *Owners' pidfds.* A process of another uid or namespace cannot be asked for, and a number read from shared
//!   memory proves nothing.
//! - *File locks.* The descriptors of leases only map.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use super::Mapped;
use super::deadline::Deadline;
use super::limits::{LINE_BYTES, LOCK_PATIENCE_MS_MAX, LOCK_PATIENCE_MS_MIN, LOCK_TRIES_MAX, RECHECK, SPINS};
use super::rotation;
use super::word::{Word, check_range};

const HELD: u64 = 1;
const WAITED: u64 = 1 << 1;
const POISONED: u64 = 1 << 2;
const TURN: u64 = 1 << 3;

/// Mutual exclusion between all who may write to the memory, over processes and users.
///
/// 64 bytes: the word above as a little-endian `u64`, then nothing; all zero bytes are a free lock.
///
/// An owner that is silent for longer than the *patience* is taken for dead, and the next one gets the lock with
/// [`LockGuard::is_recovered`] set: what the lock protects may be half changed. An owner that needs longer calls
/// [`LockGuard::renew`]. **Every user of a lock must name the same patience.**
///
/// Not promised: an owner that is stopped *between* asking [`LockGuard::check`] and writing, for longer than its
/// patience, writes although another owns the lock. Where that matters, write the [`LockGuard::token`] along and let readers ignore
/// smaller ones. Nor does the lock bind anyone: who may write to the word may ignore it. Against a peer that
/// is not trusted, revoke it.
///
/// ```
/// # use std::time::Duration;
/// # use libmem::{Access, Mapping, Revocation, Segment};
/// use libmem::sync::Lock;
/// # let descriptor = rustix::fs::memfd_create("doc", rustix::fs::MemfdFlags::CLOEXEC)?;
/// # rustix::fs::ftruncate(&descriptor, 1 << 16)?;
/// # let mapping = Mapping::new(vec![Segment { descriptor, bytes: 1 << 16 }], Access::ReadWrite, Revocation::new())?;
///
/// let lock = Lock::new(&mapping, 0, Duration::from_secs(1))?;
/// let mut guard = lock.lock(Duration::from_secs(5))?;
/// if guard.is_recovered() {
///     mapping.write_at(64, &[0; 64])?; // put right what the dead owner left behind
///     guard.repaired();
/// }
/// mapping.fetch_add_u64(64, 1)?;
/// guard.release()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lock<M> {
    memory: M,
    offset: usize,
    patience: Duration,
}

impl<M: Mapped> Lock<M> {
    /// Bytes of a lock: one cache line.
    pub const BYTES: usize = LINE_BYTES;

    /// The lock at `offset`, a multiple of 64, whose owners may be silent for `patience`: 10 ms to 60 s.
    ///
    /// # Errors
    /// `E_RANGE` if the place or the patience is outside its bounds.
    pub fn new(memory: M, offset: usize, patience: Duration) -> Result<Self> {
        check_range(memory.mapping(), offset, Self::BYTES)?;
        let bounds =
            Duration::from_millis(LOCK_PATIENCE_MS_MIN)..=Duration::from_millis(LOCK_PATIENCE_MS_MAX);
        if !bounds.contains(&patience) {
            return Err(Error::new(Code::Range, "the patience with a lock's owner is 10 ms to 60 s"));
        }
        Ok(Self { memory, offset, patience })
    }

    /// Takes the lock if it is free now.
    ///
    /// # Errors
    /// `E_BUSY` if it is held; `E_DENIED` on a read-only mapping; `E_REVOKED`.
    pub fn try_lock(&self) -> Result<LockGuard<'_>> {
        for _ in 0..LOCK_TRIES_MAX {
            let word = self.word().load()?;
            if word & HELD != 0 {
                break;
            }
            if let Some(guard) = self.take(word, 0)? {
                return Ok(guard);
            }
        }
        Err(Error::new(Code::Busy, "the lock is held"))
    }

    /// Takes the lock when it is free, or when its owner was silent for the patience.
    ///
    /// # Errors
    /// `E_TIMEOUT` after `timeout` (at most a day): an owner that lives and renews may keep it as long as it likes.
    /// `E_DENIED` on a read-only mapping; `E_REVOKED`.
    pub fn lock(&self, timeout: Duration) -> Result<LockGuard<'_>> {
        let deadline = Deadline::after(timeout);
        let shared = self.word();
        // The turn of the owner that we watch, and since when.
        let mut watched: Option<(u64, Instant)> = None;
        // Who has slept does not know whether it was the last one, and says for its part that others wait.
        let mut waited = 0;
        let mut spins = SPINS;
        loop {
            let rotations = rotation::count();
            let word = shared.load()?;
            if word & HELD == 0 {
                if let Some(guard) = self.take(word, waited)? {
                    return Ok(guard);
                }
                deadline.left()?;
                continue;
            }
            let silent = match watched {
                Some((turn, since)) if turn == word / TURN => since.elapsed(),
                _ => {
                    // After the load: the owner's own clock started before it wrote what we read.
                    watched = Some((word / TURN, Instant::now()));
                    Duration::ZERO
                }
            };
            if silent >= self.patience {
                if let Some(guard) = self.take(word, waited)? {
                    return Ok(guard);
                }
                deadline.left()?;
                continue;
            }
            let left = deadline.left()?;
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            if word & WAITED == 0 && !shared.replace(word, word | WAITED)? {
                continue;
            }
            waited = WAITED;
            shared.sleep(word | WAITED, rotations, left.min(RECHECK).min(self.patience - silent))?;
        }
    }

    /// Makes `word`, which is free or whose owner is silent, ours, if it still is what it was.
    fn take(&self, word: u64, waited: u64) -> Result<Option<LockGuard<'_>>> {
        let began = Instant::now();
        let poisoned = if word & HELD != 0 { POISONED } else { word & POISONED };
        let turn = (word / TURN).wrapping_add(1);
        let ours = turn.wrapping_mul(TURN) | poisoned | (word & WAITED) | waited | HELD;
        if !self.word().replace(word, ours)? {
            return Ok(None);
        }
        Ok(Some(LockGuard {
            word: self.word(),
            patience: self.patience,
            token: ours / TURN,
            turn: ours / TURN,
            renewed: began,
            recovered: poisoned != 0,
            poisoned: poisoned != 0,
            panicking: std::thread::panicking(),
            released: false,
        }))
    }

    fn word(&self) -> Word<'_> {
        Word::new(self.memory.mapping(), self.offset)
    }
}

/// The lock, held. Dropping it releases it; a panic meanwhile leaves it poisoned, as a death would.
#[must_use = "the lock is released as soon as this is dropped"]
pub struct LockGuard<'a> {
    word: Word<'a>,
    patience: Duration,
    token: u64,
    turn: u64,
    renewed: Instant,
    recovered: bool,
    poisoned: bool,
    panicking: bool,
    released: bool,
}

impl LockGuard<'_> {
    /// A number that is larger for every later owner (as long as nobody scribbles over the word).
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// Whether an owner before this one died, panicked or fell silent, and nobody called
    /// [`LockGuard::repaired`] since.
    #[must_use]
    pub const fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// What the lock protects is whole again: later owners need not look.
    pub const fn repaired(&mut self) {
        self.poisoned = false;
    }

    /// Starts the patience of all others anew. Call it more often than that.
    ///
    /// # Errors
    /// `E_TIMEOUT` if another owner took the lock over: stop at once. `E_REVOKED`.
    pub fn renew(&mut self) -> Result<()> {
        let began = Instant::now();
        let turn = self.turn.wrapping_add(1) & (u64::MAX / TURN);
        self.change(|word| (turn * TURN) | (word & (TURN - 1)))?;
        self.turn = turn;
        self.renewed = began;
        Ok(())
    }

    /// Whether the lock is ours, and for how long at least, unless renewed.
    ///
    /// # Errors
    /// `E_TIMEOUT` if the patience is over or another owner took the lock; `E_REVOKED`.
    pub fn check(&self) -> Result<Duration> {
        let word = self.word.load()?;
        // After the load: what is left is what was left when we knew the lock to be ours.
        match self.patience.checked_sub(self.renewed.elapsed()) {
            Some(left) if self.is_ours(word) && !left.is_zero() => Ok(left),
            _ => Err(LOST),
        }
    }

    /// Gives the lock back, and says whether it was ours to the end.
    ///
    /// # Errors
    /// `E_TIMEOUT` if another owner took it over meanwhile: what was written under it may be mixed with the other's.
    /// `E_REVOKED`.
    pub fn release(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        self.released = true;
        let poisoned = if self.poisoned { POISONED } else { 0 };
        let before = self.change(|word| (word & !(TURN - 1)) | poisoned)?;
        if before & WAITED != 0 { self.word.wake(1) } else { Ok(()) }
    }

    /// Changes the word as long as it is ours, and returns what it was.
    fn change(&self, new: impl Fn(u64) -> u64) -> Result<u64> {
        for _ in 0..LOCK_TRIES_MAX {
            let word = self.word.load()?;
            if !self.is_ours(word) {
                return Err(LOST);
            }
            if self.word.replace(word, new(word))? {
                return Ok(word);
            }
        }
        Err(LOST)
    }

    const fn is_ours(&self, word: u64) -> bool {
        word & HELD != 0 && word / TURN == self.turn
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        if !self.released {
            self.poisoned |= !self.panicking && std::thread::panicking();
            // Lost or revoked: nothing is left to give back, and who wants to know calls `release`.
            let _ = self.give_back();
        }
    }
}

impl std::fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockGuard")
            .field("token", &self.token)
            .field("recovered", &self.recovered)
            .finish_non_exhaustive()
    }
}

/// The one answer to an owner that lost its lock.
const LOST: Error = Error::new(Code::Timeout, "the lock's patience is over: another owner may have taken it");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Access;
    use crate::sync::testing::{File, Sleeper};

    const PATIENCE: Duration = Duration::from_millis(LOCK_PATIENCE_MS_MIN);
    const LONG: Duration = Duration::from_secs(30);

    fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
        result.unwrap_err().code()
    }

    #[test]
    fn patience_and_place_have_bounds() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let millis = Duration::from_millis;
        for patience in [Duration::ZERO, millis(9), millis(60_001), Duration::MAX] {
            assert_eq!(code(Lock::new(&mapping, 0, patience)), Code::Range, "{patience:?}");
        }
        assert_eq!(code(Lock::new(&mapping, 32, millis(10))), Code::Range);
        Lock::new(&mapping, mapping.len() - 64, millis(60_000)).unwrap();
    }

    #[test]
    fn one_owner_at_a_time_and_tokens_grow() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        let first = lock.try_lock().unwrap();
        assert_eq!(code(lock.try_lock()), Code::Busy);
        assert_eq!(code(lock.lock(Duration::from_millis(20))), Code::Timeout);
        let token = first.token();
        first.release().unwrap();
        let mut second = lock.lock(Duration::ZERO).unwrap();
        assert!(second.token() > token && !second.is_recovered());
        second.renew().unwrap();
        assert!(second.check().unwrap() <= LONG);
        let token = second.token();
        drop(second);
        assert!(lock.try_lock().unwrap().token() > token);
    }

    #[test]
    fn a_release_wakes_who_sleeps() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        let guard = lock.try_lock().unwrap();
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(|guard| guard.is_recovered())));
            sleeper.wait_until_asleep();
            guard.release().unwrap();
            assert!(!waiter.join().unwrap().unwrap());
        });
        assert_eq!(mapping.load_u64(0).unwrap() & (HELD | POISONED), 0);
    }

    #[test]
    fn a_rotation_keeps_the_owner_and_the_waiters() {
        let mut file = File::new(1);
        let mapping = file.map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        for _ in 0..20 {
            let guard = lock.try_lock().unwrap();
            let sleeper = Sleeper::new();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(|guard| guard.token())));
                sleeper.wait_until_asleep();
                // Until the waiter has said that it waits, it writes; after that it only sleeps.
                while mapping.load_u64(0).unwrap() & WAITED == 0 {
                    std::thread::yield_now();
                }
                file = std::mem::replace(&mut file, File::new(1)).rotate(&[&mapping]);
                guard.check().unwrap();
                let token = guard.token();
                guard.release().unwrap();
                assert!(waiter.join().unwrap().unwrap() > token);
            });
        }
    }

    #[test]
    fn a_cut_ends_the_wait_and_the_ownership() {
        let file = File::new(1);
        let mapping = file.map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        let mut guard = lock.try_lock().unwrap();
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(drop)));
            sleeper.wait_until_asleep();
            file.cut();
            assert_eq!(code(waiter.join().unwrap()), Code::Revoked);
        });
        assert_eq!(code(guard.check()), Code::Revoked);
        assert_eq!(code(guard.renew()), Code::Revoked);
        assert_eq!(code(guard.release()), Code::Revoked);
    }

    #[test]
    fn a_silent_owner_loses_it_and_learns_it() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, PATIENCE).unwrap();
        let mut late = lock.try_lock().unwrap();
        let taken = lock.lock(LONG).unwrap();
        assert!(taken.is_recovered() && taken.token() > late.token());
        assert_eq!(code(late.check()), Code::Timeout);
        assert_eq!(code(late.renew()), Code::Timeout);
        assert_eq!(code(late.release()), Code::Timeout);
        assert_eq!(code(lock.try_lock()), Code::Busy, "the late owner released nothing");
        drop(taken);
        // Not repaired, so the next one hears of it too; then repaired, and nobody does.
        let mut next = lock.try_lock().unwrap();
        assert!(next.is_recovered());
        next.repaired();
        drop(next);
        assert!(!lock.try_lock().unwrap().is_recovered());
    }

    #[test]
    fn an_owner_that_renews_keeps_it() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, Duration::from_secs(2)).unwrap();
        let mut owner = lock.try_lock().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock.lock(Duration::from_millis(3_500)).map(drop));
            while !waiter.is_finished() {
                owner.renew().expect("renewed in time");
                std::thread::yield_now();
            }
            assert_eq!(code(waiter.join().unwrap()), Code::Timeout);
        });
        owner.check().unwrap();
    }

    #[test]
    fn a_panic_poisons() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _guard = lock.try_lock().unwrap();
                panic!("on purpose");
            });
            thread.join().unwrap_err();
        });
        assert!(lock.try_lock().unwrap().is_recovered());
    }

    #[test]
    fn every_word_is_a_lock() {
        // Whatever a peer writes: an owner after the patience at most, or an error, and turns that wrap.
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, PATIENCE).unwrap();
        for word in [0, HELD, WAITED, POISONED, u64::MAX, u64::MAX - HELD, u64::MAX << 3, 1 << 63] {
            mapping.store_u64(0, word).unwrap();
            let mut guard = lock.lock(LONG).unwrap();
            assert_eq!(guard.is_recovered(), word & (HELD | POISONED) != 0, "{word:x}");
            guard.renew().unwrap();
            guard.release().unwrap();
        }
    }

    #[test]
    fn counts_are_exact_under_threads() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let lock = Lock::new(&mapping, 0, LONG).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let guard = lock.lock(LONG).unwrap();
                        // Not atomic as a whole: only the lock makes it so.
                        let value = mapping.load_u64(64).unwrap();
                        mapping.store_u64(64, value + 1).unwrap();
                        guard.release().unwrap();
                    }
                });
            }
        });
        assert_eq!(mapping.load_u64(64).unwrap(), 8_000);
    }
}
