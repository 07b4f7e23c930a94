//! How long to wait between two dials: longer each time, and never as long as others that were cut in the same moment.

use std::time::Duration;

/// Pauses between dials.
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// It worked: the next pause is the shortest again.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }

    /// The next pause: between half of its length and all of it.
    pub(super) fn pause(&mut self) -> Duration {
        let mut draw = [0; 4];
        // Without random bytes all wait for the same time, which costs the broker some handshakes at once and nothing else.
        let _ = getrandom::fill(&mut draw);
        let pause =
            self.next / 2 + (self.next / 2).mul_f64(f64::from(u32::from_le_bytes(draw)) / 4_294_967_296.0);
        self.next = (self.next * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_differ() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(400));
        for whole in [50, 100, 200, 400, 400] {
            let pause = backoff.pause();
            assert!(pause >= ms(whole) / 2 && pause <= ms(whole), "{pause:?} of {whole}");
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(50));
        let mut seen: Vec<_> = (0..16).map(|_| Backoff::new(ms(1_000), ms(1_000)).pause()).collect();
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 8, "they are drawn");
    }
}
