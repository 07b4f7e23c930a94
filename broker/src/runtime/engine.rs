//! The one thread that owns the state: takes a batch of jobs, applies them in order, hands their entries to the
//! recorder, starts their effects, and answers.
//!
//! ```text
//! queue ──▶ apply ──▶ entries ──▶ recorder ──▶ (its thread) recorded: tell the caller
//!              │                                            failed:  queue the undoing, then tell
//!              ├──▶ answer ──▶ the caller, who works on (mints, claims) while the entries become durable
//!              └──▶ takes ───▶ tasks of their own, which run whether or not the caller still waits
//! ```
//!
//! Commands of a batch carry the same time, and their entries are submitted together: the log says of each entry the
//! time of its command, however commands are grouped.

use std::sync::Arc;
use std::time::Duration;

use audit::recorder::BATCH_ENTRIES_MAX;
use audit::{Draft, Recorded};
use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::time::{Micros, UnixMicros};
use caps::wire::link::{Take, Taken};
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::limits::CLOCK_SKEW_MS_MAX;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Shared;
use super::queue::Woken;
use crate::state::{
    Actor, Answer, Broker, Command, Effect, Kind, PolicyVerdict, Query, RowId, Undo, View, Whereabouts,
};

// What one command ends or gives back are entries of one submission.
const _: () = assert!(policy::limits::DONATIONS_MAX <= BATCH_ENTRIES_MAX);

/// Something for the thread to do.
pub(super) enum Job {
    /// Order commands, each only if the one before was answered with a yes; the answer is that of the last.
    Order(Box<Order>),
    /// Look at the state.
    Look { by: PrincipalKey, query: Query, tell: oneshot::Sender<Result<View>> },
    /// Take back what could not be recorded, then tell the one who waits for it.
    Undo { undo: Undo, tell: Option<oneshot::Sender<Result<u64>>>, error: Error },
}

/// Commands of one request.
pub(super) struct Order {
    pub(super) by: Actor,
    /// Whose request it is; `None` for the node's own.
    pub(super) session: Option<u64>,
    pub(super) random: [u8; 32],
    pub(super) policy: Option<PolicyVerdict>,
    pub(super) first: Kind,
    pub(super) then: Option<Kind>,
    pub(super) mode: Mode,
    /// `None` if nobody waits.
    pub(super) tell: Option<oneshot::Sender<Outcome>>,
}

/// Whether a command stands or falls with its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What cannot be recorded is undone, and refused with `E_AUDIT_UNAVAILABLE`.
    Recorded,
    /// It takes effect, and is recorded as soon as that is possible.
    Regardless,
}

/// Take-backs under way. Dropping a handle lets its task run on.
pub(super) type Takes = Vec<JoinHandle<Result<Taken>>>;

/// What ordering came to. The entries may not be durable yet.
pub(super) struct Outcome {
    pub(super) answer: Result<Answer>,
    /// The index of the first entry, once all are durable.
    pub(super) recorded: oneshot::Receiver<Result<u64>>,
    /// What the provider is taking back.
    pub(super) takes: Takes,
    /// Deadlines that the provider must move: the caller's to do, after the record.
    pub(super) renew: Option<Renewal>,
}

/// A deadline to be moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    lease: LeaseId,
    ttl: Micros,
    provider: ProviderId,
    /// When it was ordered, and so when `ttl` began.
    at: UnixMicros,
}

impl Renewal {
    /// Has the provider move it, to the time that it was ordered for. Not once the record has taken longer than a claim may:
    /// what the provider is told later is later than what the books call the latest end that it may have been told.
    pub(super) async fn carry_out(self, shared: &Shared) -> Result<()> {
        let waited = shared.clock.now().since(self.at);
        if waited >= shared.genesis.bounds.claim_within {
            return Err(Error::new(Code::Timeout, "the renewal was not recorded in time"));
        }
        let ttl = Micros(self.ttl.0.saturating_sub(waited.0));
        shared.links.renew(self.provider, self.lease, ttl).await
    }
}

/// Entries of neighbouring commands of the same mode: one submission.
#[derive(Default)]
struct Run {
    regardless: bool,
    drafts: Vec<Draft>,
    waiting: Vec<Waiting>,
}

/// What depends on a part of a run.
struct Waiting {
    /// Index in the run of the first entry.
    at: usize,
    undo: Option<Undo>,
    tell: Option<oneshot::Sender<Result<u64>>>,
}

/// The thread's own state.
pub(super) struct Engine {
    shared: Arc<Shared>,
    broker: Broker,
    run: Run,
}

impl Engine {
    pub(super) const fn new(shared: Arc<Shared>, broker: Broker) -> Self {
        Self { shared, broker, run: Run { regardless: false, drafts: Vec::new(), waiting: Vec::new() } }
    }

    /// Works until the queue is closed and empty. Returns the state.
    pub(super) fn work(mut self) -> Broker {
        let mut batch = Vec::new();
        while let Woken::Up = self.shared.queue.wait(self.until_deadline()) {
            self.shared.queue.take(&mut batch);
            let now = self.shared.clock.now();
            self.tick(now);
            // One look a batch: a device that is lost refuses without the work of undoing.
            let available = self.shared.recorder.is_available();
            for job in batch.drain(..) {
                self.job(job, now, available);
            }
            self.submit();
        }
        self.broker
    }

    fn until_deadline(&self) -> Option<Duration> {
        let next = self.broker.next_deadline()?;
        Some(Duration::from_micros(next.since(self.shared.clock.now()).0))
    }

    /// Ends what is over, before anything that comes later. The rest of a large burst waits for the next round.
    fn tick(&mut self, now: UnixMicros) {
        if self.broker.next_deadline().is_some_and(|deadline| deadline <= now) {
            let command =
                Command { at: now, by: Actor::System, random: [0; 32], policy: None, kind: Kind::Tick };
            self.apply_regardless(&command);
        }
    }

    fn job(&mut self, job: Job, now: UnixMicros, available: bool) {
        match job {
            Job::Order(order) => self.order(*order, now, available),
            Job::Look { by, query, tell } => {
                let view = self.broker.query(by, &query, now);
                if let Err(error) = &view {
                    let about = match query {
                        Query::Lease(id) | Query::ToOffer(id) => Some(RowId::Lease(id)),
                        Query::Grant(id) | Query::ToCosign(id) => Some(RowId::Grant(id)),
                        Query::Transfer(id) | Query::ToTakeOver(id) => Some(RowId::Transfer(id)),
                        _ => None,
                    };
                    let kind = Kind::Refused { who: by, code: error.code(), about };
                    self.apply_system(now, kind);
                }
                // Nobody may be waiting any more.
                let _ = tell.send(view);
            }
            Job::Undo { undo, tell, error } => {
                self.apply_system(now, Kind::Undo(undo));
                if let Some(tell) = tell {
                    let _ = tell.send(Err(error));
                }
            }
        }
    }

    fn apply_system(&mut self, at: UnixMicros, kind: Kind) {
        let command = Command { at, by: Actor::System, random: [0; 32], policy: None, kind };
        self.apply_regardless(&command);
    }

    /// Applies what nobody waits for.
    fn apply_regardless(&mut self, command: &Command) {
        let applied = self.broker.apply(command);
        if let Kind::Undo(Undo::PrincipalAdd { key }) = &command.kind {
            self.shared.directory.remove(*key);
        }
        self.record(true, applied.entries, None, None);
        let renew = self.start(applied.effects).1;
        self.renew_unattended(renew);
    }

    fn order(&mut self, order: Order, now: UnixMicros, available: bool) {
        let Order { by, session: _, random, policy, first, then, mode, tell } = order;
        let regardless = mode == Mode::Regardless;
        if !regardless && !available {
            let unavailable = Error::new(Code::AuditUnavailable, "no audit device records at present");
            if let Some(tell) = tell {
                let (_, recorded) = oneshot::channel();
                let answer = Err(unavailable);
                let _ = tell.send(Outcome { answer, recorded, takes: Vec::new(), renew: None });
            }
            return;
        }
        let (mut undo, mut entries, mut effects) = (None, Vec::new(), Vec::new());
        let mut command = Command { at: now, by, random, policy, kind: first };
        let mut next = then;
        let answer = loop {
            let applied = self.broker.apply(&command);
            entries.extend(applied.entries);
            effects.extend(applied.effects);
            if let Ok(answer) = &applied.answer {
                undo = undo.or(self.applied(&command.kind, answer));
            }
            match next.take() {
                Some(kind) if applied.answer.is_ok() => command.kind = kind,
                _ => break applied.answer,
            }
        };
        // A refusal left nothing that could be undone: an offer that was not issued has ended.
        let undo = if regardless || answer.is_err() { None } else { undo };
        let (told, recorded) = oneshot::channel();
        self.record(regardless, entries, undo, Some(told));
        let (takes, renew) = self.start(effects);
        match tell {
            Some(tell) => {
                let _ = tell.send(Outcome { answer, recorded, takes, renew });
            }
            None => self.renew_unattended(renew),
        }
    }

    /// Notes what outside of the state depends on a command, and returns how to take it back.
    fn applied(&self, kind: &Kind, answer: &Answer) -> Option<Undo> {
        match (kind, answer) {
            (Kind::PrincipalAdd { name, key }, _) => {
                self.shared.directory.insert(*key, name.clone());
                Some(Undo::PrincipalAdd { key: *key })
            }
            (Kind::Reserve { .. }, Answer::Reserved(ticket, _)) => Some(Undo::Lease { lease: ticket.lease }),
            (Kind::Commit { lease, .. }, _) => Some(Undo::Lease { lease: *lease }),
            (Kind::Renew { lease, .. }, Answer::Leased { before, terms, .. }) => {
                Some(Undo::Renew { lease: *lease, expires: *before, since: terms.not_before })
            }
            // What was co-signed and could not be recorded ends: its issue went with it.
            (Kind::Cosign { grant, .. }, _) => Some(Undo::Offer { grant: *grant }),
            (Kind::Offer { contract, .. } | Kind::OfferToCosign { contract, .. }, _) => {
                Some(Undo::Offer { grant: contract.grant })
            }
            (Kind::Issue { grant }, _) => Some(Undo::Offer { grant: *grant }),
            (Kind::Accept(acceptance), _) => Some(Undo::Accept { grant: acceptance.grant }),
            // What was there before this command is not its to undo.
            (Kind::QuotaGive { id, .. }, Answer::Donated { again: false, .. }) => {
                Some(Undo::QuotaGive { id: *id })
            }
            (Kind::TransferOffer { contract, .. }, _) => {
                Some(Undo::TransferOffer { transfer: contract.transfer })
            }
            (
                Kind::TransferAccept(acceptance),
                Answer::HandingOver { give: Take::Owner { since, .. }, .. },
            ) => Some(Undo::TransferAccept { transfer: acceptance.transfer, since: *since }),
            _ => None,
        }
    }

    /// Adds entries to the run. A run is submitted when the mode changes, when it is long, or when the batch ends.
    fn record(
        &mut self,
        regardless: bool,
        entries: Vec<Draft>,
        undo: Option<Undo>,
        tell: Option<oneshot::Sender<Result<u64>>>,
    ) {
        if entries.is_empty() {
            // Nothing happened that had to be recorded; the sender's end tells.
            return;
        }
        if self.run.regardless != regardless || self.run.drafts.len() + entries.len() > BATCH_ENTRIES_MAX {
            self.submit();
        }
        self.run.regardless = regardless;
        self.run.waiting.push(Waiting { at: self.run.drafts.len(), undo, tell });
        self.run.drafts.extend(entries);
    }

    /// Hands the run to the recorder.
    fn submit(&mut self) {
        if self.run.drafts.is_empty() {
            return;
        }
        let Run { regardless, drafts, waiting } = std::mem::take(&mut self.run);
        let time = self.broker.now();
        let shared = Arc::clone(&self.shared);
        if regardless {
            let done = Box::new(move |outcome| settle(&shared, waiting, outcome));
            self.shared.recorder.submit_regardless(drafts, time, done);
            return;
        }
        // The recorder may refuse at once, and then drops the callback: what waits must outlive it.
        let waiting = Arc::new(std::sync::Mutex::new(waiting));
        let later = Arc::clone(&waiting);
        let done = Box::new(move |outcome| settle(&shared, take_all(&later), outcome));
        if let Err(error) = self.shared.recorder.submit(drafts, time, done) {
            settle(&self.shared, take_all(&waiting), Err(error));
        }
    }

    /// Starts take-backs, each as a task of its own. A renewal is the caller's to carry out.
    fn start(&self, effects: Vec<Effect>) -> (Takes, Option<Renewal>) {
        let (mut takes, mut renew) = (Vec::new(), None);
        for effect in effects {
            match effect {
                Effect::Take(take, cause) => {
                    // The state has just named the lease, so it knows it.
                    let Some(at) = self.broker.whereabouts(take.lease()) else { continue };
                    let shared = Arc::clone(&self.shared);
                    takes.push(self.shared.tasks.spawn(run_take(shared, take, cause, at)));
                }
                Effect::Renew(lease, ttl) => {
                    let at = self.broker.whereabouts(lease);
                    let ordered = self.broker.now();
                    renew = at.map(|at| Renewal { lease, ttl, provider: at.provider, at: ordered });
                }
            }
        }
        (takes, renew)
    }

    fn renew_unattended(&self, renew: Option<Renewal>) {
        if let Some(renewal) = renew {
            let shared = Arc::clone(&self.shared);
            self.shared.tasks.spawn(async move {
                // Refused if the lease has ended meanwhile. Were it lost, the broker takes the lease at its end.
                let _ = renewal.carry_out(&shared).await;
            });
        }
    }
}

fn take_all(waiting: &std::sync::Mutex<Vec<Waiting>>) -> Vec<Waiting> {
    std::mem::take(&mut waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Tells all that wait for a run, and has undone what could not be recorded. Runs on the recorder's thread, or on the
/// broker's if the recorder refused at once.
fn settle(shared: &Shared, waiting: Vec<Waiting>, outcome: Result<Recorded>) {
    for Waiting { at, undo, tell } in waiting {
        match (&outcome, undo) {
            (Ok(recorded), _) => {
                if let Some(tell) = tell {
                    let _ = tell.send(Ok(recorded.first() + at as u64));
                }
            }
            (Err(error), Some(undo)) => {
                let error = unrecorded(error);
                // Closed or full, the node is going down with the lease, which its provider ends.
                let _ = shared.queue.push_urgent(Job::Undo { undo, tell, error });
            }
            (Err(error), None) => {
                if let Some(tell) = tell {
                    let _ = tell.send(Err(unrecorded(error)));
                }
            }
        }
    }
}

/// Why a request was undone. A full queue passes by itself; anything else is the device.
fn unrecorded(error: &Error) -> Error {
    match error.code() {
        Code::Busy => error.clone(),
        _ => Error::new(Code::AuditUnavailable, "it could not be recorded, so it was not done"),
    }
}

/// Has the provider take something back, and tells the state when a lease's memory is gone.
async fn run_take(shared: Arc<Shared>, take: Take, cause: EndCause, at: Whereabouts) -> Result<Taken> {
    let taken = match shared.links.take(at, take, cause).await {
        // One that has too much to do has not been told either.
        Err(error) if matches!(error.code(), Code::Unreachable | Code::Timeout | Code::Busy) => {
            // Before the answer: who asks again must not find that nothing is left to be told. A lease waits by itself.
            if !matches!(take, Take::Lease(_)) {
                let untold = Kind::Untold { provider: at.provider, take, cause };
                // Refused where the lease ended meanwhile, or the provider is lost: then nothing waits.
                let _ = shared.order_surely(untold).await;
            }
            Err(unanswered(&take, at.until, shared.clock.now()))
        }
        taken => taken,
    };
    match take {
        Take::Lease(lease) => {
            let gone = match &taken {
                Ok(_) => true,
                Err(error) => error.code() == Code::LeaseUnknown,
            };
            if gone {
                shared.order_and_wait(Kind::Taken { lease }).await?;
            }
            if gone { Ok(taken.unwrap_or_default()) } else { taken }
        }
        // A grant that nobody opened is nothing to take.
        Take::Grant { .. }
        | Take::Narrow { .. }
        | Take::Marks { .. }
        | Take::Root { .. }
        | Take::Owner { .. } => match taken {
            Err(error) if matches!(error.code(), Code::GrantUnknown | Code::LeaseUnknown) => {
                Ok(Taken::default())
            }
            taken => taken,
        },
    }
}

/// What a revoke comes to whose provider did not say that it is done, at `now`: until when it may be reached there.
fn unanswered(take: &Take, until: UnixMicros, now: UnixMicros) -> Error {
    // A token ends with its time also where the lease lives on; both clocks judge it.
    let own = |expires: UnixMicros| expires.plus(Micros::from_millis(CLOCK_SKEW_MS_MAX)).min(until);
    let (what, until) = match take {
        Take::Lease(_) => ("the lease is ended here", until),
        Take::Grant { expires, .. } => ("the grant is ended here", own(*expires)),
        // What it gave before may have lived for longer than what is left of it.
        Take::Narrow { .. } => ("the grant is narrowed here", until),
        Take::Marks { expires, .. } => ("the token is taken back here", own(*expires)),
        Take::Root { .. } => ("the root key is retired here", until),
        Take::Owner { .. } => ("the lease's owner is settled here", until),
    };
    // Rounded up: it is a bound.
    let seconds = until.since(now).0.div_ceil(1_000_000);
    Error::with(
        Code::Unreachable,
        format!("{what}, but the provider does not answer; there it ends by itself within {seconds} s"),
    )
}
