//! Facts that change, and who knows which.
//!
//! Every change has a number. A link tells its provider all that has a higher number than what it was told last, in the
//! order of the numbers, so a slow link costs no memory: what changed twice meanwhile is told once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::runtime::Handle;
use caps::id::{ClusterEpoch, PrincipalKey, ProviderId};
use caps::limits::{LINK_EXPIRED_ROOTS_MAX, LINK_PAGE_MAX};
use caps::token::RootPublic;
use caps::wire::Name;
use caps::wire::cluster::{Fact, PolicyText};
use policy::limits::PRINCIPALS_MAX;
use tokio::sync::watch;

use crate::Facts;

/// What every provider has to know. The node changes it; every link tells it.
#[derive(Debug)]
pub struct FactsSource {
    /// Held for one change or one look.
    state: Mutex<State>,
    /// The number of the last change.
    last: watch::Sender<u64>,
    /// Moves with every change that a provider knows, and with every link that comes or goes.
    known: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    facts: Facts,
    roots: u64,
    policy: u64,
    /// The number by which each name was told.
    principals: BTreeMap<PrincipalKey, u64>,
    /// By the link, whose it is and which changes that one knows.
    links: BTreeMap<u64, Link>,
    next_link: u64,
}

#[derive(Debug)]
struct Link {
    /// Up to which change.
    known: u64,
    /// The life of the provider, once it has joined.
    life: Option<ProviderId>,
}

impl FactsSource {
    /// Begins with these.
    #[must_use]
    pub fn new(facts: Facts) -> Arc<Self> {
        let principals = facts.principals.keys().map(|key| (*key, 1)).collect();
        let state = State { facts, roots: 1, policy: 1, principals, links: BTreeMap::new(), next_link: 0 };
        Arc::new(Self { state: Mutex::new(state), last: watch::Sender::new(1), known: watch::Sender::new(0) })
    }

    /// Begins with these, and hears from the broker of every policy that comes into force and every principal: those that are
    /// there, and those that come. Nothing else of what it has changes by itself.
    pub fn following(handle: &Handle, facts: Facts) -> Arc<Self> {
        let source = Self::new(facts);
        let policies = Arc::clone(&source);
        handle.on_policy(Box::new(move |policy| policies.set_policy(policy.text().into(), policy.hash().0)));
        let names = Arc::clone(&source);
        handle.on_principal(Box::new(move |key, name| names.principal(key, name)));
        for (key, name) in handle.principals_snapshot() {
            source.principal(key, name);
        }
        source
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, and wakes the links. Answers its number.
    fn change(&self, change: impl FnOnce(&mut State, u64)) -> u64 {
        let mut state = self.state();
        // The number is drawn under the lock: who looks at the state up to a number sees all changes up to it.
        let number = *self.last.borrow() + 1;
        change(&mut state, number);
        self.last.send_replace(number);
        number
    }

    /// These root keys are believed from now on, and no others. Before a new one mints, wait for [`Self::told`]. Answers the
    /// number of the change: see [`Self::knows`].
    pub fn set_roots(&self, keys: Vec<RootPublic>) -> u64 {
        self.change(|state, number| {
            let roots = &mut state.facts.roots;
            // One that is believed may retire yet.
            roots.expired.retain(|id| keys.iter().all(|key| key.id() != *id));
            roots.keys = keys;
            state.roots = number;
        })
    }

    /// As [`Self::set_roots`], where `expired` is believed no longer because the last of its tokens has expired: what was opened
    /// under it goes on.
    pub fn expire_root(&self, keys: Vec<RootPublic>, expired: u32) {
        self.change(|state, number| {
            let roots = &mut state.facts.roots;
            roots.expired.retain(|id| *id != expired);
            if roots.expired.len() >= LINK_EXPIRED_ROOTS_MAX {
                roots.expired.remove(0);
            }
            roots.expired.push(expired);
            roots.keys = keys;
            state.roots = number;
        });
    }

    /// This policy is in force from now on.
    pub fn set_policy(&self, text: Box<str>, hash: [u8; 32]) {
        self.change(|state, number| {
            state.facts.policy = PolicyText { text, hash };
            state.policy = number;
        });
    }

    /// A principal has this name from now on. Said again it changes nothing.
    pub fn principal(&self, key: PrincipalKey, name: Name) {
        if self.state().facts.principals.get(&key) == Some(&name) {
            return;
        }
        self.change(|state, number| {
            // The broker's table has a bound of its own; of principals that could not be recorded some may be here that
            // are not there.
            if state.facts.principals.len() >= PRINCIPALS_MAX && !state.facts.principals.contains_key(&key) {
                tracing::warn!("more names of principals than a cluster has; a provider is not told of one");
                return;
            }
            state.facts.principals.insert(key, name);
            state.principals.insert(key, number);
        });
    }

    /// What is told now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.state().facts.clone()
    }

    /// Whether a life of a provider is here, over a link that has joined, and has said that it knows a change.
    #[must_use]
    pub fn knows(&self, life: ProviderId, change: u64) -> bool {
        self.state().links.values().any(|link| link.life == Some(life) && link.known >= change)
    }

    /// Waits until every provider whose link is there knows all that was changed before this call. `false` if one does not
    /// within `within`; such a one learns it when it is back, before anything else. Of one whose link is not there nothing
    /// is said: see [`Self::knows`].
    pub async fn told(&self, within: Duration) -> bool {
        let wanted = *self.last.borrow();
        let mut known = self.known.subscribe();
        let all = known.wait_for(|_| self.state().links.values().all(|link| link.known >= wanted));
        tokio::time::timeout(within, all).await.is_ok()
    }

    pub(super) fn cluster(&self) -> (ClusterEpoch, PrincipalKey) {
        let state = self.state();
        (state.facts.cluster, state.facts.admin)
    }

    /// Everything, in messages, and the number up to which it is told.
    pub(super) fn whole(&self) -> (u64, Vec<Fact>) {
        let state = self.state();
        let mut pages: Vec<_> = state.since(0).into_iter().map(|(_, fact)| fact).collect();
        pages.extend(state.facts.quota_pages());
        (*self.last.borrow(), pages)
    }

    /// A provider joins that knows everything up to `known`.
    pub(super) fn joins(self: &Arc<Self>, known: u64) -> Known {
        let mut state = self.state();
        let link = state.next_link;
        state.next_link += 1;
        state.links.insert(link, Link { known, life: None });
        Known { source: Arc::clone(self), link, known }
    }

    fn moved(&self) {
        self.known.send_modify(|moves| *moves += 1);
    }
}

impl State {
    /// What was changed after `known`, each with its number, in their order.
    fn since(&self, known: u64) -> Vec<(u64, Fact)> {
        let mut changes = Vec::new();
        if self.roots > known {
            changes.push((self.roots, Fact::Roots(self.facts.roots.clone())));
        }
        if self.policy > known {
            changes.push((self.policy, Fact::Policy(self.facts.policy.clone())));
        }
        let mut names: Vec<_> = self.principals.iter().filter(|(_, number)| **number > known).collect();
        names.sort_by_key(|(_, number)| **number);
        for page in names.chunks(LINK_PAGE_MAX) {
            let named = |(key, _): &(&PrincipalKey, &u64)| {
                self.facts.principals.get(*key).map(|name| (**key, name.clone()))
            };
            let (Some((_, last)), rows) = (page.last(), page.iter().filter_map(named).collect()) else {
                continue;
            };
            changes.push((**last, Fact::Principals(rows)));
        }
        changes.sort_by_key(|(number, _)| *number);
        changes
    }
}

/// What one provider knows, while its link is there.
pub(super) struct Known {
    source: Arc<FactsSource>,
    link: u64,
    known: u64,
}

impl Known {
    /// The link has joined as that of this life: nobody else's word counts for it.
    pub(super) fn joined(&self, life: ProviderId) {
        if let Some(link) = self.source.state().links.get_mut(&self.link) {
            link.life = Some(life);
        }
    }

    /// What it does not know, once there is anything.
    pub(super) async fn news(&self) -> Vec<(u64, Fact)> {
        let mut last = self.source.last.subscribe();
        loop {
            let news = self.source.state().since(self.known);
            if !news.is_empty() {
                return news;
            }
            // The source is kept by this, so it does not end.
            let _ = last.changed().await;
        }
    }

    /// It knows everything up to this number.
    pub(super) fn knows(&mut self, number: u64) {
        self.known = number;
        if let Some(link) = self.source.state().links.get_mut(&self.link) {
            link.known = number;
        }
        self.source.moved();
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.source.state().links.remove(&self.link);
        self.source.moved();
    }
}
