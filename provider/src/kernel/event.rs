//! What can happen, and what has to be done about it.

use caps::error::Result;
use caps::id::{GrantId, LeaseId, PrincipalKey, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros, UnixMicros};
use caps::token::{Mark, Meter};
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::request::Path;
use caps::wire::row::EndCause;
use policy::WithinQuota;

use super::region::RegionKey;
use super::table::Key;

/// A session of the local gate, numbered from the provider's start and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What happened. Not to be cloned: an [`OpenRequest`] is used once.
#[derive(Debug)]
pub enum Event {
    /// The broker exchanges a reservation for memory.
    Claim {
        /// The reservation.
        ticket: ClaimTicket,
        /// The session of the client that asked, if it is at this provider.
        session: Option<SessionId>,
        /// Wall time, for the ticket's deadline.
        now_unix: UnixMicros,
    },
    /// The region's memory is committed, pinned and ready.
    Created {
        /// Which.
        region: RegionKey,
        /// Bytes of it that the kernel backed with huge pages.
        huge_bytes: u64,
        /// Whether every page is pinned: only then can a segment be rotated.
        pinned: bool,
    },
    /// The region's memory could not be had.
    CreateFailed {
        /// Which.
        region: RegionKey,
    },
    /// The broker moved a lease's end to `ttl` from now.
    Renew {
        /// Which.
        lease: LeaseId,
        /// From now.
        ttl: Micros,
    },
    /// A session opens a right whose token was verified and authorized.
    Open(OpenRequest),
    /// The descriptor of one segment is about to be sent to the holder of a mapped right: from now on, ending the
    /// right takes a cut of that segment. The descriptor is of the segment's file of `generation`, in hand already;
    /// [`Answer::Stale`] if that is no longer the segment's file, or if the right was narrowed to reading and the
    /// descriptor can be mapped writable.
    HandedOut {
        /// Which open right.
        open: Key,
        /// Which segment, counted from the region's start.
        segment: u32,
        /// Of which generation the descriptor is.
        generation: u32,
        /// Whether the descriptor can be mapped writable.
        write: bool,
    },
    /// A rotating segment's old file is cut and memory for the fresh one is wanted.
    Fresh {
        /// Which region.
        region: RegionKey,
        /// Which segment.
        segment: u32,
    },
    /// The fresh file of a rotating segment holds all bytes; it is the segment's file if the answer is
    /// [`Answer::Rotated`].
    Rotated {
        /// Which region.
        region: RegionKey,
        /// Which segment.
        segment: u32,
    },
    /// A file that a rotation replaced, or one that it had made and could not use, is wiped and closed: its bytes are
    /// free.
    Spent {
        /// Whose.
        region: RegionKey,
        /// Bytes.
        bytes: u64,
    },
    /// A session closes a right.
    Close {
        /// Whose.
        session: SessionId,
        /// Which.
        handle: SlotHandle,
    },
    /// A session's process died or hung up.
    SessionEnded {
        /// Which.
        session: SessionId,
    },
    /// The broker takes something back.
    Take {
        /// What.
        take: Take,
        /// Why.
        cause: EndCause,
        /// Wall time, to forget revocations that no token can use any more.
        now_unix: UnixMicros,
    },
    /// A region's memory is gone: cut, wiped, unpinned, closed.
    Taken {
        /// Which.
        region: RegionKey,
    },
    /// A deadline passed.
    Tick,
    /// A file that a rotation replaced could not be wiped and is to be kept. Its bytes stay in the books, as the
    /// region's no longer; refused where they would take the room that rotations need.
    Kept {
        /// Whose.
        region: RegionKey,
        /// Bytes.
        bytes: u64,
    },
    /// A file that was kept is wiped and closed: its bytes are free.
    Unkept {
        /// Bytes.
        bytes: u64,
    },
    /// The last token of a root key has expired: nothing can be opened under it any more.
    RootExpired {
        /// Which key, by the id in its tokens.
        root: u32,
    },
}

/// A right as its verified token gives it: made of evidence by [`OpenRequest::new`], never of the client's words.
#[derive(Debug)]
pub struct OpenRequest {
    /// Who asks.
    pub(crate) session: SessionId,
    /// The uid of its process, if it is one of this machine's.
    pub(crate) uid: Option<u32>,
    /// Whether its process runs in the sandbox.
    pub(crate) sandboxed: bool,
    /// The key that the session proved.
    pub(crate) holder: PrincipalKey,
    /// The lease.
    pub(crate) lease: LeaseId,
    /// The grant, if the token is a receiver's.
    pub(crate) grant: Option<GrantId>,
    /// What is to be opened, which the token allows.
    pub(crate) rights: Rights,
    /// The bytes that the token reaches.
    pub(crate) range: ByteRange,
    /// When the token ends.
    pub(crate) expires: UnixMicros,
    /// When the token ends as the broker minted it: no later block puts that off.
    pub(crate) minted_until: UnixMicros,
    /// Wall time, from which the deadline is fixed once.
    pub(crate) now_unix: UnixMicros,
    /// Whether the token has a budget or rate, which can only be counted on mediated access.
    pub(crate) metered: bool,
    /// Whether the token was narrowed or delegated after it was minted.
    pub(crate) narrowed: bool,
    /// By which path.
    pub(crate) path: Path,
    /// Whom the broker named, before any delegation.
    pub(crate) first_holder: PrincipalKey,
    /// To whom the first holder delegated the token, if it did.
    pub(crate) delegate: Option<PrincipalKey>,
    /// What kills the token when it is taken back.
    pub(crate) marks: Box<[Mark]>,
    /// What is counted for the token.
    pub(crate) meters: Box<[Meter]>,
    /// That the quota of the first holder was asked.
    pub(crate) quota: WithinQuota,
    /// The key that minted it, by the id in its tokens. Believed at the time of this event.
    pub(crate) root: u32,
    /// When the token's time began, as the broker minted it: no later block puts that off.
    pub(crate) not_before: UnixMicros,
}

/// The kernel's answer to one event.
#[derive(Debug)]
pub struct Step {
    /// What the caller is told.
    pub answer: Result<Answer>,
    /// What the runtime does now, in this order.
    pub effects: Vec<Effect>,
}

/// The good answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// Build this region's memory.
    Build {
        /// Under which key.
        region: RegionKey,
        /// Bytes, whole pages.
        bytes: u64,
        /// Bytes of a segment; the last one may be shorter.
        segment_bytes: u64,
        /// When its lease will end.
        deadline: BootNanos,
    },
    /// A lease's end was moved.
    Renewed {
        /// Its region.
        region: RegionKey,
        /// When it ends now.
        deadline: BootNanos,
    },
    /// A right is open.
    Opened(Opening),
    /// A region is being taken back whole; its end is reported when its memory is gone.
    Taking {
        /// The region.
        region: RegionKey,
        /// Descriptors handed out for mapping.
        mappings: u32,
    },
    /// A grant's rights are fenced, or narrowed. It is dead once every rotation of the region up to and including
    /// `upto` is over; at once if there is none under way.
    Fenced {
        /// The region.
        region: RegionKey,
        /// The last rotation that has to be waited for: the one that this event ordered, or one under way that takes
        /// out mappings which the grant's holders may have. `None`: refusing new operations was all.
        upto: Option<RotationId>,
        /// Descriptors handed out under the grant for mapping.
        mappings: u32,
    },
    /// Memory for a fresh segment is set aside in the books.
    Granted,
    /// There is no memory for a fresh segment at present: come again when an [`Event::Spent`] or [`Event::Kept`] was
    /// applied. Never the answer while no other rotation is under way: the pool keeps room for one.
    Wait,
    /// The fresh file is the segment's from now on.
    Rotated {
        /// Its generation.
        generation: u32,
        /// Open rights whose holders map the segment: they get the fresh file, in this order.
        survivors: Vec<Survivor>,
    },
    /// A descriptor is no longer of the segment's file, or the segment is being rotated.
    Stale,
    /// Already gone.
    Gone,
}

/// An open right, for the runtime and the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Key of the open right; its index is also the slot's.
    pub open: Key,
    /// Its region.
    pub region: RegionKey,
    /// What was opened.
    pub rights: Rights,
    /// The bytes.
    pub range: ByteRange,
    /// The region's bytes.
    pub region_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// By which path.
    pub path: Path,
    /// When it ends.
    pub deadline: BootNanos,
    /// Whether this grant was opened for the first time.
    pub first_of_grant: bool,
}

/// Names a rotation of a region: counted up for the whole provider, never 0 and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RotationId(pub u64);

/// A holder that keeps its right through a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// The open right.
    pub open: Key,
    /// Its session.
    pub session: SessionId,
}

/// What the runtime has to do. Effects of one step are in the order in which they must begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Refuse new operations on an open right, at once.
    Fence {
        /// Which.
        open: Key,
    },
    /// Cut, shut, wipe, unpin and close a region's memory, then report [`Event::Taken`].
    TakeBack {
        /// Which.
        region: RegionKey,
        /// Of which lease.
        lease: LeaseId,
        /// Why.
        cause: EndCause,
        /// Descriptors handed out for mapping.
        mappings: u32,
    },
    /// Cut these segments, copy them into fresh ones, and wipe the old. Report [`Event::Fresh`], [`Event::Rotated`] and
    /// [`Event::Spent`] for each.
    Rotate {
        /// Which region.
        region: RegionKey,
        /// Of which lease.
        lease: LeaseId,
        /// Names the rotation.
        rotation: RotationId,
        /// Which segments, in ascending order; never none.
        segments: Vec<u32>,
        /// The grant whose end or narrowing it is; `None` for several, or for a delegated right of the owner's.
        grant: Option<GrantId>,
        /// Why.
        cause: EndCause,
        /// Descriptors of these segments that were handed out and are not coming back.
        mappings: u32,
    },
    /// An open right goes on with less: replace what operations are judged by, and let none that was judged by the old
    /// come to its end.
    Narrowed {
        /// Which. Its row has the new rights, range and deadline already.
        open: Key,
    },
    /// A right is no longer open and its row is gone: forget what belongs to it.
    Closed {
        /// Which.
        open: Key,
        /// The row as it was.
        row: Box<super::OpenRow>,
        /// Why.
        cause: EndCause,
    },
    /// Tell the broker that a grant's rights ended.
    GrantEnded {
        /// Which.
        grant: GrantId,
        /// Why.
        cause: EndCause,
    },
}

impl Effect {
    /// When it has to begin, within its step: no new operation may begin while memory is being cut, and no cut may wait
    /// for the records of what was closed.
    pub(super) const fn phase(&self) -> u8 {
        match self {
            Self::Fence { .. } | Self::Narrowed { .. } => 0,
            Self::Rotate { .. } | Self::TakeBack { .. } => 1,
            Self::Closed { .. } | Self::GrantEnded { .. } => 2,
        }
    }
}
