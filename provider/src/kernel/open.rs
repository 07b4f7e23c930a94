//! Rights that sessions opened, and by which path each may be used.

use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId, PrincipalKey, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::BootNanos;
use caps::wire::request::Path;
use caps::wire::row::{EndCause, Tier};

use super::event::{Answer, Effect, OpenRequest, Opening, SessionId};
use super::region::{RegionKey, RegionRow};
use super::table::Key;
use super::{Config, Due, Kernel};

/// One open right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRow {
    /// Whose.
    pub session: SessionId,
    /// The key that the session proved.
    pub holder: PrincipalKey,
    /// Of which lease.
    pub lease: LeaseId,
    /// To which region.
    pub region: RegionKey,
    /// The grant it was opened under.
    pub grant: Option<GrantId>,
    /// What it allows.
    pub rights: Rights,
    /// The bytes.
    pub range: ByteRange,
    /// When it ends.
    pub deadline: BootNanos,
    /// Whether it ends when its region does and a renewal of the lease moves it along: the owner's own, unnarrowed.
    pub follows_region: bool,
    /// By which path.
    pub path: Path,
    /// Whether its process runs in the sandbox, and its word for it counts.
    pub sandboxed: bool,
    /// Whether its descriptor left the provider.
    pub handed_out: bool,
}

impl Kernel {
    /// Opens a right, or says why not. Nothing is changed by a refusal.
    pub(super) fn open(
        &mut self,
        now: BootNanos,
        request: &OpenRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        if !self.by_lease.contains_key(&request.lease) {
            // The token's signature says that the lease was claimed here. It is gone, so it ended.
            return Err(super::take::ended(self.ended.cause(request.lease)));
        }
        let region = self.live(request.lease)?;
        if let Some(grant) = request.grant {
            self.revoked.expire(request.now_unix);
            if self.revoked.contains(grant) {
                return Err(Error::new(Code::TokenRevoked, "the grant was revoked"));
            }
        }
        let row = self.regions.get(region).ok_or(Error::new(Code::Internal, "a live lease has no region"))?;
        if row.deadline <= now {
            // Due, and the tick has not come yet: the deadline decides, not the tick.
            self.tick(now, effects)?;
            return Err(super::take::ended(EndCause::Expired));
        }
        let left = request.expires.since(request.now_unix);
        if left.0 == 0 {
            return Err(Error::new(Code::TokenExpired, "the token's time is over"));
        }
        let range = ByteRange::new(0, row.bytes)?
            .intersect(request.range)
            .ok_or(Error::new(Code::Denied, "the token reaches no byte of the region"))?;
        let follows_region = request.holder == row.owner && request.grant.is_none() && !request.narrowed;
        let deadline = if follows_region { row.deadline } else { now.plus(left).min(row.deadline) };
        if request.path == Path::Mapped {
            may_map(&self.config, request, row, range, deadline)?;
        }
        let first_of_grant = request.grant.is_some_and(|grant| !row.opened_grants.contains(&grant));
        let session_opens = self.by_session.get(&request.session).map_or(0, |opens| opens.len());
        if session_opens >= self.config.opens_per_session_max {
            return Err(Error::new(Code::Quota, "the session has its most open rights"));
        }
        let open = self
            .opens
            .insert(OpenRow {
                session: request.session,
                holder: request.holder,
                lease: request.lease,
                region,
                grant: request.grant,
                rights: request.rights,
                range,
                deadline,
                follows_region,
                path: request.path,
                sandboxed: request.sandboxed,
                handed_out: false,
            })
            .map_err(|_| Error::new(Code::Busy, "the provider's table of open rights is full"))?;
        let row =
            self.regions.get_mut(region).ok_or(Error::new(Code::Internal, "a live lease has no region"))?;
        row.opens.insert(open);
        row.opened_grants.extend(request.grant);
        let region_bytes = row.bytes;
        if !follows_region {
            self.deadlines.insert((deadline, Due::Open(open)));
        }
        self.by_session.entry(request.session).or_default().insert(open);
        Ok(Answer::Opened(Opening {
            open,
            region,
            rights: request.rights,
            range,
            region_bytes,
            path: request.path,
            deadline,
            first_of_grant,
        }))
    }

    /// An open right.
    #[must_use]
    pub fn open_row(&self, open: Key) -> Option<&OpenRow> {
        self.opens.get(open)
    }

    /// From here on, ending this right takes a cut. Recorded before the descriptor is sent: sent and not recorded
    /// would be a mapping that nobody cuts.
    pub(super) fn handed_out(&mut self, open: Key) -> Result<Answer> {
        let row = self
            .opens
            .get_mut(open)
            .ok_or(Error::new(Code::Revoked, "the right ended while it was opened"))?;
        row.handed_out = true;
        let (region, grant) = (row.region, row.grant);
        let row =
            self.regions.get_mut(region).ok_or(Error::new(Code::Internal, "an open right has no region"))?;
        row.mapped = true;
        row.mappings += 1;
        row.mapped_grants.extend(grant);
        Ok(Answer::Done)
    }

    /// A session gives a right back.
    pub(super) fn close(
        &mut self,
        session: SessionId,
        handle: SlotHandle,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        let key = Key { index: handle.slot, generation: handle.epoch };
        match self.opens.get(key) {
            Some(row) if row.session == session => {
                self.close_open(key, EndCause::Released, effects);
                Ok(Answer::Done)
            }
            // Somebody else's handle is not told apart from a dead one.
            _ => Err(Error::new(Code::Revoked, "no open right of this session has that handle")),
        }
    }

    /// Fences a right and takes it out of every index.
    pub(super) fn close_open(&mut self, open: Key, cause: EndCause, effects: &mut Vec<Effect>) {
        let Some(row) = self.opens.remove(open) else { return };
        self.deadlines.remove(&(row.deadline, Due::Open(open)));
        if let Some(opens) = self.by_session.get_mut(&row.session) {
            opens.remove(&open);
            if opens.is_empty() {
                self.by_session.remove(&row.session);
            }
        }
        if let Some(region) = self.regions.get_mut(row.region) {
            region.opens.remove(&open);
            if row.handed_out {
                region.mappings -= 1;
            }
        }
        effects.push(Effect::Fence { open });
        effects.push(Effect::Closed { open, row: Box::new(row), cause });
    }
}

/// Whether a right can be enforced by a mapping: it reaches the whole region, lasts as long as it, is not metered,
/// and the tier allows it to this process. What cannot be enforced is served by reads and writes.
#[must_use = "a refusal must reach the client"]
fn may_map(
    config: &Config,
    request: &OpenRequest,
    row: &RegionRow,
    range: ByteRange,
    deadline: BootNanos,
) -> Result<()> {
    let whole = range.start() == 0 && range.end() == row.bytes;
    let own_uid = request.uid == config.uid || request.uid == 0;
    let tier_allows = match config.tier {
        Tier::Sealed => true,
        Tier::Sandboxed | Tier::Open => {
            own_uid || request.sandboxed || !request.rights.contains(Rights::WRITE)
        }
    };
    let rules = [
        (request.metered, "a token with a budget or a rate is counted by the provider"),
        (!whole, "a right to a part of a region is enforced by the provider"),
        (deadline < row.deadline, "a right that ends before its region is enforced by the provider"),
        (!tier_allows, "on this machine other users write through the provider; `leasehold doctor` says why"),
        (!request.rights.contains(Rights::READ), "a mapping can always be read; this right cannot"),
    ];
    match rules.into_iter().find(|(broken, _)| *broken) {
        Some((_, detail)) => Err(Error::new(Code::MediatedOnly, detail)),
        None => Ok(()),
    }
}
