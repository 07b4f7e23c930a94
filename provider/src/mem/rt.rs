//! Real-time priority for the threads that cut.
//!
//! A cut is short (milliseconds at worst) and everybody waits for it. On a busy machine an ordinary thread waits for
//! its turn for hundreds of milliseconds; a real-time one does not.
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

/// Whether a thread of this process may be raised, found out by a thread that tries and ends.
#[must_use]
pub fn is_allowed() -> bool {
    std::thread::Builder::new()
        .spawn(|| raise_this_thread().is_ok())
        .is_ok_and(|thread| thread.join().unwrap_or(false))
}
