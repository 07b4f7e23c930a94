//! How long to wait before the next attempt to reach a node: twice as long as before, and never just as long as everybody
//! else who lost it at the same moment.

use std::time::Duration;

/// The wait before the second attempt, in milliseconds; the first is made at once.
pub const RECONNECT_MS_FIRST: u64 = 10;
/// The longest wait between two attempts, in milliseconds.
pub const RECONNECT_MS_MAX: u64 = 2_000;

const _: () = assert!(RECONNECT_MS_FIRST > 0 && RECONNECT_MS_FIRST < RECONNECT_MS_MAX);

/// The waits of one series of attempts.
pub(super) struct Backoff {
    /// The bound of the next wait; zero before the first attempt.
    next_ms: u64,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next_ms: 0 }
    }

    /// How long to wait before the next attempt: not at all before the first, then between a half of the bound and all of it, by `random`, so that many clients do not come back in
    /// step.
    pub(super) fn step(&mut self, random: u32) -> Duration {
        let most = Duration::from_millis(self.next_ms);
        self.next_ms = (self.next_ms * 2).clamp(RECONNECT_MS_FIRST, RECONNECT_MS_MAX);
        let half = most / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// A random number.
pub(super) fn random() -> u32 {
    // Without a random source the waits are the longest: no more than that depends on it.
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_a_half() {
        for (random, share) in [(0, 0.5), (u32::MAX / 2, 0.75), (u32::MAX, 1.0)] {
            let mut backoff = Backoff::new();
            assert_eq!(backoff.step(random), Duration::ZERO, "the first attempt is made at once");
            let mut bound = RECONNECT_MS_FIRST as f64;
            for _ in 0..20 {
                let wait = backoff.step(random).as_secs_f64() * 1e3;
                assert!((wait - bound * share).abs() < 1e-3 * bound, "{wait} of {bound}");
                bound = (bound * 2.0).min(RECONNECT_MS_MAX as f64);
            }
            assert!(backoff.step(random) <= Duration::from_millis(RECONNECT_MS_MAX));
        }
    }
}
