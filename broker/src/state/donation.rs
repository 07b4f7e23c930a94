//! Quota that one principal lends another: a client pays for the memory that a server leases on its behalf.
//!
//! ```text
//!             give                    deadline, take-back, a party leaves        the receiver gives memory back
//!   nothing ────────▶ given: `bytes` ─────────────────────────────────▶ returning: `lent` ─────────────────────▶ nothing
//!                     are lent                                          is what it has leased with it
//! ```
//!
//! While `lent` bytes are out, the giver's limits (bytes leased, bytes resident) are lower by them and the receiver's
//! are higher by them. That is all: quota is moved, never made. So the sum over all principals of
//! *configured - given + received* is the sum of what is configured, whatever ends in whatever order.
//!
//! # What a receiver still uses when it is over
//!
//! Memory is not taken from under anybody because a loan of quota ended. What the receiver holds beyond its other
//! limits stays lent, and the giver does not have it back, until the receiver holds less; meanwhile the receiver may
//! lease nothing more, because its limit is exactly what it uses. It may renew what it has, so a giver trusts its
//! receiver for as long as that renews; the administrator, who may revoke any lease, ends it.
//!
//! # Received quota is not passed on
//!
//! What a principal uses counts against its own limit first, and only what is left of that may be given. And whoever
//! has given draws on nothing that it was given: while anything of its own is lent, its limit is its own less that.
//! Otherwise ends of donations would set off one another along chains and circles of debt. So a giver never owes, and
//! an end touches one receiver.
//!
//! # Who has no limit
//!
//! A limit above the pool is worth no more than the pool: so much, less what is used and given, is what such a
//! principal may give.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use caps::id::{DonationId, PrincipalKey};
use caps::time::{Micros, UnixMicros};
use caps::wire::reply::Page;
use caps::wire::row::{DonationRow, DonationState, QuotaRow};
use caps::{Code, Error, Result};
use policy::quota::{Quota, Usage};
use policy::units::Span;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Out};
use super::command::{Command, RowId};
use super::view::page;
use super::{Broker, entry};

/// Quota that was lent and is not wholly back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Donation {
    pub(super) id: DonationId,
    pub(super) giver: PrincipalKey,
    pub(super) receiver: PrincipalKey,
    /// What was given.
    pub(super) bytes: u64,
    /// For how long, as it was asked for.
    pub(super) ttl: Micros,
    pub(super) life: DonationLife,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum DonationLife {
    /// All of it is lent.
    Given {
        /// When that is over.
        expires: UnixMicros,
    },
    /// It is over.
    Returning {
        /// Since when. The oldest goes back first.
        since: UnixMicros,
        /// What the receiver uses of it, never 0.
        lent: u64,
    },
}

/// How it came to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DonationEnd {
    Expired,
    TakenBack {
        /// Who took it back: the giver or the administrator.
        by: PrincipalKey,
    },
    /// A party's registration was undone.
    Left,
    NotRecorded,
}

impl DonationEnd {
    /// The cause in the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Expired => "quota_expired",
            Self::TakenBack { .. } => "quota_taken_back",
            Self::Left => "quota_party_left",
            Self::NotRecorded => "quota_not_recorded",
        }
    }
}

impl Donation {
    /// Bytes by which the limits differ.
    const fn lent(&self) -> u64 {
        match self.life {
            DonationLife::Given { .. } => self.bytes,
            DonationLife::Returning { lent, .. } => lent,
        }
    }

    /// When it ends by itself. What is returning waits for its receiver, not for a time.
    pub(super) const fn deadline(&self) -> Option<UnixMicros> {
        match self.life {
            DonationLife::Given { expires } => Some(expires),
            DonationLife::Returning { .. } => None,
        }
    }

    /// Whether its receiver may lease with it at `now`. What is over and was not yet told so is not to be leased with.
    fn serves(&self, now: Option<UnixMicros>) -> bool {
        match (self.life, now) {
            (DonationLife::Given { expires }, Some(now)) => now < expires,
            _ => true,
        }
    }
}

/// The table, with every index that a request needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Donations {
    pub(super) rows: BTreeMap<DonationId, Donation>,
    by_giver: BTreeSet<(PrincipalKey, DonationId)>,
    by_receiver: BTreeSet<(PrincipalKey, DonationId)>,
    /// Those that are returning, by receiver and from the oldest to the newest.
    returning: BTreeSet<(PrincipalKey, UnixMicros, DonationId)>,
}

/// What `index` has under `key`, in order, after `after`.
fn under(
    index: &BTreeSet<(PrincipalKey, DonationId)>,
    key: PrincipalKey,
    after: Option<DonationId>,
) -> impl Iterator<Item = DonationId> {
    let from =
        after.map_or(Bound::Included((key, DonationId([0; 16]))), |after| Bound::Excluded((key, after)));
    index.range((from, Bound::Included((key, DonationId([0xff; 16]))))).map(|(_, id)| *id)
}

impl Donations {
    /// Adds a row whose id is new. The caller has checked the capacity.
    pub(super) fn insert(&mut self, donation: Donation) {
        self.by_giver.insert((donation.giver, donation.id));
        self.by_receiver.insert((donation.receiver, donation.id));
        if let DonationLife::Returning { since, .. } = donation.life {
            self.returning.insert((donation.receiver, since, donation.id));
        }
        self.rows.insert(donation.id, donation);
    }

    fn remove(&mut self, id: DonationId) -> Option<Donation> {
        let donation = self.rows.remove(&id)?;
        self.by_giver.remove(&(donation.giver, id));
        self.by_receiver.remove(&(donation.receiver, id));
        if let DonationLife::Returning { since, .. } = donation.life {
            self.returning.remove(&(donation.receiver, since, id));
        }
        Some(donation)
    }

    fn given_by(&self, key: PrincipalKey) -> impl Iterator<Item = &Donation> {
        under(&self.by_giver, key, None).filter_map(|id| self.rows.get(&id))
    }

    fn received_by(&self, key: PrincipalKey) -> impl Iterator<Item = &Donation> {
        under(&self.by_receiver, key, None).filter_map(|id| self.rows.get(&id))
    }

    /// Bytes that are lent by `key`.
    fn given(&self, key: PrincipalKey) -> u64 {
        // At most the giver's own limit in a state that can be; what is read from a snapshot is summed before that is sure.
        self.given_by(key).map(Donation::lent).fold(0, u64::saturating_add)
    }

    /// Bytes that are lent to `key`; those that serve at `now`, if it is named.
    fn received(&self, key: PrincipalKey, now: Option<UnixMicros>) -> u64 {
        let lent = self.received_by(key).filter(|donation| donation.serves(now)).map(Donation::lent);
        lent.fold(0, u64::saturating_add)
    }

    /// Whether `key` gave or was given anything that is not wholly back.
    pub(super) fn concern(&self, key: PrincipalKey) -> bool {
        under(&self.by_giver, key, None).chain(under(&self.by_receiver, key, None)).next().is_some()
    }

    /// What `key` may use of a pool of `pool` bytes, if `own` is configured for it: at `now`, or, without it, what it may
    /// be using. The limits of bytes move; all others are as configured.
    pub(super) fn effective(
        &self,
        key: PrincipalKey,
        own: Quota,
        pool: u64,
        now: Option<UnixMicros>,
    ) -> Quota {
        let (own, more, less) = match self.given(key) {
            0 => (own, self.received(key, now), 0),
            given => (worth(own, pool), 0, given),
        };
        let moved = |limit: u64| limit.saturating_add(more).saturating_sub(less);
        Quota { leased_bytes: moved(own.leased_bytes), resident_bytes: moved(own.resident_bytes), ..own }
    }
}

/// Limits as far as a pool of `pool` bytes can be used: a limit above it is worth no more than all of it.
fn worth(own: Quota, pool: u64) -> Quota {
    Quota { leased_bytes: own.leased_bytes.min(pool), resident_bytes: own.resident_bytes.min(pool), ..own }
}

/// Bytes that `usage` leaves of limits.
fn left_of(limits: &Quota, usage: &Usage) -> u64 {
    let leased = limits.leased_bytes.saturating_sub(leased_of(usage));
    leased.min(limits.resident_bytes.saturating_sub(usage.taken_bytes()))
}

/// Bytes by which `usage` is over limits.
fn over(limits: &Quota, usage: &Usage) -> u64 {
    let leased = leased_of(usage).saturating_sub(limits.leased_bytes);
    leased.max(usage.taken_bytes().saturating_sub(limits.resident_bytes))
}

/// What counts against the limit of leased bytes.
fn leased_of(usage: &Usage) -> u64 {
    usage.leased_bytes() + usage.reserved_bytes() // no overflow: the books' invariant
}

impl Broker {
    pub(super) fn quota_give(
        &mut self,
        by: PrincipalKey,
        (id, to, bytes, ttl): (DonationId, PrincipalKey, u64, Micros),
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        if bytes == 0 {
            return Err(Error::new(Code::Range, "a donation has at least one byte"));
        }
        let (shortest, longest) = (self.genesis.bounds.ttl_min, self.genesis.bounds.ttl_max);
        if !(shortest..=longest).contains(&ttl) {
            let (shortest, longest) = (Span(shortest), Span(longest));
            let detail = format!("a donation lives at least {shortest} and at most {longest}");
            return Err(Error::with(Code::Range, detail));
        }
        if to == by {
            return Err(Error::new(Code::Range, "quota is given to somebody else"));
        }
        if self.principals.active(to).is_none() {
            return Err(Error::new(Code::PrincipalUnknown, "the receiver is not registered at this node"));
        }
        self.permitted(command)?;
        if let Some(before) = self.donations.rows.get(&id) {
            if (before.giver, before.receiver, before.bytes, before.ttl) != (by, to, bytes, ttl) {
                return Err(Error::new(Code::Exists, "a donation of this id was made before"));
            }
            if before.deadline().is_none_or(|expires| expires <= self.now) {
                return Err(Error::new(Code::Exists, "this donation was made and is over"));
            }
            return self.donated_before(by, id, out);
        }
        if self.donations.given_by(by).count() >= self.genesis.bounds.donations_per_giver as usize {
            return Err(Error::new(Code::Quota, "the giver has as many donations as one may have"));
        }
        if self.transfers.receiving.contains(&by) {
            // Its quota was asked for that lease and must have room when it comes.
            return Err(Error::new(Code::Busy, "a lease is just being handed over to you; ask again"));
        }
        let giveable = self.giveable(by);
        if bytes > giveable {
            let detail = format!("this would give {bytes} bytes, and {giveable} are free to be given");
            return Err(Error::with(Code::Quota, detail));
        }
        if self.donations.rows.len() >= self.genesis.capacity.donations as usize {
            return Err(Error::new(Code::Busy, "the table of donations is full"));
        }

        let expires = self.now.plus(ttl);
        let life = DonationLife::Given { expires };
        let donation = Donation { id, giver: by, receiver: to, bytes, ttl, life };
        out.entries.push(entry::donated(&donation, expires, &self.policy));
        self.deadlines.swap(RowId::Donation(id), None, Some(expires));
        let row = self.donation_row(&donation, self.now);
        self.donations.insert(donation);
        // What it owes others goes back first, as far as this takes its place.
        self.unsettled.insert(to);
        Ok(Answer::Donated { row, again: false })
    }

    /// For its giver, and for the administrator.
    pub(super) fn quota_take_back(
        &mut self,
        by: PrincipalKey,
        id: DonationId,
        out: &mut Out,
    ) -> Result<Answer> {
        let donation =
            self.donations.rows.get(&id).filter(|donation| donation.giver == by || self.is_admin(by));
        let donation = donation.ok_or(Error::new(Code::DonationUnknown, "no such donation of yours"))?;
        if matches!(donation.life, DonationLife::Returning { .. }) {
            return self.donated_before(by, id, out);
        }
        let mut row = self.donation_row(donation, self.now);
        self.end_donation(id, DonationEnd::TakenBack { by }, out);
        (row.state, row.expires_in) = (DonationState::Returning, Micros(0));
        row.lent = self.donations.rows.get(&id).map_or(0, Donation::lent);
        Ok(Answer::Donated { row, again: false })
    }

    /// Asked for again: nothing changes, and the entry counts towards the rate of refusals.
    fn donated_before(&mut self, by: PrincipalKey, id: DonationId, out: &mut Out) -> Result<Answer> {
        let suppressed = self.count_denial(by);
        let donation = self.donations.rows.get(&id).ok_or(Code::DonationUnknown)?;
        if let Some(suppressed) = suppressed {
            out.entries.push(entry::donated_again(donation, by, suppressed));
        }
        Ok(Answer::Donated { row: self.donation_row(donation, self.now), again: true })
    }

    /// Ends a donation: what its receiver does not use of it is back. One that is over already is left alone.
    pub(super) fn end_donation(&mut self, id: DonationId, end: DonationEnd, out: &mut Out) {
        let Some(mut donation) = self.donations.rows.get(&id).cloned() else { return };
        let DonationLife::Given { expires } = donation.life else { return };
        self.deadlines.swap(RowId::Donation(id), Some(expires), None);
        self.donations.remove(id);
        donation.life = DonationLife::Returning { since: self.now, lent: donation.bytes };
        self.donations.insert(donation.clone());
        let back = self.settle(donation.receiver);
        let used = self.donations.rows.get(&id).map_or(0, Donation::lent);
        out.entries.push(entry::donation_ended(&donation, end, used));
        self.record_returned(back.into_iter().filter(|back| back.id != id).collect(), out);
        // They may have been waiting for this one.
        self.let_go(donation.giver);
        self.let_go(donation.receiver);
    }

    /// Ends what somebody gave and was given, who leaves.
    pub(super) fn end_donations_of(&mut self, key: PrincipalKey, out: &mut Out) {
        let given = self.donations.given_by(key).chain(self.donations.received_by(key));
        for id in given.map(|donation| donation.id).collect::<Vec<_>>() {
            self.end_donation(id, DonationEnd::Left, out);
        }
    }

    /// Gives back of everything that is over what is no longer used of it. Only those are looked at whose use fell or who
    /// were given more, whatever else the table has: every other receiver owes what it owed before the command.
    pub(super) fn settle_changed(&mut self, out: &mut Out) {
        while let Some(receiver) = self.unsettled.pop_first() {
            let back = self.settle(receiver);
            self.record_returned(back, out);
        }
    }

    fn record_returned(&mut self, back: Vec<Donation>, out: &mut Out) {
        for donation in back {
            out.entries.push(entry::donation_returned(&donation));
            self.let_go(donation.giver);
            self.let_go(donation.receiver);
        }
    }

    /// Gives back what is over and `receiver` does not use, the oldest first. Returns what is wholly back.
    fn settle(&mut self, receiver: PrincipalKey) -> Vec<Donation> {
        let first = (receiver, UnixMicros(0), DonationId([0; 16]));
        let last = (receiver, UnixMicros(u64::MAX), DonationId([0xff; 16]));
        let ids: Vec<_> = self.donations.returning.range(first..=last).map(|(.., id)| *id).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let drawn = self.drawn(receiver);
        let (mut serving, mut returning) = (0_u64, 0);
        for donation in self.donations.received_by(receiver) {
            match donation.life {
                DonationLife::Given { .. } => serving = serving.saturating_add(donation.bytes),
                DonationLife::Returning { lent, .. } => returning += lent, // no overflow: drawn at most
            }
        }
        // What may still be leased with comes first, so that a new donation takes the place of one that is over.
        let mut idle = returning.saturating_sub(drawn.saturating_sub(serving));
        let mut back = Vec::new();
        for id in ids {
            if idle == 0 {
                break;
            }
            let Some(DonationLife::Returning { lent, .. }) =
                self.donations.rows.get_mut(&id).map(|donation| &mut donation.life)
            else {
                continue;
            };
            let now = (*lent).min(idle);
            (*lent, idle) = (*lent - now, idle - now);
            if *lent == 0 {
                back.extend(self.donations.remove(id));
            }
        }
        back
    }

    /// What `key` may use, if `own` is configured for it: see [`Donations::effective`].
    pub(super) fn effective(&self, key: PrincipalKey, own: Quota, now: Option<UnixMicros>) -> Quota {
        self.donations.effective(key, own, self.genesis.bounds.pool_bytes, now)
    }

    /// What `key` uses beyond its own limits: bytes that are lent to it.
    fn drawn(&self, key: PrincipalKey) -> u64 {
        let principal = self.principals.rows.get(&key);
        principal.map_or(0, |principal| over(&self.genesis.quota_of(&principal.name), &principal.usage))
    }

    /// What `key` may still give: what is left of its own limits, or of the pool where they are larger.
    fn giveable(&self, key: PrincipalKey) -> u64 {
        let Some(principal) = self.principals.rows.get(&key) else { return 0 };
        let own = self.genesis.quota_of(&principal.name);
        let own = worth(own, self.genesis.bounds.pool_bytes);
        left_of(&own, &principal.usage).saturating_sub(self.donations.given(key))
    }

    /// What the quota of `key` comes to. Of a key that is not registered, nothing.
    pub(super) fn quota_row(&self, key: PrincipalKey, now: UnixMicros) -> QuotaRow {
        let (own, usage) = match self.principals.rows.get(&key) {
            Some(principal) => (self.genesis.quota_of(&principal.name), principal.usage),
            None => (Quota { leased_bytes: 0, resident_bytes: 0, ..self.genesis.quota }, Usage::default()),
        };
        QuotaRow {
            limit_bytes: own.leased_bytes,
            given_bytes: self.donations.given(key),
            received_bytes: self.donations.received(key, None),
            used_bytes: leased_of(&usage),
            free_bytes: left_of(&self.effective(key, own, Some(now)), &usage),
            giveable_bytes: self.giveable(key),
        }
    }

    pub(super) fn donations_after(
        &self,
        by: PrincipalKey,
        after: Option<DonationId>,
        now: UnixMicros,
    ) -> Page<DonationRow> {
        let donations = &self.donations;
        if self.is_admin(by) {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = donations.rows.range((from, Bound::Unbounded)).map(|(_, row)| row);
            return page(rows.map(|row| self.donation_row(row, now)));
        }
        let given = under(&donations.by_giver, by, after);
        let mine: BTreeSet<_> = given.chain(under(&donations.by_receiver, by, after)).collect();
        let rows = mine.iter().filter_map(|id| donations.rows.get(id));
        page(rows.map(|row| self.donation_row(row, now)))
    }

    fn donation_row(&self, donation: &Donation, now: UnixMicros) -> DonationRow {
        let expires = donation.deadline().filter(|expires| now < *expires);
        DonationRow {
            id: donation.id,
            giver: donation.giver,
            giver_name: self.principals.name(donation.giver).cloned(),
            receiver: donation.receiver,
            receiver_name: self.principals.name(donation.receiver).cloned(),
            bytes: donation.bytes,
            lent: donation.lent(),
            expires_in: expires.map_or(Micros(0), |expires| expires.since(now)),
            state: if expires.is_some() { DonationState::Given } else { DonationState::Returning },
        }
    }

    /// What is always true of donations.
    pub(super) fn check_donations(&self) -> Result<(), &'static str> {
        let holds = |condition, rule| if condition { Ok(()) } else { Err(rule) };
        let capacity = self.genesis.capacity.donations as usize;
        holds(self.donations.rows.len() <= capacity, "the table of donations keeps its size")?;
        let mut rebuilt = Donations::default();
        for (id, donation) in &self.donations.rows {
            holds(*id == donation.id, "a donation stands under its id")?;
            holds(donation.giver != donation.receiver, "a donation has two parties")?;
            holds(
                (1..=donation.bytes).contains(&donation.lent()),
                "a donation lends something, and no more than was given",
            )?;
            for party in [donation.giver, donation.receiver] {
                let leaving = match self.principals.rows.get(&party) {
                    Some(principal) => principal.leaving,
                    None => return Err("a donation that is not wholly back has both its parties"),
                };
                let over = matches!(donation.life, DonationLife::Returning { .. });
                holds(!leaving || over, "nobody who leaves has quota that may be leased with")?;
            }
            rebuilt.insert(donation.clone());
        }
        holds(rebuilt == self.donations, "the indices of donations are those of the rows")?;

        let (mut configured, mut moved) = (0_u128, 0_u128);
        for (key, principal) in &self.principals.rows {
            let own = worth(self.genesis.quota_of(&principal.name), self.genesis.bounds.pool_bytes);
            let given = self.donations.given(*key);
            let many = self.donations.given_by(*key).count();
            holds(
                many <= self.genesis.bounds.donations_per_giver as usize,
                "a giver has no more donations than one may have",
            )?;
            let rest = own.leased_bytes.min(own.resident_bytes).checked_sub(given);
            let rest = rest.ok_or("nobody gives more than its own")?;
            configured += u128::from(rest) + u128::from(given);
            moved += u128::from(rest) + u128::from(self.donations.received(*key, None));
            let drawn = self.drawn(*key);
            holds(given == 0 || drawn == 0, "who gave draws on nothing that was given to it")?;
            let returning = self.donations.returning.iter().filter(|(of, ..)| of == key).count();
            holds(
                returning == 0 || self.donations.received(*key, None) == drawn,
                "what is over and lent all the same is used",
            )?;
        }
        holds(self.unsettled.is_empty(), "between commands everything is settled")?;
        holds(configured == moved, "quota is moved, never made")
    }
}
