//! The lock between threads: bounds, owners that are silent, rotation, and any word at all.

use std::time::Duration;

use caps::error::{Code, Result};

use super::{HELD, Lock, POISONED, WAITED};
use crate::mapping::Access;
use crate::sync::limits::LOCK_PATIENCE_MS_MIN;
use crate::sync::testing::{File, LONG, Sleeper, promptly};

const PATIENCE: Duration = Duration::from_millis(LOCK_PATIENCE_MS_MIN);

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

#[test]
fn patience_and_place_have_bounds() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let millis = Duration::from_millis;
    for patience in [Duration::ZERO, millis(9), millis(60_001), Duration::MAX] {
        assert_eq!(code(Lock::new(&mapping, 0, patience)), Code::Range, "{patience:?}");
    }
    assert_eq!(code(Lock::new(&mapping, 32, millis(10))), Code::Range);
    Lock::new(&mapping, mapping.len() - 64, millis(60_000)).unwrap();
}

#[test]
fn one_owner_at_a_time_and_tokens_grow() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, LONG).unwrap();
    let first = lock.try_lock().unwrap();
    assert_eq!(code(lock.try_lock()), Code::Busy);
    assert_eq!(code(lock.lock(Duration::from_millis(20))), Code::Timeout);
    let token = first.token();
    first.release().unwrap();
    let mut second = lock.lock(Duration::ZERO).unwrap();
    assert!(second.token() > token && !second.is_recovered());
    second.renew().unwrap();
    assert!(second.check().unwrap() <= LONG);
    let token = second.token();
    drop(second);
    assert!(lock.try_lock().unwrap().token() > token);
}

#[test]
fn a_release_wakes_who_sleeps() {
    promptly(wake_a_waiter);
}

fn wake_a_waiter() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock { recheck: LONG, ..Lock::new(&mapping, 0, LONG).unwrap() };
    let guard = lock.try_lock().unwrap();
    let sleeper = Sleeper::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(|guard| guard.is_recovered())));
        sleeper.wait_until_asleep();
        guard.release().unwrap();
        assert!(!waiter.join().unwrap().unwrap());
    });
    assert_eq!(mapping.load_u64(0).unwrap() & (HELD | POISONED), 0);
}

#[test]
fn a_rotation_keeps_the_owner_and_the_waiters() {
    promptly(rotate_under_a_waiter);
}

fn rotate_under_a_waiter() {
    let mut file = File::new(1);
    let mapping = file.map(Access::ReadWrite);
    let lock = Lock { recheck: LONG, ..Lock::new(&mapping, 0, LONG).unwrap() };
    for _ in 0..20 {
        let guard = lock.try_lock().unwrap();
        let sleeper = Sleeper::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(|guard| guard.token())));
            sleeper.wait_until_asleep();
            // Until the waiter has said that it waits, it writes; after that it only sleeps.
            while mapping.load_u64(0).unwrap() & WAITED == 0 {
                std::thread::yield_now();
            }
            file = std::mem::replace(&mut file, File::new(1)).rotate(&[&mapping]);
            guard.check().unwrap();
            let token = guard.token();
            guard.release().unwrap();
            assert!(waiter.join().unwrap().unwrap() > token);
        });
    }
}

#[test]
fn a_cut_ends_the_wait_and_the_ownership() {
    let file = File::new(1);
    let mapping = file.map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, LONG).unwrap();
    let mut guard = lock.try_lock().unwrap();
    let sleeper = Sleeper::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| sleeper.run(|| lock.lock(LONG).map(drop)));
        sleeper.wait_until_asleep();
        file.cut();
        assert_eq!(code(waiter.join().unwrap()), Code::Revoked);
    });
    assert_eq!(code(guard.check()), Code::Revoked);
    assert_eq!(code(guard.renew()), Code::Revoked);
    assert_eq!(code(guard.release()), Code::Revoked);
}

#[test]
fn a_silent_owner_loses_it_and_learns_it() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, PATIENCE).unwrap();
    let mut late = lock.try_lock().unwrap();
    let taken = lock.lock(LONG).unwrap();
    assert!(taken.is_recovered() && taken.token() > late.token());
    assert_eq!(code(late.check()), Code::Timeout);
    assert_eq!(code(late.renew()), Code::Timeout);
    assert_eq!(code(late.release()), Code::Timeout);
    assert_eq!(code(lock.try_lock()), Code::Busy, "the late owner released nothing");
    drop(taken);
    // Not repaired, so the next one hears of it too; then repaired, and nobody does.
    let mut next = lock.try_lock().unwrap();
    assert!(next.is_recovered());
    next.repaired();
    drop(next);
    assert!(!lock.try_lock().unwrap().is_recovered());
}

#[test]
fn an_owner_that_renews_keeps_it() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, Duration::from_secs(2)).unwrap();
    let mut owner = lock.try_lock().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lock.lock(Duration::from_millis(3_500)).map(drop));
        while !waiter.is_finished() {
            owner.renew().expect("renewed in time");
            std::thread::yield_now();
        }
        assert_eq!(code(waiter.join().unwrap()), Code::Timeout);
    });
    owner.check().unwrap();
}

#[test]
fn a_panic_poisons() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, LONG).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _guard = lock.try_lock().unwrap();
            panic!("on purpose");
        });
        thread.join().unwrap_err();
    });
    assert!(lock.try_lock().unwrap().is_recovered());
}

#[test]
fn every_word_is_a_lock() {
    // Whatever a peer writes: an owner after the patience at most, or an error, and turns that wrap.
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, PATIENCE).unwrap();
    for word in [0, HELD, WAITED, POISONED, u64::MAX, u64::MAX - HELD, u64::MAX << 3, 1 << 63] {
        mapping.store_u64(0, word).unwrap();
        let mut guard = lock.lock(LONG).unwrap();
        assert_eq!(guard.is_recovered(), word & (HELD | POISONED) != 0, "{word:x}");
        guard.renew().unwrap();
        guard.release().unwrap();
    }
}

#[test]
fn counts_are_exact_under_threads() {
    let mapping = File::new(1).map(Access::ReadWrite);
    let lock = Lock::new(&mapping, 0, LONG).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let guard = lock.lock(LONG).unwrap();
                    // Not atomic as a whole: only the lock makes it so.
                    let value = mapping.load_u64(64).unwrap();
                    mapping.store_u64(64, value + 1).unwrap();
                    guard.release().unwrap();
                }
            });
        }
    });
    assert_eq!(mapping.load_u64(64).unwrap(), 8_000);
}
