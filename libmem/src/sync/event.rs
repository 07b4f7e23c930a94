//! An event: a count that goes up, and those who wait for it.

use std::time::Duration;

use caps::error::Result;

use super::Mapped;
use super::deadline::Deadline;
use super::limits::{LINE_BYTES, RECHECK, SPINS};
use super::rotation;
use super::word::{Word, check_range};

/// Something that happens again and again, counted in shared memory.
///
/// ```text
/// offset  0        8                              64
///         ├ count ─┼──────────── unused ──────────┤
/// ```
///
/// `count` is a little-endian `u64`, wrapping; all zero bytes are an event that never happened. To wait is to read, so
/// holders of a read-only mapping can wait; to notify is to write.
///
/// A waiter never misses a notification: it says which count it has seen, and does not sleep if there is a newer
/// one. Several notifications may end one wait; the count says how many there were.
///
/// ```
/// # use std::time::Duration;
/// # use libmem::{Access, Mapping, Revocation, Segment};
/// use libmem::sync::Event;
/// # let descriptor = rustix::fs::memfd_create("doc", rustix::fs::MemfdFlags::CLOEXEC)?;
/// # rustix::fs::ftruncate(&descriptor, 1 << 16)?;
/// # let mapping = Mapping::new(vec![Segment { descriptor, bytes: 1 << 16 }], Access::ReadWrite, Revocation::new())?;
///
/// let event = Event::new(&mapping, 0)?;
/// let seen = event.count()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| event.notify_all()); // as a rule in another process
///     event.wait(seen, Duration::from_secs(5))
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Event<M> {
    memory: M,
    offset: usize,
    recheck: Duration,
}

impl<M: Mapped> Event<M> {
    /// Bytes of an event: one cache line.
    pub const BYTES: usize = LINE_BYTES;

    /// The event at `offset`, a multiple of 64.
    ///
    /// # Errors
    /// `E_RANGE` if it does not lie in the mapping or on a cache line.
    pub fn new(memory: M, offset: usize) -> Result<Self> {
        check_range(memory.mapping(), offset, Self::BYTES)?;
        Ok(Self { memory, offset, recheck: RECHECK })
    }

    /// How often it happened.
    ///
    /// # Errors
    /// `E_REVOKED`.
    pub fn count(&self) -> Result<u64> {
        self.word().load()
    }

    /// Waits until the count is not `seen`, and returns it.
    ///
    /// # Errors
    /// `E_TIMEOUT` after `timeout` (at most a day); `E_REVOKED` at most 50 ms after the memory was taken back.
    pub fn wait(&self, seen: u64, timeout: Duration) -> Result<u64> {
        let word = self.word();
        let deadline = Deadline::after(timeout);
        let mut spins = SPINS;
        loop {
            let rotations = rotation::count();
            let count = word.load()?;
            if count != seen {
                return Ok(count);
            }
            let left = deadline.left()?;
            if spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
                continue;
            }
            word.sleep(seen, rotations, left.min(self.recheck))?;
        }
    }

    /// Counts one more and wakes one waiter, if there is one.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping; `E_REVOKED`.
    pub fn notify_one(&self) -> Result<()> {
        self.notify(1)
    }

    /// Counts one more and wakes every waiter, in every process.
    ///
    /// # Errors
    /// As [`Event::notify_one`].
    pub fn notify_all(&self) -> Result<()> {
        self.notify(i32::MAX as u32)
    }

    fn notify(&self, sleepers: u32) -> Result<()> {
        // The count first: whoever goes to sleep after it finds the kernel comparing with the new count.
        self.word().fetch_add(1)?;
        self.word().wake(sleepers)
    }

    fn word(&self) -> Word<'_> {
        Word::new(self.memory.mapping(), self.offset)
    }
}

#[cfg(test)]
mod tests {
    use caps::error::Code;

    use super::*;
    use crate::mapping::Access;
    use crate::sync::testing::{File, LONG, Sleeper, promptly};

    #[test]
    fn places_outside_and_between_lines_are_refused() {
        let mapping = File::new(1).map(Access::ReadWrite);
        for offset in [8, 63, mapping.len(), mapping.len() - 8, usize::MAX, usize::MAX - 63] {
            assert_eq!(Event::new(&mapping, offset).unwrap_err().code(), Code::Range, "{offset}");
        }
        Event::new(&mapping, mapping.len() - 64).unwrap();
    }

    #[test]
    fn a_reader_waits_and_may_not_notify() {
        promptly(wake_a_reader);
    }

    fn wake_a_reader() {
        let file = File::new(1);
        let (writer, reader) = (file.map(Access::ReadWrite), file.map(Access::Read));
        let (notifies, waits) = (Event::new(&writer, 64).unwrap(), Event::new(&reader, 64).unwrap());
        assert_eq!(waits.notify_one().unwrap_err().code(), Code::Denied);
        let sleeper = &Sleeper::new();
        std::thread::scope(|scope| {
            // Only a wake-up through the kernel can end this wait in time.
            let waits = Event { recheck: LONG, ..waits };
            let waiter = scope.spawn(move || sleeper.run(|| waits.wait(0, LONG)));
            sleeper.wait_until_asleep();
            notifies.notify_one().unwrap();
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        });
    }

    #[test]
    fn a_rotation_wakes_and_the_word_goes_on() {
        promptly(rotate_under_a_sleeper);
    }

    fn rotate_under_a_sleeper() {
        let mut file = File::new(2);
        let (here, there) = (file.map(Access::ReadWrite), file.map(Access::ReadWrite));
        // On the second page, so that it is not the only thing in its file. No look in between: only the rotation's
        // wake-up can end the first sleep, which is on the old file.
        let notifies = Event::new(&here, 4096).unwrap();
        let waits = Event { recheck: LONG, ..Event::new(&there, 4096).unwrap() };
        for round in 0..20 {
            let sleeper = Sleeper::new();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| sleeper.run(|| waits.wait(round, LONG)));
                sleeper.wait_until_asleep();
                file = std::mem::replace(&mut file, File::new(1)).rotate(&[&here, &there]);
                notifies.notify_one().unwrap();
                assert_eq!(waiter.join().unwrap().unwrap(), round + 1);
            });
        }
    }

    #[test]
    fn a_sleeper_that_nobody_wakes_looks_by_itself() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let event = Event::new(&mapping, 0).unwrap();
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sleeper.run(|| event.wait(0, LONG)));
            sleeper.wait_until_asleep();
            // The peer counts and dies before it wakes.
            mapping.fetch_add_u64(0, 1).unwrap();
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        });
    }

    #[test]
    fn a_cut_ends_a_wait() {
        let file = File::new(1);
        let mapping = file.map(Access::ReadWrite);
        let event = Event::new(&mapping, 0).unwrap();
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sleeper.run(|| event.wait(0, LONG)));
            sleeper.wait_until_asleep();
            file.cut();
            assert_eq!(waiter.join().unwrap().unwrap_err().code(), Code::Revoked);
        });
        assert_eq!(event.notify_all().unwrap_err().code(), Code::Revoked);
    }

    #[test]
    fn a_wait_ends_in_time_and_what_happened_before_needs_none() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let event = Event::new(&mapping, 0).unwrap();
        assert_eq!(event.wait(0, Duration::ZERO).unwrap_err().code(), Code::Timeout);
        assert_eq!(event.wait(0, Duration::from_millis(120)).unwrap_err().code(), Code::Timeout);
        event.notify_all().unwrap();
        event.notify_all().unwrap();
        assert_eq!(event.wait(0, Duration::MAX).unwrap(), 2);
    }
}
