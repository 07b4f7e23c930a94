//! What a policy is told about a request: a closed list of typed facts.

use biscuit_auth::builder::{Fact, Term};
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::Name;
use caps::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A new lease.
    #[serde(rename = "lease.create")]
    LeaseCreate,
    /// More time for a lease.
    #[serde(rename = "lease.renew")]
    LeaseRenew,
    /// The owner's offer of a grant.
    #[serde(rename = "share.issue")]
    ShareIssue,
    /// The receiver's acceptance of a grant.
    #[serde(rename = "share.accept")]
    ShareAccept,
    /// A right, opened at the provider.
    #[serde(rename = "lease.open")]
    LeaseOpen,
    /// Taking back.
    #[serde(rename = "revoke")]
    Revoke,
    /// A part of one's own quota of bytes, lent to somebody else.
    #[serde(rename = "quota.give")]
    QuotaGive,
    /// The owner's offer to hand a lease over.
    #[serde(rename = "transfer.offer")]
    TransferOffer,
    /// The receiver's acceptance of a lease.
    #[serde(rename = "transfer.accept")]
    TransferAccept,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::LeaseCreate,
        Self::LeaseRenew,
        Self::ShareIssue,
        Self::ShareAccept,
        Self::LeaseOpen,
        Self::Revoke,
        Self::QuotaGive,
        Self::TransferOffer,
        Self::TransferAccept,
    ];

    /// The name in a policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeaseCreate => "lease.create",
            Self::LeaseRenew => "lease.renew",
            Self::ShareIssue => "share.issue",
            Self::ShareAccept => "share.accept",
            Self::LeaseOpen => "lease.open",
            Self::Revoke => "revoke",
            Self::QuotaGive => "quota.give",
            Self::TransferOffer => "transfer.offer",
            Self::TransferAccept => "transfer.accept",
        }
    }
}

/// The facts of one request.
///
/// Which of them a kind has, and what they mean there:
///
/// | kind | size | ttl | class | receiver | hops | rights | cosigner |
/// |---|---|---|---|---|---|---|---|
/// | `lease.create` | of the lease | asked for | if named | - | asked for | - | - |
/// | `lease.renew` | of the lease | asked for | - | - | - | - | - |
/// | `lease.open` | of the range | - | - | - | made | asked for | - |
/// | `share.issue` | of the range | of the grant | - | the receiver | granted | granted | if the contract names one |
/// | `share.accept` | of the range | of the grant | - | who accepts | granted | granted | if the contract names one |
/// | `revoke` | - | - | - | - | - | - | - |
/// | `quota.give` | given | of the donation | - | the receiver | - | - | - |
/// | `transfer.offer` | of the lease | what is left of the lease | of the lease, if it has one | who is to have it | of the lease | - | - |
/// | `transfer.accept` | of the lease | what is left of the lease | of the lease, if it has one | who accepts | of the lease | - | - |
///
/// So a rule about what may be leased can be stated of `transfer.accept` word for word as of `lease.create`.
///
/// Where a contract names a co-signer, `share.issue` is judged twice: when it is offered, so that nobody is asked to sign
/// what will not be, and once the co-signer has signed. Both times it is the owner who asks, by the process that offered.
/// Nothing is issued without the signature, so a rule may take the fact for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// What is asked.
    pub kind: Kind,
    /// Who asks.
    pub key: PrincipalKey,
    /// Its name, if it is registered. Without one there is no `principal` fact.
    pub name: Option<Name>,
    /// The user id of its process, if it is one of the node's machine. Without one there is no `uid` fact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// Microseconds.
    pub ttl: Option<Micros>,
    /// The lease's class.
    pub class: Option<Name>,
    /// The registered principal to whom it is shared or given.
    pub receiver: Option<(PrincipalKey, Name)>,
    /// How often the token may be delegated, or was.
    pub hops: Option<u8>,
    /// One `right` fact for each.
    pub rights: Rights,
    /// The registered principal that the contract names as its co-signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigner: Option<(PrincipalKey, Name)>,
}

impl Facts {
    /// The facts that every request has.
    #[must_use]
    pub const fn new(kind: Kind, key: PrincipalKey, name: Option<Name>, uid: Option<u32>) -> Self {
        Self {
            kind,
            key,
            name,
            uid,
            bytes: None,
            ttl: None,
            class: None,
            receiver: None,
            hops: None,
            rights: Rights::NONE,
            cosigner: None,
        }
    }

    /// The facts as terms of the engine. Nothing goes through text, so nothing a peer chose can be read as Datalog.
    pub(super) fn terms(&self) -> Result<Vec<Fact>> {
        let text = |name: &str| Term::Str(name.into());
        let key = |key: &PrincipalKey| Term::Bytes(key.0.to_vec());
        let mut facts = vec![fact("request", [text(self.kind.name())])];
        if let Some(uid) = self.uid {
            facts.push(fact("uid", [Term::Integer(uid.into())]));
        }
        if let Some(name) = &self.name {
            facts.push(fact("principal", [key(&self.key), text(name.as_str())]));
        }
        if let Some(bytes) = self.bytes {
            facts.push(fact("size", [integer(bytes)?]));
        }
        if let Some(ttl) = self.ttl {
            facts.push(fact("ttl", [integer(ttl.0)?]));
        }
        if let Some(class) = &self.class {
            facts.push(fact("class", [text(class.as_str())]));
        }
        if let Some((to, name)) = &self.receiver {
            facts.push(fact("receiver", [key(to), text(name.as_str())]));
        }
        if let Some(hops) = self.hops {
            facts.push(fact("hops", [Term::Integer(hops.into())]));
        }
        if let Some((by, name)) = &self.cosigner {
            facts.push(fact("cosigner", [key(by), text(name.as_str())]));
        }
        facts.extend(self.rights.iter().map(|right| fact("right", [text(right.name())])));
        Ok(facts)
    }
}

fn fact<const N: usize>(name: &str, terms: [Term; N]) -> Fact {
    Fact::new(name.into(), terms)
}

/// Datalog's integers have a sign: a size or span of 2^63 is out of range before any policy sees it.
fn integer(number: u64) -> Result<Term> {
    i64::try_from(number)
        .map(Term::Integer)
        .map_err(|_| Error::new(Code::Range, "the number is 2^63 or more"))
}
