//! Rotation: some lose their mappings of a segment, the others get the same bytes in a fresh file.
//!
//! The kernel orders it ([`Effect::Rotate`]) and then keeps the books while the runtime does it: room for the fresh
//! file ([`Kernel::fresh`]), the new generation and who gets it ([`Kernel::rotated`]), the old file's bytes
//! ([`Kernel::spent`], or [`Kernel::kept`] where they could not be wiped). Who survives is decided only when the fresh
//! file is ready, by the rights that are open then: a revoke that comes while a segment is rotating has closed its rights
//! and needs nothing more than to wait.

use caps::error::{Code, Error, Result};
use caps::id::GrantId;
use caps::range::ByteRange;
use caps::time::BootNanos;
use caps::wire::request::Path;
use caps::wire::row::EndCause;

use super::event::{Answer, Effect, RotationId, Survivor};
use super::region::{RegionKey, RegionRow, RegionState};
use super::segment::{Exposure, SegmentRow, SegmentState};
use super::{Due, Kernel};

/// What has to go of a region so that some exposures are gone.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    /// Settled segments to rotate, ascending.
    pub(super) segments: Vec<u32>,
    /// Descriptors of them that are not coming back.
    pub(super) mappings: u32,
    /// The last rotation under way that takes out such an exposure already.
    pub(super) under_way: Option<RotationId>,
    /// Descriptors that it takes out, and those before it.
    pub(super) leaving: u32,
    /// Whose exposures they are, if all are of one grant.
    pub(super) grant: Option<GrantId>,
}

impl RegionRow {
    /// Collects the exposures that `over` finds, given the bytes of their segment.
    pub(super) fn doomed(&self, over: impl Fn(ByteRange, &Exposure) -> bool) -> Doomed {
        let mut doomed = Doomed::default();
        let mut whose = None;
        let mut one_grant = true;
        for (index, segment) in (0..).zip(&self.segments) {
            let Some(range) = self.segment(index) else { continue };
            let mut count = 0_u32;
            let mut any = false;
            for row in segment.exposed.rows().iter().filter(|row| over(range, row)) {
                any = true;
                count = count.saturating_add(row.count);
                one_grant &= *whose.get_or_insert(row.grant) == row.grant;
            }
            match segment.state {
                _ if !any => {}
                SegmentState::Settled => {
                    doomed.segments.push(index);
                    doomed.mappings = doomed.mappings.saturating_add(count);
                }
                SegmentState::Rotating(rotation) => {
                    doomed.under_way = doomed.under_way.max(Some(rotation));
                    doomed.leaving = doomed.leaving.saturating_add(count);
                }
            }
        }
        doomed.grant = whose.flatten().filter(|_| one_grant);
        doomed
    }
}

impl Kernel {
    /// Begins one rotation of what is doomed and settled, if there is any. The last rotation to wait for.
    pub(super) fn rotate(
        &mut self,
        region: RegionKey,
        doomed: &Doomed,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Option<RotationId> {
        let row = self.regions.get_mut(region)?;
        if doomed.segments.is_empty() {
            return doomed.under_way;
        }
        self.last_rotation += 1;
        let rotation = RotationId(self.last_rotation);
        for &index in &doomed.segments {
            // It needed room before and needs it still: exposures that can end are what dooms a segment.
            let segment = &mut row.segments[index as usize];
            segment.state = SegmentState::Rotating(rotation);
            segment.fresh = false;
            // Whoever still had to fetch its file is promised the next one when that is there.
            segment.promised = false;
        }
        effects.push(Effect::Rotate {
            region,
            lease: row.lease,
            rotation,
            segments: doomed.segments.clone(),
            grant: doomed.grant,
            cause,
            mappings: doomed.mappings,
        });
        self.index_exposures(region);
        Some(rotation)
    }

    /// A deadline of exposures passed: their segments are rotated, all in one. Their rights, where they are still
    /// open, end by deadlines of their own.
    pub(super) fn expire_exposures(&mut self, now: BootNanos, region: RegionKey, effects: &mut Vec<Effect>) {
        let Some(row) = self.regions.get_mut(region) else { return };
        row.exposure_due = None; // taken from the index by the caller
        if row.deadline <= now || !row.pinned {
            // The region's own end is due in this very tick; or nothing less than it takes a mapping out.
            self.end_region(region, EndCause::Expired, effects);
            return;
        }
        let doomed = row.doomed(|_, exposure| exposure.until.is_some_and(|until| until <= now));
        if doomed.segments.is_empty() {
            self.index_exposures(region);
        } else {
            self.rotate(region, &doomed, EndCause::Expired, effects);
        }
    }

    /// The bytes of a fresh file enter the books, if the pool has them at present.
    ///
    /// It has them whenever no other fresh or replaced file is in the books: that is what the headroom is for.
    pub(super) fn fresh(&mut self, region: RegionKey, index: u32) -> Result<Answer> {
        let length = self.rotating(region, index, false)?.len();
        let Some(committed) =
            self.committed_bytes.checked_add(length).filter(|&sum| sum <= self.config.pool_bytes)
        else {
            return Ok(Answer::Wait);
        };
        self.committed_bytes = committed;
        self.rotating_bytes += length;
        if let Some(row) = self.regions.get_mut(region) {
            row.rotating_bytes += length;
        }
        self.change_segment(region, index, |segment| segment.fresh = true);
        Ok(Answer::Granted)
    }

    /// The fresh file is the segment's. From here on it is exposed to nobody, and promised to everybody who maps the
    /// segment and may go on.
    pub(super) fn rotated(&mut self, region: RegionKey, index: u32) -> Result<Answer> {
        let range = self.rotating(region, index, true)?;
        let row = self.regions.get_mut(region).ok_or(NOT_ROTATING)?;
        row.rotations = row.rotations.saturating_add(1);
        let (mut survivors, mut promised) = (Vec::new(), false);
        for &open in &row.opens {
            let Some(right) = self.opens.get(open) else { continue };
            if right.handed_out && right.path == Path::Mapped && right.range.contains(range) {
                survivors.push(Survivor { open, session: right.session });
                promised |= !right.follows_region;
            }
        }
        let mut generation = 0;
        self.change_segment(region, index, |segment| {
            // A descriptor is asked for and handed out within moments, never four billion rotations apart.
            generation = segment.generation.wrapping_add(1).max(1);
            *segment = SegmentRow { generation, promised, ..SegmentRow::new() };
        });
        Ok(Answer::Rotated { generation, survivors })
    }

    /// Bytes of a replaced file, or of a fresh one that came too late, leave the books.
    pub(super) fn spent(&mut self, region: RegionKey, bytes: u64) -> Result<Answer> {
        let row = self.regions.get_mut(region).ok_or(NOT_ROTATING)?;
        row.rotating_bytes = row.rotating_bytes.checked_sub(bytes).ok_or(NOT_ROTATING)?;
        self.rotating_bytes -= bytes;
        self.committed_bytes -= bytes;
        Ok(Answer::Done)
    }

    /// Bytes of a replaced file stay in the books as kept. They are not the region's any more, which may end and be
    /// forgotten meanwhile, and count as a region's do towards the room for rotations.
    pub(super) fn kept(&mut self, region: RegionKey, bytes: u64) -> Result<Answer> {
        let fixed = (self.committed_bytes - self.rotating_bytes)
            .checked_add(bytes)
            .and_then(|sum| sum.checked_add(self.headroom.bytes()));
        if fixed.is_none_or(|sum| sum > self.config.pool_bytes) {
            return Err(Error::new(Code::NoMemory, "the pool needs these bytes for the next rotation"));
        }
        let row = self.regions.get_mut(region).ok_or(NOT_ROTATING)?;
        row.rotating_bytes = row.rotating_bytes.checked_sub(bytes).ok_or(NOT_ROTATING)?;
        self.rotating_bytes -= bytes;
        self.kept_bytes += bytes;
        Ok(Answer::Done)
    }

    /// Kept bytes leave the books.
    pub(super) fn unkept(&mut self, bytes: u64) -> Result<Answer> {
        self.kept_bytes = self
            .kept_bytes
            .checked_sub(bytes)
            .ok_or(Error::new(Code::Internal, "more was given back than was kept"))?;
        self.committed_bytes -= bytes;
        Ok(Answer::Done)
    }

    /// The bytes of a segment that is rotating, whose fresh file is in the books or not.
    fn rotating(&self, region: RegionKey, index: u32, fresh: bool) -> Result<ByteRange> {
        let row = self.regions.get(region).ok_or(NOT_ROTATING)?;
        if let RegionState::Ending(cause) = row.state {
            return Err(super::take::ended(cause));
        }
        let segment = row.segments.get(index as usize).ok_or(NOT_ROTATING)?;
        match segment.state {
            SegmentState::Rotating(_) if segment.fresh == fresh => row.segment(index).ok_or(NOT_ROTATING),
            SegmentState::Rotating(_) | SegmentState::Settled => Err(NOT_ROTATING),
        }
    }

    /// Changes a segment and counts it in or out of the headroom.
    pub(super) fn change_segment(
        &mut self,
        region: RegionKey,
        index: u32,
        change: impl FnOnce(&mut SegmentRow),
    ) {
        let Some(row) = self.regions.get_mut(region) else { return };
        let Some(length) = row.segment(index).map(ByteRange::len) else { return };
        let before = row.needs_room(&row.segments[index as usize]);
        change(&mut row.segments[index as usize]);
        match (before, row.needs_room(&row.segments[index as usize])) {
            (false, true) => self.headroom.add(length),
            (true, false) => self.headroom.remove(length),
            (true, true) | (false, false) => {}
        }
    }

    /// Puts the region's first end of an exposure into the index, in place of what was there.
    pub(super) fn index_exposures(&mut self, region: RegionKey) {
        let Some(row) = self.regions.get_mut(region) else { return };
        let first = row.first_due();
        if row.exposure_due == first {
            return;
        }
        if let Some(before) = std::mem::replace(&mut row.exposure_due, first) {
            self.deadlines.remove(&(before, Due::Exposure(region)));
        }
        if let Some(first) = first {
            self.deadlines.insert((first, Due::Exposure(region)));
        }
    }
}

const NOT_ROTATING: Error = Error::new(Code::Internal, "a rotation was reported that is not under way");
