//! How many refusals enter a log: those of one provider the broker's, and those of whoever came to its door the node's own.

use std::sync::{Mutex, PoisonError};

use audit::rejects::{LIMIT_BURST, LIMIT_PER_SECOND};
use caps::time::{Micros, UnixMicros};

/// The time in which one entry is earned.
const INTERVAL: Micros = Micros(1_000_000 / LIMIT_PER_SECOND);
/// How far ahead of the time who was quiet may go.
const AHEAD: Micros = Micros((LIMIT_BURST - 1) * INTERVAL.0);

/// A count: of one life, over all its links, or of all who came to nothing.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<(UnixMicros, u64)>);

impl Refusals {
    /// Counts one. `Some(n)` if it is to be recorded, with the `n` that were left out before it.
    pub(super) fn count(&self, now: UnixMicros) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (earned, left_out) = &mut *state;
        if *earned <= now.plus(AHEAD) {
            *earned = (*earned).max(now).plus(INTERVAL);
            Some(std::mem::take(left_out))
        } else {
            *left_out = left_out.saturating_add(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_none_is_forgotten() {
        let refusals = Refusals::default();
        let recorded = (0..1_000).filter(|_| refusals.count(UnixMicros(7)).is_some()).count() as u64;
        assert_eq!(recorded, LIMIT_BURST);
        assert_eq!(refusals.count(UnixMicros(7 + INTERVAL.0)), Some(1_000 - LIMIT_BURST));
        assert_eq!(refusals.count(UnixMicros(7 + INTERVAL.0)), None);
    }
}
