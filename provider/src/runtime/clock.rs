//! The two clocks of a node. Wall time is sampled once and advanced by `CLOCK_BOOTTIME`, so no step of the wall clock
//! shortens or lengthens anything; a step is an audit entry and nothing more.

use caps::time::{BootNanos, UnixMicros};
use rustix::time::{ClockId, clock_gettime};

/// The time of one node. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot_base: BootNanos,
    unix_base: UnixMicros,
}

impl Clock {
    /// Samples both clocks.
    #[must_use]
    pub fn start() -> Self {
        Self { boot_base: boot(), unix_base: wall() }
    }

    /// `CLOCK_BOOTTIME`.
    #[must_use]
    pub fn boot(&self) -> BootNanos {
        boot()
    }

    /// Wall time as it was at the start, plus what the boot clock has counted since. Never steps.
    #[must_use]
    pub fn unix(&self) -> UnixMicros {
        self.unix_base.plus(boot().since(self.boot_base))
    }

    /// By how many microseconds the machine's wall clock is ahead of [`Self::unix`]; negative if behind.
    #[must_use]
    pub fn wall_ahead(&self) -> i64 {
        let (wall, ours) = (wall().0, self.unix().0);
        // Both are below 2^63.
        wall.cast_signed() - ours.cast_signed()
    }
}

fn boot() -> BootNanos {
    let now = clock_gettime(ClockId::Boottime);
    // Both parts are non-negative on this clock (clock_gettime(2)).
    BootNanos(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}

fn wall() -> UnixMicros {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0); // a clock before 1970 reads as 1970
    UnixMicros(seconds.saturating_mul(1_000_000).saturating_add(now.tv_nsec.cast_unsigned() / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_advances_and_starts_at_the_wall() {
        let clock = Clock::start();
        let (boot, unix) = (clock.boot(), clock.unix());
        assert!(clock.boot() >= boot && clock.unix() >= unix);
        assert!(clock.wall_ahead().abs() < 1_000_000_000, "the wall clock did not step during this test");
    }
}
