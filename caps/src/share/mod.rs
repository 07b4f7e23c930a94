//! The `MEM_SHARE` contract: one text, two signatures, or three.
//!
//! The owner draws the grant's id, fills in the contract and signs it ([`ShareContract::sign`]); the receiver signs
//! the same bytes when it accepts. An auditor checks the pair offline. The span is relative (`ttl`), so neither
//! side's clock matters: the broker's time of issue is in the log.
//!
//! # A third signature
//!
//! A contract may name a *co-signer*, as a security team: then it is good for nothing until that key has signed it, too.
//! All three sign the same bytes, for the same [`Purpose`], and none of the signatures can pass for another's: the contract
//! names the three keys, [`ShareContract::check_parties`] holds them to be three, and a signature verifies with one key.
//!
//! A contract without a co-signer is signed as it always was, so what was signed before there were co-signers stays good.
//! No two contracts have the same bytes: all fields but the co-signer have one length together, and the co-signer, a tag of
//! its own before it, follows them. A text is one or the other by its length alone.
//!
//! | file | idea |
//! |---|---|
//! | this one | the contract, and a signature on it |
//! | `pair.rs` | all signatures, for whoever was not there: [`SharePair`], [`AgreedShare`], their file |
//! | `digest.rs` | what names a contract |
//! | `ownership.rs` | the contract by which a whole lease changes its owner: [`TransferContract`] |

mod digest;
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
    /// Who must sign as well, if anybody. Neither the owner nor the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigner: Option<PrincipalKey>,
}

/// Stands in the signed bytes before the co-signer's key.
const COSIGNER_TAG: u8 = 1;

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
    /// The signed bytes: every field at a fixed place, integers big-endian; a co-signer last, after its tag, or nothing.
    fn message(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 * 4 + 32 * 2 + 2 + 8 * 3 + 1 + 32);
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
        if let Some(cosigner) = self.cosigner {
            bytes.push(COSIGNER_TAG);
            bytes.extend_from_slice(&cosigner.0);
        }
        bytes
    }

    /// Checks that nobody is on two sides of the contract: who signed as one would have signed as the other.
    ///
    /// # Errors
    /// `E_RANGE` if two of the keys that it names are one.
    pub fn check_parties(&self) -> Result<()> {
        if self.owner == self.receiver {
            return Err(Error::new(Code::Range, "a lease is shared with somebody else"));
        }
        if self.cosigner.is_some_and(|key| key == self.owner || key == self.receiver) {
            return Err(Error::new(Code::Range, "a co-signer is neither the owner nor the receiver"));
        }
        Ok(())
    }

    /// Signs as owner, as receiver or as co-signer: the contract names them all, so one text serves.
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
            cosigner: None,
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
            ShareContract { cosigner: Some(PrincipalKey([9; 32])), ..contract },
        ] {
            assert!(changed.verify(owner.public(), &by_owner).is_err(), "{changed:?}");
        }
        let cosigned = ShareContract { cosigner: Some(PrincipalKey([9; 32])), ..contract };
        let by_owner = cosigned.sign(&owner);
        for changed in [contract, ShareContract { cosigner: Some(PrincipalKey([8; 32])), ..contract }] {
            assert!(changed.verify(owner.public(), &by_owner).is_err(), "{changed:?}");
        }
    }

    /// The bytes of a contract without a co-signer are those from before there were any; one with a co-signer is longer.
    #[test]
    fn what_was_signed_before_stays_good() {
        let contract = ShareContract {
            cluster: ClusterEpoch([0; 16]),
            grant: GrantId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            owner: PrincipalKey([4; 32]),
            receiver: PrincipalKey([5; 32]),
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            ttl: Micros(5),
            max_hops: 6,
            cosigner: None,
        };
        let before = [
            &[0; 16][..],
            &[1; 16],
            &[2; 16],
            &[3; 16],
            &[4; 32],
            &[5; 32],
            &[Rights::READ.bits()],
            &0_u64.to_be_bytes(),
            &4096_u64.to_be_bytes(),
            &5_u64.to_be_bytes(),
            &[6],
        ]
        .concat();
        assert_eq!(contract.message(), before);
        let cosigned = ShareContract { cosigner: Some(PrincipalKey([7; 32])), ..contract };
        assert_eq!(cosigned.message(), [&before[..], &[1], &[7; 32]].concat());
        // And so is the form on the wire: one without is what it was, and one from before is read.
        let encode = |contract: &ShareContract| {
            let mut bytes = Vec::new();
            ciborium::into_writer(contract, &mut bytes).unwrap();
            bytes
        };
        let named = |bytes: &[u8]| bytes.windows(8).any(|word| word == b"cosigner");
        assert!(!named(&encode(&contract)) && named(&encode(&cosigned)));
        for contract in [contract, cosigned] {
            assert_eq!(ciborium::from_reader::<ShareContract, _>(&encode(&contract)[..]).unwrap(), contract);
        }
    }

    #[test]
    fn nobody_is_on_two_sides() {
        let keys = [4, 5, 6].map(|n| PrincipalKey([n; 32]));
        let contract = |owner: usize, receiver: usize, cosigner: Option<usize>| ShareContract {
            cluster: ClusterEpoch([0; 16]),
            grant: GrantId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            owner: keys[owner],
            receiver: keys[receiver],
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            ttl: Micros(5),
            max_hops: 0,
            cosigner: cosigner.map(|n| keys[n]),
        };
        contract(0, 1, None).check_parties().unwrap();
        contract(0, 1, Some(2)).check_parties().unwrap();
        for (owner, receiver, cosigner) in [(0, 0, None), (0, 0, Some(2)), (0, 1, Some(0)), (0, 1, Some(1))] {
            let refused = contract(owner, receiver, cosigner).check_parties().unwrap_err();
            assert_eq!(refused.code(), Code::Range, "{owner} {receiver} {cosigner:?}");
        }
    }
}
