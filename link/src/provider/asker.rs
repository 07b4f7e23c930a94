//! What a provider asks of its broker, and tells it. Cheap to clone; it outlives every link.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::limits::LINK_WINDOW_MAX;
use caps::token::Cut;
use caps::wire::cluster::{BrokerSays, ProviderAsks, ToBroker};
use caps::wire::link::Notice;
use caps::wire::{Reason, Reply};
use policy::limits::LINK_NOTICES_MAX;
use tokio::sync::{Semaphore, watch};

use super::notices::Notices;
use crate::Timings;
use crate::end::End;
use crate::questions::{Lane, Questions};

/// The questions of a provider over one link.
pub(super) struct Asking {
    pub(super) questions: Questions<BrokerSays>,
    /// Notices have a lane of their own: one message at a time.
    pub(super) notices: Lane,
    pub(super) others: Lane,
    pub(super) end: End,
}

impl Asking {
    pub(super) fn lanes(&self) -> [&Lane; 2] {
        [&self.notices, &self.others]
    }
}

/// What outlives every link.
pub(super) struct Shared {
    pub(super) notices: Notices,
    /// Held for one look or one change.
    now: Mutex<Option<Arc<Asking>>>,
    /// Whether there is one.
    links: watch::Sender<bool>,
    /// Of the node that stops.
    pub(super) stop: End,
    /// Whether it has nothing any more. Set before `stop`.
    gone: AtomicBool,
    pub(super) timings: Timings,
    /// Questions of the broker that are being worked on, over this link and those before it.
    pub(super) working: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(timings: Timings) -> Arc<Self> {
        Arc::new(Self {
            notices: Notices::new(LINK_NOTICES_MAX),
            now: Mutex::default(),
            links: watch::Sender::new(false),
            stop: End::new(),
            gone: AtomicBool::new(false),
            timings,
            working: Arc::new(Semaphore::new(2 * LINK_WINDOW_MAX)),
        })
    }

    fn now(&self) -> MutexGuard<'_, Option<Arc<Asking>>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a node that stops has nothing any more, and the broker is to be told so.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The link that is used from now on.
    pub(super) fn joined(&self, asking: Option<Arc<Asking>>) {
        let is_there = asking.is_some();
        *self.now() = asking;
        self.links.send_replace(is_there);
    }
}

/// Asks the broker, over whatever link there is.
#[derive(Clone)]
pub struct Asker(pub(super) Arc<Shared>);

impl Asker {
    /// Something happened here. It is kept until the broker has noted it, and told in its order.
    pub fn notice(&self, notice: Notice) {
        self.0.notices.push(notice);
    }

    /// Has everything taken back that a principal holds at this provider.
    ///
    /// # Errors
    /// `E_UNREACHABLE` while there is no link; `E_TIMEOUT`; what the broker says.
    pub async fn revoke_holder(&self, holder: PrincipalKey) -> Result<()> {
        match self.ask(ProviderAsks::RevokeHolder { holder }).await? {
            BrokerSays::Done => Ok(()),
            other => Err(self.other(&other)),
        }
    }

    /// Has one block of a token taken back, which `holder` showed here and which was verified here.
    ///
    /// # Errors
    /// As [`Self::revoke_holder`].
    pub async fn revoke_token(&self, holder: PrincipalKey, cut: Cut, reason: Reason) -> Result<Reply> {
        let cut = Box::new(cut);
        match self.ask(ProviderAsks::RevokeToken { holder, cut, reason }).await? {
            BrokerSays::Revoked(reply) => Ok(*reply),
            other => Err(self.other(&other)),
        }
    }

    /// Whether there is a link now.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.0.now().as_ref().is_some_and(|asking| asking.end.why().is_none())
    }

    /// Waits until there is a link: until leases may be placed here, the first time.
    pub async fn joined(&self) {
        // The sender is kept by this, so the wait ends with a link.
        let _ = self.0.links.subscribe().wait_for(|joined| *joined).await;
    }

    /// Notices that the broker has not noted.
    #[must_use]
    pub fn notices_kept(&self) -> usize {
        self.0.notices.len()
    }

    /// Ends the link for good: [`Dialler::serve`](super::Dialler::serve) returns.
    pub fn stop(&self) {
        self.0.stop.close(Error::new(Code::Unreachable, "the provider stops"));
    }

    /// As [`Self::stop`], for a provider that has taken everything back and wiped it, makes nothing of any ticket any more,
    /// and whose process ends now: the broker, if its link is there, is told so, and waits for no silence. Its leases are
    /// then known to be over, so this must not be said of memory that can still be reached.
    pub fn gone(&self) {
        self.0.gone.store(true, Ordering::Release);
        self.stop();
    }

    async fn ask(&self, ask: ProviderAsks) -> Result<BrokerSays> {
        let none = Error::new(Code::Unreachable, "the broker cannot be reached at present");
        let asking = self.0.now().clone().ok_or(none)?;
        let message = |number| ToBroker::Ask { number, ask };
        asking.questions.ask(&asking.others, self.0.timings.revoke, message).await
    }

    /// The broker broke a rule.
    fn other(&self, _answer: &BrokerSays) -> Error {
        let error = Error::new(Code::Protocol, "the broker answered something that was not asked");
        if let Some(asking) = self.0.now().as_ref() {
            asking.end.close(error.clone());
        }
        error
    }
}
