//! Handing out: the moment from which ending a right takes a cut.

use caps::error::{Code, Error, Result};
use caps::rights::Rights;
use caps::time::BootNanos;
use caps::wire::request::Path;

use super::event::{Answer, Effect};
use super::segment::{SegmentState, earlier};
use super::table::Key;
use super::{Due, Kernel};

impl Kernel {
    /// Records a descriptor before it is sent: sent and not recorded would be a mapping that nobody cuts.
    ///
    /// Everything that a right was judged by may have changed since it was opened, so all of it is judged again: its
    /// time, its bytes, its access, the segment's file and the pool's room.
    pub(super) fn handed_out(
        &mut self,
        now: BootNanos,
        open: Key,
        index: u32,
        generation: u32,
        write: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        const ENDED: Error = Error::new(Code::Revoked, "the right ended while it was opened");
        let right = self.opens.get(open).ok_or(ENDED)?;
        if right.deadline <= now {
            // Due, and the tick has not come yet: the deadline decides, not the tick.
            self.tick(now, effects)?;
            return Err(ENDED);
        }
        let (region, grant) = (right.region, right.grant);
        let until = (!right.follows_region).then_some(right.deadline);
        let row = self.regions.get_mut(region).ok_or(ENDED)?;
        let range = row
            .segment(index)
            .filter(|&range| right.path == Path::Mapped && right.range.contains(range))
            .ok_or(Error::new(Code::Range, "the right maps no such segment"))?;
        let segment = &row.segments[index as usize];
        let settled = segment.state == SegmentState::Settled && segment.generation == generation;
        if !settled || (write && !right.rights.contains(Rights::WRITE)) {
            return Ok(Answer::Stale);
        }
        if row.pinned && (grant.is_some() || until.is_some()) {
            self.has_room(range.len())?;
        }
        let marks_max = self.config.marks_per_region_max;
        let (capacity, mut added) = (self.config.exposures_max, false);
        self.change_segment(region, index, |segment| {
            added = segment.exposed.add(grant, write, until, capacity);
        });
        if !added {
            // Merging it into the row of another grant would be as safe, and would let whoever fills the list make
            // everybody else's mappings come and go with its own.
            return Err(Error::new(Code::Quota, "the segment is mapped under as many grants as it may be"));
        }
        let (row, right) = (self.regions.get_mut(region), self.opens.get_mut(open));
        let (row, right) = row.zip(right).ok_or(ENDED)?;
        if !std::mem::replace(&mut right.handed_out, true) {
            row.mappings += 1;
            row.mapped.note(&right.marks, right.grant, right.follows_region, marks_max);
            if !row.roots.contains(&right.root) {
                row.roots.push(right.root);
            }
        }
        let due = earlier(row.exposure_due, until);
        if due != row.exposure_due {
            if let Some(before) = std::mem::replace(&mut row.exposure_due, due) {
                self.deadlines.remove(&(before, Due::Exposure(region)));
            }
            self.deadlines.extend(due.map(|due| (due, Due::Exposure(region))));
        }
        Ok(Answer::Done)
    }

    /// Whether the pool can keep room for the rotation of a segment of `length`. What rotations under way have in the
    /// books comes back, so it does not count.
    pub(super) fn has_room(&self, length: u64) -> Result<()> {
        let regions = self.committed_bytes - self.rotating_bytes;
        let kept = self.headroom.bytes().max(length);
        match regions.checked_add(kept) {
            Some(sum) if sum <= self.config.pool_bytes => Ok(()),
            _ => Err(Error::new(
                Code::NoMemory,
                "the pool has no room left to end a mapping among several; use reads and writes, or smaller segments",
            )),
        }
    }
}
