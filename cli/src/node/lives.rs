//! A provider's lives: one process each, and a small one above them that starts the next.
//!
//! ```text
//!  leasehold provider ── the process that was started: reads no secret, opens nothing
//!    │  ▲ exit status
//!    ▼  │
//!  the same program again: one life of the provider
//!       NEW_LIFE      its life is over in the broker's books: everything was taken back and wiped, start the next
//!       any other     the end of both
//! ```
//! A life ends with its process, because all that could outlast it is then gone without anybody having to see to it:
//! memory, sessions, rights, keys, what was under way. Whoever sees the next life knows that there is nothing left of the
//! one before, and the broker takes it for the proof: so no life begins before the one before was waited for.
//!
//! A signal that stops a node is passed on, and no life begins after it, however the one that was there ends. If this process is killed, the kernel tells the life to end (SIGTERM), and it
//! takes everything back as it does for anybody who stops it; the lock on the directory keeps another provider waiting
//! until then, for [`limits::NODE_LOCK_MS_MAX`] at most.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use policy::limits;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

/// Exit status of a life after which the next begins: that of a program that ought to be tried again (`EX_TEMPFAIL`).
pub(super) const NEW_LIFE: u8 = 75;
/// Says to a life which process is above it.
pub(crate) const VARIABLE: &str = "LEASEHOLD_LIFE_OF";
/// Says to a life that it is not the first.
pub(crate) const LATER_VARIABLE: &str = "LEASEHOLD_LIFE_LATER";

/// Starts one life after the other with the arguments of this process, and ends as the last of them does. Call it before
/// any thread is started.
///
/// # Errors
/// `E_SYSTEM` if a life cannot be started or waited for.
pub(super) fn run() -> Result<std::convert::Infallible> {
    let above = std::process::id().to_string();
    let mut later = false;
    let status = supervise(|| {
        let mut arguments = std::env::args_os();
        let mut life = Command::new("/proc/self/exe");
        life.arg0(arguments.next().unwrap_or(OsString::from("leasehold"))).args(arguments);
        life.env(VARIABLE, &above).env_remove(LATER_VARIABLE);
        if std::mem::replace(&mut later, true) {
            life.env(LATER_VARIABLE, "true");
        }
        life
    })?;
    // It has said why. One that a signal ended has the status that shells give it.
    std::process::exit(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

/// Ties this life to the process above it: it ends with that.
///
/// # Errors
/// `E_SYSTEM` if it is gone already.
pub(super) fn begin(above: u32) -> Result<()> {
    let gone = Error::new(Code::System, "the process that starts this provider's lives is gone");
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|_| Error::new(Code::System, "the end of the parent process cannot be watched"))?;
    // It may have ended in between.
    let parent = getppid().map(Pid::as_raw_nonzero).map(std::num::NonZeroI32::get);
    if parent.and_then(|parent| u32::try_from(parent).ok()) == Some(above) { Ok(()) } else { Err(gone) }
}

/// Runs lives until one ends for good. Returns how it ended.
fn supervise(life: impl FnMut() -> Command) -> Result<ExitStatus> {
    // One thread: the kernel's word about a parent's end is about the thread that started the child.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|_| failed())?
        .block_on(one_after_the_other(life))
}

async fn one_after_the_other(mut life: impl FnMut() -> Command) -> Result<ExitStatus> {
    let listen = |kind| signal(kind).map_err(|_| failed());
    // Before the first life: none ends unseen, and none is stopped without being told.
    let mut ended = listen(SignalKind::child())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut stopped = false;
    loop {
        let begun = Instant::now();
        let mut child = life().spawn().map_err(|_| failed())?;
        let pid = Pid::from_child(&child);
        let status = loop {
            let pass_on = tokio::select! {
                biased; // a life's end must not hide a stop that came before it
                _ = terminate.recv() => Some(Signal::TERM),
                _ = interrupt.recv() => Some(Signal::INT),
                _ = ended.recv() => None,
            };
            stopped |= pass_on.is_some();
            if let Some(status) = child.try_wait().map_err(|_| failed())? {
                break status;
            }
            if let Some(signal) = pass_on {
                // Not reaped yet, so the number is its own.
                let _ = kill_process(pid, signal); // it may have just ended
            }
        };
        if status.code() != Some(NEW_LIFE.into()) {
            return Ok(status);
        }
        if stopped {
            // It was ending by itself: nothing of the provider is left, and that was asked for.
            return Ok(ExitStatus::default());
        }
        tracing::warn!("this life of the provider is over; the next begins");
        let pause = Duration::from_millis(limits::LIFE_MS_MIN).saturating_sub(begun.elapsed());
        tokio::select! {
            biased;
            // Nothing of the provider is left: this is the end that was asked for.
            _ = terminate.recv() => return Ok(ExitStatus::default()),
            _ = interrupt.recv() => return Ok(ExitStatus::default()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

const fn failed() -> Error {
    Error::new(Code::System, "the provider's process cannot be started or waited for")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A life that appends a line to a file, and ends as the line's number says.
    fn life(file: &std::path::Path, ends: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = format!("echo >>\"$0\"; n=$(wc -l <\"$0\"); {ends}");
        command.arg("-c").arg(script).arg(file);
        command
    }

    #[test]
    fn a_life_follows_the_other_until_one_ends_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lives");
        let begun = Instant::now();
        let status = supervise(|| life(&file, "[ $n -lt 3 ] && exit 75; exit 7")).unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3);
        // Two that were over at once: the next was not begun at once.
        assert!(begun.elapsed() >= Duration::from_millis(2 * limits::LIFE_MS_MIN));
        for (ends, code, signal) in [("exit 0", Some(0), None), ("kill -9 $$", None, Some(9))] {
            let status = supervise(|| life(&file, ends)).unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal));
        }
    }

    /// In a process of its own, since the signal is for all of it: this very test, told where to count lives.
    #[test]
    fn a_stop_that_comes_while_a_life_ends_is_the_end() {
        const LIVES: &str = "LEASEHOLD_TEST_LIVES";
        if let Some(file) = std::env::var_os(LIVES) {
            // It stops the process above, does not hear of it itself, and ends as one that another is to follow.
            let script = "trap '' TERM; [ $n -lt 3 ] || exit 7; kill -TERM $PPID; exit 75";
            let status = supervise(|| life(file.as_ref(), script)).unwrap();
            std::process::exit(status.code().unwrap_or(1));
        }
        let directory = tempfile::tempdir().unwrap();
        for n in 0..20 {
            let file = directory.path().join(n.to_string());
            let mut above = Command::new(std::env::current_exe().unwrap());
            above.args(["--exact", "node::lives::tests::a_stop_that_comes_while_a_life_ends_is_the_end"]);
            let ended = above.env(LIVES, &file).output().unwrap();
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
            assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
        }
    }

    #[test]
    fn a_life_of_somebody_else_does_not_begin() {
        assert_eq!(begin(std::process::id()).unwrap_err().code(), Code::System);
    }
}
