//! The lives whose links there are, or were and may come again.
//!
//! A life belongs to the name of the certificate that brought it first: knowing another provider's id, which is in every
//! token, gives nobody its link.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker::runtime::{Handle, ProviderLink};
use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::limits::{LINK_WINDOW_MAX, PROVIDERS_MAX};
use caps::wire::Name;
use caps::wire::provider::{ProviderState, Registration};
use tokio::sync::Semaphore;

use super::refusals::Refusals;
use crate::end::End;

/// What outlives the links of a life.
pub(super) struct Life {
    pub(super) registration: Registration,
    /// How many of its notices were noted. Changed under `noting`.
    noted: AtomicU64,
    /// Held while some are being noted, so that a message that comes again over a second link waits for the first.
    pub(super) noting: tokio::sync::Mutex<()>,
    /// What it was refused.
    pub(super) refusals: Refusals,
    /// How often notices of it were lost.
    pub(super) losses: AtomicU64,
    /// What of its questions is being worked on, over all its links.
    pub(super) working: Arc<Semaphore>,
    /// Held while the broker asks what of its leases is there: how many losses a whole look has made good.
    pub(super) asking: tokio::sync::Mutex<u64>,
}

impl Life {
    fn new(registration: Registration) -> Self {
        Self {
            registration,
            noted: AtomicU64::new(0),
            noting: tokio::sync::Mutex::new(()),
            refusals: Refusals::default(),
            losses: AtomicU64::new(0),
            working: Arc::new(Semaphore::new(2 * LINK_WINDOW_MAX)),
            asking: tokio::sync::Mutex::new(0),
        }
    }

    /// How many of its notices were noted. While some are being noted over another link it may be fewer: those come again,
    /// wait, and are found to be known.
    pub(super) fn noted(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    /// For whoever holds `noting`.
    pub(super) fn note(&self, noted: u64) {
        self.noted.store(noted, Ordering::Release);
    }
}

/// The table.
pub(super) struct Registry {
    handle: Handle,
    /// Held through one joining, so that of two links of a life one is the newer.
    joining: tokio::sync::Mutex<()>,
    /// Held for one look or one change.
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    lives: BTreeMap<ProviderId, (Arc<Life>, End)>,
    /// Links that have not joined, one of a name.
    greeting: BTreeMap<Name, End>,
}

const NEWER: Error = Error::new(Code::Unreachable, "a newer link of the same provider has come");

impl Registry {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, joining: tokio::sync::Mutex::new(()), tables: Mutex::default() }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A provider of this name has come, and is being told what it has to know. One of the same name that is as far goes.
    pub(super) fn greets(self: &Arc<Self>, name: &Name, end: &End) -> Greeting {
        let before = self.tables().greeting.insert(name.clone(), end.clone());
        if let Some(before) = before {
            before.close(NEWER);
        }
        Greeting { registry: Arc::clone(self), name: name.clone(), end: end.clone() }
    }

    /// It joins: a life that is not known is registered, one that is known is there again.
    ///
    /// # Errors
    /// `E_EPOCH` if the life is over, or has memory of which nobody knows; `E_PEER_IDENTITY` if it is another provider's, or
    /// says something else than before; what the broker says.
    pub(super) async fn join(
        &self,
        said: &Registration,
        has_memory: bool,
        end: &End,
        link: Arc<dyn ProviderLink>,
    ) -> Result<Arc<Life>> {
        let _one = self.joining.lock().await;
        let known = self.tables().lives.get(&said.id).map(|(life, end)| (Arc::clone(life), end.clone()));
        let life = match known {
            Some((life, _)) if life.registration != *said => {
                let detail = "this life is another provider's, or says something else of itself than before";
                return Err(Error::new(Code::PeerIdentity, detail));
            }
            Some((life, before)) => {
                if let Err(error) = self.handle.provider_rejoin(said.id, link).await {
                    if error.code() == Code::Epoch {
                        self.tables().lives.remove(&said.id);
                    }
                    return Err(error);
                }
                before.close(NEWER);
                life
            }
            None if has_memory => {
                return Err(Error::new(Code::Epoch, "nothing is known of this life and its memory"));
            }
            None => {
                self.make_room().await?;
                self.handle.provider_register(said.clone(), link).await?;
                Arc::new(Life::new(said.clone()))
            }
        };
        self.tables().lives.insert(said.id, (Arc::clone(&life), end.clone()));
        Ok(life)
    }

    /// Forgets lives that are over in the broker's books, if there are more than it has providers.
    async fn make_room(&self) -> Result<()> {
        if self.tables().lives.len() < PROVIDERS_MAX {
            return Ok(());
        }
        let rows = self.handle.providers().await?;
        let alive =
            |id: &ProviderId| rows.iter().any(|row| row.id == *id && row.state != ProviderState::Lost);
        self.tables().lives.retain(|id, _| alive(id));
        if self.tables().lives.len() < PROVIDERS_MAX {
            Ok(())
        } else {
            Err(Error::new(Code::Busy, "the table of providers is full"))
        }
    }
}

/// A provider that is being told what it has to know, until this is dropped.
pub(super) struct Greeting {
    registry: Arc<Registry>,
    name: Name,
    end: End,
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let mut tables = self.registry.tables();
        if tables.greeting.get(&self.name).is_some_and(|end| end.is(&self.end)) {
            tables.greeting.remove(&self.name);
        }
    }
}
