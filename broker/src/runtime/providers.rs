//! Providers come, are asked how they are, and are lost.
//!
//! ```text
//! provider_register ──▶ link added ──▶ ProviderRegister ordered ──▶ heartbeat task, unless it is attached
//!                                                                     │ answered: ProviderHeartbeat
//!                                                                     └ silent for too long: ProviderLost, link removed
//! ```
//!
//! # What is promised of a provider that does not answer
//!
//! | what | while it is silent | once it is lost |
//! |---|---|---|
//! | a new lease | goes to another, [`silent_after`] at the latest; a claim under way ends with its reservation | the same |
//! | a renewal | refused, and undone in the books | `E_LEASE_EXPIRED` |
//! | a revoke | it takes effect in the books at once, and is answered with `E_UNREACHABLE` and the span within which the provider ends the lease by itself. A lease is told again and again until the provider answers | the lease is over: what is revoked again is answered as what ended before |
//!
//! There is no receipt before the provider has answered: a receipt says that nothing can be reached, and until the span
//! is over a provider that only the broker cannot reach may still serve. That span is the latest end that it was ever
//! told of the lease, which it keeps on its own clock, and as much as the two clocks may be apart.
//!
//! A lost provider's leases are over in the books, which give their quota back. That is true of its memory if its process
//! is gone. One that is cut off must come to the same end by itself: whoever makes a link over a network has the
//! provider fence all that it has when it has not been asked how it is for less than [`lost_after`]. Its life is over in
//! any case, and what it says afterwards is refused.
//!
//! Silence is counted in questions without an answer, not in time alone: a broker whose machine slept has asked nothing.
//!
//! [`silent_after`]: crate::state::Bounds::silent_after
//! [`lost_after`]: crate::state::Bounds::lost_after

use std::sync::Arc;
use std::time::Duration;

use caps::id::{LeaseId, ProviderId};
use caps::wire::Name;
use caps::wire::Reply;
use caps::wire::link::Notice;
use caps::wire::provider::{Load, ProviderRow, ProviderState, Registration};
use caps::{Code, Error, Result};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::engine::{Mode, Order};
use super::{Caller, Handle, ProviderLink, Shared, principal, recorded_index, unexpected};
use crate::state::{Kind, PolicyVerdict, Query, View};

impl Handle {
    /// A provider comes, with none of the memory that one of its name had before: if that one was not lost yet, it is now.
    /// The caller has proved that it is that provider. It is asked how it is from now on.
    ///
    /// # Errors
    /// `E_RANGE` if it has no room; `E_EXISTS` if this life of it is registered; `E_EPOCH` if that is over; `E_BUSY` if
    /// the table is full; as [`Self::notice`].
    pub async fn provider_register(&self, said: Registration, link: Arc<dyn ProviderLink>) -> Result<()> {
        let id = said.id;
        // Before it is ordered: from then on leases are placed there.
        if !self.shared.links.add(id, link) {
            return Err(Error::new(Code::Exists, "this life of a provider is registered"));
        }
        let kind = Kind::ProviderRegister { provider: said, attached: false };
        if let Err(error) = self.shared.order_and_wait(kind).await {
            self.shared.links.remove(id);
            return Err(error);
        }
        self.shared.tasks.spawn(watch(Arc::clone(&self.shared), id));
        Ok(())
    }

    /// A life of a provider that the broker has not given up is back over another link, with all the memory that it had.
    /// The caller has proved that it is that provider.
    ///
    /// # Errors
    /// `E_EPOCH` if that life is over or was never registered; as [`Self::notice`].
    pub async fn provider_rejoin(&self, provider: ProviderId, link: Arc<dyn ProviderLink>) -> Result<()> {
        self.alive(provider).await?;
        self.shared.links.replace(provider, link);
        Ok(())
    }

    /// What a provider tells unasked: of leases that are placed there and of their grants, and of no others. Returns when
    /// it is in the books.
    ///
    /// # Errors
    /// `E_EPOCH` if that life is over or was never registered; `E_LEASE_UNKNOWN`, `E_GRANT_UNKNOWN` for what is not
    /// placed there; as [`Self::notice`].
    pub async fn provider_notice(&self, provider: ProviderId, notice: Notice) -> Result<()> {
        self.alive(provider).await?;
        self.shared.order_and_wait(Kind::Notice(notice)).await
    }

    async fn alive(&self, provider: ProviderId) -> Result<()> {
        let rows = self.providers().await?;
        let alive = rows.iter().any(|row| row.id == provider && row.state != ProviderState::Lost);
        alive.then_some(()).ok_or(Error::new(Code::Epoch, "this life of the provider is over"))
    }

    /// The administrator's word that a provider's process is gone, and with it all its memory. What is gone is as proved
    /// as that word is.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name; `E_EXISTS` if that is known; as [`Self::notice`].
    pub async fn provider_lost(&self, name: Name, caller: Caller) -> Result<()> {
        if caller.holder != self.shared.genesis.admin {
            return Err(Error::new(Code::NotAdmin, "only the administrator gives providers up"));
        }
        let rows = self.providers().await?;
        let row = rows.iter().find(|row| row.name == name);
        let row = row.ok_or(Error::new(Code::Range, "no provider has this name"))?;
        self.shared.lose(row.id).await
    }

    /// Where a provider is. For whoever names its life: that is in its tokens, and nobody guesses it.
    pub(super) async fn provider_show(&self, provider: ProviderId) -> Result<Reply> {
        let row = self.providers().await?.into_iter().find(|row| row.id == provider);
        let row = row.ok_or(Error::new(Code::Epoch, "no provider of this life is known"))?;
        match row.state {
            ProviderState::Lost => {
                Err(Error::new(Code::ProviderLost, "the provider is lost, and its memory"))
            }
            ProviderState::Up | ProviderState::Draining => {
                Ok(Reply::Provider { name: row.name, address: row.address })
            }
        }
    }

    /// Every provider, in the order of their names.
    ///
    /// # Errors
    /// `E_BUSY` or `E_UNREACHABLE`.
    pub async fn providers(&self) -> Result<Vec<ProviderRow>> {
        match self.shared.look(self.shared.genesis.admin, Query::Status).await? {
            View::Status(status) => Ok(status.providers),
            _ => Err(unexpected()),
        }
    }

    /// The provider that has the region of a lease, whether or not the lease has ended.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`; `E_BUSY` or `E_UNREACHABLE`.
    pub async fn placed_on(&self, lease: LeaseId) -> Result<ProviderId> {
        match self.shared.look(self.shared.genesis.admin, Query::Lease(lease)).await? {
            View::Lease(row) => Ok(row.provider),
            _ => Err(unexpected()),
        }
    }

    /// Has a provider take no new leases, or take them again. What it has stays until it ends.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name. It takes effect even where it cannot be recorded at once.
    pub async fn provider_drain(&self, caller: Caller, name: Name, drain: bool) -> Result<()> {
        let no_policy: Option<PolicyVerdict> = None;
        let kind = Kind::ProviderDrain { name, drain };
        let order = Order { mode: Mode::Regardless, ..principal(caller, kind, None, no_policy) };
        let outcome = self.shared.order(order).await?;
        // Not recorded is no failure here: the recorder keeps the entry until a device takes it.
        let _ = recorded_index(outcome.recorded).await;
        outcome.answer.map(drop)
    }
}

impl Shared {
    async fn lose(&self, provider: ProviderId) -> Result<()> {
        let lost = self.order_and_wait(Kind::ProviderLost { provider }).await;
        // Also where it was lost already, or never registered: nothing is to be told to it any more. A broker that has no
        // room for the order just now is told again.
        if !lost.as_ref().is_err_and(|error| error.code() == Code::Busy) {
            self.links.remove(provider);
        }
        lost
    }
}

/// Asks a provider how it is until it is lost, its name has come back with another life, or the broker stops.
async fn watch(shared: Arc<Shared>, provider: ProviderId) {
    let bounds = &shared.genesis.bounds;
    let every = Duration::from_micros(bounds.heartbeat_every.0);
    let missed_max = bounds.lost_after.0.div_ceil(bounds.heartbeat_every.0);
    let mut beat = interval(every);
    // After a pause of the machine, one question and not all that were left out.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = 0;
    while missed < missed_max {
        beat.tick().await;
        let Ok(link) = shared.links.get(provider) else { return };
        match timeout(every, link.status()).await {
            Ok(Ok(status)) => {
                missed = 0;
                let load = Load { sessions: status.sessions, committed_bytes: status.committed_bytes };
                match shared.order_and_wait(Kind::ProviderHeartbeat { provider, load }).await {
                    Ok(()) => {}
                    // The broker has much to do, and hears of it with the next one.
                    Err(error) if error.code() == Code::Busy => {}
                    Err(_) => return shared.links.remove(provider),
                }
            }
            Ok(Err(_)) | Err(_) => missed += 1,
        }
    }
    while shared.lose(provider).await.is_err_and(|error| error.code() == Code::Busy) {
        beat.tick().await;
    }
}
