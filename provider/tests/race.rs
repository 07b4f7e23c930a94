//! The alarm of the thread sanitizer: a race made on purpose, which `.ci/tsan` expects to be reported. If the sanitizer
//! were silent here, its silence about everything else would mean nothing.
//!
//! The race is the one that matters to shared memory and that no processor with strong ordering shows: bytes handed over
//! by a flag whose store does not release them. Its twin hands them over properly and must not be reported.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// What one thread writes and then hands to another.
#[derive(Default)]
struct Letter {
    text: UnsafeCell<u64>,
    sent: AtomicBool,
    read: AtomicBool,
}

// SAFETY: whoever writes `text` does so before it sets `sent`, and whoever reads it has seen `sent`. That the flag also
// orders the two is what one test leaves out, on purpose.
unsafe impl Sync for Letter {}

fn wait_for(flag: &AtomicBool, order: Ordering) {
    while !flag.load(order) {
        thread::yield_now();
    }
}

fn hand_over(store: Ordering, load: Ordering) -> u64 {
    let letter = &Letter::default();
    thread::scope(|scope| {
        scope.spawn(move || {
            // The whole letter is shared, which is what is `Sync`.
            let Letter { text, sent, read } = letter;
            // SAFETY: nobody reads before `sent` is set, which is below.
            unsafe { *text.get() = 7 };
            sent.store(true, store);
            // A thread's end orders what it did, for the sanitizer too, so it lives until the letter was read.
            wait_for(read, Ordering::Relaxed);
        });
        wait_for(&letter.sent, load);
        // SAFETY: `sent` is set, so nobody writes any more.
        let text = unsafe { *letter.text.get() };
        letter.read.store(true, Ordering::Relaxed);
        text
    })
}

#[test]
fn what_is_handed_over_is_no_race() {
    assert_eq!(hand_over(Ordering::Release, Ordering::Acquire), 7);
}

#[test]
#[ignore = "a race on purpose; .ci/tsan runs it and wants it reported"]
fn what_is_left_lying_is_a_race() {
    hand_over(Ordering::Relaxed, Ordering::Relaxed);
}
