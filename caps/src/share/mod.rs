//! The `MEM_SHARE` contract: one text, two signatures.
//!
//! The owner draws the grant's id, fills in the contract and signs it ([`ShareContract::sign`]); the receiver signs
//! the same bytes when it accepts. An auditor checks the pair offline. The span is relative (`ttl`), so neither
//! side's clock matters: the broker's time of issue is in the log.
//!
//! | file | idea |
//! |---|---|
//! | this one | the contract, and a signature on it |
//! | `pair.rs` | both signatures, for whoever was not there: [`SharePair`], [`AgreedShare`], their file |
//! | `ownership.rs` | the contract by which a whole lease changes its owner: [`TransferContract`] |

mod ownership;
mod pair;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, RegionId};
use crate::key::{Purpose, Signature, SigningKey, VerifyingKey};
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::{Micros, UnixMicros};

pub use ownership::{TransferContract, TransferDigest, TransferSigned};
pub use pair::{AgreedShare, ContractText, ShareDigest, ShareFile, SharePair, Signed};

/// What the owner offers and the receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareContract {
    /// The life of the control plane in which the contract holds.
    pub cluster: ClusterEpoch,
    /// The grant's id, drawn by the owner.
    pub grant: GrantId,
    /// The lease that is shared.
    pub lease: LeaseId,
    /// The region of that lease.
    pub region: RegionId,
    /// Who shares.
    pub owner: PrincipalKey,
    /// Who receives.
    pub receiver: PrincipalKey,
    /// What the receiver may do.
    pub rights: Rights,
    /// To which bytes.
    pub range: ByteRange,
    /// For how long from the moment the broker issues the grant; never past the lease.
    pub ttl: Micros,
    /// How often the receiver may delegate onwards.
    pub max_hops: u8,
}

/// What a narrowed grant still gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// What the receiver may do.
    pub rights: Rights,
    /// To which bytes.
    pub range: ByteRange,
    /// Until when, at the latest.
    pub expires: UnixMicros,
}

impl ShareContract {
    /// The signed bytes: every field at a fixed place, integers big-endian.
    fn message(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 * 4 + 32 * 2 + 2 + 8 * 3);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.grant.0);
        bytes.extend_from_slice(&self.lease.0);
        bytes.extend_from_slice(&self.region.0);
        bytes.extend_from_slice(&self.owner.0);
        bytes.extend_from_slice(&self.receiver.0);
        bytes.push(self.rights.bits());
        bytes.extend_from_slice(&self.range.start().to_be_bytes());
        bytes.extend_from_slice(&self.range.end().to_be_bytes());
        bytes.extend_from_slice(&self.ttl.0.to_be_bytes());
        bytes.push(self.max_hops);
        bytes
    }

    /// Signs as owner or as receiver: the contract names both, so one text serves.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Signature {
        key.sign(Purpose::Share, &self.message())
    }

    /// Checks one party's signature.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if `signer` is weak or did not sign these bytes.
    pub fn verify(&self, signer: PrincipalKey, signature: &Signature) -> Result<()> {
        let valid = VerifyingKey::parse(signer)
            .is_ok_and(|key| key.verifies(Purpose::Share, &self.message(), signature));
        valid
            .then_some(())
            .ok_or(Error::new(Code::ContractSignature, "the contract's signature does not verify"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_under_the_signature() {
        let (owner, receiver) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let contract = ShareContract {
            cluster: ClusterEpoch([0; 16]),
            grant: GrantId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            owner: owner.public(),
            receiver: receiver.public(),
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            ttl: Micros(5),
            max_hops: 0,
        };
        let (by_owner, by_receiver) = (contract.sign(&owner), contract.sign(&receiver));
        contract.verify(owner.public(), &by_owner).unwrap();
        contract.verify(receiver.public(), &by_receiver).unwrap();
        assert!(contract.verify(receiver.public(), &by_owner).is_err());
        for changed in [
            ShareContract { cluster: ClusterEpoch([9; 16]), ..contract },
            ShareContract { grant: GrantId([9; 16]), ..contract },
            ShareContract { lease: LeaseId([9; 16]), ..contract },
            ShareContract { region: RegionId([9; 16]), ..contract },
            ShareContract { owner: receiver.public(), ..contract },
            ShareContract { receiver: owner.public(), ..contract },
            ShareContract { rights: Rights::READ_WRITE, ..contract },
            ShareContract { range: ByteRange::new(0, 8192).unwrap(), ..contract },
            ShareContract { ttl: Micros(6), ..contract },
            ShareContract { max_hops: 1, ..contract },
        ] {
            assert!(changed.verify(owner.public(), &by_owner).is_err(), "{changed:?}");
        }
    }
}
