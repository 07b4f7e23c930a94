//! What is always true. Checked after every step in tests and fuzzing, and after every restore; there is no switch.

use std::collections::{BTreeMap, BTreeSet};

use caps::wire::link::Take;
use policy::limits::{
    MARKS_PER_REGION_MAX, PROVIDERS_DRAINED_MAX, PROVIDERS_PAST_MAX, UNTOLD_PER_LEASE_MAX,
    UNTOLD_PER_PROVIDER_MAX,
};
use policy::quota::{Usage, balance};

use super::Broker;
use super::command::RowId;
use super::deadlines::Deadlines;
use super::lease::Life;
use super::provider::Held;
use super::snapshot::{booked_grant, booked_lease};
use super::table::{Grants, Leases};
use super::transfer::{TransferLife, Transfers};

/// `Err` with what does not hold.
type Check = Result<(), &'static str>;

fn holds(condition: bool, rule: &'static str) -> Check {
    if condition { Ok(()) } else { Err(rule) }
}

impl Broker {
    /// Adds everything up again from the rows and compares.
    ///
    /// # Errors
    /// The rule that does not hold: a defect.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        self.check_principals()?;
        self.check_providers()?;
        self.check_leases()?;
        self.check_grants()?;
        self.check_transfers()?;
        self.check_books()?;
        self.check_donations()?;
        self.check_timers()
    }

    fn check_principals(&self) -> Check {
        let principals = &self.principals;
        let capacity = self.genesis.capacity.principals as usize;
        holds(principals.rows.len() <= capacity, "the table of principals keeps its size")?;
        holds(principals.active(self.genesis.admin).is_some(), "there is an administrator")?;
        holds(
            principals.by_name.len() == principals.rows.len()
                && principals.rows.iter().all(|(key, principal)| {
                    *key == principal.key && principals.by_name.get(&principal.name) == Some(key)
                }),
            "names and keys of principals are unique",
        )?;
        holds(
            principals.rows.values().all(|principal| {
                !principal.leaving || !principal.usage.is_empty() || self.donations.concern(principal.key)
            }),
            "a principal that leaves goes with its last row",
        )
    }

    fn check_providers(&self) -> Check {
        let providers = &self.providers;
        holds(
            providers.rows.len() <= self.genesis.capacity.providers as usize
                && providers.past.len() <= PROVIDERS_PAST_MAX
                && providers.drained.len() <= PROVIDERS_DRAINED_MAX,
            "the table of providers keeps its size",
        )?;
        holds(
            providers.by_id.len() == providers.rows.len()
                && providers.rows.iter().all(|(name, row)| {
                    *name == row.said.name && providers.by_id.get(&row.said.id) == Some(name)
                }),
            "names and ids of providers are unique",
        )?;
        holds(
            providers.past.iter().all(|(_, id, _)| !providers.by_id.contains_key(id)),
            "a life of a provider that ended does not come back",
        )?;
        for row in providers.rows.values() {
            let mut held = Held::default();
            for lease in self.leases.rows.values().filter(|lease| lease.provider == row.said.id) {
                held.add(lease);
            }
            holds(held == row.held, "a provider's book is the sum of its leases")?;
            holds(held.fits(&row.said), "no provider is oversold")?;
            holds(row.lost.is_none() || held == Held::default(), "a lost provider has no lease")?;
            holds(row.lost.is_some() || !row.proved, "what is there is not proved to be gone")?;
            holds(!providers.drained.contains(&row.said.name), "who has a row drains by that")?;
            holds(row.said.check().is_ok(), "a provider has room and few classes")?;
            holds(row.heard <= self.now && row.lost <= Some(self.now), "nothing was heard in the future")?;
        }
        for (id, takes) in &self.untold.0 {
            holds(!takes.is_empty() && takes.len() <= UNTOLD_PER_PROVIDER_MAX, "so much waits to be told")?;
            let row = providers.get(*id);
            holds(
                row.is_some_and(|row| row.lost.is_none() && !row.attached),
                "only a provider that may come back is to be told",
            )?;
            let live = |take: &Take| {
                let lease = self.leases.get(take.lease());
                lease.is_some_and(|lease| lease.provider == *id && matches!(lease.life, Life::Live(_)))
            };
            holds(takes.iter().all(|(take, _)| live(take)), "and only of its live leases")?;
            let most = self.untold.by_lease(*id).into_values().max();
            holds(most <= Some(UNTOLD_PER_LEASE_MAX), "so much of one lease")?;
        }
        Ok(())
    }

    fn check_leases(&self) -> Check {
        let capacity = &self.genesis.capacity;
        let leases = &self.leases;
        holds(leases.ended.len() <= capacity.ended as usize, "the ring of ended leases keeps its size")?;
        holds(
            leases.ended.len() <= leases.rows.len() && leases.active() <= capacity.leases as usize,
            "the table of leases keeps its size",
        )?;
        let ring: BTreeSet<_> = leases.ended.iter().copied().collect();
        holds(ring.len() == leases.ended.len(), "a lease ends once")?;
        let mut rebuilt = Leases { ended: leases.ended.clone(), ..Leases::default() };
        for (id, lease) in &leases.rows {
            holds(*id == lease.id, "a lease stands under its id")?;
            holds(lease.life.is_ended() == ring.contains(id), "the ring has the ended leases and no others")?;
            holds(lease.range.start() == 0, "a lease begins where its region does")?;
            holds(lease.range.is_aligned(self.genesis.bounds.page_bytes), "a lease has whole pages")?;
            let grants = self.grants.under(*id).len();
            holds(lease.grants as usize == grants, "a lease counts its grants")?;
            holds(
                grants == 0 || matches!(lease.life, Life::Live(_)),
                "only a live lease has grants that have not ended",
            )?;
            holds(
                lease.life.is_ended() || self.principals.rows.contains_key(&lease.owner),
                "a lease that has not ended has an owner",
            )?;
            holds(
                match (lease.life, self.providers.get(lease.provider)) {
                    (Life::Ended(_), _) => true,
                    (Life::Lost(_), row) => row.is_none_or(|row| row.lost.is_some() && !row.proved),
                    (_, row) => row.is_some_and(|row| row.lost.is_none()),
                },
                "leases live at a provider that is there, and are lost with one that may be there",
            )?;
            holds(
                lease.life.deadline().is_none_or(|deadline| match lease.life {
                    Life::Ending(_) => true,
                    Life::Lost(_) => deadline == self.ends_by(lease.latest),
                    _ => deadline <= lease.latest,
                }),
                "no lease lives longer than its provider lets it",
            )?;
            holds(lease.marks.len() <= MARKS_PER_REGION_MAX, "a lease remembers so many revocations")?;
            holds(
                lease.marks.is_empty() || matches!(lease.life, Life::Live(_)),
                "and none once its memory is going",
            )?;
            rebuilt.insert(lease.clone());
        }
        rebuilt.ended.clone_from(&leases.ended);
        holds(rebuilt == *leases, "the indices of leases are those of the rows")?;
        holds(rebuilt.by_region.len() == leases.rows.len(), "a region has one lease")
    }

    fn check_grants(&self) -> Check {
        let capacity = &self.genesis.capacity;
        let grants = &self.grants;
        holds(grants.ended.len() <= capacity.ended as usize, "the ring of ended grants keeps its size")?;
        holds(
            grants.ended.len() <= grants.rows.len() && grants.active() <= capacity.grants as usize,
            "the table of grants keeps its size",
        )?;
        let ring: BTreeSet<_> = grants.ended.iter().copied().collect();
        holds(ring.len() == grants.ended.len(), "a grant ends once")?;
        let mut rebuilt = Grants::default();
        for (id, grant) in &grants.rows {
            let contract = &grant.contract;
            holds(*id == contract.grant, "a grant stands under its id")?;
            holds(grant.life.is_ended() == ring.contains(id), "the ring has the ended grants and no others")?;
            if !grant.life.is_ended() {
                let Some(lease) = self.leases.get(contract.lease) else {
                    return Err("a grant that has not ended has a lease");
                };
                holds(
                    lease.owner == contract.owner
                        && lease.region == contract.region
                        && lease.range.contains(contract.range)
                        && !contract.rights.is_empty(),
                    "a grant gives no more than its lease has",
                )?;
                holds(
                    grant.left.is_none_or(|left| {
                        contract.rights.contains(left.rights)
                            && !left.rights.is_empty()
                            && contract.range.contains(left.range)
                    }),
                    "what is left of a grant is a part of what was agreed",
                )?;
                holds(contract.check_parties().is_ok(), "nobody is on two sides of a grant")?;
                holds(
                    grant.life.is_offered() || grant.is_cosigned(),
                    "what was issued was co-signed, where the contract asks for it",
                )?;
                holds(
                    contract.cosigner.is_some() || grant.by_cosigner.is_none(),
                    "nobody co-signed whom the contract does not name",
                )?;
                holds(contract.cluster == self.genesis.cluster, "a grant is of this cluster")?;
            }
            rebuilt.insert(grant.clone());
        }
        rebuilt.ended.clone_from(&grants.ended);
        holds(rebuilt == *grants, "the indices of grants are those of the rows")
    }

    fn check_transfers(&self) -> Check {
        let transfers = &self.transfers;
        let capacity = self.genesis.capacity.ended as usize;
        holds(transfers.ended.len() <= capacity, "the ring of ended transfers keeps its size")?;
        let ring: BTreeSet<_> = transfers.ended.iter().copied().collect();
        holds(ring.len() == transfers.ended.len(), "a transfer ends once")?;
        let (mut rebuilt, mut pending, mut accepted) = (Transfers::default(), 0, 0);
        for (id, transfer) in &transfers.rows {
            let contract = &transfer.contract;
            holds(*id == contract.transfer, "a transfer stands under its id")?;
            holds(
                transfer.life.is_over() == ring.contains(id),
                "the ring has the ended transfers and no others",
            )?;
            if !transfer.life.is_over() {
                pending += 1;
                let lease = self.leases.get(contract.lease);
                holds(
                    lease.is_some_and(|lease| {
                        matches!(lease.life, Life::Live(_))
                            && lease.owner == contract.from
                            && lease.region == contract.region
                    }),
                    "an offer that stands is of a live lease, by its owner",
                )?;
                holds(contract.from != contract.to, "a transfer has two parties")?;
                holds(contract.cluster == self.genesis.cluster, "a transfer is of this cluster")?;
                holds(self.principals.active(contract.to).is_some(), "and to somebody who is registered")?;
            }
            accepted += usize::from(matches!(transfer.life, TransferLife::Accepted(_)));
            rebuilt.insert(transfer.clone());
        }
        rebuilt.ended.clone_from(&transfers.ended);
        holds(rebuilt == *transfers, "the indices of transfers are those of the rows")?;
        holds(transfers.by_lease.len() == pending, "a lease has at most one offer that stands")?;
        holds(transfers.receiving.len() == accepted, "nobody takes two leases over at once")
    }

    fn check_books(&self) -> Check {
        let mut books: BTreeMap<_, Usage> = BTreeMap::new();
        for lease in self.leases.rows.values() {
            booked_lease(books.entry(lease.owner).or_default(), lease).map_err(|_| "leases can be booked")?;
        }
        for grant in self.grants.rows.values() {
            booked_grant(books.entry(grant.contract.owner).or_default(), grant)
                .map_err(|_| "grants can be booked")?;
        }
        balance(books.values(), &self.total)?;
        holds(self.total.taken_bytes() <= self.genesis.bounds.pool_bytes, "the pool is not oversold")?;
        for (key, principal) in &self.principals.rows {
            let booked = books.remove(key).unwrap_or_default();
            holds(booked == principal.usage, "a principal's book is the sum of its rows")?;
            let quota = self.effective(*key, self.genesis.quota_of(&principal.name), None);
            holds(principal.usage.fits(&quota), "every principal is within its quota")?;
        }
        holds(books.values().all(Usage::is_empty), "every row that is booked has an owner")
    }

    fn check_timers(&self) -> Check {
        let mut deadlines = Deadlines::default();
        let mut sessions = BTreeSet::new();
        for lease in self.leases.rows.values() {
            deadlines.swap(RowId::Lease(lease.id), None, lease.life.deadline());
            if lease.is_tied() {
                sessions.insert((lease.session, RowId::Lease(lease.id)));
            }
        }
        for grant in self.grants.rows.values() {
            let row = RowId::Grant(grant.contract.grant);
            deadlines.swap(row, None, grant.deadline());
            if let Some(session) = grant.life.session() {
                sessions.insert((session, row));
            }
        }
        for donation in self.donations.rows.values() {
            deadlines.swap(RowId::Donation(donation.id), None, donation.deadline());
        }
        for transfer in self.transfers.rows.values() {
            let row = RowId::Transfer(transfer.contract.transfer);
            deadlines.swap(row, None, transfer.life.deadline());
            if let Some(session) = transfer.life.session() {
                sessions.insert((session, row));
            }
        }
        holds(deadlines == self.deadlines, "every row that can end by itself has its timer")?;
        holds(sessions == self.sessions, "every row that ends with a process is found by its session")?;
        holds(self.now <= caps::time::UnixMicros::MAX, "time fits a token")
    }
}
