//! Accesses on every path that a right has, until each fails: what must not begin once a revoke is acknowledged.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use libmem::{Access, Mapping, Mediated, Region, Result, Revocation, Segment};
use rustix::time::{ClockId, clock_gettime};

use super::attack::Bare;
use super::{PATIENCE, until};

/// The paths, in the order of what [`run`] returns: a mapping, the node's calls, a descriptor that was passed on, a
/// mapping that a forked child inherited.
pub const PATHS: [&str; 4] = ["mapped", "mediated", "descriptor", "child"];
/// Accesses that are tried after the first that failed.
const AFTERWARDS: usize = 16;

/// Now, on the clock that all processes share, in nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Accesses until one fails, and some more. When the last that succeeded began; the end of all times if none failed.
fn hammer(begun: impl Fn(), mut access: impl FnMut() -> Result<()>) -> u64 {
    let mut alive_ns = now_ns();
    if access().is_ok() {
        begun();
    }
    let started = Instant::now();
    let mut left = AFTERWARDS;
    while left > 0 {
        let began_ns = now_ns();
        if access().is_ok() {
            alive_ns = began_ns;
            if started.elapsed() > PATIENCE {
                return u64::MAX;
            }
        } else {
            left -= 1;
        }
    }
    alive_ns
}

/// Hammers on all paths at once. `started` is called when each has had its first access.
pub fn run(region: &Region, mediated: &Mediated, bare: &Bare, started: impl FnOnce()) -> [u64; 4] {
    let (mut told, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the child reads memory, asks for the time, writes to a pipe and ends: nothing that needs a lock which
    // another thread of this process might have held at the fork.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        let begun = || drop((&tell).write_all(&[1]));
        let alive_ns = hammer(begun, || region.load_u64(region.base()).map(drop));
        let _ = tell.write_all(&alive_ns.to_le_bytes());
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(0) }
    }
    drop(tell);
    let descriptor = bare.descriptor.as_fd().try_clone_to_owned().unwrap();
    let segment = Segment { descriptor, bytes: bare.bytes as u64 };
    let leaked = Mapping::new(vec![segment], Access::Read, Revocation::new()).unwrap();
    let begun = AtomicUsize::new(0);
    let count = || {
        begun.fetch_add(1, Ordering::Relaxed);
    };
    let alive = std::thread::scope(|scope| {
        let mapped = scope.spawn(|| hammer(count, || region.load_u64(region.base()).map(drop)));
        let calls = scope.spawn(|| hammer(count, || mediated.read_at(region.base(), &mut [0; 8])));
        let descriptor = scope.spawn(|| hammer(count, || leaked.load_u64(0).map(drop)));
        let mut first = [0];
        told.read_exact(&mut first).unwrap();
        until("each path was used", || (begun.load(Ordering::Relaxed) == 3).then_some(()));
        started();
        let mut last = [0; 8];
        told.read_exact(&mut last).unwrap();
        let [mapped, calls, descriptor] = [mapped, calls, descriptor].map(|path| path.join().unwrap());
        [mapped, calls, descriptor, u64::from_le_bytes(last)]
    });
    let mut status = 0;
    // SAFETY: a child of this process, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    alive
}
