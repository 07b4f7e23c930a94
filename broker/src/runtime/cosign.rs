//! `ShareOffer` of a contract that names a co-signer (step 1 of `MEM_SHARE` alone), and `ShareCosign` (its signature, and
//! with it step 2).

use caps::Result;
use caps::id::{GrantId, PrincipalKey};
use caps::key::Signature;
use caps::share::ShareContract;
use caps::wire::Name;
use caps::wire::reply::Reply;
use policy::Facts;

use super::{Caller, Handle, unexpected};
use crate::state::{Answer, Kind, Query, RowId, View};

impl Handle {
    pub(super) async fn offer_to_cosign(
        &self,
        caller: Caller,
        contract: ShareContract,
        signature: Signature,
    ) -> Result<Reply> {
        let facts = self.facts_of_issue(&contract, caller.holder, caller.uid);
        let verdict = self.shared.judge(&facts, Some(RowId::Grant(contract.grant)))?;
        let kind = Kind::OfferToCosign { contract, signature, uid: caller.uid };
        match self.shared.order_recorded(caller, kind, None, Some(verdict)).await? {
            Answer::Shared(row) => Ok(Reply::Shared(row)),
            _ => Err(unexpected()),
        }
    }

    /// Orders the signature and the issue as one request: the owner need not be there any more. The policy judges what it
    /// judged at the offer, as the owner's request.
    pub(super) async fn cosign(&self, caller: Caller, grant: GrantId, signature: Signature) -> Result<Reply> {
        let shared = &self.shared;
        let View::ToCosign { contract, uid } = shared.look(caller.holder, Query::ToCosign(grant)).await?
        else {
            return Err(unexpected());
        };
        // Without one it is no offer any more: whatever the policy says, the state refuses, and records that.
        let facts = self.facts_of_issue(&contract, contract.owner, uid);
        let verdict = shared.judge_for(caller.holder, &facts, Some(RowId::Grant(grant)))?;
        let (first, then) = (Kind::Cosign { grant, signature }, Kind::Issue { grant });
        match shared.order_recorded(caller, first, Some(then), Some(verdict)).await? {
            Answer::Shared(row) => Ok(Reply::Shared(row)),
            _ => Err(unexpected()),
        }
    }

    /// What the policy is told of a contract that `owner` has, or wants to have, issued from a process of `uid`.
    pub(super) fn facts_of_issue(
        &self,
        contract: &ShareContract,
        owner: PrincipalKey,
        uid: Option<u32>,
    ) -> Facts {
        let directory = &self.shared.directory;
        Facts {
            bytes: Some(contract.range.len()),
            ttl: Some(contract.ttl),
            receiver: directory.get(contract.receiver).map(|name| (contract.receiver, name)),
            hops: Some(contract.max_hops),
            rights: contract.rights,
            cosigner: self.cosigner_of(contract),
            ..Facts::new(policy::Kind::ShareIssue, owner, directory.get(owner), uid)
        }
    }

    /// The co-signer as the policy knows it.
    pub(super) fn cosigner_of(&self, contract: &ShareContract) -> Option<(PrincipalKey, Name)> {
        let key = contract.cosigner?;
        self.shared.directory.get(key).map(|name| (key, name))
    }
}
