//! Kills who holds up a cut.
//!
//! In the tier `open` a writer of the node's own user can hold the lock of a region's file for as long as it likes, and
//! the cut waits for it. A watched cut that has not returned after [`KILL_MS_MAX`] has the processes killed that were
//! given such a file, and again every so often while it does not return. Elsewhere nobody can hold up a cut.
//!
//! A cut is put on watch by whoever submits it, after it was submitted, and is taken off by storing a flag: its own
//! thread neither takes a lock nor wakes anybody.
//!
//! Who hung up before the cut is not found, and a call that the kernel does not let go of (a page of a FUSE file whose
//! server never answers) outlives the kill; both are the reasons why the tier is called `open`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audit::{Draft, Event as Entry};
use caps::error::{Code, Result};
use caps::id::LeaseId;
use caps::wire::row::Tier;
use policy::limits::{KILL_MS_MAX, KILL_ROUNDS_MAX};

use super::client::Force;
use super::memory::Memory;
use super::{Shared, lock};

/// The cuts under way, the oldest first: each is due the same time after it was put on watch.
#[derive(Default)]
pub(super) struct Watchdog {
    watched: Mutex<VecDeque<Watched>>,
    wake: Condvar,
}

struct Watched {
    due: Instant,
    lease: LeaseId,
    holders: Holders,
    done: Arc<AtomicBool>,
    rounds: u32,
}

/// Sessions of those who can hold up a cut. None of them is added once a take-back has begun.
pub(super) type Holders = BTreeSet<u64>;

/// Says that a watched cut has returned.
#[derive(Clone, Default)]
pub(super) struct Returned(Arc<AtomicBool>);

impl Returned {
    pub(super) fn now(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Shared {
    /// Who could hold up a cut of this memory. Nobody, but in the tier `open`.
    pub(super) fn who_could_block(&self, memory: &Memory) -> Holders {
        if self.config.tier == Tier::Open { memory.holders() } else { Holders::new() }
    }

    /// Puts a cut on watch that was submitted just now. A cut that nobody can hold up is not watched.
    pub(super) fn watch_cut(&self, lease: LeaseId, holders: Holders, returned: &Returned) {
        if holders.is_empty() {
            return;
        }
        let due = Instant::now() + Duration::from_millis(KILL_MS_MAX);
        let mut watched = lock(&self.watchdog.watched);
        watched.push_back(Watched { due, lease, holders, done: returned.0.clone(), rounds: 0 });
        if watched.len() == 1 {
            self.watchdog.wake.notify_one();
        }
    }

    /// Kills the processes that were given the region's files, and records each.
    fn break_blockade(&self, lease: LeaseId, holders: &Holders) {
        let clients: Vec<_> = {
            let sessions = lock(&self.sessions);
            holders.iter().filter_map(|id| sessions.get(id)).map(|link| link.client.clone()).collect()
        };
        let mut killed = 0;
        for client in clients {
            if client.kill(Force::Blockade, self.node) {
                killed += 1;
                let entry = client
                    .identified(Draft::deny(Entry::FaultAccess, Code::Timeout))
                    .lease(lease)
                    .cause("blocks_take_back")
                    .method("mapped")
                    .reaction("kill")
                    .signal(libc::SIGKILL.unsigned_abs())
                    .after_us(KILL_MS_MAX * 1_000);
                self.record_regardless(entry);
            }
        }
        tracing::warn!(?lease, killed, "a cut was held up, and those who could were killed");
    }
}

/// The thread that looks after cuts. It sleeps while none is under way.
pub(super) fn watch_cuts(shared: &Arc<Shared>) -> Result<()> {
    let weak = Arc::downgrade(shared);
    super::timer::spawn("lh-watch", move || {
        loop {
            // Held only while waiting; the queue cannot be dropped under the wait.
            let Some(shared) = weak.upgrade() else { return };
            let mut watched = lock(&shared.watchdog.watched);
            while watched.front().is_some_and(|cut| cut.done.load(Ordering::Acquire)) {
                watched.pop_front();
            }
            let now = Instant::now();
            let Some(due) = watched.front().map(|cut| cut.due) else {
                drop(shared.watchdog.wake.wait(watched).unwrap_or_else(PoisonError::into_inner));
                continue;
            };
            if due > now {
                let waited = shared.watchdog.wake.wait_timeout(watched, due - now);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            let Some(mut cut) = watched.pop_front() else { continue };
            drop(watched);
            shared.break_blockade(cut.lease, &cut.holders);
            cut.rounds += 1;
            if cut.rounds < KILL_ROUNDS_MAX {
                cut.due = Instant::now() + Duration::from_millis(KILL_MS_MAX);
                lock(&shared.watchdog.watched).push_back(cut);
            } else {
                tracing::error!(lease = ?cut.lease, "a cut is still held up; only the end of its holders can help");
            }
        }
    })
}
