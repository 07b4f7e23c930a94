//! Words that the provider changes while clients change them through their mappings, and while regions are cut.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use caps::error::Code;
use provider::mem::{Access, Change, Holder, Memory, Region, Tier};

use crate::client::{Client, READ_WRITE, map};
use crate::harness::{NOBODY, start};

const LEN: u64 = 64 << 10;

pub(crate) fn only_whole_words_are_changed() {
    let memory = start();
    let region = memory.region(LEN).unwrap();
    let change = |offset, change| region.change_word(offset, change, || Ok(())).map_err(|error| error.code());
    assert_eq!(change(8, Change::Add(5)), Ok(0));
    assert_eq!(change(8, Change::Swap { expected: 4, desired: 9 }), Ok(5));
    assert_eq!(change(8, Change::Swap { expected: 5, desired: u64::MAX }), Ok(5));
    assert_eq!(change(8, Change::Add(3)), Ok(u64::MAX));
    assert_eq!(change(LEN - 8, Change::Add(1)), Ok(0));
    for offset in [1, 4, 7, 12, LEN - 7, LEN - 4, LEN, LEN + 8, u64::MAX - 7, u64::MAX] {
        assert_eq!(change(offset, Change::Add(1)), Err(Code::Range), "{offset}");
    }
    let mut bytes = vec![0; LEN as usize];
    region.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes[8..16], 2_u64.to_ne_bytes());
    assert_eq!(bytes.iter().filter(|&&byte| byte != 0).count(), 2, "and nothing else");
    // What is written another way is what is changed.
    region.write_at(16, &7_u64.to_ne_bytes()).unwrap();
    assert_eq!(change(16, Change::Add(1)), Ok(7));
    // Whoever says no at the end has it left alone.
    let no = || Err(caps::error::Error::new(Code::Denied, "not wanted any more"));
    assert_eq!(region.change_word(16, Change::Add(1), no).map_err(|error| error.code()), Err(Code::Denied));
    assert_eq!(change(16, Change::Add(0)), Ok(8));
    let _ = region.cut().unwrap();
    assert_eq!(change(8, Change::Add(1)), Err(Code::Revoked));
}

/// Threads change a word until the cut that races them stops them, many times. The provider's own mapping dies with the
/// cut, and none of them is killed by that; what they were told was changed is what the pages had.
pub(crate) fn every_change_before_a_cut_is_kept() {
    let memory = start();
    for round in 0..300 {
        let region = memory.region(LEN).unwrap();
        let (changed, began) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        match region.change_word(LEN / 2, Change::Add(1), || Ok(())) {
                            Ok(_) => changed.fetch_add(1, Ordering::SeqCst),
                            Err(error) => break assert_eq!(error.code(), Code::Revoked),
                        };
                        began.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            // The first cuts meet the threads while they map the region, the later ones at work.
            while began.load(Ordering::SeqCst) < round / 10 {
                std::hint::spin_loop();
            }
            let _ = region.cut().unwrap();
        });
        let mut word = [0; 8];
        region.read_dead(LEN / 2, &mut word).unwrap();
        assert_eq!(u64::from_ne_bytes(word), changed.into_inner(), "round {round}");
    }
}

/// Adds to a word by the instructions of a client, and says to another page how often, until it is killed.
fn add_until_killed(at: *mut u8, tally: *mut u8, mut began: impl FnMut()) {
    // SAFETY: the first words of two mappings that this test made and never unmaps, aligned as pages are. Others use them
    // by such instructions alone. The end of the first is SIGBUS, of which this process dies.
    let (word, tally) = unsafe { (AtomicU64::from_ptr(at.cast()), AtomicU64::from_ptr(tally.cast())) };
    for number in 0_u64.. {
        word.fetch_add(1, Ordering::SeqCst);
        tally.fetch_add(1, Ordering::SeqCst);
        if number == 20_000 {
            began();
        }
    }
}

/// A survivor's changes of the same word: in its upper half, those of the clients in its lower.
const UPPER: u64 = 1 << 32;

/// Each round a client adds to a word through its mapping, and threads of the provider add to it and swap another, while
/// the region is rotated. Every change is in the last file: all of the provider's, and of the clients' all that they had
/// counted, with at most one more each, between which and its count it was killed.
pub(crate) fn no_change_is_lost_to_a_rotation() {
    const ROUNDS: usize = 8;
    let scenes = [LEN, 4 << 20].map(|bytes| {
        let page = rustix::fs::memfd_create("tally", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&page, 4096).unwrap();
        let tally = map(&page, 4096, READ_WRITE).unwrap();
        let client = |_| {
            Client::fork(NOBODY, |line| {
                let at = map(line.take(), bytes as usize, READ_WRITE).unwrap();
                add_until_killed(at, tally, || line.say(b'r'));
            })
        };
        (bytes, tally, (0..ROUNDS).map(client).collect())
    });
    let memory = start();
    for (bytes, tally, clients) in scenes {
        rotate_among(clients, &memory, bytes, tally);
    }
}

fn rotate_among(clients: Vec<Client>, memory: &Memory, bytes: u64, tally: *mut u8) {
    let holder = if memory.tier() == Tier::Sealed { Holder::OtherUser } else { Holder::SameUser };
    let rounds = clients.len() as u64;
    let current = RwLock::new(Arc::new(memory.region(bytes).unwrap()));
    let region = || current.read().unwrap().clone();
    let (stop, added, swapped) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    // One change, in whichever file is there; until it was made it was not.
    let change = |offset, change| {
        loop {
            match region().change_word(offset, change, || Ok(())) {
                Ok(before) => return before,
                Err(error) => assert_eq!(error.code(), Code::Revoked),
            }
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    change(0, Change::Add(UPPER));
                    added.fetch_add(1, Ordering::SeqCst);
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let expected = change(bytes - 8, Change::Add(0));
                    let swap = Change::Swap { expected, desired: expected + 1 };
                    if change(bytes - 8, swap) == expected {
                        swapped.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for client in clients {
            let old = region();
            client.line.give(old.client_descriptor(Access::ReadWrite, holder).unwrap().as_fd());
            client.line.hear(b'r');
            let _ = old.cut().unwrap();
            client.dies_of_sigbus();
            *current.write().unwrap() = Arc::new(copy(memory, &old));
        }
        stop.store(true, Ordering::SeqCst);
    });
    // SAFETY: the tally's page, which is mapped to the end of this process.
    let counted = unsafe { AtomicU64::from_ptr(tally.cast()) }.load(Ordering::SeqCst);
    let sum = change(0, Change::Add(0));
    assert_eq!(sum / UPPER, added.into_inner(), "the provider's own");
    assert!((counted..=counted + rounds).contains(&(sum % UPPER)), "{} of {counted}", sum % UPPER);
    assert_eq!(change(bytes - 8, Change::Add(0)), swapped.into_inner());
}

fn copy(memory: &Memory, old: &Region) -> Region {
    let fresh = memory.region(old.len()).unwrap();
    assert_eq!(old.copy_to(&fresh).unwrap(), old.len());
    fresh
}

/// Bytes of shared memory that are present in this process.
fn present_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// However many pages of however many regions clients change words of, the provider does not look as large as they are.
pub(crate) fn words_that_were_changed_are_not_counted_as_the_providers() {
    const REGIONS: u64 = 16;
    const LEN: u64 = 1 << 20; // below a huge page
    let memory = start();
    let regions: Vec<Region> = (0..REGIONS).map(|_| memory.region(LEN).unwrap()).collect();
    let before = present_bytes();
    for round in 0..2 {
        for region in &regions {
            for offset in (0..LEN).step_by(4096) {
                assert_eq!(region.change_word(offset, Change::Add(1), || Ok(())), Ok(round));
            }
        }
    }
    let most = policy::limits::WORD_PAGES_MAX as u64 * rustix::param::page_size() as u64;
    let present = present_bytes().saturating_sub(before);
    assert!(present <= most, "{present} bytes of {}", REGIONS * LEN);
}
