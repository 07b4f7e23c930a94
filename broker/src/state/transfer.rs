//! An offer to hand a lease over: its life as states that own their data, and the table of offers.
//!
//! ```text
//! Offered ──accept──▶ Accepted ──done──▶ Done
//!  │   ▲                │  │
//!  │   └──back──────────┘  │      the provider refused, was too late, or the receiver's process is gone
//!  └────────end────────────┴──────────▶ Ended
//! ```
//!
//! A lease has at most one offer that is not over, so there are never more of them than leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use caps::id::{LeaseId, PrincipalKey, TransferId};
use caps::key::Signature;
use caps::share::{TransferContract, TransferSigned};
use caps::time::UnixMicros;
use caps::wire::row::{EndCause, Lifetime, TransferState};
use serde::{Deserialize, Serialize};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    /// What both sign.
    pub(super) contract: TransferContract,
    /// The owner's signature: verified before the row was made.
    pub(super) by_owner: Signature,
    pub(super) life: TransferLife,
}

impl Transfer {
    /// The contract with what was signed of it.
    pub(super) const fn signed(&self) -> TransferSigned {
        let by_receiver = match self.life {
            TransferLife::Accepted(accepted) => Some(accepted.by_receiver),
            TransferLife::Done(done) => Some(done.by_receiver),
            TransferLife::Offered(_) | TransferLife::Ended(_) => None,
        };
        TransferSigned { contract: self.contract, by_owner: self.by_owner, by_receiver }
    }
}

/// Where an offer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TransferLife {
    Offered(Offered),
    Accepted(Accepted),
    Done(Done),
    Ended(Ended),
}

/// The owner signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offered {
    /// An offer that is not accepted by then ends.
    pub(super) accept_by: UnixMicros,
}

/// The receiver signed, too, and the provider is told. The lease is still the former owner's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepted {
    pub(super) offered: Offered,
    /// What the provider has not done by then it does no more.
    pub(super) done_by: UnixMicros,
    /// When the new owner's time begins: after that of every token that there was.
    pub(super) since: UnixMicros,
    pub(super) by_receiver: Signature,
    pub(super) lifetime: Lifetime,
    /// Meaningless unless `lifetime` is `Process`.
    pub(super) session: u64,
}

/// The lease is the receiver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    pub(super) at: UnixMicros,
    /// Which acceptance it was: that of [`Accepted::since`].
    pub(super) since: UnixMicros,
    pub(super) by_receiver: Signature,
}

/// Over, and the lease stayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ended {
    pub(super) cause: EndCause,
    pub(super) at: UnixMicros,
}

impl TransferLife {
    /// When something has to happen to it by itself.
    pub(super) const fn deadline(&self) -> Option<UnixMicros> {
        match self {
            Self::Offered(offered) => Some(offered.accept_by),
            Self::Accepted(accepted) => Some(accepted.done_by),
            Self::Done(_) | Self::Ended(_) => None,
        }
    }

    /// The session without which it is not carried out.
    pub(super) const fn session(&self) -> Option<u64> {
        match self {
            Self::Accepted(Accepted { lifetime: Lifetime::Process, session, .. }) => Some(*session),
            Self::Offered(_) | Self::Accepted(_) | Self::Done(_) | Self::Ended(_) => None,
        }
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Ended(_))
    }

    pub(super) const fn cause(&self) -> Option<EndCause> {
        match self {
            Self::Ended(ended) => Some(ended.cause),
            Self::Offered(_) | Self::Accepted(_) | Self::Done(_) => None,
        }
    }

    /// As lists show it.
    pub(super) fn state(&self, now: UnixMicros) -> TransferState {
        match self {
            Self::Offered(offered) if offered.accept_by <= now => TransferState::Ended,
            Self::Offered(_) => TransferState::Offered,
            Self::Accepted(_) => TransferState::Accepted,
            Self::Done(_) => TransferState::Done,
            Self::Ended(_) => TransferState::Ended,
        }
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transfers {
    pub(super) rows: BTreeMap<TransferId, Transfer>,
    /// Rows that are over, oldest first.
    pub(super) ended: VecDeque<TransferId>,
    /// The offer of a lease that is not over.
    pub(super) by_lease: BTreeMap<LeaseId, TransferId>,
    /// Both sides.
    pub(super) by_party: BTreeSet<(PrincipalKey, TransferId)>,
    /// Who has accepted one that is being carried out: one at a time, and while it is, nothing else that its quota must
    /// have.
    pub(super) receiving: BTreeSet<PrincipalKey>,
}

impl Transfers {
    pub(super) fn get(&self, id: TransferId) -> Option<&Transfer> {
        self.rows.get(&id)
    }

    /// Ids of the offers that `party` made or was made, in order, after `after`.
    pub(super) fn of(
        &self,
        party: PrincipalKey,
        after: Option<TransferId>,
    ) -> impl Iterator<Item = TransferId> {
        self.by_party
            .range((party, after.unwrap_or(TransferId([0; 16])))..=(party, TransferId([0xff; 16])))
            .map(|(_, id)| *id)
            .filter(move |id| after.is_none_or(|after| *id > after))
    }

    /// Whether a lease is on its way to another owner.
    pub(super) fn is_moving(&self, lease: LeaseId) -> bool {
        let row = self.by_lease.get(&lease).and_then(|id| self.rows.get(id));
        row.is_some_and(|row| matches!(row.life, TransferLife::Accepted(_)))
    }

    /// Adds a row whose id is new, of a lease that has no other.
    pub(super) fn insert(&mut self, transfer: Transfer) {
        let contract = &transfer.contract;
        let id = contract.transfer;
        self.by_party.insert((contract.from, id));
        self.by_party.insert((contract.to, id));
        if transfer.life.is_over() {
            self.ended.push_back(id);
        } else {
            self.by_lease.insert(contract.lease, id);
        }
        if matches!(transfer.life, TransferLife::Accepted(_)) {
            self.receiving.insert(contract.to);
        }
        self.rows.insert(id, transfer);
    }

    /// Notes that a row is over and forgets the oldest one past `keep`.
    pub(super) fn retire(&mut self, id: TransferId, keep: u32) {
        if let Some(row) = self.rows.get(&id) {
            self.by_lease.remove(&row.contract.lease);
        }
        self.ended.push_back(id);
        if self.ended.len() > keep as usize
            && let Some(oldest) = self.ended.pop_front()
            && let Some(row) = self.rows.remove(&oldest)
        {
            self.by_party.remove(&(row.contract.from, oldest));
            self.by_party.remove(&(row.contract.to, oldest));
        }
    }
}
