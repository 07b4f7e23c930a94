//! A user and mount namespace for one process, so that an ordinary user may make a tmpfs.
//!
//! The factory alone goes inside. The provider stays out and keeps seeing its clients' real user ids.

use std::fs;

use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::tmpfs::{StepResult, step};
use super::wire::Step;

/// Moves this process, which must have a single thread, into namespaces of its own. Its user and group id map to
/// themselves: files it makes belong to the provider's user outside.
pub(super) fn enter() -> StepResult<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER | nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
        .or_else(step(Step::Unshare))?;
    // The order is the kernel's: without `deny` an ordinary user may not map a group.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))
}

fn write(path: &str, text: &str) -> StepResult<()> {
    fs::write(path, text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        .or_else(step(Step::UidMap))
}
