//! Samples of time, and what is said of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Times in microseconds, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn of(mut micros: Vec<f64>) -> Self {
        micros.sort_unstable_by(f64::total_cmp);
        Self(micros)
    }

    /// The sample below which `share` of all lie. 0 if there is none.
    pub fn at(&self, share: f64) -> f64 {
        // The index is at most the last one: `share` is at most 1.
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
    }

    pub fn p50(&self) -> f64 {
        self.at(0.50)
    }

    pub fn p99(&self) -> f64 {
        self.at(0.99)
    }

    pub fn max(&self) -> f64 {
        self.at(1.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn json(&self) -> Value {
        json!({
            "p50_us": round(self.p50()),
            "p99_us": round(self.p99()),
            "min_us": round(self.at(0.0)),
            "max_us": round(self.max()),
            "samples": self.len(),
        })
    }

    pub fn text(&self) -> String {
        format!(
            "p50 {}, p99 {} ({} to {})",
            micros(self.p50()),
            micros(self.p99()),
            micros(self.at(0.0)),
            micros(self.max())
        )
    }
}

/// One figure a round.
#[derive(Clone, Debug)]
pub struct Spread(Times);

impl Spread {
    pub fn of(rounds: Vec<f64>) -> Self {
        Self(Times::of(rounds))
    }

    pub fn median(&self) -> f64 {
        self.0.p50()
    }

    pub fn min(&self) -> f64 {
        self.0.at(0.0)
    }

    pub fn max(&self) -> f64 {
        self.0.max()
    }
}

/// Microseconds of `work`.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let started = Instant::now();
    let result = work();
    (of(started.elapsed()), result)
}

pub fn of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Three digits after the point: nobody believes more.
pub fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

pub fn micros(micros: f64) -> String {
    match micros {
        0.0..1.0 => format!("{:.0} ns", micros * 1e3),
        1.0..100.0 => format!("{micros:.1} us"),
        100.0..10_000.0 => format!("{micros:.0} us"),
        _ => format!("{:.1} ms", micros / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_samples() {
        let times = Times::of((0..=100).rev().map(f64::from).collect());
        assert_eq!((times.p50(), times.p99(), times.max(), times.len()), (50.0, 99.0, 100.0, 101));
        assert_eq!(Times::default().p99(), 0.0);
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((spread.median(), spread.min(), spread.max()), (2.0, 1.0, 3.0));
    }

    #[test]
    fn times_read_well() {
        assert_eq!(micros(0.25), "250 ns");
        assert_eq!(micros(12.34), "12.3 us");
        assert_eq!(micros(1234.5), "1234 us");
        assert_eq!(micros(12_345.0), "12.3 ms");
    }
}
