//! Regions, and the ledger of their bytes.

use std::collections::BTreeSet;

use caps::id::{LeaseId, PrincipalKey, RegionId};
use caps::range::ByteRange;
use caps::time::{BootNanos, UnixMicros};
use caps::wire::row::EndCause;

use super::event::SessionId;
use super::grants::Grants;
use super::marks::{Mapped, Marks};
use super::meters::Meters;
use super::owner::Former;
use super::segment::{SegmentRow, SegmentState};
use super::table::Key;

/// Names a region for as long as the kernel knows it.
pub type RegionKey = Key;

/// Where a region is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Its memory is being committed and pinned. Nobody can open it.
    Building,
    /// In use.
    Live,
    /// Fenced; its memory is being taken back. Its bytes still count.
    Ending(EndCause),
}

/// One region.
#[derive(Clone, Debug)]
pub struct RegionRow {
    /// Its lease.
    pub lease: LeaseId,
    /// Its public id.
    pub region: RegionId,
    /// Who owns it.
    pub owner: PrincipalKey,
    /// Tokens whose time began earlier are of a former owner, or came from one.
    pub(super) owned_since: UnixMicros,
    /// The latest time of all changes of the owner that were told, those included that were undone before they came.
    pub(super) tried: UnixMicros,
    /// What the latest change put aside, until that is undone or the next one comes.
    pub(super) former: Option<Former>,
    /// Bytes committed, those of rotations left out.
    pub bytes: u64,
    /// Bytes of a segment; the last one may be shorter.
    pub segment_bytes: u64,
    /// Its segments, from its start.
    pub segments: Vec<SegmentRow>,
    /// Where it is.
    pub state: RegionState,
    /// When its lease ends; fixed at the claim, moved by renewals.
    pub deadline: BootNanos,
    /// The session it ends with.
    pub tied_to: Option<SessionId>,
    /// Bytes backed with huge pages; 0 while it is being built.
    pub huge_bytes: u64,
    /// Whether every page is pinned: only then can a segment be rotated.
    pub pinned: bool,
    /// Open rights to it.
    pub opens: BTreeSet<Key>,
    /// Open rights whose descriptors were handed out for mapping. A holder that closed may still map, so this is a
    /// count for people; the segments' exposures decide.
    pub mappings: u32,
    /// What is known of its grants.
    pub(super) grants: Grants,
    /// How often rights were opened under tokens with limits on use.
    pub(super) meters: Meters,
    /// What is taken back of it below its grants.
    pub(super) marks: Marks,
    /// Which tokens were ever mapped.
    pub(super) mapped: Mapped,
    /// Bytes of fresh and replaced files of its rotations.
    pub rotating_bytes: u64,
    /// How often one of its segments was rotated.
    pub rotations: u32,
    /// When the first exposure of a settled segment ends: its deadline in the kernel's index.
    pub(super) exposure_due: Option<BootNanos>,
    /// The root keys of the tokens under which segments were handed out, as far as they are believed: no more than may
    /// be at one time.
    pub(super) roots: Vec<u32>,
}

impl RegionRow {
    /// The bytes of one segment.
    #[must_use]
    pub fn segment(&self, index: u32) -> Option<ByteRange> {
        let start = u64::from(index).checked_mul(self.segment_bytes)?;
        ByteRange::new(start, start.checked_add(self.segment_bytes)?.min(self.bytes)).ok()
    }

    /// The bytes of the longest of some segments: the room that it takes to rotate them.
    pub(super) fn longest(&self, segments: &[u32]) -> Option<u64> {
        segments.iter().filter_map(|&index| self.segment(index)).map(|range| range.len()).max()
    }

    /// Whether a range falls on segment borders.
    #[must_use]
    pub const fn on_borders(&self, range: ByteRange) -> bool {
        range.start().is_multiple_of(self.segment_bytes)
            && (range.end().is_multiple_of(self.segment_bytes) || range.end() == self.bytes)
    }

    /// Whether a segment may need a rotation for which no bytes are in the books. What cannot be rotated, or will not
    /// any more because the whole region goes, needs none.
    pub(super) fn needs_room(&self, segment: &SegmentRow) -> bool {
        self.pinned && self.state == RegionState::Live && segment.needs_room()
    }

    /// When the first exposure of a settled segment ends.
    pub(super) fn first_due(&self) -> Option<BootNanos> {
        self.segments
            .iter()
            .filter(|segment| segment.state == SegmentState::Settled)
            .filter_map(|segment| segment.exposed.due())
            .min()
    }
}
