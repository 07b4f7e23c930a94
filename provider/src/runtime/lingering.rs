//! Operations that a fence or a narrowing met inside, until they have left.
//!
//! A step knows what it fenced itself. But a right may have ended in an earlier step, by its own time, by its holder or by
//! a call that is still waiting, and an operation may be inside it yet: what that sends is noted when it leaves, not
//! before. So whoever takes something back waits for these as well, and only then asks what was sent.
//!
//! Almost every fence finds nobody inside, and then nothing is remembered here. What was narrowed of a region that is
//! read over the network is remembered until somebody has settled it, because the right lives on: nothing else says that
//! bytes of it were sent that it allows no longer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use super::cells::{Cells, OpenKey, Right};
use super::lock;
use super::take_back::Drain;
use crate::kernel::RegionKey;

/// Rights as they were before one step narrowed them, all of one region.
pub(super) type Narrowed = Arc<Vec<Arc<Right>>>;

/// What has not left yet, of all regions.
#[derive(Default)]
pub(super) struct Lingering(Mutex<HashMap<RegionKey, Of>>);

/// Of one region.
#[derive(Default)]
struct Of {
    /// Rights that were fenced with operations inside, and the session of each.
    fenced: Vec<(OpenKey, u64)>,
    narrowed: Vec<Narrowed>,
}

impl Of {
    fn is_empty(&self) -> bool {
        self.fenced.is_empty() && self.narrowed.is_empty()
    }
}

impl Lingering {
    /// What a step fenced or narrowed that may have operations inside, or bytes under way. Under the kernel's lock, so
    /// that every later step finds it.
    pub(super) fn remember(&self, cells: &Cells, fenced: &[(OpenKey, Arc<Right>)], narrowed: &Narrowed) {
        let mut inside = fenced.iter().filter(|(open, _)| !cells.is_drained(*open)).peekable();
        let unsettled = narrowed.iter().find(|right| right.is_in_use() || right.memory.is_read_remotely());
        if inside.peek().is_none() && unsettled.is_none() {
            return;
        }
        let mut all = lock(&self.0);
        for (open, right) in inside {
            let of = all.entry(right.region).or_default();
            of.fenced.retain(|(open, _)| !cells.is_drained(*open));
            of.fenced.push((*open, right.session));
        }
        if let Some(right) = unsettled {
            all.entry(right.region).or_default().narrowed.push(narrowed.clone());
        }
    }

    /// Adds to what a take-back waits for what it has to wait for besides.
    pub(super) fn with(&self, drain: &Drain) -> Drain {
        let mut drain = drain.clone();
        let all = lock(&self.0);
        let Some(of) = drain.region.and_then(|region| all.get(&region)) else { return drain };
        drain.fenced.extend_from_slice(&of.fenced);
        for narrowed in &of.narrowed {
            if !drain.narrowed.iter().any(|known| Arc::ptr_eq(known, narrowed)) {
                drain.narrowed.push(narrowed.clone());
            }
        }
        drain
    }

    /// All of `drain` has left, and what it sent is settled.
    pub(super) fn settled(&self, cells: &Cells, drain: &Drain) {
        let Some(region) = drain.region else { return };
        let forgotten = {
            let mut all = lock(&self.0);
            let Entry::Occupied(mut entry) = all.entry(region) else { return };
            let of = entry.get_mut();
            of.fenced.retain(|(open, _)| !cells.is_drained(*open));
            let is_settled =
                |narrowed: &mut Narrowed| drain.narrowed.iter().any(|it| Arc::ptr_eq(it, narrowed));
            let forgotten: Vec<_> = of.narrowed.extract_if(.., is_settled).collect();
            if of.is_empty() {
                entry.remove();
            }
            forgotten
        };
        drop(forgotten); // outside the lock: a right may be the last that holds its region
    }
}
