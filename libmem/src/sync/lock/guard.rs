//! What an owner holds: its turn, and what it may do as long as that is the word's.

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use super::{HELD, POISONED, TURN, WAITED};
use crate::sync::limits::LOCK_TRIES_MAX;
use crate::sync::word::Word;

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

impl<'a> LockGuard<'a> {
    /// The guard of whoever put `ours` into the word, by a swap that began after `began`.
    pub(super) fn new(word: Word<'a>, ours: u64, patience: Duration, began: Instant) -> Self {
        let poisoned = ours & POISONED != 0;
        Self {
            word,
            patience,
            token: ours / TURN,
            turn: ours / TURN,
            renewed: began,
            recovered: poisoned,
            poisoned,
            panicking: std::thread::panicking(),
            released: false,
        }
    }

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
