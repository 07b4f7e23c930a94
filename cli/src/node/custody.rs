//! Who keeps the root keys while the node runs: rotates them, retires them, and lets them retire by themselves.
//!
//! | step of a rotation | a crash right after it leaves |
//! |---|---|
//! | 1 the new key's file, synced | a file that the next start removes |
//! | 2 published for offline verifiers, believed by the provider | the same; the next start publishes what counts |
//! | 3 recorded | an entry of a key that never minted |
//! | 4 named as the one that mints, synced | the new key mints from the next start on |
//! | 5 mints; the end of what the old one minted is known and written | the same |
//!
//! A retirement is the other way round, as every take-back: first it takes effect, then it is written and recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::{Draft, Event};
use broker::runtime::Handle;
use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::time::{Micros, UnixMicros};
use caps::token::RootKey;
use caps::wire::provider::ProviderState;
use caps::wire::row::{RootRow, RootState};
use caps::wire::{Reply, Request};
use link::broker::FactsSource;
use policy::limits;
use provider::gate::Caller;
use provider::runtime::Provider;
use tokio::sync::{Mutex, Notify};

use super::ring::Ring;
use super::state;

/// Keeps the root keys of a running node.
pub(super) struct Custody {
    /// Held through a whole change: one at a time.
    ring: Mutex<Ring>,
    handle: Handle,
    provider: Provider,
    /// What providers on other machines are told; `None` if none can come.
    told: Option<Arc<FactsSource>>,
    /// The provider of this process, which is told by `provider`; `None` if it takes no leases.
    own: Option<ProviderId>,
    /// Where the public halves are published.
    audit: PathBuf,
    /// The longest that a lease lives: an upper bound for what the key in force may still mint.
    ttl_max: Micros,
    /// Told when there is another key to wait for.
    changed: Notify,
}

impl Custody {
    pub(super) fn new(
        ring: Ring,
        handle: Handle,
        provider: Provider,
        told: Option<Arc<FactsSource>>,
        own: Option<ProviderId>,
        audit: PathBuf,
        ttl_max: Micros,
    ) -> Arc<Self> {
        let ring = Mutex::new(ring);
        Arc::new(Self { ring, handle, provider, told, own, audit, ttl_max, changed: Notify::new() })
    }

    /// Answers an administrator's request; `None` for one that is not about root keys. A change that was begun goes on
    /// whether or not somebody waits for it.
    pub(super) async fn request(
        self: &Arc<Self>,
        caller: Caller,
        request: &Request,
    ) -> Option<Result<Reply>> {
        let custody = self.clone();
        let changed = match *request {
            Request::RootList => return Some(Ok(Reply::Roots(self.ring.lock().await.rows().to_vec()))),
            Request::RootRotate => tokio::spawn(async move { custody.rotate(caller).await }),
            Request::RootRetire { id } => tokio::spawn(async move { custody.retire(caller, id).await }),
            _ => return None,
        };
        let rows = changed.await.unwrap_or(Err(Error::new(Code::Internal, "a change of root keys panicked")));
        if let Err(error) = &rows {
            tracing::warn!(%error, "a change of root keys");
            // What could not be recorded cannot be recorded as such either.
            if error.code() != Code::AuditUnavailable {
                let entry = by(caller, Draft::deny(Event::KeyRotate, error.code()));
                self.handle.record_regardless(entry);
            }
        }
        self.changed.notify_one();
        Some(rows.map(Reply::Roots))
    }

    async fn rotate(&self, caller: Caller) -> Result<Vec<RootRow>> {
        let mut ring = self.ring.lock().await;
        self.expire(&mut ring)?;
        let now = self.handle.now();
        let key = Self::draw(&ring);
        // Nothing that the old key mints until it is replaced lives longer.
        let bound = now.plus(self.ttl_max).max(self.handle.minted_until());
        let with = ring.with(&key, now, bound)?;
        if let Err(error) = self.introduce(&with, &key, caller).await {
            // Nothing was minted with it.
            ring.discard(&with);
            self.withdraw(&ring)?;
            return Err(error);
        }
        if let Err(error) = ring.adopt(with) {
            let entry = Draft::error(Event::KeyRotate, error.code()).root(&key.public().0).cause("rotate");
            self.handle.record_regardless(by(caller, entry));
            self.withdraw(&ring)?;
            return Err(error);
        }
        let replaced = self.handle.mint_with(key);
        ring.set_retires(replaced.key, replaced.latest);
        // The new key mints: what is left is tried again by `watch`.
        if let Err(error) = self.expire(&mut ring) {
            tracing::warn!(%error, "the list of root keys is not up to date on disk; trying again");
        }
        Ok(ring.rows().to_vec())
    }

    /// Steps 2 and 3: whoever is shown a token of the new key believes it before there is one. Providers on other machines
    /// that are connected have said so; one that is not hears of it when it comes back, before it is given a lease, and
    /// before that it refuses such tokens.
    async fn introduce(&self, with: &Ring, key: &RootKey, caller: Caller) -> Result<()> {
        self.publish(with)?;
        self.provider.set_roots(with.believed()?);
        if !self.tell(with).await {
            return Err(Error::new(
                Code::Busy,
                "a provider did not say in time that it believes the new key; nothing has changed, rotate again",
            ));
        }
        let entry = Draft::ok(Event::KeyRotate).root(&key.public().0).cause("rotate");
        self.handle.record(by(caller, entry)).await
    }

    /// Believes what was believed before.
    fn withdraw(&self, ring: &Ring) -> Result<()> {
        self.provider.set_roots(ring.believed()?);
        if let Some(told) = &self.told {
            told.set_roots(ring.publics());
        }
        self.publish(ring)
    }

    /// Tells providers on other machines what is believed, and waits until all that are connected have said that they
    /// know; `false` if one does not in time. For a new key that is enough: whoever hears of it late refuses its tokens
    /// meanwhile. For one that retires it is not: see [`Self::unheard`].
    async fn tell(&self, ring: &Ring) -> bool {
        let Some(told) = &self.told else { return true };
        told.set_roots(ring.publics());
        told.told(Duration::from_millis(limits::ROOTS_TOLD_MS_MAX)).await
    }

    /// Who may believe yet what was believed before the change of this number. Only a provider that has said over its link
    /// that it knows the change, or is proved to be gone, does not: that a link is cut, or a provider lost, says nothing of
    /// what its process still serves.
    ///
    /// # Errors
    /// `E_BUSY` or `E_UNREACHABLE`: it cannot be found out.
    async fn unheard(&self, change: u64) -> Result<Unheard> {
        let Some(told) = &self.told else { return Ok(Unheard::default()) };
        let mut unheard = Unheard::default();
        for row in self.handle.providers().await? {
            if row.state != ProviderState::Lost && Some(row.id) != self.own && !told.knows(row.id, change) {
                unheard.also(self.handle.serves_until(row.id).await?);
            }
        }
        // Also of those whose rows are gone already.
        if let Some(until) = self.handle.lost_serve_until().await? {
            unheard.also(Some(until));
        }
        Ok(unheard)
    }

    /// A key of an id that no other has: a chance of 1 in 2^29 at most, and refused by every verifier.
    fn draw(ring: &Ring) -> RootKey {
        loop {
            let key = RootKey::generate();
            if ring.rows().iter().all(|row| row.id != key.id()) {
                return key;
            }
        }
    }

    async fn retire(&self, caller: Caller, id: u32) -> Result<Vec<RootRow>> {
        let mut ring = self.ring.lock().await;
        let row = *ring
            .rows()
            .iter()
            .find(|row| row.id == id)
            .ok_or(Error::new(Code::TokenUnknownKey, "no root key of that id is believed"))?;
        if row.state == RootState::Minting {
            return Err(Error::new(Code::Denied, "this key mints; rotate first, then retire it"));
        }
        ring.remove(row.public);
        // Before its own, which may take a while: each takes back what was opened at it.
        let change = self.told.as_ref().map(|told| told.set_roots(ring.publics()));
        if let Some(told) = &self.told {
            told.told(Duration::from_millis(limits::ROOTS_TOLD_MS_MAX)).await;
        }
        let taken = self.provider.retire_root(ring.believed()?, id).await;
        // Each of these is done whether or not another fails.
        let saved = ring.save_if_changed();
        let published = self.publish(&ring);
        let done = taken.unwrap_or_default();
        let entry = Draft::ok(Event::KeyRotate)
            .root(&row.public.0)
            .cause("retire")
            .mappings_closed(done.mappings_closed.into())
            .dead_us(done.dead.0);
        let entry = by(caller, entry);
        let recorded = self.handle.record(entry.clone()).await;
        if recorded.is_err() {
            self.handle.record_regardless(entry);
        }
        saved.and(published).and(recorded)?;
        // Last: meanwhile one may have come back, and been told.
        if let Some(change) = change {
            self.unheard(change).await?.check(self.handle.now())?;
        }
        Ok(ring.rows().to_vec())
    }

    /// Lets go of keys whose last token has expired, and brings the disk up to date if it was not.
    fn expire(&self, ring: &mut Ring) -> Result<()> {
        let now = self.handle.now();
        let due = |row: &&RootRow| row.retires.is_some_and(|retires| retires <= now);
        let over: Vec<_> = ring.rows().iter().filter(due).copied().collect();
        for row in &over {
            ring.remove(row.public);
            self.provider.expire_root(ring.believed()?, row.id);
            if let Some(told) = &self.told {
                told.expire_root(ring.publics(), row.id);
            }
            self.handle.record_regardless(Draft::ok(Event::KeyRotate).root(&row.public.0).cause("expire"));
        }
        ring.save_if_changed()?;
        if over.is_empty() { Ok(()) } else { self.publish(ring) }
    }

    fn publish(&self, ring: &Ring) -> Result<()> {
        state::publish(&self.audit, "root", &ring.published())
    }

    /// Lets each key retire when its time is over. For ever.
    pub(super) async fn watch(self: Arc<Self>) {
        let most = Duration::from_millis(limits::ROOT_LOOK_MS_MAX);
        loop {
            let wait = {
                let mut ring = self.ring.lock().await;
                if let Err(error) = self.expire(&mut ring) {
                    tracing::warn!(%error, "the list of root keys is not up to date on disk; trying again");
                }
                let now = self.handle.now();
                let next = ring.rows().iter().filter_map(|row| row.retires).min();
                // Not by a clock that stands still while the machine sleeps: so one that looks again.
                next.map_or(most, |next: UnixMicros| Duration::from_micros(next.since(now).0 + 1).min(most))
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Providers that did not say that they know a change.
#[derive(Default)]
struct Unheard {
    /// Whether there are any.
    any: bool,
    /// Until when they may serve what they have; `None` if they have nothing.
    until: Option<UnixMicros>,
}

impl Unheard {
    fn also(&mut self, until: Option<UnixMicros>) {
        self.any = true;
        self.until = self.until.max(until);
    }

    /// # Errors
    /// `E_UNREACHABLE` with the bound, if there are any.
    fn check(&self, now: UnixMicros) -> Result<()> {
        let what = "the key is retired here, and a provider that cannot be reached is told before all else when it is back";
        match self.until {
            _ if !self.any => Ok(()),
            None => Err(Error::with(
                Code::Unreachable,
                format!("{what}; it has no lease that the key could open"),
            )),
            Some(until) => {
                // Rounded up: it is a bound.
                let seconds = until.since(now).0.div_ceil(1_000_000);
                let bound =
                    format!("what was opened there by the key ends within {seconds} s, with the leases");
                Err(Error::with(Code::Unreachable, format!("{what}; {bound}")))
            }
        }
    }
}

/// Who asked.
fn by(caller: Caller, entry: Draft) -> Draft {
    entry.subject(caller.holder).maybe(caller.uid, Draft::peer_uid)
}
