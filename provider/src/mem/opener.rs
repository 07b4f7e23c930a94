//! A thread that cannot give away the right to truncate.
//!
//! In tier `open` a same-user client may map read and write, so it needs a descriptor of the file. Landlock ties the
//! right to truncate to the descriptor at the moment it is opened: opened by a thread whose rules deny it, the
//! descriptor is refused `ftruncate` in every process it reaches. The rules bind one thread for ever, and the
//! provider itself must truncate, so one thread does nothing else.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus};

use crate::factory::open_in_mount;

/// Requests that may wait; a caller beyond them waits to be queued.
const QUEUE: usize = 16;
/// How long an `openat` in a private tmpfs may take.
const OPEN_MS_MAX: u64 = 2_000;

/// The first version of Landlock that knows the right to truncate (Linux 6.2).
pub(super) const ABI_TRUNCATE: u32 = 3;

/// The way to the thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Opener {
    requests: mpsc::SyncSender<Request>,
}

struct Request {
    mount: OwnedFd,
    answer: mpsc::SyncSender<Result<OwnedFd>>,
}

impl Opener {
    /// Starts the thread and puts it under its rules.
    ///
    /// # Errors
    ///
    /// [`Code::System`] where Landlock cannot deny truncation (before Linux 6.2, or switched off).
    pub(super) fn start() -> Result<Self> {
        let (requests, inbox) = mpsc::sync_channel::<Request>(QUEUE);
        let (ready, started) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("open-landlocked".into())
            .spawn(move || {
                let restricted = restrict();
                let works = restricted.is_ok();
                let _ = ready.send(restricted);
                if works {
                    for Request { mount, answer } in inbox {
                        let _ = answer.send(open_in_mount(mount.as_fd()));
                    }
                }
            })
            .map_err(|_| Error::new(Code::Busy, "no thread for opening descriptors"))?;
        started.recv().map_err(|_| Error::new(Code::Internal, "the opening thread ended"))??;
        Ok(Self { requests })
    }

    /// Opens the file in `mount` for reading and writing, without the right to truncate.
    pub(super) fn open(&self, mount: OwnedFd) -> Result<OwnedFd> {
        let gone = || Error::new(Code::Internal, "the opening thread ended");
        let (answer, opened) = mpsc::sync_channel(1);
        self.requests.send(Request { mount, answer }).map_err(|_| gone())?;
        opened
            .recv_timeout(Duration::from_millis(OPEN_MS_MAX))
            .map_err(|_| Error::new(Code::Timeout, "the opening thread did not answer in time"))?
    }
}

/// Denies truncation to this thread, for everything it opens from now on.
fn restrict() -> Result<()> {
    let refused = || Error::new(Code::System, "Landlock cannot deny truncation on this kernel");
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Truncate)
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|_| refused())?;
    if status.ruleset == RulesetStatus::FullyEnforced { Ok(()) } else { Err(refused()) }
}

/// The version of Landlock on this kernel; zero without it.
pub(super) fn landlock_abi() -> u32 {
    // LANDLOCK_CREATE_RULESET_VERSION in linux/landlock.h.
    let version_flag = 1_u32;
    // SAFETY: with this flag, a null pointer and no size, landlock_create_ruleset(2) reads nothing and only returns
    // a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            version_flag,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}
