//! What a client is told.

use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::id::{ClusterEpoch, PrincipalKey, ProviderId, SlotHandle};
use crate::key::Signature;
use crate::pop::Nonce;
use crate::range::ByteRange;
use crate::receipt::Receipt;
use crate::rights::Rights;
use crate::share::{ShareContract, TransferContract};
use crate::time::Micros;
use crate::token::Token;
use crate::wire::Name;
use crate::wire::provider::Address;
use crate::wire::row::{
    DonationRow, GrantRow, LeaseRow, MemoryRow, NodeStatus, PrincipalRow, QuarantineRow, QuotaRow, RootRow,
    Tier, TransferRow,
};
use crate::wire::wrap::{WrapId, WrapRow};

/// A message from a node. Errors travel in frames of their own kind.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once a request and sent or matched at once, never stored"
)]
pub enum Reply {
    /// To `Hello`.
    Challenge {
        /// The node that asks.
        node: ProviderId,
        /// Its half of the challenge.
        nonce: Nonce,
    },
    /// To `Prove`.
    Welcome(Welcome),
    /// Done, and there is nothing to say.
    Done,
    /// To `PrincipalList`.
    Principals(Page<PrincipalRow>),
    /// To `LeaseCreate` and `LeaseRenew`.
    Leased {
        /// The lease.
        lease: LeaseRow,
        /// Its capability, bound to the caller's key.
        token: Token,
    },
    /// To `LeaseList`.
    Leases(Page<LeaseRow>),
    /// To `LeaseShow`.
    Lease {
        /// What the broker knows.
        lease: LeaseRow,
        /// What the provider knows; `None` once the memory is gone.
        memory: Option<MemoryRow>,
    },
    /// To `ShareOffer` and `ShareCosign`.
    Shared(GrantRow),
    /// To `ShareAccept`.
    Accepted {
        /// The grant.
        grant: GrantRow,
        /// Its capability, bound to the caller's key.
        token: Token,
        /// The owner's signature on the contract, so that the receiver has both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_owner: Option<Signature>,
        /// The co-signer's, if the contract names one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_cosigner: Option<Signature>,
    },
    /// To `ShareShow`.
    Contract {
        /// The grant.
        grant: GrantRow,
        /// What to sign.
        contract: ShareContract,
        /// The owner's signature on it, so that the receiver need not take the node's word for the offer.
        by_owner: Signature,
        /// The receiver's, from its acceptance on: after the end of the grant, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_receiver: Option<Signature>,
        /// The co-signer's, if the contract names one and that has signed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_cosigner: Option<Signature>,
    },
    /// To `ShareList`.
    Grants(Page<GrantRow>),
    /// To `Revoke`, `LeaseRelease`, `ShareNarrow` and `QuarantineAdd`.
    Receipt(Receipt),
    /// To `Status`.
    Status(NodeStatus),
    /// To `Open`. A mapped right comes with one descriptor beside the frame.
    Opened(Opened),
    /// To `Segment`, with its descriptor beside the frame.
    Segment {
        /// Which.
        index: u32,
    },
    /// To `Channel`, with the channel's socket beside the frame.
    Channel,
    /// To `Read` and `QuarantineRead`.
    Data {
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// CRC32C of `bytes`.
        crc: u32,
    },
    /// To `Confine`: what the program that takes the session over has to know of it.
    Confined {
        /// The key that the session proved.
        holder: PrincipalKey,
        /// As at the session's beginning, with the tier that holds from now on.
        welcome: Welcome,
    },
    /// To `QuarantineList`, ascending by id: all of it, since there is never more than fits a page.
    Quarantine(Vec<QuarantineRow>),
    /// To `QuarantineRelease`.
    QuarantineOver {
        /// Bytes overwritten with zeros, and free again.
        wiped_bytes: u64,
    },
    /// To `TokenCheck`.
    Token(TokenState),
    /// To `RootRotate`, `RootRetire` and `RootList`: all that are believed, the one that mints first, then the others
    /// from the newest to the oldest.
    Roots(Vec<RootRow>),
    /// To `Wrap`.
    Wrapped {
        /// Under which the token can be fetched.
        id: WrapId,
        /// For how long: what was asked for, or what the token has left.
        expires_in: Micros,
    },
    /// To `Unwrap`.
    Unwrapped {
        /// The token, which the node has no more.
        token: Token,
    },
    /// To `WrapShow`.
    Wrap(WrapRow),
    /// To `QuotaGive` and `QuotaTakeBack`: the donation as it is then.
    Donated(DonationRow),
    /// To `QuotaList`.
    Quota {
        /// What the caller's own quota of bytes comes to.
        quota: QuotaRow,
        /// The donations that concern the caller; all of them for the administrator.
        donations: Page<DonationRow>,
    },
    /// To `TransferOffer` and `TransferWithdraw`.
    Transfer(TransferRow),
    /// To `TransferAccept`.
    Transferred {
        /// The lease, which is the caller's now.
        lease: LeaseRow,
        /// Its capability, bound to the caller's key.
        token: Token,
        /// The former owner's signature on the contract, so that the new one has both.
        by_owner: Signature,
    },
    /// To `TransferShow`.
    TransferContract {
        /// The offer.
        transfer: TransferRow,
        /// What to sign.
        contract: TransferContract,
        /// The owner's signature on it, so that the receiver need not take the node's word for the offer.
        by_owner: Signature,
        /// The receiver's, once it accepted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_receiver: Option<Signature>,
    },
    /// To `TransferList`.
    Transfers(Page<TransferRow>),
    /// To `Resume`.
    Resumed {
        /// Whether the node still has what it answered to this program before. If not, it does whatever it is asked as
        /// something new.
        known: bool,
    },
    /// To `ProviderShow`.
    Provider {
        /// What it is called, which its certificate says, too.
        name: Name,
        /// Where clients reach it over TLS; `None` if only at the socket of its own machine.
        address: Option<Address>,
    },
}

/// The state in which a session begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The life of the control plane.
    pub cluster: ClusterEpoch,
    /// The life of the provider.
    pub provider: ProviderId,
    /// The caller's registered name; an unregistered key may open tokens bound to it, and nothing else.
    pub name: Option<Name>,
    /// Whether the caller is the administrator.
    pub admin: bool,
    /// How strongly this session's mappings will be held.
    pub tier: Tier,
}

/// An opened right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Names the right in this session.
    pub handle: SlotHandle,
    /// What was opened.
    pub rights: Rights,
    /// The bytes the right reaches.
    pub range: ByteRange,
    /// Bytes of the region, whole pages.
    pub region_bytes: u64,
    /// Bytes of a segment: what a descriptor must measure. Only the region's last segment may be shorter.
    pub segment_bytes: u64,
    /// Whether a descriptor comes with this frame: that of the first segment that the right reaches. The others are
    /// asked for one by one.
    pub mapped: bool,
    /// How strongly this mapping is held.
    pub tier: Tier,
    /// How long the right still lives.
    pub expires_in: Micros,
    /// How long the audit device took to record the opening; zero if it was recorded before.
    pub audit: Micros,
}

/// What a node finds of a token that nobody opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenState {
    /// What its holder would be told on opening it for reading, or writing where it gives no reading; `None`: yes.
    pub code: Option<Code>,
    /// Which block that comes from, 0 being the broker's grant; `None` where it is no block's doing.
    pub block: Option<u8>,
    /// How long the right would still live: what is left of the token or of the lease, whichever ends first. Zero if
    /// it is over.
    pub expires_in: Micros,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page<T> {
    /// At most [`crate::limits::PAGE_ROWS_MAX`] rows.
    pub rows: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

// By hand: a reply may hold a token or a region's bytes, and neither belongs in a trace.
impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Challenge { .. } => "Challenge",
            Self::Welcome(_) => "Welcome",
            Self::Done => "Done",
            Self::Principals(_) => "Principals",
            Self::Leased { .. } => "Leased",
            Self::Leases(_) => "Leases",
            Self::Lease { .. } => "Lease",
            Self::Shared(_) => "Shared",
            Self::Accepted { .. } => "Accepted",
            Self::Contract { .. } => "Contract",
            Self::Grants(_) => "Grants",
            Self::Receipt(_) => "Receipt",
            Self::Status(_) => "Status",
            Self::Opened(_) => "Opened",
            Self::Segment { .. } => "Segment",
            Self::Channel => "Channel",
            Self::Data { .. } => "Data",
            Self::Confined { .. } => "Confined",
            Self::Quarantine(_) => "Quarantine",
            Self::QuarantineOver { .. } => "QuarantineOver",
            Self::Token(_) => "Token",
            Self::Roots(_) => "Roots",
            Self::Wrapped { .. } => "Wrapped",
            Self::Unwrapped { .. } => "Unwrapped",
            Self::Wrap(_) => "Wrap",
            Self::Donated(_) => "Donated",
            Self::Quota { .. } => "Quota",
            Self::Transfer(_) => "Transfer",
            Self::Transferred { .. } => "Transferred",
            Self::TransferContract { .. } => "TransferContract",
            Self::Transfers(_) => "Transfers",
            Self::Resumed { .. } => "Resumed",
            Self::Provider { .. } => "Provider",
        })
    }
}
