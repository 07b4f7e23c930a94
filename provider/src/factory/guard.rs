//! The last cut: what happens to every region when the provider is gone.
//!
//! A dead provider's clients keep their mappings; nobody but this process can take them away. A cut of an open region
//! can hang for as long as a same-user writer likes (it holds the inode's lock from inside `write`), so the cuts run
//! on a few threads and another thread is added whenever nothing moved for a while: a stuck region delays only itself.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::ftruncate;
use rustix::io::retry_on_intr;

use super::table::Hold;
use super::tmpfs;
use crate::mem::rt;

/// Threads that cut from the start: more would only fight over the same page table locks.
const CUTTERS_MIN: usize = 2;
/// Threads at most: each can be stuck in one hostile region. Beyond it the rest of the queue waits.
const CUTTERS_MAX: usize = 64;
/// No region finished for this long means that every cutter is stuck: a cut of 1 GiB takes a few milliseconds.
const STUCK_MS: u64 = 50;
/// After this the process exits whatever is still stuck; the exit itself closes all it held.
const TOTAL_MS_MAX: u64 = 60_000;

/// Cuts every region. Returns how many could not be cut in time.
pub(super) fn cut_everything(mut holds: Vec<Hold>) -> usize {
    // Sealed regions first: nobody can hold their locks, so all of them are dead within milliseconds.
    holds.sort_by_key(|hold| matches!(hold, Hold::Mount(_)));
    let total = holds.len();
    let queue = Arc::new(holds);
    let next = Arc::new(AtomicUsize::new(0));
    let (done, finished) = mpsc::channel();
    let mut cutters = 0;
    let (mut finished_count, mut cut) = (0, 0);
    let deadline = Instant::now() + Duration::from_millis(TOTAL_MS_MAX);
    while finished_count < total && Instant::now() < deadline {
        let wanted = if cutters == 0 { CUTTERS_MIN.min(total) } else { 0 };
        for _ in 0..wanted {
            cutters += usize::from(start(&queue, &next, &done));
        }
        if cutters == 0 {
            // Not even a thread can be had: do it here, one after another.
            return total - work(&queue, &next, &done);
        }
        match finished.recv_timeout(Duration::from_millis(STUCK_MS)) {
            Ok(success) => {
                finished_count += 1;
                cut += usize::from(success);
            }
            Err(_) if cutters < CUTTERS_MAX && next.load(Ordering::Relaxed) < total => {
                cutters += usize::from(start(&queue, &next, &done));
            }
            Err(_) => {}
        }
    }
    total - cut
}

fn start(queue: &Arc<Vec<Hold>>, next: &Arc<AtomicUsize>, done: &mpsc::Sender<bool>) -> bool {
    let (queue, next, done) = (Arc::clone(queue), Arc::clone(next), done.clone());
    thread::Builder::new()
        .name("last-cut".into())
        .stack_size(64 << 10)
        .spawn(move || {
            // Best effort: without it the cuts still happen, later on a busy machine.
            let _ = rt::raise_this_thread();
            work(&queue, &next, &done);
        })
        .is_ok()
}

/// Takes regions from the queue until it is empty and cuts them; returns how many it could cut. Tells `done` of each.
fn work(queue: &[Hold], next: &AtomicUsize, done: &mpsc::Sender<bool>) -> usize {
    let mut count = 0;
    while let Some(hold) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
        let result = match hold {
            Hold::File(file) => retry_on_intr(|| ftruncate(file, 0)).ok(),
            Hold::Mount(mount) => {
                tmpfs::reopen(mount.as_fd()).ok().and_then(|file| retry_on_intr(|| ftruncate(&file, 0)).ok())
            }
        };
        count += usize::from(result.is_some());
        let _ = done.send(result.is_some());
    }
    count
}
