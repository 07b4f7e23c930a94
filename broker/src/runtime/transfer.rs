//! A lease changes its owner: offer, accept, and what is looked at and taken back of it.

use std::sync::Arc;

use caps::Result;
use caps::id::TransferId;
use caps::key::Signature;
use caps::share::{TransferContract, TransferSigned};
use caps::wire::link::Take;
use caps::wire::reply::Reply;
use caps::wire::row::{EndCause, Lifetime};

use super::engine::{Mode, Order};
use super::{Caller, Handle, Shared, principal, recorded_index, system, unexpected};
use crate::state::{Answer, Kind, Query, RowId, TransferAcceptance, View};

impl Handle {
    pub(super) async fn transfer_offer(
        &self,
        caller: Caller,
        contract: TransferContract,
        signature: Signature,
    ) -> Result<Reply> {
        let shared = &self.shared;
        let View::Lease(row) = shared.look(caller.holder, Query::Lease(contract.lease)).await? else {
            return Err(unexpected());
        };
        let mut facts = self.facts(policy::Kind::TransferOffer, caller);
        facts.bytes = Some(row.range.len());
        facts.ttl = Some(contract.ttl);
        facts.receiver = shared.directory.get(contract.to).map(|name| (contract.to, name));
        let verdict = shared.judge(&facts, Some(RowId::Transfer(contract.transfer)))?;
        let kind = Kind::TransferOffer { contract, signature };
        match shared.order_recorded(caller, kind, None, Some(verdict)).await? {
            Answer::Transfer(row) => Ok(Reply::Transfer(row)),
            _ => Err(unexpected()),
        }
    }

    /// Both signatures are on record before the provider is told; the token leaves once nothing of the former owner's can
    /// be reached and the change is on record, too.
    pub(super) async fn transfer_accept(
        &self,
        caller: Caller,
        transfer: TransferId,
        signature: Signature,
        lifetime: Lifetime,
    ) -> Result<Reply> {
        let shared = &self.shared;
        let View::Transfer(row, TransferSigned { by_owner, .. }) =
            shared.look(caller.holder, Query::Transfer(transfer)).await?
        else {
            return Err(unexpected());
        };
        let mut facts = self.facts(policy::Kind::TransferAccept, caller);
        facts.bytes = Some(row.bytes);
        facts.ttl = Some(row.ttl);
        facts.receiver = facts.name.clone().map(|name| (caller.holder, name));
        let verdict = shared.judge(&facts, Some(RowId::Transfer(transfer)))?;

        let session = caller.session;
        let kind = Kind::TransferAccept(TransferAcceptance { transfer, signature, lifetime, session });
        let Answer::HandingOver { give, back } =
            shared.order_recorded(caller, kind, None, Some(verdict)).await?
        else {
            return Err(unexpected());
        };
        // To its end, whoever still waits for it: the provider and the books must come to the same owner.
        let carried_out = shared.tasks.spawn(carry_out(Arc::clone(shared), transfer, (give, back), by_owner));
        carried_out.await.unwrap_or_else(|_| Err(unexpected()))
    }

    pub(super) async fn transfer(&self, caller: Caller, transfer: TransferId) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Transfer(transfer)).await? {
            View::Transfer(transfer, TransferSigned { contract, by_owner, by_receiver }) => {
                Ok(Reply::TransferContract { transfer, contract, by_owner, by_receiver })
            }
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn transfers(&self, caller: Caller, after: Option<TransferId>) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Transfers(after)).await? {
            View::Transfers(page) => Ok(Reply::Transfers(page)),
            _ => Err(unexpected()),
        }
    }

    /// Takes effect whether or not it can be recorded, as every taking back does.
    pub(super) async fn transfer_withdraw(&self, caller: Caller, transfer: TransferId) -> Result<Reply> {
        let kind = Kind::TransferWithdraw { transfer };
        let order = Order { mode: Mode::Regardless, ..principal(caller, kind, None, None) };
        let outcome = self.shared.order(order).await?;
        let answer = outcome.answer?;
        recorded_index(outcome.recorded).await?;
        match answer {
            Answer::Transfer(row) => Ok(Reply::Transfer(row)),
            _ => Err(unexpected()),
        }
    }
}

/// Has the provider go over to the new owner, and then the books. Where either refuses, both are the former owner's.
async fn carry_out(
    shared: Arc<Shared>,
    transfer: TransferId,
    (give, back): (Take, Take),
    by_owner: Signature,
) -> Result<Reply> {
    if let Err(refused) = shared.link.take(give, EndCause::Transfer).await {
        // The order has the provider told the former owner, which changes nothing where it refused. If it cannot be
        // ordered, the deadline does the same.
        shared.order_and_wait(Kind::TransferBack { transfer }).await?;
        return Err(refused);
    }
    // From here on it is a taking back that was done: it is recorded as soon as that is possible, and the new owner hears
    // of it after that.
    let outcome = shared.order(system(Kind::TransferDone { transfer })).await?;
    let (row, terms) = match outcome.answer {
        Ok(Answer::Leased { lease, terms, .. }) => (lease, terms),
        Ok(_) => return Err(unexpected()),
        Err(refused) => {
            // It was taken back meanwhile, perhaps before the provider heard of it at all; or the books refused.
            let _ = shared.link.take(back, EndCause::Transfer).await; // a lease that is gone has no owner
            shared.order_and_wait(Kind::TransferBack { transfer }).await?;
            return Err(refused);
        }
    };
    let token = shared.minting.mint(&terms);
    recorded_index(outcome.recorded).await?;
    Ok(Reply::Transferred { lease: row, token: token?, by_owner })
}
