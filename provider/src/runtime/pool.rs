//! A bounded pool of threads that grows while all of them are busy.
//!
//! Taking memory back must not wait for somebody else's: a cut that the kernel holds up (a hostile writer in the
//! tier `open`) keeps its thread, and the next one gets another. Jobs begin in the order in which they came.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use caps::error::{Code, Error, Result};

use crate::mem::rt;

type Job = Box<dyn FnOnce() + Send>;

/// When a pool's threads get a processor.
#[derive(Clone, Copy)]
pub(super) enum Urgency {
    /// At once: a cut must not wait behind other people's computing.
    First,
    /// Like everybody.
    InTurn,
    /// In short turns, interrupting nobody.
    Considerate,
}

/// What the lock guards: the queue and the counts that decide whether to grow. Held for a push or a pop.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    name: &'static str,
    threads_max: usize,
    urgency: Urgency,
}

/// See the module's documentation. Its threads live as long as the process.
pub(super) struct Pool(Arc<Shared>);

impl Pool {
    /// A pool with one thread, which may become `threads_max`.
    ///
    /// # Errors
    /// `E_SYSTEM` if not even one thread can be had.
    pub(super) fn new(name: &'static str, threads_max: usize, urgency: Urgency) -> Result<Self> {
        let state = Mutex::new(State { threads: 1, ..State::default() });
        let shared = Arc::new(Shared { state, wake: Condvar::new(), name, threads_max, urgency });
        spawn(&shared).map_err(|_| Error::new(Code::System, "cannot start a thread"))?;
        Ok(Self(shared))
    }

    /// Queues a job. The queue needs no bound of its own: a job is a region's end, and regions are bounded.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.jobs.push_back(Box::new(job));
        let grow = state.idle < state.jobs.len() && state.threads < self.0.threads_max;
        if grow {
            state.threads += 1;
        }
        drop(state);
        if grow && spawn(&self.0).is_err() {
            // No thread to be had: those that run will come to it.
            self.0.state.lock().unwrap_or_else(PoisonError::into_inner).threads -= 1;
        }
        self.0.wake.notify_one();
    }
}

fn spawn(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = shared.clone();
    let builder = thread::Builder::new().name(format!("lh-{}", shared.name)).stack_size(256 * 1024);
    builder.spawn(move || work(&shared)).map(drop)
}

fn work(shared: &Shared) {
    let _ = match shared.urgency {
        Urgency::First => rt::raise_this_thread(), // where it is allowed; `doctor` says where not
        Urgency::InTurn => Ok(()),
        Urgency::Considerate => rt::be_considerate(), // older kernels do without
    };
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.idle += 1;
        state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_stuck_job_holds_up_nobody() {
        let pool = Pool::new("test", 2, Urgency::InTurn).unwrap();
        let (release, stuck) = mpsc::channel::<()>();
        pool.submit(move || {
            let _ = stuck.recv();
        });
        let (done, finished) = mpsc::channel();
        for n in 0..100 {
            let done = done.clone();
            pool.submit(move || done.send(n).unwrap());
        }
        // The second thread does all of them, in order, while the first is stuck.
        assert!(finished.iter().take(100).eq(0..100));
        release.send(()).unwrap();
    }
}
