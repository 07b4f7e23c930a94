//! Waiting awake for a moment before sleeping, where what is waited for mostly comes at once.
//!
//! Who sleeps has to be woken: an idle processor takes longer for that than a small request takes in all. So whoever was
//! just served looks a little longer, as long as that pays and costs nobody else anything:
//!
//! - for at most [`EAGER_US_MAX`] at a time;
//! - not while anybody else wants the processor: it is offered between two looks, and if it was taken, it is slept;
//! - not again soon, if nothing came: after each miss in a row twice as many waits are slept at once, up to
//!   [`EAGER_SKIPPED_MAX`];
//! - not at all on one processor, where it would keep away the one who is waited for.

use std::time::{Duration, Instant};

use caps::limits::{EAGER_SKIPPED_MAX, EAGER_US_MAX};

/// An offer of the processor that takes longer than this in microseconds was taken: a call of the kernel takes less.
const TAKEN_US: u64 = 5;
/// Pauses between two looks, in which a processor that shares its core leaves it to the other one.
const PAUSES: u32 = 16;

/// Somebody who waits over and over for the same peer, or the same peers.
#[derive(Debug)]
pub struct Eager {
    alone: bool,
    /// Waits that are slept at once.
    skip: u32,
    /// How many that will be after the next miss.
    next: u32,
}

impl Default for Eager {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

impl Eager {
    /// On so many processors.
    #[must_use]
    pub const fn new(processors: usize) -> Self {
        Self { alone: processors < 2, skip: 0, next: 1 }
    }

    /// Looks a few times, without sleeping. What `look` found; `None` if it is time to sleep.
    pub fn wait<T>(&mut self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.alone {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        let until = Instant::now() + Duration::from_micros(EAGER_US_MAX);
        loop {
            if let Some(found) = look() {
                self.next = 1;
                return Some(found);
            }
            let offered = Instant::now();
            if offered >= until {
                break;
            }
            std::thread::yield_now();
            if offered.elapsed() > Duration::from_micros(TAKEN_US) {
                break;
            }
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
        }
        self.skip = self.next;
        self.next = (self.next * 2).min(EAGER_SKIPPED_MAX);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_never_rewarded_mostly_sleeps_at_once() {
        let mut eager = Eager::new(2);
        let mut awake = 0;
        let waits = 4 * EAGER_SKIPPED_MAX;
        for _ in 0..waits {
            let mut looked = false;
            let none: Option<()> = eager.wait(|| {
                looked = true;
                None
            });
            assert_eq!(none, None);
            awake += u32::from(looked);
        }
        // After 1, 2, 4 .. 64 that were slept, and then every 65th.
        assert!((7..=10).contains(&awake), "{awake} of {waits}");
    }

    #[test]
    fn who_is_rewarded_stays_awake_and_begins_anew_after_a_miss() {
        let mut eager = Eager::new(2);
        let miss = |eager: &mut Eager| eager.wait(|| None::<()>);
        let hit = |eager: &mut Eager| eager.wait(|| Some(())).is_some();
        assert!(hit(&mut eager) && hit(&mut eager));
        miss(&mut eager);
        assert!(!hit(&mut eager), "one is slept");
        assert!(hit(&mut eager) && hit(&mut eager));
        for _ in 0..5 {
            miss(&mut eager);
        }
        while !hit(&mut eager) {}
        miss(&mut eager);
        assert!(!hit(&mut eager) && hit(&mut eager), "one again, not as many as before");
    }

    #[test]
    fn a_wait_for_nothing_ends_and_on_one_processor_nobody_looks() {
        let mut looks = 0;
        let mut look = || {
            looks += 1;
            None::<()>
        };
        assert!(Eager::new(1).wait(&mut look).is_none());
        assert!(Eager::new(2).wait(&mut look).is_none());
        assert!(looks > 0);
        assert!(Eager::new(1).wait(|| Some(())).is_none());
        assert!(Eager::new(2).wait(|| Some(())).is_some());
    }
}
