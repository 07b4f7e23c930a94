//! `LeaseRenew`: judge, order, record, then move the provider's deadline.

use caps::id::LeaseId;
use caps::time::Micros;
use caps::wire::reply::Reply;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::{Caller, Handle, principal, recorded_index, unexpected};
use crate::state::{Answer, Kind, Query, RowId, Undo, View};

impl Handle {
    pub(super) async fn renew(&self, caller: Caller, lease: LeaseId, ttl: Micros) -> Result<Reply> {
        let shared = &self.shared;
        let View::Lease(row) = shared.look(caller.holder, Query::Lease(lease)).await? else {
            return Err(unexpected());
        };
        let mut facts = self.facts(policy::Kind::LeaseRenew, caller);
        facts.bytes = Some(row.range.len());
        facts.ttl = Some(ttl);
        let verdict = shared.judge(&facts, Some(RowId::Lease(lease)))?;

        let kind = Kind::Renew { lease, ttl };
        let outcome = shared.order(principal(caller, kind, None, Some(verdict))).await?;
        let (row, terms, before) = match outcome.answer {
            Ok(Answer::Leased { lease, terms, before }) => (lease, terms, before),
            Ok(_) => return Err(unexpected()),
            Err(refused) => {
                recorded_index(outcome.recorded).await?;
                return Err(refused);
            }
        };
        // Minted beside the sync, given out after it.
        let token = shared.minting.mint(&terms);
        recorded_index(outcome.recorded).await?;
        if let Some(renewal) = outcome.renew
            && let Err(error) = renewal.carry_out(shared).await
        {
            // The provider's deadline is the one that counts, so the broker's goes back to it.
            let undo = Undo::Renew { lease, expires: before, since: terms.not_before };
            shared.order_unattended(Kind::Undo(undo))?;
            return Err(match error.code() {
                // It went between the order and here.
                Code::LeaseUnknown => self.gone(caller, lease).await,
                _ => error,
            });
        }
        Ok(Reply::Leased { lease: row, token: token? })
    }

    /// Why a lease is no more, that of the caller's which the provider does not know.
    async fn gone(&self, caller: Caller, lease: LeaseId) -> Error {
        match self.shared.look(caller.holder, Query::Lease(lease)).await {
            Ok(View::Lease(row)) if row.cause == Some(EndCause::Revoked) => {
                Error::new(Code::TokenRevoked, "the lease was taken back")
            }
            _ => Error::new(Code::LeaseExpired, "the lease's time is over"),
        }
    }
}
