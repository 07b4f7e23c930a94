//! A provider of a broker on another machine: start, serve, stop.
//!
//! | step | a failure there leaves |
//! |---|---|
//! | 1 the process above the lives, see `lives` | nothing |
//! | 2 lock the directory, read configuration, credentials and the key of the log | nothing |
//! | 3 fork the factory, before any thread; try what this machine's memory can do | the factory ends when this does |
//! | 4 open the log; find the broker, and hear what a provider has to know | a log that says `log.start` |
//! | 5 start the provider with that, open the gates | clients that are cut by the factory |
//! | 6 give up every system call that serving does not need | the same |
//! | 7 join the broker, and say that the provider is ready | the same |
//!
//! The broker may be away in step 4, for as long as it likes: nothing is served before it was heard once. When it is away
//! later, what is leased is served on, by what it said last, until its time is over.
//!
//! Stopping goes back: the gates close, no ticket is turned into memory any more, every region is taken back and wiped, the
//! broker is told that nothing is left, the log gets its last checkpoint. A life that is over ends the same way, and with the status that has the next begin.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::Recorder;
use audit::log::Identity;
use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::wire::Name;
use caps::wire::provider::{Address, Registration};
use caps::wire::row::Tier;
use link::provider::{Asker, Config as LinkConfig, Dialler, Ended};
use policy::config::Config;
use policy::limits;
use policy::machine::Machine;
use provider::gate::Gate;
use provider::gate::remote::RemoteGate;
use provider::mem::{self, Memory};
use provider::runtime::{Clock, Parts, Provider};

use super::lives;
use super::member::{Control, Hands, Known, set};
use super::remote::{self, Part, Remote};
use super::state::{self, NodeDir};
use super::up::{self, Stop};
use crate::dirs::Dirs;
use crate::failure::Failure;
use crate::files;

/// What the operator says on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The provider's directories.
    pub dirs: Dirs,
    /// The configuration, instead of the one in the state directory.
    pub config: Option<PathBuf>,
    /// The pool in bytes, instead of the configuration's.
    pub pool: Option<u64>,
    /// Start although the machine swaps and leased pages could be written to a disk.
    pub allow_swap: bool,
    /// Say what happens in JSON.
    pub json: bool,
    /// The process above, in a life.
    pub life_of: Option<u32>,
    /// Whether it is another than the first.
    pub later: bool,
}

/// Steps 2 and 3 done.
struct Prepared {
    options: Options,
    dir: NodeDir,
    config: Config,
    broker: Address,
    name: Name,
    remote: Remote,
    remote_max: usize,
    pool_bytes: u64,
    regions_max: usize,
    memory: Memory,
}

/// Why a life ends.
enum End {
    /// Somebody stopped it.
    Stopped,
    /// It is over in the broker's books.
    NewLife(Error),
}

/// Runs a provider until it is told to stop, one life after the other. Call it before any thread is started.
///
/// # Errors
/// Why it did not start, or that its log could not be closed.
pub fn run(options: Options) -> Result<(), Failure> {
    match options.life_of {
        None => match lives::run()? {},
        Some(above) => lives::begin(above)?,
    }
    let prepared = prepare(options)?;
    let runtime = super::runtime()?;
    match runtime.block_on(serve(prepared))? {
        End::Stopped => Ok(()),
        End::NewLife(why) => {
            tracing::warn!(%why, "everything was taken back");
            drop(runtime);
            std::process::exit(lives::NEW_LIFE.into());
        }
    }
}

/// Steps 2 and 3.
fn prepare(options: Options) -> Result<Prepared, Failure> {
    let dir = NodeDir::lock(options.dirs.clone())?;
    let (file, config) = up::configuration(&dir, options.config.as_deref())?;
    let Some(broker) = config.cluster.broker.clone() else {
        let message = format!("{} does not say where the broker is", files::show(&file));
        let help =
            "write `broker = \"HOST:PORT\"` below [cluster], where the broker's own `cluster.listen` is";
        return Err(Failure::of(Code::ConfigValue, message).help(help));
    };
    let now = Clock::start().unix();
    let credentials = config.remote.clone().beside(&file);
    let remote = Remote::load(Part::Provider, None, credentials, dir.dirs(), now)?
        .ok_or(Error::new(Code::Internal, "a provider has credentials"))?;
    let name = remote.name();
    if let Some(said) = config.cluster.name.as_ref().filter(|said| **said != name) {
        let message = format!("`cluster.name` is {said}, and the certificate is that of {name}");
        let help = "a provider has the name of its certificate; correct the one, or have the other issued";
        return Err(Failure::of(Code::ConfigValue, message).help(help));
    }
    let machine = Machine::detect()?;
    let pool_bytes = options.pool.unwrap_or_else(|| config.node.pool_bytes(&machine));
    up::check_pool(pool_bytes, &machine)?;
    let (regions_max, remote_max) = up::share(mem::process::raise_nofile()?, remote.serves());
    let memory = up::memory(pool_bytes, regions_max, options.allow_swap || config.node.allow_swap)?;
    Ok(Prepared { options, dir, config, broker, name, remote, remote_max, pool_bytes, regions_max, memory })
}

async fn serve(prepared: Prepared) -> Result<End> {
    let Prepared { options, dir, config, broker, name, remote, remote_max, pool_bytes, regions_max, memory } =
        prepared;
    let mut stop = Stop::listen()?;
    let clock = Clock::start();

    // 4: the log, then the broker.
    let log = format!("provider-{name}");
    let origin = state::origin(&config.node.cluster, &log)?;
    let (key, salt) = dir.log_keys(&log)?;
    dir.publish("vkeys", &format!("{}\n", key.vkey(&origin)))?;
    let now: audit::recorder::Clock = Arc::new(move || clock.unix());
    let recorder = Recorder::open(&dir.audit().join(&log), Identity::new(origin, key), now)?;
    let id = ProviderId::random();
    let registration = Registration {
        id,
        name: name.clone(),
        address: config.cluster.told(&config.remote),
        bytes: pool_bytes,
        regions: u32::try_from(regions_max).unwrap_or(u32::MAX),
        classes: config.cluster.classes.clone(),
        locality: config.cluster.locality.clone(),
        seat: Some(dir.seat()),
    };
    say_waiting(&broker);
    let contact = async {
        let (mut dialler, asker) = Dialler::new(LinkConfig {
            // By its number: when it is dialled again, nobody can be asked what a name means any more.
            address: find(&broker).await?,
            broker_name: config.cluster.broker_name.clone(),
            credentials: remote.link()?,
            registration,
            later: options.later,
            timings: link::Timings::default(),
        });
        let facts = dialler.first_contact().await?;
        Ok::<_, Error>((dialler, asker, facts))
    };
    let (dialler, asker, facts) = tokio::select! {
        contact = contact => contact?,
        () = stop.came() => return Ok(End::Stopped),
    };

    // 5: the provider and its gates.
    let tier = memory.tier();
    let guardian = memory.clone();
    let roots = facts.roots.clone();
    let provider = Provider::start(Parts {
        config: up::tables(facts.cluster, id, pool_bytes, regions_max, tier),
        store: memory,
        recorder,
        salt,
        roots: set(&roots.keys)?,
        clock,
    })?;
    let notices = asker.clone();
    provider.on_notice(Box::new(move |notice| notices.notice(notice)));
    let known = Arc::new(Known::new(facts)?);
    let control = Control { known: known.clone(), asker: asker.clone(), broker: broker.clone() };
    let gate = Gate::bind(up::gate_config(&dir, &config), provider.clone(), Arc::new(control))?;
    let served = match remote.gate(remote_max) {
        Some(config) => Some(RemoteGate::bind(config, &gate).map_err(remote::not_listening)?),
        None => None,
    };

    // 6 and 7.
    provider::sandbox::node::enter_dialling()?;
    let hands = Arc::new(Hands::new(provider.clone(), known, roots.keys));
    let mut link = tokio::spawn(dialler.serve(hands.clone()));
    let ready = async {
        asker.joined().await;
        say_ready(
            &options,
            &dir.socket(),
            served.as_ref().map(RemoteGate::address),
            tier,
            pool_bytes,
            &name,
            &broker,
        );
        std::future::pending::<()>().await;
    };
    let network = async {
        match &served {
            Some(remote) => remote.serve().await,
            None => std::future::pending().await,
        }
    };
    let mut guarded = true;
    let mut over = None;
    tokio::select! {
        () = gate.serve() => {}
        () = network => {}
        () = ready => {}
        () = stop.came() => {}
        ended = &mut link => over = Some(ended),
        () = provider::runtime::guardian_died(&guardian) => guarded = false,
    }

    drop(served);
    drop(gate);
    hands.no_more_claims().await;
    provider.end_sessions().await;
    provider.take_everything().await;
    let ended = match over {
        Some(ended) => ended,
        None => {
            told(&asker).await;
            if provider.committed_bytes() == 0 {
                asker.gone();
            } else {
                // What could not be wiped goes with this process, and the broker must not be told before it did.
                asker.stop();
            }
            link.await
        }
    };
    if !guarded {
        return Err(Error::new(
            Code::System,
            "the guardian died, so the provider took everything back and stopped",
        ));
    }
    match ended {
        Ok(Ended::NewLife(why)) => Ok(End::NewLife(why)),
        Ok(Ended::Stopped) => Ok(End::Stopped),
        Err(_) => Err(Error::new(Code::Internal, "the link to the broker panicked")),
    }
}

/// Waits until the broker knows of everything that ended here, if it is there and says so soon.
async fn told(asker: &Asker) {
    let look = Duration::from_millis(limits::LINK_NOTICE_AGAIN_MS);
    let most = Duration::from_millis(limits::LINK_ASK_MS_MAX);
    let all = async {
        while asker.is_joined() && asker.notices_kept() > 0 {
            tokio::time::sleep(look).await;
        }
    };
    // It finds out by itself otherwise.
    let _ = tokio::time::timeout(most, all).await;
}

/// The broker's address as a number. A name is looked up until one of its addresses answers: whoever starts both ends at
/// once need not start them in order.
///
/// # Errors
/// `E_INTERNAL` if the number is no address.
async fn find(broker: &Address) -> Result<Address> {
    let said = broker.as_str();
    if said.parse::<SocketAddr>().is_ok() {
        return Ok(broker.clone());
    }
    let wait = Duration::from_millis(limits::LINK_CONNECT_MS_MAX);
    loop {
        let name = said.to_owned();
        let found = tokio::task::spawn_blocking(move || {
            let mut found = name.to_socket_addrs().into_iter().flatten();
            found.find(|address| std::net::TcpStream::connect_timeout(address, wait).is_ok())
        });
        if let Ok(Some(address)) = found.await {
            return Address::new(&address.to_string())
                .map_err(|_| Error::new(Code::Internal, "the broker's address is none"));
        }
        tokio::time::sleep(Duration::from_millis(limits::LINK_REDIAL_MS_MAX)).await;
    }
}

fn say_waiting(broker: &Address) {
    let _ = writeln!(std::io::stderr().lock(), "waiting for the broker at {broker}"); // or nobody reads it
}

fn say_ready(
    options: &Options,
    socket: &std::path::Path,
    listens: Option<SocketAddr>,
    tier: Tier,
    pool_bytes: u64,
    name: &Name,
    broker: &Address,
) {
    let mut out = std::io::stdout().lock();
    let said = if options.json {
        let ready = serde_json::json!({
            "socket": socket,
            "address": listens.map(|address| address.to_string()),
            "tier": tier,
            "pool_bytes": pool_bytes,
            "name": name,
            "broker": broker,
        });
        writeln!(out, "{}", serde_json::json!({ "ready": ready }))
    } else {
        let tls = listens.map_or(String::new(), |address| format!(", TLS at {address}"));
        writeln!(
            out,
            "ready: provider {name} of the broker at {broker}, {} pool, tier {}, socket {}{tls}\n\nCtrl-C ends it; every \
             lease here is then taken back and wiped.",
            policy::units::Bytes(pool_bytes),
            tier.name(),
            socket.display(),
        )
    };
    let _ = said.and_then(|()| out.flush()); // nobody reads: the provider serves all the same
}
