//! The providers: what each said of itself, how it is, and what of it is taken.
//!
//! A name has one row, whatever life of it that is. A row of a provider that was lost stays, so that a list can say so,
//! until its name comes back or its place is needed. A life that ended never begins again: its id is remembered for
//! as long as that could be tried, the last few of each name. And a name that drains does so until it is told not to,
//! with or without a row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use caps::id::{ProviderId, Seat};
use caps::time::{Micros, UnixMicros};
use caps::wire::Name;
use caps::wire::provider::{Load, Placement, ProviderRow, ProviderState, Registration};
use caps::{Code, Error, Result};
use policy::limits::{PROVIDERS_DRAINED_MAX, PROVIDERS_PAST_MAX, PROVIDERS_PAST_PER_NAME_MAX};
use serde::{Deserialize, Serialize};

use super::books::Booking;
use super::lease::{Ending, Lease, Life};
use super::place::{Ask, Candidate, place};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) said: Registration,
    /// It is in the broker's own process, and so as alive as that: no heartbeat is expected of it.
    pub(super) attached: bool,
    /// It takes nothing new. The administrator's word, which outlives the provider's lives.
    pub(super) draining: bool,
    /// When it was lost, if it was.
    pub(super) lost: Option<UnixMicros>,
    /// Whether it is known to be gone.
    pub(super) proved: bool,
    /// When it refused a claim, if it was not heard since.
    pub(super) refused: Option<UnixMicros>,
    /// When it was heard last.
    pub(super) heard: UnixMicros,
    pub(super) load: Load,
    /// Derived from the leases.
    #[serde(skip)]
    pub(super) held: Held,
}

impl Provider {
    pub(super) const fn new(said: Registration, attached: bool, draining: bool, now: UnixMicros) -> Self {
        let load = Load { sessions: 0, committed_bytes: 0 };
        let held = Held { claims: 0, reserved_bytes: 0, committed: 0, committed_bytes: 0 };
        Self { said, attached, draining, lost: None, proved: false, refused: None, heard: now, load, held }
    }

    /// Whether a life that comes proves that this one has ended: it has its seat, or both are of the broker's own process.
    pub(super) fn followed_by(&self, next: &Registration, attached: bool) -> bool {
        (self.attached && attached) || (next.seat.is_some() && next.seat == self.said.seat)
    }

    pub(super) const fn state(&self) -> ProviderState {
        match (self.lost, self.draining) {
            (Some(_), _) => ProviderState::Lost,
            (None, true) => ProviderState::Draining,
            (None, false) => ProviderState::Up,
        }
    }

    /// Since when nothing was heard of it.
    fn silent_for(&self, now: UnixMicros) -> Micros {
        if self.attached && self.lost.is_none() { Micros(0) } else { now.since(self.heard) }
    }

    fn candidate(&self, now: UnixMicros, silent_after: Micros) -> Candidate<'_> {
        let said = &self.said;
        // It may have memory that is in no book here, in quarantine or of a claim whose answer was lost.
        let taken = self.held.bytes().max(self.load.committed_bytes);
        Candidate {
            name: &said.name,
            state: self.state(),
            silent: self.silent_for(now) > silent_after,
            // One in the broker's own process says nothing that would end it.
            refused: self.refused.is_some_and(|at| now.since(at) <= silent_after),
            bytes: said.bytes,
            free_bytes: said.bytes.saturating_sub(taken),
            free_regions: said.regions.saturating_sub(self.held.regions()),
            sessions: self.load.sessions,
            claims: self.held.claims,
            classes: &said.classes,
            locality: said.locality.as_ref(),
        }
    }

    pub(super) fn row(&self, now: UnixMicros) -> ProviderRow {
        let said = &self.said;
        ProviderRow {
            id: said.id,
            name: said.name.clone(),
            address: said.address.clone(),
            state: self.state(),
            locality: said.locality.clone(),
            classes: said.classes.clone(),
            bytes: said.bytes,
            regions: said.regions,
            reserved_bytes: self.held.reserved_bytes,
            committed_bytes: self.held.committed_bytes,
            taken_regions: self.held.regions(),
            silent_for: self.silent_for(now),
            load: self.load,
        }
    }
}

/// What of a provider is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Reservations.
    claims: u32,
    reserved_bytes: u64,
    /// Leases that live or are being taken back.
    committed: u32,
    committed_bytes: u64,
}

impl Held {
    /// Bytes that no other lease can have now. No overflow: at most the provider's.
    pub(super) const fn bytes(&self) -> u64 {
        self.reserved_bytes + self.committed_bytes
    }

    /// The same in regions.
    pub(super) const fn regions(&self) -> u32 {
        self.claims + self.committed
    }

    /// Whether a provider that said this has it all.
    pub(super) const fn fits(&self, said: &Registration) -> bool {
        self.bytes() <= said.bytes && self.regions() <= said.regions
    }

    /// A reservation; the caller has placed it.
    const fn reserve(&mut self, bytes: u64) {
        self.claims += 1;
        self.reserved_bytes += bytes;
    }

    /// A step of a lease's life. `None` if there is no such lease.
    fn book(self, bytes: u64, booking: Booking) -> Option<Self> {
        let Self { claims, reserved_bytes, committed, committed_bytes } = self;
        Some(match booking {
            Booking::Cancel => Self {
                claims: claims.checked_sub(1)?,
                reserved_bytes: reserved_bytes.checked_sub(bytes)?,
                ..self
            },
            Booking::Commit => Self {
                claims: claims.checked_sub(1)?,
                reserved_bytes: reserved_bytes.checked_sub(bytes)?,
                committed: committed + 1,
                committed_bytes: committed_bytes + bytes,
            },
            Booking::Returned => Self {
                committed: committed.checked_sub(1)?,
                committed_bytes: committed_bytes.checked_sub(bytes)?,
                ..self
            },
            // The memory is still there; a grant is none.
            Booking::Release | Booking::Unshare => self,
        })
    }

    /// Adds a lease as far as it is in its life.
    pub(super) const fn add(&mut self, lease: &Lease) {
        let bytes = lease.range.len();
        match lease.life {
            Life::Lost(_) | Life::Ended(_) => {}
            Life::Reserved(_) | Life::Ending(Ending { committed: false, .. }) => self.reserve(bytes),
            Life::Live(_) | Life::Ending(Ending { committed: true, .. }) => {
                self.committed += 1;
                self.committed_bytes += bytes;
            }
        }
    }
}

/// The table of providers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Providers {
    pub(super) rows: BTreeMap<Name, Provider>,
    pub(super) by_id: BTreeMap<ProviderId, Name>,
    /// Lives that ended and have no row any more, oldest first, and their seats.
    pub(super) past: VecDeque<(Name, ProviderId, Option<Seat>)>,
    /// Names that drain and have no row any more.
    pub(super) drained: BTreeSet<Name>,
}

impl Providers {
    /// Whether a provider of this name drains, or would if it came.
    pub(super) fn drains(&self, name: &Name) -> bool {
        self.rows.get(name).map_or_else(|| self.drained.contains(name), |row| row.draining)
    }

    /// The seat of a life, if it had one and that is still known.
    pub(super) fn seat_of(&self, id: ProviderId) -> Option<Seat> {
        let past = || self.past.iter().find(|(_, past, _)| *past == id).and_then(|(.., seat)| *seat);
        self.get(id).map_or_else(past, |row| row.said.seat)
    }

    pub(super) fn get(&self, id: ProviderId) -> Option<&Provider> {
        self.by_id.get(&id).and_then(|name| self.rows.get(name))
    }

    pub(super) fn get_mut(&mut self, id: ProviderId) -> Option<&mut Provider> {
        self.by_id.get(&id).and_then(|name| self.rows.get_mut(name))
    }

    /// One that is not lost.
    ///
    /// # Errors
    /// `E_EPOCH` for any other life: it has to come back as a new one.
    pub(super) fn alive(&mut self, id: ProviderId) -> Result<&mut Provider> {
        self.get_mut(id).filter(|row| row.lost.is_none()).ok_or(Error::new(
            Code::Epoch,
            "this life of the provider is not known, or over; it has to come back as a new one",
        ))
    }

    /// Those that are not lost, in the order of their names.
    pub(super) fn present(&self) -> impl Iterator<Item = &Provider> {
        self.rows.values().filter(|row| row.lost.is_none())
    }

    /// Whether a provider of this name, and this life of it, may come.
    ///
    /// # Errors
    /// `E_EXISTS` if this life is here, or another of the name is that this one does not prove to be gone; `E_EPOCH` if it
    /// is over; `E_BUSY` if the table is full.
    pub(super) fn may_come(&self, said: &Registration, attached: bool, most: u32) -> Result<()> {
        match self.get(said.id) {
            Some(row) if row.lost.is_none() => {
                return Err(Error::new(Code::Exists, "this life of a provider is registered"));
            }
            Some(_) => return Err(over()),
            None if self.past.iter().any(|(_, id, _)| *id == said.id) => return Err(over()),
            None => {}
        }
        let before = self.rows.get(&said.name);
        if !attached && before.is_some_and(|row| row.attached && row.lost.is_none()) {
            return Err(Error::new(Code::Exists, "the broker's own provider has this name"));
        }
        if before.is_some_and(|row| row.lost.is_none() && !row.followed_by(said, attached)) {
            return Err(Error::new(
                Code::Exists,
                "another provider of this name is up, with another directory; end it first, or give it up once it is gone",
            ));
        }
        if before.is_some() || self.rows.len() < most as usize {
            return Ok(());
        }
        let room = self.longest_lost().is_some_and(|name| {
            let drains = self.rows.get(&name).is_some_and(|row| row.draining);
            !drains || self.drained.len() < PROVIDERS_DRAINED_MAX
        });
        if room { Ok(()) } else { Err(Error::new(Code::Busy, "the table of providers is full")) }
    }

    /// Puts a row in the place of the one of its name, or, where the table is full, of the one that was lost first. The
    /// row whose place it takes is lost, and [`Self::may_come`] said yes.
    pub(super) fn insert(&mut self, row: Provider, most: u32) {
        if !self.rows.contains_key(&row.said.name) && self.rows.len() >= most as usize {
            if let Some(name) = self.longest_lost() {
                if self.rows.get(&name).is_some_and(|row| row.draining) {
                    self.drained.insert(name.clone());
                }
                self.remove(&name);
            }
        } else {
            self.remove(&row.said.name.clone());
        }
        self.drained.remove(&row.said.name);
        self.by_id.insert(row.said.id, row.said.name.clone());
        self.rows.insert(row.said.name.clone(), row);
    }

    fn remove(&mut self, name: &Name) {
        if let Some(row) = self.rows.remove(name) {
            self.by_id.remove(&row.said.id);
            let of_name = self.past.iter().filter(|(of, ..)| of == name).count();
            if of_name >= PROVIDERS_PAST_PER_NAME_MAX
                && let Some(oldest) = self.past.iter().position(|(of, ..)| of == name)
            {
                self.past.remove(oldest);
            }
            self.past.push_back((name.clone(), row.said.id, row.said.seat));
            if self.past.len() > PROVIDERS_PAST_MAX {
                self.past.pop_front();
            }
        }
    }

    fn longest_lost(&self) -> Option<Name> {
        let lost = self.rows.values().filter_map(|row| Some((row.lost?, &row.said.name)));
        lost.min().map(|(_, name)| name.clone())
    }

    /// Finds a place for a lease and takes it.
    ///
    /// # Errors
    /// As [`place`]. Nothing changes then.
    pub(super) fn reserve(
        &mut self,
        ask: &Ask<'_>,
        now: UnixMicros,
        silent_after: Micros,
    ) -> Result<(ProviderId, Placement)> {
        let candidates: Vec<_> = self.rows.values().map(|row| row.candidate(now, silent_after)).collect();
        let (_, placement) = place(ask, &candidates)?;
        let row = self.rows.get_mut(&placement.node).ok_or(Code::Internal)?;
        row.held.reserve(ask.bytes);
        Ok((row.said.id, placement))
    }

    /// Books a lease of a snapshot, as far as it is in its life. One whose provider is not there fails the check of
    /// invariants.
    pub(super) fn rebook(&mut self, lease: &Lease) {
        if let Some(row) = self.get_mut(lease.provider) {
            row.held.add(lease);
        }
    }

    /// Books a step of a lease's life.
    ///
    /// # Panics
    /// If the provider has no such lease: a defect, and every placement after it would be wrong.
    pub(super) fn book(&mut self, id: ProviderId, bytes: u64, booking: Booking) {
        let entered = "a provider's book has what its leases have";
        let row = self.get_mut(id).expect(entered);
        row.held = row.held.book(bytes, booking).expect(entered);
    }
}

const fn over() -> Error {
    Error::new(Code::Epoch, "this life of the provider is over; it comes back as a new one")
}
