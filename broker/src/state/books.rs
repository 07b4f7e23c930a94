//! Principals and what each uses of its quota; and the pool, which all use.
//!
//! Each step of a row's life is booked to its owner and to the cluster, whose sum is what the pool has given; those of a
//! lease to its provider, too.
//! [`check_invariants`](super::Broker::check_invariants) adds both up again from the rows.

use std::collections::BTreeMap;

use caps::id::{PrincipalKey, ProviderId};
use caps::wire::Name;
use caps::wire::provider::Placement;
use caps::{Code, Error, Result};
use policy::quota::{Quota, Usage};
use serde::{Deserialize, Serialize};

use super::Broker;
use super::denials::Denials;
use super::place::Ask;

/// Somebody that may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Principal {
    pub(super) name: Name,
    pub(super) key: PrincipalKey,
    pub(super) denials: Denials,
    /// Its registration was undone: it may not ask, and the row goes with the last of its leases and donations.
    pub(super) leaving: bool,
    /// What it uses. Derived from the rows, so it is not in the serialized form.
    #[serde(skip)]
    pub(super) usage: Usage,
}

/// The table of principals, with names unique.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Principals {
    pub(super) rows: BTreeMap<PrincipalKey, Principal>,
    pub(super) by_name: BTreeMap<Name, PrincipalKey>,
}

impl Principals {
    pub(super) fn insert(&mut self, principal: Principal) {
        self.by_name.insert(principal.name.clone(), principal.key);
        self.rows.insert(principal.key, principal);
    }

    pub(super) fn remove(&mut self, key: PrincipalKey) {
        if let Some(principal) = self.rows.remove(&key) {
            self.by_name.remove(&principal.name);
        }
    }

    /// One that may ask.
    pub(super) fn active(&self, key: PrincipalKey) -> Option<&Principal> {
        self.rows.get(&key).filter(|principal| !principal.leaving)
    }

    /// Its name, if it has one here.
    pub(super) fn name(&self, key: PrincipalKey) -> Option<&Name> {
        self.rows.get(&key).map(|principal| &principal.name)
    }
}

/// A step of a row's life, as the books see it. `reserve` and `share` are not among them: they can be refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Booking {
    Cancel,
    Commit,
    Release,
    Returned,
    Unshare,
}

impl Booking {
    fn book(self, usage: &mut Usage, bytes: u64) -> Result<()> {
        match self {
            Self::Cancel => usage.cancel(bytes),
            Self::Commit => usage.commit(bytes),
            Self::Release => usage.release(bytes),
            Self::Returned => usage.returned(bytes),
            Self::Unshare => usage.unshare(bytes),
        }
    }
}

impl Broker {
    /// Books what a row of `owner` has just done, to both books.
    ///
    /// # Panics
    /// If the books have no such row: a defect, and every answer after it would be wrong.
    pub(super) fn book(&mut self, owner: PrincipalKey, bytes: u64, booking: Booking) {
        let entered = "the books have what the rows have";
        booking.book(&mut self.total, bytes).expect(entered);
        let principal = self.principals.rows.get_mut(&owner).expect(entered);
        booking.book(&mut principal.usage, bytes).expect(entered);
        self.unsettled.insert(owner);
        self.let_go(owner);
    }

    /// Books what a lease of `owner` at `provider` has just done, to all three books.
    ///
    /// # Panics
    /// As [`Self::book`].
    pub(super) fn book_lease(
        &mut self,
        owner: PrincipalKey,
        provider: ProviderId,
        bytes: u64,
        booking: Booking,
    ) {
        self.providers.book(provider, bytes, booking);
        self.book(owner, bytes, booking);
    }

    /// Lets a principal go that is leaving and has nothing any more, and owes nobody, and is owed nothing.
    pub(super) fn let_go(&mut self, key: PrincipalKey) {
        let empty = self
            .principals
            .rows
            .get(&key)
            .is_some_and(|principal| principal.leaving && principal.usage.is_empty());
        if empty && !self.donations.concern(key) {
            self.principals.remove(key);
        }
    }

    /// Books a reservation, if the owner's quota, the pool and a provider have room for it: at which provider, and why.
    pub(super) fn book_reservation(
        &mut self,
        owner: PrincipalKey,
        ask: &Ask<'_>,
    ) -> Result<(ProviderId, Placement)> {
        let bytes = ask.bytes;
        let (mut usage, quota) = self.account(owner)?;
        // The caller's own bound comes first: only who is within it learns that the pool is full.
        usage.reserve(&quota, bytes)?;
        if bytes > self.genesis.bounds.pool_bytes - self.total.taken_bytes() {
            return Err(Error::new(Code::NoMemory, "the pool has not that many bytes left"));
        }
        let mut total = self.total;
        total.reserve(&Quota::UNLIMITED, bytes)?;
        let placed = self.providers.reserve(ask, self.now, self.genesis.bounds.silent_after)?;
        self.total = total;
        self.set_usage(owner, usage)?;
        Ok(placed)
    }

    /// Books a grant over `bytes`, if the owner's quota has them.
    pub(super) fn book_share(&mut self, owner: PrincipalKey, bytes: u64) -> Result<()> {
        let (mut usage, quota) = self.account(owner)?;
        usage.share(&quota, bytes)?;
        self.total.share(&Quota::UNLIMITED, bytes)?;
        self.set_usage(owner, usage)
    }

    /// Whether the quota of `owner` has room for one more lease of `bytes`.
    pub(super) fn has_quota(&self, owner: PrincipalKey, bytes: u64) -> Result<()> {
        let (mut usage, quota) = self.account(owner)?;
        usage.reserve(&quota, bytes)?;
        usage.commit(bytes)
    }

    /// Moves a live lease of `bytes` from one book to another, if the new owner's quota has them. The node's own sum stays
    /// what it was.
    pub(super) fn rebook_lease(&mut self, from: PrincipalKey, to: PrincipalKey, bytes: u64) -> Result<()> {
        let (mut usage, quota) = self.account(to)?;
        usage.reserve(&quota, bytes)?;
        usage.commit(bytes)?;
        self.set_usage(to, usage)?;
        let principal = self.principals.rows.get_mut(&from).ok_or(Code::PrincipalUnknown)?;
        principal.usage.release(bytes)?;
        principal.usage.returned(bytes)?;
        self.unsettled.insert(from);
        self.let_go(from);
        Ok(())
    }

    /// What one principal uses and what it may use now, donations counted.
    fn account(&self, owner: PrincipalKey) -> Result<(Usage, Quota)> {
        let principal = self.principals.rows.get(&owner).ok_or(Code::PrincipalUnknown)?;
        let own = self.genesis.quota_of(&principal.name);
        Ok((principal.usage, self.effective(owner, own, Some(self.now))))
    }

    fn set_usage(&mut self, owner: PrincipalKey, usage: Usage) -> Result<()> {
        self.principals.rows.get_mut(&owner).ok_or(Code::PrincipalUnknown)?.usage = usage;
        Ok(())
    }
}
