//! What the broker asks over the link, done by the provider.

use std::future::ready;
use std::sync::Arc;

use broker::runtime::{Boxed, Claimed, ProviderStatus};
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::time::Micros;
use caps::token::RootPublic;
use caps::wire::cluster::{Fact, Roots};
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, Lifetime, MemoryRow};
use link::Facts;
use link::provider::Executor;
use provider::runtime::Provider;

use super::Known;
use super::roots::Believed;
use crate::node::links::status;

/// Carries out what the broker asks.
pub(in crate::node) struct Hands {
    provider: Provider,
    known: Arc<Known>,
    roots: Arc<Believed>,
    /// Whether tickets are turned into memory. Claims under way hold it for reading.
    claims: tokio::sync::RwLock<bool>,
}

impl Hands {
    /// The hands of a provider that was started with the root keys `roots`.
    pub(in crate::node) fn new(provider: Provider, known: Arc<Known>, roots: Vec<RootPublic>) -> Self {
        let claims = tokio::sync::RwLock::new(true);
        Self { provider, known, roots: Arc::new(Believed::new(roots)), claims }
    }

    /// Turns no ticket into memory any more. Returns when those that were being turned are known to the provider, so that
    /// whoever takes everything back after this leaves nothing.
    pub(in crate::node) async fn no_more_claims(&self) {
        *self.claims.write().await = false;
    }

    /// Believes what is told, and nothing else. What was opened under a key that retired is taken back before this returns,
    /// and also if nobody waits for it any more.
    async fn believe(&self, told: &Roots) -> Result<()> {
        let retired = self.roots.change(told, &self.provider)?;
        // All of them are begun before one is waited for.
        let cuts: Vec<_> = retired
            .into_iter()
            .map(|id| tokio::spawn(cut(self.provider.clone(), self.roots.clone(), id)))
            .collect();
        let mut failed = None;
        for done in cuts {
            let done = done.await.unwrap_or(Err(Error::new(Code::Internal, "a take-back panicked")));
            failed = failed.or(done.err());
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Takes back what was opened under a key. One that failed is tried again with the next change, or when the link is back.
async fn cut(provider: Provider, roots: Arc<Believed>, id: u32) -> Result<()> {
    provider.cut_root(id).await?;
    roots.is_cut(id);
    Ok(())
}

impl Executor for Hands {
    fn claim(&self, ticket: ClaimTicket) -> Boxed<'_, Result<Claimed>> {
        Box::pin(async move {
            // The session that asked is the broker's. When that has ended, the broker has the lease taken: nothing here
            // is tied to it.
            let ticket = ClaimTicket { lifetime: Lifetime::Detached, ..ticket };
            let open = self.claims.read().await;
            if !*open {
                // Others come first for a broker that hears this.
                return Err(Error::new(Code::Unreachable, "the provider stops"));
            }
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
            self.believe(&roots).await
        })
    }

    fn fact(&self, fact: Fact) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            let roots = if let Fact::Roots(roots) = &fact { Some(roots.clone()) } else { None };
            self.known.learn(fact)?;
            match roots {
                Some(roots) => self.believe(&roots).await,
                None => Ok(()),
            }
        })
    }
}
