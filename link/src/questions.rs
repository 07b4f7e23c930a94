//! The questions of one side that have no answer.
//!
//! ```text
//! ask ──▶ a place in its lane ──▶ number, frame on its way ──▶ answer: told, place free
//!            │ within the time of the question                   │ a claim: told, and kept until its record comes
//!            └ E_TIMEOUT                                         └ the link is over: E_UNREACHABLE
//! ```
//!
//! A question whose time is over keeps its place until it is answered or the link is over: the other end still counts it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::wire::cluster::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::line::Outgoing;

pub(crate) const OVER: Error = Error::new(Code::Unreachable, "the link to the other node is cut");
const LATE: Error = Error::new(Code::Timeout, "the other node did not answer in time");

/// Questions that wait for each other, and for no others.
#[derive(Debug)]
pub(crate) struct Lane {
    places: Arc<Semaphore>,
    most: usize,
}

impl Lane {
    /// Without places until the link is open.
    pub(crate) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(0)), most }
    }
}

/// A question on its way.
struct Open<S> {
    tell: oneshot::Sender<Result<S>>,
    /// Told when the record comes, if one is to follow a yes.
    record: Option<oneshot::Sender<Result<()>>>,
    place: OwnedSemaphorePermit,
}

/// Answered with yes, without its record.
struct Unrecorded {
    tell: oneshot::Sender<Result<()>>,
    _place: OwnedSemaphorePermit,
}

struct State<S> {
    next: u64,
    open: BTreeMap<u64, Open<S>>,
    unrecorded: BTreeMap<u64, Unrecorded>,
    over: bool,
}

/// The questions of this side, and answers `S`.
pub(crate) struct Questions<S> {
    /// Held for one change; frames are put in their queue under it, so that numbers leave in their order.
    state: Mutex<State<S>>,
    out: Outgoing,
}

impl<S: Send + 'static> Questions<S> {
    pub(crate) fn new(out: Outgoing) -> Self {
        let state = State { next: 1, open: BTreeMap::new(), unrecorded: BTreeMap::new(), over: false };
        Self { state: Mutex::new(state), out }
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets questions of a lane go from now on.
    pub(crate) fn open(lane: &Lane) {
        lane.places.add_permits(lane.most);
    }

    /// Asks, and waits for the answer: so long at most, or as long as the link lasts.
    ///
    /// # Errors
    /// `E_TIMEOUT`, `E_UNREACHABLE` if the link is over, or what the other end says.
    pub(crate) async fn ask<M: Message>(
        &self,
        lane: &Lane,
        within: impl Into<Option<Duration>>,
        message: impl FnOnce(u64) -> M,
    ) -> Result<S> {
        let (tell, told) = oneshot::channel();
        self.put(lane, within.into(), tell, None, message, told).await
    }

    /// The same for a question whose answer is followed by a record. It is waited for within a time of its own.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_recorded<M: Message>(
        &self,
        lane: &Lane,
        within: Duration,
        message: impl FnOnce(u64) -> M,
    ) -> Result<(S, oneshot::Receiver<Result<()>>)> {
        let (tell, told) = oneshot::channel();
        let (record, recorded) = oneshot::channel();
        let answer = self.put(lane, Some(within), tell, Some(record), message, told).await?;
        Ok((answer, recorded))
    }

    async fn put<M: Message>(
        &self,
        lane: &Lane,
        within: Option<Duration>,
        tell: oneshot::Sender<Result<S>>,
        record: Option<oneshot::Sender<Result<()>>>,
        message: impl FnOnce(u64) -> M,
        told: oneshot::Receiver<Result<S>>,
    ) -> Result<S> {
        let end = within.map(|within| Instant::now() + within);
        let place = until(end, lane.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| LATE)?.map_err(|_| OVER)?;
        {
            let mut state = self.state();
            if state.over {
                return Err(OVER);
            }
            let number = state.next;
            self.out.send(&message(number))?;
            state.next += 1;
            state.open.insert(number, Open { tell, record, place });
        }
        until(end, told).await.map_err(|_| LATE)?.unwrap_or(Err(OVER))
    }

    /// An answer came.
    ///
    /// # Errors
    /// `E_PROTOCOL` if there is no such question.
    pub(crate) fn answered(&self, number: u64, answer: Result<S>) -> Result<()> {
        let mut state = self.state();
        let open = state.open.remove(&number);
        let Open { tell, record, place } =
            open.ok_or(Error::new(Code::Protocol, "an answer to no question"))?;
        if let (Some(record), true) = (record, answer.is_ok()) {
            state.unrecorded.insert(number, Unrecorded { tell: record, _place: place });
        }
        drop(state);
        // Whoever asked may wait no more.
        let _ = tell.send(answer);
        Ok(())
    }

    /// A record came.
    ///
    /// # Errors
    /// `E_PROTOCOL` if none is waited for.
    pub(crate) fn recorded(&self, number: u64, outcome: Result<()>) -> Result<()> {
        let unrecorded = self.state().unrecorded.remove(&number);
        let unrecorded = unrecorded.ok_or(Error::new(Code::Protocol, "a record of no claim"))?;
        let _ = unrecorded.tell.send(outcome);
        Ok(())
    }

    /// The link is over: nothing is answered any more, and nothing asked.
    pub(crate) fn fail_all(&self, lanes: &[&Lane]) {
        let (open, unrecorded) = {
            let mut state = self.state();
            state.over = true;
            (std::mem::take(&mut state.open), std::mem::take(&mut state.unrecorded))
        };
        for lane in lanes {
            lane.places.close();
        }
        for one in open.into_values() {
            let _ = one.tell.send(Err(OVER));
        }
        for one in unrecorded.into_values() {
            let _ = one.tell.send(Err(OVER));
        }
    }
}

/// Waits until then, or for as long as it takes.
async fn until<T>(end: Option<Instant>, what: impl Future<Output = T>) -> Result<T, Elapsed> {
    match end {
        Some(end) => timeout_at(end, what).await,
        None => Ok(what.await),
    }
}

/// Waits for a record, within a time.
pub(crate) async fn record(recorded: oneshot::Receiver<Result<()>>, within: Duration) -> Result<()> {
    match tokio::time::timeout(within, recorded).await {
        Ok(outcome) => outcome.unwrap_or(Err(OVER)),
        Err(_) => Err(Error::new(Code::Timeout, "the record of a claim did not come in time")),
    }
}
