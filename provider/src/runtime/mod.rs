//! The runtime: executes the kernel's effects on real memory, real time and real sessions.
//!
//! ```text
//!  gate (sessions) ─┐                       ┌─▶ slots: fence, at once, under the kernel's lock
//!  broker (takes) ──┼─▶ step(event) ─▶ effects ─▶ cut threads ─▶ wipe threads ─▶ step(Taken) ─▶ waiters, notices
//!  timer (ticks) ───┘     │                 └─▶ audit drafts
//!                     one mutex
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `clock` | `CLOCK_BOOTTIME` and the wall time advanced by it |
//! | `cells` | the memory of regions and the slots of open rights, by the kernel's keys |
//! | `claim` | building a region's memory and recording the claim |
//! | `open` | opening a right: descriptor, slot, record |
//! | `check` | what opening would find, without opening |
//! | `access` | mediated reads and writes under the slot |
//! | `stream` | the same chunk by chunk, for requests of any length |
//! | `words` | words that are read and changed in one step, under the slot |
//! | `meters` | bytes under tokens that limit them, counted for all who share a limit |
//! | `memory` | a region's segments: their files, and the rotations that replace them |
//! | `take_back` | fence, cut, shut, wipe, acknowledge; each on its thread |
//! | `spare` | memory for the next rotation, made ready before it is needed |
//! | `rotate` | the same for one holder among several: cut, copy, hand out, wipe |
//! | `hand_out`, `post` | segments' descriptors on their way to holders, and what holders must be told of them |
//! | `outgoing` | what a network session was sent, and what must not leave any more
//! | `pool` | a bounded pool of threads that grows while all are busy |
//! | `client` | the process at the other end of a session: who it is, and how it is killed |
//! | `watchdog` | kills who holds up a cut |
//! | `quarantine` | dead memory that is kept instead of given back, and what an investigator does with it |
//! | `timer` | wakes at the kernel's next deadline; watches the wall clock for steps |
//! | `record` | the provider's entries in its log |
//! | `roots` | the root keys that are believed, and how one stops being |
//! | `summary` | one closing entry for all the openings of a right in a session |
//!
//! # Locks
//!
//! `kernel` guards the tables. It is held for one step and for the fences that the step ordered, never across a
//! system call that can wait: so a fence is complete when the lock is released, and a slot is never opened for a new
//! right before the fence of the old one.

mod access;
mod cells;
mod check;
mod claim;
mod client;
mod clock;
mod hand_out;
mod lingering;
mod memory;
mod meters;
mod open;
mod origin;
mod outgoing;
mod pool;
mod post;
mod quarantine;
mod record;
mod roots;
mod rotate;
mod settler;
mod spare;
mod stream;
mod summary;
mod take_back;
mod timer;
mod watchdog;
mod words;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use audit::Recorder;
use audit::salt::Salt;
use caps::error::Result;
use caps::id::LeaseId;
use caps::time::BootNanos;
use caps::token::RootKeys;
use caps::wire::link::{Notice, Taken};
use caps::wire::row::MemoryRow;
use tokio::sync::oneshot;

use crate::kernel::{Answer, Config, Effect, Event, Kernel, RegionKey, RotationId};
use crate::mem::Memory as Store;

pub use access::{Misuse, Progress, Refused, Rotating, Violation};
pub use cells::{OpenKey, Terms};
pub use claim::ClaimRecord;
pub use client::{Client, Force, Node};
pub use clock::Clock;
pub use hand_out::Delivery;
pub use open::{Opened, Opener};
pub use origin::Origin;
pub use outgoing::Outgoing;
pub use post::Post;
pub(crate) use stream::Passage;

use cells::{Cells, Right};
use pool::{Pool, Urgency};
use quarantine::Quarantine;
use roots::Believed;
use summary::{Closed, RightKey, Summaries};
use timer::Timer;
use watchdog::Watchdog;

/// What the provider tells the broker unasked.
pub type NoticeSink = Box<dyn Fn(Notice) + Send + Sync>;

/// What a provider is made of.
pub struct Parts {
    /// The kernel's configuration.
    pub config: Config,
    /// Where regions come from.
    pub store: Store,
    /// Its log.
    pub recorder: Recorder,
    /// The salt of token HMACs in its log.
    pub salt: Salt,
    /// The public keys whose tokens it accepts.
    pub roots: RootKeys,
    /// Time.
    pub clock: Clock,
}

/// A running provider. Cheap to clone; the last clone that goes takes everything back.
#[derive(Clone)]
pub struct Provider(Arc<Shared>);

struct Shared {
    /// Never changes; read on every opening, and so kept outside the lock.
    config: Config,
    kernel: Mutex<Kernel>,
    cells: Cells,
    lingering: lingering::Lingering,
    settler: settler::Settler,
    summaries: Summaries,
    store: Store,
    spare: spare::Spare,
    recorder: Recorder,
    /// Whether the log is closed. Held for reading while an entry is handed over, for writing while it is closed.
    log_closed: RwLock<bool>,
    salt: Salt,
    roots: Believed,
    clock: Clock,
    timer: Timer,
    cuts: Pool,
    watchdog: Watchdog,
    node: Node,
    /// Dead regions that are kept.
    quarantine: Quarantine,
    wipes: Pool,
    rotations: Pool,
    /// Who waits for a region's memory to be gone. Guards the list only.
    waiting: Mutex<HashMap<RegionKey, Vec<oneshot::Sender<Taken>>>>,
    /// Who ordered a rotation and waits for what it came to. Guards the list only.
    rotating: Mutex<HashMap<RotationId, oneshot::Sender<Taken>>>,
    /// Rotations that wait for room in the pool. Guards nothing but the wait: the kernel has the books.
    room: (Mutex<()>, Condvar),
    /// Rotations that have begun and are not over, of all regions.
    rotations_under_way: std::sync::atomic::AtomicUsize,
    /// The sessions at the gate, which fills it. Guards the list only.
    sessions: Mutex<HashMap<u64, SessionLink>>,
    /// Told when a session has ended.
    session_gone: tokio::sync::Notify,
    notices: std::sync::OnceLock<NoticeSink>,
}

/// What the runtime knows of a session at the gate.
struct SessionLink {
    /// Ends its socket.
    end: Box<dyn Fn() + Send>,
    /// Its process.
    client: Client,
    /// What its holder has to be told.
    post: Arc<Post>,
    /// What it was sent, if it came over the network.
    outgoing: Option<Arc<Outgoing>>,
}

/// Waits until the guardian is gone. Then nobody would cut if this process were killed: whoever waits here should
/// take everything back and stop.
pub async fn guardian_died(store: &Store) {
    match store.guardian().try_clone_to_owned().and_then(crate::sys::watch) {
        Ok(pidfd) => drop(pidfd.readable().await),
        Err(error) => tracing::error!(%error, "the guardian cannot be watched"),
    }
}

/// Takes a lock whose holder may have panicked: the panic is being reported already, and refusing to take memory
/// back because of it would be worse.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    /// Starts a provider: its timer and its threads.
    ///
    /// # Errors
    /// `E_SYSTEM` if a thread or a timer cannot be had.
    pub fn start(parts: Parts) -> Result<Self> {
        let config = parts.config;
        let shared = Arc::new(Shared {
            cells: Cells::new(config.regions_max, config.opens_max),
            lingering: lingering::Lingering::default(),
            settler: settler::Settler::new()?,
            summaries: Summaries::default(),
            store: parts.store,
            spare: spare::Spare::default(),
            recorder: parts.recorder,
            log_closed: RwLock::new(false),
            salt: parts.salt,
            roots: Believed::new(parts.roots),
            clock: parts.clock,
            timer: Timer::new()?,
            cuts: Pool::new("cut", policy::limits::CUT_THREADS_MAX, Urgency::First)?,
            watchdog: Watchdog::default(),
            node: Node { uid: config.uid, pid: std::process::id() },
            quarantine: Quarantine::default(),
            wipes: Pool::new("wipe", policy::limits::WIPE_THREADS_MAX, Urgency::Considerate)?,
            rotations: Pool::new("rotate", policy::limits::ROTATION_THREADS_MAX, Urgency::InTurn)?,
            waiting: Mutex::default(),
            rotating: Mutex::default(),
            room: (Mutex::default(), Condvar::new()),
            rotations_under_way: std::sync::atomic::AtomicUsize::new(0),
            sessions: Mutex::default(),
            session_gone: tokio::sync::Notify::new(),
            notices: std::sync::OnceLock::new(),
            kernel: Mutex::new(Kernel::new(config.clone())),
            config,
        });
        timer::watch_deadlines(&shared)?;
        timer::watch_wall_clock(&shared)?;
        watchdog::watch_cuts(&shared)?;
        Ok(Self(shared))
    }

    /// Names who is told of what ends here. Once, before the gate opens.
    pub fn on_notice(&self, sink: NoticeSink) {
        let set = self.0.notices.set(sink);
        debug_assert!(set.is_ok(), "the broker is connected once");
    }

    /// What is known of a lease's memory.
    #[must_use]
    pub fn memory(&self, lease: LeaseId) -> Option<MemoryRow> {
        lock(&self.0.kernel).memory(lease)
    }

    /// Bytes committed to regions, the ones being taken back included.
    #[must_use]
    pub fn committed_bytes(&self) -> u64 {
        lock(&self.0.kernel).committed_bytes()
    }

    /// Sessions at the gate.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.0.sessions).len()
    }

    /// Entries in this provider's log, and whether it records.
    #[must_use]
    pub fn log(&self) -> (u64, bool) {
        (self.0.recorder.status().durable, self.0.recorder.is_available())
    }

    /// The kernel's configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The process that this runs in.
    pub(crate) fn node(&self) -> Node {
        self.0.node
    }

    /// The salt of token HMACs in this provider's log.
    pub(crate) fn salt(&self) -> &Salt {
        &self.0.salt
    }

    /// Records what has happened already and cannot be refused: a fault, a reject, an exit.
    pub(crate) fn record_fault(&self, entry: audit::Draft) {
        self.0.record_regardless(entry);
    }

    /// Closes a session's right.
    pub(crate) fn close(&self, session: u64, handle: caps::id::SlotHandle) -> Result<()> {
        self.0.stop_listening(session, handle);
        self.0.step(Event::Close { session: crate::kernel::SessionId(session), handle }).map(drop)
    }

    /// Lets the runtime end a session's socket, and gives back what it will have to tell the session. `outgoing` is what
    /// a session over the network was sent: before a take-back is acknowledged, what is under way there is waited for or
    /// thrown away.
    pub(crate) fn register_session(
        &self,
        session: u64,
        client: Client,
        end: Box<dyn Fn() + Send>,
        outgoing: Option<Arc<Outgoing>>,
    ) -> Arc<Post> {
        let post = Arc::new(Post::default());
        lock(&self.0.sessions).insert(session, SessionLink { end, client, post: post.clone(), outgoing });
        post
    }

    /// Hangs up on every session and waits until each has settled what it had, at most for the bound of a drain.
    pub async fn end_sessions(&self) {
        for session in lock(&self.0.sessions).values() {
            (session.end)();
        }
        let settled = async {
            while self.sessions() > 0 {
                self.0.session_gone.notified().await;
            }
        };
        let bound = std::time::Duration::from_millis(policy::limits::SEND_MS_MAX);
        if tokio::time::timeout(bound, settled).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
    }

    /// A session is over.
    pub(crate) fn session_ended(&self, session: u64) {
        let link = lock(&self.0.sessions).remove(&session);
        if let Some(outgoing) = link.and_then(|link| link.outgoing) {
            // From here on no take-back finds it.
            outgoing.end();
        }
        let ended = self.0.step(Event::SessionEnded { session: crate::kernel::SessionId(session) });
        debug_assert!(ended.is_ok(), "a session can always end");
        self.0.record_closes(self.0.summaries.of_session(session));
        self.0.session_gone.notify_one();
    }
}

impl Shared {
    /// One step of the kernel and everything it ordered. Returns the kernel's answer.
    fn step(self: &Arc<Self>, event: Event) -> Result<Answer> {
        self.step_with(|_| Ok(event))
    }

    /// The same with an event that takes a look at the kernel to make, under the same lock.
    fn step_with(self: &Arc<Self>, event: impl FnOnce(&Kernel) -> Result<Event>) -> Result<Answer> {
        let started = self.clock.boot();
        let mut kernel = lock(&self.kernel);
        let event = event(&kernel)?;
        let step = kernel.step(started, event);
        let fenced = self.fence(started, &kernel, &step.effects);
        self.carry_out(kernel, step.effects, fenced);
        step.answer
    }

    /// Everything that a step ordered and that nobody waits for, once it is fenced. A step that is refused can order
    /// something too: what fell due before it.
    ///
    /// What a right's own expiry left under way is settled after it is recorded, by a thread that may wait: the entry says
    /// when the right ended, and nobody is told that nothing of it is under way any more.
    fn carry_out(self: &Arc<Self>, kernel: MutexGuard<'_, Kernel>, effects: Vec<Effect>, fenced: Fenced) {
        self.timer.arm(kernel.next_deadline());
        drop(kernel);
        let expired = self.expired_alone(&effects, &fenced);
        self.execute(effects, fenced);
        self.settle_expired(expired);
    }

    /// Fences and narrows what a step ordered, and says that its rotations are under way. Under the kernel's lock.
    fn fence(&self, started: BootNanos, kernel: &Kernel, effects: &[Effect]) -> Fenced {
        let (mut rights, mut narrowed) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Fence { open } => {
                    rights.extend(self.cells.fence(*open, started).map(|right| (*open, right)));
                }
                Effect::Narrowed { open } => {
                    let old = kernel.open_row(*open).and_then(|row| self.cells.narrow(*open, row));
                    narrowed.extend(old);
                }
                Effect::Rotate { region, rotation, .. } => {
                    if let Some(memory) = self.cells.memory(*region) {
                        memory.begin_rotation(*rotation);
                    }
                }
                Effect::TakeBack { .. } | Effect::Closed { .. } | Effect::GrantEnded { .. } => {}
            }
        }
        let (fenced, narrowed) = (self.clock.boot(), Arc::new(narrowed));
        self.lingering.remember(&self.cells, &rights, &narrowed);
        Fenced { started, fenced, rights, narrowed }
    }

    fn execute(self: &Arc<Self>, effects: Vec<Effect>, fenced: Fenced) {
        let closed = closed(&effects, &fenced);
        let mut ended = Vec::new();
        for effect in effects {
            match effect {
                Effect::Fence { .. } => {} // done under the lock
                Effect::Narrowed { open } => self.tell_narrowed(open),
                Effect::Closed { open, row, .. } => {
                    if row.handed_out {
                        self.tell_ended(open, &row);
                    }
                }
                Effect::Rotate { region, lease, rotation, segments, grant, cause, mappings } => {
                    let Some(memory) = self.cells.memory(region) else {
                        debug_assert!(false, "a live region has memory");
                        continue;
                    };
                    let drain = fenced.drain(region);
                    let (started, fenced) = (fenced.started, fenced.fenced);
                    self.rotate(rotate::Job {
                        region,
                        lease,
                        grant,
                        rotation,
                        segments,
                        cause,
                        mappings,
                        started,
                        fenced,
                        drain,
                        memory,
                    });
                }
                Effect::TakeBack { region, lease, cause, mappings } => {
                    let drain = fenced.drain(region);
                    let (started, fenced) = (fenced.started, fenced.fenced);
                    self.take_back(take_back::Job { region, lease, cause, mappings, started, fenced, drain });
                    ended.push((lease, cause));
                }
                Effect::GrantEnded { grant, cause } => self.notify(Notice::GrantEnded { grant, cause }),
            }
        }
        // After the cuts are on their way: no cut waits for entries.
        self.record_closes(self.summaries.close(&closed));
        for (lease, cause) in ended {
            self.record_closes(self.summaries.of_lease(lease, None, cause));
        }
    }

    fn notify(&self, notice: Notice) {
        if let Some(sink) = self.notices.get() {
            sink(notice);
        }
    }
}

/// The openings that a step closed. One that never got so far as to be used was refused, and has no summary.
///
/// Looked up by hash: a client may have opened a region thousands of times, and the cut waits for this.
fn closed(effects: &[Effect], fenced: &Fenced) -> Vec<Closed> {
    let rights: HashMap<_, _> = fenced.rights.iter().map(|(key, right)| (*key, right)).collect();
    let one = |effect: &Effect| {
        let Effect::Closed { open, row, cause } = effect else { return None };
        let right = rights.get(open)?;
        Some(Closed {
            session: right.session,
            right: RightKey { lease: right.lease, grant: row.grant, rights: row.rights },
            holder: right.holder,
            cause: *cause,
            operations: right.operations.load(Ordering::Relaxed),
            bytes: right.bytes.load(Ordering::Relaxed),
        })
    };
    effects.iter().filter_map(one).collect()
}

/// What one step fenced and narrowed.
struct Fenced {
    /// When the step began.
    started: BootNanos,
    /// When the last slot was closed.
    fenced: BootNanos,
    rights: Vec<(OpenKey, Arc<Right>)>,
    /// As they were before, all of one region. One list for all who wait for it: who is in a right beside the list is in
    /// an operation.
    narrowed: lingering::Narrowed,
}

impl Fenced {
    /// What has to be drained of one region.
    fn drain(&self, region: RegionKey) -> take_back::Drain {
        let of_it = |right: &Right| right.region == region;
        let narrowed = self.narrowed.first().filter(|right| of_it(right)).map(|_| self.narrowed.clone());
        take_back::Drain {
            region: Some(region),
            fenced: self
                .rights
                .iter()
                .filter(|(_, right)| of_it(right))
                .map(|(open, right)| (*open, right.session))
                .collect(),
            narrowed: narrowed.into_iter().collect(),
        }
    }
}
