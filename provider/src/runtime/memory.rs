//! A region's memory: its segments' files, and the rotations that replace them.
//!
//! ```text
//! Memory ─┬─ segment 0 ─▶ File { generation 3, mem::Region }
//!         ├─ segment 1 ─▶ File { generation 1, mem::Region }
//!         └─ rotations under way: {7}   who waits: [(7, ..)]   what comes after all of them: take the region back
//! ```
//! A rotation *cuts* a segment's file, copies it into a fresh one and *installs* that. In between the segment's file is
//! a dead one, and whoever reads or writes through the provider waits for the installation. The kernel's tables say
//! which generation is in force; a file is installed under the kernel's lock, in the step that counts the generation
//! up, so the two never differ for anybody who holds the lock.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caps::error::{Code, Error, Result};
use caps::range::ByteRange;
use caps::time::BootNanos;
use policy::limits::REMOTE_SESSIONS_MAX;
use tokio::sync::Notify;

use super::lock;
use super::meters::Meters;
use super::quarantine::Keep;
use crate::kernel::RotationId;
use crate::mem::{Change, Region};

/// One segment's memory of one generation.
#[derive(Debug)]
pub(super) struct File {
    pub(super) region: Region,
    pub(super) generation: u32,
}

/// Sessions over the network that had a right.
#[derive(Default)]
struct Readers {
    sessions: BTreeSet<u64>,
    /// How many of them lived when that was last looked at.
    live: usize,
}

/// So many are kept without a look at which of them live.
const READERS_FEW: usize = 64;
const READERS_MAX: usize = 2 * REMOTE_SESSIONS_MAX;

/// Called when every rotation up to a certain one is over.
type Waiter = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Rotations {
    under_way: BTreeSet<RotationId>,
    waiting: Vec<(RotationId, Waiter)>,
    /// What comes after the last rotation: giving the whole region back.
    at_last: Option<Waiter>,
}

/// A region's segments and its lease's deadline, which renewals move.
pub struct Memory {
    segments: Box<[RwLock<Arc<File>>]>,
    segment_bytes: u64,
    bytes: u64,
    deadline: AtomicU64,
    /// Guards the lists only.
    rotations: Mutex<Rotations>,
    /// Counted up whenever a fresh file is in place, or none will ever be.
    version: AtomicU64,
    changed: Notify,
    /// Sessions of processes that were given a file of it whose lock they can hold. Guards the set only.
    holders: Mutex<BTreeSet<u64>>,
    /// Sessions over the network that opened a right to it: where bytes of it may be under way. Guards the set only.
    readers: Mutex<Readers>,
    /// Why it is to be kept once it is dead. Held for a look or a change.
    kept: Mutex<Option<Keep>>,
    /// What its tokens with limits on use still allow.
    pub(super) meters: Meters,
}

impl Memory {
    /// The memory of a region as it was built: all segments of `segment_bytes` but perhaps the last.
    pub(super) fn new(segments: Vec<Region>, segment_bytes: u64, deadline: BootNanos) -> Self {
        let bytes = segments.iter().map(Region::len).sum();
        let first =
            |region| RwLock::new(Arc::new(File { region, generation: crate::kernel::FIRST_GENERATION }));
        Self {
            segments: segments.into_iter().map(first).collect(),
            segment_bytes,
            bytes,
            deadline: AtomicU64::new(deadline.0),
            rotations: Mutex::default(),
            version: AtomicU64::new(0),
            changed: Notify::new(),
            holders: Mutex::default(),
            readers: Mutex::default(),
            kept: Mutex::default(),
            meters: Meters::default(),
        }
    }

    /// When its lease ends.
    pub(super) fn deadline(&self) -> BootNanos {
        BootNanos(self.deadline.load(Ordering::Relaxed))
    }

    /// A session is about to be given a file that its process can lock.
    pub(super) fn held_by(&self, session: u64) {
        lock(&self.holders).insert(session);
    }

    /// Who was.
    pub(super) fn holders(&self) -> BTreeSet<u64> {
        lock(&self.holders).clone()
    }

    /// A session over the network is about to have a right to it. Those that are over are forgotten now and then: there
    /// are never more than twice as many as can live at one time.
    pub(super) fn read_by(&self, session: u64, lives: impl Fn(u64) -> bool) {
        let Readers { sessions, live } = &mut *lock(&self.readers);
        // At twice what there was the last time, so that each is looked at a few times, however many come and go.
        if sessions.insert(session) && sessions.len() > (*live * 2).clamp(READERS_FEW, READERS_MAX) {
            sessions.retain(|&known| known == session || lives(known));
            *live = sessions.len();
        }
    }

    /// Which are.
    pub(super) fn readers(&self) -> BTreeSet<u64> {
        lock(&self.readers).sessions.clone()
    }

    /// Whether there are any.
    pub(super) fn is_read_remotely(&self) -> bool {
        !lock(&self.readers).sessions.is_empty()
    }

    /// Has the memory kept once it is dead. Who says it first says why.
    pub(super) fn keep(&self, order: Keep) {
        lock(&self.kept).get_or_insert(order);
    }

    /// Takes such an order back, if it is the one that stands.
    pub(super) fn keep_no_more(&self, order: Keep) {
        lock(&self.kept).take_if(|standing| *standing == order);
    }

    /// Why it is to be kept, if it is.
    pub(super) fn kept(&self) -> Option<Keep> {
        *lock(&self.kept)
    }

    /// Bytes that can still be read once it is dead.
    pub(super) fn readable_bytes(&self) -> u64 {
        self.files().map(|file| file.region.coverage().pinned).sum()
    }

    /// Fills `into` from `offset` of the dead region. The bytes lie in it.
    ///
    /// # Errors
    /// Those of [`Region::read_dead`].
    pub(super) fn read_dead(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let (file, at, left) = self.locate(offset + done as u64)?;
            let end = into.len().min(done.saturating_add(left));
            file.region.read_dead(at, &mut into[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Moves the end. Relaxed: an access that misses a renewal by nanoseconds is refused, which is safe; a
    /// shortening is followed by the kernel's own deadline.
    pub(super) fn set_deadline(&self, deadline: BootNanos) {
        self.deadline.store(deadline.0, Ordering::Relaxed);
    }

    /// Bytes, all segments together.
    pub(super) const fn len(&self) -> u64 {
        self.bytes
    }

    /// The segment in which a byte lies.
    pub(super) fn segment_of(&self, offset: u64) -> u32 {
        // A region has at most `SEGMENTS_PER_REGION_MAX` segments, and `offset` lies in it.
        (offset / self.segment_bytes) as u32
    }

    /// The bytes of a segment, if there is such a segment.
    pub(super) fn range_of(&self, segment: u32) -> Option<ByteRange> {
        let start = u64::from(segment).checked_mul(self.segment_bytes).filter(|&start| start < self.bytes)?;
        ByteRange::new(start, start.saturating_add(self.segment_bytes).min(self.bytes)).ok()
    }

    /// A segment's file, if there is such a segment.
    pub(super) fn file(&self, segment: u32) -> Option<Arc<File>> {
        let place = self.segments.get(segment as usize)?;
        Some(place.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// All files as they are.
    pub(super) fn files(&self) -> impl Iterator<Item = Arc<File>> {
        self.segments.iter().map(|place| place.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Puts a fresh file in place of a segment's old one, which is given back. Called under the kernel's lock, in the
    /// step that made `generation` the one in force.
    pub(super) fn install(&self, segment: u32, region: Region, generation: u32) -> Option<Arc<File>> {
        let place = self.segments.get(segment as usize)?;
        let mut file = place.write().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::replace(&mut *file, Arc::new(File { region, generation })))
    }

    /// Reads at `offset` into all of `into`, which lies in the region.
    ///
    /// # Errors
    /// `E_REVOKED` while a segment is rotated or once the region is cut; nothing in `into` may be used then.
    pub(super) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let (file, at, left) = self.locate(offset + done as u64)?;
            let end = into.len().min(done.saturating_add(left));
            let read = file.region.read_at(at, &mut into[done..end])?;
            debug_assert_eq!(read, end - done, "the piece lies in the segment");
            done = end;
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, which lie in the region. How many of them, from the first on, are in it for
    /// certain, and why not all.
    ///
    /// # Errors
    /// `E_REVOKED` while a segment is rotated or once the region is cut. Some of the bytes behind those may have been
    /// written then; writing all of it again is the way to go on.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> (usize, Result<()>) {
        let mut done = 0;
        while done < bytes.len() {
            let piece = || -> Result<usize> {
                let (file, at, left) = self.locate(offset + done as u64)?;
                let end = bytes.len().min(done.saturating_add(left));
                let written = file.region.write_at(at, &bytes[done..end])?;
                debug_assert_eq!(written, end - done, "the piece lies in the segment");
                Ok(end)
            };
            // What is in a segment stays there when another one is rotated.
            match piece() {
                Ok(end) => done = end,
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    /// Changes the word at `offset`, which lies in the region, and returns what it was before. `stands` is asked right
    /// before it is changed, see [`Region::change_word`].
    ///
    /// # Errors
    /// `E_REVOKED` while its segment is rotated or once the region is cut, `E_RANGE` unless it stands at a multiple of 8,
    /// and what `stands` says.
    /// Nothing was changed then, in any segment's file: making the change again is the way to go on.
    pub(super) fn change_word(
        &self,
        offset: u64,
        change: Change,
        stands: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        // Segments are whole pages, so a word lies in one of them.
        let (file, at, _) = self.locate(offset)?;
        file.region.change_word(at, change, stands)
    }

    /// The file that holds a byte, the byte's place in it, and how many bytes follow there.
    fn locate(&self, offset: u64) -> Result<(Arc<File>, u64, usize)> {
        let file = self
            .file(self.segment_of(offset))
            .ok_or(Error::new(Code::Internal, "an access was not judged before it was made"))?;
        let at = offset % self.segment_bytes;
        let left = file.region.len() - at;
        Ok((file, at, usize::try_from(left).unwrap_or(usize::MAX)))
    }

    /// What [`Self::changed_since`] compares with. Taken before the attempt that found a segment dead.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits until a fresh file was put in place, or none will be, after `version`.
    pub(super) async fn changed_since(&self, version: u64) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Enlisted before the look: a change between the two wakes us.
            changed.as_mut().enable();
            if self.version() != version {
                return;
            }
            changed.await;
        }
    }

    /// Tells those who wait that a file was put in place, or that none will be.
    pub(super) fn announce(&self) {
        self.version.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// A rotation begins. Called under the kernel's lock, so that nobody can ask for its end before it is known.
    pub(super) fn begin_rotation(&self, rotation: RotationId) {
        lock(&self.rotations).under_way.insert(rotation);
    }

    /// A rotation is over: whoever waited for it, and for none that is still under way, is told.
    pub(super) fn end_rotation(&self, rotation: RotationId) {
        let mut rotations = lock(&self.rotations);
        rotations.under_way.remove(&rotation);
        let first = rotations.under_way.first().copied();
        let (ready, still) = std::mem::take(&mut rotations.waiting)
            .into_iter()
            .partition(|&(upto, _)| first.is_none_or(|first| first > upto));
        rotations.waiting = still;
        let at_last = if first.is_none() { rotations.at_last.take() } else { None };
        drop(rotations);
        let ready: Vec<(RotationId, Waiter)> = ready;
        ready.into_iter().for_each(|(_, waiter)| waiter());
        if let Some(at_last) = at_last {
            at_last();
        }
    }

    /// Calls `waiter` when every rotation up to and including `upto` is over; at once if none is under way.
    pub(super) fn after_rotations(&self, upto: RotationId, waiter: Waiter) {
        let mut rotations = lock(&self.rotations);
        if rotations.under_way.first().is_some_and(|&first| first <= upto) {
            rotations.waiting.push((upto, waiter));
            return;
        }
        drop(rotations);
        waiter();
    }

    /// Calls `waiter` when no rotation is under way any more. Once: a region is taken back once, and no rotation of it
    /// begins after that.
    pub(super) fn after_all_rotations(&self, waiter: Waiter) {
        let mut rotations = lock(&self.rotations);
        if rotations.under_way.is_empty() {
            drop(rotations);
            waiter();
        } else {
            debug_assert!(rotations.at_last.is_none(), "a region is taken back once");
            rotations.at_last = Some(waiter);
        }
    }

    /// Closes all files.
    pub(super) fn close(self) {
        for place in self.segments {
            close_file(place.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("bytes", &self.bytes)
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}

/// Unwraps a file that nobody should have in hand any more and closes it. An operation that was inside when the file
/// was cut may still hold it for a moment; past the bound of a drain, closing it is left to that one.
pub(super) fn close_file(mut file: Arc<File>) {
    let bound = std::time::Duration::from_millis(policy::limits::DRAIN_MS_MAX);
    let started = std::time::Instant::now();
    loop {
        match Arc::try_unwrap(file) {
            Ok(file) => return file.region.close(),
            Err(_) if started.elapsed() > bound => return,
            Err(shared) => file = shared,
        }
        std::thread::yield_now();
    }
}
