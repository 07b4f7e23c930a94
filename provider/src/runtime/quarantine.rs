//! Dead memory that is kept instead of given back.
//!
//! A region comes here after its cut: nobody can reach it by a mapping, a handle or a token. Its pages stay pinned, its
//! row stays in the kernel's tables as ending, and so its bytes stay in the ledger: nobody else can have them. Either it
//! was ordered, by the operator's policy or by an administrator, and then it is kept as it was at the cut, unwiped, for
//! an investigator; or its wipe failed, so that it could not be proved clean. The file of one segment comes here where a
//! rotation replaced it and could not wipe it; the kernel counts its bytes apart from its region, which lives on.
//!
//! It stays until an administrator releases it ([`release`]) or the node stops: both wipe it first.
//!
//! Both its number and its bytes are bounded. An order that finds no room is refused: by hand before anything is
//! revoked, by policy so that the memory is wiped and given back as ever. Memory that could not be wiped and finds no
//! room is given back to the system, which zeroes every page before anybody else gets it; the log says that it was not
//! wiped.
//!
//! [`release`]: Provider::quarantine_release

mod investigate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey, QuarantineId};
use caps::range::ByteRange;
use caps::time::UnixMicros;
use caps::wire::link::{Take, Taken};
use caps::wire::row::{EndCause, QuarantineCause, QuarantineRow};
use policy::limits::{QUARANTINE_POOL_PERCENT_MAX, QUARANTINE_REGIONS_MAX};

use super::memory::{File, Memory, close_file};
use super::take_back::{give_back, wipe, wipe_file};
use super::{Provider, Shared, lock};
use crate::kernel::{Event, RegionKey};

/// An order to keep a region once it is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    why: QuarantineCause,
    /// The same, or more exactly, for the log.
    word: &'static str,
    /// Which administrator ordered it.
    by: Option<PrincipalKey>,
}

impl Keep {
    /// Nobody ordered it: it could not be proved clean.
    pub(super) const UNWIPED: Self = Self { why: QuarantineCause::Unwiped, word: "unwiped", by: None };

    /// Whether it is to be kept as it was.
    pub(super) fn is_ordered(self) -> bool {
        self.why != QuarantineCause::Unwiped
    }
}

/// What is kept. Cheap to clone: who reads or wipes it has a clone in hand.
#[derive(Clone)]
enum Dead {
    /// A whole region.
    Region { region: RegionKey, memory: Arc<Memory>, taken: Taken },
    /// A file that a rotation replaced.
    Segment { file: Arc<File> },
}

impl Dead {
    fn readable_bytes(&self) -> u64 {
        match self {
            Self::Region { memory, .. } => memory.readable_bytes(),
            Self::Segment { file } => file.region.coverage().pinned,
        }
    }

    /// Wipes all of it that can be, and returns the bytes: as an error if some could not be.
    fn wipe(&self) -> Result<u64, u64> {
        match self {
            Self::Region { memory, .. } => wipe(memory),
            Self::Segment { file } => wipe_file(&file.region).map_err(|_| 0),
        }
    }

    /// Unpins and closes it.
    fn close(self) {
        match self {
            Self::Region { memory, .. } => give_back(memory),
            Self::Segment { file } => close_file(file),
        }
    }
}

/// One thing in quarantine.
struct Kept {
    lease: LeaseId,
    owner: PrincipalKey,
    /// Which bytes of the lease's region.
    range: ByteRange,
    since: UnixMicros,
    why: QuarantineCause,
    dead: Dead,
    /// It is being wiped: there is nothing to read any more.
    leaving: bool,
}

/// What is in quarantine.
#[derive(Default)]
struct Rows {
    kept: BTreeMap<QuarantineId, Kept>,
    last: u64,
}

/// What is in quarantine. Held for a look or a change, and taken by who holds the kernel's lock, never the other way
/// round.
#[derive(Default)]
pub(super) struct Quarantine(Mutex<Rows>);

impl Provider {
    /// Takes a lease's region from everybody and keeps it as it is, because the operator's policy says so of a fault.
    /// `fault` names its kind.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no memory of it; what [`Provider::take`] refuses.
    pub async fn quarantine(&self, lease: LeaseId, fault: &'static str) -> Result<Taken> {
        let memory = self.live_memory(lease)?;
        memory.keep(Keep { why: QuarantineCause::Policy, word: fault, by: None });
        drop(memory); // whoever takes it back waits for those who hold it
        self.take(Take::Lease(lease), EndCause::Revoked).await
    }

    /// Has a lease's region kept once it is taken back, which is the caller's to order now. `by` is an administrator.
    /// What is in quarantine already stays there.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no memory of it, or it is going already; `E_NOMEM` if quarantine has no room for
    /// it: then nothing is ordered, and the lease lives on.
    pub fn quarantine_order(&self, lease: LeaseId, by: PrincipalKey) -> Result<()> {
        if lock(&self.0.quarantine.0).kept.values().any(|kept| kept.is_region_of(lease)) {
            return Ok(());
        }
        let memory = self.live_memory(lease)?;
        if !self.0.quarantine.has_room(memory.len(), self.0.config.pool_bytes) {
            return Err(Error::new(
                Code::NoMemory,
                "quarantine has no room for this region; release something from it first",
            ));
        }
        memory.keep(Keep::by_hand(by));
        Ok(())
    }

    /// Takes such an order back where the region still lives: the revoke that was to follow was refused.
    pub fn quarantine_withdraw(&self, lease: LeaseId, by: PrincipalKey) {
        if let Ok(memory) = self.live_memory(lease) {
            memory.keep_no_more(Keep::by_hand(by));
        }
    }

    fn live_memory(&self, lease: LeaseId) -> Result<Arc<Memory>> {
        lock(&self.0.kernel)
            .region_of(lease)
            .and_then(|region| self.0.cells.memory(region))
            .ok_or(Error::new(Code::LeaseUnknown, "this provider holds no memory of that lease"))
    }
}

impl Keep {
    const fn by_hand(by: PrincipalKey) -> Self {
        Self { why: QuarantineCause::ByHand, word: "by_hand", by: Some(by) }
    }
}

impl Kept {
    fn is_region_of(&self, lease: LeaseId) -> bool {
        self.lease == lease && matches!(self.dead, Dead::Region { .. })
    }

    fn row(&self, id: QuarantineId) -> QuarantineRow {
        QuarantineRow {
            id,
            lease: self.lease,
            owner: self.owner,
            range: self.range,
            readable_bytes: self.dead.readable_bytes(),
            since: self.since,
            cause: self.why,
        }
    }
}

impl Rows {
    fn has_room(&self, more: u64, pool_bytes: u64) -> bool {
        let bytes: u64 = self.kept.values().map(|kept| kept.range.len()).sum();
        has_room(self.kept.len(), bytes, more, pool_bytes)
    }
}

impl Quarantine {
    /// What taking a region came to that is in quarantine already.
    pub(super) fn taken(&self, region: RegionKey) -> Option<Taken> {
        lock(&self.0).kept.values().find_map(|kept| match kept.dead {
            Dead::Region { region: of, taken, .. } if of == region => Some(taken),
            Dead::Region { .. } | Dead::Segment { .. } => None,
        })
    }

    fn has_room(&self, more: u64, pool_bytes: u64) -> bool {
        lock(&self.0).has_room(more, pool_bytes)
    }

    /// Keeps something dead, or gives it back where there is no room.
    fn keep(&self, kept: Kept, pool_bytes: u64) -> Result<QuarantineId, Dead> {
        let mut rows = lock(&self.0);
        if !rows.has_room(kept.range.len(), pool_bytes) {
            return Err(kept.dead);
        }
        rows.last += 1;
        let id = QuarantineId(rows.last);
        rows.kept.insert(id, kept);
        Ok(id)
    }

    fn remove(&self, id: QuarantineId) -> Option<Kept> {
        lock(&self.0).kept.remove(&id)
    }
}

/// Whether one more region of `more` bytes may be kept.
fn has_room(regions: usize, bytes: u64, more: u64, pool_bytes: u64) -> bool {
    // No sum of regions is longer than the pool, and a pool's bytes times a hundred fit 64 bits.
    regions < QUARANTINE_REGIONS_MAX && (bytes + more) * 100 <= pool_bytes * QUARANTINE_POOL_PERCENT_MAX
}

const _: () = assert!(policy::limits::POOL_BYTES_MAX as u128 * 200 < u64::MAX as u128);
// The list travels in one frame, and no page is longer.
const _: () = assert!(QUARANTINE_REGIONS_MAX <= caps::limits::PAGE_ROWS_MAX);

impl Shared {
    /// Puts a dead region into quarantine and records it. It comes back where there is no room, which is recorded too.
    pub(super) fn set_aside_dead(
        &self,
        region: RegionKey,
        memory: Arc<Memory>,
        order: Keep,
        taken: Taken,
    ) -> Result<(), Arc<Memory>> {
        let lease = taken.lease.unwrap_or(LeaseId([0; 16])); // a whole region's always has one
        let Ok(range) = ByteRange::new(0, memory.len()) else {
            debug_assert!(false, "a region's bytes are a range");
            return Err(memory);
        };
        let taken = Taken { quarantined_bytes: range.len(), ..taken };
        let kept =
            self.put(order, self.owner_of(region), lease, range, Dead::Region { region, memory, taken });
        self.record_kept(order, kept.is_ok(), lease, range, taken.wiped_bytes);
        match kept {
            Ok(_) => Ok(()),
            Err(Dead::Region { memory, .. }) => Err(memory),
            Err(Dead::Segment { .. }) => {
                debug_assert!(false, "what comes back is what went in");
                Ok(())
            }
        }
    }

    /// Puts a replaced file of `range` into quarantine because it could not be wiped, and records it: its bytes are in
    /// the kernel's books as kept then, and the region's no longer. Where there is no room, in quarantine or in the pool
    /// beside what rotations need, it is closed and its bytes are free, which is recorded too. Whether it is kept.
    pub(super) fn set_aside_segment(
        self: &Arc<Self>,
        region: RegionKey,
        lease: LeaseId,
        range: ByteRange,
        file: Arc<File>,
    ) -> bool {
        // Before the books let go of the region, which may be forgotten then.
        let owner = self.owner_of(region);
        let bytes = range.len();
        // The books first: whoever finds it in quarantine may release it at once.
        let kept = if self.step(Event::Kept { region, bytes }).is_err() {
            close_file(file);
            self.spent(region, bytes);
            false
        } else if let Err(dead) = self.put(Keep::UNWIPED, owner, lease, range, Dead::Segment { file }) {
            dead.close();
            let ended = self.step(Event::Unkept { bytes });
            debug_assert!(ended.is_ok(), "{ended:?}");
            false
        } else {
            true
        };
        self.room_changed();
        self.record_kept(Keep::UNWIPED, kept, lease, range, 0);
        kept
    }

    /// Of a region whose row is still there.
    fn owner_of(&self, region: RegionKey) -> PrincipalKey {
        let owner = lock(&self.kernel).owner_of(region);
        debug_assert!(owner.is_some(), "a region is known until its memory is gone");
        owner.unwrap_or(PrincipalKey([0; 32]))
    }

    fn put(
        &self,
        order: Keep,
        owner: PrincipalKey,
        lease: LeaseId,
        range: ByteRange,
        dead: Dead,
    ) -> Result<QuarantineId, Dead> {
        let since = self.clock.unix();
        let kept = Kept { lease, owner, range, since, why: order.why, dead, leaving: false };
        self.quarantine.keep(kept, self.config.pool_bytes)
    }

    fn record_kept(&self, order: Keep, kept: bool, lease: LeaseId, range: ByteRange, wiped_bytes: u64) {
        let entry = match kept {
            true => Draft::ok(Entry::RegionQuarantine),
            false => Draft::deny(Entry::RegionQuarantine, Code::NoMemory),
        };
        let entry = entry.maybe(order.by, Draft::subject).lease(lease).cause(order.word).range(range);
        self.record_regardless(entry.bytes(range.len()).wiped_bytes(wiped_bytes));
    }

    /// Wipes and gives back whatever is in quarantine: the node stops.
    pub(super) fn empty_quarantine(self: &Arc<Self>) {
        let all = std::mem::take(&mut lock(&self.quarantine.0).kept);
        for kept in all.into_values() {
            let wiped_bytes = kept.dead.wipe().unwrap_or_else(|wiped| wiped);
            self.give_back_kept(kept, wiped_bytes);
        }
    }

    /// Closes what was in quarantine, has the kernel count its bytes as free, and records its end.
    fn give_back_kept(self: &Arc<Self>, kept: Kept, wiped_bytes: u64) {
        let event = match kept.dead {
            Dead::Region { region, .. } => Event::Taken { region },
            Dead::Segment { .. } => Event::Unkept { bytes: kept.range.len() },
        };
        kept.dead.close();
        let ended = self.step(event);
        debug_assert!(ended.is_ok(), "{ended:?}");
        self.room_changed();
        let entry = Draft::ok(Entry::LeaseRevoke).lease(kept.lease).cause("quarantine_over");
        self.record_regardless(entry.range(kept.range).wiped_bytes(wiped_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold() {
        let pool = 1_000;
        let most = pool * QUARANTINE_POOL_PERCENT_MAX / 100;
        assert!(has_room(0, 0, most, pool) && !has_room(0, 0, most + 1, pool));
        assert!(has_room(1, most - 1, 1, pool) && !has_room(1, most, 1, pool));
        assert!(
            has_room(QUARANTINE_REGIONS_MAX - 1, 0, 1, pool) && !has_room(QUARANTINE_REGIONS_MAX, 0, 1, pool)
        );
    }
}
