//! What the node sets on its own process before it serves: descriptors, core dumps; and what it reads of the machine.

use std::fs;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::factory::failed;

/// Raises the soft limit of descriptors to the hard one and returns it. Every region costs one.
///
/// # Errors
///
/// [`Code::System`] if the kernel refuses, which it never should.
pub fn raise_nofile() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
            .map_err(failed("raise the limit of descriptors"))?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Makes this process leave no core dump and refuses debuggers of the same user: both would show leased bytes.
///
/// Call it after whatever writes this process' own files in /proc, which belong to root from here on.
///
/// # Errors
///
/// [`Code::System`] if the kernel refuses, which it never should.
pub fn no_core_dumps() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("forbid core dumps"))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(failed("forbid core dumps"))
}

/// Whether the machine has any swap in use.
///
/// # Errors
///
/// [`Code::System`] if /proc/swaps cannot be read: "unknown" must not pass for "no".
pub fn swap_is_on() -> Result<bool> {
    let text =
        fs::read_to_string("/proc/swaps").map_err(|_| Error::new(Code::System, "cannot read /proc/swaps"))?;
    // The first line is the heading.
    Ok(text.lines().skip(1).any(|line| !line.trim().is_empty()))
}

/// Time since boot, suspended time included: the clock on which leases end.
#[must_use]
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Both parts are non-negative on this clock.
    Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32)
}

/// Bytes that can be allocated now without swapping or killing: the kernel's own estimate, and what the memory
/// control groups above this process leave. Zero if the machine does not say.
#[must_use]
pub fn memory_available_bytes() -> u64 {
    let machine =
        fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_available(&text)).unwrap_or(0);
    cgroup_available().map_or(machine, |group| group.min(machine))
}

fn meminfo_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least room in this process' memory control group (version 2) and those above it.
fn cgroup_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let root = std::path::Path::new("/sys/fs/cgroup");
    let number = |path: std::path::PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    root.join(own)
        .ancestors()
        .take_while(|group| group.starts_with(root))
        .filter_map(|group| {
            // "max" does not parse: no limit at this level.
            let limit = number(group.join("memory.max"))?;
            Some(limit.saturating_sub(number(group.join("memory.current"))?))
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_estimate() {
        assert_eq!(meminfo_available("MemTotal: 9 kB\nMemAvailable:   123 kB\n"), Some(123 << 10));
        assert_eq!(meminfo_available("MemTotal: 9 kB\n"), None);
        assert!(memory_available_bytes() > 0);
    }

    #[test]
    fn boot_time_goes_forward() {
        let before = boottime();
        assert!(boottime() >= before && before > Duration::ZERO);
    }

    #[test]
    fn the_limit_of_descriptors_is_the_hard_one() {
        let limit = raise_nofile().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
