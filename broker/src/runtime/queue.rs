//! Jobs on their way to the broker's thread, in two lanes.
//!
//! Requests wait in a lane of fixed size, and when that is full they are refused with `E_BUSY`. What takes rights back
//! (revokes, notices, undoing, the provider's answers) has a lane of its own that goes first, so that a flood of
//! requests never holds up a revoke. That lane is bounded by what exists to be taken back, with room for several jobs
//! a row.
//!
//! A session's end must not overtake what the session asked for before it: a share accepted after its receiver's
//! process is gone would live to its expiry. So those requests go ahead with it, in the urgent lane.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caps::{Code, Error, Result};
use policy::limits::{BROKER_BATCH_MAX, BROKER_QUEUE_MAX, GRANTS_MAX, LEASES_MAX, SESSIONS_MAX};

/// Jobs in the urgent lane: for every lease an undoing, a notice and the provider's answer, for every grant an undoing
/// and a notice, for every session a revoke and its end; and every request that goes ahead of such an end.
pub const URGENT_QUEUE_MAX: usize = 3 * LEASES_MAX + 2 * GRANTS_MAX + 2 * SESSIONS_MAX + BROKER_QUEUE_MAX;

/// The two lanes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Guards both lanes; held for a push or for taking one batch, never while a job runs.
    lanes: Mutex<Lanes<T>>,
    /// There is a job, or the queue was closed.
    work: Condvar,
}

#[derive(Debug)]
struct Lanes<T> {
    urgent: VecDeque<T>,
    requests: VecDeque<T>,
    /// The thread sleeps: somebody must wake it.
    asleep: bool,
    closed: bool,
}

/// What a wait came to.
pub(super) enum Woken {
    /// There are jobs, or the time has come.
    Up,
    /// The queue was closed and is empty.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let lanes = Lanes {
            urgent: VecDeque::with_capacity(BROKER_BATCH_MAX),
            requests: VecDeque::with_capacity(BROKER_QUEUE_MAX),
            asleep: false,
            closed: false,
        };
        Self { lanes: Mutex::new(lanes), work: Condvar::new() }
    }

    /// Adds a request.
    pub(super) fn push(&self, job: T) -> Result<()> {
        self.add(job, BROKER_QUEUE_MAX, |lanes| &mut lanes.requests)
    }

    /// Adds a job that takes rights back.
    pub(super) fn push_urgent(&self, job: T) -> Result<()> {
        self.add(job, URGENT_QUEUE_MAX, |lanes| &mut lanes.urgent)
    }

    /// Adds a job that takes rights back, behind those requests that must go `before` it and are not taken out yet.
    pub(super) fn push_urgent_behind(&self, job: T, before: impl FnMut(&mut T) -> bool) -> Result<()> {
        let ahead = |lanes: &mut Lanes<T>| lanes.urgent.extend(take_if(&mut lanes.requests, before));
        self.add_with(job, URGENT_QUEUE_MAX, ahead, |lanes| &mut lanes.urgent)
    }

    fn add(&self, job: T, most: usize, lane: impl FnOnce(&mut Lanes<T>) -> &mut VecDeque<T>) -> Result<()> {
        self.add_with(job, most, |_| {}, lane)
    }

    fn add_with(
        &self,
        job: T,
        most: usize,
        first: impl FnOnce(&mut Lanes<T>),
        lane: impl FnOnce(&mut Lanes<T>) -> &mut VecDeque<T>,
    ) -> Result<()> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Error::new(Code::Unreachable, "the node is stopping"));
        }
        first(&mut lanes);
        let asleep = std::mem::take(&mut lanes.asleep);
        let lane = lane(&mut lanes);
        let full = lane.len() >= most;
        if !full {
            lane.push_back(job);
        }
        drop(lanes);
        if asleep {
            self.work.notify_one();
        }
        if full { Err(Error::new(Code::Busy, "the broker's queue is full")) } else { Ok(()) }
    }

    /// Waits for a job, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Woken {
        let mut lanes = self.lock();
        if lanes.urgent.is_empty() && lanes.requests.is_empty() {
            if lanes.closed {
                return Woken::Closed;
            }
            lanes.asleep = true;
            // A spurious wake-up costs an empty round.
            lanes = match timeout {
                None => self.work.wait(lanes).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    self.work.wait_timeout(lanes, timeout).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            lanes.asleep = false;
        }
        Woken::Up
    }

    /// Moves at most [`BROKER_BATCH_MAX`] jobs into `batch`, the urgent ones first.
    pub(super) fn take(&self, batch: &mut Vec<T>) {
        let mut lanes = self.lock();
        let urgent = lanes.urgent.len().min(BROKER_BATCH_MAX);
        batch.extend(lanes.urgent.drain(..urgent));
        let requests = lanes.requests.len().min(BROKER_BATCH_MAX - urgent);
        batch.extend(lanes.requests.drain(..requests));
    }

    /// Lets nothing more in. What is in is still taken out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Lanes<T>> {
        // Every change under the lock is one call of a standard collection: a panic leaves it whole.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out what `wanted` picks; both keep their order.
fn take_if<T>(lane: &mut VecDeque<T>, mut wanted: impl FnMut(&mut T) -> bool) -> Vec<T> {
    let mut taken = Vec::new();
    for _ in 0..lane.len() {
        let Some(mut job) = lane.pop_front() else { break };
        if wanted(&mut job) {
            taken.push(job);
        } else {
            lane.push_back(job);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_refuses_and_the_urgent_one_goes_first() {
        let queue = Queue::new();
        for job in 0..BROKER_QUEUE_MAX {
            queue.push(job).unwrap();
        }
        assert_eq!(queue.push(0).unwrap_err().code(), Code::Busy);
        queue.push_urgent(7_777_777).unwrap();
        let mut batch = Vec::new();
        queue.take(&mut batch);
        assert_eq!((batch.len(), batch[0], batch[1]), (BROKER_BATCH_MAX, 7_777_777, 0));
        queue.push(1).unwrap();
    }

    #[test]
    fn an_end_goes_behind_what_it_ends_and_ahead_of_the_rest() {
        let queue = Queue::new();
        for job in [1, 20, 2, 21, 3] {
            queue.push(job).unwrap();
        }
        queue.push_urgent(7).unwrap();
        queue.push_urgent_behind(22, |job| *job >= 20).unwrap();
        let mut batch = Vec::new();
        queue.take(&mut batch);
        assert_eq!(batch, [7, 20, 21, 22, 1, 2, 3]);
    }

    #[test]
    fn a_closed_queue_is_emptied_first() {
        let queue = Queue::new();
        queue.push(1).unwrap();
        queue.close();
        assert_eq!(queue.push(2).unwrap_err().code(), Code::Unreachable);
        assert!(matches!(queue.wait(None), Woken::Up));
        queue.take(&mut Vec::new());
        assert!(matches!(queue.wait(None), Woken::Closed));
    }
}
