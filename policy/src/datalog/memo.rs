//! Decisions remembered. A decision is a function of the policy and the facts, so a remembered one is never stale: it
//! goes with the policy it belongs to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Decision, Facts};
use crate::limits::POLICY_MEMO_MAX;

/// Two generations: what is asked for again moves to the young one; when that is full, the old one is dropped. So at
/// most [`POLICY_MEMO_MAX`] decisions are held, each look-up costs two hashes, and a flood of different requests
/// costs the frequent ones nothing but being decided again. The map's hash is keyed with random bytes.
#[derive(Debug, Default)]
pub(super) struct Memo {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Facts, Decision>,
    old: HashMap<Facts, Decision>,
}

impl Memo {
    /// The decision about these facts, if it was made lately.
    pub(super) fn get(&self, facts: &Facts) -> Option<Decision> {
        let mut held = self.lock();
        if let Some(decision) = held.young.get(facts) {
            return Some(decision.clone());
        }
        let (facts, decision) = held.old.remove_entry(facts)?;
        held.insert(facts, decision.clone());
        Some(decision)
    }

    pub(super) fn put(&self, facts: Facts, decision: Decision) {
        self.lock().insert(facts, decision);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let held = self.lock();
        held.young.len() + held.old.len()
    }

    /// Held for a look-up or an insertion, never while a policy runs. A thread that panicked in between left the maps
    /// whole: they are standard maps, and each change is one call.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, facts: Facts, decision: Decision) {
        if self.young.len() >= POLICY_MEMO_MAX / 2 {
            // Kept allocation: the table that was old becomes the empty young one.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(facts, decision);
    }
}
