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

mod guard;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use super::Mapped;
use super::deadline::Deadline;
use super::limits::{LINE_BYTES, LOCK_PATIENCE_MS_MAX, LOCK_PATIENCE_MS_MIN, LOCK_TRIES_MAX, RECHECK, SPINS};
use super::rotation;
use super::word::{Word, check_range};
pub use guard::LockGuard;

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
    recheck: Duration,
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
        Ok(Self { memory, offset, patience, recheck: RECHECK })
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
            shared.sleep(word | WAITED, rotations, left.min(self.recheck).min(self.patience - silent))?;
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
        Ok(Some(LockGuard::new(self.word(), ours, self.patience, began)))
    }

    fn word(&self) -> Word<'_> {
        Word::new(self.memory.mapping(), self.offset)
    }
}
