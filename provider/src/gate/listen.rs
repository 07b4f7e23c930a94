//! The socket's path, its permissions, accepting, and the bounds on sessions.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use audit::rejects::Source;
use caps::error::{Code, Error, Result};
use policy::fault::Faults;
use policy::limits;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;

use super::ControlPlane;
use super::peer::Peer;
use super::refusals::Refusals;
use super::rejects::Rejects;
use super::session::{self, Session};
use super::verified::Room;
use super::verify_pool::VerifyPool;
use super::wraps::Wraps;
use crate::runtime::Provider;

/// Where the gate listens and whom it lets in.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// Path of the socket.
    pub path: PathBuf,
    /// Uids that may connect. There is no way to let every uid in: who is not named is refused.
    pub allow_uids: Vec<u32>,
    /// Most sessions at one time.
    pub sessions_max: usize,
    /// Most sessions of one uid at one time.
    pub sessions_per_uid_max: usize,
    /// What follows a fault.
    pub faults: Faults,
}

/// A listening gate.
pub struct Gate {
    listener: AsyncFd<OwnedFd>,
    shared: Arc<Shared>,
    path: PathBuf,
}

/// What every session of a gate shares.
pub(super) struct Shared {
    pub(super) provider: Provider,
    pub(super) control: Arc<dyn ControlPlane>,
    pub(super) rejects: Arc<Rejects>,
    /// The bytes that sessions may remember of verified tokens.
    pub(super) tokens: Arc<Room>,
    /// Turns at checking a token's signatures.
    pub(super) verifying: Arc<VerifyPool>,
    /// Refusals by quota. Guards the table; held for one count.
    pub(super) refusals: Mutex<Refusals>,
    /// Tokens that wait to be fetched.
    pub(super) wraps: Arc<Wraps>,
    pub(super) config: GateConfig,
    /// The number of the next session, whichever way it comes.
    pub(super) next: AtomicU64,
    /// Sessions by uid. Guards the counts; held for an addition.
    counts: Mutex<HashMap<u32, usize>>,
    /// Of these, the ended ones that wait for their process' end. Held for an addition.
    lingering: Mutex<HashMap<u32, usize>>,
}

/// A place among those that wait, given back when dropped.
pub(super) struct Lingering {
    shared: Arc<Shared>,
    uid: u32,
}

impl Drop for Lingering {
    fn drop(&mut self) {
        take_one(&self.shared.lingering, self.uid);
    }
}

/// A place among the sessions, given back when dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        take_one(&self.shared.counts, self.uid);
    }
}

/// Counts one of a user's down; a user without any has no row.
fn take_one(counts: &Mutex<HashMap<u32, usize>>, uid: u32) {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = counts.get_mut(&uid) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&uid);
        }
    }
}

impl Shared {
    /// Whether one more session of this uid may begin.
    fn admit(self: &Arc<Self>, uid: u32) -> Result<Place> {
        if !self.config.allow_uids.contains(&uid) {
            return Err(Error::new(Code::PeerUid, "this user id is not on the node's allow-list"));
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&uid).copied().unwrap_or(0);
        // The last places are for those who run the node: a full node can still be told to revoke.
        let runs_it = uid == 0 || uid == self.provider.config().uid;
        let reserved = if runs_it { 0 } else { limits::SESSIONS_RESERVED };
        if all + reserved >= self.config.sessions_max || own >= self.config.sessions_per_uid_max {
            return Err(Error::new(Code::Busy, "the node has its most sessions"));
        }
        counts.insert(uid, own + 1);
        Ok(Place { shared: self.clone(), uid })
    }

    /// A place among those that wait for their process' end, if the user has one left.
    pub(super) fn linger(self: &Arc<Self>, uid: u32) -> Option<Lingering> {
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        let own = lingering.entry(uid).or_default();
        (*own < limits::EXIT_WAITS_PER_UID_MAX).then(|| {
            *own += 1;
            Lingering { shared: self.clone(), uid }
        })
    }
}

impl Gate {
    /// Binds the socket. It comes into being with its permissions: it is bound under another name in a directory
    /// that only this user can write to, made connectable, and renamed, so that nobody is ever served before.
    ///
    /// # Errors
    /// `E_CONFIG_PERMS` if something that is no socket stands at the path; `E_CONFIG_IO` if it cannot be bound.
    pub fn bind(config: GateConfig, provider: Provider, control: Arc<dyn ControlPlane>) -> Result<Self> {
        let listener = listener(&config.path)?;
        let path = config.path.clone();
        let shared = Arc::new(Shared {
            rejects: Rejects::start(provider.clone()),
            tokens: Arc::default(),
            verifying: VerifyPool::for_this_machine(),
            refusals: Mutex::default(),
            wraps: Wraps::start({
                let provider = provider.clone();
                move || provider.clock().boot()
            }),
            provider,
            control,
            config,
            next: AtomicU64::new(1),
            counts: Mutex::default(),
            lingering: Mutex::default(),
        });
        let listener =
            crate::sys::watch(listener).map_err(|_| Error::new(Code::System, "cannot watch the socket"))?;
        Ok(Self { listener, shared, path })
    }

    /// What the remote gate has in common with this one.
    #[cfg(feature = "remote")]
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Accepts and serves until the future is dropped. Sessions that began go on.
    pub async fn serve(&self) {
        loop {
            let Ok(mut ready) = self.listener.readable().await else { return };
            let accepted = ready.try_io(|listener| {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                Ok(rustix::net::accept_with(listener.get_ref(), flags)?)
            });
            match accepted {
                Ok(Ok(socket)) => self.begin(socket),
                Ok(Err(error)) => {
                    // Out of descriptors, most likely. Those who wait in the backlog are served once some are back;
                    // until then this task must not spin.
                    tracing::warn!(%error, "cannot accept a session");
                    tokio::time::sleep(std::time::Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                }
                Err(_would_block) => {}
            }
        }
    }

    fn begin(&self, socket: OwnedFd) {
        crate::sys::refuse_descriptors(std::os::fd::AsFd::as_fd(&socket));
        let Ok(peer) = Peer::of(&socket) else { return }; // gone already
        let shared = self.shared.clone();
        match shared.admit(peer.uid) {
            Ok(place) => {
                let id = shared.next.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _place = place;
                    Session::run(shared, socket, peer, id).await;
                });
            }
            Err(error) => {
                shared.rejects.note(Source::Uid(peer.uid), &error);
                tokio::spawn(session::refuse(socket, error));
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.wraps.close();
        self.shared.rejects.flush();
        let _ = fs::remove_file(&self.path); // a later node removes it as well
    }
}

/// The listening socket at `path`.
fn listener(path: &Path) -> Result<OwnedFd> {
    let failed = |what: &'static str| move |_: io::Error| Error::new(Code::ConfigIo, what);
    refuse_squatters(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|_| Error::new(Code::System, "cannot make a socket"))?;
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary); // of a node that crashed between the two steps
    let address = SocketAddrUnix::new(&temporary)
        .map_err(|_| Error::new(Code::ConfigIo, "the socket's path is longer than 107 bytes"))?;
    rustix::net::bind(&listener, &address)
        .map_err(|_| Error::new(Code::ConfigIo, "cannot bind the socket in the runtime directory"))?;
    // Any uid may connect; the allow-list and the proof of a key decide. Nobody connects before `listen`.
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666))
        .map_err(failed("cannot set the socket's mode"))?;
    crate::sys::refuse_descriptors(std::os::fd::AsFd::as_fd(&listener));
    rustix::net::listen(&listener, limits::ACCEPT_BACKLOG_MAX)
        .map_err(|_| Error::new(Code::System, "cannot listen on the socket"))?;
    fs::rename(&temporary, path).map_err(failed("cannot put the socket at its path"))?;
    Ok(listener)
}

/// Removes the socket of a node that is gone (the caller holds the directory's lock) and refuses anything else: a
/// link could send the next node's clients to somebody else's socket.
fn refuse_squatters(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => Err(Error::new(Code::ConfigIo, "cannot look at the socket's path")),
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path)
            .map_err(|_| Error::new(Code::ConfigPerms, "cannot remove a dead node's socket")),
        Ok(_) => {
            Err(Error::new(Code::ConfigPerms, "something that is no socket stands at the socket's path"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }

    #[test]
    fn the_named_number_of_connections_waits_and_not_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.sock");
        let listener = listener(&path).unwrap();
        // The kernel has a bound of its own, and lets one wait more than it was told.
        let system = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
        let most = usize::try_from(limits::ACCEPT_BACKLOG_MAX.min(system)).unwrap() + 1;
        let mut waiting: Vec<_> = (0..most).map(|_| connect(&path).unwrap()).collect();
        assert_eq!(connect(&path).unwrap_err(), Errno::AGAIN);
        // Each that is accepted makes room for another.
        rustix::net::accept(&listener).unwrap();
        waiting.push(connect(&path).unwrap());
        assert_eq!(connect(&path).unwrap_err(), Errno::AGAIN);
    }
}
