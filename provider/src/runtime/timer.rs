//! Wakes at the kernel's next deadline, and when somebody sets the machine's clock.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use caps::error::{Code, Error, Result};
use caps::time::BootNanos;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::{Shared, lock};
use crate::kernel::Event;

/// A timer on `CLOCK_BOOTTIME`.
pub(super) struct Timer {
    fd: OwnedFd,
    /// When it is set to fire. Guards the setting too, so that two callers cannot overtake each other.
    armed: Mutex<Option<BootNanos>>,
}

fn failed(_: Errno) -> Error {
    Error::new(Code::System, "cannot have a timer")
}

fn at(nanos: u64) -> Itimerspec {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let second = 1_000_000_000;
    // The quotient of a u64 by 10^9 fits an i64, and so does the remainder.
    let value = Timespec { tv_sec: (nanos / second).cast_signed(), tv_nsec: (nanos % second).cast_signed() };
    Itimerspec { it_interval: zero, it_value: value }
}

impl Timer {
    pub(super) fn new() -> Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).map_err(failed)?;
        Ok(Self { fd, armed: Mutex::new(None) })
    }

    /// Makes sure that the timer fires no later than `deadline`. Firing early costs one tick that finds nothing due.
    pub(super) fn arm(&self, deadline: Option<BootNanos>) {
        let Some(deadline) = deadline else { return };
        let mut armed = lock(&self.armed);
        if armed.is_some_and(|at| at <= deadline) {
            return;
        }
        // A deadline of 0 would disarm the timer instead of firing it at once.
        let set = timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &at(deadline.0.max(1)));
        // It can only fail for a malformed value or a foreign descriptor (timerfd_settime(2)), and this is neither.
        // Going on without a timer would let leases live for ever.
        set.expect("the timer can be set");
        *armed = Some(deadline);
    }

    fn wait(&self) {
        let mut count = [0; 8];
        while rustix::io::read(&self.fd, &mut count) == Err(Errno::INTR) {}
        *lock(&self.armed) = None;
    }
}

/// The thread that ends what is due. It fences at once and leaves the cutting to others, so a burst of expiries
/// never delays the next one's fence.
pub(super) fn watch_deadlines(shared: &Arc<Shared>) -> Result<()> {
    let weak = Arc::downgrade(shared);
    spawn("lh-timer", move || {
        let _ = crate::mem::rt::raise_this_thread(); // where it is allowed; `doctor` says where not
        loop {
            // Held only while waiting; the timer cannot be dropped under the wait.
            let Some(shared) = Weak::upgrade(&weak) else { return };
            shared.timer.wait();
            let ticked = shared.step(Event::Tick);
            debug_assert!(ticked.is_ok(), "a tick refuses nothing");
        }
    })
}

/// The thread that records steps of the wall clock. Nothing else depends on the wall clock after the start.
pub(super) fn watch_wall_clock(shared: &Arc<Shared>) -> Result<()> {
    let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC).map_err(failed)?;
    let weak = Arc::downgrade(shared);
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    let never = at(u64::MAX / 4);
    timerfd_settime(&fd, flags, &never).map_err(failed)?;
    spawn("lh-wall", move || {
        let mut count = [0; 8];
        let mut known = 0;
        loop {
            match rustix::io::read(&fd, &mut count) {
                Err(Errno::CANCELED) => {
                    let Some(shared) = Weak::upgrade(&weak) else { return };
                    let ahead = shared.clock.wall_ahead();
                    shared.record_clock_step(ahead - known);
                    known = ahead;
                }
                Err(Errno::INTR) | Ok(_) => {}
                Err(_) => return,
            }
            if timerfd_settime(&fd, flags, &never).is_err() {
                return;
            }
        }
    })
}

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 * 1024)
        .spawn(run)
        .map(drop)
        .map_err(|_| Error::new(Code::System, "cannot start a thread"))
}
