//! `ShareOffer` (steps 1 and 2 of `MEM_SHARE`) and `ShareAccept` (step 3).

use caps::Result;
use caps::id::GrantId;
use caps::key::Signature;
use caps::share::{ShareContract, Signed};
use caps::wire::reply::Reply;
use caps::wire::row::Lifetime;

use super::{Caller, Handle, principal, recorded_index, unexpected};
use crate::state::{Acceptance, Answer, Kind, Query, RowId, View};

impl Handle {
    pub(super) async fn offer(
        &self,
        caller: Caller,
        contract: ShareContract,
        signature: Signature,
    ) -> Result<Reply> {
        if contract.cosigner.is_some() {
            return self.offer_to_cosign(caller, contract, signature).await;
        }
        let shared = &self.shared;
        let grant = contract.grant;
        let facts = self.facts_of_issue(&contract, caller.holder, caller.uid);
        let verdict = shared.judge(&facts, Some(RowId::Grant(grant)))?;

        let (first, then) = (Kind::Offer { contract, signature }, Kind::Issue { grant });
        match shared.order_recorded(caller, first, Some(then), Some(verdict)).await? {
            Answer::Shared(row) => Ok(Reply::Shared(row)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn accept(
        &self,
        caller: Caller,
        grant: GrantId,
        signature: Signature,
        lifetime: Lifetime,
    ) -> Result<Reply> {
        let shared = &self.shared;
        let View::Grant(_, Signed { contract, by_owner, by_cosigner, .. }) =
            shared.look(caller.holder, Query::Grant(grant)).await?
        else {
            return Err(unexpected());
        };
        let mut facts = self.facts(policy::Kind::ShareAccept, caller);
        facts.bytes = Some(contract.range.len());
        facts.ttl = Some(contract.ttl);
        facts.receiver = facts.name.clone().map(|name| (caller.holder, name));
        facts.hops = Some(contract.max_hops);
        facts.rights = contract.rights;
        facts.cosigner = self.cosigner_of(&contract);
        let verdict = shared.judge(&facts, Some(RowId::Grant(grant)))?;

        let kind = Kind::Accept(Acceptance { grant, signature, lifetime, session: caller.session });
        let outcome = shared.order(principal(caller, kind, None, Some(verdict))).await?;
        let (row, terms) = match outcome.answer {
            Ok(Answer::Accepted { grant, terms }) => (grant, terms),
            Ok(_) => return Err(unexpected()),
            Err(refused) => {
                recorded_index(outcome.recorded).await?;
                return Err(refused);
            }
        };
        // Minted beside the sync, given out after it.
        let token = shared.minting.mint(&terms);
        recorded_index(outcome.recorded).await?;
        Ok(Reply::Accepted { grant: row, token: token?, by_owner: Some(by_owner), by_cosigner })
    }
}
