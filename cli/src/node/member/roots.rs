//! Root keys that a provider was told of.
//!
//! One that is believed no longer has *expired*, and what was opened under it goes on, or has *retired*, and that is taken back.
//! It is not forgotten before all of it is.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use caps::error::Result;
use caps::token::{RootKeys, RootPublic};
use caps::wire::cluster::Roots;
use provider::runtime::Provider;

/// What is believed, and what is being taken back.
pub(super) struct Believed(Mutex<State>);

struct State {
    keys: Vec<RootPublic>,
    /// Keys that retired, and of which something may be left. As many as retire while the provider takes back.
    retired: BTreeSet<u32>,
}

/// What becomes of keys that are believed no longer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gone {
    expired: Vec<u32>,
    /// Those included that could not be cut before.
    retired: Vec<u32>,
}

impl Believed {
    pub(super) fn new(keys: Vec<RootPublic>) -> Self {
        Self(Mutex::new(State { keys, retired: BTreeSet::new() }))
    }

    /// The provider believes what is told from here on. Answers the keys of which it has to take everything back.
    ///
    /// # Errors
    /// As [`set`]; nothing has changed then.
    pub(super) fn change(&self, told: &Roots, provider: &Provider) -> Result<Vec<u32>> {
        let keys = set(&told.keys)?;
        // Held meanwhile, so that of two changes the later one stays.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = state.change(told);
        provider.set_roots(keys.clone());
        gone.expired.into_iter().for_each(|id| provider.expire_root(keys.clone(), id));
        Ok(gone.retired)
    }

    /// All that was opened under a key that retired is taken back.
    pub(super) fn is_cut(&self, id: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retired.remove(&id);
    }
}

impl State {
    fn change(&mut self, told: &Roots) -> Gone {
        let believed = |id: u32| told.keys.iter().any(|key| key.id() == id);
        self.retired.retain(|id| !believed(*id));
        let mut gone = Gone::default();
        for id in self.keys.iter().map(|key| key.id()).filter(|id| !believed(*id)) {
            if told.expired.contains(&id) {
                gone.expired.push(id);
            } else {
                self.retired.insert(id);
            }
        }
        self.keys.clone_from(&told.keys);
        gone.retired.extend(&self.retired);
        gone
    }
}

/// Root keys as a provider takes them.
///
/// # Errors
/// `E_RANGE` if one is none.
pub(in crate::node) fn set(keys: &[RootPublic]) -> Result<RootKeys> {
    let mut believed = RootKeys::default();
    keys.iter().try_for_each(|key| believed.add(*key))?;
    Ok(believed)
}

#[cfg(test)]
mod tests {
    use caps::token::RootKey;

    use super::*;

    #[test]
    fn a_key_that_retired_is_not_forgotten_before_it_is_cut_and_one_that_expired_is_left_alone() {
        let [first, second, third] = [1, 2, 3].map(|seed| RootKey::from_seed(&[seed; 32]).public());
        let believed = Believed::new(vec![first, second, third]);
        let change = |keys: &[RootPublic], expired: &[RootPublic]| {
            let told = Roots { keys: keys.to_vec(), expired: expired.iter().map(|key| key.id()).collect() };
            believed.0.lock().unwrap().change(&told)
        };
        let gone = |expired: &[RootPublic], retired: &[RootPublic]| Gone {
            expired: expired.iter().map(|key| key.id()).collect(),
            retired: retired.iter().map(|key| key.id()).collect(),
        };
        assert_eq!(change(&[second, third], &[]), gone(&[], &[first]));
        assert_eq!(change(&[third], &[second]), gone(&[second], &[first]), "the cut has not succeeded");
        assert_eq!(change(&[third], &[second]), gone(&[], &[first]), "it expires once");
        believed.is_cut(first.id());
        assert_eq!(change(&[third], &[second]), gone(&[], &[]));
        // What is not said to have expired has retired.
        assert_eq!(change(&[first], &[]), gone(&[], &[third]));
        assert_eq!(change(&[first, third], &[]), gone(&[], &[]), "it is believed again");
    }
}
