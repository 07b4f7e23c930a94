//! What a client asks. One request, one answer.

use serde::{Deserialize, Serialize};

use crate::id::{
    ClientId, DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, QuarantineId, SlotHandle, TransferId,
};
use crate::key::Signature;
use crate::pop::Nonce;
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::share::{ShareContract, TransferContract};
use crate::time::Micros;
use crate::token::Token;
use crate::wire::row::{Lifetime, Revocation};
use crate::wire::wrap::WrapId;
use crate::wire::{Name, Reason};

/// A message from a client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    // The session
    /// Names the key that the session will prove. First message.
    Hello {
        /// The key.
        holder: PrincipalKey,
        /// The client's half of the challenge.
        nonce: Nonce,
    },
    /// Answers the challenge. Second message.
    Prove {
        /// Over [`crate::pop::Transcript`].
        signature: Signature,
    },

    // The control plane
    /// Registers a principal. Administrator only.
    PrincipalAdd {
        /// Its name, unique at the node.
        name: Name,
        /// Its key, unique at the node.
        key: PrincipalKey,
    },
    /// Lists principals in the order of their keys.
    PrincipalList {
        /// The last key of the page before.
        after: Option<PrincipalKey>,
    },
    /// Leases memory: reserve, claim, commit, mint.
    LeaseCreate(LeaseSpec),
    /// Moves a lease's end to `ttl` from now, at most the configured maximum, and mints a token for the new end.
    LeaseRenew {
        /// Which lease.
        lease: LeaseId,
        /// From now.
        ttl: Micros,
    },
    /// Gives a lease back before its time.
    LeaseRelease {
        /// Which lease.
        lease: LeaseId,
    },
    /// Lists the caller's leases, or everyone's for the administrator.
    LeaseList {
        /// The last id of the page before.
        after: Option<LeaseId>,
    },
    /// Shows one lease with what the provider knows of its memory.
    LeaseShow {
        /// Which lease.
        lease: LeaseId,
    },
    /// Steps 1 and 2 of `MEM_SHARE`: the owner's signed contract; the broker checks and issues.
    ShareOffer {
        /// The contract.
        contract: ShareContract,
        /// The owner's signature.
        signature: Signature,
    },
    /// Step 3: the receiver's signature on the same contract. The answer carries the receiver's token.
    ShareAccept {
        /// Which grant.
        grant: GrantId,
        /// The receiver's signature.
        signature: Signature,
        /// Whether the grant ends with this process.
        lifetime: Lifetime,
    },
    /// The contract of a grant, so that a receiver sees what it is asked to sign.
    ShareShow {
        /// Which grant.
        grant: GrantId,
    },
    /// Lists the grants that the caller offered or was offered.
    ShareList {
        /// The last id of the page before.
        after: Option<GrantId>,
    },
    /// Takes rights back. The answer is a receipt, sent once nothing of the right can be reached.
    Revoke(Revocation),
    /// The node's numbers.
    Status,

    // Memory
    /// Opens a right: presents its token and asks for a mapping or for mediated access.
    Open {
        /// The token, bound to the key that this session proved.
        token: Token,
        /// What the client wants to do: `read`, or `read` and `write`.
        rights: Rights,
        /// By which path.
        path: Path,
    },
    /// Reads bytes through the provider.
    Read {
        /// An open right.
        handle: SlotHandle,
        /// First byte, counted from the region's start.
        offset: u64,
        /// At most [`crate::limits::CHUNK_BYTES_MAX`].
        length: u32,
    },
    /// Writes bytes through the provider.
    Write {
        /// An open right.
        handle: SlotHandle,
        /// First byte, counted from the region's start.
        offset: u64,
        /// The bytes, at most [`crate::limits::CHUNK_BYTES_MAX`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
        /// CRC32C of `data`.
        crc: u32,
    },
    /// Asks for the descriptor of one more segment of a mapped right; the first came with the answer to `Open`.
    Segment {
        /// An open right.
        handle: SlotHandle,
        /// Which segment, counted from the region's start.
        index: u32,
    },
    /// Asks for the session's rotation channel, once, before the first mapping: see [`crate::wire::channel`].
    Channel,
    /// Closes an open right. Mappings of it are the client's to unmap first; the provider counts it as given back.
    Close {
        /// An open right.
        handle: SlotHandle,
    },
    /// From here on the session serves a process in the sandbox: it opens, reads, writes and closes, and is refused
    /// everything else. There is no way back. Said again, by the program that took the session over, it is answered
    /// the same.
    Confine,
    /// Takes a part of a grant back and leaves the rest: what is not named stays as it is. Never wider than what is
    /// left. The answer is a receipt, sent once nothing beyond the rest can be reached.
    ShareNarrow {
        /// Which grant.
        grant: GrantId,
        /// What the receiver may still do.
        rights: Option<Rights>,
        /// To which bytes.
        range: Option<ByteRange>,
        /// For how long from now.
        ttl: Option<Micros>,
    },
    /// Takes a lease's region from everybody, as a revoke does, and keeps its bytes as they were. Administrator only.
    /// The answer is a receipt.
    QuarantineAdd {
        /// Whose region.
        lease: LeaseId,
        /// Why, for the log.
        reason: Reason,
    },
    /// Lists what is in quarantine. Administrator only.
    QuarantineList,
    /// Reads bytes of something in quarantine, which is recorded before they leave. Administrator only.
    QuarantineRead {
        /// Which row of the list.
        id: QuarantineId,
        /// First byte, counted from the region's start.
        offset: u64,
        /// At most [`crate::limits::CHUNK_BYTES_MAX`].
        length: u32,
    },
    /// Wipes something in quarantine and gives its bytes back to the pool. Administrator only.
    QuarantineRelease {
        /// Which row of the list.
        id: QuarantineId,
    },
    /// Takes back one block of a token and all that was made of it, and nothing else of its grant. For the owner of the
    /// lease, both sides of the grant, the administrator, and whoever held the token up to that block; it need not be the
    /// key of this session that the token is bound to now. The answer is a receipt.
    RevokeToken {
        /// The token.
        token: Token,
        /// Which block; the authority block is 0.
        block: u8,
        /// Why, for the log.
        reason: Reason,
    },
    /// Asks what opening with this token would find, without opening and without a record of it. For whoever has held
    /// the token, the lease's owner and the administrator.
    TokenCheck {
        /// The token.
        token: Token,
    },
    /// Draws a new root key, which mints from now on; the one before is believed until its last token has expired.
    /// Administrator only. The answer is the list as it is then.
    RootRotate,
    /// Believes a root key no longer: its tokens are refused, and what is open under them ends as by a revoke.
    /// Administrator only. The answer comes once nothing of them can be reached.
    RootRetire {
        /// Which key, by the id in its tokens.
        id: u32,
    },
    /// Lists the root keys that are believed. Administrator only.
    RootList,
    /// Puts a token into the node, to be fetched once under a fresh id. For whoever has held the token.
    Wrap {
        /// The token, which is kept as it is: what nobody shall extend is sealed before.
        token: Token,
        /// Who alone may fetch it; `None`: the first who knows the id.
        to: Option<PrincipalKey>,
        /// For how long from now. A token that ends sooner ends its wrap.
        ttl: Micros,
    },
    /// Takes a token out of the node. It works once.
    Unwrap {
        /// Which.
        id: WrapId,
    },
    /// Asks whether a token was fetched, and by whom. For whoever put it in, and the administrator.
    WrapShow {
        /// Which.
        id: WrapId,
    },
    /// Lends a part of the caller's quota of bytes: its limits fall and the receiver's rise by as much until the end.
    /// Asked again with the same id and the same terms, it is answered as before for as long as all of it is lent, refused
    /// while it is over and partly lent, and given anew once it is wholly back: then the id is free.
    QuotaGive {
        /// Names the donation; random.
        id: DonationId,
        /// Who may lease with it.
        to: PrincipalKey,
        /// How many bytes, of leases and of memory alike.
        bytes: u64,
        /// For how long from now.
        ttl: Micros,
    },
    /// Ends a donation before its time, for its giver and the administrator. What the receiver has leased with it stays lent until the
    /// receiver gives that memory back.
    QuotaTakeBack {
        /// Which donation.
        id: DonationId,
    },
    /// Lists the donations that the caller gave and was given, in the order of their ids, and says what its quota of
    /// bytes comes to.
    QuotaList {
        /// The last id of the page before.
        after: Option<DonationId>,
    },
    /// Between steps 1 and 2 of `MEM_SHARE`, where the contract names a co-signer: its signature on the same contract. The
    /// broker checks and issues.
    ShareCosign {
        /// Which grant.
        grant: GrantId,
        /// The co-signer's signature.
        signature: Signature,
    },

    // Handing a lease over
    /// Offers a lease to another owner: the present owner's signed contract.
    TransferOffer {
        /// The contract.
        contract: TransferContract,
        /// The owner's signature.
        signature: Signature,
    },
    /// The receiver's signature on the same contract. The answer carries the new owner's token, and is sent once nothing
    /// of the lease can be reached on a right of the former owner's, or on one that came from it.
    TransferAccept {
        /// Which offer.
        transfer: TransferId,
        /// The receiver's signature.
        signature: Signature,
        /// Whether the lease ends with this process from then on.
        lifetime: Lifetime,
    },
    /// The contract of an offer, so that a receiver sees what it is asked to sign.
    TransferShow {
        /// Which offer.
        transfer: TransferId,
    },
    /// Lists the offers that the caller made or was made.
    TransferList {
        /// The last id of the page before.
        after: Option<TransferId>,
    },
    /// Takes an offer back that nobody accepted yet. For both sides and the administrator.
    TransferWithdraw {
        /// Which offer.
        transfer: TransferId,
    },

    // Over TLS alone
    /// Says which program this is, so that what it asks again after its connection was lost is not done again.
    Resume {
        /// Drawn once a program. Together with the proven key it names what was answered before.
        client: ClientId,
    },

    // Providers
    /// Where a provider is. Whoever has a token knows its provider's id.
    ProviderShow {
        /// Which life of it.
        provider: ProviderId,
    },
    /// Has a provider take no new leases, or take them again. Administrator only.
    ProviderDrain {
        /// What it is called.
        name: Name,
        /// Whether it drains from now on.
        drain: bool,
    },
    /// Says that a provider's process and all its memory are gone, so that nothing of it is waited for any more.
    /// Administrator only, who answers for its truth.
    ProviderLost {
        /// What it is called.
        name: Name,
    },
}

/// What a lease should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseSpec {
    /// Bytes, rounded up to whole pages.
    pub bytes: u64,
    /// How long from now.
    pub ttl: Micros,
    /// What the owner calls it; unique among the owner's live leases.
    pub name: Option<Name>,
    /// Priority class, a fact for the policy.
    pub class: Option<Name>,
    /// Whether it ends with this process.
    pub lifetime: Lifetime,
    /// Bytes of a segment, the piece that is mapped and cut as one: a power of two from a page to 1 GiB. `None`: the
    /// whole region is one, or a region of more than 1 GiB as few as possible.
    pub segment_bytes: Option<u64>,
    /// How often the owner's token may be delegated. 0, the default, keeps sharing to grants that both sign.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_hops: u8,
    /// Where it should be: the label of a locality. A wish: it is taken elsewhere before it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Name>,
}

/// What is not asked for is not written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(hops: &u8) -> bool {
    *hops == 0
}

/// How a right is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The memory itself, by a descriptor. Refused with `E_MEDIATED_ONLY` where the right cannot be enforced so.
    Mapped,
    /// Reads and writes through the provider.
    Mediated,
}

/// What a request leaves behind, and so what becomes of it if it is made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: made again it is answered again.
    None,
    /// Something that goes with the session.
    Session,
    /// Something that outlives the session: without an answer its client cannot know whether it happened.
    Lasting,
}

// By hand: a request may hold a token or a client's bytes, and neither belongs in a trace.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())
    }
}

impl Request {
    /// What it leaves behind.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::Hello { .. }
            | Self::Prove { .. }
            | Self::PrincipalList { .. }
            | Self::LeaseList { .. }
            | Self::LeaseShow { .. }
            | Self::ShareShow { .. }
            | Self::ShareList { .. }
            | Self::Status
            | Self::Read { .. }
            | Self::Segment { .. }
            // Said again, by the program that took the session over, it is answered the same.
            | Self::Confine
            | Self::QuarantineList
            | Self::QuarantineRead { .. }
            | Self::TokenCheck { .. }
            | Self::RootList
            | Self::WrapShow { .. }
            | Self::QuotaList { .. }
            | Self::TransferShow { .. }
            | Self::TransferList { .. }
            | Self::Resume { .. }
            | Self::ProviderShow { .. } => Effect::None,
            Self::Open { .. } | Self::Channel | Self::Close { .. } => Effect::Session,
            Self::PrincipalAdd { .. }
            | Self::LeaseCreate(_)
            | Self::LeaseRenew { .. }
            | Self::LeaseRelease { .. }
            | Self::ShareOffer { .. }
            | Self::ShareAccept { .. }
            | Self::ShareCosign { .. }
            | Self::ShareNarrow { .. }
            | Self::Revoke(_)
            | Self::RevokeToken { .. }
            | Self::Write { .. }
            | Self::QuarantineAdd { .. }
            | Self::QuarantineRelease { .. }
            | Self::RootRotate
            | Self::RootRetire { .. }
            | Self::Wrap { .. }
            | Self::Unwrap { .. }
            | Self::QuotaGive { .. }
            | Self::QuotaTakeBack { .. }
            | Self::TransferOffer { .. }
            | Self::TransferAccept { .. }
            | Self::TransferWithdraw { .. }
            | Self::ProviderDrain { .. }
            | Self::ProviderLost { .. } => Effect::Lasting,
        }
    }

    /// The name of the variant.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::Prove { .. } => "Prove",
            Self::PrincipalAdd { .. } => "PrincipalAdd",
            Self::PrincipalList { .. } => "PrincipalList",
            Self::LeaseCreate(_) => "LeaseCreate",
            Self::LeaseRenew { .. } => "LeaseRenew",
            Self::LeaseRelease { .. } => "LeaseRelease",
            Self::LeaseList { .. } => "LeaseList",
            Self::LeaseShow { .. } => "LeaseShow",
            Self::ShareOffer { .. } => "ShareOffer",
            Self::ShareAccept { .. } => "ShareAccept",
            Self::ShareShow { .. } => "ShareShow",
            Self::ShareList { .. } => "ShareList",
            Self::Revoke(_) => "Revoke",
            Self::Status => "Status",
            Self::Open { .. } => "Open",
            Self::Read { .. } => "Read",
            Self::Write { .. } => "Write",
            Self::Segment { .. } => "Segment",
            Self::Channel => "Channel",
            Self::Close { .. } => "Close",
            Self::Confine => "Confine",
            Self::ShareNarrow { .. } => "ShareNarrow",
            Self::QuarantineAdd { .. } => "QuarantineAdd",
            Self::QuarantineList => "QuarantineList",
            Self::QuarantineRead { .. } => "QuarantineRead",
            Self::QuarantineRelease { .. } => "QuarantineRelease",
            Self::RevokeToken { .. } => "RevokeToken",
            Self::TokenCheck { .. } => "TokenCheck",
            Self::RootRotate => "RootRotate",
            Self::RootRetire { .. } => "RootRetire",
            Self::RootList => "RootList",
            Self::Wrap { .. } => "Wrap",
            Self::Unwrap { .. } => "Unwrap",
            Self::WrapShow { .. } => "WrapShow",
            Self::QuotaGive { .. } => "QuotaGive",
            Self::QuotaTakeBack { .. } => "QuotaTakeBack",
            Self::QuotaList { .. } => "QuotaList",
            Self::ShareCosign { .. } => "ShareCosign",
            Self::TransferOffer { .. } => "TransferOffer",
            Self::TransferAccept { .. } => "TransferAccept",
            Self::TransferShow { .. } => "TransferShow",
            Self::TransferList { .. } => "TransferList",
            Self::TransferWithdraw { .. } => "TransferWithdraw",
            Self::Resume { .. } => "Resume",
            Self::ProviderShow { .. } => "ProviderShow",
            Self::ProviderDrain { .. } => "ProviderDrain",
            Self::ProviderLost { .. } => "ProviderLost",
        }
    }
}
