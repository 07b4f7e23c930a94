//! Narrowing a grant: fewer rights, fewer bytes or less time from now on, and the rest lives on.
//!
//! What is open is narrowed in place; what cannot go on is closed as by a revoke. A mapping does not shrink, so
//! segments that were handed out with more than what is left are rotated, and whoever still may gets the fresh file
//! with what it still may.

use caps::id::{GrantId, LeaseId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, UnixMicros};
use caps::wire::request::Path;
use caps::wire::row::EndCause;

use super::event::{Answer, Effect};
use super::grants::{Ceiling, Limit};
use super::region::{RegionKey, RegionRow};
use super::segment::{Exposure, SegmentState};
use super::table::Key;
use super::{Due, Kernel, OpenRow};

impl Ceiling {
    /// Whether a mapping of a segment stays within it. Every mapping can be read.
    pub(super) fn covers(&self, segment: ByteRange, write: bool) -> bool {
        let needed = if write { Rights::READ_WRITE } else { Rights::READ };
        self.rights.contains(needed) && self.range.is_some_and(|range| range.contains(segment))
    }

    /// What is left of an open right, if anything is.
    fn left_of(&self, right: &OpenRow, row: &RegionRow, end: Option<BootNanos>) -> Option<OpenRow> {
        let rights = right.rights.intersect(self.rights);
        let range = right.range.intersect(self.range?)?;
        let deadline = right.deadline.min(end?);
        // Of what ends earlier now the grant is over then, too.
        let ends_grant = right.ends_grant || deadline < right.deadline;
        let left = OpenRow { rights, range, deadline, ends_grant, ..right.clone() };
        if rights.is_empty() {
            return None;
        }
        if right.path == Path::Mapped && left != *right {
            // Of what cannot be rotated, only what was handed out whole already may go on until it ends: with the
            // whole region.
            let possible = row.pinned || (right.handed_out && range == right.range);
            if !possible || !rights.contains(Rights::READ) || !row.on_borders(range) {
                return None;
            }
        }
        Some(left)
    }
}

impl Kernel {
    /// Narrows one grant's rights. Where that cannot be remembered or a mapping cannot be ended alone, the whole
    /// region is taken.
    #[allow(clippy::too_many_arguments)] // the event, the two clocks and the effects
    pub(super) fn take_narrow(
        &mut self,
        now: BootNanos,
        now_unix: UnixMicros,
        lease: LeaseId,
        grant: GrantId,
        to: Ceiling,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let region = match self.region_to_part(lease, cause, effects) {
            Ok(region) => region,
            Err(answer) => return answer,
        };
        let Some(row) = self.regions.get_mut(region) else { return Answer::Gone };
        let capacity = self.config.revocations_per_region_max;
        let ceiling = match row.grants.narrow(grant, to, now_unix, capacity) {
            Some(Limit::Within(ceiling)) => ceiling,
            // It was revoked before: nothing of it is open, and what it had mapped is on its way out.
            Some(Limit::Revoked | Limit::Whole) => Ceiling { range: None, ..to },
            None => return self.take_lease(lease, cause, effects),
        };
        let left = ceiling.expires.since(now_unix);
        let end = (left.0 > 0).then(|| now.plus(left));
        let over = |segment: ByteRange, exposure: &Exposure| {
            exposure.grant == Some(grant) && (end.is_none() || !ceiling.covers(segment, exposure.write))
        };
        let doomed = row.doomed(over);
        if !row.pinned && !doomed.segments.is_empty() {
            return self.take_lease(lease, cause, effects);
        }
        for open in self.opens_of(region, grant) {
            self.narrow_open(open, &ceiling, end, cause, effects);
        }
        let upto = self.rotate(region, &doomed, cause, effects);
        if let Some(end) = end {
            self.shorten_exposures(region, grant, end);
        }
        Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) }
    }

    /// Every open right under a grant of a region.
    pub(super) fn opens_of(&self, region: RegionKey, grant: GrantId) -> Vec<Key> {
        let Some(row) = self.regions.get(region) else { return Vec::new() };
        let mine = |open: &Key| self.opens.get(*open).is_some_and(|right| right.grant == Some(grant));
        row.opens.iter().copied().filter(mine).collect()
    }

    fn narrow_open(
        &mut self,
        open: Key,
        ceiling: &Ceiling,
        end: Option<BootNanos>,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) {
        let Some(right) = self.opens.get_mut(open) else { return };
        let Some(row) = self.regions.get(right.region) else { return };
        let Some(left) = ceiling.left_of(right, row, end) else {
            return self.close_open(open, cause, effects);
        };
        if left == *right {
            return;
        }
        // Rights under a grant never follow their region: each has a deadline of its own.
        self.deadlines.remove(&(right.deadline, Due::Open(open)));
        self.deadlines.insert((left.deadline, Due::Open(open)));
        *right = left;
        effects.push(Effect::Narrowed { open });
    }

    /// What a grant maps and keeps ends at `end`, if it did not end before.
    fn shorten_exposures(&mut self, region: RegionKey, grant: GrantId, end: BootNanos) {
        let Some(row) = self.regions.get_mut(region) else { return };
        for segment in row.segments.iter_mut().filter(|segment| segment.state == SegmentState::Settled) {
            segment.exposed.shorten(grant, end);
        }
        self.index_exposures(region);
    }
}
