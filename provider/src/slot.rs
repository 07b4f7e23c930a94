//! The slot: one word that fences operations on an open right.
//!
//! ```text
//!  63          32 31       30                    0
//!  ┌─────────────┬────────┬──────────────────────┐
//!  │ generation  │ closed │ operations in flight │
//!  └─────────────┴────────┴──────────────────────┘
//! ```
//!
//! An operation *enters* with the generation its handle names, does its work, and *leaves*. A fence sets `closed`:
//! from then on nobody enters, and the fence's caller can watch the count fall to zero. Only then is the slot given
//! a new generation and used for another right, so that a handle kept from before can never reach it.
//!
//! Everything is in one atomic word, because two words would let an operation begin between reading the one and
//! changing the other. The model check (`--cfg leasehold_loom`, at the end of this file) explores every interleaving of two
//! operations with a fence.

#[cfg(leasehold_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(leasehold_loom))]
use std::sync::atomic::{AtomicU64, Ordering};

const CLOSED: u64 = 1 << 31;
const IN_FLIGHT: u64 = CLOSED - 1;

/// One fence word. Starts closed, at generation 0, which no handle ever names.
#[derive(Debug)]
pub struct Slot(AtomicU64);

/// An operation in flight. The fence waits for it; dropping it is leaving.
#[derive(Debug)]
#[must_use]
pub struct InFlight<'a>(&'a Slot);

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl Slot {
    /// A closed slot.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(CLOSED))
    }

    /// Begins an operation under `generation`, or `None` if that right was fenced.
    pub fn enter(&self, generation: u32) -> Option<InFlight<'_>> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word >> 32 != u64::from(generation) || word & CLOSED != 0 || word & IN_FLIGHT == IN_FLIGHT {
                return None;
            }
            // Acquire: what the opener wrote before `open` is visible to the operation.
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(InFlight(self)),
                Err(now) => word = now,
            }
        }
    }

    /// Refuses all that has not yet entered. Idempotent. Says whether nothing is in flight.
    pub fn fence(&self) -> bool {
        // AcqRel: an operation that entered before is visible in the count; one that comes later sees `closed`.
        self.0.fetch_or(CLOSED, Ordering::AcqRel) & IN_FLIGHT == 0
    }

    /// Whether the slot is fenced and its last operation has left.
    pub fn is_drained(&self) -> bool {
        // Acquire pairs with the Release of `leave`: what the operations did happened before this answer.
        let word = self.0.load(Ordering::Acquire);
        word & CLOSED != 0 && word & IN_FLIGHT == 0
    }

    /// Whether every operation that entered under `generation` has left: the slot is fenced and empty, or belongs to
    /// a later right, which it could only once it was empty.
    pub fn is_drained_of(&self, generation: u32) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word >> 32 > u64::from(generation) || word & CLOSED != 0 && word & IN_FLIGHT == 0
    }

    /// Opens a drained slot under `generation`, which must be above every one it had; `false` if the slot is in
    /// use, an operation is still inside, or the generation is not new.
    #[must_use]
    pub fn open(&self, generation: u32) -> bool {
        let word = self.0.load(Ordering::Acquire);
        if word & CLOSED == 0 || word & IN_FLIGHT != 0 || u64::from(generation) <= word >> 32 {
            return false;
        }
        // Release: the operation that enters sees what the opener wrote before.
        self.0
            .compare_exchange(word, u64::from(generation) << 32, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }
}

impl InFlight<'_> {
    /// Whether the right still stands. An operation asks again right before its bytes leave.
    #[must_use]
    pub fn still_open(&self) -> bool {
        self.0.0.load(Ordering::Acquire) & CLOSED == 0
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // Release: what the operation did is visible to whoever sees the slot drained.
        self.0.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(leasehold_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_fence_refuses_the_new_and_waits_for_the_old() {
        let slot = Slot::new();
        assert!(slot.enter(0).is_none(), "a fresh slot is closed");
        assert!(slot.open(1) && !slot.open(2), "open once");
        let operation = slot.enter(1).unwrap();
        assert!(operation.still_open());
        assert!(slot.enter(2).is_none());
        assert!(!slot.fence());
        assert!(!operation.still_open() && slot.enter(1).is_none() && !slot.is_drained());
        assert!(!slot.open(2), "an operation is in flight");
        drop(operation);
        assert!(slot.is_drained());
        assert!(!slot.open(1), "a generation is used once");
        assert!(slot.open(2));
        assert!(slot.enter(1).is_none(), "a stale handle");
        assert!(slot.enter(2).is_some());
        assert!(slot.is_drained_of(1) && !slot.is_drained_of(2));
    }
}

#[cfg(all(test, leasehold_loom))]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, Ordering};
    use loom::thread;

    use super::Slot;

    /// Two operations against a fence: after the fence drained, no operation is inside and none begins.
    #[test]
    fn no_operation_begins_after_the_fence() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let acknowledged = Arc::new(AtomicBool::new(false));
            let generation = 1;
            assert!(slot.open(generation));
            let operations: Vec<_> = (0..2)
                .map(|_| {
                    let (slot, acknowledged) = (slot.clone(), acknowledged.clone());
                    thread::spawn(move || {
                        if let Some(inside) = slot.enter(generation) {
                            assert!(!acknowledged.load(Ordering::SeqCst), "inside after the acknowledgement");
                            drop(inside);
                        }
                    })
                })
                .collect();
            slot.fence();
            while !slot.is_drained() {
                thread::yield_now();
            }
            acknowledged.store(true, Ordering::SeqCst);
            assert!(slot.enter(generation).is_none());
            for operation in operations {
                operation.join().unwrap();
            }
        });
    }
}
