//! Settling of many take-backs at a time, on one thread.
//!
//! What settling waits for are peers, and each may let it wait for the whole bound. So nobody who has other memory to take
//! back waits there: one thread looks at all that are waiting together, and each has the bound for itself from when it
//! began. However many regions end at one time, the last is acknowledged no later than that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caps::error::Result;
use caps::id::LeaseId;
use policy::limits::SETTLE_LOOK_US;

use super::outgoing::UnderWay;
use super::pool::{Pool, Urgency};
use super::take_back::Drain;
use super::{Shared, lock};

/// The thread, and what it is to look at.
pub(super) struct Settler {
    thread: Pool,
    /// Held for a push or a look.
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    new: Vec<Settlement>,
    /// Whether the thread will look at the queue again.
    looks: bool,
}

/// One take-back that has bytes under way.
struct Settlement {
    began: Instant,
    under_way: UnderWay,
    drain: Drain,
    /// What comes after it, on another thread.
    then: Box<dyn FnOnce() + Send>,
}

impl Settler {
    /// # Errors
    /// `E_SYSTEM` if its thread cannot be had.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { thread: Pool::new("settle", 1, Urgency::InTurn)?, queue: Mutex::default() })
    }
}

impl Shared {
    /// Settles what was drained, as [`Self::settle`] does, and then has `then` done: at once on this thread if nothing is
    /// under way, as it always is where nobody reads over the network, or else on a thread of `pool`.
    pub(super) fn settle_then(
        self: &Arc<Self>,
        lease: LeaseId,
        readers: &BTreeSet<u64>,
        drain: Drain,
        pool: fn(&Self) -> &Pool,
        then: impl FnOnce() + Send + 'static,
    ) {
        let mut under_way = self.under_way(lease, readers, &drain);
        if under_way.is_over() {
            self.lingering.settled(&self.cells, &drain);
            drop(drain); // the rights in it hold the memory
            return then();
        }
        let shared = self.clone();
        let then = Box::new(move || pool(&shared).submit(then));
        let mut queue = lock(&self.settler.queue);
        queue.new.push(Settlement { began: Instant::now(), under_way, drain, then });
        if !std::mem::replace(&mut queue.looks, true) {
            let shared = self.clone();
            self.settler.thread.submit(move || shared.settle_all());
        }
    }

    /// Looks at everything in the queue until nothing is left there.
    fn settle_all(&self) {
        let mut waiting = Vec::new();
        loop {
            {
                let mut queue = lock(&self.settler.queue);
                waiting.append(&mut queue.new);
                if waiting.is_empty() {
                    queue.looks = false;
                    return;
                }
            }
            for Settlement { drain, then, .. } in waiting.extract_if(.., |it| self.is_settled(it)) {
                self.lingering.settled(&self.cells, &drain);
                drop(drain);
                then();
            }
            // Nothing tells when a peer acknowledges, so this is a look every so often.
            std::thread::sleep(Duration::from_micros(SETTLE_LOOK_US));
        }
    }

    fn is_settled(&self, settlement: &mut Settlement) -> bool {
        settlement.under_way.is_over() || self.cut_off_late(settlement.began, &settlement.under_way)
    }
}
