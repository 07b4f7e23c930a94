//! What this machine allows, found out by trying it, with one line of advice for each thing that is missing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_setflags};
use rustix::io::pwrite;

use super::mapping::Mapping;
use super::opener;
use super::pin::PinTable;
use super::pipes::PipeTable;
use super::region::Access;
use super::{process, rt, seal};
use crate::factory::{Factory, Facts, Made, Shape, failed};
use caps::wire::row::Tier;

/// One thing a machine can or cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a few words.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What is weaker without it and what to do, in one line. Shown when not `ok`.
    pub advice: &'static str,
}

/// What was found out. The list is for people; the tier is what the mechanism goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    checks: Vec<Check>,
    tier: Tier,
}

impl Capabilities {
    /// Tries everything once, with a region of one page that is gone when this returns.
    #[must_use]
    pub(super) fn probe(
        factory: &Factory,
        pins: Option<&Arc<PinTable>>,
        pipes: Option<&Arc<PipeTable>>,
    ) -> Self {
        let facts = factory.facts();
        let trial = Trial::run(factory, pins, pipes);
        let tier = if trial.is_sealed() { Tier::Sealed } else { Tier::Open };
        let mut checks = vec![kernel()];
        checks.extend(trial.checks());
        checks.extend(mounts(facts));
        checks.push(landlock_truncate());
        checks.push(real_time());
        checks.push(swap(facts));
        Self { checks, tier }
    }

    /// Every check, in the order a reader wants them.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The strongest tier regions can have here: [`Tier::Sealed`] or [`Tier::Open`].
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }
}

/// The steps of a sealed region, each tried on the same page. A step that was not reached is an error too.
struct Trial {
    pin: Result<()>,
    pipes: Result<()>,
    immutable: Result<()>,
    passthrough: Result<()>,
}

impl Trial {
    fn run(factory: &Factory, pins: Option<&Arc<PinTable>>, pipes: Option<&Arc<PipeTable>>) -> Self {
        let page = factory.page();
        let (key, file) = match factory.create(page, Shape::Sealed) {
            Ok(Made { key, file }) => (key, file),
            Err(error) => {
                return Self {
                    pin: Err(error.clone()),
                    pipes: Err(error.clone()),
                    immutable: Err(error.clone()),
                    passthrough: Err(error),
                };
            }
        };
        let trial = Self {
            pin: try_pin(&file, page, pins),
            pipes: try_pipes(&file, page, pipes),
            immutable: ioctl_setflags(&file, IFlags::IMMUTABLE).map_err(failed("make a file immutable")),
            passthrough: try_passthrough(&file, page),
        };
        drop(file);
        factory.forget(key);
        trial
    }

    const fn is_sealed(&self) -> bool {
        (self.pin.is_ok() || self.pipes.is_ok()) && self.immutable.is_ok() && self.passthrough.is_ok()
    }

    fn checks(&self) -> [Check; 4] {
        [
            check(
                "io_uring pin",
                &self.pin,
                "without it memory is taken back all the same, but what a client pinned for itself cannot be wiped, and it \
                 reads the old bytes until it dies: set kernel.io_uring_disabled=0, and raise RLIMIT_MEMLOCK or run \
                 the node as root",
            ),
            check(
                "pipes",
                &self.pipes,
                "they hold the pages that io_uring may not pin; without either, a lease shared by many cannot be rotated \
                 and ends for all when one is revoked: raise fs.pipe-user-pages-soft",
            ),
            check(
                "immutable files",
                &self.immutable,
                "without it the node cannot seal its memory: run it as root with CAP_LINUX_IMMUTABLE",
            ),
            check(
                "FUSE passthrough",
                &self.passthrough,
                "without it clients of other users may map for reading only: Linux 6.9 or later, /dev/fuse, and \
                 CAP_SYS_ADMIN in the initial user namespace",
            ),
        ]
    }
}

fn try_pin(file: &OwnedFd, page: u64, pins: Option<&Arc<PinTable>>) -> Result<()> {
    let pins = pins.ok_or(Error::new(Code::System, "io_uring is not available"))?;
    fallocate(file, FallocateFlags::empty(), 0, page).map_err(failed("fill a page"))?;
    let mapping = Mapping::of(file.as_fd(), page as usize)?;
    match pins.pin(&mapping) {
        (_, Some(error)) => Err(error),
        (pin, None) => pin.wipe().map(drop),
    }
}

fn try_pipes(file: &OwnedFd, page: u64, pipes: Option<&Arc<PipeTable>>) -> Result<()> {
    let pipes = pipes.ok_or(Error::new(Code::System, "pipes are not available"))?;
    fallocate(file, FallocateFlags::empty(), 0, page).map_err(failed("fill a page"))?;
    Mapping::of(file.as_fd(), page as usize)?.populate()?;
    pipes.hold(file.as_fd(), 0, page as usize).map(drop)
}

/// Makes an mmap-only descriptor and checks that it is one: a store through a mapping works, a write does not.
fn try_passthrough(file: &OwnedFd, page: u64) -> Result<()> {
    let descriptor = seal::mmap_only(file.as_fd(), page, Access::ReadWrite)?;
    Mapping::of(descriptor.as_fd(), page as usize)?.populate()?;
    if pwrite(&descriptor, b"x", 0).is_ok() {
        return Err(Error::new(Code::System, "an mmap-only descriptor could be written"));
    }
    Ok(())
}

fn check(name: &'static str, result: &Result<()>, advice: &'static str) -> Check {
    let found = match result {
        Ok(()) => "works".to_owned(),
        Err(error) => error.detail().to_owned(),
    };
    Check { name, ok: result.is_ok(), found, advice }
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Check {
        name: "kernel",
        ok: version >= (6, 9),
        found: release,
        advice: "sealed memory needs Linux 6.9 or later",
    }
}

fn mounts(facts: Facts) -> [Check; 3] {
    let yes = |ok: bool| if ok { "works" } else { "refused" }.to_owned();
    [
        Check {
            name: "user namespace",
            ok: !facts.user_namespace,
            found: if facts.user_namespace { "in use" } else { "not needed" }.to_owned(),
            advice: "the node runs as an ordinary user: leases work, sealing needs root",
        },
        Check {
            name: "tmpfs noswap",
            ok: facts.noswap,
            found: yes(facts.noswap),
            advice: "memory that is not pinned could be swapped: turn swap off, or run the node as root on Linux 6.4",
        },
        Check {
            name: "huge pages",
            ok: facts.huge,
            found: yes(facts.huge),
            advice: "cutting 1 GiB takes 200 ms instead of 1: a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
        },
    ]
}

fn landlock_truncate() -> Check {
    let abi = opener::landlock_abi();
    Check {
        name: "Landlock",
        ok: abi >= opener::ABI_TRUNCATE,
        found: format!("ABI {abi}"),
        advice: "without ABI 3 (Linux 6.2) same-user clients may map for reading only in tier open: add `landlock` to lsm=",
    }
}

fn real_time() -> Check {
    let ok = rt::is_allowed();
    Check {
        name: "real-time priority",
        ok,
        found: if ok { "allowed" } else { "refused" }.to_owned(),
        advice: "on a busy machine a cut waits for its turn: give the node CAP_SYS_NICE or an RLIMIT_RTPRIO of 10",
    }
}

fn swap(facts: Facts) -> Check {
    let found = process::swap_is_on();
    Check {
        name: "swap",
        ok: facts.noswap || matches!(found, Ok(false)),
        found: match found {
            Ok(true) => "on".to_owned(),
            Ok(false) => "off".to_owned(),
            Err(error) => error.detail().to_owned(),
        },
        advice: "leased bytes could reach the swap device: turn swap off, or start the node with --allow-swap",
    }
}
