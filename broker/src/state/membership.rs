//! Providers come, are heard, drain, and are lost.
//!
//! Whether one is lost is not for the state to find out: the runtime sees that nothing is heard, and orders it. So a
//! replica that applies the commands later loses the same provider at the same place among them.
//!
//! That nothing was heard proves nothing: the provider may be cut off and serve on, each lease until the latest end that
//! it was ever told. Until then, by whatever clock, its leases are *lost*: nobody can do anything with them, and nobody
//! gets their bytes of quota back. Another life of the same name and seat proves that it is gone, since one process at a
//! time has a seat; so does the administrator's word, and its own when it stops in order. A life of another seat proves nothing: while the one before is not
//! lost it is turned away, and afterwards it gets the name, and what was lost stays lost until its time is over.

use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::time::Micros;
use caps::time::UnixMicros;
use caps::wire::Name;
use caps::wire::provider::{Load, Registration};
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::lease::{Lease, Life};
use super::provider::{Held, Provider};
use super::{Broker, entry};

/// Where the region of a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The provider that has it.
    pub provider: ProviderId,
    /// When the provider has ended it by itself, whatever it is told or not told, and whatever its clock says.
    pub until: UnixMicros,
    /// How long it may take to wipe its bytes.
    pub wipes_within: Micros,
}

impl Broker {
    /// A provider comes. If it proves that the one of its name before has ended, all that was there is gone, lost before or
    /// not. One that drained drains on.
    pub(super) fn provider_register(
        &mut self,
        said: &Registration,
        attached: bool,
        out: &mut Out,
    ) -> Result<Answer> {
        said.check()?;
        let most = self.genesis.capacity.providers;
        self.providers.may_come(said, attached, most)?;

        let draining = self.providers.drains(&said.name);
        let row = self.providers.rows.get(&said.name);
        let proved = row.is_some_and(|row| row.followed_by(said, attached));
        let before = row.map(|row| row.said.id);
        if let Some(id) = before.filter(|_| proved) {
            self.lose(id, true, out);
        }
        if let Some(seat) = said.seat {
            let of_seat = |lease: &LeaseId| {
                let at = self.leases.get(*lease).map(|lease| lease.provider);
                at.and_then(|at| self.providers.seat_of(at)) == Some(seat)
            };
            let gone = self.lost_under(&said.name).into_iter().filter(of_seat).collect();
            self.bury(gone, out);
        }
        self.providers.insert(Provider::new(said.clone(), attached, draining, self.now), most);
        out.entries.push(entry::provider_up(said));
        Ok(Answer::Over(before))
    }

    pub(super) fn provider_heartbeat(&mut self, id: ProviderId, load: Load) -> Result<Answer> {
        let now = self.now;
        let row = self.providers.alive(id)?;
        (row.heard, row.load, row.refused) = (now, load, None);
        Ok(Answer::Heard { untold: self.untold_first(id) })
    }

    /// Others come first until it is heard again.
    pub(super) fn provider_refused(&mut self, id: ProviderId) -> Answer {
        let now = self.now;
        if let Ok(row) = self.providers.alive(id) {
            row.refused = Some(now);
        }
        Answer::Done
    }

    pub(super) fn provider_lost(&mut self, id: ProviderId, proved: bool, out: &mut Out) -> Result<Answer> {
        let known = self.providers.get(id).is_some_and(|row| row.lost.is_some() && (row.proved || !proved));
        if known {
            return Err(Error::new(Code::Exists, "the provider is lost already"));
        }
        if self.providers.get(id).is_none() {
            self.providers.alive(id)?;
        }
        self.lose(id, proved, out);
        Ok(Answer::Over(Some(id)))
    }

    /// The administrator says that a provider's process is gone, so that nobody waits for the end of what it had.
    pub(super) fn provider_give_up(
        &mut self,
        by: PrincipalKey,
        name: &Name,
        out: &mut Out,
    ) -> Result<Answer> {
        if !self.is_admin(by) {
            return Err(Error::new(Code::NotAdmin, "only the administrator gives providers up"));
        }
        let row = self.providers.rows.get(name);
        if row.is_some_and(|row| row.attached && row.lost.is_none()) {
            return Err(Error::new(Code::Range, "the broker's own provider is there as long as the broker"));
        }
        let (id, waits) = (row.map(|row| row.said.id), self.lost_under(name).len());
        if row.is_none() && waits == 0 {
            return Err(Error::new(Code::Range, "no provider has this name"));
        }
        if row.is_some_and(|row| row.proved) && waits == 0 {
            return Err(Error::new(Code::Exists, "the provider is known to be gone"));
        }
        out.entries.push(entry::provider_given_up(by, name, waits));
        if let Some(id) = id {
            self.lose(id, true, out);
        }
        self.bury(self.lost_under(name), out);
        Ok(Answer::Over(id))
    }

    /// A provider is lost. With proof all that was there is gone: every lease ends, and its bytes are in nobody's books any
    /// more. Without, its leases are lost with it, and stay in their owners' books. Its own book is closed either way.
    fn lose(&mut self, id: ProviderId, proved: bool, out: &mut Out) {
        let Some(row) = self.providers.get(id) else { return };
        let was_here = row.lost.is_none();
        if was_here {
            let there = |life: Life| !matches!(life, Life::Lost(_) | Life::Ended(_));
            let rows = self.leases.rows.values().filter(|lease| lease.provider == id && there(lease.life));
            let leases: Vec<LeaseId> = rows.map(|lease| lease.id).collect();
            out.entries.push(entry::provider_lost(id, leases.len()));
            for lease in leases {
                if proved {
                    self.close_lease(lease, EndCause::ProviderLost, out);
                } else {
                    self.lose_lease(lease, out);
                }
            }
        } else if proved {
            let of_life = |lease: &LeaseId| self.leases.get(*lease).is_some_and(|lease| lease.provider == id);
            let gone = self.lost_under(&row.said.name).into_iter().filter(of_life).collect();
            self.bury(gone, out);
        }
        self.untold.lose(id);
        let now = self.now;
        if let Some(row) = self.providers.get_mut(id) {
            row.lost = row.lost.or(Some(now));
            row.proved |= proved;
            if was_here {
                row.held = Held::default();
            }
        }
    }

    /// Leases that were lost are known to be gone.
    fn bury(&mut self, gone: Vec<LeaseId>, out: &mut Out) {
        for lease in gone {
            self.close_lease(lease, EndCause::ProviderLost, out);
        }
    }

    /// What was lost with lives of this name, rows or no rows.
    fn lost_under(&self, name: &Name) -> Vec<LeaseId> {
        let lost = |life: Life| matches!(life, Life::Lost(_));
        let rows =
            self.leases.rows.values().filter(|lease| lost(lease.life) && lease.placement.node == *name);
        rows.map(|lease| lease.id).collect()
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
        if !drain && self.providers.drained.remove(name) {
            return Ok(Answer::Done);
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
        let zeroing = Micros::from_millis(lease.range.len() / policy::limits::RESERVATION_BYTES_PER_MS);
        Some(Whereabouts {
            provider: lease.provider,
            until: self.ends_by(lease.latest),
            wipes_within: zeroing,
        })
    }

    /// Until when a life of a provider may serve a lease that it was told of, whatever it hears; without one, until when any
    /// may that was lost and is not proved to be gone. `None`: there is no such lease.
    pub(super) fn serves(&self, provider: Option<ProviderId>, now: UnixMicros) -> Option<UnixMicros> {
        let there = |lease: &&Lease| match provider {
            Some(id) => lease.provider == id && !lease.life.is_ended(),
            None => matches!(lease.life, Life::Lost(lost) if lost.until > now),
        };
        self.leases.rows.values().filter(there).map(|lease| self.ends_by(lease.latest)).max()
    }
}
