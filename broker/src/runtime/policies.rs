//! The policy in force, another that comes, and who is told of it.

use std::sync::{Arc, PoisonError, RwLock};

use caps::Result;
use policy::Policy;

use super::engine::{Mode, Order};
use super::{Handle, Shared, recorded_index, system, unexpected};
use crate::state::Kind;

/// Is told of a policy.
type Listener = Box<dyn Fn(&Policy) + Send + Sync>;

/// The policy in force.
pub(super) struct Policies {
    /// Held for one clone or one exchange of the pointer, never while a policy runs.
    now: RwLock<Arc<Policy>>,
    /// Held from the exchange until everybody is told: of two policies that come at once, one is the later everywhere, and
    /// what is put back is what was there.
    loading: tokio::sync::Mutex<()>,
    /// Who is told of each one that comes.
    listeners: RwLock<Vec<Listener>>,
}

impl Policies {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        let (now, listeners) = (RwLock::new(policy), RwLock::default());
        Self { now, loading: tokio::sync::Mutex::new(()), listeners }
    }

    pub(super) fn now(&self) -> Arc<Policy> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn exchange(&self, policy: Arc<Policy>) -> Arc<Policy> {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, policy)
    }
}

impl Handle {
    /// Puts another policy in force. Requests that were judged by the one before and not yet ordered are refused with
    /// `E_BUSY`.
    ///
    /// Runs to its end whether or not the caller waits for it.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if it cannot be recorded; then the one before stays in force.
    pub async fn policy_load(&self, policy: Arc<Policy>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let loaded = self.shared.tasks.spawn(async move { shared.load(policy).await });
        loaded.await.unwrap_or_else(|_| Err(unexpected()))
    }

    /// Has `tell` called with every policy that comes into force from now on, once that is recorded, in their order: it must
    /// return at once. For the parts of the node that live as long as the broker: nothing takes it away again.
    pub fn on_policy(&self, tell: Box<dyn Fn(&Policy) + Send + Sync>) {
        self.shared.policies.listeners.write().unwrap_or_else(PoisonError::into_inner).push(tell);
    }
}

impl Shared {
    async fn load(&self, policy: Arc<Policy>) -> Result<()> {
        let _one = self.policies.loading.lock().await;
        let before = self.policies.exchange(Arc::clone(&policy));
        let kind = Kind::PolicyLoad { hash: policy.hash().0 };
        let order = Order { mode: Mode::Recorded, ..system(kind) };
        let result = match self.order(order).await {
            Ok(outcome) => recorded_index(outcome.recorded).await.and(outcome.answer.map(drop)),
            Err(error) => Err(error),
        };
        if result.is_err() {
            let kind = Kind::PolicyLoad { hash: before.hash().0 };
            self.policies.exchange(before);
            self.order_unattended(kind)?;
            return result;
        }
        for tell in self.policies.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            tell(&policy);
        }
        Ok(())
    }
}
