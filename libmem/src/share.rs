//! `MEM_SHARE`: an offer by the owner, an acceptance by the receiver, two signatures on one contract.
//!
//! Accepting takes two calls on purpose. The first shows the contract, the second signs exactly what was shown: a
//! receiver never signs what it has not seen, and the node cannot swap the text in between.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, GrantId, PrincipalKey};
use caps::key::Signature;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{ShareContract, SharePair, Signed};
use caps::token::Token;
use caps::wire::Request;
use caps::wire::row::{GrantRow, LeaseRow};

use crate::lease::micros;

/// What an owner offers of a lease.
///
/// ```
/// # fn offer(lease: &libmem::LeaseRow, bob: libmem::PrincipalKey) -> libmem::Result<libmem::ShareOptions> {
/// use std::time::Duration;
/// use libmem::{ByteRange, Rights, ShareOptions};
///
/// Ok(ShareOptions::new(bob, Rights::READ).range(ByteRange::new(0, 4096)?).ttl(Duration::from_secs(60)))
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOptions {
    receiver: PrincipalKey,
    rights: Rights,
    range: Option<ByteRange>,
    ttl: Option<Duration>,
    max_hops: u8,
    cosigner: Option<PrincipalKey>,
}

impl ShareOptions {
    /// `rights` to the whole lease for as long as it lives, not to be delegated.
    #[must_use]
    pub fn new(receiver: PrincipalKey, rights: Rights) -> Self {
        Self { receiver, rights, range: None, ttl: None, max_hops: 0, cosigner: None }
    }

    /// Only these bytes of the region.
    #[must_use]
    pub fn range(mut self, range: ByteRange) -> Self {
        self.range = Some(range);
        self
    }

    /// Only for this long, counted from when the node issues the grant.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How often the receiver may delegate onwards.
    #[must_use]
    pub fn max_hops(mut self, max_hops: u8) -> Self {
        self.max_hops = max_hops;
        self
    }

    /// Only once this principal has signed it, too: until then the grant is an offer, and its receiver cannot accept it.
    #[must_use]
    pub fn cosigner(mut self, cosigner: PrincipalKey) -> Self {
        self.cosigner = Some(cosigner);
        self
    }

    /// The contract over `lease`, with a fresh grant id.
    ///
    /// # Errors
    /// `E_RANGE` if the time does not fit, if no right is given, if the range is not within the lease's, or if the
    /// co-signer is the owner or the receiver.
    pub fn contract(&self, cluster: ClusterEpoch, lease: &LeaseRow) -> Result<ShareContract> {
        let range = self.range.unwrap_or(lease.range);
        if !lease.range.contains(range) {
            return Err(Error::with(
                Code::Range,
                format!("the range {range} is not within the lease's {}", lease.range),
            ));
        }
        if self.rights.is_empty() {
            return Err(Error::new(Code::Range, "a share gives at least one right"));
        }
        let contract = ShareContract {
            cluster,
            grant: GrantId::random(),
            lease: lease.id,
            region: lease.region,
            owner: lease.owner,
            receiver: self.receiver,
            rights: self.rights,
            range,
            ttl: self.ttl.map_or(Ok(lease.expires_in), micros)?,
            max_hops: self.max_hops,
            cosigner: self.cosigner,
        };
        if contract.cosigner.is_some() {
            contract.check_parties()?;
        }
        Ok(contract)
    }
}

/// What a grant shall give at most from now on. What is not named stays as it is; nothing is ever added.
///
/// ```
/// use libmem::{Narrowing, Rights};
///
/// let read_only = Narrowing::new().rights(Rights::READ);
/// # let _ = read_only;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    rights: Option<Rights>,
    range: Option<ByteRange>,
    ttl: Option<Duration>,
}

impl Narrowing {
    /// Nothing named. The node refuses a narrowing of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these rights.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// Only these bytes of the region.
    #[must_use]
    pub fn range(mut self, range: ByteRange) -> Self {
        self.range = Some(range);
        self
    }

    /// Only for this long from now.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// # Errors
    /// `E_RANGE` if the time does not fit.
    pub(crate) fn request(self, grant: GrantId) -> Result<Request> {
        let Self { rights, range, ttl } = self;
        Ok(Request::ShareNarrow { grant, rights, range, ttl: ttl.map(micros).transpose()? })
    }
}

/// A grant that waits for its receiver, or for its co-signer, with the text to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The grant, as lists show it.
    pub grant: GrantRow,
    /// What accepting or co-signing it signs.
    pub contract: ShareContract,
    /// The owner's signature on the same contract. It was verified.
    pub by_owner: Signature,
    /// The receiver's, from its acceptance on. It was verified, too.
    pub by_receiver: Option<Signature>,
    /// The co-signer's, if the contract names one and that has signed. It was verified, too.
    pub by_cosigner: Option<Signature>,
}

impl Proposal {
    /// Checks that the contract is the grant that was asked for, says what the row says, and was signed by the owner
    /// it names: a node can neither show one thing and have another signed, nor make up an offer.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the contract is another; `E_CONTRACT_SIG` if a signature on it is not its party's.
    pub(crate) fn checked(self, asked: GrantId, cluster: ClusterEpoch) -> Result<Self> {
        let Self { grant, contract, by_owner, by_receiver, by_cosigner } = &self;
        let cosigner = grant.cosigner.as_ref();
        let shown = (grant.lease, grant.region, grant.owner, grant.receiver);
        let signed = (contract.lease, contract.region, contract.owner, contract.receiver);
        let agrees = contract.grant == asked
            && grant.id == asked
            && contract.cluster == cluster
            && shown == signed
            && (grant.agreed.rights, grant.agreed.range, grant.ttl, grant.max_hops)
                == (contract.rights, contract.range, contract.ttl, contract.max_hops)
            // A narrowing may have taken some of it already.
            && contract.rights.contains(grant.rights)
            && contract.range.contains(grant.range)
            && cosigner.map(|row| row.key) == contract.cosigner
            && cosigner.is_some_and(|row| row.signed) == by_cosigner.is_some()
            && contract.check_parties().is_ok();
        if !agrees {
            return Err(Error::new(Code::Protocol, "the contract does not say what the grant says"));
        }
        contract.verify(contract.owner, by_owner)?;
        if let Some(by_receiver) = by_receiver {
            contract.verify(contract.receiver, by_receiver)?;
        }
        if by_cosigner.is_some() {
            contract.verify_cosigner(by_cosigner.as_ref())?;
        }
        Ok(self)
    }

    /// The contract with what was signed of it, to be kept or shown to others.
    #[must_use]
    pub const fn signed(&self) -> Signed {
        let Self { contract, by_owner, by_receiver, by_cosigner, .. } = *self;
        Signed { contract, by_owner, by_receiver, by_cosigner }
    }

    /// Whether a narrowing has taken a part of what the contract gives.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        let GrantRow { rights, range, agreed, .. } = &self.grant;
        (*rights, *range) != (agreed.rights, agreed.range)
    }
}

/// What a node answers to an acceptance.
pub(crate) struct Receiving {
    pub(crate) grant: GrantRow,
    pub(crate) token: Token,
    pub(crate) by_owner: Option<Signature>,
    pub(crate) by_cosigner: Option<Signature>,
}

impl Receiving {
    /// With the pair, if the node sent the rest of it.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if what it sent is not the owner's, or not the co-signer's where one is named.
    pub(crate) fn accepted(self, contract: &ShareContract, by_receiver: Signature) -> Result<Accepted> {
        let Self { grant, token, by_owner, by_cosigner } = self;
        let pair =
            by_owner.map(|by_owner| SharePair { contract: *contract, by_owner, by_receiver, by_cosigner });
        if let Some(pair) = &pair {
            pair.verify()?;
        }
        Ok(Accepted { grant, token, pair })
    }
}

/// An accepted grant and the capability that opens it.
#[derive(Clone)]
pub struct Accepted {
    /// The row, as lists show it. No authority is in it.
    pub grant: GrantRow,
    /// The capability, bound to the receiver's key.
    pub token: Token,
    /// The contract with all its signatures, which were verified; `None` from a node that does not send the owner's again.
    pub pair: Option<SharePair>,
}

// By hand: a token belongs in no trace.
impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted").field("grant", &self.grant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use caps::id::{LeaseId, ProviderId, RegionId};
    use caps::key::SigningKey;
    use caps::time::Micros;
    use caps::wire::row::{Agreed, CosignerRow, GrantState, LeaseState};

    use super::*;

    const CLUSTER: ClusterEpoch = ClusterEpoch([1; 16]);

    fn owner_key() -> SigningKey {
        SigningKey::from_seed(&[4; 32])
    }

    fn lease() -> LeaseRow {
        LeaseRow {
            id: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            name: None,
            owner: owner_key().public(),
            owner_name: None,
            rights: Rights::ALL,
            range: ByteRange::new(0, 8192).unwrap(),
            expires_in: Micros(9),
            state: LeaseState::Live,
            cause: None,
            epoch: 0,
            provider: ProviderId([5; 16]),
            grants: 0,
            node: None,
            placement: None,
            address: None,
            segment_bytes: 4096,
        }
    }

    fn proposal(contract: ShareContract) -> Proposal {
        let ShareContract { grant: id, lease, region, owner, receiver, rights, range, ttl, max_hops, .. } =
            contract;
        let grant = GrantRow {
            id,
            lease,
            region,
            owner,
            owner_name: None,
            receiver,
            receiver_name: None,
            rights,
            range,
            agreed: Agreed { rights, range },
            ttl,
            max_hops,
            expires_in: ttl,
            state: GrantState::Issued,
            cause: None,
            cosigner: None,
        };
        Proposal {
            grant,
            contract,
            by_owner: contract.sign(&owner_key()),
            by_receiver: None,
            by_cosigner: None,
        }
    }

    #[test]
    fn an_offer_takes_the_lease_where_nothing_else_is_said() {
        let options = ShareOptions::new(PrincipalKey([6; 32]), Rights::READ);
        let contract = options.contract(CLUSTER, &lease()).unwrap();
        assert_eq!((contract.range, contract.ttl, contract.max_hops), (lease().range, Micros(9), 0));
        let wide = options.clone().range(ByteRange::new(0, 8193).unwrap());
        assert_eq!(wide.contract(CLUSTER, &lease()).unwrap_err().code(), Code::Range);
        let nothing = ShareOptions::new(PrincipalKey([6; 32]), Rights::NONE);
        assert_eq!(nothing.contract(CLUSTER, &lease()).unwrap_err().code(), Code::Range);
    }

    #[test]
    fn a_contract_that_differs_from_its_row_is_not_signed() {
        let options = ShareOptions::new(PrincipalKey([6; 32]), Rights::READ);
        let contract = options.contract(CLUSTER, &lease()).unwrap();
        let good = proposal(contract);
        good.clone().checked(contract.grant, CLUSTER).unwrap();
        let with = |contract| Proposal { contract, ..good.clone() };
        for bad in [
            with(ShareContract { cluster: ClusterEpoch([9; 16]), ..contract }),
            with(ShareContract { grant: GrantId([9; 16]), ..contract }),
            with(ShareContract { lease: LeaseId([9; 16]), ..contract }),
            with(ShareContract { region: RegionId([9; 16]), ..contract }),
            with(ShareContract { owner: PrincipalKey([9; 32]), ..contract }),
            with(ShareContract { receiver: PrincipalKey([9; 32]), ..contract }),
            with(ShareContract { rights: Rights::ALL, ..contract }),
            with(ShareContract { range: ByteRange::new(0, 1).unwrap(), ..contract }),
            with(ShareContract { ttl: Micros(1), ..contract }),
            with(ShareContract { max_hops: 7, ..contract }),
            with(ShareContract { cosigner: Some(PrincipalKey([9; 32])), ..contract }),
            Proposal { by_cosigner: Some(good.by_owner), ..good.clone() },
        ] {
            assert_eq!(bad.checked(contract.grant, CLUSTER).unwrap_err().code(), Code::Protocol);
        }
        let forged = Proposal { by_owner: contract.sign(&SigningKey::from_seed(&[5; 32])), ..good.clone() };
        assert_eq!(forged.checked(contract.grant, CLUSTER).unwrap_err().code(), Code::ContractSignature);
        let by_owner_twice = Proposal { by_receiver: Some(good.by_owner), ..good.clone() };
        assert_eq!(
            by_owner_twice.checked(contract.grant, CLUSTER).unwrap_err().code(),
            Code::ContractSignature
        );
        assert!(good.checked(GrantId([9; 16]), CLUSTER).is_err());
    }

    #[test]
    fn a_co_signature_is_the_co_signers_or_it_is_not_shown() {
        let third = SigningKey::from_seed(&[8; 32]);
        let options = ShareOptions::new(PrincipalKey([6; 32]), Rights::READ).cosigner(third.public());
        let contract = options.contract(CLUSTER, &lease()).unwrap();
        let row = |signed| Some(CosignerRow { key: third.public(), name: None, signed });
        let with = |cosigner, by_cosigner| {
            let mut proposal = proposal(contract);
            (proposal.grant.cosigner, proposal.by_cosigner) = (cosigner, by_cosigner);
            proposal.checked(contract.grant, CLUSTER).map(drop).map_err(|error| error.code())
        };
        let good = contract.sign(&third);
        assert_eq!(with(row(false), None), Ok(()));
        assert_eq!(with(row(true), Some(good)), Ok(()));
        let other = ShareContract { max_hops: 7, ..contract }.sign(&third);
        for bad in [contract.sign(&owner_key()), other] {
            assert_eq!(with(row(true), Some(bad)), Err(Code::ContractSignature));
        }
        let another = Some(CosignerRow { key: owner_key().public(), name: None, signed: true });
        for (row, signature) in
            [(row(true), None), (row(false), Some(good)), (None, None), (another, Some(good))]
        {
            assert_eq!(with(row, signature), Err(Code::Protocol));
        }
        // One key on two sides is refused before it is signed.
        for (receiver, cosigner) in [([6; 32], [6; 32]), ([6; 32], owner_key().public().0)] {
            let options = ShareOptions::new(PrincipalKey(receiver), Rights::READ);
            let refused = options.cosigner(PrincipalKey(cosigner)).contract(CLUSTER, &lease()).unwrap_err();
            assert_eq!(refused.code(), Code::Range);
        }
    }
}
