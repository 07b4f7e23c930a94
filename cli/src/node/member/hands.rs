//! What the broker asks over the link, done by the provider.

use std::future::ready;
use std::sync::Arc;

use broker::runtime::{Boxed, Claimed, ProviderStatus};
use caps::error::Result;
use caps::id::LeaseId;
use caps::time::Micros;
use caps::token::{RootKeys, RootPublic};
use caps::wire::cluster::Fact;
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, Lifetime, MemoryRow};
use link::Facts;
use link::provider::Executor;
use provider::runtime::Provider;
use tokio::sync::Mutex;

use super::Known;
use crate::node::links::status;

/// Carries out what the broker asks.
pub(in crate::node) struct Hands {
    provider: Provider,
    known: Arc<Known>,
    /// What is believed. Held through a change: one at a time, in the order in which they came.
    roots: Mutex<Vec<RootPublic>>,
}

impl Hands {
    /// The hands of a provider that was started with the root keys `roots`.
    pub(in crate::node) fn new(provider: Provider, known: Arc<Known>, roots: Vec<RootPublic>) -> Self {
        Self { provider, known, roots: Mutex::new(roots) }
    }

    /// Believes these keys and no others. What was opened under a key that is believed no longer is taken back before this
    /// returns.
    async fn believe(&self, keys: Vec<RootPublic>) -> Result<()> {
        let mut roots = self.roots.lock().await;
        let believed = set(&keys)?;
        self.provider.set_roots(believed.clone());
        let gone: Vec<_> = roots.iter().filter(|key| !keys.contains(key)).map(|key| key.id()).collect();
        // Not believed from here on, whatever becomes of the rest.
        *roots = keys;
        for id in gone {
            self.provider.retire_root(believed.clone(), id).await?;
        }
        Ok(())
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

impl Executor for Hands {
    fn claim(&self, ticket: ClaimTicket) -> Boxed<'_, Result<Claimed>> {
        Box::pin(async move {
            // The session that asked is the broker's. When that has ended, the broker has the lease taken: nothing here
            // is tied to it.
            let ticket = ClaimTicket { lifetime: Lifetime::Detached, ..ticket };
            let record = self.provider.claim(ticket, None).await?;
            Ok(Claimed { bytes: ticket.bytes, recorded: Box::pin(record.durable()) })
        })
    }

    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>> {
        Box::pin(ready(self.provider.renew(lease, ttl)))
    }

    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>> {
        Box::pin(self.provider.take(take, cause))
    }

    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        Box::pin(ready(Ok(self.provider.memory(lease))))
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        Box::pin(ready(Ok(status(&self.provider))))
    }

    fn facts(&self, facts: Facts) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let roots = facts.roots.clone();
            self.known.replace(facts)?;
            self.believe(roots).await
        })
    }

    fn fact(&self, fact: Fact) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let roots = if let Fact::Roots(keys) = &fact { Some(keys.clone()) } else { None };
            self.known.learn(fact)?;
            match roots {
                Some(keys) => self.believe(keys).await,
                None => Ok(()),
            }
        })
    }
}
