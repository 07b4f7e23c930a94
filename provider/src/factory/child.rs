//! The fork, and the factory's first steps.
//!
//! The child keeps nothing of its parent but the sockets and the parent's pidfd: no terminal, no lock file, no
//! listening socket survives in it. It ignores the signals by which people stop a program: the guardian ends after
//! the provider, never before.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use caps::error::{Code, Error, Result};
use nix::unistd::{ForkResult, fork as fork_process};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, geteuid, getpid, kill_process, pidfd_open,
    set_dumpable_behavior, setsid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_name};

use super::serve::{Closer, Serve};
use super::table::Table;
use super::wire::{FACT_HUGE, FACT_NOSWAP, FACT_USER_NAMESPACE, Reply, Status, Step};
use super::{FactoryConfig, Namespace, failed, link, namespace, tmpfs};
use crate::sandbox;

/// Exit status when everything was cut.
const EXIT_CLEAN: c_int = 0;
/// Exit status when a region could not be cut in time.
const EXIT_STUCK: c_int = 1;
/// Exit status when the factory could not start; its first reply says why.
const EXIT_START: c_int = 2;
/// Exit status of a defect.
const EXIT_PANIC: c_int = 101;

/// Signals a terminal, a shell or a service manager sends to stop a program, or its peer by closing a pipe.
const IGNORED: [c_int; 10] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGPIPE,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
    libc::SIGUSR2,
];

/// Forks the factory and returns its pidfd. The caller has checked that this process has one thread.
pub(super) fn fork(child_ends: Vec<OwnedFd>, config: FactoryConfig, page: u64) -> Result<OwnedFd> {
    // Opened by the provider about itself: a pidfd made by the child could name whoever got a dead parent's number.
    let provider = pidfd_open(getpid(), PidfdFlags::empty()).map_err(failed("open a pidfd"))?;
    // SAFETY: fork(2) in a process with a single thread (`super::check` counted /proc/self/task just before) leaves
    // the child a whole copy: no lock is held by a thread that does not exist there.
    match unsafe { fork_process() } {
        Ok(ForkResult::Child) => {
            let status = catch_unwind(AssertUnwindSafe(|| live(provider, child_ends, config, page)));
            // SAFETY: _exit(2) has no preconditions. It skips the exit handlers and buffers, which are the parent's.
            unsafe { libc::_exit(status.unwrap_or(EXIT_PANIC)) }
        }
        Ok(ForkResult::Parent { child }) => {
            let pid =
                Pid::from_raw(child.as_raw()).ok_or(Error::new(Code::Internal, "fork returned no pid"))?;
            // The child cannot be reaped by anybody else, so the number is still its own.
            pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
                let _ = kill_process(pid, Signal::KILL);
                failed("open the factory's pidfd")(errno)
            })
        }
        Err(errno) => Err(Error::with(Code::System, format!("fork the factory: errno {}", errno as i32))),
    }
}

fn live(provider: OwnedFd, channels: Vec<OwnedFd>, config: FactoryConfig, page: u64) -> c_int {
    detach(&provider, &channels);
    let user_namespace = match config.namespace {
        Namespace::WhenNeeded => !geteuid().is_root(),
        Namespace::Always => true,
    };
    let started = if user_namespace { namespace::enter() } else { Ok(()) };
    let started = started.and_then(|()| tmpfs::probe(page));
    // After the id maps: a process that is not dumpable may no longer write its own /proc files.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let started = started.and_then(|options| {
        keep_two_capabilities();
        // Before the first word from outside is read; threads that are started later are under it too.
        sandbox::factory::enter().map(|()| options).map_err(|_| (Step::Filter, Errno::NOSYS))
    });
    let options = match started {
        Ok(options) => options,
        Err((step, errno)) => {
            let mut reply = first_reply(Status::Failed, 0);
            reply.step = (step as u32).into();
            reply.errno = errno.raw_os_error().cast_unsigned().into();
            let _ = link::send(&channels[0], &reply, None);
            return EXIT_START;
        }
    };
    let facts =
        [(user_namespace, FACT_USER_NAMESPACE), (options.noswap, FACT_NOSWAP), (options.huge, FACT_HUGE)];
    let facts = facts.iter().filter(|(holds, _)| *holds).fold(0, |sum, (_, bit)| sum | bit);
    if link::send(&channels[0], &first_reply(Status::Done, facts), None).is_err() {
        return EXIT_START;
    }
    let table = Table::new(config.regions_max, config.pool_bytes_max);
    let closer = Closer::start();
    let stuck = Serve { provider, channels, table, page, options, closer }.run();
    if stuck == 0 { EXIT_CLEAN } else { EXIT_STUCK }
}

/// Leaves the parent's session, signals and descriptors behind.
fn detach(provider: &OwnedFd, channels: &[OwnedFd]) {
    let _ = setsid();
    let _ = set_name(c"leasehold-guard");
    for signal in IGNORED {
        // SAFETY: signal(2) with SIG_IGN installs no handler, so no code of ours runs in signal context.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(&null);
        let _ = dup2_stdout(&null);
        let _ = dup2_stderr(&null);
    }
    let mut keep: Vec<c_int> = channels.iter().chain([provider]).map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let mut first = libc::STDERR_FILENO + 1;
    for fd in keep.into_iter().chain([c_int::MAX]) {
        if fd > first {
            // SAFETY: close_range(2) closes descriptors that belong to values of the parent's copy of memory. The
            // child never touches those values again: it leaves through _exit without running their destructors.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
    // The kernel should take anybody else first. Lowering needs a privilege we may not have.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// Mounting, and real-time priority for the last cut; all other privileges go.
fn keep_two_capabilities() {
    let keep = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_NICE;
    let Ok(have) = rustix::thread::capabilities(None) else { return };
    let sets = CapabilitySets {
        effective: have.effective & keep,
        permitted: have.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    let _ = set_capabilities(None, sets);
}

fn first_reply(status: Status, facts: u32) -> Reply {
    Reply {
        status: (status as u32).into(),
        errno: 0.into(),
        step: (Step::None as u32).into(),
        facts: facts.into(),
        id: 0.into(),
        region: 0.into(),
    }
}
