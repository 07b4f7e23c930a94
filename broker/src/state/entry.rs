//! What the log says: one function an entry, so that a reader of the log finds here what each field means.
//!
//! Drafts are a function of the commands alone. They name principals by key and by what the state calls them, never by
//! text that came with a request, the reason of a revocation and the names of rows excepted.

use audit::{Draft, Event};
use caps::id::{GrantId, PrincipalKey, ProviderId, TransferId};
use caps::key::Signature;
use caps::share::{Rest, ShareContract, TransferContract};
use caps::time::UnixMicros;
use caps::wire::provider::Registration;
use caps::wire::row::{EndCause, Target};
use caps::wire::{Name, Reason};
use caps::{Code, Error};

use super::Broker;
use super::answer::Out;
use super::command::{Actor, Command, Kind, RowId, TokenCut};
use super::donation::{Donation, DonationEnd};
use super::genesis::Genesis;
use super::grant::Grant;
use super::lease::{Lease, Live};
use super::transfer::{Accepted, Transfer};

/// The cause of a second entry of an offer, with the co-signer's signature: the log has no event of its own for it.
const COSIGNED: &str = "cosigned";

/// Who revoked, and why.
pub(super) struct Revoked<'a> {
    pub(super) by: PrincipalKey,
    pub(super) reason: &'a Reason,
}

impl Broker {
    /// What a log begins with: which life of the control plane it is, whose, and under which policy.
    #[must_use]
    pub fn opening(genesis: &Genesis) -> Vec<Draft> {
        vec![
            Draft::ok(Event::EpochBump)
                .cluster(genesis.cluster)
                .maybe(genesis.provider.as_ref(), |draft, said| draft.provider(said.id)),
            Draft::ok(Event::PolicyLoad).policy(&genesis.policy),
            principal_added(genesis.admin, &genesis.admin_name, genesis.admin).cause("administrator"),
        ]
    }

    /// Records that `command` was refused, before whatever else it caused.
    pub(super) fn record_refusal(&mut self, command: &Command, error: &Error, out: &mut Out) {
        let Actor::Principal(who) = command.by else { return };
        let Some(suppressed) = self.count_denial(who) else { return };
        let (event, about) = refusal_event(&command.kind);
        let mut draft = deny(event, error.code(), who, about, suppressed);
        match &command.kind {
            Kind::Reserve { spec, .. } => draft = draft.bytes(spec.bytes).ttl_us(spec.ttl),
            Kind::Renew { ttl, .. } => draft = draft.ttl_us(*ttl),
            Kind::PrincipalAdd { name, key } => draft = draft.name(name.as_str()).holder(*key),
            Kind::Revoke(revocation) => draft = aim(draft, &revocation.target),
            Kind::RevokeToken(cut) => draft = draft.revocation_id(&cut.id.0),
            Kind::Offer { contract, .. } | Kind::OfferToCosign { contract, .. } => {
                draft = draft.lease(contract.lease).receiver(contract.receiver);
                draft = draft.maybe(contract.cosigner, Draft::cosigner);
            }
            Kind::Cosign { .. } => draft = draft.cause(COSIGNED),
            Kind::QuotaGive { to, bytes, ttl, .. } => {
                draft = draft.receiver(*to).bytes(*bytes).ttl_us(*ttl);
            }
            Kind::TransferOffer { contract, .. } => draft = draft.lease(contract.lease).receiver(contract.to),
            Kind::ProviderDrain { name, .. } => draft = draft.name(name.as_str()),
            _ => {}
        }
        if let (Code::PolicyDenied, Some(verdict)) = (error.code(), &command.policy) {
            draft = draft.policy(&verdict.hash);
        }
        out.entries.insert(0, draft);
    }

    /// Counts a request of `who` that changed nothing: `Some` with how many were left out before, if this one is to be
    /// recorded.
    pub(super) fn count_denial(&mut self, who: PrincipalKey) -> Option<u64> {
        match self.principals.rows.get_mut(&who) {
            Some(principal) => principal.denials.count(self.now),
            None => self.strangers.count(self.now),
        }
    }
}

/// The event of a refused request, and which row it was about.
fn refusal_event(kind: &Kind) -> (Event, Option<RowId>) {
    match kind {
        Kind::PrincipalAdd { .. } | Kind::ProviderDrain { .. } => (Event::ConfigLoad, None),
        Kind::Renew { lease, .. }
        | Kind::Release { lease }
        | Kind::Commit { lease, .. }
        | Kind::RevokeToken(TokenCut { lease, .. }) => (Event::LeaseDeny, Some(RowId::Lease(*lease))),
        Kind::Offer { contract, .. } | Kind::OfferToCosign { contract, .. } => {
            (Event::ShareOffer, Some(RowId::Grant(contract.grant)))
        }
        Kind::Cosign { grant, .. } => (Event::ShareOffer, Some(RowId::Grant(*grant))),
        Kind::TransferOffer { contract, .. } => (Event::LeaseOffer, Some(RowId::Transfer(contract.transfer))),
        Kind::TransferAccept(acceptance) => (Event::LeaseOffer, Some(RowId::Transfer(acceptance.transfer))),
        Kind::TransferWithdraw { transfer } => (Event::LeaseOffer, Some(RowId::Transfer(*transfer))),
        Kind::Issue { grant } => (Event::ShareIssue, Some(RowId::Grant(*grant))),
        Kind::Accept(acceptance) => (Event::ShareAccept, Some(RowId::Grant(acceptance.grant))),
        Kind::Narrow(narrowing) => (Event::LeaseAttenuate, Some(RowId::Grant(narrowing.grant))),
        Kind::QuotaGive { id, .. } | Kind::QuotaTakeBack { id } => {
            (Event::ConfigLoad, Some(RowId::Donation(*id)))
        }
        _ => (Event::LeaseDeny, None),
    }
}

fn deny(event: Event, code: Code, who: PrincipalKey, about: Option<RowId>, suppressed: u64) -> Draft {
    let event = if matches!(code, Code::Quota | Code::NoMemory) { Event::QuotaDeny } else { event };
    let draft = Draft::deny(event, code).subject(who);
    let draft = match about {
        Some(RowId::Lease(id)) => draft.lease(id),
        Some(RowId::Grant(id)) => draft.grant(id),
        Some(RowId::Donation(id)) => draft.donation(id).cause(QUOTA),
        Some(RowId::Transfer(id)) => contract_id(draft, id),
        None => draft,
    };
    if suppressed > 0 { draft.suppressed(suppressed) } else { draft }
}

/// A refusal that was decided before anything had to be ordered.
pub(super) fn refused(who: PrincipalKey, code: Code, about: Option<RowId>, suppressed: u64) -> Draft {
    deny(Event::LeaseDeny, code, who, about, suppressed)
}

// The log has no event of its own for principals: they are configuration that takes effect while running.

pub(super) fn principal_added(by: PrincipalKey, name: &Name, key: PrincipalKey) -> Draft {
    Draft::ok(Event::ConfigLoad).subject(by).holder(key).name(name.as_str())
}

pub(super) fn principal_undone(key: PrincipalKey) -> Draft {
    Draft::error(Event::ConfigLoad, Code::AuditUnavailable).holder(key).cause(EndCause::NotRecorded.name())
}

pub(super) fn reserved(lease: &Lease, policy: &[u8; 32], claim_by: UnixMicros) -> Draft {
    Draft::ok(Event::LeaseOffer)
        .subject(lease.owner)
        .lease(lease.id)
        .region(lease.region)
        .bytes(lease.range.len())
        .ttl_us(lease.ttl)
        .expires(claim_by)
        .policy(policy)
        .maybe(lease.name.as_ref(), |draft, name| draft.name(name.as_str()))
}

pub(super) fn granted(lease: &Lease, expires: UnixMicros) -> Draft {
    Draft::ok(Event::LeaseGrant)
        .subject(lease.owner)
        .lease(lease.id)
        .region(lease.region)
        .provider(lease.provider)
        .rights(caps::rights::Rights::ALL)
        .range(lease.range)
        .expires(expires)
}

pub(super) fn renewed(lease: &Lease, expires: UnixMicros, policy: &[u8; 32]) -> Draft {
    Draft::ok(Event::LeaseRenew).subject(lease.owner).lease(lease.id).expires(expires).policy(policy)
}

pub(super) fn renewal_undone(lease: &Lease, expires: UnixMicros) -> Draft {
    Draft::error(Event::LeaseRenew, Code::AuditUnavailable)
        .subject(lease.owner)
        .lease(lease.id)
        .expires(expires)
        .cause(EndCause::NotRecorded.name())
}

/// A lease begins to end, or is found to have ended.
pub(super) fn ended(lease: &Lease, cause: EndCause, words: Option<&Revoked<'_>>) -> Draft {
    let event = match cause {
        EndCause::Released => Event::LeaseRelease,
        EndCause::Expired | EndCause::NotClaimed => Event::LeaseExpire,
        EndCause::HolderExit => Event::HolderExit,
        EndCause::ProviderLost => Event::ProviderLost,
        EndCause::Revoked
        | EndCause::NotRecorded
        | EndCause::ParentEnded
        | EndCause::NodeStopped
        | EndCause::Narrowed
        | EndCause::Transfer => Event::LeaseRevoke,
    };
    let draft = Draft::ok(event)
        .subject(words.map_or(lease.owner, |words| words.by))
        .owner(lease.owner)
        .lease(lease.id)
        .region(lease.region)
        .bytes(lease.range.len())
        .cause(cause.name());
    with_reason(draft, words)
}

/// A revocation that found nothing left to take.
pub(super) fn revoked_again(target: &Target, words: &Revoked<'_>, suppressed: u64) -> Draft {
    let draft = Draft::ok(Event::LeaseRevoke).subject(words.by).cause(EndCause::Revoked.name());
    with_reason(aim(repeated(draft, suppressed), target), Some(words))
}

/// A token was taken back below its grant, by the signature that the entry shows.
pub(super) fn block_revoked(cut: &TokenCut, owner: Option<PrincipalKey>, words: &Revoked<'_>) -> Draft {
    let draft = Draft::ok(Event::LeaseRevoke)
        .subject(words.by)
        .maybe(owner, Draft::owner)
        .lease(cut.lease)
        .maybe(cut.grant, Draft::grant)
        .revocation_id(&cut.id.0)
        .cause(EndCause::Revoked.name());
    with_reason(draft, Some(words))
}

/// Somebody was taken back as a delegate, on so many leases.
pub(super) fn delegate_revoked(holder: PrincipalKey, leases: u64, words: &Revoked<'_>) -> Draft {
    let draft = Draft::ok(Event::LeaseRevoke)
        .subject(words.by)
        .holder(holder)
        .count(leases)
        .cause(EndCause::Revoked.name());
    with_reason(draft, Some(words))
}

/// A part of a grant was taken back: what it gives from now on. What was agreed stands in the entry of the offer.
pub(super) fn narrowed(grant: &Grant, by: PrincipalKey, left: &Rest) -> Draft {
    Draft::ok(Event::LeaseAttenuate)
        .subject(by)
        .grant(grant.contract.grant)
        .lease(grant.contract.lease)
        .region(grant.contract.region)
        .receiver(grant.contract.receiver)
        .rights(left.rights)
        .range(left.range)
        .expires(left.expires)
        .cause(EndCause::Narrowed.name())
}

/// The entry of something that had been done before and changed nothing.
pub(super) fn repeated(draft: Draft, suppressed: u64) -> Draft {
    let draft = draft.count(0);
    if suppressed > 0 { draft.suppressed(suppressed) } else { draft }
}

fn aim(draft: Draft, target: &Target) -> Draft {
    match target {
        Target::Lease(id) => draft.lease(*id),
        Target::Grant(id) => draft.grant(*id),
        Target::Subtree(id) => draft.parent_grant(*id),
        Target::Holder(key) => draft.holder(*key),
        Target::Region(id) => draft.region(*id),
        Target::Block { lease, id } => draft.lease(*lease).revocation_id(&id.0),
    }
}

fn with_reason(draft: Draft, words: Option<&Revoked<'_>>) -> Draft {
    match words.map(|words| words.reason.as_str()) {
        Some(reason) if !reason.is_empty() => draft.reason(reason),
        Some(_) | None => draft,
    }
}

/// The fields of the contract that all its parties sign. With their signatures an auditor can check the pair offline.
fn contract(draft: Draft, contract: &ShareContract) -> Draft {
    draft
        .cluster(contract.cluster)
        .grant(contract.grant)
        .lease(contract.lease)
        .region(contract.region)
        .owner(contract.owner)
        .receiver(contract.receiver)
        .rights(contract.rights)
        .range(contract.range)
        .ttl_us(contract.ttl)
        .hops(u32::from(contract.max_hops))
        .maybe(contract.cosigner, Draft::cosigner)
}

pub(super) fn offered(grant: &Grant) -> Draft {
    contract(Draft::ok(Event::ShareOffer), &grant.contract)
        .subject(grant.contract.owner)
        .signature(&grant.by_owner)
}

/// The co-signer's signature, beside the contract as in the entry of the offer.
pub(super) fn cosigned(grant: &Grant, by: PrincipalKey, by_cosigner: &Signature) -> Draft {
    contract(Draft::ok(Event::ShareOffer), &grant.contract).subject(by).signature(by_cosigner).cause(COSIGNED)
}

pub(super) fn issued(grant: &Grant, expires: UnixMicros, policy: &[u8; 32]) -> Draft {
    Draft::ok(Event::ShareIssue)
        .subject(grant.contract.owner)
        .grant(grant.contract.grant)
        .lease(grant.contract.lease)
        .receiver(grant.contract.receiver)
        .expires(expires)
        .policy(policy)
        .maybe(grant.contract.cosigner, Draft::cosigner)
}

/// The receiver's signature; the owner's stands in the entry of the offer, which has the same contract.
pub(super) fn accepted(grant: &Grant, by_receiver: &Signature, expires: UnixMicros) -> Draft {
    contract(Draft::ok(Event::ShareAccept), &grant.contract)
        .subject(grant.contract.receiver)
        .signature(by_receiver)
        .expires(expires)
}

pub(super) fn acceptance_undone(grant: &Grant) -> Draft {
    Draft::error(Event::ShareAccept, Code::AuditUnavailable)
        .subject(grant.contract.receiver)
        .grant(grant.contract.grant)
        .lease(grant.contract.lease)
        .cause(EndCause::NotRecorded.name())
}

pub(super) fn opened(grant: &Grant) -> Draft {
    Draft::ok(Event::ShareOpen)
        .subject(grant.contract.receiver)
        .grant(grant.contract.grant)
        .lease(grant.contract.lease)
}

pub(super) fn share_ended(grant: &Grant, cause: EndCause, words: Option<&Revoked<'_>>) -> Draft {
    let draft = Draft::ok(Event::ShareEnd)
        .subject(words.map_or(grant.contract.owner, |words| words.by))
        .grant(grant.contract.grant)
        .lease(grant.contract.lease)
        .receiver(grant.contract.receiver)
        .cause(cause.name());
    with_reason(draft, words)
}

pub(super) fn provider_lost(provider: ProviderId, leases: usize) -> Draft {
    Draft::ok(Event::ProviderLost).provider(provider).count(leases as u64)
}

/// Somebody with a certificate of a provider says what became of a lease elsewhere.
pub(super) fn presumed(provider: ProviderId, code: Code, about: RowId, suppressed: u64) -> Draft {
    let draft = Draft::deny(Event::LeaseDeny, code).provider(provider);
    let draft = match about {
        RowId::Lease(lease) => draft.lease(lease),
        RowId::Grant(grant) => draft.grant(grant),
        RowId::Donation(_) | RowId::Transfer(_) => draft,
    };
    if suppressed > 0 { draft.suppressed(suppressed) } else { draft }
}

pub(super) fn provider_given_up(by: PrincipalKey, name: &Name, leases: usize) -> Draft {
    Draft::ok(Event::ProviderLost).subject(by).name(name.as_str()).count(leases as u64)
}

pub(super) fn provider_up(said: &Registration) -> Draft {
    Draft::ok(Event::NodeJoin).provider(said.id).name(said.name.as_str()).bytes(said.bytes)
}

// Nor has the log an event for a provider that drains: it is configuration.

pub(super) fn provider_drained(by: PrincipalKey, provider: ProviderId, name: &Name, drain: bool) -> Draft {
    let cause = if drain { "drain" } else { "undrain" };
    Draft::ok(Event::ConfigLoad).subject(by).provider(provider).name(name.as_str()).cause(cause)
}

pub(super) fn policy_loaded(hash: &[u8; 32]) -> Draft {
    Draft::ok(Event::PolicyLoad).policy(hash)
}

// Nor has it one for quotas: a donation moves two limits of the configuration for a time.

/// The cause of entries about donations that live, and of those that were refused.
const QUOTA: &str = "quota";

fn donation(draft: Draft, donation: &Donation) -> Draft {
    draft.donation(donation.id).owner(donation.giver).receiver(donation.receiver).bytes(donation.bytes)
}

pub(super) fn donated(given: &Donation, expires: UnixMicros, policy: &[u8; 32]) -> Draft {
    donation(Draft::ok(Event::ConfigLoad), given)
        .subject(given.giver)
        .ttl_us(given.ttl)
        .expires(expires)
        .policy(policy)
        .cause(QUOTA)
}

/// A donation is over. `used` is what its receiver has leased with it, which stays lent for the present.
pub(super) fn donation_ended(over: &Donation, end: DonationEnd, used: u64) -> Draft {
    let draft = match end {
        DonationEnd::NotRecorded => Draft::error(Event::ConfigLoad, Code::AuditUnavailable),
        _ => Draft::ok(Event::ConfigLoad),
    };
    let subject = match end {
        DonationEnd::TakenBack { by } => by,
        _ => over.giver,
    };
    donation(draft, over).subject(subject).used(used).cause(end.name())
}

/// The last of a donation that was over is back.
pub(super) fn donation_returned(over: &Donation) -> Draft {
    donation(Draft::ok(Event::ConfigLoad), over).subject(over.receiver).used(0).cause("quota_returned")
}

/// A donation, or its end, was asked for again.
pub(super) fn donated_again(given: &Donation, by: PrincipalKey, suppressed: u64) -> Draft {
    let draft = donation(Draft::ok(Event::ConfigLoad), given).subject(by).cause(QUOTA);
    repeated(draft, suppressed)
}

// A lease that changes its owner: offers of it are `lease.offer` with a receiver, and the change is a `lease.release` of
// the former owner's and a `lease.grant` of the new one's. The id of the contract stands where that of a share's does.

fn contract_id(draft: Draft, id: TransferId) -> Draft {
    draft.grant(GrantId(id.0))
}

/// The fields of the contract that both sign. With both signatures an auditor can check the pair offline.
fn transfer_contract(draft: Draft, contract: &TransferContract) -> Draft {
    contract_id(draft, contract.transfer)
        .cluster(contract.cluster)
        .lease(contract.lease)
        .region(contract.region)
        .owner(contract.from)
        .receiver(contract.to)
        .ttl_us(contract.ttl)
}

pub(super) fn transfer_offered(transfer: &Transfer, accept_by: UnixMicros, policy: &[u8; 32]) -> Draft {
    transfer_contract(Draft::ok(Event::LeaseOffer), &transfer.contract)
        .subject(transfer.contract.from)
        .signature(&transfer.by_owner)
        .expires(accept_by)
        .policy(policy)
        .cause(EndCause::Transfer.name())
}

/// The receiver's signature; the owner's stands in the entry of the offer, which has the same contract. The lease is the
/// former owner's until the entries of the change. `first_time` is when the new owner's time is to begin.
pub(super) fn transfer_accepted(transfer: &Transfer, accepted: &Accepted, policy: &[u8; 32]) -> Draft {
    transfer_contract(Draft::ok(Event::LeaseOffer), &transfer.contract)
        .subject(transfer.contract.to)
        .signature(&accepted.by_receiver)
        .first_time(accepted.since)
        .expires(accepted.done_by)
        .policy(policy)
        .cause(EndCause::Transfer.name())
}

fn transfer_over(transfer: &Transfer) -> Draft {
    let contract = &transfer.contract;
    contract_id(Draft::ok(Event::LeaseOffer), contract.transfer)
        .subject(contract.from)
        .owner(contract.from)
        .receiver(contract.to)
        .lease(contract.lease)
}

/// An acceptance, that whose `first_time` it is, came to nothing, and the offer stands again.
pub(super) fn transfer_stands(transfer: &Transfer, since: UnixMicros) -> Draft {
    transfer_over(transfer).first_time(since).cause("offer_stands")
}

/// An offer ended, for this cause. The lease stays where it is.
pub(super) fn transfer_ended(transfer: &Transfer, cause: EndCause) -> Draft {
    transfer_over(transfer).cause(cause.name())
}

/// The former owner's lease is over for it: every token whose time began before `first_time` is dead.
pub(super) fn handed_over(lease: &Lease, contract: &TransferContract, since: UnixMicros) -> Draft {
    contract_id(Draft::ok(Event::LeaseRelease), contract.transfer)
        .subject(contract.from)
        .owner(contract.from)
        .receiver(contract.to)
        .lease(lease.id)
        .region(lease.region)
        .bytes(lease.range.len())
        .first_time(since)
        .cause(EndCause::Transfer.name())
}

/// And is the new one's, from `first_time` on.
pub(super) fn taken_over(lease: &Lease, contract: &TransferContract, live: Live) -> Draft {
    contract_id(granted(lease, live.expires), contract.transfer)
        .owner(lease.owner)
        .first_time(live.since)
        .cause(EndCause::Transfer.name())
}
