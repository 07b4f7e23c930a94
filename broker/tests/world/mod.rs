//! A running broker over a recorder in memory and a provider that keeps a list.
#![allow(dead_code, unreachable_pub)] // each test target uses a part

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use audit::store::memory::Memory;
use audit::{Identity, LogKey, Origin, Recorder};
use broker::runtime::{
    Boxed, Caller, Claimed, Clock, Handle, Parts, ProviderLink, ProviderStatus, Runtime, SteadyClock, start,
};
use broker::state::{Bounds, Broker, Genesis};
use caps::id::{ClusterEpoch, LeaseId, PrincipalKey};
use caps::key::SigningKey;
use caps::time::{Micros, UnixMicros};
use caps::token::{RootKey, RootPublic};
use caps::wire::Reply;
use caps::wire::link::{ClaimTicket, Method, Take, Taken};
use caps::wire::provider::Registration;
use caps::wire::request::Request;
use caps::wire::row::{EndCause, MemoryRow, Tier};
use caps::{Code, Error, Result};
use policy::Policy;
use tokio::sync::{Notify, mpsc};

use crate::common::{genesis, name, own, public};

pub const PAGE: u64 = 4096;
/// How long a condition may take that must come true. Only a defect waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether `condition` comes true.
pub fn lived(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

pub fn caller(n: u8) -> Caller {
    Caller { holder: public(n), uid: Some(1000), session: n.into() }
}

/// The provider: which leases have memory, and what it was told.
pub struct List {
    state: Mutex<State>,
    took: mpsc::UnboundedSender<(Take, EndCause)>,
    takes: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Take, EndCause)>>,
    claim_arrived: Notify,
    claims_go: Notify,
    gives_go: Notify,
}

#[derive(Default)]
struct State {
    /// Whether it was told that this life of it is over.
    over: bool,
    live: BTreeSet<LeaseId>,
    dead: BTreeSet<LeaseId>,
    renewals: Vec<(LeaseId, Micros)>,
    claims_fail: Option<Code>,
    /// What the record of a claim comes to.
    records_fail: Option<Code>,
    takes_fail: Option<Code>,
    /// Whether it answers when it is asked how it is.
    silent: bool,
    hold: bool,
    /// Whose each lease is, and since when, as far as it was told; and the latest time that it was told.
    owners: BTreeMap<LeaseId, Owned>,
    /// Whether hand-overs wait for [`List::let_give_go`].
    hold_gives: bool,
    /// Those that wait, or may go.
    gives: BTreeMap<UnixMicros, bool>,
}

/// Whose a lease is.
#[derive(Clone, Copy)]
struct Owned {
    by: PrincipalKey,
    since: UnixMicros,
    tried: UnixMicros,
}

impl State {
    /// As the provider's kernel does it: a change that another came before, or that was undone, is refused; what undoes
    /// a change that is not in force changes nothing.
    fn own(&mut self, take: Take) -> Result<()> {
        let Take::Owner { lease, to, since, undoes, .. } = take else { return Ok(()) };
        let Some(owned) = self.owners.get_mut(&lease) else { return Ok(()) };
        match undoes {
            None if since <= owned.tried => {
                return Err(Error::new(Code::TokenRevoked, "a later change has come before"));
            }
            None => *owned = Owned { by: to, since, tried: since },
            Some(attempt) => {
                owned.tried = owned.tried.max(attempt);
                if owned.since == attempt {
                    (owned.by, owned.since) = (to, since);
                }
            }
        }
        Ok(())
    }
}

impl List {
    fn new() -> Self {
        let (took, takes) = mpsc::unbounded_channel();
        let takes = tokio::sync::Mutex::new(takes);
        let (claim_arrived, claims_go) = (Notify::new(), Notify::new());
        let gives_go = Notify::new();
        Self { state: Mutex::default(), took, takes, claim_arrived, claims_go, gives_go }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn live(&self) -> Vec<LeaseId> {
        self.state().live.iter().copied().collect()
    }

    pub fn renewals(&self) -> Vec<(LeaseId, Micros)> {
        self.state().renewals.clone()
    }

    pub fn fail_claims(&self, code: Option<Code>) {
        self.state().claims_fail = code;
    }

    pub fn fail_records(&self, code: Option<Code>) {
        self.state().records_fail = code;
    }

    pub fn fail_takes(&self, code: Option<Code>) {
        self.state().takes_fail = code;
    }

    pub fn is_over(&self) -> bool {
        self.state().over
    }

    /// Whether it is cut off: it answers nothing.
    pub fn cut_off(&self, cut_off: bool) {
        let code = cut_off.then_some(Code::Unreachable);
        let mut state = self.state();
        (state.silent, state.claims_fail, state.takes_fail) = (cut_off, code, code);
    }

    /// Has hand-overs wait from now on.
    pub fn hold_gives(&self) {
        self.state().hold_gives = true;
    }

    /// The hand-overs that wait, once there are so many, in the order of their acceptance.
    pub async fn gives_held(&self, count: usize) -> Vec<UnixMicros> {
        let end = Instant::now() + PATIENCE;
        loop {
            let held: Vec<_> = self.state().gives.keys().copied().collect();
            if held.len() == count {
                return held;
            }
            assert!(Instant::now() < end, "{held:?}");
            tokio::task::yield_now().await;
        }
    }

    pub fn let_give_go(&self, since: UnixMicros) {
        self.state().gives.insert(since, true);
        self.gives_go.notify_waiters();
    }

    /// Whose a lease is, as far as it was told.
    pub fn owner(&self, lease: LeaseId) -> PrincipalKey {
        self.state().owners[&lease].by
    }

    /// A hand-over arrives, and waits while it is held.
    async fn give_held(&self, take: Take) {
        let Take::Owner { since, undoes: None, .. } = take else { return };
        loop {
            let go = self.gives_go.notified();
            {
                let mut state = self.state();
                if !state.hold_gives || *state.gives.entry(since).or_insert(false) {
                    return;
                }
            }
            go.await;
        }
    }

    pub fn hold_claims(&self) {
        self.state().hold = true;
    }

    pub fn let_claims_go(&self) {
        self.state().hold = false;
        self.claims_go.notify_waiters();
    }

    pub async fn claim_arrived(&self) {
        self.claim_arrived.notified().await;
    }

    /// A claim or a renewal arrives, and waits while they are held.
    async fn held(&self) {
        self.claim_arrived.notify_one();
        loop {
            let go = self.claims_go.notified();
            if !self.state().hold {
                return;
            }
            go.await;
        }
    }

    pub async fn next_take(&self) -> (Take, EndCause) {
        self.takes.lock().await.recv().await.unwrap()
    }
}

impl ProviderLink for List {
    fn claim(&self, ticket: ClaimTicket, _session: u64) -> Boxed<'_, Result<Claimed>> {
        Box::pin(async move {
            self.held().await;
            let mut state = self.state();
            if let Some(code) = state.claims_fail {
                return Err(Error::new(code, "told to fail"));
            }
            if state.dead.contains(&ticket.lease) {
                return Err(Error::new(Code::LeaseUnknown, "taken before it was claimed"));
            }
            state.live.insert(ticket.lease);
            let owned = Owned { by: ticket.owner, since: UnixMicros(0), tried: UnixMicros(0) };
            state.owners.insert(ticket.lease, owned);
            let recorded = state.records_fail.map_or(Ok(()), |code| Err(Error::new(code, "told to fail")));
            Ok(Claimed { bytes: ticket.bytes, recorded: Box::pin(std::future::ready(recorded)) })
        })
    }

    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>> {
        Box::pin(async move {
            self.held().await;
            let mut state = self.state();
            state.renewals.push((lease, ttl));
            match state.live.contains(&lease) {
                true => Ok(()),
                false => Err(Error::new(Code::LeaseUnknown, "no such lease")),
            }
        })
    }

    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>> {
        Box::pin(async move {
            self.give_held(take).await;
            let answer = {
                let mut state = self.state();
                let owned = if state.takes_fail.is_some() { Ok(()) } else { state.own(take) };
                let wiped_bytes = match take {
                    _ if state.takes_fail.is_some() => 0,
                    Take::Lease(lease) => {
                        state.dead.insert(lease);
                        if state.live.remove(&lease) { PAGE } else { 0 }
                    }
                    Take::Grant { .. }
                    | Take::Narrow { .. }
                    | Take::Marks { .. }
                    | Take::Root { .. }
                    | Take::Owner { .. } => 0,
                };
                match (state.takes_fail, take) {
                    (Some(code), _) => Err(Error::new(code, "told to fail")),
                    (None, Take::Lease(_)) if wiped_bytes == 0 => {
                        Err(Error::new(Code::LeaseUnknown, "no such lease"))
                    }
                    (None, _) => owned.map(|()| Taken {
                        lease: None,
                        mappings_closed: 1,
                        method: Method::Cut,
                        fence: Micros(1),
                        dead: Micros(2),
                        wiped_bytes,
                        quarantined_bytes: 0,
                    }),
                }
            };
            let _ = self.took.send((take, cause));
            answer
        })
    }

    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        Box::pin(async move {
            let state = self.state();
            if state.silent {
                return Err(Error::new(Code::Unreachable, "told to be silent"));
            }
            Ok(state.live.contains(&lease).then_some(MemoryRow {
                bytes: PAGE,
                huge_bytes: 0,
                segments: 1,
                rotations: 0,
                tier: Tier::Open,
                mappings: 0,
                opens: 0,
                pinned: false,
            }))
        })
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        Box::pin(async move {
            let state = self.state();
            if state.silent {
                return Err(Error::new(Code::Unreachable, "told to be silent"));
            }
            let committed_bytes = state.live.len() as u64 * PAGE;
            Ok(ProviderStatus { committed_bytes, sessions: 0, tier: Tier::Open, entries: 0 })
        })
    }

    fn over(&self) {
        self.state().over = true;
    }
}

/// The steady clock, which can keep whoever asks it: the broker's thread, between taking a batch and applying it.
pub struct Gate {
    clock: SteadyClock,
    state: Mutex<GateState>,
    moved: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    kept: bool,
}

impl Gate {
    fn new(clock: SteadyClock) -> Self {
        Self { clock, state: Mutex::default(), moved: Condvar::new() }
    }

    /// Keeps the broker's thread when it next asks for the time.
    pub fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    /// Waits until it is kept.
    pub fn keeps(&self) {
        let kept = self.moved.wait_timeout_while(self.state.lock().unwrap(), PATIENCE, |state| !state.kept);
        assert!(!kept.unwrap().1.timed_out(), "the broker's thread does not ask for the time");
    }

    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.moved.notify_all();
    }
}

impl Clock for Gate {
    fn now(&self) -> UnixMicros {
        if std::thread::current().name() == Some("broker") {
            let mut state = self.state.lock().unwrap();
            state.kept = state.shut;
            self.moved.notify_all();
            let mut state = self.moved.wait_while(state, |state| state.shut).unwrap();
            state.kept = false;
        }
        self.clock.now()
    }
}

pub struct World {
    pub handle: Handle,
    pub gate: Arc<Gate>,
    pub link: Arc<List>,
    pub device: Memory,
    pub cluster: ClusterEpoch,
    pub root: RootPublic,
    pub receipts: PrincipalKey,
    recorder: Arc<Recorder>,
    runtime: Runtime,
}

impl World {
    /// With the administrator, alice and bob, and a provider in the broker's own process.
    pub async fn start() -> Self {
        let own = Registration { bytes: 16 * PAGE, ..own() };
        Self::start_with(Some(own), Bounds::of_pool(16 * PAGE)).await
    }

    /// The same without a provider of its own.
    pub async fn start_without_pool() -> Self {
        Self::start_with(None, Bounds::of_cluster()).await
    }

    async fn start_with(provider: Option<Registration>, bounds: Bounds) -> Self {
        let policy = Arc::new(Policy::parse(policy::datalog::DEFAULT, "policy.dl").unwrap());
        let clock = SteadyClock::sample();
        let device = Memory::new();
        let (opened, identity) = (
            device.clone(),
            Identity::new(Origin::parse("example/audit/broker").unwrap(), LogKey::from_seed(&[9; 32])),
        );
        let opener = Box::new(move || Ok(Arc::new(opened.reopen()) as Arc<dyn audit::store::Store>));
        let recorder = Arc::new(
            Recorder::start(
                opener,
                identity,
                Arc::new(move || clock.now()),
                audit::recorder::Settings::default(),
            )
            .unwrap(),
        );
        let bounds = Bounds {
            claim_within: Micros::from_millis(200),
            take_again: Micros::from_millis(50),
            heartbeat_every: Micros::from_millis(20),
            silent_after: Micros::from_millis(500),
            lost_after: Micros::from_millis(1_000),
            ..bounds
        };
        let genesis = Genesis { at: clock.now(), policy: policy.hash().0, provider, bounds, ..genesis() };
        let cluster = genesis.cluster;
        let (root, receipts) = (RootKey::from_seed(&[7; 32]), SigningKey::from_seed(&[8; 32]));
        let (root_public, receipts_public) = (root.public(), receipts.public());
        let link = Arc::new(List::new());
        let gate = Arc::new(Gate::new(clock));
        let own = genesis.provider.is_some();
        let (runtime, handle) = start(Parts {
            genesis,
            policy,
            recorder: Arc::clone(&recorder),
            link: own.then(|| Arc::clone(&link) as Arc<dyn ProviderLink>),
            clock: Arc::clone(&gate) as Arc<dyn Clock>,
            root,
            receipts,
            tasks: tokio::runtime::Handle::current(),
        })
        .unwrap();
        let world = Self {
            handle,
            gate,
            link,
            device,
            cluster,
            root: root_public,
            receipts: receipts_public,
            recorder,
            runtime,
        };
        for (n, text) in [(1, "alice"), (2, "bob")] {
            world.ask(0, Request::PrincipalAdd { name: name(text), key: public(n) }).await.unwrap();
        }
        world
    }

    /// Another provider comes, of another process.
    pub async fn join(&self, said: Registration) -> Result<Arc<List>> {
        let link = Arc::new(List::new());
        self.handle.provider_register(said, Arc::clone(&link) as Arc<dyn ProviderLink>).await?;
        Ok(link)
    }

    /// A provider's end of a link that is not registered yet.
    pub fn new_link(&self) -> Arc<List> {
        Arc::new(List::new())
    }

    /// The end of another link of the same provider, with what it has.
    pub fn link_like(&self, link: &List) -> Arc<List> {
        let other = List::new();
        other.state().live = link.state().live.clone();
        Arc::new(other)
    }

    pub async fn status(&self) -> caps::wire::row::NodeStatus {
        match self.ask(0, Request::Status).await.unwrap() {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the status is so.
    pub async fn status_until(&self, so: impl Fn(&caps::wire::row::NodeStatus) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !so(&self.status().await) {
            assert!(Instant::now() < end, "{:?}", self.status().await);
            tokio::task::yield_now().await;
        }
    }

    pub async fn ask(&self, n: u8, request: Request) -> Result<Reply> {
        self.handle.request(caller(n), request).await
    }

    /// Every entry that is durable, as text.
    pub fn entries(&self) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in self.device.contents() {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let entries = audit::read::entries(dir.path(), 0).unwrap();
        entries.map(|stored| String::from_utf8(stored.unwrap().bytes).unwrap()).collect()
    }

    /// The entries, once one of them has this text.
    pub async fn entries_until(&self, text: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let entries = self.entries();
            if entries.iter().any(|entry| entry.contains(text)) {
                return entries;
            }
            assert!(Instant::now() < end, "no entry has {text}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many bytes are leased.
    pub async fn settled(&self, bytes: u64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let Reply::Status(status) = self.handle.request(caller(0), Request::Status).await.unwrap() else {
                panic!()
            };
            if status.leased_bytes == bytes && status.committed_bytes == bytes {
                return;
            }
            assert!(Instant::now() < end, "{status:?}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the device records again, with no fault ahead.
    pub async fn recovered(&self) {
        self.device.fail(u64::MAX / 2, audit::store::memory::Fault::NotStored);
        assert!(lived(|| self.recorder.is_available()));
    }

    pub fn stop(self) -> Broker {
        let broker = self.runtime.stop().unwrap();
        self.recorder.shutdown().unwrap();
        broker
    }
}
