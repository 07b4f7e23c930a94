//! What a mapping must know to outlive a rotation, and what each message of the channel does to it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::SlotHandle;
use caps::wire::channel::{Message, SegmentAccess};

use crate::mapping::{Access, Revocation, descriptor, place};

/// Where a mapping stands in its session and in its region.
pub(crate) struct Rotation {
    /// Where fresh segments come from.
    pub(crate) channel: Arc<OwnedFd>,
    /// How the node calls the right.
    pub(crate) handle: SlotHandle,
    /// The region's segment that is the mapping's first.
    pub(crate) first: u32,
    /// Bytes of each segment but the last, which may be shorter.
    pub(crate) segment_bytes: usize,
    /// How long an access that met cut memory waits for the fresh segment.
    pub(crate) wait: Duration,
}

/// The segment is mapped as the right was opened.
const WHOLE: u8 = 0;
/// The segment is mapped read-only, though the right was opened to write.
const READ_ONLY: u8 = 1;
/// The segment is gone and does not come back.
const LOST: u8 = 2;

/// A mapping whose segments may be replaced. Messages are applied under the slot's install word; the states of the
/// segments may be read at any time.
pub(crate) struct Rotating {
    rotation: Rotation,
    start: usize,
    length: usize,
    access: Access,
    revocation: Revocation,
    segments: Box<[AtomicU8]>,
}

/// What may be done with a range of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// What the right was opened for.
    Whole,
    /// Reading only.
    ReadOnly,
    /// Nothing.
    Lost,
}

impl Rotating {
    pub(crate) fn new(
        rotation: Rotation,
        start: usize,
        length: usize,
        access: Access,
        revocation: Revocation,
    ) -> Self {
        let segments = (0..length.div_ceil(rotation.segment_bytes)).map(|_| AtomicU8::new(WHOLE)).collect();
        Self { rotation, start, length, access, revocation, segments }
    }

    pub(super) const fn handle(&self) -> SlotHandle {
        self.rotation.handle
    }

    pub(super) fn channel_number(&self) -> i32 {
        self.rotation.channel.as_raw_fd()
    }

    pub(super) const fn wait(&self) -> Duration {
        self.rotation.wait
    }

    /// The worst standing of the segments that `length` bytes from `offset` of the mapping lie in.
    pub(crate) fn standing(&self, offset: usize, length: usize) -> Standing {
        let first = offset / self.rotation.segment_bytes;
        let last = offset.saturating_add(length.saturating_sub(1)) / self.rotation.segment_bytes;
        let reached = self.segments.get(first..=last.min(self.segments.len() - 1)).unwrap_or_default();
        match reached.iter().map(|segment| segment.load(Ordering::Acquire)).max() {
            Some(LOST) => Standing::Lost,
            Some(READ_ONLY) => Standing::ReadOnly,
            _ => Standing::Whole,
        }
    }

    /// Whether what lies at `address` is gone for good.
    pub(super) fn is_lost(&self, address: usize) -> bool {
        self.revocation.is_revoked() || self.standing(address - self.start, 1) == Standing::Lost
    }

    /// The node is gone.
    pub(super) fn hung_up(&self) {
        self.revocation.revoke();
    }

    /// Carries out one message about this right. Async-signal-safe: system calls and atomics.
    ///
    /// Rights only ever shrink: a segment that was withdrawn stays away, and one that became read-only stays so,
    /// whatever the node says later.
    pub(super) fn apply(&self, message: Message, file: Option<OwnedFd>) {
        match message {
            Message::Segment { index, access, .. } => {
                if let Some(at) = self.place_of(index) {
                    // Nothing of what went wrong is told to anybody: the segment is lost, and access to it says so.
                    if self.replace(at, access, file).is_err() {
                        self.set(at, LOST);
                    }
                }
            }
            Message::Withdrawn { index, .. } => {
                if let Some(at) = self.place_of(index) {
                    self.set(at, LOST);
                }
            }
            Message::Ended { .. } => self.revocation.revoke(),
            Message::Ready { .. } | Message::Taken { .. } => {}
        }
    }

    /// Maps the fresh file over the segment at place `at`.
    fn replace(&self, at: usize, access: SegmentAccess, file: Option<OwnedFd>) -> Result<(), Error> {
        const MISSING: Error = Error::new(Code::DescriptorType, "no descriptor came with the segment");
        let before = self.segments[at].load(Ordering::Relaxed);
        let file = file.ok_or(MISSING)?;
        if before == LOST {
            return Ok(());
        }
        let writable =
            self.access == Access::ReadWrite && access == SegmentAccess::ReadWrite && before == WHOLE;
        let access = if writable { Access::ReadWrite } else { Access::Read };
        let offset = at * self.rotation.segment_bytes;
        let bytes = self.rotation.segment_bytes.min(self.length - offset);
        descriptor::check(file.as_fd(), bytes as u64, access, descriptor::Cut::Possible)?;
        if self.access == Access::ReadWrite && !writable {
            // Before it is mapped: a write that is under way faults, and must find the reason.
            self.set(at, READ_ONLY);
        }
        // SAFETY: the range is the segment's, inside the mapping's own addresses, which belong to it as long as the
        // install word is held. Accesses that are under way meet the old file or the fresh one, both of which hold
        // this region's bytes.
        unsafe { place::segment((self.start + offset) as *mut u8, bytes, file.as_fd(), access) }
    }

    /// The place in this mapping of the region's segment `index`.
    fn place_of(&self, index: u32) -> Option<usize> {
        let at = index.checked_sub(self.rotation.first)? as usize;
        (at < self.segments.len()).then_some(at)
    }

    /// Notes what became of a segment, first there, then in the flag that sends guarded access to look.
    fn set(&self, at: usize, state: u8) {
        self.segments[at].fetch_max(state, Ordering::AcqRel);
        self.revocation.narrowed();
    }
}
