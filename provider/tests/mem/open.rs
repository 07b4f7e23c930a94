//! Tier `open`: plain descriptors, and what still holds.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use caps::error::Code;
use nix::unistd::Uid;
use provider::mem::{Access, Holder, Memory, Shut, Strength, Tier};

use crate::client::{Client, Line, READ, READ_WRITE, errno, load, map, refused, store};
use crate::harness::{NOBODY, start_as};

const LEN: usize = 64 << 10;

fn start() -> Memory {
    let memory = start_as(Strength::OpenOnly).unwrap();
    assert_eq!(memory.tier(), Tier::Open);
    memory
}

fn reopen(fd: &OwnedFd, flags: i32) -> i32 {
    let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
    // SAFETY: open(2) reads a NUL-terminated path.
    unsafe { libc::open(path.as_ptr().cast(), flags) }
}

/// The holder is the same user or even root: reading is all the descriptor gives.
pub(crate) fn other_users_only_read() {
    let client = Client::fork(0, |line| {
        let fd = line.take();
        let at = map(&fd, LEN, READ).unwrap();
        assert_eq!(load(at, 0), 5);
        assert_eq!(map(&fd, LEN, READ_WRITE), Err(libc::EACCES));
        assert_eq!(map(&fd, LEN, READ | libc::PROT_EXEC), Err(libc::EPERM));
        assert_eq!(refused("reopen read-write", reopen(&fd, libc::O_RDWR).into()), libc::EROFS);
        assert_eq!(refused("reopen write-only", reopen(&fd, libc::O_WRONLY).into()), libc::EROFS);
        // SAFETY: plain calls on a descriptor.
        unsafe {
            refused("ftruncate", libc::ftruncate(fd.as_raw_fd(), 0).into());
            refused("fallocate", libc::fallocate(fd.as_raw_fd(), 0, 0, 4096).into());
            refused("pwrite", libc::pwrite(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) as i64);
        }
        line.say(b'd');
        line.hear(b'c');
        load(at, 0);
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    region.write_at(0, &[5]).unwrap();
    let error = region.client_descriptor(Access::ReadWrite, Holder::OtherUser).unwrap_err();
    assert_eq!(error.code(), Code::MediatedOnly);
    client.line.give(region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap().as_fd());
    client.line.hear(b'd');
    let _ = region.cut().unwrap();
    client.line.say(b'c');
    client.dies_of_sigbus();
}

/// Tries, with a descriptor opened without the right to truncate, what that right would allow.
fn cannot_truncate(fd: &OwnedFd) {
    // SAFETY: plain calls on a descriptor.
    unsafe {
        assert_eq!(refused("ftruncate", libc::ftruncate(fd.as_raw_fd(), 0).into()), libc::EACCES);
        assert_eq!(
            refused("ftruncate longer", libc::ftruncate(fd.as_raw_fd(), 1 << 20).into()),
            libc::EACCES
        );
        // The file system has exactly the region's size.
        let past = libc::pwrite(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, LEN as i64);
        assert_eq!(refused("write past the end", past as i64), libc::ENOSPC);
        refused("fallocate past the end", libc::fallocate(fd.as_raw_fd(), 0, LEN as i64, 4096).into());
    }
    assert_eq!(map(fd, LEN, READ | libc::PROT_EXEC), Err(libc::EPERM));
}

pub(crate) fn same_user_cannot_truncate() {
    let client = Client::fork(NOBODY, |line| {
        let fd = line.take();
        let at = map(&fd, LEN, READ_WRITE).unwrap();
        store(at, 0, 6);
        cannot_truncate(&fd);
        line.say(b'd');
        line.hear(b'c');
        store(at, 0, 6);
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    assert_eq!(region.tier(Holder::Sandboxed), Tier::Sandboxed);
    client.line.give(region.client_descriptor(Access::ReadWrite, Holder::Sandboxed).unwrap().as_fd());
    client.line.hear(b'd');
    let mut byte = [0];
    region.read_at(0, &mut byte).unwrap();
    assert_eq!(byte, [6]);
    let _ = region.cut().unwrap();
    client.line.say(b'c');
    client.dies_of_sigbus();
}

fn write_at_start(fd: &OwnedFd) -> Result<(), i32> {
    // SAFETY: pwrite(2) of one live byte.
    if unsafe { libc::pwrite(fd.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) } == 1 {
        Ok(())
    } else {
        Err(errno())
    }
}

/// After the cut alone the writer refills the dead file (so this test tests something); after the shut it cannot,
/// and what it had refilled is gone from its mapping too.
pub(crate) fn dead_file_cannot_be_refilled() {
    let client = Client::fork(0, |line| {
        let fd = line.take();
        let at = map(&fd, LEN, READ_WRITE).unwrap();
        store(at, 0, 1);
        line.say(b'm');
        line.hear(b'c');
        assert_eq!(write_at_start(&fd), Ok(()));
        assert_eq!(load(at, 0), b'x');
        line.say(b'r');
        line.hear(b's');
        assert_eq!(write_at_start(&fd), Err(libc::ENOSPC));
        // SAFETY: plain calls on a descriptor.
        unsafe {
            let result = libc::fallocate(fd.as_raw_fd(), 0, 0, 4096);
            assert_eq!(refused("fallocate", result.into()), libc::ENOSPC);
        }
        line.say(b'n');
        store(at, 0, 1);
    });
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    client.line.give(region.client_descriptor(Access::ReadWrite, Holder::SameUser).unwrap().as_fd());
    client.line.hear(b'm');
    let _ = region.cut().unwrap();
    client.line.say(b'c');
    client.line.hear(b'r');
    assert_eq!(region.shut().unwrap(), Shut::Done);
    client.line.say(b's');
    client.line.hear(b'n');
    client.dies_of_sigbus();
    assert_eq!(rustix::fs::fstat(region.own_descriptor()).unwrap().st_blocks, 0);
    assert_eq!(region.wipe().unwrap(), region.coverage().pinned);
}

/// Without privileges the kernel pins `RLIMIT_MEMLOCK` for this user; a region beyond it says how much.
pub(crate) fn pin_covers_what_fits() {
    // More than can be locked: the limit is 8 MiB unless somebody changed it.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current.unwrap_or(u64::MAX);
    let memory = start();
    let small = memory.region(LEN as u64).unwrap();
    assert!(small.coverage().is_complete(), "{:?}", small.coverage());
    let large = memory.region(64 << 20).unwrap();
    let coverage = large.coverage();
    assert_eq!(coverage.total, 64 << 20);
    assert!(coverage.pinned <= limit, "{coverage:?}");
    if limit < 64 << 20 {
        assert!(!coverage.is_complete());
        assert!(coverage.pinned > 0, "what fits is pinned: {coverage:?}");
    }
    // Every page is there, pinned or not.
    assert_eq!(rustix::fs::fstat(large.own_descriptor()).unwrap().st_blocks * 512, 64 << 20);
    let _ = large.cut().unwrap();
    assert_eq!(large.wipe().unwrap(), coverage.pinned);
    large.close();
    // What was pinned can be pinned again.
    assert_eq!(memory.region(64 << 20).unwrap().coverage(), coverage);
}

/// Holds a region's inode lock from inside `pwrite`, by a buffer whose page fault nobody answers, until it is told to
/// let go.
pub(crate) fn hold_the_lock(line: &Line) {
    let region = line.take();
    let page = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a fresh anonymous mapping, and a userfaultfd for it.
    let (at, faults) = unsafe {
        let at = rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, page, rustix::mm::MapFlags::PRIVATE)
            .unwrap();
        (at as usize, rustix::mm::userfaultfd(rustix::mm::UserfaultfdFlags::CLOEXEC).unwrap())
    };
    // struct uffdio_api { api, features, ioctls }; struct uffdio_register { start, len, mode, ioctls }.
    let mut api = [0xAA_u64, 0, 0];
    let mut register = [at as u64, 4096, 1, 0];
    // SAFETY: UFFDIO_API and UFFDIO_REGISTER read and write structures of three and four 64-bit words.
    unsafe {
        assert_eq!(libc::ioctl(faults.as_raw_fd(), 0xC018_AA3F, api.as_mut_ptr()), 0);
        assert_eq!(libc::ioctl(faults.as_raw_fd(), 0xC020_AA00, register.as_mut_ptr()), 0);
    }
    let writer = thread::spawn(move || {
        // SAFETY: pwrite(2) from the mapping above, which lives as long as the process.
        unsafe { libc::pwrite(region.as_raw_fd(), at as *const _, 4096, 0) }
    });
    let mut event = [0; 32];
    // The event comes when the write has faulted, inside the lock.
    assert_eq!(rustix::io::read(&faults, &mut event).unwrap(), 32);
    line.say(b'h');
    line.hear(b'l');
    // struct uffdio_zeropage { start, len, mode, zeropage }.
    let mut zero = [at as u64, 4096, 0, 0];
    // SAFETY: UFFDIO_ZEROPAGE reads and writes a structure of four 64-bit words.
    unsafe { assert_eq!(libc::ioctl(faults.as_raw_fd(), 0xC020_AA04, zero.as_mut_ptr()), 0) };
    writer.join().unwrap();
}

pub(crate) fn stuck_region_holds_up_no_other() {
    assert!(Uid::effective().is_root());
    let hostile = Client::fork(0, hold_the_lock);
    let victim = Client::fork(NOBODY, |line| {
        let at = map(line.take(), LEN, READ).unwrap();
        load(at, 0);
        line.say(b'm');
        loop {
            load(at, 0);
        }
    });
    let memory = start();
    let stuck = Arc::new(memory.region(LEN as u64).unwrap());
    let other = memory.region(LEN as u64).unwrap();
    hostile.line.give(stuck.client_descriptor(Access::ReadWrite, Holder::SameUser).unwrap().as_fd());
    hostile.line.hear(b'h');
    victim.line.give(other.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap().as_fd());
    victim.line.hear(b'm');
    let cutting = Arc::clone(&stuck);
    let cutter = thread::spawn(move || cutting.cut().map(|_| ()));
    while !stuck.is_cut() {
        thread::yield_now();
    }
    // While that cut hangs: cut, shut, wipe, close, and make another.
    let _ = other.cut().unwrap();
    victim.dies_of_sigbus();
    assert_eq!(other.shut().unwrap(), Shut::Done);
    assert_eq!(other.wipe().unwrap(), LEN as u64);
    other.close();
    memory.region(LEN as u64).unwrap().close();
    assert!(!cutter.is_finished(), "the hostile writer did not hold the cut, so this showed nothing");
    hostile.line.say(b'l');
    cutter.join().unwrap().unwrap();
    hostile.succeeds();
}
