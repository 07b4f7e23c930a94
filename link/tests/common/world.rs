//! A broker without memory of its own that lets providers in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::store::memory::Memory;
use audit::{Identity, LogKey, Origin, Recorder};
use broker::runtime::{Caller, Clock, Handle, Parts, Runtime, SteadyClock, start};
use broker::state::{Bounds, Genesis};
use caps::Result;
use caps::id::{ClusterEpoch, LeaseId};
use caps::key::SigningKey;
use caps::time::Micros;
use caps::token::RootKey;
use caps::wire::cluster::{PolicyText, Roots};
use caps::wire::provider::{ProviderRow, Registration};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{LeaseRow, Lifetime};
use caps::wire::{Reply, Request};
use link::Facts;
use link::broker::{FactsSource, Listener};
use link::provider::{Asker, Config, Dialler, Ended};
use policy::Policy;
use tokio::task::{JoinHandle, JoinSet};

use super::pki::Authority;
use super::small::Small;
use super::wire::Wire;
use super::{PAGE, PATIENCE, name, public, timings};

pub struct World {
    pub ca: Arc<Authority>,
    pub handle: Handle,
    pub source: Arc<FactsSource>,
    pub address: SocketAddr,
    pub cluster: ClusterEpoch,
    pub device: Memory,
    _listening: JoinSet<()>,
    _recorder: Arc<Recorder>,
    _runtime: Runtime,
}

/// A provider that runs.
pub struct Node {
    pub small: Arc<Small>,
    pub asker: Asker,
    pub facts: Facts,
    pub ended: JoinHandle<Ended>,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Arc::new(Authority::new()), 1, Duration::from_secs(20)).await
    }

    /// The `life`th life of a cluster, with its CA. A provider is lost after so long.
    pub async fn with(ca: Arc<Authority>, life: u8, lost_after: Duration) -> Self {
        let policy = Arc::new(Policy::parse(policy::datalog::DEFAULT, "policy.dl").unwrap());
        let clock = SteadyClock::sample();
        let device = Memory::new();
        let opened = device.clone();
        let identity =
            Identity::new(Origin::parse("example/audit/broker").unwrap(), LogKey::from_seed(&[9; 32]));
        let opener = Box::new(move || Ok(Arc::new(opened.reopen()) as Arc<dyn audit::store::Store>));
        let settings = audit::recorder::Settings::default();
        let recorder = Recorder::start(opener, identity, Arc::new(move || clock.now()), settings).unwrap();
        let recorder = Arc::new(recorder);
        let bounds = Bounds {
            claim_within: Micros::from_millis(5_000),
            take_again: Micros::from_millis(50),
            heartbeat_every: Micros::from_millis(50),
            silent_after: Micros::from_millis(5_000),
            lost_after: Micros(u64::try_from(lost_after.as_micros()).unwrap()),
            ..Bounds::of_pool(16 * PAGE)
        };
        let small = broker::fuzzing::small_genesis();
        let cluster = ClusterEpoch([life; 16]);
        let genesis = Genesis {
            cluster,
            provider: None,
            at: clock.now(),
            admin: public(0),
            policy: policy.hash().0,
            bounds,
            ..small
        };
        let root = RootKey::from_seed(&[7; 32]);
        let facts = Facts {
            cluster,
            admin: public(0),
            roots: Roots { keys: vec![root.public()], expired: vec![] },
            policy: PolicyText { text: policy::datalog::DEFAULT.into(), hash: policy.hash().0 },
            quota: genesis.quota,
            quotas: genesis.quotas.clone(),
            principals: std::collections::BTreeMap::new(),
        };
        let (runtime, handle) = start(Parts {
            genesis,
            policy,
            recorder: Arc::clone(&recorder),
            link: None,
            clock: Arc::new(clock),
            root,
            receipts: SigningKey::from_seed(&[8; 32]),
            tasks: tokio::runtime::Handle::current(),
        })
        .unwrap();
        let source = FactsSource::following(&handle, facts);
        let credentials = ca.issue("broker/b");
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(any, credentials, handle.clone(), Arc::clone(&source), timings());
        let listener = listener.await.unwrap();
        let address = listener.address().unwrap();
        let mut listening = JoinSet::new();
        listening.spawn(listener.serve());
        let world = Self {
            ca,
            handle,
            source,
            address,
            cluster,
            device,
            _listening: listening,
            _recorder: recorder,
            _runtime: runtime,
        };
        for (n, text) in [(1, "alice"), (2, "bob")] {
            world.ask(0, Request::PrincipalAdd { name: name(text), key: public(n) }).await.unwrap();
        }
        world
    }

    pub async fn ask(&self, n: u8, request: Request) -> Result<Reply> {
        let caller = Caller { holder: public(n), uid: None, session: n.into() };
        self.handle.request(caller, request).await
    }

    pub fn config(&self, said: Registration, wire: &Wire) -> Config {
        let credentials = self.ca.issue(&format!("provider/{}", said.name));
        let address = wire.address();
        let broker_name = Some(name("b"));
        Config { address, broker_name, credentials, registration: said, later: false, timings: timings() }
    }

    /// A provider comes, and serves.
    pub async fn join(&self, said: Registration, wire: &Wire) -> Node {
        self.join_with(said.clone(), self.config(said, wire)).await
    }

    pub async fn join_with(&self, said: Registration, config: Config) -> Node {
        let (mut dialler, asker) = Dialler::new(config);
        let facts = super::soon("first contact", dialler.first_contact()).await.unwrap();
        let small = Small::new();
        let ended = tokio::spawn(dialler.serve(Arc::clone(&small) as Arc<dyn link::provider::Executor>));
        self.up(&said).await;
        Node { small, asker, facts, ended }
    }

    /// Waits until a life is in the books, and was heard.
    pub async fn up(&self, said: &Registration) {
        self.row_until(said, |row| row.load.sessions == 7).await;
    }

    /// Waits until the row of a provider is so.
    pub async fn row_until(&self, said: &Registration, so: impl Fn(&ProviderRow) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let rows = self.handle.providers().await.unwrap();
            let row = rows.iter().find(|row| row.id == said.id);
            if row.is_some_and(&so) {
                return;
            }
            assert!(Instant::now() < end, "{rows:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn lease(&self, n: u8) -> Result<LeaseRow> {
        Self::lease_of(&self.handle, n).await
    }

    pub async fn lease_of(handle: &Handle, n: u8) -> Result<LeaseRow> {
        let spec = LeaseSpec {
            bytes: PAGE,
            ttl: Micros::from_millis(60_000),
            name: None,
            class: None,
            lifetime: Lifetime::Detached,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        };
        let caller = Caller { holder: public(n), uid: None, session: n.into() };
        match handle.request(caller, Request::LeaseCreate(spec)).await? {
            Reply::Leased { lease, .. } => Ok(lease),
            other => panic!("{other:?}"),
        }
    }

    pub async fn show(&self, lease: LeaseId) -> LeaseRow {
        match self.ask(0, Request::LeaseShow { lease }).await.unwrap() {
            Reply::Lease { lease, .. } => lease,
            other => panic!("{other:?}"),
        }
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

    /// Waits until some entry has all of these.
    pub async fn entry(&self, texts: &[&str]) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let found =
                self.entries().into_iter().find(|entry| texts.iter().all(|text| entry.contains(text)));
            if let Some(found) = found {
                return found;
            }
            assert!(Instant::now() < end, "no entry has {texts:?}: {:#?}", self.entries());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
