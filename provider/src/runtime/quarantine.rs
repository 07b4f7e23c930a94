//! Dead memory that is kept instead of given back.
//!
//! A region comes here after its cut: nobody can reach it by a mapping, a handle or a token. Its pages stay pinned, its
//! row stays in the kernel's tables as ending, and so its bytes stay in the ledger: nobody else can have them. Either it
//! was ordered, and then it is kept as it was at the cut, unwiped, for an investigator; or its wipe failed, so that it
//! could not be proved clean. It stays until the node stops, which wipes it.
//!
//! Both its number and its bytes are bounded. An order that finds no room is refused, and the memory is wiped and given
//! back as ever. Memory that could not be wiped and finds no room is given back to the system, which zeroes every page
//! before anybody else gets it; the log says that it was not wiped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::wire::link::{Take, Taken};
use caps::wire::row::EndCause;
use policy::limits::{QUARANTINE_POOL_PERCENT_MAX, QUARANTINE_REGIONS_MAX};

use super::memory::Memory;
use super::{Provider, Shared, lock};
use crate::kernel::{Event, RegionKey};

/// One region in quarantine.
struct Kept {
    lease: LeaseId,
    memory: Arc<Memory>,
    taken: Taken,
}

/// The regions in quarantine. Held for a look or an insertion.
#[derive(Default)]
pub(super) struct Quarantine(Mutex<BTreeMap<RegionKey, Kept>>);

impl Provider {
    /// Takes a lease's region from everybody and keeps it as it is. `cause` says why, in a word of ours.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if there is no memory of it; what [`Provider::take`] refuses.
    pub async fn quarantine(&self, lease: LeaseId, cause: &'static str) -> Result<Taken> {
        let memory = lock(&self.0.kernel)
            .region_of(lease)
            .and_then(|region| self.0.cells.memory(region))
            .ok_or(Error::new(Code::LeaseUnknown, "this provider holds no memory of that lease"))?;
        memory.keep(cause);
        drop(memory); // whoever takes it back waits for those who hold it
        self.take(Take::Lease(lease), EndCause::Revoked).await
    }
}

impl Quarantine {
    /// What taking a region came to that is in quarantine already.
    pub(super) fn taken(&self, region: RegionKey) -> Option<Taken> {
        lock(&self.0).get(&region).map(|kept| kept.taken)
    }

    /// Keeps a dead region, or gives it back where there is no room.
    fn keep(&self, region: RegionKey, kept: Kept, pool_bytes: u64) -> Result<(), Kept> {
        let mut all = lock(&self.0);
        let bytes: u64 = all.values().map(|kept| kept.memory.len()).sum();
        if !has_room(all.len(), bytes, kept.memory.len(), pool_bytes) {
            return Err(kept);
        }
        all.insert(region, kept);
        Ok(())
    }
}

/// Whether one more region of `more` bytes may be kept.
fn has_room(regions: usize, bytes: u64, more: u64, pool_bytes: u64) -> bool {
    // No sum of regions is longer than the pool, and a pool's bytes times a hundred fit 64 bits.
    regions < QUARANTINE_REGIONS_MAX && (bytes + more) * 100 <= pool_bytes * QUARANTINE_POOL_PERCENT_MAX
}

const _: () = assert!(policy::limits::POOL_BYTES_MAX as u128 * 200 < u64::MAX as u128);

impl Shared {
    /// Puts a dead region into quarantine and records it. It comes back where there is no room, which is recorded too.
    pub(super) fn set_aside_dead(
        &self,
        region: RegionKey,
        memory: Arc<Memory>,
        cause: &'static str,
        taken: Taken,
    ) -> Result<(), Arc<Memory>> {
        let lease = taken.lease.unwrap_or(LeaseId([0; 16])); // a whole region's always has one
        let bytes = memory.len();
        let kept = self.quarantine.keep(region, Kept { lease, memory, taken }, self.config.pool_bytes);
        let entry = match kept {
            Ok(()) => Draft::ok(Entry::RegionQuarantine),
            Err(_) => Draft::deny(Entry::RegionQuarantine, Code::NoMemory),
        };
        self.record_regardless(entry.lease(lease).cause(cause).bytes(bytes).wiped_bytes(taken.wiped_bytes));
        kept.map_err(|kept| kept.memory)
    }

    /// Wipes and gives back whatever is in quarantine: the node stops.
    pub(super) fn empty_quarantine(self: &Arc<Self>) {
        let all = std::mem::take(&mut *lock(&self.quarantine.0));
        for (region, kept) in all {
            let wiped_bytes = super::take_back::wipe(&kept.memory).unwrap_or_else(|wiped| wiped);
            super::take_back::give_back(kept.memory);
            let ended = self.step(Event::Taken { region });
            debug_assert!(ended.is_ok(), "{ended:?}");
            let entry = Draft::ok(Entry::LeaseRevoke).lease(kept.lease).cause("quarantine_over");
            self.record_regardless(entry.wiped_bytes(wiped_bytes));
        }
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
