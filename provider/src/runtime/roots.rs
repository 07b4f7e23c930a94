//! The root keys whose tokens are believed, and how one of them stops being.
//!
//! ```text
//! verify ─▶ evidence, with the id of its root key ─▶ opened only while that key is believed
//!                                                        │ one lock
//! retire ─▶ the key is no longer in the set ─────────────┘─▶ what was opened under it is taken back
//! ```
//! An opening holds the set for reading while the kernel applies it. So it is in the kernel's tables before the set
//! changes, where the retirement finds it, or it is judged by the new set and refused. What a session remembers of
//! verified tokens is of one generation of the set.

use std::sync::{Arc, PoisonError, RwLock};

use caps::error::{Code, Error, Result};
use caps::token::RootKeys;
use caps::wire::link::{Take, Taken};
use caps::wire::row::EndCause;

use super::{Provider, lock};
use crate::kernel::{Answer, Event, Kernel};

/// A set of root keys, and which of all the sets that there were.
#[derive(Debug)]
pub(crate) struct Generation {
    keys: RootKeys,
    number: u64,
}

impl Generation {
    /// The keys.
    pub(crate) const fn keys(&self) -> &RootKeys {
        &self.keys
    }

    /// Counts the sets since the start. What was verified by one says nothing about the next.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }
}

/// The set in force.
pub(super) struct Believed(RwLock<Arc<Generation>>);

impl Believed {
    pub(super) fn new(keys: RootKeys) -> Self {
        Self(RwLock::new(Arc::new(Generation { keys, number: 0 })))
    }
}

impl Provider {
    /// Replaces the public keys whose tokens are accepted.
    pub fn set_roots(&self, keys: RootKeys) {
        let mut believed = self.0.roots.0.write().unwrap_or_else(PoisonError::into_inner);
        let number = believed.number + 1; // one a change: never 2^64
        *believed = Arc::new(Generation { keys, number });
    }

    /// The keys in force.
    pub(crate) fn roots(&self) -> Arc<Generation> {
        self.0.roots.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One step of the kernel that must not happen once a root key is no longer believed.
    ///
    /// # Errors
    /// `E_TOKEN_UNKNOWN_KEY` if it is not; what the kernel refuses.
    pub(super) fn step_while_believed(
        &self,
        root: u32,
        event: impl FnOnce(&Kernel) -> Result<Event>,
    ) -> Result<Answer> {
        let believed = self.0.roots.0.read().unwrap_or_else(PoisonError::into_inner);
        if !believed.keys.trusts(root) {
            return Err(Error::new(
                Code::TokenUnknownKey,
                "the token names a root key that is believed no longer",
            ));
        }
        // The lock is held through the step on purpose, and the kernel never takes it.
        let answer = self.0.step_with(event);
        drop(believed);
        answer
    }

    /// Believes only `keys` from now on, of which `root` is none, and takes back what was opened under it. When this
    /// returns, nothing of it can be reached by any path: as after a revoke of each such right. Leases live on, but for
    /// those that cannot be rotated, which end.
    ///
    /// # Errors
    /// `E_INTERNAL` as [`Provider::take`]. The key is not believed all the same.
    pub async fn retire_root(&self, keys: RootKeys, root: u32) -> Result<Taken> {
        self.set_roots(keys);
        self.cut_root(root).await
    }

    /// Takes back what was opened under `root`, which is believed no longer: as [`Self::retire_root`], which may have failed
    /// before.
    ///
    /// # Errors
    /// As [`Self::retire_root`].
    pub async fn cut_root(&self, root: u32) -> Result<Taken> {
        let leases = lock(&self.0.kernel).leases_under(root);
        let takes: Vec<_> = leases
            .into_iter()
            .map(|lease| {
                let provider = self.clone();
                let take = Take::Root { lease, root };
                tokio::spawn(async move { provider.take(take, EndCause::Revoked).await })
            })
            .collect();
        let (mut total, mut failed) = (Taken::default(), None);
        for take in takes {
            // All of them run already; the slowest decides.
            match take.await.unwrap_or(Err(Error::new(Code::Internal, "a take-back panicked"))) {
                Ok(taken) => {
                    total.mappings_closed = total.mappings_closed.saturating_add(taken.mappings_closed);
                    total.method = total.method.max(taken.method);
                    total.dead = total.dead.max(taken.dead);
                    total.wiped_bytes = total.wiped_bytes.saturating_add(taken.wiped_bytes);
                }
                // It ended by itself meanwhile.
                Err(error) if error.code() == Code::LeaseUnknown => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(total), Err)
    }

    /// Believes only `keys` from now on, of which `root` is none: its last token has expired.
    pub fn expire_root(&self, keys: RootKeys, root: u32) {
        self.set_roots(keys);
        let expired = self.0.step(Event::RootExpired { root });
        debug_assert!(expired.is_ok(), "a key can always expire");
    }
}
