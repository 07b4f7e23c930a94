//! Ed25519 identities.
//!
//! A [`SigningKey`] erases itself, prints nothing, and signs only messages that begin with one of the prefixes in
//! [`Purpose`], so that a signature made for one purpose never serves another. (The root key signs biscuits, whose
//! payload has no prefix; it is a type of its own, in the token module.)

use ed25519_dalek::Signer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;

/// What a signature is for. The prefix is the first part of the signed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Proof of possession at the start of a session.
    Possession,
    /// The contract of a `MEM_SHARE`.
    Share,
    /// A revocation receipt.
    Receipt,
    /// The contract by which a lease changes its owner.
    Transfer,
    /// Proof of possession at the start of a session over TLS, bound to its connection.
    PossessionOverTls,
    /// The key of an encrypted lease on its way to somebody.
    KeyEnvelope,
}

impl Purpose {
    /// The prefix, which ends in a zero byte so that none is a prefix of another.
    #[must_use]
    pub const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Possession => b"leasehold-pop-v1\0",
            Self::Share => b"leasehold-share-v1\0",
            Self::Receipt => b"leasehold-receipt-v1\0",
            Self::Transfer => b"leasehold-transfer-v1\0",
            Self::PossessionOverTls => b"leasehold-pop-tls-v1\0",
            Self::KeyEnvelope => b"leasehold-key-envelope-v1\0",
        }
    }
}

/// An Ed25519 signature as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(#[serde(with = "serde_bytes")] pub [u8; 64]);

/// A secret key. No `Debug`, no `Clone`; wiped when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Draws a fresh key.
    ///
    /// # Panics
    /// If the kernel has no random source.
    #[must_use]
    pub fn generate() -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the kernel's random source answers");
        Self::from_seed(&seed)
    }

    /// The key of a 32-byte seed (RFC 8032's private key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for the key file. The copy wipes itself.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PrincipalKey {
        PrincipalKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for `purpose`.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        Signature(self.0.sign(&[purpose.prefix(), message].concat()).to_bytes())
    }
}

/// A public key that is a point of full order: a weak key would verify signatures that nobody made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Checks that the bytes are a usable key in its one canonical form.
    ///
    /// # Errors
    /// `E_RANGE` if they are no point of the curve, a point of small order, or a second spelling of a key.
    pub fn parse(key: PrincipalKey) -> Result<Self> {
        ed25519_dalek::VerifyingKey::from_bytes(&key.0)
            .ok()
            .filter(|key| !key.is_weak() && is_reduced(&key.to_bytes()))
            .map(Self)
            .ok_or(Error::new(Code::Range, "not an Ed25519 public key of full order"))
    }

    /// Whether `signature` is this key's over `message` for `purpose`. Strict: one signature per message and key.
    #[must_use]
    pub fn verifies(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.0.verify_strict(&[purpose.prefix(), message].concat(), &signature).is_ok()
    }
}

// The same pair of keys for X25519: what somebody encrypts to a principal. Signing and agreeing with one pair is safe for
// Ed25519 and an X25519 KEM (ePrint 2021/509), and principals have no other key that anybody vouches for.
impl SigningKey {
    /// This key's secret as X25519 takes it (RFC 7748; not yet clamped). The copy wipes itself.
    #[must_use]
    pub fn agreement_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_scalar_bytes())
    }
}

impl VerifyingKey {
    /// This key as X25519 takes it: the same point in Montgomery's form, of full order like this one.
    #[must_use]
    pub fn agreement_public(&self) -> [u8; 32] {
        self.0.to_montgomery().to_bytes()
    }
}

/// Whether the encoded y is below p = 2^255 - 19. The curve library reduces larger ones silently, and two spellings
/// of one key would be two principals.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let high = bytes[31] & 0x7f;
    !(high == 0x7f && bytes[1..31].iter().all(|&byte| byte == 0xff) && bytes[0] >= 0xed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_serves_one_purpose_only() {
        let key = SigningKey::from_seed(&[3; 32]);
        let public = VerifyingKey::parse(key.public()).unwrap();
        let signature = key.sign(Purpose::Possession, b"m");
        assert!(public.verifies(Purpose::Possession, b"m", &signature));
        assert!(!public.verifies(Purpose::Share, b"m", &signature));
        assert!(!public.verifies(Purpose::Possession, b"n", &signature));
    }

    #[test]
    fn weak_keys_are_refused() {
        assert!(VerifyingKey::parse(PrincipalKey([0; 32])).is_err());
        let mut identity = [0; 32];
        identity[0] = 1; // the neutral element
        assert!(VerifyingKey::parse(PrincipalKey(identity)).is_err());
        assert!(VerifyingKey::parse(PrincipalKey([0xff; 32])).is_err());
    }
}
