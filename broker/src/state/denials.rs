//! How many requests of one principal that change nothing enter the log: refusals, and revokes of what has ended.
//!
//! Part of the state, because the entries are: replicas must leave out the same ones, also after a restore. So this
//! is the rate limit of [`audit::rejects`], with its constants, in a form that can be serialized. Whoever asks in vain
//! more often than it allows costs a counter, and the next entry says exactly how many were left out.

use audit::rejects::{LIMIT_BURST, LIMIT_PER_SECOND};
use caps::time::{Micros, UnixMicros};
use serde::{Deserialize, Serialize};

/// The time in which one refusal is earned.
const INTERVAL: Micros = Micros(1_000_000 / LIMIT_PER_SECOND);
/// How far ahead of the time a quiet principal may go.
const AHEAD: Micros = Micros((LIMIT_BURST - 1) * INTERVAL.0);

/// The count of one principal, or of all strangers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Denials {
    /// When everything recorded so far is earned.
    earned: UnixMicros,
    suppressed: u64,
}

impl Denials {
    /// Counts one. `Some(n)` if it is to be recorded, with the `n` that were left out before it.
    pub(super) fn count(&mut self, now: UnixMicros) -> Option<u64> {
        if self.earned <= now.plus(AHEAD) {
            self.earned = self.earned.max(now).plus(INTERVAL);
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut denials = Denials::default();
        let recorded = (0..100).filter(|_| denials.count(UnixMicros(7)).is_some()).count() as u64;
        assert_eq!(recorded, LIMIT_BURST);
        assert_eq!(denials.count(UnixMicros(7 + INTERVAL.0)), Some(100 - LIMIT_BURST));
        assert_eq!(denials.count(UnixMicros(7 + INTERVAL.0)), None);
    }

    proptest::proptest! {
        #[test]
        fn recorded_and_suppressed_add_up(steps in proptest::collection::vec(0u64..150_000, 1..400)) {
            let (mut denials, mut now, mut told) = (Denials::default(), 0, 0);
            for &step in &steps {
                now += step;
                told += denials.count(UnixMicros(now)).map_or(0, |suppressed| 1 + suppressed);
            }
            proptest::prop_assert_eq!(told + denials.suppressed, steps.len() as u64);
        }
    }
}
