//! The thread that records.
//!
//! ```text
//! submit ──▶ queue ──▶ recorder thread: stage all, one journal write, one sync ──▶ done(Ok(Recorded))
//!                          │                     ▲ watchdog: a device that blocks has failed
//!                          └─▶ publisher thread: tiles and checkpoint, beside the next syncs
//! ```
//!
//! While one sync runs the next submissions gather, so the slower the device the larger the group.
//!
//! **A failed device.** Any failed write, or a call that takes longer than [`DEVICE_MS_MAX`], makes the device
//! *lost*: everything that waits gets `E_AUDIT_UNAVAILABLE`, and so does every new [`Recorder::submit`]. What failed
//! is never tried again on the same open device, because a kernel reports a failed write-back once. Instead the
//! directory is opened anew, every [`REOPEN_MS`], and verified; entries that were answered with an error are cut.
//!
//! **Take-backs** must not wait for a device. [`Recorder::submit_regardless`] keeps their entries in memory when
//! there is none, and the first thing that a device that is back receives is an `audit.gap` entry, with exact
//! counts, and then those entries with their own times.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;

use crate::draft::Draft;
use crate::event::Event;
use crate::log::{Identity, Log};
use crate::publish::Publication;
use crate::recover::{Opening, Recovery};
use crate::store::Store;
use crate::store::disk::Disk;

mod device;
mod worker;

/// Most entries that wait to be recorded. At 30,000 a second this is half a second of work.
pub const QUEUE_ENTRIES_MAX: usize = 16 * 1024;
/// Most entries of take-backs that wait for a device to come back. Each has about 500 bytes here.
pub const HELD_ENTRIES_MAX: usize = 64 * 1024;
/// Most entries in one sync, so that nobody waits for somebody else's long batch.
pub const BATCH_ENTRIES_MAX: usize = 4 * 1024;
/// Longest time that one write and sync of the journal may take, in milliseconds. Longer is a failed device.
pub const DEVICE_MS_MAX: u64 = 1_000;
/// Longest time that one publication may take, in milliseconds: thousands of files, on a busy disk.
pub const PUBLISH_MS_MAX: u64 = 10_000;
/// From the first unpublished entry to its checkpoint, in milliseconds.
pub const CHECKPOINT_MS: u64 = 1_000;
/// Unpublished entries that bring a checkpoint forward.
pub const CHECKPOINT_ENTRIES: u64 = 16 * 1024;
/// How often a lost device is opened anew, in milliseconds.
pub const REOPEN_MS: u64 = 500;
/// Longest time that [`Recorder::shutdown`] waits, in milliseconds.
pub const SHUTDOWN_MS_MAX: u64 = PUBLISH_MS_MAX + 5_000;

const _: () = assert!(BATCH_ENTRIES_MAX <= QUEUE_ENTRIES_MAX);
const _: () = assert!(
    CHECKPOINT_ENTRIES + (QUEUE_ENTRIES_MAX + HELD_ENTRIES_MAX) as u64 <= crate::log::UNPUBLISHED_MAX,
    "all that waits fits between two checkpoints"
);

/// Where times of entries that the recorder writes itself come from. The node's own clock, so that they fit the rest.
pub type Clock = Arc<dyn Fn() -> UnixMicros + Send + Sync>;
/// Opens the device. Called again, for a fresh opening, after a failure.
pub type Opener = Box<dyn FnMut() -> Result<Arc<dyn Store>> + Send>;
/// Called once with the outcome, on one of the recorder's threads: it must be quick and must not block.
pub type Done = Box<dyn FnOnce(Result<Recorded>) + Send>;

/// The recorder's times. The defaults are the constants of this module; tests choose others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// [`DEVICE_MS_MAX`].
    pub device_max: Duration,
    /// [`PUBLISH_MS_MAX`].
    pub publish_max: Duration,
    /// [`CHECKPOINT_MS`].
    pub checkpoint: Duration,
    /// [`REOPEN_MS`].
    pub reopen: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            device_max: Duration::from_millis(DEVICE_MS_MAX),
            publish_max: Duration::from_millis(PUBLISH_MS_MAX),
            checkpoint: Duration::from_millis(CHECKPOINT_MS),
            reopen: Duration::from_millis(REOPEN_MS),
        }
    }
}

/// Evidence that entries are durable. Only the recorder makes one, after the sync.
///
/// ```compile_fail
/// let recorded = audit::Recorded { first: 0, last: 0, sync_us: 0 };
/// ```
///
/// Whoever was handed one can read it:
///
/// ```
/// fn log_index(recorded: audit::Recorded) -> u64 {
///     recorded.first()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reply that grants something needs the evidence that it was recorded"]
pub struct Recorded {
    first: u64,
    last: u64,
    sync_us: u64,
}

impl Recorded {
    /// Index of the submission's first entry.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Index of its last entry.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// How long the journal's write and sync took, in microseconds.
    #[must_use]
    pub const fn sync_us(&self) -> u64 {
        self.sync_us
    }
}

/// What the recorder is doing, for `status` and `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether submissions are recorded.
    pub available: bool,
    /// Why not, if not.
    pub failure: Option<Error>,
    /// Entries that are durable.
    pub durable: u64,
    /// Entries under the last checkpoint.
    pub published: u64,
    /// Entries that wait for a sync.
    pub queued: usize,
    /// Take-backs that wait for a device.
    pub held: usize,
    /// Take-backs that found no room to wait, since the device was lost.
    pub dropped: u64,
    /// Submissions that were refused, since the device was lost.
    pub refused: u64,
    /// Syncs so far.
    pub syncs: u64,
    /// Longest sync so far, in microseconds.
    pub sync_us_max: u64,
}

struct Submission {
    drafts: Vec<Draft>,
    time: UnixMicros,
    regardless: bool,
    done: Done,
}

/// A call to the device that is under way, with what depends on it.
struct Inflight {
    began: Instant,
    batch: Vec<Submission>,
}

struct Job {
    generation: u64,
    publication: Publication,
    store: Arc<dyn Store>,
}

/// A publication that ran: of which opening, and how it ended.
type Published = (u64, Publication, Result<()>);

#[derive(Default)]
struct State {
    queue: VecDeque<Submission>,
    held: VecDeque<(Vec<Draft>, UnixMicros)>,
    status: Status,
    /// Counts openings: results of an earlier one are of no use.
    generation: u64,
    /// Set by whoever finds the device lost; the recorder thread then drops the log.
    lost: bool,
    lost_since: Option<UnixMicros>,
    inflight: Option<Inflight>,
    watching: bool,
    job: Option<Job>,
    publishing_since: Option<Instant>,
    published: Option<Published>,
    stopping: bool,
    /// The other threads may go.
    exit: bool,
    stopped: Option<Result<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Work for the recorder thread.
    work: Condvar,
    /// Work for the publisher.
    press: Condvar,
    /// A call began while the watchdog slept.
    watch: Condvar,
    /// The recorder thread ended.
    ended: Condvar,
    clock: Clock,
    settings: Settings,
}

type Calls = Vec<(Done, Result<Recorded>)>;

/// Runs callbacks. Never under the lock: they may submit.
fn call(calls: Calls) {
    for (done, outcome) in calls {
        done(outcome);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked under the lock left counters at worst one off; recording must go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Answers submissions with an error. Take-backs are kept.
    fn refuse(&mut self, batch: impl IntoIterator<Item = Submission>, error: &Error) -> Calls {
        let mut calls = Vec::new();
        for Submission { drafts, time, regardless, done } in batch {
            if regardless {
                self.hold(drafts, time);
            } else {
                self.status.refused += 1;
            }
            calls.push((done, Err(error.clone())));
        }
        calls
    }

    fn hold(&mut self, drafts: Vec<Draft>, time: UnixMicros) {
        if drafts.is_empty() {
            // Nothing to keep, and rows of nothing would not be bounded.
        } else if self.status.held + drafts.len() > HELD_ENTRIES_MAX {
            self.status.dropped += drafts.len() as u64;
        } else {
            self.status.held += drafts.len();
            self.held.push_back((drafts, time));
        }
    }

    /// Notes that the device is lost and answers all that waits.
    fn lose(&mut self, error: Error, now: UnixMicros) -> Calls {
        self.status.available = false;
        self.lost = true;
        self.lost_since.get_or_insert(now);
        self.generation += 1;
        self.publishing_since = None;
        let inflight = self.inflight.take().map(|inflight| inflight.batch).unwrap_or_default();
        let waiting = std::mem::take(&mut self.queue);
        self.status.queued = 0;
        let calls = self.refuse(inflight.into_iter().chain(waiting), &error);
        self.status.failure = Some(error);
        calls
    }

    fn unavailable(&self) -> Error {
        let stopped = Error::new(Code::AuditUnavailable, "the recorder has stopped");
        self.status.failure.clone().map_or(stopped, |error| match error.code() {
            Code::AuditUnavailable => error,
            // Whoever asked for a lease learns that nothing can be recorded; why is in the status.
            _ => Error::new(Code::AuditUnavailable, "the log cannot be opened again"),
        })
    }
}

/// Records entries of one log. All methods may be called from any thread.
pub struct Recorder {
    shared: Arc<Shared>,
    recovery: Recovery,
}

impl Recorder {
    /// Opens the log in `dir` (made if missing), verifies all of it, and starts.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(dir: &Path, identity: Identity, clock: Clock) -> Result<Self> {
        let (dir, mut first) = (dir.to_owned(), true);
        let opener = Box::new(move || {
            // Only at the start may the directory be missing: one that went away later took the log with it.
            let disk = if std::mem::take(&mut first) { Disk::create(&dir) } else { Disk::open(&dir) };
            disk.map(|disk| Arc::new(disk) as Arc<dyn Store>)
        });
        Self::start(opener, identity, clock, Settings::default())
    }

    /// Opens the log on a device of any kind, records `log.start` with what recovery found, and starts.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn start(mut opener: Opener, identity: Identity, clock: Clock, settings: Settings) -> Result<Self> {
        let identity = Arc::new(identity);
        let opening = Opening { verify_all: true, acknowledged: None };
        let mut log = Log::open_on(opener()?, Arc::clone(&identity), opening)?;
        let recovery = log.recovery();
        let start = Draft::ok(Event::LogStart).recovered(recovery.recovered).cut_bytes(recovery.cut_bytes);
        log.append(&start, clock())?;
        log.sync()?;
        let status = Status {
            available: true,
            durable: log.durable(),
            published: log.published(),
            ..Status::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { status, ..State::default() }),
            work: Condvar::new(),
            press: Condvar::new(),
            watch: Condvar::new(),
            ended: Condvar::new(),
            clock,
            settings,
        });
        let recorder = Self { shared: Arc::clone(&shared), recovery };
        let worker = worker::Worker::new(Arc::clone(&shared), log, opener, identity);
        spawn("audit-record", move || worker.run())?;
        let of = Arc::clone(&shared);
        spawn("audit-publish", move || device::publisher(&of))?;
        spawn("audit-watch", move || device::watchdog(&shared))?;
        Ok(recorder)
    }

    /// What opening the log found.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Whether submissions are recorded now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.shared.lock().status.available
    }

    /// What the recorder is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Records `drafts`, next to each other and in one sync, then calls `done`. All or none is recorded.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if nothing can be recorded now, `E_BUSY` if [`QUEUE_ENTRIES_MAX`] entries wait, `E_RANGE`
    /// for no drafts or more than [`BATCH_ENTRIES_MAX`]. Then `done` is not called. Otherwise it is, once: with `Err`
    /// if the device fails, and then nothing of it will ever be in the log.
    pub fn submit(&self, drafts: Vec<Draft>, time: UnixMicros, done: Done) -> Result<()> {
        if drafts.is_empty() || drafts.len() > BATCH_ENTRIES_MAX {
            return Err(Error::new(Code::Range, "a submission has 1 to 4,096 entries"));
        }
        let mut state = self.shared.lock();
        if !state.status.available || state.stopping {
            state.status.refused += 1;
            return Err(state.unavailable());
        }
        if state.status.queued + drafts.len() > QUEUE_ENTRIES_MAX {
            return Err(Error::new(Code::Busy, "too many entries wait to be recorded"));
        }
        self.enqueue(state, Submission { drafts, time, regardless: false, done });
        Ok(())
    }

    /// Records the drafts of something that takes effect whether or not it can be recorded now: a revoke, an expiry.
    ///
    /// `done` is called once. With `Err` if there is no device now: the entries are then kept in memory, at most
    /// [`HELD_ENTRIES_MAX`] of them, and recorded when one is back, or counted as `dropped` in its `audit.gap`.
    pub fn submit_regardless(&self, drafts: Vec<Draft>, time: UnixMicros, done: Done) {
        let submission = Submission { drafts, time, regardless: true, done };
        let mut state = self.shared.lock();
        let room = state.status.queued + submission.drafts.len() <= QUEUE_ENTRIES_MAX + HELD_ENTRIES_MAX;
        if state.status.available && !state.stopping && room && !submission.drafts.is_empty() {
            self.enqueue(state, submission);
            return;
        }
        let error = state.unavailable();
        let calls = state.refuse([submission], &error);
        drop(state);
        call(calls);
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, submission: Submission) {
        state.status.queued += submission.drafts.len();
        state.queue.push_back(submission);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Records what waits, then `log.stop`, and publishes a last checkpoint. Later submissions are refused. Returns
    /// the same when called again.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if the device is lost or does not answer within [`SHUTDOWN_MS_MAX`], or entries of
    /// take-backs could not be recorded.
    pub fn shutdown(&self) -> Result<()> {
        let mut state = self.shared.lock();
        state.stopping = true;
        self.shared.work.notify_one();
        let limit = Duration::from_millis(SHUTDOWN_MS_MAX);
        state = self
            .shared
            .ended
            .wait_timeout_while(state, limit, |state| state.stopped.is_none())
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        let late = Err(Error::new(Code::AuditUnavailable, "the audit device does not answer"));
        state.stopped.clone().unwrap_or(late)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `shutdown` first; then this returns at once.
        let _ = self.shutdown();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(|_| ()).map_err(|_| Error::new(Code::System, "a thread of the recorder cannot be started"))
}
