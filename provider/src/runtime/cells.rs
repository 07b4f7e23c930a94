//! The memory of regions and the slots of open rights, found by the kernel's keys without the kernel's lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caps::id::{LeaseId, PrincipalKey};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::BootNanos;

use super::lock;
use crate::kernel::{OpenRow, RegionKey};
use crate::mem::Region;
use crate::slot::{InFlight, Slot};

type OpenKey = RegionKey; // both are the kernel's table keys

/// A region's memory and its lease's deadline, which renewals move.
#[derive(Debug)]
pub struct Memory {
    /// The memory.
    pub(super) region: Region,
    deadline: AtomicU64,
}

impl Memory {
    pub(super) fn new(region: Region, deadline: BootNanos) -> Self {
        Self { region, deadline: AtomicU64::new(deadline.0) }
    }

    /// When its lease ends.
    pub(super) fn deadline(&self) -> BootNanos {
        BootNanos(self.deadline.load(Ordering::Relaxed))
    }

    /// Moves the end. Relaxed: an access that misses a renewal by nanoseconds is refused, which is safe; a
    /// shortening is followed by the kernel's own deadline.
    pub(super) fn set_deadline(&self, deadline: BootNanos) {
        self.deadline.store(deadline.0, Ordering::Relaxed);
    }
}

/// What an operation on an open right needs to know.
#[derive(Debug)]
pub(super) struct Right {
    pub(super) session: u64,
    pub(super) lease: LeaseId,
    pub(super) holder: PrincipalKey,
    pub(super) rights: Rights,
    pub(super) range: ByteRange,
    /// Its own end; `None` if it ends with its region.
    own_deadline: Option<BootNanos>,
    pub(super) region: RegionKey,
    pub(super) memory: Arc<Memory>,
    generation: u32,
    /// For the summary at the close.
    pub(super) operations: AtomicU64,
    pub(super) bytes: AtomicU64,
}

impl Right {
    pub(super) fn new(row: &OpenRow, generation: u32, memory: Arc<Memory>) -> Self {
        Self {
            lease: row.lease,
            session: row.session.0,
            holder: row.holder,
            rights: row.rights,
            range: row.range,
            own_deadline: (!row.follows_region).then_some(row.deadline),
            region: row.region,
            memory,
            generation,
            operations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// When it ends.
    pub(super) fn deadline(&self) -> BootNanos {
        let region = self.memory.deadline();
        self.own_deadline.map_or(region, |own| own.min(region))
    }
}

#[derive(Debug, Default)]
struct OpenCell {
    slot: Slot,
    right: RwLock<Option<Arc<Right>>>,
}

/// Fixed at the start: one cell an index.
pub(super) struct Cells {
    regions: Box<[Mutex<Option<Arc<Memory>>>]>,
    opens: Box<[OpenCell]>,
}

impl Cells {
    pub(super) fn new(regions: usize, opens: usize) -> Self {
        Self {
            regions: (0..regions).map(|_| Mutex::default()).collect(),
            opens: (0..opens).map(|_| OpenCell::default()).collect(),
        }
    }

    pub(super) fn memory(&self, region: RegionKey) -> Option<Arc<Memory>> {
        lock(&self.regions[region.index as usize]).clone()
    }

    pub(super) fn put_memory(&self, region: RegionKey, memory: Arc<Memory>) {
        *lock(&self.regions[region.index as usize]) = Some(memory);
    }

    pub(super) fn take_memory(&self, region: RegionKey) -> Option<Arc<Memory>> {
        lock(&self.regions[region.index as usize]).take()
    }

    /// Tries to open a right's slot; `false` while an operation on the index' previous right is still inside. Called
    /// under the kernel's lock.
    pub(super) fn open(&self, open: OpenKey, right: &Arc<Right>) -> bool {
        let cell = &self.opens[open.index as usize];
        if !cell.slot.is_drained() {
            return false;
        }
        *cell.right.write().unwrap_or_else(PoisonError::into_inner) = Some(right.clone());
        cell.slot.open(open.generation)
    }

    /// Refuses new operations on a right and takes it out, if it was ever put in. Called under the kernel's lock.
    pub(super) fn fence(&self, open: OpenKey) -> Option<Arc<Right>> {
        let cell = &self.opens[open.index as usize];
        cell.slot.fence();
        let mut right = cell.right.write().unwrap_or_else(PoisonError::into_inner);
        right.take_if(|right| right.generation == open.generation)
    }

    /// Begins an operation: enters the slot and finds the right.
    pub(super) fn enter(&self, open: OpenKey) -> Option<(InFlight<'_>, Arc<Right>)> {
        let cell = self.opens.get(open.index as usize)?;
        let inside = cell.slot.enter(open.generation)?;
        let right = cell.right.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((inside, right))
    }

    /// Whether no operation is inside a fenced right.
    pub(super) fn is_drained(&self, open: OpenKey) -> bool {
        self.opens[open.index as usize].slot.is_drained_of(open.generation)
    }
}
