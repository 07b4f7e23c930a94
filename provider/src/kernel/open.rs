//! Rights that sessions opened.

use std::collections::hash_map::Entry;

use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId, PrincipalKey, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::BootNanos;
use caps::token::Mark;
use caps::wire::request::Path;
use caps::wire::row::EndCause;
use policy::quota::Openings;

use super::event::{Answer, Effect, OpenRequest, Opening, SessionId};
use super::grants::Limit;
use super::mapping::{end_of_mapping, may_map};
use super::meters::Side;
use super::region::RegionKey;
use super::table::Key;
use super::{Due, Kernel};

const FULL: Error = Error::new(Code::Busy, "the provider's table of open rights is full");
const NO_BYTE: Error = Error::new(Code::Denied, "the token reaches no byte of the region");

/// One open right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRow {
    /// Whose.
    pub session: SessionId,
    /// The key that the session proved.
    pub holder: PrincipalKey,
    /// Whose quota it counts in: the first holder of the token.
    pub payer: PrincipalKey,
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
    /// Whether its grant is over when it ends: not so if it ends by what somebody added to the token, nor with its region.
    pub ends_grant: bool,
    /// By which path.
    pub path: Path,
    /// Whether its process runs in the sandbox, and its word for it counts.
    pub sandboxed: bool,
    /// Whether a descriptor of one of its segments left the provider.
    pub handed_out: bool,
    /// What its token carries by which it can be taken back.
    pub marks: Box<[Mark]>,
    /// The key that minted its token.
    pub root: u32,
}

/// What opening a right would come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The region.
    pub region: RegionKey,
    /// The bytes that the right would reach.
    pub range: ByteRange,
    /// When it would end.
    pub deadline: BootNanos,
    /// As [`OpenRow::follows_region`].
    pub follows_region: bool,
    /// As [`OpenRow::ends_grant`].
    pub ends_grant: bool,
}

impl Kernel {
    /// What opening a right would come to, or why it would be refused. Opens nothing and counts nothing.
    pub fn judge(&self, now: BootNanos, request: &OpenRequest) -> Result<Judged> {
        if !self.by_lease.contains_key(&request.lease) {
            // The token's signature says that the lease was claimed here. It is gone, so it ended.
            return Err(super::take::ended(self.ended.cause(request.lease)));
        }
        let region = self.live(request.lease)?;
        let row = self.regions.get(region).ok_or(Error::new(Code::Internal, "a live lease has no region"))?;
        row.is_of_owner(request)?;
        if row.marks.refuse(&request.marks, request.now_unix) {
            return Err(Error::new(
                Code::TokenRevoked,
                "the token, or one that it descends from, was revoked",
            ));
        }
        let limit = request.grant.map(|grant| row.grants.limit(grant, request.now_unix));
        let (mut reach, mut expires) = (Some(request.range), request.expires);
        match limit {
            Some(Limit::Revoked) => return Err(Error::new(Code::TokenRevoked, "the grant was revoked")),
            Some(Limit::Within(ceiling)) => {
                if !ceiling.rights.contains(request.rights) {
                    return Err(Error::new(Code::Denied, "the grant was narrowed to fewer rights"));
                }
                reach = ceiling.range.and_then(|range| range.intersect(request.range));
                expires = expires.min(ceiling.expires);
            }
            Some(Limit::Whole) | None => {}
        }
        if row.deadline <= now {
            // Due, and the tick has not come yet: the deadline decides, not the tick.
            return Err(super::take::ended(EndCause::Expired));
        }
        let left = expires.since(request.now_unix);
        if left.0 == 0 {
            return Err(Error::new(Code::TokenExpired, "the token's time is over"));
        }
        let range = ByteRange::new(0, row.bytes)?.intersect(reach.ok_or(NO_BYTE)?).ok_or(NO_BYTE)?;
        // A token with blocks of its own can be taken back alone, and what it maps must be able to end alone then.
        let plain = !request.narrowed && request.marks.len() <= 1;
        let follows_region = request.holder == row.owner && request.grant.is_none() && plain;
        let mut deadline = if follows_region { row.deadline } else { now.plus(left).min(row.deadline) };
        let ends_grant = !request.narrowed && request.grant.is_some() && now.plus(left) < row.deadline;
        if request.path == Path::Mapped {
            if request.narrowed && deadline < row.deadline {
                deadline = end_of_mapping(now, deadline, self.config.mapping_end_step)?;
            }
            may_map(&self.config, request, row, range, deadline)?;
            if row.pinned && !follows_region {
                // No segment is longer than the first, so none that it reaches is longer than the first of them.
                self.has_room(row.segment_bytes.min(range.len()))?;
            }
        }
        row.meters.judge(&request.meters)?;
        Ok(Judged { region, range, deadline, follows_region, ends_grant })
    }

    /// Opens a right, or says why not. Nothing is changed by a refusal but what is due anyway.
    pub(super) fn open(
        &mut self,
        now: BootNanos,
        request: &OpenRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer> {
        let Judged { region, range, deadline, follows_region, ends_grant } = match self.judge(now, request) {
            Ok(judged) => judged,
            Err(error) => {
                if error.code() == Code::LeaseExpired {
                    self.tick(now, effects)?;
                }
                return Err(error);
            }
        };
        let session_opens = self.by_session.get(&request.session).map_or(0, |opens| opens.len());
        if session_opens >= self.config.opens_per_session_max {
            return Err(Error::new(Code::Quota, "the session has its most open rights"));
        }
        let payer = request.first_holder;
        debug_assert_eq!(request.quota.payer(), payer, "the quota of who pays");
        debug_assert_eq!(request.quota.mapped(), request.path == Path::Mapped, "the path that was asked for");
        let mut openings = self.openings(payer);
        openings.open(&request.quota)?;
        if self.opens.is_full() {
            return Err(FULL);
        }
        // The last that can refuse: a refused opening is not counted. One that comes to nothing later is.
        let side = match (request.grant, request.delegate) {
            (Some(_), _) => Side::Receiver(payer),
            (None, Some(delegate)) => Side::Receiver(delegate),
            (None, None) => Side::Owner,
        };
        let room = self.config.meters_room();
        let row =
            self.regions.get_mut(region).ok_or(Error::new(Code::Internal, "a live lease has no region"))?;
        row.meters.charge(&request.meters, side, request.minted_until, request.now_unix, room)?;
        let open = self
            .opens
            .insert(OpenRow {
                session: request.session,
                holder: request.holder,
                payer,
                lease: request.lease,
                region,
                grant: request.grant,
                rights: request.rights,
                range,
                deadline,
                follows_region,
                ends_grant,
                path: request.path,
                sandboxed: request.sandboxed,
                handed_out: false,
                marks: request.marks.clone(),
                root: request.root,
            })
            .map_err(|_| FULL)?;
        self.openings.insert(payer, openings);
        let row =
            self.regions.get_mut(region).ok_or(Error::new(Code::Internal, "a live lease has no region"))?;
        row.opens.insert(open);
        let known_max = self.config.revocations_per_region_max;
        let first_of_grant = request
            .grant
            .is_some_and(|grant| row.grants.opened(grant, request.expires, request.now_unix, known_max));
        let (region_bytes, segment_bytes) = (row.bytes, row.segment_bytes);
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
            segment_bytes,
            path: request.path,
            deadline,
            first_of_grant,
        }))
    }

    /// What is open under tokens whose first holder is `payer`.
    pub(super) fn openings(&self, payer: PrincipalKey) -> Openings {
        self.openings.get(&payer).copied().unwrap_or_default()
    }

    /// An open right.
    #[must_use]
    pub fn open_row(&self, open: Key) -> Option<&OpenRow> {
        self.opens.get(open)
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
        if let Entry::Occupied(mut openings) = self.openings.entry(row.payer) {
            let closed = openings.get_mut().close(row.path == Path::Mapped);
            debug_assert!(closed.is_ok(), "every open right is in its payer's books");
            if openings.get().is_empty() {
                openings.remove();
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
