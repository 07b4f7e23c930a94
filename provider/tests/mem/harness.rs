//! Runs each test in a forked process, as the user it is for.

use std::panic::catch_unwind;
use std::process::exit;
use std::time::Instant;

use caps::error::Result;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid};
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::mem::{Memory, Strength};

/// The user that everybody may be: `nobody`.
pub(crate) const NOBODY: u32 = 65534;
/// Bytes that a test's pool has; far below any machine's memory.
pub(crate) const POOL_BYTES: u64 = 256 << 20;
/// A test that takes longer hangs; the kernel's alarm ends its process.
const TEST_S_MAX: u32 = 120;

/// Who a test runs as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root only: sealed regions.
    Root,
    /// An ordinary user: open regions. Root becomes one.
    Nobody,
    /// Whoever runs the tests.
    Any,
}

pub(crate) struct Test {
    name: &'static str,
    user: User,
    body: fn(),
}

impl Test {
    pub(crate) const fn new(name: &'static str, user: User, body: fn()) -> Self {
        Self { name, user, body }
    }
}

/// Runs the tests whose names contain any of the arguments, prints what `cargo test` users expect, and exits.
pub(crate) fn run(tests: &[Test]) -> ! {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<&Test> =
        tests.iter().filter(|t| filters.is_empty() || filters.iter().any(|f| t.name.contains(*f))).collect();
    if arguments.iter().any(|a| a == "--list") {
        chosen.iter().for_each(|test| println!("{}: test", test.name));
        exit(0);
    }
    println!("\nrunning {} tests", chosen.len());
    let root = Uid::effective().is_root();
    let (mut failed, mut ignored) = (Vec::new(), 0);
    for test in &chosen {
        if test.user == User::Root && !root {
            println!("test {} ... ignored, needs root", test.name);
            ignored += 1;
            continue;
        }
        let started = Instant::now();
        let status = run_one(test, root);
        let ok = matches!(status, WaitStatus::Exited(_, 0));
        println!(
            "test {} ... {} ({} ms)",
            test.name,
            if ok { "ok" } else { "FAILED" },
            started.elapsed().as_millis()
        );
        if !ok {
            failed.push((test.name, status));
        }
    }
    failed.iter().for_each(|(name, status)| println!("failed: {name}: {status:?}"));
    let passed = chosen.len() - failed.len() - ignored;
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {ignored} ignored\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len()
    );
    exit(i32::from(!failed.is_empty()) * 101)
}

fn run_one(test: &Test, root: bool) -> WaitStatus {
    let child = in_child(|| {
        // SAFETY: alarm(2) has no preconditions; its signal ends this process.
        unsafe { libc::alarm(TEST_S_MAX) };
        if test.user == User::Nobody && root {
            become_user(NOBODY);
        }
        (test.body)();
    });
    waitpid(child, None).expect("wait for a test")
}

/// Runs `body` in a forked child; a panic is exit status 101. The caller has one thread.
pub(crate) fn in_child(body: impl FnOnce()) -> Pid {
    // SAFETY: the runner has one thread, and tests fork their clients before they start any.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let body = std::panic::AssertUnwindSafe(body);
            let status = if catch_unwind(body).is_ok() { 0 } else { 101 };
            // SAFETY: _exit(2) has no preconditions; the parent's exit handlers are not ours to run.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Becomes an ordinary user for good.
pub(crate) fn become_user(uid: u32) {
    setgroups(&[]).expect("setgroups");
    let (gid, uid) = (Gid::from_raw(uid), Uid::from_raw(uid));
    setresgid(gid, gid, gid).expect("setresgid");
    setresuid(uid, uid, uid).expect("setresuid");
    // A process that changed its user is not dumpable, and could not write its own id maps.
    // SAFETY: prctl(PR_SET_DUMPABLE) takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
}

pub(crate) fn config(namespace: Namespace) -> FactoryConfig {
    FactoryConfig { pool_bytes_max: POOL_BYTES, regions_max: 256, namespace }
}

/// The mechanism as strong as this user can have it.
pub(crate) fn start() -> Memory {
    start_as(Strength::Best).expect("start the mechanism")
}

pub(crate) fn start_as(strength: Strength) -> Result<Memory> {
    Memory::start(Factory::spawn(config(Namespace::WhenNeeded))?, strength)
}
