//! The second half of a region's life: release, expiry, revocation and a holder's death, which are one operation
//! with different causes.
//!
//! A region is *ended* by fencing every open right and asking for its memory to be taken back; it is *forgotten*,
//! and its bytes return to the pool, only when the memory is gone. In between nobody can open it and nobody else
//! can have its bytes.

use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId};
use caps::time::{BootNanos, UnixMicros};
use caps::wire::link::Take;
use caps::wire::row::EndCause;

use super::event::{Answer, Effect, SessionId};
use super::grants::Ceiling;
use super::marks::Cut;
use super::owner::Change;
use super::region::{RegionKey, RegionState};
use super::{Due, Kernel};

/// What a client of an ended right is told.
pub(super) const fn ended(cause: EndCause) -> Error {
    match cause {
        EndCause::Expired => Error::new(Code::LeaseExpired, "the lease's time is over"),
        EndCause::NotClaimed => Error::new(
            Code::LeaseExpired,
            "the memory was not ready in the time that a reservation has; try again",
        ),
        EndCause::Released
        | EndCause::Revoked
        | EndCause::HolderExit
        | EndCause::ParentEnded
        | EndCause::NotRecorded
        | EndCause::ProviderLost
        | EndCause::NodeStopped
        | EndCause::Narrowed
        | EndCause::Transfer => Error::new(Code::TokenRevoked, "the lease was taken back"),
    }
}

impl Kernel {
    /// The broker takes a lease or a grant back. Idempotent: what is already gone is [`Answer::Gone`]. Only a change of
    /// the owner can be refused.
    pub(super) fn take(
        &mut self,
        now: BootNanos,
        now_unix: UnixMicros,
        take: Take,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        Ok(match take {
            Take::Lease(lease) => self.take_lease(lease, cause, effects),
            Take::Grant { lease, grant, expires } => {
                self.take_grant(now_unix, lease, grant, expires, cause, effects)
            }
            Take::Narrow { lease, grant, rights, range, expires } => {
                let to = Ceiling { rights, range: Some(range), expires };
                self.take_narrow(now, now_unix, lease, grant, to, cause, effects)
            }
            Take::Marks { lease, marks, grant, range, expires } => {
                let cut = Cut { lease, marks, grant, range, expires };
                self.take_marks(now_unix, &cut, cause, effects)
            }
            Take::Root { lease, root } => self.take_root(lease, root, cause, effects),
            Take::Owner { lease, to, since, until, undoes } => {
                let change = Change { lease, to, since, until, undoes };
                return self.take_owner(now, now_unix, &change, cause, effects);
            }
        })
    }

    pub(super) fn take_lease(
        &mut self,
        lease: LeaseId,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(&region) = self.by_lease.get(&lease) else {
            // Perhaps a claim is still on its way: it comes too late.
            self.ended.insert(lease, cause);
            return Answer::Gone;
        };
        let mappings = self.regions.get(region).map_or(0, |row| row.mappings);
        self.end_region(region, cause, effects);
        Answer::Taking { region, mappings }
    }

    /// The region of a lease of which a part is to be taken; as an error the answer where there is no part: it is gone,
    /// or going as a whole.
    pub(super) fn region_to_part(
        &mut self,
        lease: LeaseId,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> std::result::Result<RegionKey, Answer> {
        let region = *self.by_lease.get(&lease).ok_or(Answer::Gone)?;
        match self.regions.get(region).ok_or(Answer::Gone)?.state {
            RegionState::Ending(_) => Err(self.take_lease(lease, cause, effects)),
            RegionState::Building | RegionState::Live => Ok(region),
        }
    }

    /// Ends one grant's rights. Where its receivers only ever used mediated access, refusing new operations is all;
    /// segments that were handed out under it are rotated. Where that cannot be done or the revocation cannot be
    /// remembered, the whole region is taken back.
    pub(super) fn take_grant(
        &mut self,
        now_unix: UnixMicros,
        lease: LeaseId,
        grant: GrantId,
        expires: UnixMicros,
        cause: EndCause,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let region = match self.region_to_part(lease, cause, effects) {
            Ok(region) => region,
            Err(answer) => return answer,
        };
        let Some(row) = self.regions.get_mut(region) else { return Answer::Gone };
        let capacity = self.config.revocations_per_region_max;
        let remembered = row.grants.revoke(grant, expires, now_unix, capacity);
        let doomed = row.doomed(|_, exposure| exposure.grant == Some(grant));
        if !remembered || (!row.pinned && !doomed.segments.is_empty()) {
            return self.take_lease(lease, cause, effects);
        }
        for open in self.opens_of(region, grant) {
            self.close_open(open, cause, effects);
        }
        let upto = self.rotate(region, &doomed, cause, effects);
        Answer::Fenced { region, upto, mappings: doomed.mappings.saturating_add(doomed.leaving) }
    }

    /// Fences everything open on a region and asks for its memory, once.
    pub(super) fn end_region(&mut self, region: RegionKey, cause: EndCause, effects: &mut Vec<Effect>) {
        let Some(row) = self.regions.get_mut(region) else { return };
        let was = row.state;
        if matches!(was, RegionState::Ending(_)) {
            return;
        }
        for (index, segment) in (0..).zip(&row.segments) {
            if row.needs_room(segment)
                && let Some(range) = row.segment(index)
            {
                self.headroom.remove(range.len());
            }
        }
        row.state = RegionState::Ending(cause);
        self.deadlines.remove(&(row.deadline, Due::Region(region)));
        if let Some(due) = row.exposure_due.take() {
            self.deadlines.remove(&(due, Due::Exposure(region)));
        }
        let (lease, mappings) = (row.lease, row.mappings);
        let opens: Vec<_> = row.opens.iter().copied().collect();
        for open in opens {
            self.close_open(open, cause, effects);
        }
        match was {
            RegionState::Live => effects.push(Effect::TakeBack { region, lease, cause, mappings }),
            // The builder still has the memory in its hands; `created` sees the state and takes it back.
            RegionState::Building | RegionState::Ending(_) => {}
        }
    }

    /// The memory is gone, that of rotations included: the row goes, and the bytes return to the pool.
    pub(super) fn taken(&mut self, region: RegionKey) -> Result<Answer> {
        match self.regions.get(region).map(|row| (row.state, row.rotating_bytes)) {
            Some((RegionState::Ending(_), 0)) => {
                self.forget(region);
                Ok(Answer::Done)
            }
            _ => Err(Error::new(
                Code::Internal,
                "memory of a region that was not ending, or not all of it, was taken back",
            )),
        }
    }

    pub(super) fn forget(&mut self, region: RegionKey) {
        let Some(row) = self.regions.remove(region) else { return };
        self.by_lease.remove(&row.lease);
        if let RegionState::Ending(cause) = row.state {
            self.ended.insert(row.lease, cause);
        }
        self.committed_bytes -= row.bytes;
        self.segments -= row.segments.len();
        if let Some(session) = row.tied_to {
            self.tied_no_more(region, session);
        }
    }

    /// A session is over: what it opened is closed, and the leases tied to it end. A mapping it made may live on in
    /// a forked child, so a region that was ever mapped is still cut when it ends.
    pub(super) fn session_ended(&mut self, session: SessionId, effects: &mut Vec<Effect>) -> Result<Answer> {
        for open in self.by_session.remove(&session).unwrap_or_default() {
            self.close_open(open, EndCause::HolderExit, effects);
        }
        for region in self.tied.remove(&session).unwrap_or_default() {
            self.end_region(region, EndCause::HolderExit, effects);
        }
        Ok(Answer::Done)
    }

    /// Ends all that is due, in the order of deadlines.
    pub(super) fn tick(&mut self, now: BootNanos, effects: &mut Vec<Effect>) -> Result<Answer> {
        while let Some(&(at, due)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, due));
            match due {
                Due::Region(region) => self.end_region(region, EndCause::Expired, effects),
                Due::Exposure(region) => self.expire_exposures(now, region, effects),
                Due::Open(open) => self.expire_open(open, effects),
            }
        }
        Ok(Answer::Done)
    }

    /// A right's own time is over before its region's. What it mapped ends by a deadline of its own.
    fn expire_open(&mut self, open: super::table::Key, effects: &mut Vec<Effect>) {
        let Some(row) = self.opens.get(open) else { return };
        let over = row.grant.filter(|_| row.ends_grant);
        self.close_open(open, EndCause::Expired, effects);
        if let Some(grant) = over {
            effects.push(Effect::GrantEnded { grant, cause: EndCause::Expired });
        }
    }
}
