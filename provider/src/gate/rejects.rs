//! What is refused at the gate, in the log, without letting anybody fill the log.
//!
//! Before a key is proven, refusals are gathered into one entry a code, uid and window. After that each refusal is an
//! entry, up to a rate for each user; what is left out is counted in the next one. Nothing is lost, only gathered.
//!
//! The rate is a user's and not a key's: anybody can draw as many keys as it likes and prove each.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::rejects::{Admission, BURST_WINDOW_MS, Bursts, Limiter, Source};
use audit::{Draft, Event as Entry};
use caps::error::{Code, Error};

use crate::runtime::Provider;

/// The refusals of one gate.
pub(super) struct Rejects {
    provider: Provider,
    /// Guards both tables; held for one count.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bursts: Bursts,
    limiter: Limiter<Source>,
}

impl Rejects {
    /// Starts the task that writes windows once they end.
    pub(super) fn start(provider: Provider) -> Arc<Self> {
        let rejects = Arc::new(Self { provider, state: Mutex::default() });
        let weak = Arc::downgrade(&rejects);
        tokio::spawn(async move {
            // A window's end is looked for a few times a window: its entry is late by at most that.
            let mut ticks = tokio::time::interval(Duration::from_millis(BURST_WINDOW_MS / 10));
            loop {
                ticks.tick().await;
                let Some(rejects) = weak.upgrade() else { return };
                rejects.write_due();
            }
        });
        rejects
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal from before a key was proven.
    pub(super) fn note(&self, source: Source, error: &Error) {
        let clock = self.provider.clock();
        self.state().bursts.note(clock.boot(), clock.unix(), error.code(), source);
    }

    /// Records a refusal of a session from `source`, or counts it.
    pub(super) fn deny(&self, source: Source, entry: Draft) {
        let admission = self.state().limiter.admit(self.provider.clock().boot(), source);
        match admission {
            Admission::Record { suppressed: 0 } => self.provider.record_fault(entry),
            Admission::Record { suppressed } => self.provider.record_fault(entry.suppressed(suppressed)),
            Admission::Suppress => {}
        }
    }

    fn write_due(&self) {
        let now = self.provider.clock().boot();
        let mut state = self.state();
        let mut entries = state.bursts.due(now);
        entries.extend(state.limiter.overdue(now).into_iter().map(leftover));
        drop(state);
        for entry in entries {
            self.provider.record_fault(entry);
        }
    }

    /// Writes every window, ended or not: the gate closes.
    pub(super) fn flush(&self) {
        let mut state = self.state();
        let mut entries = state.bursts.flush();
        entries.extend(state.limiter.overdue(caps::time::BootNanos(u64::MAX)).into_iter().map(leftover));
        drop(state);
        for entry in entries {
            self.provider.record_fault(entry);
        }
    }
}

/// The entry of refusals that no later entry told of.
fn leftover((source, suppressed): (Option<Source>, u64)) -> Draft {
    Draft::deny(Entry::RejectBurst, Code::Denied)
        .maybe(source, |draft, source| source.put(draft))
        .suppressed(suppressed)
}
