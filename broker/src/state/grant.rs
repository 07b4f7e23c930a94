//! A grant's life: the five steps of `MEM_SHARE`, each a state that only the one before leads to.
//!
//! ```text
//! Offered ──issue──▶ Issued ──accept──▶ Accepted ──open──▶ Open
//!    └──────────────────┴────────end───────┴────────────────┴──▶ Ended
//! ```

use caps::key::Signature;
use caps::share::ShareContract;
use caps::time::{Micros, UnixMicros};
use caps::wire::row::{EndCause, GrantState, Lifetime};
use serde::{Deserialize, Serialize};

/// A row of the grant table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// What both sign.
    pub(super) contract: ShareContract,
    /// The owner's signature: verified before the row was made.
    pub(super) by_owner: Signature,
    pub(super) life: GrantLife,
}

/// Where a grant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GrantLife {
    Offered(Offered),
    Issued(Issued),
    Accepted(Accepted),
    Open(Accepted),
    Ended(GrantEnded),
}

/// Step 1: the owner signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offered {
    /// An offer that is not issued by then is forgotten.
    pub(super) issue_by: UnixMicros,
}

impl Offered {
    /// Step 2: policy and quota allow it, for the contract's span, never past the lease.
    pub(super) fn issue(
        self,
        now: UnixMicros,
        ttl: Micros,
        lease_expires: UnixMicros,
        accept_within: Micros,
    ) -> Issued {
        let expires = now.plus(ttl).min(lease_expires);
        Issued { since: now, accept_by: now.plus(accept_within).min(expires), expires }
    }
}

/// Step 2: bound to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issued {
    pub(super) since: UnixMicros,
    /// An issued grant that is not accepted by then ends. Never after `expires`.
    pub(super) accept_by: UnixMicros,
    pub(super) expires: UnixMicros,
}

impl Issued {
    /// Step 3: the receiver signed too.
    pub(super) const fn accept(self, by_receiver: Signature, lifetime: Lifetime, session: u64) -> Accepted {
        Accepted { issued: self, by_receiver, lifetime, session }
    }
}

/// Step 3, and with it step 4: two signatures on one contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    pub(super) issued: Issued,
    pub(super) by_receiver: Signature,
    pub(super) lifetime: Lifetime,
    /// Meaningless unless `lifetime` is `Process`.
    pub(super) session: u64,
}

impl Accepted {
    /// The acceptance could not be recorded.
    pub(super) const fn unaccept(self) -> Issued {
        self.issued
    }
}

/// Step 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantEnded {
    pub(super) cause: EndCause,
    pub(super) at: UnixMicros,
}

impl GrantLife {
    /// When it ends by itself.
    pub(super) const fn deadline(&self) -> Option<UnixMicros> {
        match self {
            Self::Offered(offered) => Some(offered.issue_by),
            Self::Issued(issued) => Some(issued.accept_by),
            Self::Accepted(accepted) | Self::Open(accepted) => Some(accepted.issued.expires),
            Self::Ended(_) => None,
        }
    }

    /// Whether its owner's quota is charged for it.
    pub(super) const fn is_charged(&self) -> bool {
        matches!(self, Self::Issued(_) | Self::Accepted(_) | Self::Open(_))
    }

    /// The session that it ends with.
    pub(super) const fn session(&self) -> Option<u64> {
        match self {
            Self::Accepted(accepted) | Self::Open(accepted) => match accepted.lifetime {
                Lifetime::Process => Some(accepted.session),
                Lifetime::Detached => None,
            },
            Self::Offered(_) | Self::Issued(_) | Self::Ended(_) => None,
        }
    }

    /// Whether the receiver may have a token of it.
    pub(super) const fn is_out(&self) -> bool {
        matches!(self, Self::Accepted(_) | Self::Open(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// As lists show it.
    pub(super) fn state(&self, now: UnixMicros) -> GrantState {
        match self {
            _ if self.deadline().is_none_or(|deadline| deadline <= now) => GrantState::Ended,
            Self::Offered(_) => GrantState::Offered,
            Self::Issued(_) => GrantState::Issued,
            Self::Accepted(_) => GrantState::Accepted,
            Self::Open(_) => GrantState::Open,
            Self::Ended(_) => GrantState::Ended,
        }
    }

    pub(super) const fn cause(&self) -> Option<EndCause> {
        match self {
            Self::Ended(ended) => Some(ended.cause),
            Self::Offered(_) | Self::Issued(_) | Self::Accepted(_) | Self::Open(_) => None,
        }
    }
}
