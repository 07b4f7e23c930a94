//! A region goes over to another owner, with the bytes that are in it.
//!
//! All that came from the former owner ends as by a revoke: every right is closed, and every segment that was handed out
//! is rotated, with no survivors. What can be opened afterwards is decided by the token's time: the new owner's begins
//! after that of every token there was, so a token that was kept, narrowed, delegated or granted before is refused
//! without a list of them, and is still refused when the lease comes back to who had it first.
//!
//! It is no revoke: where there is no room to rotate, it is refused, and nothing has changed.

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey};
use caps::time::{BootNanos, UnixMicros};
use caps::wire::row::EndCause;

use super::Kernel;
use super::event::{Answer, Effect, OpenRequest};
use super::region::RegionRow;
use super::segment::SegmentState;

/// Who is to own a region, and from when on.
pub(super) struct Change {
    pub(super) lease: LeaseId,
    pub(super) to: PrincipalKey,
    /// Tokens whose time began earlier are the former owner's.
    pub(super) since: UnixMicros,
    /// It is refused from this time on.
    pub(super) until: UnixMicros,
    /// Only from an owner whose time began then.
    pub(super) undoes: Option<UnixMicros>,
}

impl RegionRow {
    /// Whether a token is of the present owner's time, and, where it is no grant's, came from it.
    pub(super) fn is_of_owner(&self, request: &OpenRequest) -> Result<()> {
        let foreign = request.grant.is_none() && request.first_holder != self.owner;
        if foreign || request.not_before < self.owned_since {
            return Err(Error::new(
                Code::TokenRevoked,
                "the lease has gone over to another owner since the token was minted",
            ));
        }
        Ok(())
    }
}

impl Kernel {
    /// Changes a region's owner. To be called again is no error, nor is undoing what another change has undone: what is
    /// open stays, and what is still being taken from a former owner is waited for.
    pub(super) fn take_owner(
        &mut self,
        now: BootNanos,
        now_unix: UnixMicros,
        change: &Change,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        const UNKNOWN: Error = Error::new(Code::Internal, "a live lease has no region");
        let region = self.live(change.lease)?;
        let row = self.regions.get(region).ok_or(UNKNOWN)?;
        let done = (row.owner, row.owned_since) == (change.to, change.since);
        if done || change.undoes.is_some_and(|attempt| attempt != row.owned_since) {
            let upto = row.segments.iter().filter_map(|segment| match segment.state {
                SegmentState::Rotating(rotation) => Some(rotation),
                SegmentState::Settled => None,
            });
            return Ok(Answer::Fenced { region, upto: upto.max(), mappings: 0 });
        }
        if now_unix >= change.until {
            return Err(Error::new(Code::LeaseExpired, "the lease was not handed over in time"));
        }
        if row.deadline <= now {
            // Due, and the tick has not come yet: the deadline decides, not the tick.
            self.tick(now, effects)?;
            return Err(super::take::ended(EndCause::Expired));
        }
        let doomed = row.doomed(|_, _| true);
        let longest = doomed.segments.iter().filter_map(|&index| row.segment(index)).map(|range| range.len());
        if let Some(longest) = longest.max() {
            if !row.pinned {
                return Err(Error::new(
                    Code::NoMemory,
                    "the lease is mapped and not wholly pinned: it cannot be given fresh memory",
                ));
            }
            self.has_room(longest)?;
        }
        // From here on nothing is refused.
        for open in row.opens.iter().copied().collect::<Vec<_>>() {
            self.close_open(open, cause, effects);
        }
        let segments = self.regions.get(region).map_or(0, |row| row.segments.len());
        for index in 0..segments as u32 {
            // From here on what was handed out needs room, as every segment does that is about to be rotated; and what
            // lived as long as the region does so no longer.
            let settled = doomed.segments.contains(&index);
            self.change_segment(region, index, |segment| {
                segment.promised |= settled;
                segment.exposed.end(now);
            });
        }
        let marks_max = self.config.marks_per_region_max;
        let row = self.regions.get_mut(region).ok_or(UNKNOWN)?;
        (row.owner, row.owned_since) = (change.to, change.since);
        row.mapped.lasts_no_longer(marks_max);
        // Whether it ends with the new owner's process is the broker's to see to: the change may yet come to nothing.
        if let Some(session) = row.tied_to.take()
            && let Some(tied) = self.tied.get_mut(&session)
        {
            tied.remove(&region);
            if tied.is_empty() {
                self.tied.remove(&session);
            }
        }
        let upto = self.rotate(region, &doomed, cause, effects);
        Ok(Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) })
    }
}
