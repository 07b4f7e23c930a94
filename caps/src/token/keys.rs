//! Root keys: who may mint, and whose tokens are believed.
//!
//! A root key signs biscuits and nothing else, because what it signs has no prefix that says what it is for. So it is
//! a type of its own, without a method that signs bytes.

use biscuit_auth::{Algorithm, KeyPair, PrivateKey, PublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Token;
use super::terms::Terms;
use super::vocabulary::{authority, built};
use crate::error::{Code, Error, Result};

/// Most root keys that a verifier trusts at once. A rotation needs two; the rest is room for clusters that merge.
pub const ROOT_KEYS_MAX: usize = 8;

/// The public half of a root key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootPublic(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl RootPublic {
    /// The id by which tokens name this key: the first 4 bytes of a hash of it, so that keys of different clusters
    /// have different ids unless by a chance of 1 in 2^32.
    #[must_use]
    pub fn id(self) -> u32 {
        let digest = Sha256::new().chain_update(b"leasehold-root-id-v1\0").chain_update(self.0).finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    /// Reads 64 lowercase hexadecimal digits.
    ///
    /// # Errors
    /// `E_RANGE` for any other text.
    pub fn parse(text: &str) -> Result<Self> {
        crate::hex::parse(text)
            .map(Self)
            .ok_or(Error::new(Code::Range, "a root key is 64 lowercase hexadecimal digits"))
    }
}

crate::hex::shown_as_hex!(RootPublic);

/// The secret that mints tokens. No `Debug`, no `Clone`; the library wipes it when it is dropped.
///
/// It cannot sign anything but a biscuit:
///
/// ```compile_fail
/// let key = caps::token::RootKey::from_seed(&[1; 32]);
/// key.sign(b"anything");
/// ```
/// ```
/// let key = caps::token::RootKey::from_seed(&[1; 32]);
/// assert_eq!(key.id(), key.public().id());
/// ```
pub struct RootKey {
    id: u32,
    pair: KeyPair,
}

impl RootKey {
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
        let pair = pair_of(seed);
        Self { id: public_of(&pair).id(), pair }
    }

    /// The seed, for the key file. The copy wipes itself.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&self.pair.private().to_bytes());
        seed
    }

    /// The id by which tokens name this key.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> RootPublic {
        public_of(&self.pair)
    }

    /// Mints a token. Its holder can narrow it, delegate it, and seal it.
    ///
    /// # Errors
    /// `E_RANGE` as [`Terms::check`].
    pub fn mint(&self, terms: &Terms) -> Result<Token> {
        self.mint_with(terms, &KeyPair::new())
    }

    /// The same with a given key for the next block, so that a golden token is the same each time.
    pub(super) fn mint_with(&self, terms: &Terms, next: &KeyPair) -> Result<Token> {
        terms.check()?;
        let builder = authority(terms)?.root_key_id(self.id);
        let symbols = biscuit_auth::datalog::SymbolTable::new();
        let biscuit = built(builder.build_with_key_pair(&self.pair, symbols, next))?;
        let token = Token::from_bytes(built(biscuit.to_vec())?)?;
        debug_assert!(super::gate(token.as_bytes()).is_ok(), "what we mint passes our gate");
        Ok(token)
    }
}

/// The library's key pair of a seed.
pub(super) fn pair_of(seed: &[u8; 32]) -> KeyPair {
    KeyPair::from(&PrivateKey::from_bytes(seed, Algorithm::Ed25519).expect("a seed is any 32 bytes"))
}

fn public_of(pair: &KeyPair) -> RootPublic {
    RootPublic(pair.public().to_bytes().try_into().expect("an Ed25519 public key is 32 bytes"))
}

/// The root keys that a verifier trusts. More than one while keys rotate: the new key is added everywhere, then
/// mints; the old one is removed when its last token has expired.
#[derive(Clone, Default)]
pub struct RootKeys {
    /// Decompressed once, here: a verification only copies the point.
    keys: Vec<(RootPublic, PublicKey)>,
}

impl RootKeys {
    /// A set of one.
    ///
    /// # Errors
    /// `E_RANGE` as [`Self::add`].
    pub fn of(key: RootPublic) -> Result<Self> {
        let mut keys = Self::default();
        keys.add(key)?;
        Ok(keys)
    }

    /// Trusts one more key. Adding a key again changes nothing.
    ///
    /// # Errors
    /// `E_RANGE` if it is no point of full order, or one too many; `E_EXISTS` if another key has its id.
    pub fn add(&mut self, key: RootPublic) -> Result<()> {
        let not_a_key = || Error::new(Code::Range, "not an Ed25519 public key of full order");
        super::weak::refuse(&key.0).map_err(|_| not_a_key())?;
        let parsed = PublicKey::from_bytes(&key.0, Algorithm::Ed25519).map_err(|_| not_a_key())?;
        match self.keys.iter().find(|(known, _)| known.id() == key.id()) {
            Some((known, _)) if *known == key => return Ok(()),
            Some(_) => {
                return Err(Error::new(Code::Exists, "another root key has the same id; make a new one"));
            }
            None => {}
        }
        if self.keys.len() == ROOT_KEYS_MAX {
            return Err(Error::new(Code::Range, "at most 8 root keys are trusted at once"));
        }
        self.keys.push((key, parsed));
        Ok(())
    }

    /// Trusts a key no longer.
    pub fn remove(&mut self, key: RootPublic) {
        self.keys.retain(|(known, _)| *known != key);
    }

    /// The trusted keys, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = RootPublic> {
        self.keys.iter().map(|(key, _)| *key)
    }

    /// Whether the key of this id is trusted.
    #[must_use]
    pub fn trusts(&self, id: u32) -> bool {
        self.keys.iter().any(|(key, _)| key.id() == id)
    }

    /// The key that a token names.
    ///
    /// # Errors
    /// `E_TOKEN_UNKNOWN_KEY` if it names none, or one that is not trusted.
    pub(super) fn choose(&self, id: Option<u32>) -> Result<(u32, PublicKey)> {
        let unknown = |detail| Error::new(Code::TokenUnknownKey, detail);
        let id = id.ok_or(unknown("the token names no root key"))?;
        let found = self.keys.iter().find(|(key, _)| key.id() == id);
        found.map(|(_, key)| (id, *key)).ok_or(unknown("the token names a root key that is not trusted here"))
    }
}

impl std::fmt::Debug for RootKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_the_key() {
        let key = RootKey::from_seed(&[7; 32]);
        assert_eq!(*key.seed(), [7; 32]);
        assert_eq!(RootKey::from_seed(&key.seed()).public(), key.public());
        assert_eq!(key.public().0, crate::key::SigningKey::from_seed(&[7; 32]).public().0);
        assert_eq!(RootPublic::parse(&key.public().to_string()).unwrap(), key.public());
        assert_ne!(RootKey::generate().public(), RootKey::generate().public());
    }

    /// y = 2: the curve has no such point.
    const NO_POINT: [u8; 32] = {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        bytes
    };

    #[test]
    fn the_set_is_bounded_and_refuses_weak_keys() {
        let mut keys = RootKeys::default();
        assert_eq!(keys.add(RootPublic([0; 32])).unwrap_err().code(), Code::Range);
        assert_eq!(keys.add(RootPublic(NO_POINT)).unwrap_err().code(), Code::Range, "no point of the curve");
        for seed in 0..ROOT_KEYS_MAX as u8 {
            keys.add(RootKey::from_seed(&[seed; 32]).public()).unwrap();
        }
        let first = RootKey::from_seed(&[0; 32]).public();
        keys.add(first).unwrap();
        let another = RootKey::from_seed(&[99; 32]).public();
        assert_eq!(keys.add(another).unwrap_err().code(), Code::Range);
        keys.remove(first);
        keys.add(another).unwrap();
        assert_eq!(keys.iter().count(), ROOT_KEYS_MAX);
        assert!(keys.trusts(another.id()) && !keys.trusts(first.id()));
        assert_eq!(keys.choose(Some(first.id())).unwrap_err().code(), Code::TokenUnknownKey);
        assert_eq!(keys.choose(None).unwrap_err().code(), Code::TokenUnknownKey);
    }
}
