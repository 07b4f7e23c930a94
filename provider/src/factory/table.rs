//! The regions that exist: a table of fixed size, and the pool's bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A region's name between provider and factory: slot and generation. It carries no authority; the socket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegionKey(pub(super) u64);

impl RegionKey {
    const fn new(slot: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | slot as u64)
    }

    const fn slot(self) -> usize {
        (self.0 & u32::MAX as u64) as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The one descriptor the factory keeps of a region.
#[derive(Debug)]
pub(super) enum Hold {
    /// A sealed region's file. It has no name to open it by again.
    File(OwnedFd),
    /// An open region's mount, which finds the file and can be reconfigured.
    Mount(OwnedFd),
}

impl Hold {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(fd) | Self::Mount(fd) => fd.as_fd(),
        }
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        match self {
            Self::File(fd) | Self::Mount(fd) => fd,
        }
    }
}

struct Slot {
    generation: u32,
    entry: Option<(u64, Hold)>,
}

/// All live regions.
///
/// Invariants: `bytes_used` is the sum of the entries' bytes and at most `bytes_max`; `free` holds exactly the slots
/// without an entry; a key is valid for one life of its slot.
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    bytes_used: u64,
    bytes_max: u64,
}

impl Table {
    pub(super) fn new(regions_max: u32, bytes_max: u64) -> Self {
        Self {
            slots: (0..regions_max).map(|_| Slot { generation: 0, entry: None }).collect(),
            free: (0..regions_max).rev().collect(),
            bytes_used: 0,
            bytes_max,
        }
    }

    /// Whether a region of `bytes` would be admitted now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        !self.free.is_empty() && self.bytes_used.checked_add(bytes).is_some_and(|sum| sum <= self.bytes_max)
    }

    /// Admits a region, or gives its hold back if there is no room.
    pub(super) fn insert(&mut self, bytes: u64, hold: Hold) -> Result<RegionKey, Hold> {
        if !self.has_room(bytes) {
            return Err(hold);
        }
        let Some(slot) = self.free.pop() else { return Err(hold) };
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.entry = Some((bytes, hold));
        self.bytes_used += bytes;
        Ok(RegionKey::new(slot, place.generation))
    }

    pub(super) fn get(&self, key: RegionKey) -> Option<&Hold> {
        let slot = self.slots.get(key.slot())?;
        if slot.generation != key.generation() {
            return None;
        }
        slot.entry.as_ref().map(|(_, hold)| hold)
    }

    /// Forgets a region and returns what was held, to be closed by the caller.
    pub(super) fn remove(&mut self, key: RegionKey) -> Option<Hold> {
        self.get(key)?;
        let (bytes, hold) = self.slots[key.slot()].entry.take()?;
        self.bytes_used -= bytes;
        self.free.push(key.slot() as u32);
        Some(hold)
    }

    /// Everything held, for the last cut.
    pub(super) fn into_holds(self) -> Vec<Hold> {
        self.slots.into_iter().filter_map(|slot| slot.entry.map(|(_, hold)| hold)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hold() -> Hold {
        Hold::File(
            rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap(),
        )
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "real descriptors")]
        fn never_over_a_limit_and_old_keys_stay_dead(steps in prop::collection::vec((any::<bool>(), 0_u64..40), 1..200)) {
            let mut table = Table::new(5, 100);
            let (mut live, mut dead) = (Vec::<(RegionKey, u64)>::new(), Vec::new());
            for (insert, n) in steps {
                let used: u64 = live.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(table.bytes_used, used);
                if insert {
                    let fits = live.len() < 5 && used + n <= 100;
                    prop_assert_eq!(table.has_room(n), fits);
                    match table.insert(n, hold()) {
                        Ok(key) => { prop_assert!(fits && !dead.contains(&key)); live.push((key, n)); }
                        Err(_) => prop_assert!(!fits),
                    }
                } else if !live.is_empty() {
                    let (key, _) = live.remove(n as usize % live.len());
                    prop_assert!(table.remove(key).is_some());
                    dead.push(key);
                }
                prop_assert!(dead.iter().all(|key| table.get(*key).is_none()));
                prop_assert!(live.iter().all(|(key, _)| table.get(*key).is_some()));
            }
        }
    }
}
