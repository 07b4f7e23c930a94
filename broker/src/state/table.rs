//! The rows of leases and grants, with every index that a request needs, so that no request scans a table.
//!
//! Rows that ended stay for a while, so that a list can say how they ended: the oldest goes when a ring of fixed size
//! is full.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId};
use caps::wire::Name;

use super::grant::Grant;
use super::lease::{Lease, Life};

/// The lease table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leases {
    pub(super) rows: BTreeMap<LeaseId, Lease>,
    /// Ended rows, oldest first.
    pub(super) ended: VecDeque<LeaseId>,
    pub(super) by_owner: BTreeSet<(PrincipalKey, LeaseId)>,
    pub(super) by_region: BTreeMap<RegionId, LeaseId>,
    /// Reserved and live leases that have a name.
    pub(super) by_name: BTreeMap<(PrincipalKey, Name), LeaseId>,
}

impl Leases {
    /// Rows that have not ended.
    pub(super) fn active(&self) -> usize {
        self.rows.len() - self.ended.len()
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.rows.get(&id)
    }

    /// Ids of the leases of `owner`, in order, after `after`.
    pub(super) fn of(&self, owner: PrincipalKey, after: Option<LeaseId>) -> impl Iterator<Item = LeaseId> {
        self.by_owner
            .range((owner, after.unwrap_or(LeaseId([0; 16])))..=(owner, LeaseId([0xff; 16])))
            .map(|(_, id)| *id)
            .filter(move |id| after.is_none_or(|after| *id > after))
    }

    /// Adds a row whose id and region are new. The caller has checked the capacity.
    pub(super) fn insert(&mut self, lease: Lease) {
        self.by_owner.insert((lease.owner, lease.id));
        self.by_region.insert(lease.region, lease.id);
        if let (Some(name), true) = (&lease.name, lease.holds_name()) {
            self.by_name.insert((lease.owner, name.clone()), lease.id);
        }
        if matches!(lease.life, Life::Ended(_)) {
            self.ended.push_back(lease.id);
        }
        self.rows.insert(lease.id, lease);
    }

    /// Frees the name of a row that is ending.
    pub(super) fn free_name(&mut self, id: LeaseId) {
        if let Some(Lease { owner, name: Some(name), .. }) = self.rows.get(&id) {
            self.by_name.remove(&(*owner, name.clone()));
        }
    }

    /// Notes that a row ended and forgets the oldest one past `keep`.
    pub(super) fn retire(&mut self, id: LeaseId, keep: u32) {
        self.ended.push_back(id);
        if self.ended.len() > keep as usize
            && let Some(oldest) = self.ended.pop_front()
            && let Some(lease) = self.rows.remove(&oldest)
        {
            self.by_owner.remove(&(lease.owner, oldest));
            self.by_region.remove(&lease.region);
        }
    }
}

/// The grant table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    pub(super) rows: BTreeMap<GrantId, Grant>,
    /// Ended rows, oldest first.
    pub(super) ended: VecDeque<GrantId>,
    /// Grants that have not ended.
    pub(super) by_lease: BTreeSet<(LeaseId, GrantId)>,
    /// Owners, receivers and co-signers.
    pub(super) by_party: BTreeSet<(PrincipalKey, GrantId)>,
}

impl Grants {
    /// Rows that have not ended.
    pub(super) fn active(&self) -> usize {
        self.rows.len() - self.ended.len()
    }

    pub(super) fn get(&self, id: GrantId) -> Option<&Grant> {
        self.rows.get(&id)
    }

    /// Ids of the grants that `party` gave, received or has to co-sign, in order, after `after`.
    pub(super) fn of(&self, party: PrincipalKey, after: Option<GrantId>) -> impl Iterator<Item = GrantId> {
        self.by_party
            .range((party, after.unwrap_or(GrantId([0; 16])))..=(party, GrantId([0xff; 16])))
            .map(|(_, id)| *id)
            .filter(move |id| after.is_none_or(|after| *id > after))
    }

    /// Ids of the grants of `lease` that have not ended.
    pub(super) fn under(&self, lease: LeaseId) -> Vec<GrantId> {
        self.by_lease
            .range((lease, GrantId([0; 16]))..=(lease, GrantId([0xff; 16])))
            .map(|(_, id)| *id)
            .collect()
    }

    /// Adds a row whose id is new. The caller has checked the capacity.
    pub(super) fn insert(&mut self, grant: Grant) {
        let contract = &grant.contract;
        self.by_party.insert((contract.owner, contract.grant));
        self.by_party.insert((contract.receiver, contract.grant));
        if let Some(cosigner) = contract.cosigner {
            self.by_party.insert((cosigner, contract.grant));
        }
        if grant.life.is_ended() {
            self.ended.push_back(contract.grant);
        } else {
            self.by_lease.insert((contract.lease, contract.grant));
        }
        self.rows.insert(contract.grant, grant);
    }

    /// Notes that a row ended and forgets the oldest one past `keep`.
    pub(super) fn retire(&mut self, id: GrantId, keep: u32) {
        if let Some(grant) = self.rows.get(&id) {
            self.by_lease.remove(&(grant.contract.lease, id));
        }
        self.ended.push_back(id);
        if self.ended.len() > keep as usize
            && let Some(oldest) = self.ended.pop_front()
            && let Some(grant) = self.rows.remove(&oldest)
        {
            self.by_party.remove(&(grant.contract.owner, oldest));
            self.by_party.remove(&(grant.contract.receiver, oldest));
            if let Some(cosigner) = grant.contract.cosigner {
                self.by_party.remove(&(cosigner, oldest));
            }
        }
    }
}
