//! The life of regions, without clients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use caps::error::Code;
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::mem::{Access, Holder, Tier, process};
use rustix::fs::fstat;

use crate::harness::{POOL_BYTES, config, start};

const LEN: u64 = 64 << 10;

/// Around every border of pages, huge pages and pieces.
pub(crate) fn region_is_fresh_zeroed_and_exact() {
    let memory = start();
    let huge = 2 << 20;
    for wanted in
        [1, 4095, 4096, 4097, 20 << 10, LEN, huge - 4096, huge - 1, huge, huge + 1, 3 * huge + 4097, 33 << 20]
    {
        let region = memory.region(wanted).unwrap();
        let len = wanted.next_multiple_of(4096);
        assert_eq!(region.len(), len);
        assert!(memory.tier() == Tier::Open || region.coverage().is_complete());
        let stat = fstat(region.own_descriptor()).unwrap();
        assert_eq!((stat.st_size as u64, stat.st_blocks as u64 * 512), (len, len), "every page is there");
        assert_eq!(stat.st_nlink, u64::from(memory.tier() == Tier::Open), "a sealed file has no name");
        let mut bytes = vec![1; len as usize];
        assert_eq!(region.read_at(0, &mut bytes).unwrap(), len as usize);
        assert!(bytes.iter().all(|byte| *byte == 0), "fresh memory is zero");
        // Dirty it, so that a recycled page would show in the next round.
        bytes.fill(0xEE);
        assert_eq!(region.write_at(0, &bytes).unwrap(), len as usize);
        // The file system has not one page more.
        let more = rustix::io::pwrite(region.own_descriptor(), b"x", len);
        assert_eq!(more.unwrap_err(), rustix::io::Errno::NOSPC);
    }
    assert_eq!(memory.region(0).unwrap_err().code(), Code::Range);
    assert_eq!(memory.region(u64::MAX).unwrap_err().code(), Code::Range);
}

pub(crate) fn steps_come_in_order() {
    let memory = start();
    let region = memory.region(LEN).unwrap();
    let fresh = memory.region(LEN).unwrap();
    region.write_at(0, b"kept").unwrap();
    assert_eq!(region.wipe().unwrap_err().code(), Code::Internal);
    assert_eq!(region.shut().unwrap_err().code(), Code::Internal);
    assert_eq!(region.copy_to(&fresh).unwrap_err().code(), Code::Internal);
    let _ = region.cut().unwrap();
    let other = memory.region(2 * LEN).unwrap();
    assert_eq!(region.copy_to(&other).unwrap_err().code(), Code::Internal);
    if region.coverage().is_complete() {
        assert_eq!(region.copy_to(&fresh).unwrap(), LEN);
        let mut bytes = [0; 4];
        fresh.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");
    }
    // Twice is as good as once.
    let _ = region.cut().unwrap();
    let _ = region.shut().unwrap();
    assert_eq!(region.wipe().unwrap(), region.coverage().pinned);
    assert_eq!(region.wipe().unwrap(), region.coverage().pinned);
    assert_eq!(
        region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap_err().code(),
        Code::Revoked
    );
}

/// What was there at the cut can be read by the provider, as often as it likes, until it is wiped.
pub(crate) fn what_is_pinned_is_read_after_the_cut() {
    const BYTES: u64 = 3 << 20;
    let memory = start();
    let region = memory.region(BYTES).unwrap();
    let pattern: Vec<u8> = (0..BYTES).map(|i| (i / 4096 + i) as u8).collect();
    region.write_at(0, &pattern).unwrap();
    let mut bytes = vec![0; 70_000];
    assert_eq!(region.read_dead(0, &mut bytes).unwrap_err().code(), Code::Internal, "before the cut");
    let _ = region.cut().unwrap();
    let pinned = region.coverage().pinned;
    assert!(pinned >= bytes.len() as u64);
    for offset in [0, 1, 4095, 4096, pinned - 70_000, 0] {
        region.read_dead(offset, &mut bytes).unwrap();
        assert!(bytes == pattern[offset as usize..][..70_000], "{offset}");
    }
    for offset in [pinned - 69_999, pinned, u64::MAX] {
        assert_eq!(region.read_dead(offset, &mut bytes).unwrap_err().code(), Code::Range, "{offset}");
    }
    assert_eq!(region.wipe().unwrap(), pinned);
    region.read_dead(pinned - 70_000, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
}

pub(crate) fn mediated_access_ends_with_the_cut() {
    let memory = start();
    let region = memory.region(200_000).unwrap();
    let len = region.len();
    let pattern: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    assert_eq!(region.write_at(0, &pattern).unwrap(), pattern.len());
    let mut bytes = vec![0; pattern.len()];
    assert_eq!(region.read_at(0, &mut bytes).unwrap(), pattern.len());
    assert!(bytes == pattern);
    // Truncated at the end, nothing beyond it, no overflow.
    assert_eq!(region.read_at(len - 3, &mut bytes).unwrap(), 3);
    assert_eq!(region.write_at(len - 3, b"12345").unwrap(), 3);
    for offset in [len, len + 1, u64::MAX] {
        assert_eq!(region.read_at(offset, &mut bytes).unwrap(), 0);
        assert_eq!(region.write_at(offset, b"x").unwrap(), 0);
    }
    assert_eq!(fstat(region.own_descriptor()).unwrap().st_size as u64, len);
    let _ = region.cut().unwrap();
    assert_eq!(region.read_at(0, &mut bytes[..1]).unwrap_err().code(), Code::Revoked);
    assert_eq!(region.write_at(0, b"x").unwrap_err().code(), Code::Revoked);
    assert_eq!(fstat(region.own_descriptor()).unwrap().st_blocks, 0);
}

/// Writers and readers race a cut, many times. Whatever they were doing, the file is empty when the cut returns and
/// stays so.
pub(crate) fn no_mediated_write_survives_a_cut() {
    let memory = start();
    for _ in 0..300 {
        let region = memory.region(LEN).unwrap();
        let started = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let full = vec![0xAB; LEN as usize];
                    while region.write_at(0, &full).is_ok() {
                        started.store(true, Ordering::SeqCst);
                    }
                });
            }
            scope.spawn(|| {
                let mut bytes = vec![0; LEN as usize];
                while let Ok(n) = region.read_at(0, &mut bytes) {
                    assert_eq!(n as u64, LEN);
                }
            });
            while !started.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let _ = region.cut().unwrap();
            let stat = fstat(region.own_descriptor()).unwrap();
            assert_eq!((stat.st_size, stat.st_blocks), (0, 0));
        });
        let stat = fstat(region.own_descriptor()).unwrap();
        assert_eq!((stat.st_size, stat.st_blocks), (0, 0), "a write outlived the cut");
    }
}

pub(crate) fn pool_is_a_limit_and_comes_back() {
    let memory = start();
    let half = POOL_BYTES / 2;
    for _ in 0..3 {
        let first = memory.region(half).unwrap();
        let second = memory.region(half).unwrap();
        assert_eq!(memory.region(1).unwrap_err().code(), Code::NoMemory);
        second.close();
        let small = memory.region(1).unwrap();
        assert_eq!(memory.region(half).unwrap_err().code(), Code::NoMemory);
        drop((first, small));
    }
    assert_eq!(memory.region(POOL_BYTES + 1).unwrap_err().code(), Code::NoMemory);
    // The table is a limit as well.
    let regions: Vec<_> = (0..256).map(|_| memory.region(1).unwrap()).collect();
    assert_eq!(memory.region(1).unwrap_err().code(), Code::NoMemory);
    drop(regions);
    memory.region(1).unwrap().close();
}

pub(crate) fn threads_make_regions_side_by_side() {
    let memory = start();
    thread::scope(|scope| {
        for byte in 0..6_u8 {
            let memory = memory.clone();
            scope.spawn(move || {
                for round in 0..40 {
                    let len = if round % 8 == 0 { 4 << 20 } else { LEN };
                    let region = memory.region(len).unwrap();
                    region.write_at(0, &[byte]).unwrap();
                    drop(region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap());
                    let mut seen = [0xFF; 2];
                    region.read_at(0, &mut seen).unwrap();
                    assert_eq!(seen, [byte, 0], "a region is nobody else's");
                    let _ = region.cut().unwrap();
                    let _ = region.shut().unwrap();
                    assert_eq!(region.wipe().unwrap(), region.coverage().pinned);
                }
            });
        }
    });
    // Everything came back.
    memory.region(POOL_BYTES).unwrap().close();
}

/// Giving back is not waited for, and goes over whichever channel is free; asking again must find it all the same.
pub(crate) fn what_was_given_back_is_there_for_who_asks_next() {
    const THREADS: u64 = 6;
    let memory = start();
    let rest = memory.region(POOL_BYTES - THREADS * LEN).unwrap();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..300 {
                    let region = memory.region(LEN);
                    region.unwrap_or_else(|error| panic!("round {round}: {error}")).close();
                }
            });
        }
    });
    rest.close();
}

pub(crate) fn factory_wants_a_single_thread() {
    let error = thread::scope(|scope| {
        scope.spawn(|| Factory::spawn(config(Namespace::WhenNeeded)).unwrap_err()).join().unwrap()
    });
    assert_eq!(error.code(), Code::Internal);
}

pub(crate) fn factory_refuses_impossible_bounds() {
    let refused = |pool_bytes_max, regions_max| {
        let config = FactoryConfig { pool_bytes_max, regions_max, namespace: Namespace::WhenNeeded };
        Factory::spawn(config).unwrap_err().code()
    };
    assert_eq!(refused(1 << 60, 1), Code::ConfigValue);
    assert_eq!(refused(1 << 20, u32::MAX), Code::ConfigValue);
}

pub(crate) fn capabilities_say_what_is_missing() {
    let memory = start();
    let capabilities = memory.capabilities();
    assert_eq!(capabilities.tier(), memory.tier());
    assert!(capabilities.checks().len() >= 9);
    for check in capabilities.checks() {
        assert!(
            !check.found.is_empty() && !check.advice.is_empty() && !check.advice.contains('\n'),
            "{check:?}"
        );
    }
}

pub(crate) fn process_leaves_no_core() {
    process::no_core_dumps().unwrap();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    let dumpable = rustix::process::dumpable_behavior().unwrap();
    assert_eq!(dumpable, rustix::process::DumpableBehavior::NotDumpable);
    process::swap_is_on().unwrap();
}
