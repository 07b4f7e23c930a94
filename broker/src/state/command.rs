//! What can be asked of the state machine. A command carries everything that its outcome depends on: the time, the
//! random bytes, the policy's decision. Applying it asks nobody.

use caps::Code;
use caps::id::{DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, TransferId};
use caps::key::Signature;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{ShareContract, TransferContract};
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::link::{Notice, Take};
use caps::wire::provider::{Load, Registration};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime, Revocation};
use caps::wire::{Name, Reason};
use serde::{Deserialize, Serialize};

/// One ordered step. It holds no secret and no token, so it may be printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// When it was proposed. The state's time is the latest that any command named: it never goes back.
    pub at: UnixMicros,
    /// Who asks.
    pub by: Actor,
    /// Where new ids come from. Drawn by the proposer, so that every replica draws the same.
    #[serde(with = "serde_bytes")]
    pub random: [u8; 32],
    /// What the policy said, for the kinds that need it. Without it they are refused.
    pub policy: Option<PolicyVerdict>,
    /// What is asked.
    pub kind: Kind,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// The node itself: ticks, notices of the provider, the second half of a request, undoing.
    System,
    /// A session that proved this key.
    Principal(PrincipalKey),
}

/// A decision of the policy, made before ordering because it has a wall-clock limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyVerdict {
    /// Yes or no.
    pub allowed: bool,
    /// Which rule of the policy decided, counted from 0; `None` if no rule matched.
    pub rule: Option<u32>,
    /// SHA-256 of the policy that was asked.
    #[serde(with = "serde_bytes")]
    pub hash: [u8; 32],
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Registers a principal. Administrator only.
    PrincipalAdd {
        /// Its name.
        name: Name,
        /// Its key.
        key: PrincipalKey,
    },
    /// Sets capacity aside. Needs the policy.
    Reserve {
        /// What for.
        spec: LeaseSpec,
        /// The session that asks, for leases that end with their process.
        session: u64,
    },
    /// The provider committed the memory of a reservation. System only.
    Commit {
        /// Which.
        lease: LeaseId,
        /// How much.
        bytes: u64,
    },
    /// The claim of a reservation failed. System only.
    Abandon {
        /// Which.
        lease: LeaseId,
    },
    /// Moves a lease's end to `ttl` from now. Needs the policy.
    Renew {
        /// Which.
        lease: LeaseId,
        /// From now.
        ttl: Micros,
    },
    /// Gives a lease back.
    Release {
        /// Which.
        lease: LeaseId,
    },
    /// Step 1 of `MEM_SHARE`: the owner's signed contract.
    Offer {
        /// The contract.
        contract: ShareContract,
        /// The owner's signature.
        signature: Signature,
    },
    /// Step 2: policy and quota are checked. Needs the policy.
    Issue {
        /// Which.
        grant: GrantId,
    },
    /// Step 3: the receiver's signature on the same contract. Needs the policy.
    Accept(Acceptance),
    /// Takes rights back. Needs the policy, unless it is the administrator who asks.
    Revoke(Revocation),
    /// Nothing but the time. Ends what is over; proposed when [`next_deadline`](super::Broker::next_deadline) is
    /// reached.
    Tick,
    /// What a provider said unasked. System only.
    Notice {
        /// Which one said it: whoever proposes it knows that.
        provider: ProviderId,
        /// What it said.
        notice: Notice,
    },
    /// The provider said that it took a lease's memory back. System only.
    Taken {
        /// Which.
        lease: LeaseId,
    },
    /// A session's process is gone. System only.
    HolderExit {
        /// Which session.
        session: u64,
    },
    /// A provider's process is gone and with it all its memory, or nothing was heard of it for too long. System only.
    ProviderLost {
        /// Which life of it.
        provider: ProviderId,
        /// Whether it is known to be gone. One of which only nothing was heard may serve what it has until its time is
        /// over, and that is booked until then.
        proved: bool,
    },
    /// Another policy is in force. Decisions of the one before are refused from here on. System only.
    PolicyLoad {
        /// SHA-256 of the policy.
        #[serde(with = "serde_bytes")]
        hash: [u8; 32],
    },
    /// Takes back what could not be recorded. System only.
    Undo(Undo),
    /// A refusal that was decided outside, because nothing had to be ordered for it. System only.
    Refused {
        /// Who was refused.
        who: PrincipalKey,
        /// With what.
        code: Code,
        /// About which row.
        about: Option<RowId>,
    },
    /// Takes a part of a grant back. Needs the policy, unless it is the administrator who asks.
    Narrow(Narrowing),
    /// Takes one block of a token back, with all that was made of it. Needs the policy, unless it is the administrator
    /// who asks.
    RevokeToken(TokenCut),
    /// Lends quota. Needs the policy.
    QuotaGive {
        /// Names the donation; drawn by the giver.
        id: DonationId,
        /// To whom.
        to: PrincipalKey,
        /// How much.
        bytes: u64,
        /// From now.
        ttl: Micros,
    },
    /// Ends a donation before its time.
    QuotaTakeBack {
        /// Which.
        id: DonationId,
    },
    /// Step 1 of `MEM_SHARE` where the contract names a co-signer. Needs the policy.
    OfferToCosign {
        /// The contract.
        contract: ShareContract,
        /// The owner's signature.
        signature: Signature,
        /// The user id of the owner's process: the policy is asked again, when that process may be gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uid: Option<u32>,
    },
    /// Between steps 1 and 2: the co-signer's signature on the same contract. Carries what the policy said about the
    /// [`Kind::Issue`] that follows it.
    Cosign {
        /// Which.
        grant: GrantId,
        /// The co-signer's signature.
        signature: Signature,
    },
    /// Offers a lease to another owner. Needs the policy.
    TransferOffer {
        /// The contract.
        contract: TransferContract,
        /// The owner's signature.
        signature: Signature,
    },
    /// The receiver's signature on the same contract. Needs the policy. The lease changes its owner when the provider has
    /// taken back what came from the former one, with [`Kind::TransferDone`].
    TransferAccept(TransferAcceptance),
    /// Takes an offer back that nobody accepted yet.
    TransferWithdraw {
        /// Which.
        transfer: TransferId,
    },
    /// The provider knows the new owner, and nothing of the former one can be reached. System only.
    TransferDone {
        /// Which.
        transfer: TransferId,
        /// Which acceptance of it: when the new owner's time was to begin.
        since: UnixMicros,
    },
    /// The provider did not go over to the new owner. System only.
    TransferBack {
        /// Which.
        transfer: TransferId,
        /// Which acceptance of it: when the new owner's time was to begin.
        since: UnixMicros,
    },
    /// A provider comes, with none of the memory that one of its name had before. System only: whoever proposes it knows
    /// that it is that provider.
    ProviderRegister {
        /// What it said.
        provider: Registration,
        /// Whether it is in the broker's own process, and so never silent.
        attached: bool,
    },
    /// A provider was heard. System only.
    ProviderHeartbeat {
        /// Which life of it.
        provider: ProviderId,
        /// What it said.
        load: Load,
    },
    /// Has a provider take no new leases, or take them again. Administrator only.
    ProviderDrain {
        /// Its name.
        name: Name,
        /// Whether it drains from now on.
        drain: bool,
    },
    /// Says that a provider's process is gone, as the administrator's word. Administrator only.
    ProviderGiveUp {
        /// Its name.
        name: Name,
    },
    /// A provider refused a claim, or did not answer it: until it is heard again others come first. System only.
    ProviderRefused {
        /// Which life of it.
        provider: ProviderId,
    },
    /// A provider did not answer when it was told to take something back. System only.
    Untold {
        /// Which life of it.
        provider: ProviderId,
        /// What it was told.
        take: Take,
        /// Why.
        cause: EndCause,
    },
    /// What it had not answered before it answered when it was told again. System only.
    Told {
        /// Which life of it.
        provider: ProviderId,
        /// What it was told.
        take: Take,
    },
}

/// A receiver's signature on the contract of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferAcceptance {
    /// Which offer.
    pub transfer: TransferId,
    /// The receiver's signature.
    pub signature: Signature,
    /// Whether the lease ends with the new owner's process.
    pub lifetime: Lifetime,
    /// The session that asks, for leases that do.
    pub session: u64,
}

/// One block of a token that the proposer has verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenCut {
    /// The token's lease.
    pub lease: LeaseId,
    /// The grant that it came by.
    pub grant: Option<GrantId>,
    /// Names the block.
    pub id: RevocationId,
    /// What all that was made of it carries, and nothing else does.
    pub marks: [Option<Mark>; 2],
    /// The bytes that the token reached at that block.
    pub range: Option<ByteRange>,
    /// When the token's time began.
    pub not_before: UnixMicros,
    /// When the token ended at that block.
    pub until: UnixMicros,
    /// Whether the one who asks has held the token up to that block.
    pub held: bool,
    /// Why.
    pub reason: Reason,
}

/// What a grant shall give at most. What is not named stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrowing {
    /// Which grant.
    pub grant: GrantId,
    /// What the receiver may still do.
    pub rights: Option<Rights>,
    /// To which bytes.
    pub range: Option<ByteRange>,
    /// For how long from now.
    pub ttl: Option<Micros>,
}

/// A receiver's signature on the contract of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// Which grant.
    pub grant: GrantId,
    /// The receiver's signature.
    pub signature: Signature,
    /// Whether the grant ends with the receiver's process.
    pub lifetime: Lifetime,
    /// The session that asks, for grants that do.
    pub session: u64,
}

/// What to take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Undo {
    /// A registration, with all that the principal began since.
    PrincipalAdd {
        /// Which.
        key: PrincipalKey,
    },
    /// A reservation or a lease.
    Lease {
        /// Which.
        lease: LeaseId,
    },
    /// A renewal.
    Renew {
        /// Which.
        lease: LeaseId,
        /// The end before it.
        expires: UnixMicros,
        /// When the time of the owner who renewed began: another owner's lease ends as that one was told.
        since: UnixMicros,
    },
    /// Steps 1 and 2 of a grant.
    Offer {
        /// Which.
        grant: GrantId,
    },
    /// Step 3 of a grant: it waits for its receiver again.
    Accept {
        /// Which.
        grant: GrantId,
    },
    /// A donation of quota.
    QuotaGive {
        /// Which.
        id: DonationId,
    },
    /// An offer of a lease.
    TransferOffer {
        /// Which.
        transfer: TransferId,
    },
    /// The acceptance of an offer: it waits for its receiver again.
    TransferAccept {
        /// Which.
        transfer: TransferId,
        /// Which acceptance of it: when the new owner's time was to begin.
        since: UnixMicros,
    },
}

/// A row that has a deadline, a session, or a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowId {
    /// A lease.
    Lease(LeaseId),
    /// A grant.
    Grant(GrantId),
    /// A donation of quota.
    Donation(DonationId),
    /// An offer of a lease.
    Transfer(TransferId),
}
