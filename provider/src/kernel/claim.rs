//! The first half of a region's life: a reservation becomes memory, and memory becomes a lease with a deadline.

use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::wire::link::ClaimTicket;
use caps::wire::row::{EndCause, Lifetime};

use super::event::{Answer, Effect, SessionId};
use super::region::{RegionKey, RegionRow, RegionState};
use super::segment::SegmentRow;
use super::{Due, Kernel};

impl Kernel {
    /// Sets the bytes aside and asks for memory. The books are changed before the memory is touched, so two claims
    /// that each fit and together do not cannot both pass.
    pub(super) fn claim(
        &mut self,
        now: BootNanos,
        now_unix: UnixMicros,
        ticket: ClaimTicket,
        session: Option<SessionId>,
    ) -> Result<Answer> {
        if now_unix >= ticket.claim_by {
            return Err(Error::new(Code::LeaseExpired, "the reservation was not claimed in time"));
        }
        if ticket.bytes == 0 {
            return Err(Error::new(Code::Range, "a region has at least one page"));
        }
        let segments = self.segments_of(&ticket)?;
        if self.by_lease.contains_key(&ticket.lease) {
            return Err(Error::new(Code::Exists, "the reservation was already claimed"));
        }
        if self.ended.contains(ticket.lease) {
            return Err(Error::new(
                Code::LeaseExpired,
                "the reservation was taken back before it was claimed",
            ));
        }
        let tied_to = match (ticket.lifetime, session) {
            (Lifetime::Detached, _) => None,
            (Lifetime::Process, Some(session)) => Some(session),
            (Lifetime::Process, None) => {
                return Err(Error::new(
                    Code::Protocol,
                    "a lease can only be tied to a process at its provider",
                ));
            }
        };
        let committed = self
            .committed_bytes
            .checked_add(ticket.bytes)
            .filter(|sum| {
                sum.checked_add(self.headroom.bytes()).is_some_and(|sum| sum <= self.config.pool_bytes)
            })
            .ok_or(Error::new(Code::NoMemory, "the pool has no room for that many bytes"))?;
        if self.segments + segments > self.config.segments_max {
            return Err(Error::new(Code::Busy, "the provider has its most segments; ask for larger ones"));
        }
        let row = RegionRow {
            lease: ticket.lease,
            region: ticket.region,
            owner: ticket.owner,
            owned_since: UnixMicros(0),
            tried: UnixMicros(0),
            former: None,
            bytes: ticket.bytes,
            segment_bytes: ticket.segment_bytes,
            segments: vec![SegmentRow::new(); segments],
            state: RegionState::Building,
            deadline: now.plus(ticket.ttl),
            tied_to,
            huge_bytes: 0,
            pinned: false,
            opens: Default::default(),
            mappings: 0,
            grants: Default::default(),
            meters: Default::default(),
            marks: Default::default(),
            mapped: Default::default(),
            rotating_bytes: 0,
            rotations: 0,
            exposure_due: None,
            roots: Vec::new(),
        };
        let region = self
            .regions
            .insert(row)
            .map_err(|_| Error::new(Code::Busy, "the provider's region table is full"))?;
        self.by_lease.insert(ticket.lease, region);
        self.committed_bytes = committed;
        self.segments += segments;
        if let Some(session) = tied_to {
            self.tied.entry(session).or_default().insert(region);
        }
        Ok(Answer::Build {
            region,
            bytes: ticket.bytes,
            segment_bytes: ticket.segment_bytes,
            deadline: now.plus(ticket.ttl),
        })
    }

    /// How many segments a region gets.
    fn segments_of(&self, ticket: &ClaimTicket) -> Result<usize> {
        let (bytes, segment_bytes) = (ticket.bytes, ticket.segment_bytes);
        if segment_bytes != bytes && !(segment_bytes < bytes && segment_bytes.is_power_of_two()) {
            return Err(Error::new(
                Code::Range,
                "a segment is the whole region, or a power of two of bytes below it",
            ));
        }
        usize::try_from(bytes.div_ceil(segment_bytes))
            .ok()
            .filter(|&segments| segments <= self.config.segments_per_region_max)
            .ok_or(Error::new(
                Code::Range,
                "a region has no more than its most segments; ask for larger ones",
            ))
    }

    /// The memory is ready: the lease lives. Its deadline was fixed at the claim, so a slow build costs the lease's
    /// time and not the pool's. If the client died or the broker took it back meanwhile, it ends at once.
    pub(super) fn created(
        &mut self,
        now: BootNanos,
        region: RegionKey,
        huge_bytes: u64,
        pinned: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        let row = self.regions.get_mut(region).ok_or(not_building())?;
        (row.huge_bytes, row.pinned) = (huge_bytes, pinned);
        match row.state {
            RegionState::Building => {
                row.state = RegionState::Live;
                self.deadlines.insert((row.deadline, Due::Region(region)));
                if row.deadline <= now {
                    self.end_region(region, EndCause::Expired, effects);
                    return Err(Error::new(Code::LeaseExpired, "the lease ended while its memory was built"));
                }
                Ok(Answer::Done)
            }
            RegionState::Ending(cause) => {
                let take_back = Effect::TakeBack { region, lease: row.lease, cause, mappings: 0 };
                effects.push(take_back);
                Err(super::take::ended(cause))
            }
            RegionState::Live => Err(not_building()),
        }
    }

    /// The memory could not be had: the bytes go back and nothing was ever there.
    pub(super) fn create_failed(&mut self, region: RegionKey) -> Result<Answer> {
        match self.regions.get(region).map(|row| row.state) {
            Some(RegionState::Building | RegionState::Ending(_)) => {
                self.forget(region);
                Ok(Answer::Done)
            }
            Some(RegionState::Live) | None => Err(not_building()),
        }
    }

    /// Moves a lease's end to `ttl` from now.
    ///
    /// Refused while somebody may map the region until an earlier end than the new one and it cannot be rotated: that
    /// mapping could only be cut together with everybody else's.
    pub(super) fn renew(
        &mut self,
        now: BootNanos,
        lease: LeaseId,
        ttl: Micros,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        let region = self.live(lease)?;
        let deadline = now.plus(ttl);
        let row = self.regions.get(region).ok_or(not_building())?;
        if row.deadline <= now {
            // Due, and the tick has not come yet: a renewal moves an end, it does not undo one.
            self.tick(now, effects)?;
            return Err(super::take::ended(EndCause::Expired));
        }
        let cut_short = !row.pinned && row.exposure_due.is_some_and(|due| due < deadline);
        if cut_short {
            return Err(Error::new(
                Code::ShareOrder,
                "a receiver maps this region until its present end; revoke that grant, or lease anew",
            ));
        }
        let row = self.regions.get_mut(region).ok_or(not_building())?;
        self.deadlines.remove(&(row.deadline, Due::Region(region)));
        row.deadline = deadline;
        self.deadlines.insert((deadline, Due::Region(region)));
        // Rights that follow the region move with it; the others may come nearer (a renewal can shorten) but never
        // move away.
        let opens: Vec<_> = row.opens.iter().copied().collect();
        for open in opens {
            let Some(right) = self.opens.get_mut(open) else { continue };
            if right.follows_region {
                right.deadline = deadline;
            } else if deadline < right.deadline {
                self.deadlines.remove(&(right.deadline, Due::Open(open)));
                right.deadline = deadline;
                self.deadlines.insert((deadline, Due::Open(open)));
            }
        }
        Ok(Answer::Renewed { region, deadline })
    }
}

const fn not_building() -> Error {
    Error::new(Code::Internal, "memory was reported for a region that is not being built")
}
