//! The two clocks, as types that do not mix.
//!
//! Tokens carry wall time, because they are read on other machines; deadlines are on `CLOCK_BOOTTIME`, because it
//! never steps and goes on through suspend. A wall time becomes a deadline exactly once, at claim or first open:
//! `now + min(TTL, what the token has left)`.

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds. At most `i64::MAX`, the Datalog integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMicros(pub u64);

/// Nanoseconds of `CLOCK_BOOTTIME` on one machine. Meaningless on any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootNanos(pub u64);

/// A span in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// The span of `millis` milliseconds, capped at the largest span.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The span in nanoseconds, capped.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    /// The span in whole milliseconds, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }
}

impl UnixMicros {
    /// The latest time a token can carry.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// This time plus `span`, capped at [`Self::MAX`].
    #[must_use]
    pub const fn plus(self, span: Micros) -> Self {
        let sum = self.0.saturating_add(span.0);
        if sum > Self::MAX.0 { Self::MAX } else { Self(sum) }
    }

    /// The span from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl BootNanos {
    /// This time plus `span`, capped at the end of time.
    #[must_use]
    pub const fn plus(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.as_nanos()))
    }

    /// The span from `earlier` to this time in whole microseconds; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0) / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_capped_not_wrapped() {
        assert_eq!(UnixMicros(5).plus(Micros(u64::MAX)), UnixMicros::MAX);
        assert_eq!(BootNanos(5).plus(Micros(u64::MAX)), BootNanos(u64::MAX));
        assert_eq!(UnixMicros(1).since(UnixMicros(2)), Micros(0));
        assert_eq!(Micros::from_millis(u64::MAX), Micros(u64::MAX));
    }
}
