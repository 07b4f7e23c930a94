//! A grant's life: the five steps of `MEM_SHARE`, each a state that only the one before leads to.
//!
//! ```text
//!    ┌─co-sign─┐ where the contract names a co-signer, and only then
//!    │         ▼
//! Offered ──issue──▶ Issued ──accept──▶ Accepted ──open──▶ Open
//!    └──────────────────┴────────end───────┴────────────────┴──▶ Ended
//! ```

use caps::key::Signature;
use caps::share::{Rest, ShareContract, Signed};
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
    /// What narrowings have left of it; `None`: all that was agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<Rest>,
    /// The co-signer's signature: verified before it was kept. Nothing is issued without it where one is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by_cosigner: Option<Signature>,
}

impl Grant {
    /// What it gives, from its issue to its end.
    pub(super) fn rest(&self) -> Option<Rest> {
        let issued = self.life.issued()?;
        let ShareContract { rights, range, .. } = self.contract;
        Some(self.left.unwrap_or(Rest { rights, range, expires: issued.expires }))
    }

    /// The contract with what was signed of it: by the receiver from its acceptance on, after the end, too.
    pub(super) fn signed(&self) -> Signed {
        let Self { contract, by_owner, by_cosigner, .. } = *self;
        Signed { contract, by_owner, by_receiver: self.life.by_receiver(), by_cosigner }
    }

    /// Whether all have signed whom it takes to issue it.
    pub(super) const fn is_cosigned(&self) -> bool {
        self.contract.cosigner.is_some() == self.by_cosigner.is_some()
    }

    /// Whether its owner's quota is charged for it. An offer that waits for its co-signer is: it may wait for long, and
    /// nobody fills the table with what costs nothing.
    pub(super) const fn is_charged(&self) -> bool {
        match self.life {
            GrantLife::Issued(_) | GrantLife::Accepted(_) | GrantLife::Open(_) => true,
            GrantLife::Offered(_) => self.contract.cosigner.is_some(),
            GrantLife::Ended(_) => false,
        }
    }

    /// When it ends by itself.
    pub(super) fn deadline(&self) -> Option<UnixMicros> {
        let life = self.life.deadline()?;
        Some(self.left.map_or(life, |left| life.min(left.expires)))
    }

    /// As lists show it.
    pub(super) fn state(&self, now: UnixMicros) -> GrantState {
        match self.life {
            _ if self.deadline().is_none_or(|deadline| deadline <= now) => GrantState::Ended,
            GrantLife::Offered(_) => GrantState::Offered,
            GrantLife::Issued(_) => GrantState::Issued,
            GrantLife::Accepted(_) => GrantState::Accepted,
            GrantLife::Open(_) => GrantState::Open,
            GrantLife::Ended(_) => GrantState::Ended,
        }
    }
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
    /// The user id of the owner's process, while a co-signature is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
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
    /// Kept as long as the row, so that the pair can be had for as long as its end can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by_receiver: Option<Signature>,
    /// When the token that its receiver has ends by itself; `None` if nobody has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) out_until: Option<UnixMicros>,
}

impl GrantLife {
    /// When it ends by itself, if it is not narrowed. Of a grant that is out, when its receiver's token ends.
    pub(super) const fn deadline(&self) -> Option<UnixMicros> {
        match self {
            Self::Offered(offered) => Some(offered.issue_by),
            Self::Issued(issued) => Some(issued.accept_by),
            Self::Accepted(accepted) | Self::Open(accepted) => Some(accepted.issued.expires),
            Self::Ended(_) => None,
        }
    }

    /// Step 2, once it was taken and until the end.
    const fn issued(&self) -> Option<Issued> {
        match self {
            Self::Issued(issued) => Some(*issued),
            Self::Accepted(accepted) | Self::Open(accepted) => Some(accepted.issued),
            Self::Offered(_) | Self::Ended(_) => None,
        }
    }

    /// The receiver's signature, once there is one.
    pub(super) const fn by_receiver(&self) -> Option<Signature> {
        match self {
            Self::Accepted(accepted) | Self::Open(accepted) => Some(accepted.by_receiver),
            Self::Ended(ended) => ended.by_receiver,
            Self::Offered(_) | Self::Issued(_) => None,
        }
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

    pub(super) const fn is_offered(&self) -> bool {
        matches!(self, Self::Offered(_))
    }

    pub(super) const fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }

    pub(super) const fn cause(&self) -> Option<EndCause> {
        match self {
            Self::Ended(ended) => Some(ended.cause),
            Self::Offered(_) | Self::Issued(_) | Self::Accepted(_) | Self::Open(_) => None,
        }
    }
}
