//! How often a principal was refused by its quota lately.
//!
//! One refusal is how a program learns of its quota. One that asks on and on is defective or hostile, and that is a
//! fault.

use std::collections::HashMap;

use caps::id::PrincipalKey;
use caps::time::BootNanos;
use policy::limits::{QUOTA_REFUSAL_ROWS_MAX, QUOTA_REFUSALS_MAX, QUOTA_REFUSALS_WINDOW_MS};

const WINDOW_NS: u64 = QUOTA_REFUSALS_WINDOW_MS * 1_000_000;

/// The windows of all principals that were refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<PrincipalKey, Window>);

#[derive(Debug)]
struct Window {
    began: BootNanos,
    count: u32,
}

impl Refusals {
    /// Counts one. The number of refusals in the window if it is one too many; then a new window begins.
    pub(super) fn count(&mut self, who: PrincipalKey, now: BootNanos) -> Option<u32> {
        if self.0.len() >= QUOTA_REFUSAL_ROWS_MAX && !self.0.contains_key(&who) {
            self.make_room(now);
        }
        let window = self.0.entry(who).or_insert(Window { began: now, count: 0 });
        if window.is_over(now) {
            *window = Window { began: now, count: 0 };
        }
        window.count += 1;
        if window.count <= QUOTA_REFUSALS_MAX {
            return None;
        }
        self.0.remove(&who).map(|window| window.count)
    }

    /// Forgets the windows that are over; where none is, the oldest.
    fn make_room(&mut self, now: BootNanos) {
        let before = self.0.len();
        self.0.retain(|_, window| !window.is_over(now));
        if self.0.len() == before
            && let Some(oldest) = self.0.iter().min_by_key(|(_, window)| window.began).map(|(who, _)| *who)
        {
            self.0.remove(&oldest);
        }
    }
}

impl Window {
    fn is_over(&self, now: BootNanos) -> bool {
        now.0.saturating_sub(self.began.0) > WINDOW_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PrincipalKey = PrincipalKey([1; 32]);

    #[test]
    fn one_too_many_in_a_window_is_a_fault_and_begins_anew() {
        let mut refusals = Refusals::default();
        let now = BootNanos(5);
        for _ in 0..2 {
            for _ in 0..QUOTA_REFUSALS_MAX {
                assert_eq!(refusals.count(A, now), None);
            }
            assert_eq!(refusals.count(PrincipalKey([2; 32]), now), None, "others are counted apart");
            assert_eq!(refusals.count(A, now), Some(QUOTA_REFUSALS_MAX + 1));
        }
    }

    #[test]
    fn a_slow_one_never_is() {
        let mut refusals = Refusals::default();
        for n in 0..10 * u64::from(QUOTA_REFUSALS_MAX) {
            let now = BootNanos(n * (WINDOW_NS / u64::from(QUOTA_REFUSALS_MAX) + 1));
            assert_eq!(refusals.count(A, now), None);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut refusals = Refusals::default();
        for n in 0..2 * QUOTA_REFUSAL_ROWS_MAX as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            assert_eq!(refusals.count(PrincipalKey(key), BootNanos(n)), None);
        }
        assert_eq!(refusals.0.len(), QUOTA_REFUSAL_ROWS_MAX);
    }
}
