//! The two threads beside the recorder's: one that publishes, one that looks at the clock.

use std::sync::PoisonError;
use std::time::Instant;

use caps::error::{Code, Error};

use super::{Job, Shared, call};

/// Runs publications until told to go.
pub(super) fn publisher(shared: &Shared) {
    loop {
        let mut state = shared.lock();
        let Job { generation, publication, store } = loop {
            if let Some(job) = state.job.take() {
                break job;
            }
            if state.exit {
                return;
            }
            state = shared.press.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let outcome = publication.run(&*store);
        // The device must be free before the result is known: a lost one is opened anew at once.
        drop(store);
        shared.lock().published = Some((generation, publication, outcome));
        shared.work.notify_one();
    }
}

/// Declares the device lost when a call to it takes too long. The call itself cannot be ended; the thread that made
/// it finds out when it returns.
///
/// Under load it wakes about once per `DEVICE_MS_MAX`: at the end of the time of a call that has long returned it
/// looks which call is under way by then. Idle, it sleeps until the next call begins.
pub(super) fn watchdog(shared: &Shared) {
    let limit = shared.settings.device_max;
    let mut state = shared.lock();
    while !state.exit {
        let Some(began) = state.inflight.as_ref().map(|inflight| inflight.began) else {
            state.watching = false;
            state = shared.watch.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.watching = true;
        let left = (began + limit).saturating_duration_since(Instant::now());
        if !left.is_zero() {
            state = shared.watch.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let error = Error::new(Code::AuditUnavailable, "the audit device does not answer in time");
        let calls = state.lose(error, (shared.clock)());
        drop(state);
        call(calls);
        state = shared.lock();
    }
}
