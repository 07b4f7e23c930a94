//! What broker and provider say to each other. In the all-in-one node they say it in memory; the types are the same.

use serde::{Deserialize, Serialize};

use crate::id::{GrantId, LeaseId, PrincipalKey, RegionId};
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::{Micros, UnixMicros};
use crate::token::Mark;
use crate::wire::row::{EndCause, Lifetime};

/// The broker's short-lived permission to turn capacity into memory: exchanged at the provider for a lease, once,
/// before `claim_by`. Not a capability of the client's: it never sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTicket {
    /// The lease to be.
    pub lease: LeaseId,
    /// The region to be.
    pub region: RegionId,
    /// Who will own it.
    pub owner: PrincipalKey,
    /// Bytes, whole pages.
    pub bytes: u64,
    /// Bytes of a segment: `bytes`, or a power of two below it.
    pub segment_bytes: u64,
    /// How long it will live from the claim.
    pub ttl: Micros,
    /// Whether it ends with the process that asked.
    pub lifetime: Lifetime,
    /// A claim after this is refused; the broker has taken the reservation back by then.
    pub claim_by: UnixMicros,
}

/// What a provider is told to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Take {
    /// The whole region of a lease.
    Lease(LeaseId),
    /// One grant's rights to a lease's region.
    Grant {
        /// The lease.
        lease: LeaseId,
        /// The grant.
        grant: GrantId,
        /// When the grant would have ended by itself: how long the provider must remember the revocation.
        expires: UnixMicros,
    },
    /// What one grant gives beyond these bounds. The rest of it lives on.
    Narrow {
        /// The lease.
        lease: LeaseId,
        /// The grant.
        grant: GrantId,
        /// What its rights may be from now on.
        rights: Rights,
        /// The bytes that they may reach.
        range: ByteRange,
        /// When they end, at the latest.
        expires: UnixMicros,
    },
    /// Every right of a lease that was opened by a token with one of these marks. All others live on.
    Marks {
        /// The lease.
        lease: LeaseId,
        /// Each alone is enough.
        marks: [Option<Mark>; 2],
        /// The grant that goes instead where the provider has no room to remember the marks; `None`: the lease.
        grant: Option<GrantId>,
        /// The bytes that such a token can reach.
        range: ByteRange,
        /// When the last such token ends by itself: how long the provider must remember the marks.
        expires: UnixMicros,
    },
    /// What is open of a lease's region under tokens of one root key. The lease lives on, and its owner can open a token
    /// of another key. The provider remembers nothing: it has stopped believing the key before it is told this.
    Root {
        /// The lease.
        lease: LeaseId,
        /// The key, by the id in its tokens.
        root: u32,
    },
    /// Every right to a lease's region that does not come from `to`: the region is `to`'s from then on, with the bytes
    /// that are in it. No revoke: where there is no room to give the region fresh files it is refused, and nothing has
    /// changed. Once more is no error, and changes nothing; once another change has come, or it was undone, it is refused
    /// with `E_TOKEN_REVOKED`. Until it is undone the region ends with no session: whether it ends with that of `to` is
    /// for the broker to order.
    Owner {
        /// The lease.
        lease: LeaseId,
        /// Whose it is from now on.
        to: PrincipalKey,
        /// Tokens whose time began before this are the former owner's, or came from one of its: refused from now on,
        /// whoever holds them.
        since: UnixMicros,
        /// Refused from this time on: the broker has taken the acceptance back by then.
        until: UnixMicros,
        /// Goes back from the owner whose time began then, and from no other: what is told late, when another change has
        /// come in between, does nothing.
        undoes: Option<UnixMicros>,
    },
}

/// What taking back came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The lease whose memory was taken back; `None` if only operations were refused. Ending a grant takes the whole
    /// region where its receiver maps it, so this can be more than was asked for.
    pub lease: Option<LeaseId>,
    /// Descriptors handed out for mapping that the cut made useless.
    pub mappings_closed: u32,
    /// By which means.
    pub method: Method,
    /// From the call until no new operation could begin.
    pub fence: Micros,
    /// From the call until the last mapping was dead.
    pub dead: Micros,
    /// Bytes overwritten with zeros through the pin.
    pub wiped_bytes: u64,
    /// Bytes that were neither wiped nor given back, but are kept in quarantine.
    pub quarantined_bytes: u64,
}

/// How rights were ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Nobody held a mapping, or there was nothing left: refusing new operations was all.
    #[default]
    Fence,
    /// The kernel took the pages out of every mapping.
    Cut,
    /// The same, and those who keep their rights got the same bytes in fresh segments.
    Rotate,
}

/// What a provider tells the broker unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// A lease ended at the provider and its bytes are back.
    LeaseEnded {
        /// Which.
        lease: LeaseId,
        /// Why.
        cause: EndCause,
    },
    /// The receiver opened a grant for the first time.
    GrantOpened {
        /// Which.
        grant: GrantId,
    },
    /// A grant's rights ended at the provider.
    GrantEnded {
        /// Which.
        grant: GrantId,
        /// Why.
        cause: EndCause,
    },
}

impl Take {
    /// Whose lease's region it is about.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        match self {
            Self::Lease(lease)
            | Self::Grant { lease, .. }
            | Self::Narrow { lease, .. }
            | Self::Marks { lease, .. }
            | Self::Root { lease, .. }
            | Self::Owner { lease, .. } => *lease,
        }
    }
}
