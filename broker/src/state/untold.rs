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
use policy::limits::{UNTOLD_PER_BEAT_MAX, UNTOLD_PER_LEASE_MAX, UNTOLD_PER_PROVIDER_MAX};

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

    fn push(&mut self, provider: ProviderId, take: Take, cause: EndCause) {
        self.0.entry(provider).or_default().push_back((take, cause));
    }

    /// Whether what waits says as much as `take`. What `take` makes needless is forgotten.
    fn covers(&mut self, provider: ProviderId, take: &Take) -> bool {
        let covered = self.0.get(&provider).is_some_and(|all| all.iter().any(|(other, _)| says(other, take)));
        if !covered {
            self.retain(provider, |other| !says(take, other));
        }
        covered
    }

    /// Whether one more can wait of a lease.
    fn fits(&self, provider: ProviderId, lease: LeaseId) -> bool {
        self.0.get(&provider).is_none_or(|all| {
            let of_lease = all.iter().filter(|(take, _)| take.lease() == lease).count();
            all.len() < UNTOLD_PER_PROVIDER_MAX && of_lease < UNTOLD_PER_LEASE_MAX
        })
    }

    /// How much waits of each lease at a provider.
    pub(super) fn by_lease(&self, provider: ProviderId) -> BTreeMap<LeaseId, usize> {
        let mut count = BTreeMap::new();
        for (take, _) in self.0.get(&provider).into_iter().flatten() {
            *count.entry(take.lease()).or_default() += 1;
        }
        count
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

/// Whether who is told `more` need not be told `less`. Of a grant less and less is left: of two narrowings one has it all.
fn says(more: &Take, less: &Take) -> bool {
    match (*more, *less) {
        (Take::Grant { grant, .. }, Take::Narrow { grant: of, .. }) => grant == of,
        (
            Take::Narrow { grant, rights, range, expires, .. },
            Take::Narrow { grant: of, rights: more_rights, range: wider, expires: later, .. },
        ) => grant == of && more_rights.contains(rights) && wider.contains(range) && expires <= later,
        _ => more == less,
    }
}

impl Broker {
    /// A provider did not answer when it was told to take something back. Where no more can be kept of a lease, or of all
    /// of a provider, a whole lease goes: that is told until it is answered.
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
        if !waits || self.untold.covers(provider, &take) {
            return Ok(Answer::Done);
        }
        if !self.untold.fits(provider, id) {
            // What is over by itself there need not be told.
            let (now, skew) = (self.now, self.genesis.bounds.skew);
            self.untold.retain(provider, |take| match take {
                Take::Grant { expires, .. } | Take::Marks { expires, .. } => now < expires.plus(skew),
                _ => true,
            });
        }
        if !self.untold.fits(provider, id) {
            let largest = self.largest(provider, id);
            self.end_lease(largest, if largest == id { cause } else { EndCause::Revoked }, None, out);
            if largest == id {
                return Ok(Answer::Done);
            }
        }
        self.untold.push(provider, take, cause);
        Ok(Answer::Done)
    }

    /// Which lease goes where no more can be kept of `asked`: that one if it has its most, else the one of which most
    /// waits, of the owner of whose leases most waits. So nobody's lease goes for what others have filled the room with.
    fn largest(&self, provider: ProviderId, asked: LeaseId) -> LeaseId {
        let mut leases = self.untold.by_lease(provider);
        let of_asked = leases.entry(asked).or_default();
        *of_asked += 1;
        if *of_asked > UNTOLD_PER_LEASE_MAX {
            return asked;
        }
        let owner = |id: LeaseId| self.leases.get(id).map(|lease| lease.owner);
        let mut owners: BTreeMap<_, (usize, bool)> = BTreeMap::new();
        for (id, count) in &leases {
            let sum = owners.entry(owner(*id)).or_default();
            *sum = (sum.0 + count, owner(*id) == owner(asked));
        }
        let most = owners.into_iter().max_by_key(|(_, sum)| *sum).and_then(|(owner, _)| owner);
        let of_most = leases.iter().filter(|(id, _)| owner(**id) == most);
        of_most.max_by_key(|(id, count)| (**count, **id == asked)).map_or(asked, |(id, _)| *id)
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
