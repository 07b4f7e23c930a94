//! Names by key, for whoever judges a request before it is ordered.
//!
//! A copy of what the state says, so that most requests need no look at the state first. It decides nothing: the state
//! machine checks registration again.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use caps::id::PrincipalKey;
use caps::wire::Name;

use super::Handle;

/// Is told of a principal.
type Listener = Box<dyn Fn(PrincipalKey, Name) + Send + Sync>;

/// Registered names. Written by the broker's thread alone.
#[derive(Default)]
pub(super) struct Directory {
    /// Held for one look-up or one change. Each change is one call, so a panic leaves the map whole.
    names: RwLock<HashMap<PrincipalKey, Name>>,
    /// Who is told of each one that comes.
    listeners: RwLock<Vec<Listener>>,
}

impl Handle {
    /// Every registered principal. One that comes meanwhile is in it, or is told to [`Self::on_principal`], or both, if
    /// that was called before.
    #[must_use]
    pub fn principals_snapshot(&self) -> Vec<(PrincipalKey, Name)> {
        let names = self.shared.directory.names.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|(key, name)| (*key, name.clone())).collect()
    }

    /// Has `tell` called with every principal that comes from now on, on the broker's thread: it must return at once. For
    /// the parts of the node that live as long as the broker: nothing takes it away again. A principal whose registration
    /// could not be recorded is told, too, though it may ask for nothing.
    pub fn on_principal(&self, tell: Box<dyn Fn(PrincipalKey, Name) + Send + Sync>) {
        self.shared.directory.listeners.write().unwrap_or_else(PoisonError::into_inner).push(tell);
    }
}

impl Directory {
    pub(super) fn get(&self, key: PrincipalKey) -> Option<Name> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    pub(super) fn insert(&self, key: PrincipalKey, name: Name) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(key, name.clone());
        // After it: whoever listens and then looks misses nobody.
        for tell in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            tell(key, name.clone());
        }
    }

    pub(super) fn remove(&self, key: PrincipalKey) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}
