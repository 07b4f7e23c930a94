//! The kernel's part in waiting: sleep while words keep their values, wake who sleeps.
//!
//! ```text
//! sleep ──futex_waitv──▶ │ low half of the shared word │ ROTATIONS (private) │  until: a wake-up, a change,
//!                                                                               a rotation, a time
//! ```
//!
//! A word has 8 bytes and a futex 4: the futex is the word's first half, which is the low one on both architectures.
//! Whoever sleeps is told nothing: it looks at the word again, under guard, whatever ended the sleep.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{self, Timespec, Wait, WaitFlags, WaitPtr, WaitvFlags};

use super::limits::{POLL, RING_LANES_MAX};
use super::rotation::ROTATIONS;

#[cfg(not(target_endian = "little"))]
compile_error!("the futex of a word is its low half, which lies first on little-endian machines only");

/// A word of leased memory as the kernel sees it, and the low half of what it held.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    pub(super) address: *mut u32,
    pub(super) seen: u32,
}

/// That `futex_waitv` is not to be had here. Set once.
static WAITV_MISSING: AtomicBool = AtomicBool::new(false);

/// Sleeps for at most `at_most`, unless one of the words or the count of rotations is not as given, or somebody
/// wakes one of them. Every way to return means: look again.
///
/// If the pages of a word are gone, it returns within a millisecond; the caller's guarded look then brings them
/// back or says `E_REVOKED`.
///
/// # Errors
/// `E_SYSTEM` if the kernel refuses to wait for a reason that should not exist.
pub(super) fn sleep(words: &[Watched], rotations: u32, at_most: Duration) -> Result<()> {
    if !WAITV_MISSING.load(Ordering::Relaxed) {
        match sleep_on_all(words, rotations, at_most) {
            // A filter that does not know the call may say EPERM.
            Err(Errno::NOSYS | Errno::PERM) => WAITV_MISSING.store(true, Ordering::Relaxed),
            result => return looked(result, rotations),
        }
    }
    sleep_without_waitv(words, rotations, at_most)
}

/// [`sleep`] for kernels before 5.16. A rotation does not end it, so the caller must bound `at_most`.
pub(super) fn sleep_without_waitv(words: &[Watched], rotations: u32, at_most: Duration) -> Result<()> {
    match words {
        [word] => looked(sleep_on_one(*word, at_most), rotations),
        _ => {
            sleep_on_rotations(rotations, at_most.min(POLL));
            Ok(())
        }
    }
}

fn sleep_on_all(words: &[Watched], rotations: u32, at_most: Duration) -> Result<(), Errno> {
    debug_assert!(words.len() <= RING_LANES_MAX);
    let mut waits = [Wait::new(); RING_LANES_MAX + 1];
    let (last, first) = waits.split_last_mut().expect("one more than the lanes");
    for (wait, word) in first.iter_mut().zip(words) {
        wait.val = u64::from(word.seen);
        wait.uaddr = WaitPtr::new(word.address.cast());
        wait.flags = WaitFlags::SIZE_U32;
    }
    last.val = u64::from(rotations);
    last.uaddr = WaitPtr::new(ROTATIONS.as_ptr().cast());
    last.flags = WaitFlags::SIZE_U32 | WaitFlags::PRIVATE;
    let used = words.len().min(RING_LANES_MAX);
    waits.swap(used, RING_LANES_MAX);
    let until = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic) + timespec(at_most);
    futex::waitv(&waits[..=used], WaitvFlags::empty(), Some(&until), ClockId::Monotonic).map(drop)
}

fn sleep_on_one(word: Watched, at_most: Duration) -> Result<(), Errno> {
    let timeout = timespec(at_most);
    // SAFETY: the kernel reads four bytes at the address by itself and says EFAULT if there are none; it writes
    // nothing. `timeout` is a timespec that lives until the call is over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.address,
            libc::FUTEX_WAIT,
            word.seen,
            &raw const timeout,
            ptr::null::<u32>(),
            0,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn sleep_on_rotations(rotations: u32, at_most: Duration) {
    // Whatever ends it, the caller looks again.
    let _ = futex::wait(&ROTATIONS, futex::Flags::PRIVATE, rotations, Some(&timespec(at_most)));
}

/// What a sleep's end means to the caller.
fn looked(result: Result<(), Errno>, rotations: u32) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => Ok(()),
        Err(Errno::FAULT) => {
            // The pages are gone. Should the kernel say so while guarded access finds them, this pause is what
            // keeps the caller from spinning.
            sleep_on_rotations(rotations, POLL);
            Ok(())
        }
        Err(errno) => Err(refused(errno)),
    }
}

/// Wakes up to `count` sleepers of the word at this address. `false`: the pages are gone, nobody was woken.
///
/// # Errors
/// `E_SYSTEM` as in [`sleep`].
pub(super) fn wake(address: *mut u32, count: u32) -> Result<bool> {
    // SAFETY: the kernel only asks which page of which file lies at the address.
    let result = unsafe { libc::syscall(libc::SYS_futex, address, libc::FUTEX_WAKE, count) };
    if result >= 0 {
        return Ok(true);
    }
    match last_errno() {
        Errno::FAULT => Ok(false),
        errno => Err(refused(errno)),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn refused(errno: Errno) -> Error {
    Error::with(Code::System, format!("futex failed with errno {}", errno.raw_os_error()))
}

fn timespec(duration: Duration) -> Timespec {
    // Lossless: no wait is longer than a day.
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::mapping::Access;
    use crate::sync::rotation;
    use crate::sync::testing::{File, LONG, Sleeper};
    use crate::sync::word::Word;

    #[test]
    fn one_word_is_enough_without_waitv() {
        let mapping = File::new(1).map(Access::ReadWrite);
        let word = Word::new(&mapping, 8);
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let sleeps = scope
                .spawn(|| sleeper.run(|| sleep_without_waitv(&[word.watched(0)], rotation::count(), LONG)));
            sleeper.wait_until_asleep();
            let began = Instant::now();
            word.store(1).unwrap();
            word.wake(1).unwrap();
            sleeps.join().unwrap().unwrap();
            assert!(began.elapsed() < LONG / 2);
        });
        // Changed before the sleep; several words, which is a short sleep; and a word that is not there.
        sleep_without_waitv(&[word.watched(0)], rotation::count(), LONG).unwrap();
        sleep_without_waitv(&[word.watched(1), word.watched(1)], rotation::count(), LONG).unwrap();
    }

    #[test]
    fn any_of_many_words_ends_the_sleep() {
        let mapping = File::new(2).map(Access::ReadWrite);
        let words: Vec<_> = (0..RING_LANES_MAX).map(|line| Word::new(&mapping, line * 64)).collect();
        for chosen in [0, 1, RING_LANES_MAX - 1] {
            let seen = words[chosen].load().unwrap();
            let watched: Vec<_> = words.iter().map(|word| word.watched(word.load().unwrap()).seen).collect();
            let sleeper = Sleeper::new();
            std::thread::scope(|scope| {
                let sleeps = scope.spawn(|| {
                    let all: Vec<_> =
                        words.iter().zip(&watched).map(|(word, &seen)| word.watched(seen.into())).collect();
                    let began = Instant::now();
                    // Rotations of other tests may end a sleep early, as they may anywhere.
                    while words[chosen].load().unwrap() == seen {
                        sleeper.run(|| sleep(&all, rotation::count(), LONG)).unwrap();
                    }
                    began.elapsed()
                });
                sleeper.wait_until_asleep();
                words[chosen].store(seen + 1).unwrap();
                words[chosen].wake(1).unwrap();
                assert!(sleeps.join().unwrap() < LONG / 2);
            });
        }
    }

    #[test]
    fn words_that_are_gone_cost_a_moment() {
        let file = File::new(1);
        let mapping = file.map(Access::ReadWrite);
        let word = Word::new(&mapping, 0);
        file.cut();
        let began = Instant::now();
        sleep(&[word.watched(0)], rotation::count(), LONG).unwrap();
        sleep_without_waitv(&[word.watched(0)], rotation::count(), LONG).unwrap();
        assert!(began.elapsed() < LONG / 2);
        assert!(!wake(word.watched(0).address, 1).unwrap());
        assert_eq!(word.wake(1).unwrap_err().code(), Code::Revoked);
    }
}
