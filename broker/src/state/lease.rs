//! A lease's life, as states that own their data. A transition consumes the state it leaves, so the order
//!
//! ```text
//! Reserved ──commit──▶ Live ──end──▶ Ending ──done──▶ Ended
//!     │                 │              ▲ │               ▲
//!     ├─────────────────┼──cancel──────┘ │               │
//!     └─────────────────┴──────lost──────┴──▶ Lost ──over┘
//! ```
//!
//! is the only one there is. Quota stays taken until `Ended`: the provider has the bytes until it says that they are
//! back, or is proved to be gone. One that is lost without proof may serve a lease until its time is over there.

use std::collections::BTreeMap;

use caps::id::{LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::range::ByteRange;
use caps::time::{Micros, UnixMicros};
use caps::token::Mark;
use caps::wire::Name;
use caps::wire::provider::Placement;
use caps::wire::row::{EndCause, LeaseState, Lifetime};
use serde::{Deserialize, Serialize};

/// A row of the lease table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) region: RegionId,
    pub(super) owner: PrincipalKey,
    pub(super) name: Option<Name>,
    pub(super) class: Option<Name>,
    /// Bytes, whole pages, never 0 and never past `ByteRange::END_MAX`.
    pub(super) range: ByteRange,
    /// Bytes of a segment: all of it, or a power of two below.
    pub(super) segment_bytes: u64,
    /// How often its owner's tokens may be delegated.
    #[serde(default)]
    pub(super) max_hops: u8,
    /// How long it lives from its commit.
    pub(super) ttl: Micros,
    pub(super) lifetime: Lifetime,
    /// Meaningless unless `lifetime` is `Process`.
    pub(super) session: u64,
    pub(super) provider: ProviderId,
    /// How often rights to the region were taken back from somebody who had them.
    pub(super) epoch: u32,
    pub(super) life: Life,
    /// What was taken back of it below its grants, and until when a token could have it; empty once it is not live.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) marks: BTreeMap<Mark, UnixMicros>,
    /// The latest time from which on somebody accepted to own it, whether or not it came to that.
    #[serde(default)]
    pub(super) tried: UnixMicros,
    /// When its provider ends it by itself, at the latest: the latest end that it may ever have been told.
    pub(super) latest: UnixMicros,
    /// Why it is at its provider.
    pub(super) placement: Placement,
    /// Grants of it that have not ended. Derived.
    #[serde(skip)]
    pub(super) grants: u32,
}

impl Lease {
    /// Whether it ends with a process that still counts.
    pub(super) const fn is_tied(&self) -> bool {
        matches!(self.lifetime, Lifetime::Process) && matches!(self.life, Life::Reserved(_) | Life::Live(_))
    }

    /// Whether its name is taken by it.
    pub(super) const fn holds_name(&self) -> bool {
        matches!(self.life, Life::Reserved(_) | Life::Live(_))
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Life {
    Reserved(Reserved),
    Live(Live),
    Ending(Ending),
    Lost(Lost),
    Ended(Ended),
}

impl Life {
    /// When something has to happen to it by itself.
    pub(super) const fn deadline(&self) -> Option<UnixMicros> {
        match self {
            Self::Reserved(reserved) => Some(reserved.claim_by),
            Self::Live(live) => Some(live.expires),
            Self::Ending(ending) => Some(ending.again_at),
            Self::Lost(lost) => Some(lost.until),
            Self::Ended(_) => None,
        }
    }

    /// As lists show it. A lease that is over and has not been told so is already ending.
    pub(super) fn state(&self, now: UnixMicros) -> LeaseState {
        match self {
            Self::Reserved(_) => LeaseState::Reserved,
            Self::Live(live) if now < live.expires => LeaseState::Live,
            Self::Live(_) | Self::Ending(_) | Self::Lost(_) => LeaseState::Ending,
            Self::Ended(_) => LeaseState::Ended,
        }
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    pub(super) const fn cause(&self) -> Option<EndCause> {
        match self {
            Self::Reserved(_) | Self::Live(_) => None,
            Self::Ending(ending) => Some(ending.cause),
            Self::Lost(lost) => Some(lost.cause),
            Self::Ended(ended) => Some(ended.cause),
        }
    }

    /// How long it still lives.
    pub(super) fn left(&self, now: UnixMicros) -> Micros {
        match self {
            Self::Live(live) => live.expires.since(now),
            Self::Reserved(_) | Self::Ending(_) | Self::Lost(_) | Self::Ended(_) => Micros(0),
        }
    }

    /// What becomes of it when its provider is lost without proof: `None` where nothing is left there, or that was known.
    pub(super) const fn lose(&self, until: UnixMicros) -> Option<Lost> {
        let (cause, booked) = match self {
            Self::Reserved(_) => (EndCause::ProviderLost, Booked::Reserved),
            Self::Live(_) => (EndCause::ProviderLost, Booked::Live),
            Self::Ending(Ending { cause, committed: false, .. }) => (*cause, Booked::Reserved),
            Self::Ending(Ending { cause, committed: true, .. }) => (*cause, Booked::Going),
            Self::Lost(_) | Self::Ended(_) => return None,
        };
        Some(Lost { cause, booked, until })
    }
}

/// Capacity is set aside; there may be no memory yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reserved {
    /// The provider refuses a claim after this.
    pub(super) claim_by: UnixMicros,
}

impl Reserved {
    /// The provider committed the memory.
    pub(super) const fn commit(self, now: UnixMicros, ttl: Micros) -> Live {
        Live { since: now, expires: now.plus(ttl) }
    }

    /// Nobody will claim it, or nobody may.
    pub(super) const fn cancel(self, cause: EndCause, again_at: UnixMicros) -> Ending {
        Ending { cause, committed: false, again_at }
    }
}

/// The token is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Live {
    /// When it was committed.
    pub(super) since: UnixMicros,
    /// When it ends by itself.
    pub(super) expires: UnixMicros,
}

impl Live {
    /// Another end.
    pub(super) const fn renew(self, expires: UnixMicros) -> Self {
        Self { since: self.since, expires }
    }

    /// The memory is going back.
    pub(super) const fn end(self, cause: EndCause, again_at: UnixMicros) -> Ending {
        Ending { cause, committed: true, again_at }
    }
}

/// The provider is taking the memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    pub(super) cause: EndCause,
    /// Whether it lived: its bytes are booked as resident, else still as reserved.
    pub(super) committed: bool,
    /// When the provider is told again.
    pub(super) again_at: UnixMicros,
}

impl Ending {
    /// The provider has not answered yet.
    pub(super) const fn again(self, again_at: UnixMicros) -> Self {
        Self { cause: self.cause, committed: self.committed, again_at }
    }
}

/// Its provider is lost, and nothing proves that it is gone: it may serve the lease still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lost {
    pub(super) cause: EndCause,
    /// How its bytes stand in its owner's book, and stay there.
    pub(super) booked: Booked,
    /// Until when: the provider's clock has ended it by then, whatever it heard.
    pub(super) until: UnixMicros,
}

/// How the bytes of a lost lease are booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Booked {
    /// As a reservation.
    Reserved,
    /// As a live lease: its owner gets nothing in its place while it may be served.
    Live,
    /// As memory that is going back.
    Going,
}

/// Over: the bytes are back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ended {
    pub(super) cause: EndCause,
    pub(super) at: UnixMicros,
    /// Only its time says so: its provider was lost before, and never proved to be gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unproved: bool,
}

impl Ended {
    /// The only way to the end: the provider, or its death, says that the memory is gone. The cause is the one that
    /// began the ending, if something did before the memory was gone.
    pub(super) fn from(life: Life, said: EndCause, at: UnixMicros) -> Self {
        Self { cause: life.cause().unwrap_or(said), at, unproved: false }
    }
}
