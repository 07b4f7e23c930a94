//! Leases, grants and principals as lists show them. A row is a view: it carries no authority and no secret.

use serde::{Deserialize, Serialize};

use crate::id::{DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, QuarantineId, RegionId, TransferId};
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::{Micros, UnixMicros};
use crate::token::{RevocationId, RootPublic};
use crate::wire::provider::{Address, Placement, ProviderRow};
use crate::wire::{Name, Reason};

/// How strongly a mapping of this machine's clients is held. `leasehold doctor` says what a machine allows and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Neither of the others: other uids map read-only and write through the provider.
    Open,
    /// The client was started in the sandbox, which refuses the calls that hurt.
    Sandboxed,
    /// Clients receive descriptors on which everything but `mmap` fails.
    Sealed,
}

impl Tier {
    /// Its word in logs, on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sandboxed => "sandboxed",
            Self::Sealed => "sealed",
        }
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// The broker set capacity aside; no memory yet.
    Reserved,
    /// Memory is committed and the token is out.
    Live,
    /// The memory is being taken back.
    Ending,
    /// Over. The row stays for a while so that a list can say how it ended.
    Ended,
}

/// Where a grant is in its life: the five steps of `MEM_SHARE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantState {
    /// The owner signed the contract. Where it names a co-signer, it waits here for that one's signature.
    Offered,
    /// The broker checked policy and quota and issued `MEM_SHARE:<id>`.
    Issued,
    /// The receiver signed the same contract.
    Accepted,
    /// The provider mapped it, or served it, for the receiver.
    Open,
    /// Over.
    Ended,
}

/// Why a lease or a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// Its holder gave it back.
    Released,
    /// Its time was over.
    Expired,
    /// The owner or the administrator revoked it.
    Revoked,
    /// The process it was tied to died.
    HolderExit,
    /// The lease it came from ended.
    ParentEnded,
    /// The reservation was not claimed in time, or the claim failed.
    NotClaimed,
    /// It could not be recorded, and was undone.
    NotRecorded,
    /// The provider's process is gone.
    ProviderLost,
    /// The node stopped.
    NodeStopped,
    /// Its owner or the administrator took a part of its grant back, and it was of that part.
    Narrowed,
    /// The lease went over to another owner, and it was a right of the former one, or came from it.
    Transfer,
}

impl EndCause {
    /// Its word in logs and on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::HolderExit => "holder_exit",
            Self::ParentEnded => "parent_ended",
            Self::NotClaimed => "not_claimed",
            Self::NotRecorded => "not_recorded",
            Self::ProviderLost => "provider_lost",
            Self::NodeStopped => "node_stopped",
            Self::Narrowed => "narrowed",
            Self::Transfer => "transfer",
        }
    }
}

/// Who lives or dies with whom: whether a right outlives the process that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    /// The right ends when the process that created or accepted it dies. The default of programs.
    #[default]
    Process,
    /// The right lives until its time is over. What the command line uses, whose processes are short.
    Detached,
}

/// Why memory is kept in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineCause {
    /// A fault about which the configuration says so.
    Policy,
    /// An administrator ordered it.
    ByHand,
    /// Its wipe failed, so that it could not be proved clean.
    Unwiped,
}

/// Something in quarantine: dead memory that is kept instead of given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineRow {
    /// Names it, for as long as the provider runs.
    pub id: QuarantineId,
    /// Whose memory it was.
    pub lease: LeaseId,
    /// Who owned it.
    pub owner: PrincipalKey,
    /// Which bytes of its region: all of it, or one segment that a rotation replaced.
    pub range: ByteRange,
    /// Bytes of it that an investigator can read: less than `range` where not every page could be pinned.
    pub readable_bytes: u64,
    /// When it was put there.
    pub since: UnixMicros,
    /// Why.
    pub cause: QuarantineCause,
}

/// A lease in a list. The token is not in it. A client passes over fields that it does not know: nodes of later releases
/// may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Which lease.
    pub id: LeaseId,
    /// Which memory.
    pub region: RegionId,
    /// What its owner calls it.
    pub name: Option<Name>,
    /// Who owns it. The owner of a lease is its first holder.
    pub owner: PrincipalKey,
    /// The owner's registered name.
    pub owner_name: Option<Name>,
    /// What the owner may do.
    pub rights: Rights,
    /// To which bytes.
    pub range: ByteRange,
    /// Bytes of a segment, the piece that is mapped and cut as one.
    pub segment_bytes: u64,
    /// How long it still lives; zero once it ended.
    pub expires_in: Micros,
    /// Where it is in its life.
    pub state: LeaseState,
    /// Why it ended, if it did.
    pub cause: Option<EndCause>,
    /// How often rights to this region were taken back: a token of an earlier epoch is dead.
    pub epoch: u32,
    /// The provider that holds the memory.
    pub provider: ProviderId,
    /// How many grants of it are alive.
    pub grants: u32,
    /// What its provider is called; only where it is shown alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Why it is where it is; only where it is shown alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Where clients reach its provider over TLS; only where it is shown alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// What the provider knows of a lease's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryRow {
    /// Bytes committed.
    pub bytes: u64,
    /// Bytes that the kernel backed with huge pages when the memory was made; the rest are pages of 4 KiB.
    pub huge_bytes: u64,
    /// Segments.
    pub segments: u32,
    /// How often a segment was rotated.
    pub rotations: u32,
    /// How strongly mappings are held.
    pub tier: Tier,
    /// Descriptors handed out for mapping and not closed by their holder.
    pub mappings: u32,
    /// Rights open now, mapped or mediated.
    pub opens: u32,
    /// Whether every page is held through a cut, so that a segment can be rotated. Whether it can also be wiped under a
    /// hostile holder's own pin is the machine's to say: `leasehold doctor`.
    pub pinned: bool,
}

/// A grant in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRow {
    /// Which grant.
    pub id: GrantId,
    /// Of which lease.
    pub lease: LeaseId,
    /// Of which memory.
    pub region: RegionId,
    /// Who shares.
    pub owner: PrincipalKey,
    /// The owner's registered name.
    pub owner_name: Option<Name>,
    /// Who receives.
    pub receiver: PrincipalKey,
    /// The receiver's registered name.
    pub receiver_name: Option<Name>,
    /// What the receiver may do: what is left of the contract's rights.
    pub rights: Rights,
    /// To which bytes: what is left of the contract's range.
    pub range: ByteRange,
    /// What both signed.
    pub agreed: Agreed,
    /// The span in the contract.
    pub ttl: Micros,
    /// How often the receiver may delegate onwards.
    pub max_hops: u8,
    /// How long it still lives; zero once it ended.
    pub expires_in: Micros,
    /// Where it is in its life.
    pub state: GrantState,
    /// Why it ended, if it did.
    pub cause: Option<EndCause>,
    /// Who else has to sign, if anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigner: Option<CosignerRow>,
}

/// The third party of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosignerRow {
    /// Its key.
    pub key: PrincipalKey,
    /// Its registered name.
    pub name: Option<Name>,
    /// Whether it has signed. An offer that it has not signed is not issued.
    pub signed: bool,
}

/// What the contract of a grant gives. A narrowing takes from the grant and leaves the contract as it was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// What the receiver may do.
    pub rights: Rights,
    /// To which bytes.
    pub range: ByteRange,
}

/// A principal in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalRow {
    /// What it is called.
    pub name: Name,
    /// Its key.
    pub key: PrincipalKey,
    /// Whether it is the administrator.
    pub admin: bool,
    /// Live leases.
    pub leases: u32,
    /// Bytes leased.
    pub leased_bytes: u64,
}

/// What a revocation is aimed at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A lease, with every grant of it.
    Lease(LeaseId),
    /// A grant, with all that was delegated from it.
    Grant(GrantId),
    /// Everything that a principal holds.
    Holder(PrincipalKey),
    /// A grant or lease and everything below it.
    Subtree(GrantId),
    /// A region, whoever holds it.
    Region(RegionId),
    /// One block of a token of a lease, with all that was made of it.
    Block {
        /// The lease.
        lease: LeaseId,
        /// The signature of the block, or of the delegation in it, as the log shows it. A delegation's own is the better
        /// one: whoever has the delegation can append it again, which changes the block's.
        id: RevocationId,
    },
}

/// The node's numbers, for `leasehold status`. A client passes over fields that it does not know, as in a [`LeaseRow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The life of the control plane.
    pub cluster: crate::id::ClusterEpoch,
    /// The life of the node's own provider; all zeros where it has none: see [`Self::own`].
    pub provider: ProviderId,
    /// How long the node has been up.
    pub uptime: Micros,
    /// Bytes of the pool.
    pub pool_bytes: u64,
    /// Bytes reserved or leased.
    pub leased_bytes: u64,
    /// Bytes of memory committed to regions, the ones being taken back included.
    pub committed_bytes: u64,
    /// Live leases.
    pub leases: u32,
    /// Live grants.
    pub grants: u32,
    /// Registered principals.
    pub principals: u32,
    /// Open sessions.
    pub sessions: u32,
    /// How strongly mappings of other uids are held; says nothing of a node without a provider of its own.
    pub tier: Tier,
    /// Whether the audit devices record.
    pub audit: bool,
    /// Entries in the broker's log.
    pub broker_entries: u64,
    /// Entries in the provider's log.
    pub provider_entries: u64,
    /// Hash of the policy in force, hexadecimal.
    pub policy: String,
    /// The node's own trial of its revocations; `None` where it is turned off.
    pub canary: Option<CanaryRow>,
    /// The providers, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<ProviderRow>,
}

impl NodeStatus {
    /// The node's own provider; `None` for a broker without memory of its own, to which no tier belongs either.
    #[must_use]
    pub fn own(&self) -> Option<ProviderId> {
        Some(self.provider).filter(|id| *id != ProviderId::NOBODY)
    }
}

/// How the revocation canary is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// No run has ended yet.
    #[default]
    Waiting,
    /// The last run found the revoked right dead, and no run found anything else.
    Ok,
    /// The node refused the last run, which says nothing about revocations.
    CouldNotRun,
    /// A run found that a revocation did not do what its receipt says. The node stays in this state.
    Failed,
    /// Nothing was heard for so long that nobody runs any more.
    Stopped,
}

/// The revocation canary's numbers. Times are those of the newest runs, as its clients saw them, and zero before the
/// first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryRow {
    /// How it is.
    pub state: CanaryState,
    /// How often it runs.
    pub every: Micros,
    /// From the call to revoke until the receiver was refused, in the last run.
    pub last: Micros,
    /// The same, half of the newest runs were as fast.
    pub p50: Micros,
    /// The same, 99 of 100 of the newest runs were as fast.
    pub p99: Micros,
    /// From the call to revoke until its receipt, in the last run.
    pub receipt: Micros,
    /// Runs that measured.
    pub runs: u64,
    /// Runs that found a revocation that did not do what its receipt says.
    pub failures: u64,
    /// Runs that could not be made.
    pub skipped: u64,
    /// Since something was heard last; `None` before the first time.
    pub age: Option<Micros>,
    /// Why it could not run, or what it found: a code, or a few words. Empty while all is well.
    pub said: String,
}

/// A revocation's request, as it stands in commands and frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// At what.
    pub target: Target,
    /// Why.
    pub reason: Reason,
}

/// What a root key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootState {
    /// It mints, and is believed.
    Minting,
    /// Its tokens are believed until the last of them has expired.
    Believed,
}

/// A root key in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootRow {
    /// The id by which tokens name it.
    pub id: u32,
    /// Its public half.
    pub public: RootPublic,
    /// When it began to mint.
    pub since: UnixMicros,
    /// What it is for.
    pub state: RootState,
    /// When it will be believed no longer: the latest end of a token that it minted. `None` while it mints.
    pub retires: Option<UnixMicros>,
}

/// Where a donation of quota is in its life. One that is over, and wholly back, is in no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DonationState {
    /// The receiver may lease with it.
    Given,
    /// It is over, and memory that was leased with it is not back: so much stays lent, and the receiver may lease
    /// nothing more.
    Returning,
}

/// A donation of quota in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DonationRow {
    /// Names it.
    pub id: DonationId,
    /// Whose limits fell.
    pub giver: PrincipalKey,
    /// The giver's name, if it is registered.
    pub giver_name: Option<Name>,
    /// Whose limits rose.
    pub receiver: PrincipalKey,
    /// The receiver's name, if it is registered.
    pub receiver_name: Option<Name>,
    /// Bytes that were given.
    pub bytes: u64,
    /// Bytes of them by which the limits still differ. Zero in the answer that says it is all back.
    pub lent: u64,
    /// How long until it is over; zero if it is.
    pub expires_in: Micros,
    /// Where it is in its life.
    pub state: DonationState,
}

/// What a principal's quota of bytes comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaRow {
    /// Bytes that it may lease by the node's configuration.
    pub limit_bytes: u64,
    /// Bytes of them that are lent to others.
    pub given_bytes: u64,
    /// Bytes that are lent to it.
    pub received_bytes: u64,
    /// Bytes of its leases, reservations included.
    pub used_bytes: u64,
    /// Bytes that it may still lease, if the pool has them.
    pub free_bytes: u64,
    /// Bytes that it may still give.
    pub giveable_bytes: u64,
}

/// Where an offer to hand a lease over is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferState {
    /// The owner signed; it waits for the receiver.
    Offered,
    /// The receiver signed, too, and the provider is taking the former owner's rights back.
    Accepted,
    /// The lease is the receiver's.
    Done,
    /// Over, and the lease stayed where it was.
    Ended,
}

/// An offer to hand a lease over, in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferRow {
    /// Which offer.
    pub id: TransferId,
    /// Of which lease.
    pub lease: LeaseId,
    /// Of which memory.
    pub region: RegionId,
    /// Bytes of that memory: what the receiver's quota must have; zero once the offer is over.
    pub bytes: u64,
    /// Who hands it over.
    pub from: PrincipalKey,
    /// Its registered name.
    pub from_name: Option<Name>,
    /// Who is to have it.
    pub to: PrincipalKey,
    /// Its registered name.
    pub to_name: Option<Name>,
    /// For how long the offer stands, as both sign it.
    pub ttl: Micros,
    /// How long it still stands; zero once it is over.
    pub stands_for: Micros,
    /// How long the lease still lives; zero once it or the offer is over.
    pub expires_in: Micros,
    /// Where it is in its life.
    pub state: TransferState,
    /// Why it ended, if it did and the lease stayed.
    pub cause: Option<EndCause>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{FRAME_BYTES_MAX, NAME_BYTES_MAX, PAGE_GRANTS_MAX};
    use crate::wire::reply::{Page, Reply};

    /// The text of a variant on the wire.
    fn wire(value: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        ciborium::from_reader(&bytes[..]).unwrap()
    }

    #[test]
    fn a_name_is_the_word_on_the_wire() {
        for tier in [Tier::Open, Tier::Sandboxed, Tier::Sealed] {
            assert_eq!(tier.name(), wire(&tier));
        }
        for cause in [
            EndCause::Released,
            EndCause::Expired,
            EndCause::Revoked,
            EndCause::HolderExit,
            EndCause::ParentEnded,
            EndCause::NotClaimed,
            EndCause::NotRecorded,
            EndCause::ProviderLost,
            EndCause::NodeStopped,
            EndCause::Narrowed,
            EndCause::Transfer,
        ] {
            assert_eq!(cause.name(), wire(&cause));
        }
    }

    /// A page of the longest grants there are fits a frame, with room for the frame's own.
    #[test]
    fn a_page_of_grants_fits_a_frame() {
        let (key, name) = (PrincipalKey([0xff; 32]), Name::new(&"n".repeat(NAME_BYTES_MAX)).unwrap());
        let range = ByteRange::new((1 << 62) - 1, 1 << 62).unwrap();
        let row = GrantRow {
            id: GrantId([0xff; 16]),
            lease: LeaseId([0xff; 16]),
            region: RegionId([0xff; 16]),
            owner: key,
            owner_name: Some(name.clone()),
            receiver: key,
            receiver_name: Some(name.clone()),
            rights: Rights::ALL,
            range,
            agreed: Agreed { rights: Rights::ALL, range },
            ttl: Micros(u64::MAX),
            max_hops: u8::MAX,
            expires_in: Micros(u64::MAX),
            state: GrantState::Accepted,
            cause: Some(EndCause::ProviderLost),
            cosigner: Some(CosignerRow { key, name: Some(name), signed: true }),
        };
        let page = Reply::Grants(Page { rows: vec![row; PAGE_GRANTS_MAX], more: true });
        let mut bytes = Vec::new();
        ciborium::into_writer(&page, &mut bytes).unwrap();
        assert!(bytes.len() + 256 < FRAME_BYTES_MAX, "{} bytes", bytes.len());
    }
}
