//! Start, serve, stop.
//!
//! | step | a failure there leaves |
//! |---|---|
//! | 1 lock the directory, read configuration, policy and keys | nothing |
//! | 2 fork the factory, before any thread | the factory ends when this process does |
//! | 3 try what this machine's memory can do; start the canary's process | the same; the canary ends as its pipe does |
//! | 4 open both logs | logs that say `log.start` |
//! | 5 start provider and broker, register known principals | the same |
//! | 6 open the gates | clients that are cut by the factory |
//! | 7 give up every system call that serving does not need, and say that the node is ready | the same |
//!
//! Stopping goes back: the gate closes, every region is taken back and wiped, both logs get their last checkpoint.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use audit::Recorder;
use audit::log::Identity;
use broker::runtime::{self as broker_runtime, Handle};
use broker::state::{Bounds, Capacity, Genesis};
use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, ProviderId};
use caps::wire::cluster::{PolicyText, Roots};
use caps::wire::provider::Registration;
use caps::wire::row::Tier;
use caps::wire::{Name, Request};
use link::Facts;
use link::broker::FactsSource;
use policy::config::{self, Config};
use policy::machine::Machine;
use policy::{Policy, Severity, limits};
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::gate::remote::RemoteGate;
use provider::gate::{Gate, GateConfig};
use provider::kernel;
use provider::mem::{self, Memory, Strength};
use provider::runtime::{Clock, Parts, Provider};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::custody::Custody;
use super::links::{LocalBroker, LocalProvider};
use super::remote::{self, Part, Remote};
use super::state::{self, ADMIN, Keys, NodeDir};
use crate::canary::{self, Canary, Health, Keeper};
use crate::dirs::Dirs;
use crate::failure::Failure;
use crate::files;

/// What a node with a broker is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Broker and provider in one; other providers may come.
    AllInOne,
    /// A broker that others come to, without memory of its own unless it is told otherwise.
    Broker,
}

/// What the operator says on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's directories.
    pub dirs: Dirs,
    /// The configuration, instead of the one in the state directory.
    pub config: Option<PathBuf>,
    /// Which of the two.
    pub role: Role,
    /// The pool in bytes, instead of the configuration's.
    pub pool: Option<u64>,
    /// Start although the machine swaps and leased pages could be written to a disk.
    pub allow_swap: bool,
    /// Where to serve TLS, instead of where the configuration says.
    pub listen: Option<SocketAddr>,
    /// Say what happens in JSON.
    pub json: bool,
}

/// Steps 1 to 3 done: what is needed to serve.
struct Prepared {
    options: Options,
    dir: NodeDir,
    config: Config,
    policy: Policy,
    keys: Keys,
    pool_bytes: u64,
    regions_max: usize,
    memory: Memory,
    /// The credentials, and how many connections the gate over TLS may have.
    remote: Option<(Remote, usize)>,
    /// `None` where it is turned off; an error where it could not be started.
    canary: Option<Result<Canary>>,
}

/// Runs a node until it is told to stop. Call it before any thread is started.
///
/// # Errors
/// Why it did not start, or that its logs could not be closed.
pub fn run(options: Options) -> Result<(), Failure> {
    let prepared = prepare(options)?;
    let runtime = super::runtime()?;
    runtime.block_on(serve(prepared)).map_err(Into::into)
}

/// Steps 1 to 3.
fn prepare(options: Options) -> Result<Prepared, Failure> {
    let dir = NodeDir::lock(options.dirs.clone())?;
    let (config_file, mut config) = configuration(&dir, options.config.as_deref())?;
    let part = part(options.role, &config, &config_file)?;
    let policy = load_policy(&dir, &config, &config_file)?;
    let now = Clock::start().unix();
    let mut keys = dir.keys(now)?;
    if let Some(file) = config.node.root_file(&config_file) {
        keys.give_root(&file, now)?;
    }
    let remote = config.remote.clone().beside(&config_file);
    let remote = Remote::load(part, options.listen, remote, dir.dirs(), now)?;

    let machine = Machine::detect()?;
    let configured = match options.role {
        Role::AllInOne => config.node.pool_bytes(&machine),
        Role::Broker => config.node.pool.map_or(0, |_| config.node.pool_bytes(&machine)),
    };
    let pool_bytes = options.pool.unwrap_or(configured);
    if pool_bytes == 0 {
        // Its lease would be another machine's memory, which it cannot map.
        config.canary.every = None;
    }
    if pool_bytes > 0 || part != Part::Broker {
        check_pool(pool_bytes, &machine)?;
    }
    let descriptors = mem::process::raise_nofile()?;
    let (regions_max, remote_max) = share(descriptors, remote.as_ref().is_some_and(Remote::serves));
    let regions_max = if pool_bytes == 0 { 1 } else { regions_max };
    let remote = remote.map(|remote| (remote, remote_max));
    let allow_swap = options.allow_swap || config.node.allow_swap;
    let memory = memory(pool_bytes, regions_max, allow_swap)?;
    // After the factory's fork: a copy of the canary's pipe over there would keep it alive.
    let canary = config.canary.every.map(|_| Canary::start());
    Ok(Prepared { options, dir, config, policy, keys, pool_bytes, regions_max, memory, remote, canary })
}

/// The configuration and where it stands: the one that is named, or that of the state directory.
pub(super) fn configuration(
    dir: &NodeDir,
    named: Option<&std::path::Path>,
) -> Result<(PathBuf, Config), Failure> {
    let file = match named {
        Some(file) => file.to_owned(),
        None => dir.default_file("leasehold.toml", config::default_text())?,
    };
    let config = config::load(&file).map_err(Failure::mistakes)?;
    Ok((file, config))
}

/// What the configuration makes of a node with a broker.
fn part(role: Role, config: &Config, file: &std::path::Path) -> Result<Part, Failure> {
    let file = files::show(file);
    if config.cluster.broker.is_some() {
        let message = format!("{file} is the configuration of a provider: it has `cluster.broker`");
        let help = "start it with `leasehold provider`; a broker has `cluster.listen`";
        return Err(Failure::of(Code::ConfigValue, message).help(help));
    }
    match (config.cluster.listen, role) {
        (Some(_), _) => Ok(Part::Broker),
        (None, Role::AllInOne) => Ok(Part::Whole),
        (None, Role::Broker) => {
            let message = format!("{file} does not say where providers come");
            let help = "write `listen = \"ADDR:PORT\"` below [cluster]; or start a node of its own with `leasehold up`";
            Err(Failure::of(Code::ConfigValue, message).help(help))
        }
    }
}

/// The factory and the memory mechanism on it. A node without a pool gets the least of both: it makes no region, and the
/// gate and the log need a provider all the same.
pub(super) fn memory(pool_bytes: u64, regions_max: usize, allow_swap: bool) -> Result<Memory, Failure> {
    let factory = Factory::spawn(FactoryConfig {
        // One page of it is tried at the start.
        pool_bytes_max: pool_bytes.max(limits::POOL_BYTES_MIN),
        // Each rotation has one file more in hand than the books of regions know of.
        regions_max: u32::try_from(regions_max + limits::ROTATION_THREADS_MAX).unwrap_or(u32::MAX),
        namespace: Namespace::WhenNeeded,
    })?;
    refuse_swap(allow_swap || pool_bytes == 0, factory.facts().noswap, mem::process::swap_is_on()?)?;
    mem::process::no_core_dumps()?;
    Ok(Memory::start(factory, Strength::Best)?)
}

/// The bounds of a provider's tables.
pub(super) fn tables(
    cluster: ClusterEpoch,
    provider: ProviderId,
    pool_bytes: u64,
    regions_max: usize,
    tier: Tier,
) -> kernel::Config {
    kernel::Config {
        cluster,
        provider,
        pool_bytes,
        regions_max,
        opens_max: limits::SLOTS_MAX,
        opens_per_session_max: limits::SLOTS_PER_SESSION_MAX,
        segments_per_region_max: limits::SEGMENTS_PER_REGION_MAX as usize,
        segments_max: regions_max,
        exposures_max: limits::EXPOSURES_PER_SEGMENT_MAX,
        mapping_end_step: limits::MAPPING_END_STEP_MS * 1_000_000,
        revocations_per_region_max: limits::REVOCATIONS_PER_REGION_MAX,
        meters_per_region_max: limits::METERS_PER_REGION_MAX,
        meters_per_receiver_max: limits::METERS_PER_RECEIVER_MAX,
        marks_per_region_max: limits::MARKS_PER_REGION_MAX,
        ended_max: limits::ENDED_ROWS_MAX,
        tier,
        uid: rustix::process::geteuid().as_raw(),
    }
}

/// The gate at the socket.
pub(super) fn gate_config(dir: &NodeDir, config: &Config) -> GateConfig {
    GateConfig {
        path: dir.socket(),
        allow_uids: allow_uids(config, rustix::process::geteuid().as_raw()),
        sessions_max: limits::SESSIONS_MAX,
        sessions_per_uid_max: limits::SESSIONS_PER_UID_MAX,
        faults: config.faults,
    }
}

fn load_policy(dir: &NodeDir, config: &Config, config_file: &std::path::Path) -> Result<Policy, Failure> {
    let file = match config.policy.path(config_file) {
        Some(file) => file,
        None => dir.default_file("policy.dl", policy::datalog::DEFAULT)?,
    };
    let policy = Policy::load(&file).map_err(Failure::mistakes)?;
    let (errors, warnings): (Vec<_>, Vec<_>) =
        policy.lint(config.policy.allow_all).into_iter().partition(|found| found.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if errors.is_empty() { Ok(policy) } else { Err(Failure::mistakes(errors)) }
}

/// Leased pages must not reach a disk. Where this machine swaps and regions cannot be mounted `noswap` (an ordinary user's
/// cannot, and pins only hold as much as `RLIMIT_MEMLOCK`), the operator has to say that it may happen.
fn refuse_swap(allowed: bool, noswap: bool, swap_is_on: bool) -> Result<()> {
    if swap_is_on && !noswap && !allowed {
        return Err(Error::new(
            Code::ConfigValue,
            "swap is on and regions cannot be kept out of it here; turn it off, run as root, or say --allow-swap",
        ));
    }
    Ok(())
}

/// A pool within the bounds of the system and of this machine.
pub(super) fn check_pool(pool_bytes: u64, machine: &Machine) -> Result<()> {
    if !(limits::POOL_BYTES_MIN..=limits::POOL_BYTES_MAX).contains(&pool_bytes) {
        return Err(Error::new(Code::ConfigValue, "the pool has 16 MiB to 16 TiB"));
    }
    let most = machine.pool_bytes_max();
    if pool_bytes > most {
        let detail = format!("the pool has at most 80 % of the memory that is available now: {most} bytes");
        return Err(Error::with(Code::ConfigValue, detail));
    }
    Ok(())
}

/// As many regions as there are descriptors for, at most the system's bound, and beside them as many connections over TLS:
/// where descriptors are few, each has half of them, and what the regions cannot use.
pub(super) fn share(descriptors: u64, remote: bool) -> (usize, usize) {
    let sessions = limits::FDS_PER_SESSION * limits::SESSIONS_MAX as u64;
    let left = descriptors.saturating_sub(limits::FDS_RESERVED + sessions);
    let refusals = limits::REMOTE_REFUSALS_MAX as u64;
    let wanted = (limits::REMOTE_SESSIONS_MAX as u64 + refusals) * limits::FDS_PER_REMOTE_SESSION;
    let beside = left.saturating_sub(limits::LEASES_MAX as u64 * limits::FDS_PER_REGION);
    let theirs = if remote { wanted.min(beside.max(left / 2)) } else { 0 };
    let regions = (left - theirs) / limits::FDS_PER_REGION;
    let connections = (theirs / limits::FDS_PER_REMOTE_SESSION).saturating_sub(refusals);
    (
        usize::try_from(regions).unwrap_or(usize::MAX).clamp(1, limits::LEASES_MAX),
        usize::try_from(connections).unwrap_or(usize::MAX),
    )
}

async fn serve(prepared: Prepared) -> Result<()> {
    let clock = Clock::start();
    let (cluster, provider_id) = (ClusterEpoch::random(), ProviderId::random());
    let Prepared { options, dir, config, policy, keys, pool_bytes, regions_max, memory, remote, canary } =
        prepared;

    // 4: both logs.
    let (broker_origin, provider_origin) = state::origins(&config.node.cluster)?;
    let now: audit::recorder::Clock = Arc::new(move || clock.unix());
    let (broker_key, _) = keys.broker_log;
    let (provider_key, provider_salt) = keys.provider_log;
    let vkeys = format!("{}\n{}\n", broker_key.vkey(&broker_origin), provider_key.vkey(&provider_origin));
    let open = |name: &str, identity| Recorder::open(&dir.audit().join(name), identity, now.clone());
    let broker_log = Arc::new(open("broker", Identity::new(broker_origin, broker_key))?);
    let provider_log = open("provider-1", Identity::new(provider_origin, provider_key))?;
    dir.publish("vkeys", &vkeys)?;
    dir.publish("root", &keys.roots.published())?;
    dir.publish("issuer", &format!("{}\n", keys.receipt.public()))?;

    // 5: provider, then broker.
    let tier = memory.tier();
    let uid = rustix::process::geteuid().as_raw();
    let guardian = memory.clone();
    let provider = Provider::start(Parts {
        config: tables(cluster, provider_id, pool_bytes, regions_max, tier),
        store: memory,
        recorder: provider_log,
        salt: provider_salt,
        roots: keys.roots.believed()?,
        clock,
    })?;
    // A name that no provider's certificate has: there is one authority for both, and one name in each certificate.
    let own = match (pool_bytes, config.cluster.listen, &remote) {
        (0, ..) => None,
        (_, Some(_), Some((remote, _))) => Some((provider_id, remote.name())),
        _ => Some((provider_id, Name::new(LOCAL)?)), // the only one
    };
    let near = own.as_ref().map(|(_, name)| name.clone()).filter(|_| config.cluster.listen.is_some());
    let attached = own.is_some();
    let own_id = own.as_ref().map(|(id, _)| *id);
    let genesis = genesis(&config, &policy, cluster, own, &keys.admin, clock, pool_bytes, regions_max)?;
    let facts = Facts {
        cluster,
        admin: keys.admin.public(),
        roots: Roots { keys: keys.roots.publics(), expired: Vec::new() },
        policy: PolicyText { text: policy.text().into(), hash: policy.hash().0 },
        quota: genesis.quota,
        quotas: genesis.quotas.clone(),
        principals: std::collections::BTreeMap::new(),
    };
    let (broker, handle) = broker_runtime::start(broker_runtime::Parts {
        genesis,
        policy: Arc::new(policy),
        recorder: broker_log.clone(),
        link: attached
            .then(|| Arc::new(LocalProvider(provider.clone())) as Arc<dyn broker_runtime::ProviderLink>),
        clock: Arc::new(move || clock.unix()),
        root: keys.root,
        receipts: keys.receipt,
        tasks: tokio::runtime::Handle::current(),
    })?;
    let notices = handle.clone();
    provider.on_notice(Box::new(move |notice| {
        if let Err(error) = notices.notice(notice) {
            tracing::warn!(%error, "the broker was not told of an end; it finds out by itself");
        }
    }));
    // Before the first principal is registered, so that none is left out.
    let told = config.cluster.listen.map(|_| FactsSource::following(&handle, facts));
    let health = config.canary.every.map(|every| Arc::new(Health::new(every)));
    // Before the others, so that its names are its own.
    let keeper = match canary {
        Some(canary) => keep(canary, &handle, keys.admin.public(), uid).await,
        None => None,
    };
    register_known(&handle, &dir, keys.admin.public(), uid).await;

    let ttl_max = config.lease.ttl_max;
    let custody = Custody::new(
        keys.roots,
        handle.clone(),
        provider.clone(),
        told.clone(),
        own_id,
        dir.audit(),
        ttl_max,
    );
    let keeping = tokio::spawn(custody.clone().watch());

    let providers = match (config.cluster.listen, &remote, told) {
        (Some(listen), Some((remote, _)), Some(told)) => {
            let (credentials, handle) = (remote.link()?, handle.clone());
            Some(
                link::broker::Listener::bind(listen, credentials, handle, told, link::Timings::default())
                    .await?,
            )
        }
        _ => None,
    };
    let cluster_address = providers.as_ref().map(link::broker::Listener::address).transpose()?;

    // 6: the gate.
    let control = LocalBroker {
        handle,
        custody,
        state: dir.dirs().state.clone(),
        canary: health.clone(),
        admin: keys.admin.public(),
    };
    let gate = Gate::bind(gate_config(&dir, &config), provider.clone(), Arc::new(control))?;
    let served = match remote.as_ref().and_then(|(remote, most)| remote.gate(*most)) {
        Some(config) => Some(RemoteGate::bind(config, &gate).map_err(remote::not_listening)?),
        None => None,
    };
    // Before anybody is told that the node is there: who has read that it is ready may stop it at once, and must find
    // a node that takes everything back.
    let stop = Stop::listen()?;
    let listener = health.map(|health| watch(keeper, health, &config, &dir.socket(), near));
    // Everything that takes more than serving does is done.
    provider::sandbox::node::enter()?;
    let accepting = providers.map(|providers| tokio::spawn(providers.serve()));
    let listens = served.as_ref().map(RemoteGate::address);
    say_ready(&options, &dir.socket(), listens, cluster_address, tier, pool_bytes);
    let guarded = until_stopped(&gate, served.as_ref(), &guardian, stop).await;

    // Its pipe closes, and it ends. It is not waited for: its sessions end as everybody's do.
    listener.iter().for_each(tokio::task::JoinHandle::abort);
    keeping.abort();
    // Providers find out, and take back what they have: it is nobody's any more when the broker's epoch is over.
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    drop(served);
    drop(gate);
    provider.end_sessions().await;
    provider.take_everything().await;
    broker.stop()?;
    broker_log.shutdown()?;
    if !guarded {
        return Err(Error::new(
            Code::System,
            "the guardian died, so the node took everything back and stopped",
        ));
    }
    Ok(())
}

/// What the provider of a node of its own is called in its lists.
const LOCAL: &str = "local";

#[expect(clippy::too_many_arguments, reason = "each is one line of the record it fills in")]
fn genesis(
    config: &Config,
    policy: &Policy,
    cluster: ClusterEpoch,
    own: Option<(ProviderId, Name)>,
    admin: &caps::key::SigningKey,
    clock: Clock,
    pool_bytes: u64,
    regions_max: usize,
) -> Result<Genesis> {
    let capacity = Capacity::default();
    let regions = capacity.leases.min(u32::try_from(regions_max).unwrap_or(u32::MAX));
    // Where others come, there is as much as they bring.
    let (bytes, leases) = match config.cluster.listen {
        Some(_) => (limits::POOL_BYTES_MAX, capacity.leases),
        None => (pool_bytes, regions),
    };
    let bounds = Bounds {
        lease_bytes_min: config.lease.bytes_min,
        lease_bytes_max: config.lease.bytes_max.min(bytes),
        ttl_max: config.lease.ttl_max,
        ..Bounds::of_pool(bytes)
    };
    let mut quotas = config.quotas.named.clone();
    if config.canary.every.is_some() {
        for name in canary::NAMES {
            quotas.insert(Name::new(name)?, canary::quota(canary_bytes(config)));
        }
    }
    Ok(Genesis {
        cluster,
        provider: own.map(|(id, name)| Registration {
            id,
            // What is to be near it says its name: the canary does.
            locality: config.cluster.listen.map(|_| name.clone()),
            name,
            // Reached as this node is.
            address: None,
            bytes: pool_bytes,
            regions,
            classes: Vec::new(),
            seat: None,
        }),
        at: clock.unix(),
        admin: admin.public(),
        admin_name: Name::new(ADMIN)?,
        policy: policy.hash().0,
        capacity: Capacity { leases, ..capacity },
        bounds,
        quota: config.quotas.default,
        quotas,
    })
}

/// Bytes of the canary's lease: a page, or what this node leases at least.
fn canary_bytes(config: &Config) -> u64 {
    config.lease.bytes_min.next_multiple_of(limits::PAGE_BYTES)
}

/// Hears the canary's keys and registers them. A node without its canary serves all the same, and says so.
async fn keep(
    canary: Result<Canary>,
    handle: &Handle,
    admin: caps::id::PrincipalKey,
    uid: u32,
) -> Option<Keeper> {
    let start = async || -> Result<Keeper> {
        let (keeper, public) = Keeper::of(canary?).await?;
        for (name, key) in canary::NAMES.into_iter().zip(public) {
            let caller = broker_runtime::Caller { holder: admin, uid: Some(uid), session: 0 };
            // Not remembered for the next start, as those are that people register: its keys live as long as it.
            handle.request(caller, Request::PrincipalAdd { name: Name::new(name)?, key }).await?;
        }
        Ok(keeper)
    };
    start().await.inspect_err(|error| tracing::error!(%error, "the revocation canary does not start")).ok()
}

/// Has the canary begin, and listens to it from then on.
fn watch(
    keeper: Option<Keeper>,
    health: Arc<Health>,
    config: &Config,
    socket: &std::path::Path,
    near: Option<Name>,
) -> tokio::task::JoinHandle<()> {
    let (every, bytes) = (config.canary.every.unwrap_or_default(), canary_bytes(config));
    let ttl = config.lease.ttl_max.min(caps::time::Micros::from_millis(limits::CANARY_LEASE_MS_MAX));
    let begun =
        keeper.and_then(|mut keeper| keeper.begin(socket, every, ttl, bytes, near).ok().map(|()| keeper));
    tokio::spawn(async move {
        match begun {
            Some(keeper) => keeper.listen(health).await,
            None => health.stopped(),
        }
    })
}

/// Registers the principals of earlier lives. One that is refused is reported; the node serves the others.
async fn register_known(handle: &Handle, dir: &NodeDir, admin: caps::id::PrincipalKey, uid: u32) {
    for (name, key) in dir.principals() {
        let caller = broker_runtime::Caller { holder: admin, uid: Some(uid), session: 0 };
        let shown = name.clone();
        if let Err(error) = handle.request(caller, Request::PrincipalAdd { name, key }).await {
            tracing::warn!(%error, principal = %shown, "a known principal could not be registered");
        }
    }
}

/// Who may connect: the node's own user, and whom the configuration names. Root may whatever the list says: it could
/// take on any of the uids.
fn allow_uids(config: &Config, own: u32) -> Vec<u32> {
    let mut allowed = config.node.allow_uids.clone().unwrap_or_default();
    allowed.extend([own, 0]);
    allowed
}

/// The two signals that stop a node in good order.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From here on the signals no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|_| Error::new(Code::System, "a node that cannot be stopped must not start"))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub(super) async fn came(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal or the guardian's death. `false` for the latter: without it a killed node would leave its
/// clients' mappings alive, so the node ends while it still can cut them itself.
async fn until_stopped(gate: &Gate, remote: Option<&RemoteGate>, memory: &Memory, mut stop: Stop) -> bool {
    let network = async {
        match remote {
            Some(remote) => remote.serve().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = gate.serve() => true,
        () = network => true,
        () = stop.came() => true,
        () = provider::runtime::guardian_died(memory) => false,
    }
}

fn say_ready(
    options: &Options,
    socket: &PathBuf,
    listens: Option<SocketAddr>,
    cluster: Option<SocketAddr>,
    tier: Tier,
    pool_bytes: u64,
) {
    let mut out = std::io::stdout().lock();
    let said = if options.json {
        let mut ready = serde_json::json!({"socket": socket, "tier": tier, "pool_bytes": pool_bytes});
        if let Some(address) = listens {
            ready["address"] = address.to_string().into();
        }
        if let Some(address) = cluster {
            ready["cluster"] = address.to_string().into();
        }
        writeln!(out, "{}", serde_json::json!({ "ready": ready }))
    } else {
        let dir = options.dirs.argument();
        let tls = listens.map_or(String::new(), |address| format!(", TLS at {address}"));
        let providers = cluster.map_or(String::new(), |address| format!(", providers at {address}"));
        let memory = match pool_bytes {
            0 => "no memory of its own".to_owned(),
            bytes => format!("{} pool, tier {}", policy::units::Bytes(bytes), tier.name()),
        };
        let ends = match (cluster, pool_bytes) {
            (None, _) => "the node; every lease is then taken back and wiped.",
            (Some(_), 0) => {
                "the broker; its providers keep their leases until these end, or it is started again."
            }
            (Some(_), _) => {
                "the node; every lease here is then taken back and wiped, and its providers keep theirs until these end, \
                 or it is started again."
            }
        };
        writeln!(
            out,
            "ready: {memory}, socket {}{tls}{providers}\n\nIn another terminal:\n  leasehold{dir} id new alice\n  \
             leasehold{dir} --as alice lease create --size 64MiB --ttl 10m --name frames\n  \
             leasehold{dir} --as alice lease list\n\nCtrl-C ends {ends}",
            socket.display(),
        )
    };
    let _ = said.and_then(|()| out.flush()); // nobody reads: the node serves all the same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_between_regions_and_connections() {
        assert_eq!(share(limits::FDS_MAX, false), (limits::LEASES_MAX, 0));
        assert_eq!(share(limits::FDS_REMOTE_MAX, true), (limits::LEASES_MAX, limits::REMOTE_SESSIONS_MAX));
        assert_eq!(share(u64::MAX, true), (limits::LEASES_MAX, limits::REMOTE_SESSIONS_MAX));
        let (regions, connections) = share(limits::FDS_MAX, true);
        let sessions = limits::SESSIONS_MAX as u64 * limits::FDS_PER_SESSION;
        let used = regions as u64 * limits::FDS_PER_REGION
            + (connections + limits::REMOTE_REFUSALS_MAX) as u64 * limits::FDS_PER_REMOTE_SESSION;
        assert!(used + sessions + limits::FDS_RESERVED <= limits::FDS_MAX);
        assert!(connections > 1_000 && regions > 1_000);
    }

    #[test]
    fn a_node_that_could_swap_leased_pages_starts_only_when_told_to() {
        for (allowed, noswap, on, starts) in [
            (false, false, true, false),
            (true, false, true, true),
            (false, true, true, true),
            (false, false, false, true),
        ] {
            assert_eq!(refuse_swap(allowed, noswap, on).is_ok(), starts);
        }
    }
}
