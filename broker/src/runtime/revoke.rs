//! `Revoke`, `LeaseRelease` and `ShareNarrow`: order, have the provider take back, sign a receipt.
//!
//! Taking back begins when the command is applied, beside the record, and goes on whether or not the record comes and
//! whether or not the caller waits. The receipt is signed when the last of it is dead. Who asks again
//! for what has ended gets the receipt it had.

use caps::Result;
use caps::id::{LeaseId, ReceiptId};
use caps::limits::FRAME_BYTES_MAX;
use caps::receipt::ReceiptBody;
use caps::token::Cut;
use caps::wire::Reason;
use caps::wire::link::Taken;
use caps::wire::reply::Reply;
use caps::wire::row::{Revocation, Target};

use super::{Caller, Handle, principal, recorded_index, unexpected};
use crate::runtime::engine::{Mode, Order};
use crate::state::{Answer, Kind, Narrowing, RowId, TokenCut};

/// Leases that a receipt names, so that it fits a frame. A revocation that reaches more takes all of them back; the
/// log has an entry for each.
pub const RECEIPT_LEASES_MAX: usize = 4_096;

// 17 bytes an id, and room for the rest.
const _: () = assert!(RECEIPT_LEASES_MAX * 17 + 4 * 1024 < FRAME_BYTES_MAX);

impl Handle {
    pub(super) async fn release(&self, caller: Caller, lease: LeaseId) -> Result<Reply> {
        self.end(caller, Kind::Release { lease }, Target::Lease(lease), None).await
    }

    pub(super) async fn revoke(&self, caller: Caller, revocation: Revocation) -> Result<Reply> {
        let facts = self.facts(policy::Kind::Revoke, caller);
        let verdict = self.shared.judge(&facts, None)?;
        let target = revocation.target.clone();
        self.end(caller, Kind::Revoke(revocation), target, Some(verdict)).await
    }

    /// A revoke of a part: the same right to do it, the same means, the same receipt, which says what is left.
    pub(super) async fn narrow(&self, caller: Caller, narrowing: Narrowing) -> Result<Reply> {
        let facts = self.facts(policy::Kind::Revoke, caller);
        let verdict = self.shared.judge(&facts, Some(RowId::Grant(narrowing.grant)))?;
        self.end(caller, Kind::Narrow(narrowing), Target::Grant(narrowing.grant), Some(verdict)).await
    }

    /// Takes back one block of a token that the caller showed and the gate verified.
    ///
    /// # Errors
    /// `E_DENIED` if the token was never the caller's, nor is its lease or grant; `E_QUOTA` if no more can be remembered
    /// of delegates; what the policy says; `E_LEASE_UNKNOWN`.
    pub async fn revoke_token(&self, caller: Caller, cut: Cut, reason: Reason) -> Result<Reply> {
        let facts = self.facts(policy::Kind::Revoke, caller);
        let verdict = self.shared.judge(&facts, Some(RowId::Lease(cut.lease)))?;
        let held = cut.holders.contains(&caller.holder);
        let Cut { lease, grant, id, marks, range, not_before, expires: until, .. } = cut;
        let target = Target::Block { lease, id };
        let cut = TokenCut { lease, grant, id, marks, range, not_before, until, held, reason };
        let kind = Kind::RevokeToken(cut);
        self.end(caller, kind, target, Some(verdict)).await
    }

    async fn end(
        &self,
        caller: Caller,
        kind: Kind,
        target: Target,
        policy: Option<crate::state::PolicyVerdict>,
    ) -> Result<Reply> {
        let order = Order { mode: Mode::Regardless, ..principal(caller, kind, None, policy) };
        let outcome = self.shared.order(order).await?;
        let mut total = Taken::default();
        let mut reached = Vec::new();
        // All of them run already; the slowest decides.
        let mut failed = None;
        for take in outcome.takes {
            match take.await.unwrap_or_else(|_| Err(unexpected())) {
                Ok(taken) => {
                    add(&mut total, &taken);
                    reached.extend(taken.lease);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        // Not recorded is no failure here: the receipt says so by having no place in the log.
        let log_index = recorded_index(outcome.recorded).await.unwrap_or(None);
        let (mut leases, mut left, ended_before) = match outcome.answer? {
            Answer::Ending { leases } => (leases, None, false),
            Answer::EndedBefore { leases } => (leases, None, true),
            Answer::Narrowed { left, again } => (Vec::new(), Some(left), again),
            _ => return Err(unexpected()),
        };
        if let Some(error) = failed {
            return Err(error);
        }
        if ended_before && let Some(receipt) = self.shared.given.find(caller.holder, &target, left) {
            return Ok(Reply::Receipt(receipt));
        }
        if !reached.is_empty() {
            // The part could not be taken alone: nothing is left.
            left = None;
        }
        leases.extend(reached);
        leases.sort_unstable();
        leases.dedup();
        leases.truncate(RECEIPT_LEASES_MAX);
        let body = ReceiptBody {
            id: ReceiptId::random(),
            target,
            leases,
            mappings_closed: total.mappings_closed,
            method: total.method,
            fence: total.fence,
            dead: total.dead,
            wiped_bytes: total.wiped_bytes,
            log_index,
            issuer: self.shared.receipts.public(),
            left,
            quarantined_bytes: total.quarantined_bytes,
        };
        let receipt = body.sign(&self.shared.receipts);
        self.shared.given.keep(caller.holder, &receipt);
        Ok(Reply::Receipt(receipt))
    }
}

/// Sums and the slowest.
fn add(total: &mut Taken, taken: &Taken) {
    total.mappings_closed = total.mappings_closed.saturating_add(taken.mappings_closed);
    total.method = total.method.max(taken.method);
    total.fence = total.fence.max(taken.fence);
    total.dead = total.dead.max(taken.dead);
    total.wiped_bytes = total.wiped_bytes.saturating_add(taken.wiped_bytes);
    total.quarantined_bytes = total.quarantined_bytes.saturating_add(taken.quarantined_bytes);
}
