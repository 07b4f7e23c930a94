//! How fast the control plane is by itself: leases, renewals and shares a second through concurrent callers, each
//! durable in the audit log before its answer.
//!
//! The provider is a counter in memory that acknowledges every claim, so what is measured is policy, ordering, state,
//! tokens and log, and nothing of memory. Run it on a release build; the log's directory is the first argument, a
//! temporary one if there is none:
//!
//! ```text
//! cargo run --release -p broker --example control_rate -- /var/tmp
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use audit::{Identity, LogKey, Origin, Recorder};
use broker::runtime::{
    Boxed, Caller, Claimed, Clock, Handle, Parts, ProviderLink, ProviderStatus, SteadyClock, start,
};
use broker::state::{Bounds, Capacity, Genesis};
use caps::Result;
use caps::id::{ClusterEpoch, GrantId, LeaseId, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::Micros;
use caps::token::RootKey;
use caps::wire::link::{ClaimTicket, Method, Take, Taken};
use caps::wire::provider::Registration;
use caps::wire::request::{LeaseSpec, Request};
use caps::wire::row::{EndCause, Lifetime, MemoryRow, Tier};
use caps::wire::{Name, Reply};
use policy::{Policy, Quota};

/// Concurrent callers: what the benchmark of the product asks for.
const CALLERS: u8 = 32;
/// Requests of each caller and kind.
const REQUESTS: usize = 400;
/// Bytes of a lease.
const LEASE_BYTES: u64 = 64 * 1024;

/// A provider that says yes.
#[derive(Default)]
struct Yes {
    claims: AtomicU64,
}

impl ProviderLink for Yes {
    fn claim(&self, ticket: ClaimTicket, _session: u64) -> Boxed<'_, Result<Claimed>> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            Ok(Claimed { bytes: ticket.bytes, recorded: Box::pin(std::future::ready(Ok(()))) })
        })
    }

    fn renew(&self, _lease: LeaseId, _ttl: Micros) -> Boxed<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn take(&self, _take: Take, _cause: EndCause) -> Boxed<'_, Result<Taken>> {
        let (fence, dead) = (Micros(0), Micros(0));
        let taken = Taken {
            lease: None,
            mappings_closed: 0,
            method: Method::Fence,
            fence,
            dead,
            wiped_bytes: 0,
            quarantined_bytes: 0,
        };
        Box::pin(async move { Ok(taken) })
    }

    fn memory(&self, _lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        Box::pin(async { Ok(None) })
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        let status = ProviderStatus { committed_bytes: 0, sessions: 0, tier: Tier::Open, entries: 0 };
        Box::pin(async move { Ok(status) })
    }
}

struct Client {
    key: SigningKey,
    caller: Caller,
}

fn clients() -> Vec<Client> {
    (0..CALLERS)
        .map(|n| {
            let key = SigningKey::from_seed(&[n + 1; 32]);
            let caller = Caller { holder: key.public(), uid: Some(1000 + u32::from(n)), session: n.into() };
            Client { key, caller }
        })
        .collect()
}

fn genesis(policy: &Policy, clock: &SteadyClock) -> Genesis {
    let many = CALLERS as usize * REQUESTS * 2;
    Genesis {
        cluster: ClusterEpoch::random(),
        provider: Some(Registration {
            id: ProviderId::random(),
            name: Name::new("own").expect("a name"),
            address: None,
            bytes: many as u64 * LEASE_BYTES,
            regions: many as u32,
            classes: Vec::new(),
            locality: None,
            seat: None,
        }),
        at: clock.now(),
        admin: SigningKey::from_seed(&[1; 32]).public(),
        admin_name: Name::new("admin").expect("a name"),
        policy: policy.hash().0,
        capacity: Capacity {
            principals: 64,
            leases: many as u32,
            grants: many as u32,
            ended: 1024,
            ..Capacity::default()
        },
        bounds: Bounds { grants_per_lease: many as u32, ..Bounds::of_pool(many as u64 * LEASE_BYTES) },
        quota: Quota::UNLIMITED,
        quotas: BTreeMap::new(),
    }
}

/// Runs one kind of request for every client, `REQUESTS` each, and prints the rate and the latencies.
async fn measure<F, Fut>(what: &str, clients: &[Arc<Client>], request: F) -> Result<Vec<Vec<Reply>>>
where
    F: Fn(Arc<Client>, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Reply>> + Send + 'static,
{
    let began = Instant::now();
    let tasks: Vec<_> = clients
        .iter()
        .map(|client| {
            let (client, request) = (Arc::clone(client), request.clone());
            tokio::spawn(async move {
                let (mut replies, mut times) = (Vec::new(), Vec::new());
                for n in 0..REQUESTS {
                    let sent = Instant::now();
                    replies.push(request(Arc::clone(&client), n).await?);
                    times.push(sent.elapsed());
                }
                Ok::<_, caps::Error>((replies, times))
            })
        })
        .collect();
    let (mut replies, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (of_one, timed) = task.await.expect("a caller does not panic")?;
        replies.push(of_one);
        times.extend(timed);
    }
    let took = began.elapsed();
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what:<16} {:>8.0} per s   p50 {:>7.2} ms   p99 {:>7.2} ms",
        times.len() as f64 / took.as_secs_f64(),
        millis(at(50)),
        millis(at(99)),
    );
    Ok(replies)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

async fn run(handle: Handle, recorder: &Recorder, cluster: ClusterEpoch) -> Result<()> {
    let clients: Vec<_> = clients().into_iter().map(Arc::new).collect();
    for (n, client) in clients.iter().enumerate().skip(1) {
        let name = Name::new(&format!("client-{n}"))?;
        let add = Request::PrincipalAdd { name, key: client.caller.holder };
        handle.request(clients[0].caller, add).await?;
    }
    let syncs = recorder.status().syncs;

    let asked = handle.clone();
    let created = measure("lease create", &clients, move |client, _| {
        let handle = asked.clone();
        async move {
            let spec = LeaseSpec {
                bytes: LEASE_BYTES,
                ttl: Micros::from_millis(600_000),
                name: None,
                class: None,
                lifetime: Lifetime::Detached,
                segment_bytes: None,
                max_hops: 0,
                near: None,
            };
            handle.request(client.caller, Request::LeaseCreate(spec)).await
        }
    })
    .await?;
    let mut leases: BTreeMap<_, Vec<(LeaseId, RegionId)>> = BTreeMap::new();
    for reply in created.iter().flatten() {
        if let Reply::Leased { lease, .. } = reply {
            leases.entry(lease.owner).or_default().push((lease.id, lease.region));
        }
    }
    let leases = Arc::new(leases);

    let (asked, of) = (handle.clone(), Arc::clone(&leases));
    measure("lease renew", &clients, move |client, n| {
        let handle = asked.clone();
        let lease = of[&client.caller.holder][n].0;
        let renew = Request::LeaseRenew { lease, ttl: Micros::from_millis(900_000) };
        async move { handle.request(client.caller, renew).await }
    })
    .await?;

    // Contracts are signed beforehand: that is the clients' work, on machines of their own.
    let receiver = clients[0].caller.holder;
    let other = clients[1].caller.holder;
    let mut contracts = BTreeMap::new();
    for client in &clients {
        let owner = client.caller.holder;
        let signed: Vec<_> = leases[&owner]
            .iter()
            .map(|(lease, region)| {
                let contract = ShareContract {
                    cluster,
                    grant: GrantId::random(),
                    lease: *lease,
                    region: *region,
                    owner,
                    receiver: if owner == receiver { other } else { receiver },
                    rights: Rights::READ,
                    range: ByteRange::new(0, LEASE_BYTES).expect("a range"),
                    ttl: Micros::from_millis(300_000),
                    max_hops: 0,
                    cosigner: None,
                };
                (contract, contract.sign(&client.key))
            })
            .collect();
        contracts.insert(owner, signed);
    }
    let (asked, of) = (handle.clone(), Arc::new(contracts));
    measure("share offer", &clients, move |client, n| {
        let handle = asked.clone();
        let (contract, signature) = of[&client.caller.holder][n];
        async move { handle.request(client.caller, Request::ShareOffer { contract, signature }).await }
    })
    .await?;

    let (asked, of) = (handle.clone(), leases);
    measure("lease release", &clients, move |client, n| {
        let handle = asked.clone();
        let release = Request::LeaseRelease { lease: of[&client.caller.holder][n].0 };
        async move { handle.request(client.caller, release).await }
    })
    .await?;
    let status = recorder.status();
    println!(
        "{} entries in {} syncs, the longest {} us",
        status.durable,
        status.syncs - syncs,
        status.sync_us_max
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::Builder::new().prefix("control-rate-").tempdir_in(parent)?;
    let clock = SteadyClock::sample();
    let identity = Identity::new(Origin::parse("example/audit/broker")?, LogKey::from_seed(&[9; 32]));
    let recorder = Arc::new(Recorder::open(dir.path(), identity, Arc::new(move || clock.now()))?);
    let policy =
        Arc::new(Policy::parse(policy::datalog::DEFAULT, "policy.dl").map_err(|_| "the default policy")?);
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let genesis = genesis(&policy, &clock);
    let cluster = genesis.cluster;
    let link = Arc::new(Yes::default());
    let (runtime, handle) = start(Parts {
        genesis,
        policy,
        recorder: Arc::clone(&recorder),
        link: Some(Arc::clone(&link) as Arc<dyn ProviderLink>),
        clock: Arc::new(clock),
        root: RootKey::from_seed(&[7; 32]),
        receipts: SigningKey::from_seed(&[8; 32]),
        tasks: tokio.handle().clone(),
    })?;
    println!("{CALLERS} callers, {REQUESTS} requests each; log in {}", dir.path().display());
    tokio.block_on(run(handle, &recorder, cluster))?;
    runtime.stop()?;
    recorder.shutdown()?;
    Ok(())
}
