//! One provider with a gate, and a broker.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use audit::log::Identity;
use audit::salt::Salt;
use audit::{LogKey, Origin as LogName, Recorder};
use caps::id::{ClusterEpoch, GrantId, LeaseId, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::pop::{Nonce, Proven, Transcript};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::{RootKey, RootKeys, Terms, Token};
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, Lifetime};
use policy::limits;
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::gate::remote::trial::Guest;
use provider::gate::{Gate, GateConfig};
use provider::mem::{Memory, Strength};
use provider::runtime::{Clock, Opener, Origin, Outgoing, Parts, Provider};

use crate::broker::Broker;

/// Bytes of the pool: far below any machine's memory.
const POOL_BYTES: u64 = 256 << 20;
/// A life that no test sees the end of.
pub(crate) const LONG: Duration = Duration::from_secs(600);

pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) broker: Arc<Broker>,
    gate: Gate,
    root: RootKey,
    next: AtomicU64,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

/// A lease with its memory.
#[derive(Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    region: RegionId,
    pub(crate) bytes: u64,
}

impl World {
    /// Call it before any thread is started.
    pub(crate) fn start() -> Self {
        let regions_max = 64;
        let config =
            FactoryConfig { pool_bytes_max: POOL_BYTES, regions_max, namespace: Namespace::WhenNeeded };
        let store = Memory::start(Factory::spawn(config).unwrap(), Strength::Best).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (root, clock) = (RootKey::from_seed(&[5; 32]), Clock::start());
        let (provider, broker, gate) = runtime.block_on(async {
            let name = LogName::parse("trial.example/provider-1").unwrap();
            let identity = Identity::new(name, LogKey::from_seed(&[6; 32]));
            let recorder = Recorder::open(&dir.path().join("log"), identity, Arc::new(move || clock.unix()));
            let provider = Provider::start(Parts {
                config: provider::kernel::Config {
                    cluster: ClusterEpoch([1; 16]),
                    provider: ProviderId([2; 16]),
                    pool_bytes: POOL_BYTES,
                    regions_max: regions_max as usize,
                    opens_max: limits::SLOTS_MAX,
                    opens_per_session_max: limits::SLOTS_PER_SESSION_MAX,
                    segments_per_region_max: limits::SEGMENTS_PER_REGION_MAX as usize,
                    segments_max: regions_max as usize,
                    exposures_max: limits::EXPOSURES_PER_SEGMENT_MAX,
                    mapping_end_step: limits::MAPPING_END_STEP_MS * 1_000_000,
                    revocations_per_region_max: limits::REVOCATIONS_PER_REGION_MAX,
                    meters_per_region_max: limits::METERS_PER_REGION_MAX,
                    meters_per_receiver_max: limits::METERS_PER_RECEIVER_MAX,
                    marks_per_region_max: limits::MARKS_PER_REGION_MAX,
                    ended_max: limits::ENDED_ROWS_MAX,
                    tier: store.tier(),
                    uid: rustix::process::geteuid().as_raw(),
                },
                store,
                recorder: recorder.unwrap(),
                salt: Salt::new(&[7; 32]),
                roots: RootKeys::of(root.public()).unwrap(),
                clock,
            })
            .unwrap();
            let config = GateConfig {
                path: dir.path().join("gate.sock"),
                allow_uids: Vec::new(),
                sessions_max: limits::SESSIONS_MAX,
                sessions_per_uid_max: limits::SESSIONS_PER_UID_MAX,
                faults: policy::fault::Faults::default(),
            };
            let broker = Arc::new(Broker::new(provider.clone(), RootKey::from_seed(&[5; 32])));
            let gate = Gate::bind(config, provider.clone(), broker.clone()).unwrap();
            (provider, broker, gate)
        });
        Self { provider, broker, gate, root, next: AtomicU64::new(1), runtime, _dir: dir }
    }

    pub(crate) fn wait<T>(&self, for_it: impl Future<Output = T>) -> T {
        self.runtime.block_on(for_it)
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next().to_le_bytes());
        id
    }

    pub(crate) fn lease(&self, bytes: u64, segment_bytes: u64, ttl: Duration) -> Lease {
        let lease = Lease { id: LeaseId(self.id()), region: RegionId(self.id()), bytes };
        let ticket = ClaimTicket {
            lease: lease.id,
            region: lease.region,
            owner: key(0).public(),
            bytes,
            segment_bytes,
            ttl: Micros(ttl.as_micros() as u64),
            lifetime: Lifetime::Detached,
            claim_by: UnixMicros(self.now().0 + 60_000_000),
        };
        self.wait(async { self.provider.claim(ticket, None).await?.durable().await }).unwrap();
        lease
    }

    /// A lease of some pages, in one segment.
    pub(crate) fn small(&self) -> Lease {
        self.lease(3 << 16, 3 << 16, LONG)
    }

    pub(crate) fn now(&self) -> UnixMicros {
        self.provider.clock().unix()
    }

    pub(crate) fn grant(&self) -> GrantId {
        GrantId(self.id())
    }

    pub(crate) fn token(
        &self,
        lease: Lease,
        grant: Option<GrantId>,
        range: std::ops::Range<u64>,
        life: Duration,
    ) -> Token {
        self.root
            .mint(&Terms {
                lease: lease.id,
                region: lease.region,
                grant,
                range: ByteRange::new(range.start, range.end).unwrap(),
                rights: Rights::READ_WRITE,
                holder: key(0).public(),
                not_before: UnixMicros(0),
                expires: UnixMicros(self.now().0 + life.as_micros() as u64),
                max_hops: 0,
                cluster: ClusterEpoch([1; 16]),
                provider: ProviderId([2; 16]),
            })
            .unwrap()
    }

    /// The owner's token for all of it.
    pub(crate) fn whole(&self, lease: Lease) -> Token {
        self.token(lease, None, 0..lease.bytes, LONG)
    }

    pub(crate) fn opener(&self) -> Opener {
        let origin = Origin::Network { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)) };
        Opener { session: self.next(), origin, proven: proven() }
    }

    pub(crate) fn guest(&self, end: Box<dyn Fn() + Send>, outgoing: Option<Arc<Outgoing>>) -> Guest {
        Guest::new(&self.gate, self.opener(), end, outgoing)
    }

    /// A session that nothing is sent to.
    pub(crate) fn anybody(&self) -> Guest {
        self.guest(Box::new(|| ()), None)
    }

    pub(crate) fn take(&self, take: Take, cause: EndCause) -> Taken {
        self.wait(self.provider.take(take, cause)).unwrap()
    }

    /// Takes a lease back.
    pub(crate) fn revoke(&self, lease: Lease) -> Taken {
        self.take(Take::Lease(lease.id), EndCause::Revoked)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        it: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(it)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.wait(self.provider.take_everything());
    }
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[100 + n; 32])
}

fn proven() -> Proven {
    let (key, nonce) = (key(0), Nonce::random());
    let transcript =
        Transcript { node: ProviderId([2; 16]), server: nonce, client: nonce, holder: key.public() };
    transcript.verify(&transcript.sign(&key)).unwrap()
}
