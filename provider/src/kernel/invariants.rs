//! What holds after every step. Checked by tests and fuzzers after each event; there is no switch that turns it off.

use std::collections::HashMap;

use super::grants::Limit;
use super::headroom::Headroom;
use super::region::{RegionKey, RegionRow, RegionState};
use super::segment::{Exposure, SegmentState, earlier};
use super::{Due, Kernel};
use caps::id::GrantId;
use caps::time::UnixMicros;
use caps::wire::request::Path;

impl Kernel {
    /// Every invariant, in words and code. `now` is the wall time of the last step: what is revoked and narrowed is
    /// known until then.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check_invariants(&self, now: UnixMicros) -> Result<(), &'static str> {
        let (mut bytes, mut rotating, mut segments) = (0, 0, 0);
        let mut headroom = Headroom::default();
        for (key, row) in self.regions.iter() {
            bytes += row.bytes;
            rotating += row.rotating_bytes;
            segments += row.segments.len();
            self.check_region(key, row)?;
            self.check_segments(row, now, &mut headroom)?;
        }
        let kept = self.kept_bytes;
        ensure(
            bytes + rotating + kept == self.committed_bytes,
            "the ledger is the sum of the regions and of what is kept",
        )?;
        ensure(rotating == self.rotating_bytes, "and what rotates of it the sum of their rotations")?;
        ensure(self.committed_bytes <= self.config.pool_bytes, "no more is committed than the pool has")?;
        ensure(headroom.lengths() == self.headroom.lengths(), "the headroom is that of the segments")?;
        ensure(
            bytes + kept + headroom.bytes() <= self.config.pool_bytes,
            "the largest segment that may have to be rotated has room",
        )?;
        ensure(segments == self.segments, "every segment is counted")?;
        ensure(segments <= self.config.segments_max, "and there are no more than there may be")?;
        ensure(self.by_lease.len() == self.regions.len(), "every lease has one region")?;
        self.check_opens(now)
    }

    fn check_region(&self, key: RegionKey, row: &RegionRow) -> Result<(), &'static str> {
        ensure(self.by_lease.get(&row.lease) == Some(&key), "every region is found by its lease")?;
        let live = row.state == RegionState::Live;
        ensure(
            self.deadlines.contains(&(row.deadline, Due::Region(key))) == live,
            "exactly the live regions have a deadline",
        )?;
        ensure(live || row.opens.is_empty(), "nobody holds a right to a region that is not live")?;
        ensure(
            row.exposure_due == row.first_due().filter(|_| live),
            "the first end of an exposure is known while the region lives",
        )?;
        let due = |&(at, due): &_| due == Due::Exposure(key) && Some(at) != row.exposure_due;
        ensure(!self.deadlines.iter().any(due), "and no other is in the index")?;
        ensure(
            row.exposure_due.is_none_or(|at| self.deadlines.contains(&(at, Due::Exposure(key)))),
            "and it is in the index",
        )?;
        ensure(
            row.grants.len() <= self.config.revocations_per_region_max,
            "no more grants are remembered than may be",
        )?;
        ensure(row.meters.are_shared(self.config.meters_room()), "nobody's meters are more than its share")?;
        let marks_max = self.config.marks_per_region_max;
        ensure(row.marks.len() <= marks_max, "no more marks are remembered than may be")?;
        ensure(row.mapped.len() <= 2 * marks_max, "nor of what was mapped")?;
        let mut handed_out = 0;
        for &open in &row.opens {
            let open = self.opens.get(open).ok_or("a region lists only open rights")?;
            ensure(open.region == key, "an open right belongs to one region")?;
            ensure(open.range.end() <= row.bytes, "no right reaches past its region")?;
            ensure(open.deadline <= row.deadline, "no right outlives its region")?;
            ensure(open.grant.is_some() || open.payer == row.owner, "what is open came from the owner")?;
            let mapped = open.path == Path::Mapped;
            ensure(mapped || !open.handed_out, "only mapped rights are handed out")?;
            ensure(!mapped || row.on_borders(open.range), "a mapped right falls on segment borders")?;
            let noted = open.marks.iter().all(|&mark| row.mapped.may_have(mark, open.grant));
            ensure(noted || !open.handed_out, "what a token maps can be found by its marks")?;
            handed_out += u32::from(open.handed_out);
        }
        ensure(handed_out == row.mappings, "the count of mappings is the count of rights handed out")?;
        if let Some(session) = row.tied_to {
            let listed = self.tied.get(&session).is_some_and(|tied| tied.contains(&key));
            ensure(listed || !live, "a live region tied to a session is listed there")?;
        }
        Ok(())
    }

    fn check_segments(
        &self,
        row: &RegionRow,
        now: UnixMicros,
        headroom: &mut Headroom,
    ) -> Result<(), &'static str> {
        let live = row.state == RegionState::Live;
        let mut fresh = 0;
        for (index, segment) in (0..).zip(&row.segments) {
            let range = row.segment(index).ok_or("a segment has bytes")?;
            let rows = segment.exposed.rows();
            ensure(segment.generation > 0, "generations count from 1")?;
            ensure(rows.len() <= self.config.exposures_max, "exposures are bounded")?;
            let key = |row: &Exposure| (row.grant, row.write);
            ensure(rows.is_sorted_by(|a, b| key(a) < key(b)), "one exposure for each grant and access")?;
            let due = rows.iter().fold(None, |due, row| earlier(due, row.until));
            ensure(segment.exposed.due() == due, "a segment knows the first end of its exposures")?;
            match segment.state {
                SegmentState::Rotating(rotation) => {
                    ensure(row.pinned && !segment.promised, "only pinned memory is rotated")?;
                    ensure((1..=self.last_rotation).contains(&rotation.0), "rotations are numbered")?;
                    fresh += if segment.fresh && live { range.len() } else { 0 };
                }
                SegmentState::Settled => {
                    ensure(!segment.fresh, "only a rotating segment has a fresh file")?;
                    for exposure in rows.iter().filter(|_| live) {
                        let allowed = exposure.grant.is_none_or(|grant| match row.grants.limit(grant, now) {
                            Limit::Whole => true,
                            Limit::Within(ceiling) => ceiling.covers(range, exposure.write),
                            Limit::Revoked => false,
                        });
                        ensure(allowed, "what a grant may no longer map is rotated")?;
                    }
                }
            }
            if row.needs_room(segment) {
                headroom.add(range.len());
            }
        }
        ensure(fresh <= row.rotating_bytes, "a fresh file is in the books")
    }

    fn check_opens(&self, now: UnixMicros) -> Result<(), &'static str> {
        for (key, open) in self.opens.iter() {
            let region = self.regions.get(open.region).ok_or("an open right has a region")?;
            ensure(region.opens.contains(&key), "an open right is listed by its region")?;
            let listed = self.by_session.get(&open.session).is_some_and(|opens| opens.contains(&key));
            ensure(listed, "an open right is listed by its session")?;
            ensure(
                self.deadlines.contains(&(open.deadline, Due::Open(key))) != open.follows_region,
                "exactly the rights that do not follow their region have a deadline of their own",
            )?;
            ensure(!region.marks.refuse(&open.marks, now), "nothing is open by a token that was taken back")?;
            let limit = |grant: GrantId| region.grants.limit(grant, now);
            let allowed = open.grant.map_or(Limit::Whole, limit);
            ensure(allowed != Limit::Revoked, "nothing is open under a revoked grant")?;
            if let Limit::Within(ceiling) = allowed {
                let within = ceiling.rights.contains(open.rights)
                    && ceiling.range.is_some_and(|range| range.contains(open.range));
                ensure(within, "nothing is open beyond what its grant was narrowed to")?;
            }
        }
        let mut openings = HashMap::<_, (u32, u32)>::new();
        for (_, open) in self.opens.iter() {
            let (opens, mappings) = openings.entry(open.payer).or_default();
            (*opens, *mappings) = (*opens + 1, *mappings + u32::from(open.path == Path::Mapped));
        }
        let books = self.openings.iter().map(|(&payer, open)| (payer, (open.opens(), open.mappings())));
        ensure(openings == books.collect(), "every open right is in the books of who pays for it, once")?;
        let listed: usize = self.by_session.values().map(std::collections::BTreeSet::len).sum();
        ensure(listed == self.opens.len(), "sessions list open rights and nothing else")
    }
}

fn ensure(holds: bool, rule: &'static str) -> Result<(), &'static str> {
    holds.then_some(()).ok_or(rule)
}
