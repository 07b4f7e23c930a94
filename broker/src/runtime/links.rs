//! The providers that can be reached, by their lives: whoever has something to say to one finds its link here, and waits
//! for the answer as long as such an answer takes at most, whatever the link promises.
//!
//! A life whose link is not here has gone, or has not come back: what is asked of it is answered with `E_UNREACHABLE`,
//! and what was to be taken there is told again, until the provider answers or is lost.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use caps::id::{LeaseId, ProviderId};
use caps::time::Micros;
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow};
use caps::{Code, Error, Result};
use policy::limits::{PROVIDER_ANSWER_MS_MAX, PROVIDER_TAKE_MS_MAX};

use super::link::{Claimed, ProviderLink, ProviderStatus};
use crate::state::Whereabouts;

const ANSWER: Duration = Duration::from_millis(PROVIDER_ANSWER_MS_MAX);

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
    fn get(&self, provider: ProviderId) -> Result<Arc<dyn ProviderLink>> {
        let links = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        links
            .get(&provider)
            .cloned()
            .ok_or(Error::new(Code::Unreachable, "the provider cannot be reached at present"))
    }

    /// Whether a life has a link.
    pub(super) fn has(&self, provider: ProviderId) -> bool {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).contains_key(&provider)
    }

    /// Whether there is another than that of `provider`.
    pub(super) fn has_other(&self, provider: ProviderId) -> bool {
        let links = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        links.keys().any(|other| *other != provider)
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

    /// Forgets the link of a life that did not come.
    pub(super) fn forget(&self, provider: ProviderId) -> Option<Arc<dyn ProviderLink>> {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&provider)
    }

    /// Forgets the link of a life that is over, and says so at its other end.
    pub(super) fn remove(&self, provider: ProviderId) {
        if let Some(link) = self.forget(provider) {
            link.over();
        }
    }

    /// [`ProviderLink::claim`]; until the ticket is over.
    pub(super) async fn claim(
        &self,
        provider: ProviderId,
        ticket: ClaimTicket,
        session: u64,
        left: Micros,
    ) -> Result<Claimed> {
        let link = self.get(provider)?;
        // A provider refuses it after that, by a clock that may be behind.
        within(Duration::from_micros(left.0) + ANSWER, link.claim(ticket, session)).await
    }

    /// [`ProviderLink::renew`].
    pub(super) async fn renew(&self, provider: ProviderId, lease: LeaseId, ttl: Micros) -> Result<()> {
        let link = self.get(provider)?;
        within(ANSWER, link.renew(lease, ttl)).await
    }

    /// [`ProviderLink::take`].
    pub(super) async fn take(&self, at: Whereabouts, take: Take, cause: EndCause) -> Result<Taken> {
        let link = self.get(at.provider)?;
        let most = Duration::from_millis(PROVIDER_TAKE_MS_MAX) + Duration::from_micros(at.wipes_within.0);
        within(most, link.take(take, cause)).await
    }

    /// [`ProviderLink::memory`].
    pub(super) async fn memory(&self, provider: ProviderId, lease: LeaseId) -> Result<Option<MemoryRow>> {
        let link = self.get(provider)?;
        within(ANSWER, link.memory(lease)).await
    }

    /// [`ProviderLink::status`], within `most`.
    pub(super) async fn status(&self, provider: ProviderId, most: Duration) -> Result<ProviderStatus> {
        let link = self.get(provider)?;
        within(most.min(ANSWER), link.status()).await
    }
}

/// What is answered within a time.
async fn within<T>(most: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(most, answer)
        .await
        .unwrap_or(Err(Error::new(Code::Timeout, "the provider does not answer in time")))
}
