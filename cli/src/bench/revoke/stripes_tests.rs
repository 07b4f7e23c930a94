//! The writers' own tests: whether they notice what they are there to notice. Not in their file, which the end-to-end
//! tests of rotation compile as well.

use std::os::fd::OwnedFd;

use libmem::{Access, Mapping, Revocation, Segment};
use rustix::fs::MemfdFlags;

use super::stripes::{Found, LINE_BYTES, Stripes, WORD_BYTES};

const BYTES: usize = 4096;

/// Plain memory under the mapping that leases have.
fn memory() -> Mapping {
    let descriptor: OwnedFd = rustix::fs::memfd_create("stripes", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&descriptor, BYTES as u64).unwrap();
    let segment = Segment { descriptor, bytes: BYTES as u64 };
    Mapping::new(vec![segment], Access::ReadWrite, Revocation::new()).unwrap()
}

/// Writes so many rounds, and part of one more.
fn advance(stripes: &mut Stripes, memory: &Mapping, rounds: u64, more: u64) {
    stripes.write(memory, rounds * stripes.words + more).unwrap();
}

#[test]
fn stripes_cover_the_region_once() {
    for writers in [1, 3, 4] {
        let mut owners = vec![0; BYTES / WORD_BYTES];
        for writer in 0..writers {
            let stripes = Stripes::new(writer, writers, BYTES).unwrap();
            (0..stripes.words).for_each(|word| owners[stripes.offset(word) / WORD_BYTES] += 1);
        }
        assert!(owners.iter().all(|&count| count == 1), "{writers} writers");
    }
    assert!(Stripes::new(4, 4, BYTES).is_err());
    assert!(Stripes::new(1, 2, LINE_BYTES).is_err());
}

#[test]
fn what_was_written_is_whole_at_every_point_of_a_round() {
    let memory = memory();
    let mut all: Vec<_> = (0..3).map(|writer| Stripes::new(writer, 3, BYTES).unwrap()).collect();
    for (rounds, more) in [(0, 0), (0, 5), (1, 0), (2, 17), (1, 0)] {
        for stripes in &mut all {
            advance(stripes, &memory, rounds, more);
        }
        for stripes in &all {
            let found = stripes.verify(&memory).unwrap();
            assert_eq!(found, Found { whole: stripes.steps(), ..Found::default() });
        }
    }
}

#[test]
fn a_lost_write_and_a_torn_one_are_told_apart() {
    let memory = memory();
    let mut stripes = Stripes::new(1, 2, BYTES).unwrap();
    advance(&mut stripes, &memory, 2, 3);
    let words = stripes.words;
    let (first, third) = (stripes.offset(0), stripes.offset(3));
    let expect = |lost, torn| {
        let found = stripes.verify(&memory).unwrap();
        assert_eq!(found, Found { whole: stripes.steps() - lost - torn, lost, torn });
    };
    let (last, before) = (stripes.number(2 * words + 1), stripes.number(words + 1));
    assert_eq!(memory.load_u64(first).unwrap(), last);
    expect(0, 0);
    memory.store_u64(first, before).unwrap();
    expect(1, 0);
    memory.store_u64(first, 0).unwrap(); // a fresh page in its place
    expect(1, 0);
    memory.store_u64(first, last & 0xffff_ffff | before & !0xffff_ffff).unwrap();
    expect(0, 1);
    memory.store_u64(first, last).unwrap();
    // A number of this writer's in a word where it does not belong, or from the future.
    memory.store_u64(third, before).unwrap();
    expect(0, 1);
    memory.store_u64(third, stripes.number(3 * words + 4)).unwrap();
    expect(0, 1);
    // Another writer's.
    memory.store_u64(third, Stripes::new(0, 2, BYTES).unwrap().number(4)).unwrap();
    expect(0, 1);
}
#[test]
fn a_lost_write_that_is_written_over_is_found_all_the_same() {
    let memory = memory();
    let mut stripes = Stripes::new(0, 2, BYTES).unwrap();
    advance(&mut stripes, &memory, 2, 0);
    let (lost, torn) = (stripes.offset(5), stripes.offset(7));
    memory.store_u64(lost, stripes.number(6)).unwrap();
    memory.store_u64(torn, 1).unwrap();
    advance(&mut stripes, &memory, 2, 0);
    let found = stripes.verify(&memory).unwrap();
    assert_eq!(found, Found { whole: 4 * stripes.words - 2, lost: 1, torn: 1 });
}
