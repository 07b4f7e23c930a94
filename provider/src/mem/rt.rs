//! Who goes first: real-time priority for the threads that cut, short turns for those that wipe.
//!
//! A cut is short (milliseconds at worst) and everybody waits for it. On a busy machine an ordinary thread waits for
//! its turn for hundreds of milliseconds; a real-time one does not. A wipe is long, and those who have just lost the memory
//! should learn of it before the wipe has all processors.
#![allow(unsafe_code)]

use caps::error::{Code, Error, Result};

/// The priority of cutting threads: above every ordinary thread, below what an administrator would call urgent.
pub const CUT_PRIORITY: i32 = 10;

/// Moves the calling thread to `SCHED_FIFO`. Threads and processes that it starts do not inherit it.
///
/// # Errors
///
/// [`Code::System`] where the kernel does not allow it (no `CAP_SYS_NICE`, and `RLIMIT_RTPRIO` is zero).
pub fn raise_this_thread() -> Result<()> {
    let parameter = libc::sched_param { sched_priority: CUT_PRIORITY };
    // SAFETY: sched_setscheduler(2) reads one `sched_param`, which lives across the call; pid 0 is the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new(Code::System, "real-time priority is not allowed to this process"))
}

/// How long a considerate thread goes on before it is another's turn, in nanoseconds: the least that the kernel takes
/// (`sched_setattr(2)`; before Linux 6.12 it has no effect on ordinary threads). Not for threads that hold locks which
/// others wait for: interrupted so often, they would hold them for long.
const CONSIDERATE_TURN_NS: u64 = 100_000;

/// Makes the calling thread, and the threads that it starts from now on, considerate: its share of the processors stays
/// the same, but it takes it in short turns and interrupts nobody to begin one. For long work that nobody waits for as
/// urgently as others wait for their processor. Needs no privilege.
///
/// # Errors
///
/// [`Code::System`] where the kernel does not allow it.
pub fn be_considerate() -> Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_BATCH.unsigned_abs(),
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: CONSIDERATE_TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_setattr(2) reads one `sched_attr` of the size that it names and that lives across the call; pid 0 is
    // the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        return Ok(());
    }
    Err(Error::new(Code::System, "short turns are not allowed to this process"))
}

/// Whether a thread of this process may be raised, found out by a thread that tries and ends.
#[must_use]
pub fn is_allowed() -> bool {
    std::thread::Builder::new()
        .spawn(|| raise_this_thread().is_ok())
        .is_ok_and(|thread| thread.join().unwrap_or(false))
}
