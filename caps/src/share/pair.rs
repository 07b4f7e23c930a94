//! What remains of an agreement: the contract with both signatures, for whoever was not there.
//!
//! ```text
//!  ShareFile ──parse──▶ Signed ──pair──▶ SharePair ──verify──▶ AgreedShare
//!  text, named fields   perhaps only     two signatures,       both of them verified
//!                       the owner's      none checked
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ShareContract;
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, RegionId};
use crate::key::{Purpose, Signature};
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::Micros;

/// SHA-256 of the bytes that both parties sign: names one contract, to the last field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareDigest(pub [u8; 32]);

impl ShareDigest {
    /// Reads 64 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// `E_RANGE` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        let key = PrincipalKey::parse(text);
        key.map(|key| Self(key.0))
            .map_err(|_| Error::new(Code::Range, "a contract's digest is 64 lowercase hexadecimal digits"))
    }
}

impl std::fmt::Display for ShareDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for ShareDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShareDigest({self})")
    }
}

impl ShareContract {
    /// Names exactly what is signed, so that what was seen can be bound to what is signed later.
    #[must_use]
    pub fn digest(&self) -> ShareDigest {
        let hash = Sha256::new().chain_update(Purpose::Share.prefix()).chain_update(self.message());
        ShareDigest(hash.finalize().into())
    }
}

/// A contract and the two signatures that are said to be on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharePair {
    /// What was agreed.
    pub contract: ShareContract,
    /// By the contract's owner.
    pub by_owner: Signature,
    /// By the contract's receiver.
    pub by_receiver: Signature,
}

impl SharePair {
    /// Checks both signatures, by the keys that the contract names. Whose keys these are is for the caller to know.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if either is not its party's, or both parties are one.
    pub fn verify(&self) -> Result<AgreedShare> {
        let Self { contract, by_owner, by_receiver } = self;
        if contract.owner == contract.receiver {
            return Err(Error::new(Code::ContractSignature, "one key signed for both sides"));
        }
        contract.verify(contract.owner, by_owner)?;
        contract.verify(contract.receiver, by_receiver)?;
        Ok(AgreedShare { contract: *contract })
    }
}

/// A contract that both parties signed. Only [`SharePair::verify`] makes one.
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
}

impl Signed {
    /// Both signatures, if both are there.
    #[must_use]
    pub fn pair(&self) -> Option<SharePair> {
        let Self { contract, by_owner, by_receiver } = *self;
        by_receiver.map(|by_receiver| SharePair { contract, by_owner, by_receiver })
    }
}

impl From<SharePair> for Signed {
    fn from(SharePair { contract, by_owner, by_receiver }: SharePair) -> Self {
        Self { contract, by_owner, by_receiver: Some(by_receiver) }
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
        };
        let by_owner = signature(&file.by_owner)?;
        let by_receiver = file.by_receiver.as_deref().map(signature).transpose()?;
        Ok(Self { contract, by_owner, by_receiver })
    }
}

fn signature(text: &str) -> Result<Signature> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    bytes.map(Signature).ok_or(Error::new(Code::Range, "a signature is 128 lowercase hexadecimal digits"))
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn pair() -> SharePair {
        let contract = contract();
        SharePair { contract, by_owner: contract.sign(&key(1)), by_receiver: contract.sign(&key(2)) }
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
            SharePair { contract: own, by_owner: own.sign(&key(1)), by_receiver: own.sign(&key(1)) },
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
        assert_eq!(offer.pair(), None);
        for signed in [Signed::from(pair()), offer] {
            let text = serde_json::to_string(&ShareFile::from(&signed)).unwrap();
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
        assert_eq!(with(&|file| file.contract.owner.make_ascii_uppercase()), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.rights = "wr".into()), Err(Code::Range));
        assert_eq!(with(&|file| file.contract.range = [9, 8]), Err(Code::Range));
        let unknown = serde_json::to_string(&good).unwrap().replacen('{', "{\"more\":1,", 1);
        assert!(serde_json::from_str::<ShareFile>(&unknown).is_err());
    }
}
