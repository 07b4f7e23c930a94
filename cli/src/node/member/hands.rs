//! What the broker asks over the link, done by the provider.

use std::sync::{Arc, OnceLock};

use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::time::Micros;
use caps::token::{RootKeys, RootPublic};
use caps::wire::cluster::{Fact, Pulse};
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow};
use link::provider::{Boxed, Claimed, Executor};
use provider::runtime::Provider;
use tokio::sync::Mutex;

use super::Known;

/// Carries out what the broker asks.
pub(in crate::node) struct Hands {
    known: Arc<Known>,
    /// What is believed. Held through a change: one at a time, in the order in which they came.
    roots: Mutex<Vec<RootPublic>>,
    /// Set once: what it is started with comes over the link, too.
    provider: OnceLock<Provider>,
}

impl Hands {
    pub(in crate::node) fn new(known: Arc<Known>) -> Self {
        Self { known, roots: Mutex::default(), provider: OnceLock::new() }
    }

    /// The root keys that were told: what the provider is started with.
    ///
    /// # Errors
    /// `E_RANGE` if one is none.
    pub(in crate::node) async fn roots(&self) -> Result<RootKeys> {
        set(&self.roots.lock().await)
    }

    /// From here on everything that is asked is done.
    pub(in crate::node) fn use_provider(&self, provider: Provider) {
        let set = self.provider.set(provider);
        debug_assert!(set.is_ok(), "a life has one provider");
    }

    fn provider(&self) -> Result<&Provider> {
        self.provider.get().ok_or(Error::new(Code::Busy, "the provider is starting"))
    }

    /// Believes these keys and no others. What was opened under a key that is believed no longer is taken back before this
    /// returns.
    async fn believe(&self, keys: Vec<RootPublic>) -> Result<()> {
        let mut roots = self.roots.lock().await;
        let now = set(&keys)?;
        if let Ok(provider) = self.provider() {
            provider.set_roots(now.clone());
            for gone in roots.iter().filter(|key| !keys.contains(key)) {
                provider.retire_root(now.clone(), gone.id()).await?;
            }
        }
        *roots = keys;
        Ok(())
    }
}

fn set(keys: &[RootPublic]) -> Result<RootKeys> {
    let mut believed = RootKeys::default();
    keys.iter().try_for_each(|key| believed.add(*key))?;
    Ok(believed)
}
