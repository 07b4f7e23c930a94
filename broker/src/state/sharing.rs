//! The steps of `MEM_SHARE`: offer, issue, accept, open. Each is reached only from the one before; any other order is
//! `E_SHARE_ORDER`. The fifth, the end, is in `ending.rs`; what a co-signer does between the first two in `cosigning.rs`.

use caps::id::{GrantId, PrincipalKey};
use caps::key::Signature;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::UnixMicros;
use caps::token::Terms;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::command::{Acceptance, Command, RowId};
use super::grant::{Grant, GrantLife, Offered};
use super::handing::MOVING;
use super::lease::Life;
use super::{Broker, entry};

pub(super) const ORDER: Error = Error::new(Code::ShareOrder, "the grant is not at the step before this one");

impl Broker {
    pub(super) fn offer(
        &mut self,
        by: PrincipalKey,
        contract: &ShareContract,
        signature: &Signature,
        out: &mut Out,
    ) -> Result<Answer> {
        if contract.cosigner.is_some() {
            return Err(Error::new(Code::Protocol, "a contract with a co-signer is offered to it, too"));
        }
        self.offerable(by, contract)?;
        // Last, because it costs most.
        contract.verify(by, signature)?;
        let issue_by = self.now.plus(self.genesis.bounds.claim_within);
        Ok(self.offered(contract, signature, Offered { issue_by, uid: None }, out))
    }

    /// Whether a contract is one that the lease of `by` can carry. The owner's signature is not looked at.
    pub(super) fn offerable(&self, by: PrincipalKey, contract: &ShareContract) -> Result<()> {
        let bounds = self.genesis.bounds;
        if contract.cluster != self.genesis.cluster {
            return Err(Error::new(Code::Epoch, "the contract is of another life of the control plane"));
        }
        self.live_lease_of(by, contract.lease)?;
        if self.transfers.is_moving(contract.lease) {
            // Before its id is used up, so that the owner may offer the same once more.
            return Err(MOVING);
        }
        let lease = self.leases.get(contract.lease).ok_or(Code::LeaseUnknown)?;
        if contract.owner != by || contract.region != lease.region {
            return Err(Error::new(
                Code::LeaseUnknown,
                "the contract's owner and region are not the lease's",
            ));
        }
        if self.principals.active(contract.receiver).is_none() {
            return Err(Error::new(Code::PrincipalUnknown, "the receiver is not registered at this node"));
        }
        contract.check_parties()?;
        if contract.rights.is_empty() || !Rights::ALL.contains(contract.rights) {
            return Err(Error::new(
                Code::Range,
                "a share gives at least one right, and none the lease lacks",
            ));
        }
        if !lease.range.contains(contract.range) {
            return Err(Error::new(Code::Range, "a share's range lies within the lease's"));
        }
        if contract.ttl.0 == 0 || contract.ttl.0 > UnixMicros::MAX.0 {
            return Err(Error::new(Code::Range, "a span has 1 to 2^63 - 1 microseconds"));
        }
        if contract.max_hops > bounds.hops_max {
            return Err(Error::new(Code::Range, "a share allows at most as many delegations as the lease"));
        }
        if self.grants.rows.contains_key(&contract.grant) {
            return Err(Error::new(Code::Exists, "a grant of this id was offered before"));
        }
        if lease.grants >= bounds.grants_per_lease {
            return Err(Error::new(Code::Quota, "the lease has as many grants as one may have"));
        }
        if self.grants.active() >= self.genesis.capacity.grants as usize {
            return Err(Error::new(Code::Busy, "the table of grants is full"));
        }
        Ok(())
    }

    /// Writes down an offer that was checked.
    pub(super) fn offered(
        &mut self,
        contract: &ShareContract,
        signature: &Signature,
        offered: Offered,
        out: &mut Out,
    ) -> Answer {
        let life = GrantLife::Offered(offered);
        let grant = Grant { contract: *contract, by_owner: *signature, life, left: None, by_cosigner: None };
        out.entries.push(entry::offered(&grant));
        self.deadlines.swap(RowId::Grant(contract.grant), None, Some(offered.issue_by));
        let row = self.grant_row(&grant, self.now);
        self.grants.insert(grant);
        if let Some(lease) = self.leases.rows.get_mut(&contract.lease) {
            lease.grants += 1;
        }
        Answer::Shared(row)
    }

    pub(super) fn issue(
        &mut self,
        by: PrincipalKey,
        id: GrantId,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let grant = self.grant_seen_by(by, id)?;
        // A co-signer's signature is the last that an issue waits for, and the owner's process may be gone by then.
        if grant.contract.owner != by && grant.contract.cosigner != Some(by) {
            return Err(Error::new(Code::Denied, "only the grant's owner may have it issued"));
        }
        let GrantLife::Offered(offered) = grant.life else { return Err(ORDER) };
        // It waits on: what is not signed yet is no reason to end it.
        if !grant.is_cosigned() {
            return Err(ORDER);
        }
        if self.transfers.is_moving(grant.contract.lease) {
            // Its token would be younger than the new owner's time, and none of the former owner's may be. If the lease
            // stays, the offer is as good as before.
            return Err(MOVING);
        }
        match self.issuable(id, offered, command) {
            Ok(expires) => {
                if let Some(grant) = self.grants.get(id) {
                    out.entries.push(entry::issued(grant, expires, &self.policy));
                }
                Ok(Answer::Shared(self.grant_row_of(id)?))
            }
            Err(refused) => {
                // The owner signed an offer that is refused for good. Its row must not wait for a deadline.
                self.end_grant(id, EndCause::NotClaimed, None, out);
                Err(refused)
            }
        }
    }

    /// Checks policy and quota, and issues.
    fn issuable(&mut self, id: GrantId, offered: Offered, command: &Command) -> Result<UnixMicros> {
        if offered.issue_by <= self.now {
            return Err(Error::new(Code::LeaseExpired, "the offer was not issued in time"));
        }
        let grant = self.grants.get(id).ok_or(Code::GrantUnknown)?;
        let owner = grant.contract.owner;
        let live = self.live_lease_of(owner, grant.contract.lease)?;
        self.permitted(command)?;
        let (bytes, ttl) = (grant.contract.range.len(), grant.contract.ttl);
        if !grant.is_charged() {
            self.book_share(owner, bytes)?;
        }

        // A lease that has just come from somebody else may have begun a moment from now.
        let from = self.now.max(live.since);
        let issued = offered.issue(from, ttl, live.expires, self.genesis.bounds.accept_within);
        self.set_grant_life(id, GrantLife::Issued(issued));
        Ok(issued.expires)
    }

    pub(super) fn accept(
        &mut self,
        by: PrincipalKey,
        acceptance: &Acceptance,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let Acceptance { grant: id, signature, lifetime, session } = *acceptance;
        let grant = self.grant_of_party(by, id)?;
        let contract = grant.contract;
        if contract.receiver != by {
            return Err(Error::new(Code::Denied, "only the grant's receiver may accept it"));
        }
        let GrantLife::Issued(issued) = grant.life else { return Err(ORDER) };
        let left = grant.rest().ok_or(ORDER)?;
        if issued.accept_by.min(left.expires) <= self.now {
            return Err(Error::new(Code::LeaseExpired, "the grant's time is over"));
        }
        let provider = match self.leases.get(contract.lease).map(|lease| (lease.life, lease.provider)) {
            Some((Life::Live(live), provider)) if self.now < live.expires => provider,
            _ => return Err(Error::new(Code::LeaseExpired, "the lease's time is over")),
        };
        self.permitted(command)?;
        contract.verify(by, &signature)?;

        let accepted = issued.accept(signature, lifetime, session);
        self.set_grant_life(id, GrantLife::Accepted(accepted));
        if let Some(grant) = self.grants.get(id) {
            out.entries.push(entry::accepted(grant, &signature, left.expires));
        }
        Ok(Answer::Accepted {
            grant: self.grant_row_of(id)?,
            terms: Terms {
                lease: contract.lease,
                region: contract.region,
                grant: Some(id),
                // What it may have lost while it waited is in no token.
                range: left.range,
                rights: left.rights,
                holder: by,
                not_before: issued.since,
                expires: left.expires,
                max_hops: contract.max_hops,
                cluster: self.genesis.cluster,
                provider,
            },
        })
    }

    /// The provider served the grant's receiver for the first time.
    pub(super) fn opened(&mut self, id: GrantId, out: &mut Out) -> Result<Answer> {
        let grant = self.grants.get(id).ok_or(Error::new(Code::GrantUnknown, "no such grant"))?;
        let GrantLife::Accepted(accepted) = grant.life else { return Err(ORDER) };
        out.entries.push(entry::opened(grant));
        self.set_grant_life(id, GrantLife::Open(accepted));
        Ok(Answer::Done)
    }

    /// A grant, for its owner, its receiver and the administrator. To anybody else it does not exist.
    pub(super) fn grant_of_party(&self, by: PrincipalKey, id: GrantId) -> Result<&Grant> {
        self.grants
            .get(id)
            .filter(|grant| grant.contract.owner == by || grant.contract.receiver == by || self.is_admin(by))
            .ok_or(Error::new(Code::GrantUnknown, "no such grant that concerns you"))
    }

    /// As [`Self::grant_of_party`], and for its co-signer, who may look at it and sign it.
    pub(super) fn grant_seen_by(&self, by: PrincipalKey, id: GrantId) -> Result<&Grant> {
        let cosigned = self.grants.get(id).filter(|grant| grant.contract.cosigner == Some(by));
        cosigned.map_or_else(|| self.grant_of_party(by, id), Ok)
    }

    /// Moves a grant to another state, with its deadline and its session.
    pub(super) fn set_grant_life(&mut self, id: GrantId, to: GrantLife) {
        if let Some(grant) = self.grants.rows.get_mut(&id) {
            let due = grant.deadline();
            let from = std::mem::replace(&mut grant.life, to);
            self.deadlines.swap(RowId::Grant(id), due, grant.deadline());
            if from.session() != to.session() {
                from.session().map(|session| self.sessions.remove(&(session, RowId::Grant(id))));
                to.session().map(|session| self.sessions.insert((session, RowId::Grant(id))));
            }
        }
    }
}
