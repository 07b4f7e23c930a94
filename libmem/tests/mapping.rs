//! Mappings of real memory: what they contain, what they refuse, what the kernel says about them.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use caps::error::Code;
use common::{map, memfd, page, segment};
use libmem::{Access, Mapping, Revocation, Segment};
use proptest::prelude::*;

/// The lines of `/proc/self/smaps` about the mapping that starts at this address: its line of `maps`, and its
/// flags.
fn kernel_view(mapping: &Mapping) -> Option<(String, String)> {
    let start = format!("{:x}-", mapping.as_ptr() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let head = lines.next()?.to_owned();
    Some((head, lines.find(|line| line.starts_with("VmFlags:")).unwrap().to_owned()))
}

#[test]
fn the_kernel_sees_shared_memory_without_execution_and_without_dumps() {
    let fd = memfd(4);
    for (access, protection) in [(Access::Read, " r--s "), (Access::ReadWrite, " rw-s ")] {
        let mapping = map(&fd, 4, access);
        let (head, flags) = kernel_view(&mapping).unwrap();
        assert!(head.contains(protection), "{head}");
        assert!(flags.contains(" dd"), "not in core dumps: {flags}");
        assert!(!flags.contains(" dc"), "a forked child inherits: {flags}");
    }
}

#[test]
fn dropping_unmaps() {
    let fd = memfd(600);
    let mapping = map(&fd, 600, Access::ReadWrite);
    let start = mapping.as_ptr() as usize;
    drop(mapping);
    // Other tests map meanwhile, but only this one has a file of this inode.
    let inode = rustix::fs::fstat(&fd).unwrap().st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let left = maps.lines().find(|line| line.split_whitespace().nth(4) == Some(&inode));
    assert_eq!(left, None, "start was {start:x}");
}

#[test]
fn segments_lie_side_by_side_in_order() {
    let pages = [3, 1, 512, 2];
    let files: Vec<_> = pages.iter().map(|&pages| memfd(pages)).collect();
    for (index, (fd, &pages)) in files.iter().zip(&pages).enumerate() {
        map(fd, pages, Access::ReadWrite).write_at(0, &vec![index as u8 + 1; pages * page()]).unwrap();
    }
    let segments = files.iter().zip(pages).map(|(fd, pages)| segment(fd, pages)).collect();
    let mapping = Mapping::new(segments, Access::ReadWrite, Revocation::new()).unwrap();
    assert_eq!(mapping.len(), 518 * page());
    assert_eq!(mapping.as_ptr() as usize % (2 << 20), 0);
    let mut got = vec![0; mapping.len()];
    mapping.read_at(0, &mut got).unwrap();
    let want: Vec<u8> =
        pages.iter().enumerate().flat_map(|(index, &pages)| vec![index as u8 + 1; pages * page()]).collect();
    assert!(got == want);
    // One write across a border reaches both files.
    mapping.write_at(3 * page() - 8, &[9; 16]).unwrap();
    let mut end = [0; 8];
    map(&files[0], 3, Access::Read).read_at(3 * page() - 8, &mut end).unwrap();
    assert_eq!(end, [9; 8]);
    map(&files[1], 1, Access::Read).read_at(0, &mut end).unwrap();
    assert_eq!(end, [9; 8]);
    // A cut segment fails, and says so even if the access began in a living one.
    common::cut(&files[1]);
    assert_eq!(mapping.read_at(0, &mut got).unwrap_err().code(), Code::Revoked);
}

#[test]
fn ranges_outside_are_refused() {
    let fd = memfd(2);
    let mapping = map(&fd, 2, Access::ReadWrite);
    let length = mapping.len();
    mapping.read_at(length, &mut []).unwrap();
    mapping.write_at(length, &[]).unwrap();
    mapping.read_at(length - 1, &mut [0]).unwrap();
    for (offset, bytes) in
        [(length, 1), (length - 1, 2), (length + 1, 0), (usize::MAX, 1), (usize::MAX, 0), (0, length + 1)]
    {
        let mut buffer = vec![0; bytes];
        assert_eq!(mapping.read_at(offset, &mut buffer).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.write_at(offset, &buffer).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.volatile().part(offset, bytes).err().unwrap().code(), Code::Range);
    }
    for offset in [1, 4, 7, length, length - 4, usize::MAX, usize::MAX - 7] {
        assert_eq!(mapping.load_u64(offset).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.store_u64(offset, 1).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.fetch_add_u64(offset, 1).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.compare_exchange_u64(offset, 0, 1).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.volatile().load_u64(offset).unwrap_err().code(), Code::Range);
        assert_eq!(mapping.volatile().store_u64(offset, 1).unwrap_err().code(), Code::Range);
    }
    assert!(!mapping.revocation().is_revoked(), "a wrong range is no revoke");
}

#[test]
fn read_only_mappings_refuse_writes() {
    let fd = memfd(2);
    map(&fd, 2, Access::ReadWrite).write_at(0, &[5; 16]).unwrap();
    let mut mapping = map(&fd, 2, Access::Read);
    assert_eq!(mapping.write_at(0, &[1]).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.write_at(0, &[]).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.store_u64(0, 1).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.fetch_add_u64(0, 1).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.compare_exchange_u64(0, 0, 1).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.volatile().store_u8(0, 1).unwrap_err().code(), Code::Denied);
    assert_eq!(mapping.volatile().store_u64(0, 1).unwrap_err().code(), Code::Denied);
    // SAFETY: refused, so no slice is made.
    assert_eq!(unsafe { mapping.as_mut_slice() }.unwrap_err().code(), Code::Denied);
    let mut got = [0; 16];
    mapping.read_at(0, &mut got).unwrap();
    assert_eq!(got, [5; 16]);
    // SAFETY: nobody writes to the file any more.
    assert_eq!(unsafe { &mapping.as_slice()[..16] }, [5; 16]);
}

#[test]
fn lengths_that_no_mapping_has_are_refused() {
    let code = |segments| Mapping::new(segments, Access::Read, Revocation::new()).unwrap_err().code();
    assert_eq!(code(vec![]), Code::Range);
    for bytes in [0, 1, page() as u64 - 1, page() as u64 + 1, u64::MAX] {
        assert_eq!(code(vec![Segment { descriptor: memfd(1), bytes }]), Code::Range);
    }
    let huge = 1 << 63;
    assert_eq!(code((0..2).map(|_| Segment { descriptor: memfd(1), bytes: huge }).collect()), Code::Range);
    assert_eq!(
        code(vec![Segment { descriptor: memfd(1), bytes: libmem::mapping::MAPPING_BYTES_MAX * 2 }]),
        Code::Range
    );
}

#[test]
fn words_are_never_torn_and_never_lost() {
    let fd = memfd(1);
    let (a, b) = (map(&fd, 1, Access::ReadWrite), map(&fd, 1, Access::ReadWrite));
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..200_000u64 {
                a.store_u64(0, if turn % 2 == 0 { 0 } else { u64::MAX }).unwrap();
                a.fetch_add_u64(8, 1).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let swapper = scope.spawn(|| {
            let mut swaps = 0;
            while !done.load(Ordering::Acquire) {
                let value = b.load_u64(8).unwrap();
                swaps += u64::from(b.compare_exchange_u64(8, value, value + 1).unwrap() == value);
            }
            swaps
        });
        while !done.load(Ordering::Acquire) {
            let word = b.load_u64(0).unwrap();
            assert!(word == 0 || word == u64::MAX, "{word:x}");
            let raw = b.volatile().load_u64(0).unwrap();
            assert!(raw == 0 || raw == u64::MAX, "{raw:x}");
        }
        swapper.join().unwrap()
    });
    assert_eq!(a.load_u64(8).unwrap(), 200_000 + swaps);
}

#[test]
fn the_volatile_view_is_the_same_memory() {
    let fd = memfd(2);
    let mapping = map(&fd, 2, Access::ReadWrite);
    let view = mapping.volatile();
    assert_eq!((view.len(), view.is_empty()), (2 * page(), false));
    view.store_u64(16, 0x0102_0304_0506_0708).unwrap();
    view.store_u8(24, 0xaa).unwrap();
    assert_eq!(mapping.load_u64(16).unwrap(), 0x0102_0304_0506_0708);
    let part = view.part(16, 9).unwrap();
    assert_eq!((part.load_u64(0).unwrap(), part.load_u8(8).unwrap()), (0x0102_0304_0506_0708, 0xaa));
    assert_eq!(part.load_u8(9).unwrap_err().code(), Code::Range);
    assert_eq!(part.part(1, 8).unwrap().load_u64(0).unwrap_err().code(), Code::Range, "misaligned in memory");
    assert!(part.part(9, 0).unwrap().is_empty());
}

/// One step of the model test: a write of these bytes, or a read of that many.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Read(usize, usize),
    Add(usize, u64),
}

fn step(length: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..length + 8, prop::collection::vec(any::<u8>(), 0..5000))
            .prop_map(|(at, bytes)| Step::Write(at, bytes)),
        (0..length + 8, 0usize..5000).prop_map(|(at, bytes)| Step::Read(at, bytes)),
        (0..length / 8, any::<u64>()).prop_map(|(word, value)| Step::Add(word * 8, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A mapping of three segments behaves as one vector of bytes does.
    #[test]
    fn like_a_vector(steps in prop::collection::vec(step(3 * page()), 1..40)) {
        let files = [memfd(1), memfd(1), memfd(1)];
        let segments = files.iter().map(|fd| segment(fd, 1)).collect();
        let mapping = Mapping::new(segments, Access::ReadWrite, Revocation::new()).unwrap();
        let mut model = vec![0u8; 3 * page()];
        for step in steps {
            match step {
                Step::Write(at, bytes) => match model.get_mut(at..at + bytes.len()) {
                    Some(target) => {
                        target.copy_from_slice(&bytes);
                        mapping.write_at(at, &bytes).unwrap();
                    }
                    None => prop_assert_eq!(mapping.write_at(at, &bytes).unwrap_err().code(), Code::Range),
                },
                Step::Read(at, bytes) => {
                    let mut got = vec![0; bytes];
                    match model.get(at..at + bytes) {
                        Some(want) => {
                            mapping.read_at(at, &mut got).unwrap();
                            prop_assert_eq!(want, got);
                        }
                        None => prop_assert_eq!(mapping.read_at(at, &mut got).unwrap_err().code(), Code::Range),
                    }
                }
                Step::Add(at, value) => {
                    let word = u64::from_ne_bytes(model[at..at + 8].try_into().unwrap());
                    prop_assert_eq!(mapping.fetch_add_u64(at, value).unwrap(), word);
                    model[at..at + 8].copy_from_slice(&word.wrapping_add(value).to_ne_bytes());
                }
            }
        }
        let mut all = vec![0; model.len()];
        mapping.read_at(0, &mut all).unwrap();
        prop_assert!(all == model);
    }
}
