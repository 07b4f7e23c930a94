//! A provider that lies about a descriptor (bad input M4): `E_FD_TYPE`, the descriptor closed, nothing
//! mapped.
//!
//! One test, so that no other thread of this process opens files while it looks at descriptor numbers.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use caps::error::Code;
use common::{memfd, page, segment};
use libmem::{Access, Mapping, Revocation, Segment};
use rustix::fs::{MemfdFlags, Mode, OFlags};

fn is_open(number: i32) -> bool {
    // SAFETY: only asked for its flags; a number that is not open gives an error.
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
}

fn open(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> OwnedFd {
    open(&format!("/proc/self/fd/{}", fd.as_raw_fd()), flags)
}

fn mappings_of_files() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|line| line.contains("s 00000000"))
        .count()
}

#[test]
fn wrong_descriptors_are_refused_and_closed() {
    let bytes = page() as u64;
    let file = memfd(1);
    let (read_end, write_end) = rustix::pipe::pipe().unwrap();
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    // Of the size of a page, regular, and not memory of a tmpfs.
    let sysfs = "/sys/kernel/mm/transparent_hugepage/enabled";
    let sysfs_bytes = File::open(sysfs).unwrap().metadata().unwrap().len();
    let huge =
        rustix::fs::memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB).ok().inspect(|huge| {
            rustix::fs::ftruncate(huge, 2 << 20).unwrap();
        });

    let mut cases: Vec<(&str, OwnedFd, u64, Access)> = vec![
        ("FIFO, read end", read_end, bytes, Access::Read),
        ("FIFO, write end", write_end, bytes, Access::ReadWrite),
        ("socket", socket.into(), bytes, Access::ReadWrite),
        ("/dev/zero", open("/dev/zero", OFlags::RDWR), bytes, Access::ReadWrite),
        ("/dev/null", open("/dev/null", OFlags::RDWR), bytes, Access::ReadWrite),
        ("directory", open("/", OFlags::RDONLY | OFlags::DIRECTORY), bytes, Access::Read),
        ("directory's own size", open("/proc/self", OFlags::RDONLY | OFlags::DIRECTORY), bytes, Access::Read),
        ("O_PATH", reopen(&file, OFlags::PATH), bytes, Access::Read),
        ("O_PATH of a directory", open("/", OFlags::PATH), bytes, Access::Read),
        ("too short", memfd(1), 2 * bytes, Access::Read),
        ("too long", memfd(3), 2 * bytes, Access::ReadWrite),
        ("empty", memfd(0), bytes, Access::Read),
        (
            "regular file that is not in RAM",
            open(sysfs, OFlags::RDONLY),
            sysfs_bytes.next_multiple_of(bytes),
            Access::Read,
        ),
        ("regular file of size 0", open("/proc/self/status", OFlags::RDONLY), bytes, Access::Read),
        ("read-only for a right to write", reopen(&file, OFlags::RDONLY), bytes, Access::ReadWrite),
        ("write-only", reopen(&file, OFlags::WRONLY), bytes, Access::ReadWrite),
        ("write-only for a right to read", reopen(&file, OFlags::WRONLY), bytes, Access::Read),
        (
            "epoll",
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap(),
            bytes,
            Access::Read,
        ),
    ];
    cases.extend(huge.map(|huge| ("huge TLB pages", huge, 2 << 20, Access::ReadWrite)));

    let before = mappings_of_files();
    for (what, descriptor, bytes, access) in cases {
        let number = descriptor.as_raw_fd();
        let error = Mapping::new(vec![Segment { descriptor, bytes }], access, Revocation::new()).unwrap_err();
        assert_eq!(error.code(), Code::DescriptorType, "{what}: {error}");
        assert!(!is_open(number), "{what} stays open");
    }

    // A wrong one after a right one: neither is mapped or stays open.
    let good = segment(&file, 1);
    let bad = Segment { descriptor: open("/dev/zero", OFlags::RDWR), bytes };
    let numbers = [good.descriptor.as_raw_fd(), bad.descriptor.as_raw_fd()];
    let error = Mapping::new(vec![good, bad], Access::ReadWrite, Revocation::new()).unwrap_err();
    assert_eq!(error.code(), Code::DescriptorType);
    assert_eq!(numbers.map(is_open), [false, false]);
    assert_eq!(mappings_of_files(), before);

    // A right one is closed too, once it is mapped.
    let good = segment(&file, 1);
    let number = good.descriptor.as_raw_fd();
    let mapping = Mapping::new(vec![good], Access::ReadWrite, Revocation::new()).unwrap();
    assert!(!is_open(number));
    assert_eq!(mappings_of_files(), before + 1);
    mapping.write_at(0, b"still there").unwrap();
    // And a read-only descriptor serves a right to read.
    let reader = Segment { descriptor: reopen(&file, OFlags::RDONLY), bytes };
    let reader = Mapping::new(vec![reader], Access::Read, Revocation::new()).unwrap();
    let mut got = [0; 11];
    reader.read_at(0, &mut got).unwrap();
    assert_eq!(&got, b"still there");
}
