//! The key that mints, which another can take the place of while requests are under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use caps::error::Result;
use caps::time::UnixMicros;
use caps::token::{RootKey, RootPublic, Terms, Token};

use super::Handle;

/// A key and the latest end of what it minted.
struct Minter {
    key: RootKey,
    /// Microseconds since 1970; 0 before its first token.
    latest: AtomicU64,
}

impl Minter {
    const fn new(key: RootKey) -> Self {
        Self { key, latest: AtomicU64::new(0) }
    }
}

/// The key in force.
pub(super) struct Minting(RwLock<Arc<Minter>>);

/// A key that mints no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its public half.
    pub key: RootPublic,
    /// When the last token that it minted in this life of the node ends; before any time there is if it minted none.
    pub latest: UnixMicros,
}

impl Minting {
    pub(super) fn new(key: RootKey) -> Self {
        Self(RwLock::new(Arc::new(Minter::new(key))))
    }

    /// Mints a token with the key in force.
    ///
    /// # Errors
    /// As [`RootKey::mint`].
    pub(super) fn mint(&self, terms: &Terms) -> Result<Token> {
        let minter = {
            let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
            // Under the lock: whoever replaces the key knows of every token that it ever signs.
            current.latest.fetch_max(terms.expires.0, Ordering::Relaxed);
            current.clone()
        };
        minter.key.mint(terms)
    }

    /// Puts another key in its place.
    fn replace(&self, key: RootKey) -> Replaced {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, Arc::new(Minter::new(key)));
        drop(current);
        Replaced { key: before.key.public(), latest: UnixMicros(before.latest.load(Ordering::Relaxed)) }
    }

    /// The latest end of what the key in force minted so far.
    fn latest(&self) -> UnixMicros {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        UnixMicros(current.latest.load(Ordering::Relaxed))
    }
}

impl Handle {
    /// Mints with another key from now on. Every provider must believe it already, and the change must be on record.
    #[must_use = "the key before is believed until then"]
    pub fn mint_with(&self, key: RootKey) -> Replaced {
        self.shared.minting.replace(key)
    }

    /// When the last token ends that the present key has minted until now.
    #[must_use]
    pub fn minted_until(&self) -> UnixMicros {
        self.shared.minting.latest()
    }
}

#[cfg(test)]
mod tests {
    use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
    use caps::key::SigningKey;
    use caps::range::ByteRange;
    use caps::rights::Rights;
    use caps::token::{RootKeys, gate};

    use super::*;

    fn terms(expires: u64) -> Terms {
        Terms {
            lease: LeaseId([1; 16]),
            region: RegionId([2; 16]),
            grant: None,
            range: ByteRange::new(0, 4096).unwrap(),
            rights: Rights::READ,
            holder: SigningKey::from_seed(&[3; 32]).public(),
            not_before: UnixMicros(1),
            expires: UnixMicros(expires),
            max_hops: 0,
            cluster: ClusterEpoch([4; 16]),
            provider: ProviderId([5; 16]),
        }
    }

    #[test]
    fn the_key_before_is_told_with_the_latest_end_of_its_tokens() {
        let (first, second) = (RootKey::from_seed(&[1; 32]), RootKey::from_seed(&[2; 32]));
        let (first_public, second_public) = (first.public(), second.public());
        let by =
            |token: &Token, key| gate(token.as_bytes()).unwrap().verify(&RootKeys::of(key).unwrap()).is_ok();
        let minting = Minting::new(first);
        assert_eq!(minting.latest(), UnixMicros(0));
        for expires in [50, 90, 70] {
            assert!(by(&minting.mint(&terms(expires)).unwrap(), first_public));
        }
        assert_eq!(minting.replace(second), Replaced { key: first_public, latest: UnixMicros(90) });
        assert_eq!(minting.latest(), UnixMicros(0), "the new key has minted nothing");
        let token = minting.mint(&terms(60)).unwrap();
        assert!(by(&token, second_public) && !by(&token, first_public));
        assert_eq!(minting.latest(), UnixMicros(60));
    }
}
