//! Names by key, for whoever judges a request before it is ordered.
//!
//! A copy of what the state says, so that most requests need no look at the state first. It decides nothing: the state
//! machine checks registration again.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use caps::id::PrincipalKey;
use caps::wire::Name;

/// Registered names. Written by the broker's thread alone.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Held for one look-up or one change. Each change is one call, so a panic leaves the map whole.
    names: RwLock<HashMap<PrincipalKey, Name>>,
}

impl Directory {
    pub(super) fn get(&self, key: PrincipalKey) -> Option<Name> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    pub(super) fn insert(&self, key: PrincipalKey, name: Name) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(key, name);
    }

    pub(super) fn remove(&self, key: PrincipalKey) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}
