//! The contract by which a lease changes its owner: one text, two signatures, as with `MEM_SHARE`.
//!
//! A grant gives a part and ends; this gives all there is, and the former owner keeps nothing. So it is a contract of
//! its own, signed for a purpose of its own: no signature on a share can be passed off as one on a transfer.

use serde::{Deserialize, Serialize};

use super::digest::contract_digest;
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, LeaseId, PrincipalKey, RegionId, TransferId};
use crate::key::{Purpose, Signature, SigningKey, VerifyingKey};
use crate::time::Micros;

/// What the owner offers and the receiver accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferContract {
    /// The life of the control plane in which the contract holds.
    pub cluster: ClusterEpoch,
    /// The offer's id, drawn by the owner.
    pub transfer: TransferId,
    /// The lease that changes its owner.
    pub lease: LeaseId,
    /// The region of that lease.
    pub region: RegionId,
    /// Who hands it over.
    pub from: PrincipalKey,
    /// Who is to have it.
    pub to: PrincipalKey,
    /// For how long the offer stands, from the moment the broker has it; never past the lease.
    pub ttl: Micros,
}

contract_digest! {
    /// SHA-256 of the bytes that both parties sign: names one contract, to the last field.
    TransferDigest
}

/// A contract with what was signed of it so far. No signature is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferSigned {
    /// What was offered.
    pub contract: TransferContract,
    /// By the one who hands the lease over.
    pub by_owner: Signature,
    /// By the one who is to have it, once it accepted.
    pub by_receiver: Option<Signature>,
}

impl TransferContract {
    /// The signed bytes: every field at a fixed place, integers big-endian.
    fn message(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 * 4 + 32 * 2 + 8);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.transfer.0);
        bytes.extend_from_slice(&self.lease.0);
        bytes.extend_from_slice(&self.region.0);
        bytes.extend_from_slice(&self.from.0);
        bytes.extend_from_slice(&self.to.0);
        bytes.extend_from_slice(&self.ttl.0.to_be_bytes());
        bytes
    }

    /// Names exactly what is signed, so that what was seen can be bound to what is signed later.
    #[must_use]
    pub fn digest(&self) -> TransferDigest {
        TransferDigest::of(Purpose::Transfer, &self.message())
    }

    /// Signs as the one who gives or as the one who receives: the contract names both, so one text serves.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Signature {
        key.sign(Purpose::Transfer, &self.message())
    }

    /// Checks one party's signature.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if `signer` is weak or did not sign these bytes.
    pub fn verify(&self, signer: PrincipalKey, signature: &Signature) -> Result<()> {
        let valid = VerifyingKey::parse(signer)
            .is_ok_and(|key| key.verifies(Purpose::Transfer, &self.message(), signature));
        valid
            .then_some(())
            .ok_or(Error::new(Code::ContractSignature, "the contract's signature does not verify"))
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn contract() -> TransferContract {
        TransferContract {
            cluster: ClusterEpoch([0; 16]),
            transfer: TransferId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            from: key(1).public(),
            to: key(2).public(),
            ttl: Micros(5),
        }
    }

    #[test]
    fn every_field_is_under_the_signature() {
        let contract = contract();
        let (by_owner, by_receiver) = (contract.sign(&key(1)), contract.sign(&key(2)));
        contract.verify(contract.from, &by_owner).unwrap();
        contract.verify(contract.to, &by_receiver).unwrap();
        assert!(contract.verify(contract.to, &by_owner).is_err());
        for changed in [
            TransferContract { cluster: ClusterEpoch([9; 16]), ..contract },
            TransferContract { transfer: TransferId([9; 16]), ..contract },
            TransferContract { lease: LeaseId([9; 16]), ..contract },
            TransferContract { region: RegionId([9; 16]), ..contract },
            TransferContract { from: contract.to, ..contract },
            TransferContract { to: contract.from, ..contract },
            TransferContract { ttl: Micros(6), ..contract },
        ] {
            assert!(changed.verify(contract.from, &by_owner).is_err(), "{changed:?}");
            assert_ne!(changed.digest(), contract.digest(), "{changed:?}");
        }
    }

    #[test]
    fn no_signature_serves_for_another_use() {
        let contract = contract();
        for purpose in [Purpose::Possession, Purpose::Share, Purpose::Receipt] {
            let foreign = key(1).sign(purpose, &contract.message());
            assert!(contract.verify(contract.from, &foreign).is_err(), "{purpose:?}");
        }
    }

    #[test]
    fn the_digest_is_of_the_signed_bytes() {
        let contract = contract();
        let bytes = [b"leasehold-transfer-v1\0", &contract.message()[..]].concat();
        assert_eq!(contract.digest().0, <[u8; 32]>::from(Sha256::digest(bytes)));
        assert_eq!(TransferDigest::parse(&contract.digest().to_string()), Ok(contract.digest()));
        assert!(TransferDigest::parse("12").is_err());
    }
}
