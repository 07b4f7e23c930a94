//! Tier `sealed`: a client of another user with mmap-only descriptors, and all it can try.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, types};
use provider::factory::{Factory, Namespace};
use provider::mem::{Access, Holder, Memory, Region, Shut, Strength, Tier};

use crate::client::{Client, Line, READ, READ_WRITE, load, map, refused, store, void};
use crate::harness::{NOBODY, config, start, start_as};

const LEN: usize = 64 << 10;

fn give(line: &Line, region: &Region, access: Access) {
    line.give(region.client_descriptor(access, Holder::OtherUser).unwrap().as_fd());
}

pub(crate) fn root_gets_every_protection() {
    let memory = start();
    assert_eq!(memory.tier(), Tier::Sealed);
    let region = memory.region(1).unwrap();
    for holder in [Holder::OtherUser, Holder::SameUser, Holder::Sandboxed] {
        assert_eq!(region.tier(holder), Tier::Sealed);
    }
    let weak: Vec<_> = memory.capabilities().checks().iter().filter(|check| !check.ok).collect();
    assert!(weak.is_empty(), "{weak:?}");
}

pub(crate) fn client_maps_and_every_attack_fails() {
    let client = Client::fork(NOBODY, |line| {
        let (rw, ro) = (line.take(), line.take());
        let at = map(&rw, LEN, READ_WRITE).unwrap();
        assert_eq!((load(at, 0), load(at, LEN - 1)), (b'a', b'z'));
        store(at, 5, b'!');
        let at_ro = map(&ro, LEN, READ).unwrap();
        assert_eq!(load(at_ro, 5), b'!');
        attack_calls(&rw);
        attack_calls(&ro);
        attack_mappings(&rw, &ro, at, at_ro);
        // After all that the mapping still is what it was.
        assert_eq!((load(at, 0), load(at_ro, LEN - 1)), (b'a', b'z'));
        line.say(b'd');
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    region.write_at(0, b"a").unwrap();
    region.write_at(LEN as u64 - 1, b"z").unwrap();
    give(&client.line, &region, Access::ReadWrite);
    give(&client.line, &region, Access::ReadOnly);
    client.line.hear(b'd');
    client.succeeds();
    let mut seen = [0; 6];
    region.read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"a\0\0\0\0!");
    let stat = rustix::fs::fstat(region.own_descriptor()).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks * 512), (LEN as i64, LEN as i64));
}

/// Every call on the descriptor itself.
fn attack_calls(fd: &OwnedFd) {
    let raw = fd.as_raw_fd();
    let mut byte = [0_u8; 1];
    let (buffer, constant) = (byte.as_mut_ptr().cast(), byte.as_ptr().cast());
    let mut pipe = [0; 2];
    // SAFETY: plain calls on descriptors and a live one-byte buffer; they are expected to fail, and `refused` checks
    // each result before the next call can change errno.
    unsafe {
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        assert_eq!(libc::write(pipe[1], b"x".as_ptr().cast(), 1), 1);
        refused("ftruncate to nothing", libc::ftruncate(raw, 0).into());
        refused("ftruncate longer", libc::ftruncate(raw, 1 << 30).into());
        refused("fallocate", libc::fallocate(raw, 0, 0, 1 << 20).into());
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        refused("punch", libc::fallocate(raw, punch, 0, 4096).into());
        refused("zero range", libc::fallocate(raw, libc::FALLOC_FL_ZERO_RANGE, 0, 4096).into());
        refused("collapse", libc::fallocate(raw, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096).into());
        refused("pwrite", libc::pwrite(raw, constant, 1, 0) as i64);
        refused("pread", libc::pread(raw, buffer, 1, 0) as i64);
        refused("write", libc::write(raw, constant, 1) as i64);
        refused("read", libc::read(raw, buffer, 1) as i64);
        let nil = std::ptr::null_mut();
        refused("splice in", libc::splice(pipe[0], nil, raw, nil, 1, 0) as i64);
        refused("splice out", libc::splice(raw, nil, pipe[1], nil, 1, 0) as i64);
        refused("sendfile", libc::sendfile(pipe[1], raw, nil, 1) as i64);
        refused("fsync", libc::fsync(raw).into());
        refused("fchmod", libc::fchmod(raw, 0o666).into());
        refused("fchown", libc::fchown(raw, NOBODY, NOBODY).into());
        let flags: libc::c_long = 0;
        refused("clear the immutable flag", libc::ioctl(raw, libc::FS_IOC_SETFLAGS, &raw const flags).into());
        let path = format!("/proc/self/fd/{raw}\0");
        for flags in [libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            refused("reopen", libc::open(path.as_ptr().cast(), flags).into());
        }
        let target = c"/tmp/leasehold-test-link";
        let at = libc::AT_FDCWD;
        refused(
            "link",
            libc::linkat(at, path.as_ptr().cast(), at, target.as_ptr(), libc::AT_SYMLINK_FOLLOW).into(),
        );
        refused("truncate by path", libc::truncate(path.as_ptr().cast(), 0).into());
        libc::close(pipe[0]);
        libc::close(pipe[1]);
    }
}

fn attack_mappings(rw: &OwnedFd, ro: &OwnedFd, at: *mut u8, at_ro: *mut u8) {
    let exec = libc::PROT_EXEC;
    assert_eq!(map(rw, LEN, READ | exec), Err(libc::EPERM));
    assert_eq!(map(ro, LEN, READ | exec), Err(libc::EPERM));
    assert_eq!(map(ro, LEN, READ_WRITE), Err(libc::EACCES));
    // SAFETY: calls on mappings that this test made; refused ones change nothing, and the page that MADV_REMOVE would
    // free is one whose loss `client_maps_and_every_attack_fails` would notice.
    unsafe {
        assert_eq!(refused("mprotect exec", libc::mprotect(void(at), LEN, READ | exec).into()), libc::EACCES);
        assert_eq!(
            refused("mprotect write", libc::mprotect(void(at_ro), LEN, READ_WRITE).into()),
            libc::EACCES
        );
        refused("MADV_REMOVE", libc::madvise(void(at), 4096, libc::MADV_REMOVE).into());
        refused("MADV_REMOVE read-only", libc::madvise(void(at_ro), 4096, libc::MADV_REMOVE).into());
        // Growing a mapping past the file gives addresses, not memory.
        let grown = libc::mremap(void(at_ro), LEN, 2 * LEN, libc::MREMAP_MAYMOVE);
        assert_ne!(grown, libc::MAP_FAILED);
        let beyond = grown.cast::<u8>().add(LEN);
        let mut pipe = [0; 2];
        assert_eq!(libc::pipe(pipe.as_mut_ptr()), 0);
        refused("read past the end", libc::write(pipe[1], beyond.cast(), 1) as i64);
        let back = libc::mremap(grown, 2 * LEN, LEN, 0);
        assert_eq!(back, grown);
        assert_eq!(
            libc::mremap(back, LEN, LEN, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, void(at_ro)),
            void(at_ro)
        );
    }
}

pub(crate) fn cut_is_sigbus() {
    let reader = Client::fork(NOBODY, |line| {
        let at = map(line.take(), LEN, READ).unwrap();
        assert_eq!(load(at, 0), 7);
        line.say(b'm');
        loop {
            load(at, LEN - 1);
        }
    });
    let writer = Client::fork(NOBODY, |line| {
        let at = map(line.take(), LEN, READ_WRITE).unwrap();
        store(at, 1, 7);
        line.say(b'm');
        loop {
            store(at, 0, 7);
        }
    });
    let sleeper = Client::fork(NOBODY, |line| {
        let fd = line.take();
        let at = map(&fd, LEN, READ_WRITE).unwrap();
        store(at, 1, 7);
        line.say(b'm');
        line.hear(b'c');
        // A new mapping of the dead file is as dead as the old one.
        let again = map(&fd, LEN, READ).unwrap();
        line.say(b'm');
        load(again, 0);
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    region.write_at(0, &[7]).unwrap();
    give(&reader.line, &region, Access::ReadOnly);
    give(&writer.line, &region, Access::ReadWrite);
    give(&sleeper.line, &region, Access::ReadWrite);
    [&reader, &writer, &sleeper].iter().for_each(|client| client.line.hear(b'm'));
    let _ = region.cut().unwrap();
    reader.dies_of_sigbus();
    writer.dies_of_sigbus();
    sleeper.line.say(b'c');
    sleeper.line.hear(b'm');
    sleeper.dies_of_sigbus();
    assert_eq!(region.shut().unwrap(), Shut::NotNeeded);
    assert_eq!(region.wipe().unwrap(), LEN as u64);
}

/// The client pins pages itself, by two pipes and by io_uring. Before the wipe it reads the old bytes (so this test
/// tests something), afterwards zeros.
pub(crate) fn wipe_reaches_what_a_client_pinned() {
    let client = Client::fork(NOBODY, |line| {
        let at = map(line.take(), LEN, READ_WRITE).unwrap();
        let (before, after) = (pinned_by_pipe(at), pinned_by_pipe(at));
        let ring = pinned_by_ring(at);
        line.say(b'p');
        line.hear(b'c');
        assert_eq!(from_pipe(&before), [9; 16], "the cut alone leaves pinned pages");
        assert_eq!(from_ring(&ring, at), [9; 16]);
        line.say(b'o');
        line.hear(b'w');
        assert_eq!(from_pipe(&after), [0; 16]);
        assert_eq!(from_ring(&ring, at), [0; 16]);
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    region.write_at(0, &[9; LEN]).unwrap();
    give(&client.line, &region, Access::ReadWrite);
    client.line.hear(b'p');
    let _ = region.cut().unwrap();
    client.line.say(b'c');
    client.line.hear(b'o');
    assert_eq!(region.wipe().unwrap(), LEN as u64);
    client.line.say(b'w');
    client.succeeds();
}

fn pinned_by_pipe(at: *mut u8) -> OwnedFd {
    let (out, into) = rustix::pipe::pipe().unwrap();
    let piece = libc::iovec { iov_base: void(at), iov_len: 4096 };
    // SAFETY: vmsplice(2) reads one iovec that names a page of a mapping the caller made.
    assert_eq!(unsafe { libc::vmsplice(into.as_raw_fd(), &raw const piece, 1, 0) }, 4096);
    // The other end stays open in this process for its whole life.
    std::mem::forget(into);
    out
}

fn from_pipe(pipe: &OwnedFd) -> [u8; 16] {
    let mut bytes = [1; 16];
    rustix::io::read(pipe, &mut bytes).unwrap();
    bytes
}

fn pinned_by_ring(at: *mut u8) -> IoUring {
    let ring = IoUring::new(2).unwrap();
    let piece = libc::iovec { iov_base: void(at), iov_len: LEN };
    // SAFETY: the buffer is a mapping that lives as long as this process.
    unsafe { ring.submitter().register_buffers(&[piece]) }.unwrap();
    ring
}

fn from_ring(ring: &IoUring, at: *mut u8) -> [u8; 16] {
    let (out, into) = rustix::pipe::pipe().unwrap();
    let write = opcode::WriteFixed::new(types::Fd(into.as_raw_fd()), at, 16, 0).build();
    // SAFETY: this thread alone uses the ring, and waits for the request's end before it returns.
    unsafe { ring.submission_shared().push(&write).unwrap() };
    ring.submit_and_wait(1).unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { ring.completion_shared().next() }.unwrap().result(), 16);
    from_pipe(&out)
}

/// A writer stores increasing numbers until it is cut, and keeps the last completed one in a page of its own. The fresh region must
/// hold every completed one. This also shows that a pin outlives its mapping and its file's pages.
pub(crate) fn rotation_loses_no_write() {
    rotate_under_a_writer(Strength::Best);
}

/// Where io_uring is not to be had, pipes hold the pages: nothing is lost either, and nothing is wiped.
pub(crate) fn rotation_by_pipes_loses_no_write() {
    rotate_under_a_writer(Strength::PipesOnly);
}

fn rotate_under_a_writer(strength: Strength) {
    const BYTES: usize = 4 << 20;
    let client = Client::fork(NOBODY, |line| {
        let at = map(line.take(), BYTES, READ_WRITE).unwrap();
        let shared = map(line.take(), 4096, READ_WRITE).unwrap().cast::<u64>();
        for number in 1_u64.. {
            let place = (number as usize % (BYTES / 8)) * 8;
            // SAFETY: an aligned place inside the mapping; SIGBUS ends the process.
            unsafe { at.add(place).cast::<u64>().write_volatile(number) };
            // SAFETY: an aligned word of the ordinary shared page. It is stored after the store above completed
            // (volatile stores of one thread are in program order, and x86 and the fence keep them so).
            unsafe {
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                shared.write_volatile(number);
            }
            if number == 200_000 {
                line.say(b'r');
            }
        }
    });
    let tally = rustix::fs::memfd_create("tally", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&tally, 4096).unwrap();
    let last = map(&tally, 4096, READ).unwrap().cast::<u64>();
    let memory = start_as(strength).unwrap();
    assert_eq!(memory.tier(), Tier::Sealed);
    let region = memory.region(BYTES as u64).unwrap();
    let fresh = memory.region(BYTES as u64).unwrap();
    assert!(region.coverage().is_rotatable());
    assert_eq!(region.coverage().is_complete(), strength == Strength::Best);
    give(&client.line, &region, Access::ReadWrite);
    client.line.give(tally.as_fd());
    client.line.hear(b'r');
    let _ = region.cut().unwrap();
    client.dies_of_sigbus();
    assert_eq!(region.copy_to(&fresh).unwrap(), BYTES as u64);
    assert_eq!(region.wipe().unwrap(), if strength == Strength::Best { BYTES as u64 } else { 0 });
    region.close();
    // SAFETY: a live mapping of the tally.
    let last = unsafe { last.read_volatile() };
    assert!(last >= 200_000);
    let mut bytes = vec![0; BYTES];
    assert_eq!(fresh.read_at(0, &mut bytes).unwrap(), BYTES);
    let words = (BYTES / 8) as u64;
    for number in last.saturating_sub(words - 1).max(1)..=last {
        let place = (number % words) as usize * 8;
        let found = u64::from_ne_bytes(bytes[place..place + 8].try_into().unwrap());
        assert!(found == number || found == number + words, "store {number} of {last} is lost: {found}");
    }
}

pub(crate) fn descriptor_is_made_once() {
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let first = region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap();
    let one = open();
    let second = region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap();
    assert_eq!((one - before, open() - one), (2, 1), "one is kept, and each holder gets one");
    drop((first, second));
    let _ = region.cut().unwrap();
    let error = region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap_err();
    assert_eq!(error.code(), caps::error::Code::Revoked);
    region.close();
    assert_eq!(open(), before - 1, "a closed region keeps no descriptor");
}

pub(crate) fn works_on_mounts_of_a_user_namespace() {
    let client = Client::fork(NOBODY, |line| {
        let at = map(line.take(), LEN, READ_WRITE).unwrap();
        store(at, 0, 3);
        line.say(b'm');
        line.hear(b'c');
        load(at, 0);
    });
    let factory = Factory::spawn(config(Namespace::Always)).unwrap();
    assert!(factory.facts().user_namespace);
    let memory = Memory::start(factory, Strength::Best).unwrap();
    assert_eq!(memory.tier(), Tier::Sealed);
    let region = memory.region(LEN as u64).unwrap();
    give(&client.line, &region, Access::ReadWrite);
    client.line.hear(b'm');
    let mut byte = [0];
    region.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [3]);
    let _ = region.cut().unwrap();
    client.line.say(b'c');
    client.dies_of_sigbus();
}
