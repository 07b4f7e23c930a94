//! Providers come, are heard, drain, and are lost.
//!
//! Whether one is lost is not for the state to find out: the runtime sees that nothing is heard, and orders it. So a
//! replica that applies the commands later loses the same provider at the same place among them.

use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::time::UnixMicros;
use caps::wire::Name;
use caps::wire::provider::{Load, Registration};
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::lease::Life;
use super::provider::Provider;
use super::{Broker, entry};

/// Where the region of a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The provider that has it.
    pub provider: ProviderId,
    /// When the provider ends it by itself, at the latest, whatever it is told or not told.
    pub until: UnixMicros,
}

impl Broker {
    /// A provider comes, with none of the memory that one of its name had before: if that one was not lost yet, it is now.
    /// One that drained drains on.
    pub(super) fn provider_register(
        &mut self,
        said: &Registration,
        attached: bool,
        out: &mut Out,
    ) -> Result<Answer> {
        said.check()?;
        let most = self.genesis.capacity.providers;
        self.providers.may_come(said, most)?;

        let before = self.providers.rows.get(&said.name);
        let draining = before.is_some_and(|row| row.draining);
        if let Some(id) = before.filter(|row| row.lost.is_none()).map(|row| row.said.id) {
            self.lose(id, out);
        }
        self.providers.insert(Provider::new(said.clone(), attached, draining, self.now), most);
        out.entries.push(entry::provider_up(said));
        Ok(Answer::Done)
    }

    pub(super) fn provider_heartbeat(&mut self, id: ProviderId, load: Load) -> Result<Answer> {
        let now = self.now;
        let row = self.providers.alive(id)?;
        (row.heard, row.load) = (now, load);
        Ok(Answer::Done)
    }

    pub(super) fn provider_lost(&mut self, id: ProviderId, out: &mut Out) -> Result<Answer> {
        if self.providers.get(id).is_some_and(|row| row.lost.is_some()) {
            return Err(Error::new(Code::Exists, "the provider is lost already"));
        }
        self.providers.alive(id)?;
        self.lose(id, out);
        Ok(Answer::Done)
    }

    /// All that was there is gone: every lease ends, and its bytes are in nobody's books any more.
    fn lose(&mut self, id: ProviderId, out: &mut Out) {
        let there = |life: Life| !matches!(life, Life::Ended(_));
        let rows = self.leases.rows.values().filter(|lease| lease.provider == id && there(lease.life));
        let leases: Vec<LeaseId> = rows.map(|lease| lease.id).collect();
        out.entries.push(entry::provider_lost(id, leases.len()));
        for lease in leases {
            self.close_lease(lease, EndCause::ProviderLost, out);
        }
        let now = self.now;
        if let Ok(row) = self.providers.alive(id) {
            row.lost = Some(now);
        }
    }

    /// Has a provider take no new leases from now on, or take them again. What it has stays until it ends.
    pub(super) fn provider_drain(
        &mut self,
        by: PrincipalKey,
        name: &Name,
        drain: bool,
        out: &mut Out,
    ) -> Result<Answer> {
        if !self.is_admin(by) {
            return Err(Error::new(Code::NotAdmin, "only the administrator drains providers"));
        }
        let row = self.providers.rows.get_mut(name);
        let row = row.ok_or(Error::new(Code::Range, "no provider has this name"))?;
        if row.draining != drain {
            row.draining = drain;
            out.entries.push(entry::provider_drained(by, row.said.id, name, drain));
        }
        Ok(Answer::Done)
    }

    /// Where the region of a lease is; `None` if the lease is not known.
    #[must_use]
    pub fn whereabouts(&self, lease: LeaseId) -> Option<Whereabouts> {
        let lease = self.leases.get(lease)?;
        Some(Whereabouts { provider: lease.provider, until: lease.latest })
    }
}
