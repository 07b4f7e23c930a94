//! What a slot is for, on several threads: an operation writes into a region that is a plain word here, and whoever fences
//! the slot wipes it once the last operation has left. Nothing orders the two but the slot, so a sanitizer sees its every
//! weakening; `.ci/tsan` runs this. That all interleavings are right is the model check's, beside the slot.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use provider::slot::Slot;

const WRITERS: usize = 3;
const RIGHTS: u32 = if cfg!(miri) { 3 } else { 200 };

/// One word for each writer, as clients write to parts of their own.
struct Region([UnsafeCell<u32>; WRITERS]);

// SAFETY: a word is touched by its writer inside an operation, and by the owner when the slot is drained: the slot keeps
// the two apart, which is what is tested.
unsafe impl Sync for Region {}

impl Region {
    /// # Safety
    /// Nobody else touches this writer's word meanwhile.
    unsafe fn write(&self, writer: usize, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { *self.0[writer].get() = value };
    }
}

#[test]
fn an_operation_is_over_before_the_wipe_and_begins_after_it() {
    let slot = Slot::new();
    let region = Region(Default::default());
    // Relaxed throughout: these two order nothing.
    let (now, wrote) = (AtomicU32::new(1), AtomicU64::new(0));
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (slot, region, now, wrote) = (&slot, &region, &now, &wrote);
            scope.spawn(move || {
                loop {
                    let generation = now.load(Ordering::Relaxed);
                    if generation > RIGHTS {
                        break;
                    }
                    let Some(_inside) = slot.enter(generation) else {
                        thread::yield_now();
                        continue;
                    };
                    // SAFETY: the owner waits until this operation has left, and other writers have other words.
                    unsafe { region.write(writer, u32::MAX) };
                    wrote.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for generation in 1..=RIGHTS {
            now.store(generation, Ordering::Relaxed);
            for writer in 0..WRITERS {
                // SAFETY: the slot is closed and drained, so nobody is inside.
                unsafe { region.write(writer, 0) };
            }
            assert!(slot.open(generation));
            let before = wrote.load(Ordering::Relaxed);
            while wrote.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            slot.fence();
            while !slot.is_drained() {
                thread::yield_now();
            }
        }
        now.store(RIGHTS + 1, Ordering::Relaxed);
    });
}
