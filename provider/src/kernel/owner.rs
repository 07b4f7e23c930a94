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
use super::event::{Answer, Effect, OpenRequest, SessionId};
use super::grants::Grants;
use super::marks::Marks;
use super::meters::Meters;
use super::region::{RegionKey, RegionRow, RegionState};
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

/// What was the former owner's and is needed again only if the change is undone. Its tokens are refused by their time,
/// so the new owner begins with empty tables: what others made full is nothing of its.
#[derive(Clone, Debug)]
pub(super) struct Former {
    /// The time of the change that put it aside: whoever undoes that one gets it back.
    attempt: UnixMicros,
    grants: Grants,
    marks: Marks,
    meters: Meters,
    tied_to: Option<SessionId>,
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

const UNKNOWN: Error = Error::new(Code::Internal, "a live lease has no region");

impl Kernel {
    /// Whose a live lease's region is, and since when.
    #[must_use]
    pub fn owned(&self, lease: LeaseId) -> Option<(RegionKey, PrincipalKey, UnixMicros)> {
        let &key = self.by_lease.get(&lease)?;
        let row = self.regions.get(key).filter(|row| row.state == RegionState::Live)?;
        Some((key, row.owner, row.owned_since))
    }

    /// Changes a region's owner. To be called again is no error, nor is undoing what another change has undone: what is
    /// open stays, and what is still being taken from a former owner is waited for. Giving it once more after it was
    /// undone, or after another change, is refused: the broker gives each change a later time than all before.
    pub(super) fn take_owner(
        &mut self,
        now: BootNanos,
        now_unix: UnixMicros,
        change: &Change,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        let region = self.live(change.lease)?;
        let row = self.regions.get_mut(region).ok_or(UNKNOWN)?;
        let done = (row.owner, row.owned_since) == (change.to, change.since);
        let late = match change.undoes {
            None if !done && change.since <= row.tried => {
                return Err(Error::new(
                    Code::TokenRevoked,
                    "a later change of the owner has come before, or this one was undone",
                ));
            }
            None => false,
            Some(attempt) => {
                // If it comes only now, it comes too late.
                row.tried = row.tried.max(attempt);
                row.former.as_ref().is_none_or(|former| former.attempt != attempt)
            }
        };
        if done || late {
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
        let (pinned, longest) = (row.pinned, row.longest(&doomed.segments));
        if let Some(longest) = longest {
            if !pinned {
                return Err(Error::new(
                    Code::NoMemory,
                    "the lease is mapped and not wholly pinned: it cannot be given fresh memory",
                ));
            }
            self.has_room(longest)?;
        }
        // From here on nothing is refused.
        let row = self.regions.get(region).ok_or(UNKNOWN)?;
        for open in row.opens.iter().copied().collect::<Vec<_>>() {
            self.close_open(open, cause, effects);
        }
        self.promise_room(region, &doomed.segments);
        let segments = self.regions.get(region).map_or(0, |row| row.segments.len());
        for index in 0..segments as u32 {
            // What lived as long as the region does so no longer.
            self.change_segment(region, index, |segment| segment.exposed.end(now));
        }
        let tied_to = self.untie(region);
        if !self.change_tables(region, tied_to, change, now_unix) {
            // What was revoked meanwhile must not come to life again.
            return Ok(self.take_lease(change.lease, cause, effects));
        }
        let upto = self.rotate(region, &doomed, cause, effects);
        Ok(Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) })
    }

    /// Gives a region its new owner and the tables that are this one's: empty ones, or those that were put aside with
    /// what was revoked since. `false` if there is no room for that.
    fn change_tables(
        &mut self,
        region: RegionKey,
        tied_to: Option<SessionId>,
        change: &Change,
        now: UnixMicros,
    ) -> bool {
        let (grants_max, marks_max) =
            (self.config.revocations_per_region_max, self.config.marks_per_region_max);
        let Some(row) = self.regions.get_mut(region) else { return false };
        (row.owner, row.owned_since) = (change.to, change.since);
        row.tried = row.tried.max(change.since);
        row.mapped.lasts_no_longer(marks_max);
        let grants = std::mem::take(&mut row.grants);
        let marks = std::mem::take(&mut row.marks);
        let meters = std::mem::take(&mut row.meters);
        if change.undoes.is_none() {
            // Whether it ends with the new owner's process is the broker's to see to, which knows whose session that is.
            row.former = Some(Former { attempt: change.since, grants, marks, meters, tied_to });
            return true;
        }
        let Some(former) = row.former.take() else { return false };
        (row.grants, row.marks, row.meters) = (former.grants, former.marks, former.meters);
        // A session that has ended meanwhile ties nothing: the broker ends the lease, as it was still the session's.
        row.tied_to = former.tied_to;
        let kept = row.grants.add(grants, now, grants_max) && row.marks.add(marks, now, marks_max);
        if let Some(session) = former.tied_to {
            self.tied.entry(session).or_default().insert(region);
        }
        kept
    }

    /// A region ends with no session any more. Returns which it was.
    pub(super) fn untie(&mut self, region: RegionKey) -> Option<SessionId> {
        let session = self.regions.get_mut(region)?.tied_to.take()?;
        self.tied_no_more(region, session);
        Some(session)
    }

    /// Takes a region out of the index of what ends with a session.
    pub(super) fn tied_no_more(&mut self, region: RegionKey, session: SessionId) {
        if let Some(tied) = self.tied.get_mut(&session) {
            tied.remove(&region);
            if tied.is_empty() {
                self.tied.remove(&session);
            }
        }
    }
}
