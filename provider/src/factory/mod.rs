//! The factory: a small process that makes private file systems for the provider, and guards what it made.
//!
//! ```text
//!  provider (many threads)                          factory (its own session)            
//!  ───────────────────────                          ─────────────────────────────────────
//!  Factory::create ── request ── channel 0..3 ──►   fsopen, fsmount, open        (a few us, no page allocated)
//!         ◄──────────── reply + file descriptor ─   keeps one descriptor of every live region
//!  fallocate, map, pin: on the provider's thread
//!  Factory::shut, read_only, mount ──────────────►  what needs the right to mount
//!  Factory::forget ──────────────────────────────►  closes it: the file system's tear-down costs nobody a wait
//!
//!  the provider dies, by whatever signal ── pidfd ► cuts every region, exits
//! ```
//!
//! **Why a process.** As an ordinary user only a user namespace may mount a tmpfs; the factory holds it, and the
//! provider stays outside, where it sees its clients' real user ids. And a killed provider leaves every client's
//! mapping alive: somebody else has to cut. If both are killed at once nobody does; the threat model says so.
//!
//! **Why it does so little.** One thread serves, so whatever it does makes others wait. It makes file systems (about
//! 20 us) and never fills them: the thread that asked does the `fallocate` on its own descriptor. A region of many
//! GiB therefore delays no other region's creation or shut. Closing a mount (40 us) is left to a second thread. There
//! are [`CHANNELS`] sockets, so that as many threads can have a request under way.
//!
//! Files: `wire` the messages, `link` the socket, `table` the regions and the pool's bytes, `tmpfs` the mount calls,
//! `namespace` the user namespace, `serve` the loop, `guard` the last cut, `child` the first steps after the fork.

mod child;
mod errno;
mod guard;
mod link;
mod namespace;
mod serve;
mod table;
mod tmpfs;
mod wire;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{WaitId, WaitIdOptions, waitid};

pub(crate) use errno::failed;
pub use table::RegionKey;
pub use wire::Shape;
use wire::{FACT_HUGE, FACT_NOSWAP, FACT_USER_NAMESPACE, Kind, Reply, Request, Status, Step};

/// Sockets between provider and factory. One request at a time is under way on each; more than four threads waiting
/// for a process with one thread gain nothing.
pub const CHANNELS: usize = 4;
/// How long a request may take before the factory counts as stuck: every request is a few system calls that wait for
/// nothing but the processor.
pub const REPLY_MS_MAX: u64 = 5_000;
/// How long the factory may take to cut everything and exit when told to.
pub const GOODBYE_MS_MAX: u64 = 10_000;
/// Descriptors that the factory needs beside one for each region: those that wait to be closed, sockets, pidfds, and a
/// few while it works.
pub const DESCRIPTORS_SPARE: u64 = 2 * serve::CLOSING_MAX as u64;

/// Whether the factory gets a user namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Namespace {
    /// When this process may not mount by itself, that is, when it is not root.
    #[default]
    WhenNeeded,
    /// Always.
    Always,
}

/// The factory's bounds.
#[derive(Clone, Copy, Debug)]
pub struct FactoryConfig {
    /// Bytes that all live regions may have together. The factory refuses beyond it: asking the kernel for more than
    /// the machine has wakes its OOM killer.
    pub pool_bytes_max: u64,
    /// Regions that may live at a time. Each costs one descriptor here and one in the provider.
    pub regions_max: u32,
    /// Where the mounts are made.
    pub namespace: Namespace,
}

/// What the factory found out at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The mounts belong to a user namespace.
    pub user_namespace: bool,
    /// Regions are mounted `noswap`.
    pub noswap: bool,
    /// Regions are mounted `huge=within_size`.
    pub huge: bool,
}

/// A new region's parts.
#[derive(Debug)]
pub struct Made {
    /// Its name for further requests.
    pub key: RegionKey,
    /// Its file, open for reading and writing, of the asked length, without any page yet.
    pub file: OwnedFd,
}

/// The provider's end. Calls block, at most [`REPLY_MS_MAX`] each, and may come from any thread.
#[derive(Debug)]
pub struct Factory {
    /// Each lock is held for one request and its reply: bounded by [`REPLY_MS_MAX`], normally a few microseconds.
    channels: Vec<Mutex<Channel>>,
    guardian: OwnedFd,
    config: FactoryConfig,
    facts: Facts,
    next_id: AtomicU64,
    page: u64,
}

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    /// Creations whose reply did not come in time: when it comes, the region is given back.
    late: Vec<u64>,
}

impl Factory {
    /// Forks the factory. This must happen before the process starts a thread: a forked child has only the thread
    /// that forked, and a lock that another one held would never open again.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] if there is another thread; [`Code::ConfigValue`] for bounds the machine cannot hold;
    /// [`Code::System`] with the failed step when no tmpfs can be mounted here.
    pub fn spawn(config: FactoryConfig) -> Result<Self> {
        check(&config)?;
        let page = rustix::param::page_size() as u64;
        let (channels, child_ends) = sockets()?;
        let guardian = child::fork(child_ends, config, page)?;
        let mut channels = channels;
        let facts = first_reply(&channels[0].socket)?;
        for channel in &mut channels {
            let limit = Some(Duration::from_millis(REPLY_MS_MAX));
            for side in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(&channel.socket, side, limit).map_err(failed("set a socket's timeout"))?;
            }
        }
        let channels = channels.into_iter().map(Mutex::new).collect();
        Ok(Self { channels, guardian, config, facts, next_id: AtomicU64::new(1), page })
    }

    /// What the factory found out at its start.
    #[must_use]
    pub const fn facts(&self) -> Facts {
        self.facts
    }

    /// The bounds it was started with.
    #[must_use]
    pub const fn config(&self) -> FactoryConfig {
        self.config
    }

    /// The factory's pidfd: readable when it is dead. The provider must then cut everything and stop, because its own
    /// death would no longer be noticed by anybody.
    #[must_use]
    pub fn guardian(&self) -> BorrowedFd<'_> {
        self.guardian.as_fd()
    }

    /// Whether the factory still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !wait_readable(self.guardian.as_fd(), 0)
    }

    /// Makes a region of `bytes`, which must be whole pages. No page is allocated yet.
    ///
    /// # Errors
    ///
    /// [`Code::NoMemory`] if the pool or the table is full; [`Code::System`] or [`Code::Busy`] with the failed step.
    pub fn create(&self, bytes: u64, shape: Shape) -> Result<Made> {
        let made = match self.call(Kind::Create, shape as u32, 0, bytes) {
            Err(error) if error.code() == Code::NoMemory => {
                // What was given back on another channel may not be counted yet.
                self.settle()?;
                self.call(Kind::Create, shape as u32, 0, bytes)
            }
            made => made,
        };
        let (reply, file) = made?;
        let file = file.ok_or(Error::new(Code::Internal, "the factory sent no descriptor"))?;
        Ok(Made { key: RegionKey(reply.region.get()), file })
    }

    /// Lowers the limit of an open region's file system to what its plug fills, so that nobody can refill the file.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`] if the file has pages: cut it (again) first.
    pub fn shut(&self, key: RegionKey) -> Result<()> {
        self.call(Kind::Shut, 0, key.0, 0).map(|_| ())
    }

    /// An open region's file, read-only in a read-only clone of its mount.
    ///
    /// # Errors
    ///
    /// [`Code::System`] with the failed step, [`Code::Internal`] for a region that is not open.
    pub fn read_only(&self, key: RegionKey) -> Result<OwnedFd> {
        self.call_for_descriptor(Kind::ReadOnly, key)
    }

    /// An open region's mount, in which [`open_in_mount`] finds the file.
    ///
    /// # Errors
    ///
    /// As [`Factory::read_only`].
    pub fn mount(&self, key: RegionKey) -> Result<OwnedFd> {
        self.call_for_descriptor(Kind::Mount, key)
    }

    /// Forgets a region that the caller has cut; the guardian will not cut it again. Waits for nothing: its bytes are
    /// back in the pool for every [`Factory::create`] that begins after this. If the factory is gone there is nothing
    /// to forget, so there is no error to report.
    pub fn forget(&self, key: RegionKey) {
        let _ = link::send(&self.channel().socket, &request(Kind::Drop, 0, 0, key.0, 0), None);
    }

    /// Waits until everything that was sent so far, on any channel, is done.
    fn settle(&self) -> Result<()> {
        for channel in &self.channels {
            let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
            self.call_on(channel, Kind::Settle, 0, 0, 0)?;
        }
        Ok(())
    }

    /// Tells the factory to cut everything and exit, and waits for it.
    ///
    /// # Errors
    ///
    /// [`Code::Timeout`] if it did not exit within [`GOODBYE_MS_MAX`], [`Code::System`] if it could not cut a region.
    pub fn shutdown(self) -> Result<()> {
        self.say_goodbye()
    }

    fn say_goodbye(&self) -> Result<()> {
        let _ = link::send(&self.channel().socket, &request(Kind::Goodbye, 0, 0, 0, 0), None);
        if !wait_readable(self.guardian.as_fd(), GOODBYE_MS_MAX) {
            return Err(Error::new(Code::Timeout, "the factory did not exit in time"));
        }
        match waitid(WaitId::PidFd(self.guardian.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) if status.exit_status() == Some(0) => Ok(()),
            // Reaped before: `shutdown` is followed by `drop`.
            Err(Errno::CHILD) => Ok(()),
            Ok(_) => Err(Error::new(Code::System, "the factory did not end cleanly")),
            Err(errno) => Err(failed("wait for the factory")(errno)),
        }
    }

    fn call_for_descriptor(&self, kind: Kind, key: RegionKey) -> Result<OwnedFd> {
        let (_, descriptor) = self.call(kind, 0, key.0, 0)?;
        descriptor.ok_or(Error::new(Code::Internal, "the factory sent no descriptor"))
    }

    fn call(&self, kind: Kind, shape: u32, region: u64, bytes: u64) -> Result<(Reply, Option<OwnedFd>)> {
        self.call_on(self.channel(), kind, shape, region, bytes)
    }

    fn call_on(
        &self,
        mut channel: MutexGuard<'_, Channel>,
        kind: Kind,
        shape: u32,
        region: u64,
        bytes: u64,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        link::send(&channel.socket, &request(kind, shape, id, region, bytes), None).map_err(lost)?;
        loop {
            let (reply, descriptor) = match link::receive::<Reply>(&channel.socket) {
                Ok(Some(message)) => message,
                Ok(None) => return Err(lost(Errno::PIPE)),
                Err(errno) => {
                    if kind == Kind::Create {
                        channel.late.push(id);
                    }
                    return Err(lost(errno));
                }
            };
            if reply.id.get() == id {
                return outcome(&reply).map(|()| (reply, descriptor));
            }
            // An answer that came too late. A region that nobody waits for is given back.
            if let Some(index) = channel.late.iter().position(|late| *late == reply.id.get()) {
                channel.late.swap_remove(index);
                if outcome(&reply).is_ok() {
                    let _ =
                        link::send(&channel.socket, &request(Kind::Drop, 0, 0, reply.region.get(), 0), None);
                }
            }
        }
    }

    /// A channel that nobody uses, else the next in turn.
    fn channel(&self) -> MutexGuard<'_, Channel> {
        for channel in &self.channels {
            match channel.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        let turn = self.next_id.load(Ordering::Relaxed) as usize % self.channels.len();
        self.channels[turn].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of a page here.
    pub(crate) const fn page(&self) -> u64 {
        self.page
    }
}

impl Drop for Factory {
    fn drop(&mut self) {
        // A factory that cannot be told sees the end of its sockets and does the same.
        let _ = self.say_goodbye();
    }
}

/// Opens an open region's file for reading and writing through its mount.
///
/// # Errors
///
/// [`Code::System`] with the errno.
pub fn open_in_mount(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    tmpfs::reopen(mount).map_err(|(_, errno)| failed("open the region's file again")(errno))
}

fn check(config: &FactoryConfig) -> Result<()> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    if !matches!(threads, Ok(1)) {
        return Err(Error::new(Code::Internal, "the factory must be forked before any other thread exists"));
    }
    let available = crate::mem::process::memory_available_bytes();
    if config.pool_bytes_max > available {
        let text = format!(
            "a pool of {} bytes, but this machine has {available} bytes available",
            config.pool_bytes_max
        );
        return Err(Error::with(Code::ConfigValue, text));
    }
    let descriptors = crate::mem::process::raise_nofile()?;
    if u64::from(config.regions_max) + DESCRIPTORS_SPARE > descriptors {
        let text =
            format!("{} regions need as many descriptors; the limit is {descriptors}", config.regions_max);
        return Err(Error::with(Code::ConfigValue, text));
    }
    Ok(())
}

fn sockets() -> Result<(Vec<Channel>, Vec<OwnedFd>)> {
    let mut ours = Vec::with_capacity(CHANNELS);
    let mut theirs = Vec::with_capacity(CHANNELS);
    for _ in 0..CHANNELS {
        let (socket, other) = link::pair().map_err(failed("make a socket pair"))?;
        ours.push(Channel { socket, late: Vec::new() });
        theirs.push(other);
    }
    Ok((ours, theirs))
}

/// The factory speaks first: what it found, or why it cannot work.
fn first_reply(socket: &OwnedFd) -> Result<Facts> {
    if !wait_readable(socket.as_fd(), REPLY_MS_MAX) {
        return Err(Error::new(Code::Timeout, "the factory did not start in time"));
    }
    let (reply, _) = link::receive::<Reply>(socket).map_err(lost)?.ok_or_else(|| lost(Errno::PIPE))?;
    outcome(&reply)?;
    let facts = reply.facts.get();
    Ok(Facts {
        user_namespace: facts & FACT_USER_NAMESPACE != 0,
        noswap: facts & FACT_NOSWAP != 0,
        huge: facts & FACT_HUGE != 0,
    })
}

fn request(kind: Kind, shape: u32, id: u64, region: u64, bytes: u64) -> Request {
    Request {
        kind: (kind as u32).into(),
        shape: shape.into(),
        id: id.into(),
        region: region.into(),
        bytes: bytes.into(),
    }
}

fn outcome(reply: &Reply) -> Result<()> {
    match Status::from_number(reply.status.get()) {
        Some(Status::Done) => Ok(()),
        Some(Status::Full) => Err(Error::new(Code::NoMemory, "the pool has no room for this region")),
        Some(Status::Unknown) => Err(Error::new(Code::Internal, "the factory knows no such open region")),
        Some(Status::Failed) => {
            let step = reply.step.get();
            let errno = Errno::from_raw_os_error(reply.errno.get().cast_signed());
            if step == Step::Reconfigure as u32 && errno == Errno::INVAL {
                return Err(Error::new(Code::Busy, "the region's file was refilled; cut it again"));
            }
            Err(failed(Step::text(step))(errno))
        }
        Some(Status::Malformed) | None => {
            Err(Error::new(Code::Internal, "provider and factory do not understand each other"))
        }
    }
}

fn lost(errno: Errno) -> Error {
    match errno {
        Errno::AGAIN => Error::new(Code::Timeout, "the factory did not answer in time"),
        _ => Error::new(Code::ProviderLost, "the factory is gone; this node must stop"),
    }
}

fn wait_readable(fd: BorrowedFd<'_>, limit_ms: u64) -> bool {
    let limit = Timespec { tv_sec: (limit_ms / 1000) as i64, tv_nsec: (limit_ms % 1000 * 1_000_000) as i64 };
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
