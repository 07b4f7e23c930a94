//! The providers that can be reached, by their lives: whoever has something to say to one finds its link here.
//!
//! A life whose link is not here has gone, or has not come back: what is asked of it is answered with `E_UNREACHABLE`,
//! and what was to be taken there is told again at its deadline, until the provider answers or is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use caps::id::ProviderId;
use caps::{Code, Error, Result};

use super::link::ProviderLink;

/// The links.
#[derive(Default)]
pub(super) struct Links {
    /// Held for one look-up or one change, never while a provider works. At most one for each row of the state, and one
    /// for each that is just coming.
    by_id: RwLock<BTreeMap<ProviderId, Arc<dyn ProviderLink>>>,
}

impl Links {
    /// The link of a life.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if there is none.
    pub(super) fn get(&self, provider: ProviderId) -> Result<Arc<dyn ProviderLink>> {
        let links = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        links
            .get(&provider)
            .cloned()
            .ok_or(Error::new(Code::Unreachable, "the provider cannot be reached at present"))
    }

    /// Adds the link of a life; `false` if that has one.
    pub(super) fn add(&self, provider: ProviderId, link: Arc<dyn ProviderLink>) -> bool {
        let mut links = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        match links.entry(provider) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(link);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// Puts another link in the place of that of a life, or of none.
    pub(super) fn replace(&self, provider: ProviderId, link: Arc<dyn ProviderLink>) {
        let mut links = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        let before = links.insert(provider, link);
        // Its end may do more than free memory: not under the lock.
        drop(links);
        drop(before);
    }

    /// Forgets the link of a life that is over, and says so at its other end.
    pub(super) fn remove(&self, provider: ProviderId) {
        let link = self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&provider);
        if let Some(link) = link {
            link.over();
        }
    }
}
