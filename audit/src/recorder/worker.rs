//! The recorder's own thread: it alone has the log.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;

use super::{
    BATCH_ENTRIES_MAX, CHECKPOINT_ENTRIES, Inflight, Job, Opener, Recorded, Shared, Submission, call,
};
use crate::draft::Draft;
use crate::event::Event;
use crate::log::{Identity, Log};
use crate::publish::Publication;
use crate::recover::Opening;

pub(super) struct Worker {
    shared: Arc<Shared>,
    log: Option<Log>,
    opener: Opener,
    identity: Arc<Identity>,
    /// Entries that somebody was told of, or that recovery kept.
    acknowledged: u64,
    /// When the oldest unpublished entry is to be published.
    publish_at: Option<Instant>,
    reopen_at: Instant,
}

/// What to do next.
enum Work {
    Record(Vec<Submission>),
    Publish,
    Finish(Publication, Result<()>),
    /// Somebody else found the device lost, or it takes too long.
    Drop(Option<Error>),
    Reopen,
    Stop,
}

/// A call to the device that failed: the batch and why, or nothing if the watchdog has answered everybody already.
type Failed = Option<(Vec<Submission>, Error)>;

/// Says that the thread has ended, however it ends.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let now = (self.0.clock)();
        let calls = state.lose(Error::new(Code::AuditUnavailable, "the recorder has stopped"), now);
        state.stopped.get_or_insert(Err(Error::new(Code::Internal, "the recorder's thread died")));
        state.exit = true;
        drop(state);
        for condition in [&self.0.ended, &self.0.press, &self.0.watch] {
            condition.notify_all();
        }
        call(calls);
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, log: Log, opener: Opener, identity: Arc<Identity>) -> Self {
        let acknowledged = log.durable();
        let now = Instant::now();
        let publish_at = Some(now + shared.settings.checkpoint);
        Self { shared, log: Some(log), opener, identity, acknowledged, publish_at, reopen_at: now }
    }

    pub(super) fn run(mut self) {
        let farewell = Farewell(Arc::clone(&self.shared));
        loop {
            match self.next() {
                Work::Record(batch) => self.record(batch),
                Work::Publish => self.publish(),
                Work::Finish(publication, outcome) => self.finish(publication, outcome),
                Work::Drop(error) => self.drop_log(error),
                Work::Reopen => self.reopen(),
                Work::Stop => break,
            }
        }
        let outcome = self.stop();
        self.log = None; // before anybody who waits opens the directory again
        farewell.0.lock().stopped = Some(outcome);
    }

    fn next(&mut self) -> Work {
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let stale =
                state.published.as_ref().is_some_and(|(generation, ..)| *generation != state.generation);
            if stale {
                state.published = None;
            }
            let Some(log) = &self.log else {
                if state.stopping {
                    return Work::Stop;
                }
                let left = self.reopen_at.saturating_duration_since(now);
                if left.is_zero() {
                    return Work::Reopen;
                }
                state = self.shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            if state.lost {
                return Work::Drop(None);
            }
            if let Some((_, publication, outcome)) = state.published.take() {
                state.publishing_since = None;
                return Work::Finish(publication, outcome);
            }
            let publish_limit = state.publishing_since.map(|since| since + self.shared.settings.publish_max);
            if publish_limit.is_some_and(|limit| limit <= now) {
                return Work::Drop(Some(Error::new(Code::AuditUnavailable, "a checkpoint takes too long")));
            }
            let waiting = log.durable() - log.published();
            let due = self.publish_at.is_some_and(|at| at <= now) || waiting >= CHECKPOINT_ENTRIES;
            if log.wants_publishing() && due {
                return Work::Publish;
            }
            if !state.queue.is_empty() {
                return Work::Record(take_batch(&mut state));
            }
            if state.stopping && state.publishing_since.is_none() {
                return Work::Stop;
            }
            let publish_at = self.publish_at.filter(|_| log.wants_publishing());
            state = match [publish_limit, publish_at].into_iter().flatten().min() {
                None => self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Calls the device under the watchdog's eyes. Gives the batch back, and how long the call took in microseconds.
    fn watched(
        &mut self,
        batch: Vec<Submission>,
        run: impl FnOnce(&mut Log) -> Result<()>,
    ) -> Result<(Vec<Submission>, u64), Failed> {
        let Some(log) = &mut self.log else { return Err(None) };
        let began = Instant::now();
        let mut state = self.shared.lock();
        if state.lost {
            return Err(Some((batch, state.unavailable())));
        }
        state.inflight = Some(Inflight { began, batch });
        let wake = !state.watching;
        drop(state);
        if wake {
            self.shared.watch.notify_one();
        }
        let outcome = run(log);
        let Some(inflight) = self.shared.lock().inflight.take() else { return Err(None) };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        match outcome {
            Ok(()) => Ok((inflight.batch, micros)),
            Err(error) => Err(Some((inflight.batch, error))),
        }
    }

    fn record(&mut self, batch: Vec<Submission>) {
        let Some(log) = &mut self.log else { return };
        let mut places = Vec::with_capacity(batch.len());
        for submission in &batch {
            match stage(log, &submission.drafts, submission.time) {
                Ok(place) => places.push(place),
                Err(error) => return self.lose(Some((batch, error))),
            }
        }
        match self.watched(batch, Log::sync) {
            Err(failed) => self.lose(failed),
            Ok((batch, sync_us)) => {
                self.committed(sync_us);
                let outcomes = places.into_iter().map(|(first, last)| Ok(Recorded { first, last, sync_us }));
                call(batch.into_iter().map(|submission| submission.done).zip(outcomes).collect());
            }
        }
    }

    fn committed(&mut self, sync_us: u64) {
        let Some(log) = &self.log else { return };
        self.acknowledged = log.durable();
        self.publish_at.get_or_insert_with(|| Instant::now() + self.shared.settings.checkpoint);
        let mut state = self.shared.lock();
        state.status.durable = log.durable();
        state.status.syncs += 1;
        state.status.sync_us_max = state.status.sync_us_max.max(sync_us);
    }

    fn publish(&mut self) {
        self.publish_at = None;
        let Some(log) = &mut self.log else { return };
        let Some(publication) = log.prepare() else { return };
        let store = log.store();
        let mut state = self.shared.lock();
        state.publishing_since = Some(Instant::now());
        state.job = Some(Job { generation: state.generation, publication, store });
        drop(state);
        self.shared.press.notify_one();
    }

    fn finish(&mut self, publication: Publication, outcome: Result<()>) {
        match self.watched(Vec::new(), |log| log.finish(publication, outcome)) {
            Err(failed) => self.lose(failed),
            Ok(_) => {
                let Some(log) = &self.log else { return };
                if log.wants_publishing() {
                    self.publish_at.get_or_insert_with(|| Instant::now() + self.shared.settings.checkpoint);
                }
                self.shared.lock().status.published = log.published();
            }
        }
    }

    /// Answers what failed and drops the log. `None` if the watchdog has answered already.
    fn lose(&mut self, failed: Failed) {
        let mut calls = Vec::new();
        let error = failed.map(|(batch, error)| {
            calls = self.shared.lock().refuse(batch, &error);
            error
        });
        self.drop_log(error);
        call(calls);
    }

    fn drop_log(&mut self, error: Option<Error>) {
        self.log = None;
        self.publish_at = None;
        self.reopen_at = Instant::now() + self.shared.settings.reopen;
        let mut state = self.shared.lock();
        state.job = None;
        let mut calls = Vec::new();
        if let Some(error) = error {
            calls = state.lose(error, (self.shared.clock)());
        }
        state.lost = false;
        drop(state);
        call(calls);
    }

    /// Opens the device anew, records the gap and what was held, and only then takes submissions again.
    fn reopen(&mut self) {
        self.reopen_at = Instant::now() + self.shared.settings.reopen;
        if let Err(error) = self.catch_up() {
            self.log = None;
            self.reopen_at = Instant::now() + self.shared.settings.reopen;
            self.shared.lock().status.failure = Some(error);
        }
    }

    fn catch_up(&mut self) -> Result<()> {
        let opening = Opening { verify_all: false, acknowledged: Some(self.acknowledged) };
        let mut log = Log::open_on((self.opener)()?, Arc::clone(&self.identity), opening)?;
        loop {
            let mut state = self.shared.lock();
            let (refused, dropped) = (state.status.refused, state.status.dropped);
            let held = state.status.held as u64;
            // The first round always writes the gap; later ones, only for what came meanwhile.
            if held == 0 && refused == 0 && dropped == 0 && state.lost_since.is_none() {
                state.status.available = true;
                state.status.failure = None;
                state.status.durable = log.durable();
                state.status.published = log.published();
                drop(state);
                self.publish_at = Some(Instant::now() + self.shared.settings.checkpoint);
                self.log = Some(log);
                return Ok(());
            }
            let now = (self.shared.clock)();
            let since = state.lost_since.unwrap_or(now);
            let cause = state.status.failure.as_ref().map_or(Code::AuditUnavailable, Error::code);
            let waiting: Vec<_> = state.held.iter().cloned().collect();
            drop(state);
            let gap = Draft::error(Event::AuditGap, cause).first_time(since).last_time(now);
            log.append(&gap.count(refused).held(held).dropped(dropped), now)?;
            for (drafts, time) in &waiting {
                stage(&mut log, drafts, *time)?;
            }
            log.sync()?;
            self.acknowledged = log.durable();
            // Only now are they off the list: had the device failed again, they would still wait.
            let mut state = self.shared.lock();
            state.held.drain(..waiting.len());
            state.status.held -= held as usize;
            state.status.refused -= refused;
            state.status.dropped -= dropped;
            state.lost_since = None;
        }
    }

    fn stop(&mut self) -> Result<()> {
        let now = (self.shared.clock)();
        let log = self.log.as_mut().ok_or(Error::new(Code::AuditUnavailable, "the audit device is lost"))?;
        log.append(&Draft::ok(Event::LogStop), now)?;
        log.publish()?;
        let (durable, published) = (log.durable(), log.published());
        let mut state = self.shared.lock();
        (state.status.durable, state.status.published) = (durable, published);
        if state.status.held + state.status.dropped as usize > 0 {
            return Err(Error::new(Code::AuditUnavailable, "entries of take-backs could not be recorded"));
        }
        Ok(())
    }
}

/// Takes as many submissions as fit one sync. A submission has at most [`BATCH_ENTRIES_MAX`] entries, or is a
/// take-back, which goes alone if it has more.
fn take_batch(state: &mut super::State) -> Vec<Submission> {
    let mut batch = Vec::new();
    let mut entries = 0;
    while let Some(next) = state.queue.front() {
        if !batch.is_empty() && entries + next.drafts.len() > BATCH_ENTRIES_MAX {
            break;
        }
        entries += next.drafts.len();
        batch.extend(state.queue.pop_front());
    }
    state.status.queued -= entries;
    batch
}

/// Stages the entries of one submission, next to each other, and returns the first and last index.
fn stage(log: &mut Log, drafts: &[Draft], time: UnixMicros) -> Result<(u64, u64)> {
    let first = log.size();
    for draft in drafts {
        log.append(draft, time)?;
    }
    Ok((first, log.size() - 1))
}
