//! What remains of an agreement: the contract with all signatures, for whoever was not there.
//!
//! ```text
//!  ShareFile ──parse──▶ Signed ──pair──▶ SharePair ──verify──▶ AgreedShare
//!  text, named fields   perhaps only     two signatures and    all of them verified, and
//!                       the owner's      perhaps a third,      a third if one is named
//!                                        none checked
//! ```

use serde::{Deserialize, Serialize};

use super::ShareContract;
use super::digest::contract_digest;
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, RegionId};
use crate::key::{Purpose, Signature};
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::Micros;

contract_digest! {
    /// SHA-256 of the bytes that all parties sign: names one contract, to the last field.
    ShareDigest
}

impl ShareContract {
    /// Names exactly what is signed, so that what was seen can be bound to what is signed later.
    #[must_use]
    pub fn digest(&self) -> ShareDigest {
        ShareDigest::of(Purpose::Share, &self.message())
    }

    /// Checks that the co-signer signed if one is named, and that nobody did if none is.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` otherwise.
    pub fn verify_cosigner(&self, by_cosigner: Option<&Signature>) -> Result<()> {
        let refused = |what| Err(Error::new(Code::ContractSignature, what));
        match (self.cosigner, by_cosigner) {
            (None, None) => Ok(()),
            (Some(cosigner), Some(signature)) => self.verify(cosigner, signature),
            (Some(_), None) => refused("the contract names a co-signer, who has not signed it"),
            (None, Some(_)) => refused("somebody co-signed whom the contract does not name"),
        }
    }
}

/// A contract and the signatures that are said to be on it: two, and a third where it names a co-signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePair {
    /// What was agreed.
    pub contract: ShareContract,
    /// By the contract's owner.
    pub by_owner: Signature,
    /// By the contract's receiver.
    pub by_receiver: Signature,
    /// By the contract's co-signer, if it names one.
    pub by_cosigner: Option<Signature>,
}

impl SharePair {
    /// Checks all signatures, by the keys that the contract names. Whose keys these are is for the caller to know.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if any is not its party's, if two parties are one, if the contract names a co-signer that has not
    /// signed, or somebody co-signed whom it does not name.
    pub fn verify(&self) -> Result<AgreedShare> {
        let Self { contract, by_owner, by_receiver, by_cosigner } = self;
        if contract.check_parties().is_err() {
            return Err(Error::new(Code::ContractSignature, "one key signed for two sides"));
        }
        contract.verify(contract.owner, by_owner)?;
        contract.verify(contract.receiver, by_receiver)?;
        contract.verify_cosigner(by_cosigner.as_ref())?;
        Ok(AgreedShare { contract: *contract })
    }
}

/// A contract that all its parties signed. Only [`SharePair::verify`] makes one.
///
/// ```compile_fail
/// fn forge(contract: caps::share::ShareContract) -> caps::share::AgreedShare {
///     caps::share::AgreedShare { contract }
/// }
/// ```
/// ```
/// fn honest(pair: caps::share::SharePair) -> caps::Result<caps::share::AgreedShare> {
///     pair.verify()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgreedShare {
    contract: ShareContract,
}

impl AgreedShare {
    /// What was agreed.
    #[must_use]
    pub const fn contract(&self) -> &ShareContract {
        &self.contract
    }

    /// Names it.
    #[must_use]
    pub fn digest(&self) -> ShareDigest {
        self.contract.digest()
    }
}

/// A contract with what was signed of it so far: an offer, or a pair. No signature is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What was offered.
    pub contract: ShareContract,
    /// By the contract's owner.
    pub by_owner: Signature,
    /// By the contract's receiver, once it accepted.
    pub by_receiver: Option<Signature>,
    /// By the contract's co-signer, if it names one and that has signed.
    pub by_cosigner: Option<Signature>,
}

impl Signed {
    /// The pair, if the receiver has signed. A co-signature that is missing is for [`SharePair::verify`] to find.
    #[must_use]
    pub fn pair(&self) -> Option<SharePair> {
        let Self { contract, by_owner, by_receiver, by_cosigner } = *self;
        by_receiver.map(|by_receiver| SharePair { contract, by_owner, by_receiver, by_cosigner })
    }

    /// Whether all have signed whom the contract names. No signature is checked.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.by_receiver.is_some() && self.contract.cosigner.is_some() == self.by_cosigner.is_some()
    }
}

impl From<SharePair> for Signed {
    fn from(SharePair { contract, by_owner, by_receiver, by_cosigner }: SharePair) -> Self {
        Self { contract, by_owner, by_receiver: Some(by_receiver), by_cosigner }
    }
}

/// A [`Signed`] as it stands in a file: named fields, bytes as lowercase hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareFile {
    /// What was offered.
    pub contract: ContractText,
    /// The owner's signature.
    pub by_owner: String,
    /// The receiver's, once it accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_receiver: Option<String>,
    /// The co-signer's, if the contract names one and that has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_cosigner: Option<String>,
}

/// A [`ShareContract`] as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContractText {
    /// As [`ShareContract::cluster`], and so are the others.
    pub cluster: String,
    /// 32 digits.
    pub grant: String,
    /// 32 digits.
    pub lease: String,
    /// 32 digits.
    pub region: String,
    /// 64 digits.
    pub owner: String,
    /// 64 digits.
    pub receiver: String,
    /// As in `rw`.
    pub rights: String,
    /// First byte, and the one after the last.
    pub range: [u64; 2],
    /// Microseconds.
    pub ttl_us: u64,
    /// Delegations.
    pub max_hops: u8,
    /// 64 digits, if there is a co-signer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigner: Option<String>,
}

impl From<&ShareContract> for ContractText {
    fn from(contract: &ShareContract) -> Self {
        Self {
            cluster: contract.cluster.to_string(),
            grant: contract.grant.to_string(),
            lease: contract.lease.to_string(),
            region: contract.region.to_string(),
            owner: contract.owner.to_string(),
            receiver: contract.receiver.to_string(),
            rights: contract.rights.to_string(),
            range: [contract.range.start(), contract.range.end()],
            ttl_us: contract.ttl.0,
            max_hops: contract.max_hops,
            cosigner: contract.cosigner.map(|key| key.to_string()),
        }
    }
}

impl From<&Signed> for ShareFile {
    fn from(signed: &Signed) -> Self {
        let hex = |signature: &Signature| data_encoding::HEXLOWER.encode(&signature.0);
        Self {
            contract: (&signed.contract).into(),
            by_owner: hex(&signed.by_owner),
            by_receiver: signed.by_receiver.as_ref().map(hex),
            by_cosigner: signed.by_cosigner.as_ref().map(hex),
        }
    }
}

impl TryFrom<&ShareFile> for Signed {
    type Error = Error;

    /// # Errors
    /// `E_RANGE` for a field that is not of its form.
    fn try_from(file: &ShareFile) -> Result<Self> {
        let text = &file.contract;
        let [start, end] = text.range;
        let contract = ShareContract {
            cluster: ClusterEpoch::parse(&text.cluster)?,
            grant: GrantId::parse(&text.grant)?,
            lease: LeaseId::parse(&text.lease)?,
            region: RegionId::parse(&text.region)?,
            owner: PrincipalKey::parse(&text.owner)?,
            receiver: PrincipalKey::parse(&text.receiver)?,
            rights: Rights::parse(&text.rights)?,
            range: ByteRange::new(start, end)?,
            ttl: Micros(text.ttl_us),
            max_hops: text.max_hops,
            cosigner: text.cosigner.as_deref().map(PrincipalKey::parse).transpose()?,
        };
        let by_owner = signature(&file.by_owner)?;
        let by_receiver = file.by_receiver.as_deref().map(signature).transpose()?;
        let by_cosigner = file.by_cosigner.as_deref().map(signature).transpose()?;
        Ok(Self { contract, by_owner, by_receiver, by_cosigner })
    }
}

fn signature(text: &str) -> Result<Signature> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    bytes.map(Signature).ok_or(Error::new(Code::Range, "a signature is 128 lowercase hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::key::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn contract() -> ShareContract {
        ShareContract {
            cluster: ClusterEpoch([7; 16]),
            grant: GrantId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            owner: key(1).public(),
            receiver: key(2).public(),
            rights: Rights::READ_WRITE,
            range: ByteRange::new(4096, 8192).unwrap(),
            ttl: Micros(1 << 53),
            max_hops: 1,
            cosigner: None,
        }
    }

    fn signed_by(contract: ShareContract, [owner, receiver]: [u8; 2], cosigner: Option<u8>) -> SharePair {
        SharePair {
            contract,
            by_owner: contract.sign(&key(owner)),
            by_receiver: contract.sign(&key(receiver)),
            by_cosigner: cosigner.map(|n| contract.sign(&key(n))),
        }
    }

    fn pair() -> SharePair {
        signed_by(contract(), [1, 2], None)
    }

    /// The same, and number 4 has to sign it, too.
    fn cosigned() -> ShareContract {
        ShareContract { cosigner: Some(key(4).public()), ..contract() }
    }

    #[test]
    fn only_the_two_who_are_named_agree() {
        let good = pair();
        let agreed = good.verify().unwrap();
        assert_eq!((agreed.contract(), agreed.digest()), (&contract(), contract().digest()));
        let foreign = contract().sign(&key(3));
        let other = ShareContract { ttl: Micros(5), ..contract() };
        let own = ShareContract { receiver: key(1).public(), ..contract() };
        let mut forged = good.by_receiver;
        forged.0[3] ^= 1;
        for bad in [
            SharePair { by_owner: good.by_receiver, by_receiver: good.by_owner, ..good },
            SharePair { by_owner: foreign, ..good },
            SharePair { by_receiver: foreign, ..good },
            SharePair { by_receiver: good.by_owner, ..good },
            SharePair { by_receiver: forged, ..good },
            SharePair { by_receiver: other.sign(&key(2)), ..good },
            SharePair { contract: other, ..good },
            signed_by(own, [1, 1], None),
            // Nobody was asked to co-sign.
            SharePair { by_cosigner: Some(foreign), ..good },
            SharePair { by_cosigner: Some(good.by_owner), ..good },
        ] {
            assert_eq!(bad.verify().unwrap_err().code(), Code::ContractSignature, "{bad:?}");
        }
    }

    #[test]
    fn a_third_that_is_named_has_to_sign() {
        let good = signed_by(cosigned(), [1, 2], Some(4));
        assert_eq!(good.verify().unwrap().digest(), cosigned().digest());
        assert_ne!(cosigned().digest(), contract().digest());
        let without = pair();
        let other = ShareContract { ttl: Micros(5), ..cosigned() };
        let as_owner = ShareContract { cosigner: Some(key(1).public()), ..contract() };
        let as_receiver = ShareContract { cosigner: Some(key(2).public()), ..contract() };
        for bad in [
            SharePair { by_cosigner: None, ..good },
            SharePair { by_cosigner: Some(good.by_owner), ..good },
            SharePair { by_cosigner: Some(good.by_receiver), ..good },
            SharePair { by_cosigner: Some(cosigned().sign(&key(3))), ..good },
            // On another contract: of other terms, and the same without the co-signer.
            SharePair { by_cosigner: Some(other.sign(&key(4))), ..good },
            SharePair { by_cosigner: Some(contract().sign(&key(4))), ..good },
            // The co-signer's serves for no other side.
            SharePair { by_owner: cosigned().sign(&key(4)), ..good },
            SharePair { by_receiver: cosigned().sign(&key(4)), ..good },
            // Taking the name off takes the other two signatures off.
            SharePair { contract: contract(), by_cosigner: None, ..good },
            SharePair { contract: contract(), ..good },
            SharePair { contract: cosigned(), by_cosigner: Some(cosigned().sign(&key(4))), ..without },
            // One key for two sides.
            signed_by(as_owner, [1, 2], Some(1)),
            signed_by(as_receiver, [1, 2], Some(2)),
        ] {
            assert_eq!(bad.verify().unwrap_err().code(), Code::ContractSignature, "{bad:?}");
        }
    }

    #[test]
    fn the_digest_is_of_the_signed_bytes() {
        let contract = contract();
        let bytes = [b"leasehold-share-v1\0", &contract.message()[..]].concat();
        assert_eq!(contract.digest().0, <[u8; 32]>::from(Sha256::digest(bytes)));
        assert_ne!(contract.digest(), ShareContract { max_hops: 0, ..contract }.digest());
        assert_eq!(ShareDigest::parse(&contract.digest().to_string()), Ok(contract.digest()));
        assert!(ShareDigest::parse("12").is_err());
    }

    #[test]
    fn a_file_comes_back_and_takes_no_other_form() {
        let offer = Signed { by_receiver: None, ..pair().into() };
        assert_eq!((offer.pair(), offer.is_complete()), (None, false));
        let cosigned = Signed::from(signed_by(cosigned(), [1, 2], Some(4)));
        assert!(cosigned.is_complete() && Signed::from(pair()).is_complete());
        let waiting = Signed { by_receiver: None, by_cosigner: None, ..cosigned };
        assert!(!Signed { by_cosigner: None, ..cosigned }.is_complete() && !waiting.is_complete());
        for signed in [Signed::from(pair()), offer, cosigned, waiting] {
            let text = serde_json::to_string(&ShareFile::from(&signed)).unwrap();
            assert_eq!(text.contains("cosigner"), signed.contract.cosigner.is_some(), "{text}");
            let file: ShareFile = serde_json::from_str(&text).unwrap();
            assert_eq!(Signed::try_from(&file), Ok(signed), "{text}");
        }
        assert_eq!(Signed::from(pair()).pair(), Some(pair()));
        let good = ShareFile::from(&Signed::from(pair()));
        let with = |change: &dyn Fn(&mut ShareFile)| {
            let mut file = good.clone();
            change(&mut file);
            Signed::try_from(&file).map_err(|error| error.code())
        };
        assert_eq!(with(&|file| file.by_owner.truncate(126)), Err(Code::Range));
        assert_eq!(with(&|file| file.by_receiver = Some("zz".into())), Err(Code::Range));
        assert_eq!(with(&|file| file.by_cosigner = Some("00".into())), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.cosigner = Some("00".into())), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.owner.make_ascii_uppercase()), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.rights = "wr".into()), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.range = [9, 8]), Err(Code::Range));
        let unknown = serde_json::to_string(&good).unwrap().replacen('{', "{\"more\":1,", 1);
        assert!(serde_json::from_str::<ShareFile>(&unknown).is_err());
    }
}
