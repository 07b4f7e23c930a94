//! What the tests of leased memory share: real files in RAM, and a test that runs again as a process of its
//! own.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use libmem::{Access, Mapping, Revocation, Segment};
use rustix::fs::MemfdFlags;

pub fn page() -> usize {
    rustix::param::page_size()
}

/// A file in RAM of that many pages.
pub fn memfd(pages: usize) -> OwnedFd {
    let fd = rustix::fs::memfd_create("libmem-test", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, (pages * page()) as u64).unwrap();
    fd
}

/// Takes all pages from every mapping of the file, as the provider's cut does.
pub fn cut(fd: impl AsFd) {
    rustix::fs::ftruncate(fd, 0).unwrap();
}

pub fn segment(fd: &OwnedFd, pages: usize) -> Segment {
    Segment { descriptor: fd.try_clone().unwrap(), bytes: (pages * page()) as u64 }
}

pub fn map(fd: &OwnedFd, pages: usize, access: Access) -> Mapping {
    Mapping::new(vec![segment(fd, pages)], access, Revocation::new()).unwrap()
}

/// A mapping of another file whose slice a test misuses as "the caller's own memory that went away".
pub fn gone(pages: usize) -> Mapping {
    let fd = memfd(pages);
    let mapping = map(&fd, pages, Access::ReadWrite);
    cut(&fd);
    mapping
}

const CHILD: &str = "LIBMEM_TEST_CHILD";

/// Runs `child` in a process of its own, which is this test started again, and tells how it ended. Exit code
/// 0 means that `child` returned.
pub fn in_child(test: &str, child: impl FnOnce()) -> ExitStatus {
    in_child_with(test, &[], child)
}

/// As [`in_child`], with more variables in the child's environment.
pub fn in_child_with(test: &str, variables: &[(&str, &str)], child: impl FnOnce()) -> ExitStatus {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        // A death by SIGBUS is expected: leave no core file behind.
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
        child();
        std::process::exit(0);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    if !output.status.success() && output.status.signal().is_none() {
        // A failed assertion in the child reads better than its exit code.
        print!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status
}

pub fn died_by_sigbus(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGBUS)
}
