//! Providers come, come back, are asked how they are, and are lost.
//!
//! ```text
//! provider_register ──▶ link added ──▶ ProviderRegister ordered ──▶ heartbeat task, unless it is attached
//!                                                                     │ answered: ProviderHeartbeat, then what it was
//!                                                                     │           not told before, in order
//!                                                                     └ silent for too long: no more questions,
//!                                                                       ProviderLost, link removed
//! provider_rejoin ────▶ link replaced: the same life, the same leases
//! provider_gone ──────▶ ProviderLost ordered as proved, link removed: it stopped in order
//! ```
//!
//! # What is promised of a provider that does not answer
//!
//! | what | while it is silent | once it is lost |
//! |---|---|---|
//! | a new lease | goes to another, [`silent_after`] at the latest; a claim under way is tried at one other, and ends with its reservation | goes to another |
//! | a renewal | refused, and undone in the books | `E_PROVIDER_LOST` |
//! | a revoke | it takes effect in the books at once, and is answered with `E_UNREACHABLE` and the span within which the provider ends it by itself. It is told again until the provider answers | the same, until that span is over; then `E_PROVIDER_LOST`, without a receipt |
//! | quota | is taken | is taken until that span is over |
//!
//! There is no receipt before the provider has answered: a receipt says that nothing can be reached, and until the span
//! is over a provider that only the broker cannot reach may still serve. That span is the latest end that it was ever
//! told of the lease, which it keeps on its own clock, and as much as the two clocks may be apart. It serves until then:
//! the silence of the broker alone makes no provider drop its clients' memory.
//!
//! That a provider is gone is proved by another life of its name and seat, since one process at a time has a seat, by the
//! administrator's word, and by its own when it stops in order: it says so when all that it had is taken back and wiped. It
//! is the one that is asked what it has in any case, and it speaks of nobody else's. Then all of it is over at once. A life of another seat proves nothing: it is refused while
//! the one before is not lost, and takes its name, and none of its leases, afterwards. A life that was lost is over in any case: what
//! it says afterwards is refused, and whoever holds its link is told so by [`ProviderLink::over`].
//!
//! Silence is counted in questions without an answer, not in time alone: a broker whose machine slept has asked nothing.
//! After the last of them none is asked any more, so none is answered between the count and the loss.
//!
//! [`silent_after`]: crate::state::Bounds::silent_after

use std::sync::Arc;
use std::time::Duration;

use caps::id::{LeaseId, ProviderId};
use caps::time::UnixMicros;
use caps::wire::link::{Notice, Take};
use caps::wire::provider::{Load, ProviderRow, ProviderState, Registration};
use caps::wire::row::EndCause;
use caps::wire::{Name, Reply};
use caps::{Code, Error, Result};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::engine::{Mode, Order};
use super::{Caller, Handle, ProviderLink, Shared, principal, recorded_index, system, unexpected};
use crate::state::{Answer, Kind, PolicyVerdict, Query, View};

impl Handle {
    /// A provider comes, with none of the memory that one of its name had before, which is gone with this if both are of one
    /// seat. The caller has proved that it is that provider. It is asked how it is from now on.
    ///
    /// Runs to its end whether or not the caller waits for it.
    ///
    /// # Errors
    /// `E_RANGE` if it has no room; `E_EXISTS` if this life of it is registered, or one of its name is up that is of another seat, or
    /// the broker's own; `E_EPOCH` if that life is over; `E_BUSY` if the table is full; as [`Self::notice`].
    pub async fn provider_register(&self, said: Registration, link: Arc<dyn ProviderLink>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let registered = self.shared.tasks.spawn(async move { shared.register(said, link).await });
        registered.await.unwrap_or_else(|_| Err(unexpected()))
    }

    /// A life of a provider that the broker has not given up is back over another link, with all the memory that it had.
    /// The caller has proved that it is that provider.
    ///
    /// # Errors
    /// `E_EPOCH` if that life is over or was never registered; as [`Self::notice`].
    pub async fn provider_rejoin(&self, provider: ProviderId, link: Arc<dyn ProviderLink>) -> Result<()> {
        self.alive(provider).await?;
        self.shared.links.replace(provider, link);
        // Lost in between, it must not keep a link that nobody would remove.
        self.alive(provider).await.inspect_err(|error| self.shared.over(provider, error))
    }

    /// What a provider tells unasked: of leases that are placed there and of their grants, and of no others. Returns when
    /// it is in the books.
    ///
    /// # Errors
    /// `E_EPOCH` if that life is over or was never registered; `E_LEASE_UNKNOWN`, `E_GRANT_UNKNOWN` for what is not
    /// placed there, which is recorded; `E_SHARE_ORDER` for a grant that is not at that step; as [`Self::notice`].
    pub async fn provider_notice(&self, provider: ProviderId, notice: Notice) -> Result<()> {
        self.shared.order_and_wait(Kind::Notice { provider, notice }).await
    }

    /// A provider's own word that it has taken back and wiped all that it had, makes nothing of any ticket any more, and
    /// ends. The caller has proved that it is that provider. Its leases are over with this life, and none waits for a
    /// silence.
    ///
    /// Runs to its end whether or not the caller waits for it.
    ///
    /// # Errors
    /// `E_EXISTS` if that is known, `E_EPOCH` if the life was never registered; as [`Self::notice`], but for `E_BUSY`.
    pub async fn provider_gone(&self, provider: ProviderId) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let gone = self.shared.tasks.spawn(async move {
            let gone = shared.order_surely(Kind::ProviderLost { provider, proved: true }).await;
            match &gone {
                Ok(()) => shared.links.remove(provider),
                Err(error) => shared.over(provider, error),
            }
            gone
        });
        gone.await.unwrap_or_else(|_| Err(unexpected()))
    }

    /// The administrator's word that a provider's process is gone, and with it all its memory. It takes effect even where
    /// it cannot be recorded at once.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name, or it is the broker's own; `E_EXISTS` if that is known; as
    /// [`Self::notice`].
    pub async fn provider_lost(&self, name: Name, caller: Caller) -> Result<()> {
        if let Answer::Over(Some(life)) = self.by_admin(caller, Kind::ProviderGiveUp { name }).await? {
            self.shared.links.remove(life);
        }
        Ok(())
    }

    /// Has a provider take no new leases, or take them again. What it has stays until it ends.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name. It takes effect even where it cannot be recorded at once.
    pub async fn provider_drain(&self, caller: Caller, name: Name, drain: bool) -> Result<()> {
        self.by_admin(caller, Kind::ProviderDrain { name, drain }).await.map(drop)
    }

    async fn by_admin(&self, caller: Caller, kind: Kind) -> Result<Answer> {
        let no_policy: Option<PolicyVerdict> = None;
        let order = Order { mode: Mode::Regardless, ..principal(caller, kind, None, no_policy) };
        let outcome = self.shared.order(order).await?;
        // Not recorded is no failure here: the recorder keeps the entry until a device takes it.
        let _ = recorded_index(outcome.recorded).await;
        outcome.answer
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

    /// Until when a life of a provider may serve a lease, whatever it hears; `None` if it has none.
    ///
    /// # Errors
    /// `E_BUSY` or `E_UNREACHABLE`.
    pub async fn serves_until(&self, provider: ProviderId) -> Result<Option<UnixMicros>> {
        self.serves(Some(provider)).await
    }

    /// Until when a lease may be served by a provider that is lost and not proved to be gone; `None` if there is no such
    /// lease.
    ///
    /// # Errors
    /// `E_BUSY` or `E_UNREACHABLE`.
    pub async fn lost_serve_until(&self) -> Result<Option<UnixMicros>> {
        self.serves(None).await
    }

    async fn serves(&self, provider: Option<ProviderId>) -> Result<Option<UnixMicros>> {
        match self.shared.look(self.shared.genesis.admin, Query::Serves(provider)).await? {
            View::Serves(until) => Ok(until),
            _ => Err(unexpected()),
        }
    }

    /// The provider that has the region of a lease, whether or not the lease has ended.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`; `E_BUSY` or `E_UNREACHABLE`.
    pub async fn placed_on(&self, lease: LeaseId) -> Result<ProviderId> {
        match self.shared.look(self.shared.genesis.admin, Query::Placed(lease)).await? {
            View::Placed(at) => {
                at.map(|at| at.provider).ok_or(Error::new(Code::LeaseUnknown, "no such lease"))
            }
            _ => Err(unexpected()),
        }
    }

    /// Where a provider is. For whoever names its life: that is in its tokens, and nobody guesses it.
    pub(super) async fn provider_show(&self, provider: ProviderId) -> Result<Reply> {
        let row = self.provider(provider).await?;
        match row.state {
            ProviderState::Lost => {
                Err(Error::new(Code::ProviderLost, "the provider is lost, and its memory"))
            }
            ProviderState::Up | ProviderState::Draining => {
                Ok(Reply::Provider { name: row.name, address: row.address })
            }
        }
    }

    async fn provider(&self, provider: ProviderId) -> Result<ProviderRow> {
        match self.shared.look(self.shared.genesis.admin, Query::Provider(provider)).await? {
            View::Provider(row) => {
                row.ok_or(Error::new(Code::Epoch, "no provider of this life is known; it is over"))
            }
            _ => Err(unexpected()),
        }
    }

    async fn alive(&self, provider: ProviderId) -> Result<()> {
        match self.provider(provider).await?.state {
            ProviderState::Lost => {
                Err(Error::new(Code::Epoch, "this life of the provider is over; it comes back as a new one"))
            }
            ProviderState::Up | ProviderState::Draining => Ok(()),
        }
    }
}

impl Shared {
    async fn register(self: Arc<Self>, said: Registration, link: Arc<dyn ProviderLink>) -> Result<()> {
        let id = said.id;
        // Before it is ordered: from then on leases are placed there.
        if !self.links.add(id, link) {
            return Err(Error::new(Code::Exists, "this life of a provider is registered"));
        }
        let kind = Kind::ProviderRegister { provider: said, attached: false };
        let registered = match self.order(system(kind)).await {
            Ok(outcome) => outcome.answer,
            Err(error) => Err(error),
        };
        match registered {
            Ok(Answer::Over(before)) => {
                // Should its process run after all, it is told at once, and not with its next heartbeat.
                before.into_iter().for_each(|before| self.links.remove(before));
                let tasks = self.tasks.clone();
                tasks.spawn(watch(self, id));
                Ok(())
            }
            Ok(_) => Err(unexpected()),
            Err(error) => {
                self.links.forget(id);
                Err(error)
            }
        }
    }

    async fn lose(&self, provider: ProviderId) -> Result<()> {
        let lost = self.order_and_wait(Kind::ProviderLost { provider, proved: false }).await;
        match &lost {
            Ok(()) => self.links.remove(provider),
            Err(error) => self.over(provider, error),
        }
        lost
    }

    /// Lets the link of a life go that the books say is over. Any other error says nothing of it: a broker that stops, or has
    /// much to do, leaves every provider what it has.
    fn over(&self, provider: ProviderId, error: &Error) {
        if matches!(error.code(), Code::Epoch | Code::Exists) {
            self.links.remove(provider);
        }
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
    let mut telling: Option<JoinHandle<()>> = None;
    let mut missed = 0;
    while missed < missed_max {
        beat.tick().await;
        if !shared.links.has(provider) {
            return;
        }
        match shared.links.status(provider, every).await {
            Ok(status) => {
                missed = 0;
                let load = Load { sessions: status.sessions, committed_bytes: status.committed_bytes };
                match shared.heard(provider, load).await {
                    // One that takes long to be told is asked how it is meanwhile.
                    Ok(untold)
                        if untold.is_empty() || telling.as_ref().is_some_and(|it| !it.is_finished()) => {}
                    Ok(untold) => {
                        telling = Some(shared.tasks.spawn(tell(Arc::clone(&shared), provider, untold)));
                    }
                    // The broker has much to do, and hears of it with the next one.
                    Err(error) if error.code() == Code::Busy => {}
                    Err(error) => return shared.over(provider, &error),
                }
            }
            Err(_) => missed += 1,
        }
    }
    while shared.lose(provider).await.is_err_and(|error| error.code() == Code::Busy) {
        beat.tick().await;
    }
}

/// What a provider is to be told.
type Untold = Vec<(Take, EndCause)>;

impl Shared {
    async fn heard(&self, provider: ProviderId, load: Load) -> Result<Untold> {
        let heartbeat = Kind::ProviderHeartbeat { provider, load };
        match self.order(system(heartbeat)).await?.answer? {
            Answer::Heard { untold } => Ok(untold),
            _ => Err(unexpected()),
        }
    }
}

/// Tells a provider that answers again what it did not answer before, one after the other. At the first that it does not
/// answer the rest waits for its next heartbeat.
async fn tell(shared: Arc<Shared>, provider: ProviderId, untold: Untold) {
    for (take, cause) in untold {
        let admin = shared.genesis.admin;
        let Ok(View::Placed(Some(at))) = shared.look(admin, Query::Placed(take.lease())).await else {
            return;
        };
        if let Err(error) = shared.links.take(at, take, cause).await
            && matches!(error.code(), Code::Unreachable | Code::Timeout | Code::Busy)
        {
            return;
        }
        if shared.order_and_wait(Kind::Told { provider, take }).await.is_err() {
            return;
        }
    }
}
