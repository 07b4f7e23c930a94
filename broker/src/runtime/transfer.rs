//! A lease changes its owner: offer, accept, and what is looked at and taken back of it.

use std::sync::Arc;

use caps::id::TransferId;
use caps::key::Signature;
use caps::share::{TransferContract, TransferSigned};
use caps::time::UnixMicros;
use caps::wire::link::{Take, Taken};
use caps::wire::reply::Reply;
use caps::wire::row::{EndCause, Lifetime};
use caps::{Code, Result};
use policy::Facts;

use super::engine::{Mode, Order};
use super::{Caller, Handle, Shared, principal, recorded_index, system, unexpected};
use crate::state::{Answer, Kind, Query, RowId, TransferAcceptance, View, Whereabouts};

impl Handle {
    pub(super) async fn transfer_offer(
        &self,
        caller: Caller,
        contract: TransferContract,
        signature: Signature,
    ) -> Result<Reply> {
        let shared = &self.shared;
        let view = shared.look(caller.holder, Query::ToOffer(contract.lease)).await?;
        let (mut facts, _) = self.facts_of_handed(policy::Kind::TransferOffer, caller, view)?;
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
        let view = shared.look(caller.holder, Query::ToTakeOver(transfer)).await?;
        let (mut facts, by_owner) = self.facts_of_handed(policy::Kind::TransferAccept, caller, view)?;
        let by_owner = by_owner.ok_or_else(unexpected)?;
        facts.receiver = facts.name.clone().map(|name| (caller.holder, name));
        let verdict = shared.judge(&facts, Some(RowId::Transfer(transfer)))?;

        let session = caller.session;
        let kind = Kind::TransferAccept(TransferAcceptance { transfer, signature, lifetime, session });
        let Answer::HandingOver { give, back, at } =
            shared.order_recorded(caller, kind, None, Some(verdict)).await?
        else {
            return Err(unexpected());
        };
        // To its end, whoever still waits for it: the provider and the books must come to the same owner.
        let change = Change { at, give, back };
        let carried_out = shared.tasks.spawn(carry_out(Arc::clone(shared), transfer, change, by_owner));
        carried_out.await.unwrap_or_else(|_| Err(unexpected()))
    }

    /// What the policy is told of a lease at its creation, as far as the lease goes over: who may not have made one like it
    /// may not be given it either. With it the owner's signature, if it is offered.
    fn facts_of_handed(
        &self,
        kind: policy::Kind,
        caller: Caller,
        view: View,
    ) -> Result<(Facts, Option<Signature>)> {
        let View::Handed { bytes, left, class, hops, by_owner } = view else { return Err(unexpected()) };
        let facts = Facts {
            bytes: Some(bytes),
            ttl: Some(left),
            class,
            hops: Some(hops),
            ..self.facts(kind, caller)
        };
        Ok((facts, by_owner))
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

/// What makes a provider go over to a new owner, and back.
#[derive(Clone, Copy)]
struct Change {
    at: Whereabouts,
    give: Take,
    back: Take,
}

impl Change {
    async fn tell(&self, shared: &Shared, take: Take) -> Result<Taken> {
        shared.links.take(self.at, take, EndCause::Transfer).await
    }
}

/// Has the provider go over to the new owner, and then the books. Where either refuses, both are the former owner's.
async fn carry_out(
    shared: Arc<Shared>,
    transfer: TransferId,
    change: Change,
    by_owner: Signature,
) -> Result<Reply> {
    // Which acceptance this is: the offer may have been accepted again when the provider answers.
    let Take::Owner { since, .. } = change.give else { return Err(unexpected()) };
    if let Err(refused) = change.tell(&shared, change.give).await {
        came_to_nothing(&shared, transfer, since, change).await?;
        return Err(refused);
    }
    // From here on it is a taking back that was done: it is recorded as soon as that is possible, and the new owner hears
    // of it after that.
    let outcome = shared.order(system(Kind::TransferDone { transfer, since })).await?;
    let (row, terms) = match outcome.answer {
        Ok(Answer::Leased { lease, terms, .. }) => (lease, terms),
        Ok(_) => return Err(unexpected()),
        // It was done: nothing of it may be taken back.
        Err(done) if done.code() == Code::Exists => return Err(done),
        Err(refused) => {
            // It was taken back meanwhile, perhaps before the provider heard of it at all; or the books refused.
            came_to_nothing(&shared, transfer, since, change).await?;
            return Err(refused);
        }
    };
    let token = shared.minting.mint(&terms);
    recorded_index(outcome.recorded).await?;
    Ok(Reply::Transferred { lease: row, token: token?, by_owner })
}

/// Has the provider told the former owner, which changes nothing where it is not at this acceptance. The order does it
/// for one that still stands; if it cannot be ordered, the deadline does the same.
async fn came_to_nothing(
    shared: &Shared,
    transfer: TransferId,
    since: UnixMicros,
    change: Change,
) -> Result<()> {
    let ordered = shared.order_and_wait(Kind::TransferBack { transfer, since }).await;
    if ordered.is_err() {
        // It was taken back before, and the provider may have heard of that before it heard of the acceptance. A lease
        // that is gone has no owner.
        if let Err(error) = change.tell(shared, change.back).await
            && matches!(error.code(), Code::Unreachable | Code::Timeout | Code::Busy)
        {
            let (provider, take) = (change.at.provider, change.back);
            // Told again when it answers. Refused where nothing of the lease is there any more.
            let _ = shared.order_surely(Kind::Untold { provider, take, cause: EndCause::Transfer }).await;
        }
    }
    ordered
}
