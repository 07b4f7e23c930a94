//! The memory of regions and the slots of open rights, found by the kernel's keys without the kernel's lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caps::id::{GrantId, LeaseId, PrincipalKey};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::BootNanos;

use super::lock;
use super::memory::Memory;
use super::meters::Metered;
use crate::kernel::{OpenRow, RegionKey};
use crate::mem::Holder;
use crate::slot::{InFlight, Slot};

/// Names an open right. Both are keys of the kernel's tables.
pub type OpenKey = RegionKey;

/// What an operation on an open right needs to know.
#[derive(Debug)]
pub(super) struct Right {
    pub(super) session: u64,
    pub(super) lease: LeaseId,
    grant: Option<GrantId>,
    pub(super) holder: PrincipalKey,
    pub(super) rights: Rights,
    pub(super) range: ByteRange,
    /// Its own end; `None` if it ends with its region.
    own_deadline: Option<BootNanos>,
    pub(super) region: RegionKey,
    pub(super) memory: Arc<Memory>,
    generation: u32,
    /// Which tier's descriptors its holder may have.
    pub(super) kind: Holder,
    /// What was handed out under it.
    pub(super) handed: Arc<Handed>,
    /// What its accesses are taken from; none for an ordinary token's.
    pub(super) meters: Box<[Metered]>,
    /// Whether it was narrowed: a later one is in the cell.
    superseded: AtomicBool,
    /// For the summary at the close.
    pub(super) operations: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Which generation of each segment was handed out last under a mapped right.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// The first segment of the right's range when it was opened.
    first: u32,
    /// 0 where none was.
    generations: Box<[AtomicU32]>,
}

impl Handed {
    /// For a mapped right over these segments.
    pub(super) fn over(segments: std::ops::Range<u32>) -> Self {
        Self { first: segments.start, generations: segments.map(|_| AtomicU32::new(0)).collect() }
    }

    /// A segment's file of this generation is about to leave.
    pub(super) fn set(&self, segment: u32, generation: u32) {
        let at = segment.checked_sub(self.first).and_then(|at| self.generations.get(at as usize));
        if let Some(place) = at {
            place.store(generation, Ordering::Release);
        }
    }

    /// Every segment of the right as it was opened, with what was handed out of it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        (self.first..).zip(self.generations.iter().map(|place| place.load(Ordering::Acquire)))
    }
}

impl Right {
    pub(super) fn new(
        row: &OpenRow,
        generation: u32,
        memory: Arc<Memory>,
        kind: Holder,
        handed: Arc<Handed>,
        meters: Box<[Metered]>,
    ) -> Self {
        Self {
            lease: row.lease,
            grant: row.grant,
            session: row.session.0,
            holder: row.holder,
            rights: row.rights,
            range: row.range,
            own_deadline: (!row.follows_region).then_some(row.deadline),
            region: row.region,
            memory,
            generation,
            kind,
            handed,
            meters,
            superseded: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The same right with what a narrowing left of it.
    fn narrowed(&self, row: &OpenRow) -> Self {
        let (memory, handed, meters) = (self.memory.clone(), self.handed.clone(), self.meters.clone());
        let narrowed = Self::new(row, self.generation, memory, self.kind, handed, meters);
        // Operations that are inside the old one are missing from the summary.
        narrowed.operations.store(self.operations.load(Ordering::Relaxed), Ordering::Relaxed);
        narrowed.bytes.store(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        narrowed
    }

    /// Whether it was narrowed since it was looked up: what it judged has to be judged again.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::SeqCst)
    }

    /// Whether anybody but the list that waits for it has it in hand.
    pub(super) fn is_in_use(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }

    /// What it is, for an entry that tells of its misuse.
    pub(super) const fn terms(&self) -> Terms {
        Terms { lease: self.lease, grant: self.grant, rights: self.rights, range: self.range }
    }

    /// When it ends.
    pub(super) fn deadline(&self) -> BootNanos {
        let region = self.memory.deadline();
        self.own_deadline.map_or(region, |own| own.min(region))
    }
}

/// What a right allowed, without the memory that it was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of which lease.
    pub lease: LeaseId,
    /// Under which grant.
    pub grant: Option<GrantId>,
    /// What it allows.
    pub rights: Rights,
    /// Over which bytes.
    pub range: ByteRange,
}

/// The last right that ended at an index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) generation: u32,
    pub(super) session: u64,
    pub(super) terms: Terms,
    pub(super) fenced: BootNanos,
}

/// Whose a handle is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// An open right of this session's.
    Open(u64, Terms),
    /// A right that ended, the last one at its index.
    Ended(Last),
    /// An older one.
    Older,
    /// Nobody was ever given it.
    Never,
}

#[derive(Debug, Default)]
struct Place {
    right: Option<Arc<Right>>,
    last: Option<Last>,
}

#[derive(Debug, Default)]
struct OpenCell {
    slot: Slot,
    place: RwLock<Place>,
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
        cell.place.write().unwrap_or_else(PoisonError::into_inner).right = Some(right.clone());
        cell.slot.open(open.generation)
    }

    /// Refuses new operations on a right and takes it out, if it was ever put in; remembers that it ended. Called under
    /// the kernel's lock.
    pub(super) fn fence(&self, open: OpenKey, now: BootNanos) -> Option<Arc<Right>> {
        let cell = &self.opens[open.index as usize];
        cell.slot.fence();
        let mut place = cell.place.write().unwrap_or_else(PoisonError::into_inner);
        let right = place.right.take_if(|right| right.generation == open.generation)?;
        let (generation, session) = (open.generation, right.session);
        place.last = Some(Last { generation, session, terms: right.terms(), fenced: now });
        Some(right)
    }

    /// Whose a handle is, or was.
    pub(super) fn known(&self, open: OpenKey) -> Known {
        let Some(cell) = self.opens.get(open.index as usize) else { return Known::Never };
        let place = cell.place.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(right) = place.right.as_ref().filter(|right| right.generation == open.generation) {
            return Known::Open(right.session, right.terms());
        }
        let given = place.right.as_ref().map(|right| right.generation);
        match place.last {
            Some(last) if last.generation == open.generation => Known::Ended(last),
            // Generations count up from 1, each given once.
            last if open.generation == 0
                || given.max(last.map(|last| last.generation)).is_none_or(|top| open.generation > top) =>
            {
                Known::Never
            }
            _ => Known::Older,
        }
    }

    /// Replaces an open right by what a narrowing left of it, and gives the old one back: operations that were judged
    /// by it have to be waited for. Called under the kernel's lock.
    pub(super) fn narrow(&self, open: OpenKey, row: &OpenRow) -> Option<Arc<Right>> {
        let cell = &self.opens[open.index as usize];
        let mut place = cell.place.write().unwrap_or_else(PoisonError::into_inner);
        let old = place.right.take_if(|right| right.generation == open.generation)?;
        place.right = Some(Arc::new(old.narrowed(row)));
        old.superseded.store(true, Ordering::SeqCst);
        Some(old)
    }

    /// The right in a cell, if it is still that one.
    pub(super) fn right(&self, open: OpenKey) -> Option<Arc<Right>> {
        let place = self.opens.get(open.index as usize)?.place.read().unwrap_or_else(PoisonError::into_inner);
        place.right.clone().filter(|right| right.generation == open.generation)
    }

    /// Begins an operation: enters the slot and finds the right.
    pub(super) fn enter(&self, open: OpenKey) -> Option<(InFlight<'_>, Arc<Right>)> {
        let cell = self.opens.get(open.index as usize)?;
        let inside = cell.slot.enter(open.generation)?;
        let right = cell.place.read().unwrap_or_else(PoisonError::into_inner).right.clone()?;
        Some((inside, right))
    }

    /// Whether no operation is inside a fenced right.
    pub(super) fn is_drained(&self, open: OpenKey) -> bool {
        self.opens[open.index as usize].slot.is_drained_of(open.generation)
    }
}
