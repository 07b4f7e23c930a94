//! Binding, accepting, starting and stopping the shards.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use audit::rejects::Source;
use audit::{Draft, Event};
use caps::error::{Code, Error, Result};
use policy::limits;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::timeout;
use transport::{Reload, Reloaded};

use super::admission::{Admission, Admitted};
use super::config::RemoteConfig;
use super::effects::Effects;
use super::mailbox::{Letter, Mailbox};
use super::partials::Partials;
use super::shard::Shard;
use crate::gate::Gate;
use crate::gate::listen::Shared;

/// A listening gate for the network.
pub struct RemoteGate {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    _shards: Shards,
    dealer: Dealer,
    watching: tokio::task::JoinHandle<()>,
}

/// Deals connections out to the shards.
struct Dealer {
    shards: Vec<Arc<Mailbox>>,
    next: AtomicUsize,
}

/// Threads that serve. Stopped and waited for when dropped, also where only some of them could be started.
#[derive(Default)]
struct Shards(Vec<(Arc<Mailbox>, Option<JoinHandle<()>>)>);

impl RemoteGate {
    /// Binds the address and starts the threads that serve. Everything that the local gate knows of its clients (their
    /// numbers, what they were refused, turns at checking tokens, tokens that wait to be fetched) is one for both.
    ///
    /// # Errors
    /// `E_CONFIG_IO` if the address cannot be had; `E_SYSTEM` if a thread cannot.
    pub fn bind(config: RemoteConfig, local: &Gate) -> Result<Self> {
        crate::runtime::Outgoing::can_cut_off()?;
        let (listener, address) = listener(config.listen)?;
        let admission = Admission::new(config.sessions_max, config.sessions_per_network_max);
        let mut shards = Shards::default();
        let shared = local.shared();
        let provider = shared.provider.clone();
        let effects = Effects::start(move || provider.clock().boot());
        let partials = Arc::new(Partials::default());
        let beginning_max = limits::REMOTE_GREETINGS_MAX.div_ceil(config.shards.max(1));
        for _ in 0..config.shards.max(1) {
            let (shared, effects, partials) = (shared.clone(), effects.clone(), partials.clone());
            let (runtime, credentials) = (Handle::current(), config.credentials.clone());
            let (shard, mailbox) =
                Shard::new(shared, effects, partials, runtime, credentials, beginning_max)?;
            let thread = std::thread::Builder::new().name("lh-remote".into()).spawn(move || shard.run());
            let thread = thread.map_err(|_| Error::new(Code::System, "cannot start a thread for TLS"))?;
            shards.0.push((mailbox, Some(thread)));
        }
        let mailboxes: Vec<_> = shards.0.iter().map(|(mailbox, _)| mailbox.clone()).collect();
        let dealer = Dealer { shards: mailboxes.clone(), next: AtomicUsize::new(0) };
        let watching = tokio::spawn(watch(config.credentials, mailboxes, shared.clone()));
        Ok(Self { listener, address, shared, admission, _shards: shards, dealer, watching })
    }

    /// Where it listens. The port is the one that the kernel chose, where it was to choose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the future is dropped. The shards serve, whether it is or not.
    pub async fn serve(&self) {
        loop {
            match self.listener.accept().await {
                Ok((socket, from)) => {
                    if let Ok(socket) = socket.into_std() {
                        self.begin(socket, from.ip());
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely, or the client is gone already. See the local gate.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                }
            }
            if self.admission.is_crowded() {
                let pace = Duration::from_millis(limits::REMOTE_GREETING_PACE_MS);
                let _ = timeout(pace, self.admission.eased()).await; // either way the next one is taken
            }
        }
    }

    fn begin(&self, socket: TcpStream, address: IpAddr) {
        let source = Source::of(address);
        match self.admission.admit(source) {
            Ok(admitted) => self.dealer.deal(socket, address, admitted),
            Err(error) => self.shared.rejects.note(source, &error),
        }
    }
}

impl Dealer {
    fn deal(&self, socket: TcpStream, address: IpAddr, admitted: Admitted) {
        let Admitted { seat, refused } = admitted;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let open = |after: &usize| self.shards[(turn + after) % self.shards.len()].is_open();
        // One that could not wait for its sockets any more has said so; the others serve on.
        let Some(after) = (0..self.shards.len()).find(open) else { return };
        self.shards[(turn + after) % self.shards.len()].put(Letter::New(socket, address, seat, refused));
    }
}

impl Drop for RemoteGate {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        for (mailbox, _) in &self.0 {
            mailbox.put(Letter::Stop);
        }
        for (_, thread) in &mut self.0 {
            // A shard that panicked has said so.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// The listening socket, and where it listens.
fn listener(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let bind = || -> std::io::Result<TcpListener> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // A node that was stopped is started again before its last connections are forgotten.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &at)?;
        rustix::net::listen(&socket, limits::REMOTE_BACKLOG_MAX)?;
        TcpListener::from_std(std::net::TcpListener::from(socket))
    };
    let failed = |error: std::io::Error| {
        Error::with(Code::ConfigIo, format!("cannot listen on {at}: {}", error.kind()))
    };
    let listener = bind().map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Looks at the files of the node's credentials now and then. Has the shards judge their clients' certificates again when
/// the files have changed, and every so often, for those whose time is over.
async fn watch(credentials: Arc<Reload>, shards: Vec<Arc<Mailbox>>, shared: Arc<Shared>) {
    let judge = || shards.iter().for_each(|shard| shard.put(Letter::Judge));
    let mut ticks = tokio::time::interval(Duration::from_millis(limits::REMOTE_RELOAD_MS));
    let every = Duration::from_millis(limits::REMOTE_JUDGE_MS);
    let mut judged = Instant::now();
    let mut wrong: Option<Error> = None;
    loop {
        ticks.tick().await;
        if judged.elapsed() >= every {
            judged = Instant::now();
            judge();
        }
        // Files may be on a disk that is slow, and judging certificates takes its time.
        let looked = credentials.clone();
        let Ok(looked) = tokio::task::spawn_blocking(move || looked.look()).await else { continue };
        match looked {
            Reloaded::Same => {}
            Reloaded::New(fresh) => {
                tracing::info!(id = %fresh.id(), "new TLS credentials are in use");
                wrong = None;
                judge();
            }
            Reloaded::Kept(error) => {
                tracing::error!(%error, "new TLS credentials are not good; those before stay in use");
                // Once for what is wrong, however often the files are written.
                if wrong.as_ref() != Some(&error) {
                    shared.provider.record_fault(Draft::error(Event::ConfigLoad, error.code()));
                    wrong = Some(error);
                }
            }
        }
    }
}
