//! The broker's time: the wall clock read once, advanced by `CLOCK_BOOTTIME`, so that no step of the wall clock ever
//! shortens or lengthens a lease.

use caps::time::{BootNanos, UnixMicros};
use rustix::time::{ClockId, clock_gettime};

/// Where the time of commands comes from. It never goes back.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> UnixMicros;
}

impl<F: Fn() -> UnixMicros + Send + Sync> Clock for F {
    fn now(&self) -> UnixMicros {
        self()
    }
}

/// The machine's clock, free of steps.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    wall: UnixMicros,
    boot: BootNanos,
}

impl SteadyClock {
    /// Reads the wall clock, for the only time.
    #[must_use]
    pub fn sample() -> Self {
        Self { wall: UnixMicros(nanos(ClockId::Realtime) / 1_000), boot: boot_now() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> UnixMicros {
        self.wall.plus(boot_now().since(self.boot))
    }
}

fn boot_now() -> BootNanos {
    BootNanos(nanos(ClockId::Boottime))
}

/// Nanoseconds of a clock that cannot fail: both are there on every Linux that we run on.
fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "the real clock")]
    fn time_begins_at_the_wall_clock_and_does_not_go_back() {
        let clock = SteadyClock::sample();
        let first = clock.now();
        assert!(first >= clock.wall && clock.wall > UnixMicros(1_600_000_000_000_000), "after 2020");
        assert!((0..1_000).map(|_| clock.now()).is_sorted());
    }
}
