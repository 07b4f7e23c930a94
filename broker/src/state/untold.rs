//! What a provider did not answer when it was told: kept in order until it has been.
//!
//! A lease that is ending is told of again and again by its own deadline. Everything smaller, a grant, a part of one, the
//! marks of tokens, a former owner, has no row of its own that waits: it waits here, and is told with the next heartbeat.
//! Whoever asks for the same again is not answered from here but by the provider.
//!
//! Only of live leases at a provider that is there: what ends, and whose provider is lost, takes everything along.

use std::collections::{BTreeMap, VecDeque};

use caps::id::{LeaseId, ProviderId};
use caps::wire::link::Take;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::limits::{UNTOLD_PER_BEAT_MAX, UNTOLD_PER_PROVIDER_MAX};

use super::Broker;
use super::answer::{Answer, Out};
use super::lease::Life;

/// By provider, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Untold(pub(super) BTreeMap<ProviderId, VecDeque<(Take, EndCause)>>);

impl Untold {
    /// The oldest of a provider.
    fn first(&self, provider: ProviderId) -> Vec<(Take, EndCause)> {
        let all = self.0.get(&provider).into_iter().flatten();
        all.take(UNTOLD_PER_BEAT_MAX).copied().collect()
    }

    /// Keeps one; `false` if there is no room for it.
    fn keep(&mut self, provider: ProviderId, take: Take, cause: EndCause) -> bool {
        let all = self.0.entry(provider).or_default();
        if let Take::Grant { grant, .. } = take {
            // The whole of it goes: what was to go of it before goes along.
            all.retain(|(other, _)| !matches!(other, Take::Narrow { grant: of, .. } if *of == grant));
        }
        let known = all.iter().any(|(other, _)| *other == take);
        let fits = known || all.len() < UNTOLD_PER_PROVIDER_MAX;
        if fits && !known {
            all.push_back((take, cause));
        }
        self.tidy(provider);
        fits
    }

    fn told(&mut self, provider: ProviderId, take: &Take) {
        self.retain(provider, |other| other != take);
    }

    /// Forgets what was to be told of a lease.
    pub(super) fn forget(&mut self, provider: ProviderId, lease: LeaseId) {
        self.retain(provider, |take| take.lease() != lease);
    }

    /// Forgets a provider.
    pub(super) fn lose(&mut self, provider: ProviderId) {
        self.0.remove(&provider);
    }

    fn retain(&mut self, provider: ProviderId, keep: impl Fn(&Take) -> bool) {
        if let Some(all) = self.0.get_mut(&provider) {
            all.retain(|(take, _)| keep(take));
            self.tidy(provider);
        }
    }

    fn tidy(&mut self, provider: ProviderId) {
        if self.0.get(&provider).is_some_and(VecDeque::is_empty) {
            self.0.remove(&provider);
        }
    }
}

impl Broker {
    /// A provider did not answer when it was told to take something back. Where no more can be kept, the whole lease goes:
    /// that is told until it is answered.
    pub(super) fn untold(
        &mut self,
        provider: ProviderId,
        take: Take,
        cause: EndCause,
        out: &mut Out,
    ) -> Result<Answer> {
        let row = self.providers.alive(provider)?;
        let (id, attached) = (take.lease(), row.attached);
        let lease = self.leases.get(id).filter(|lease| lease.provider == provider);
        let life = lease.ok_or(Error::new(Code::LeaseUnknown, "the provider has no such lease"))?.life;
        // In the broker's own process nothing is lost on the way, and a lease that is not live is told of by itself.
        let waits = !attached && matches!(life, Life::Live(_)) && !matches!(take, Take::Lease(_));
        if waits && !self.untold.keep(provider, take, cause) {
            self.end_lease(id, cause, None, out);
        }
        Ok(Answer::Done)
    }

    /// The provider answered.
    pub(super) fn told(&mut self, provider: ProviderId, take: &Take) -> Answer {
        self.untold.told(provider, take);
        Answer::Done
    }

    pub(super) fn untold_first(&self, provider: ProviderId) -> Vec<(Take, EndCause)> {
        self.untold.first(provider)
    }
}
