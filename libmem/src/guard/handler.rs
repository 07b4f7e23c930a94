//! The fault handler: whether an access goes on, comes back with an error, or ends the process.
//!
//! A fault is ours only if the kernel raised it (it was not sent by a process, and is no memory error of the machine) and
//!
//! - the interrupted instruction lies in a guarded routine, the slot register of that routine names a slot of the table,
//!   and the address that faulted lies in that slot's range. So a guarded copy whose *other* side is bad (the caller's
//!   own buffer, or raw memory of another lease) still ends the process: that is a defect, not a revoke; or
//! - it is a SIGBUS, and the address lies in any slot's range: raw access to leased memory.
//!
//! Anything else goes to whoever handled the signal before.
//!
//! ```text
//! SIGBUS, page not there (BUS_ADRERR)
//!   ours? ── no ─────────────────────────────────────────────▶ the previous handler, or death
//!     │ yes
//!     ▼
//!   rotating? ── no channel, or a forked child ──────▶ lost
//!     │ yes
//!     ▼   ┌────────────────────────────────────────────────┐
//!   revoked, ended, segment withdrawn, time over? ── yes ──▶ lost ── guarded: landing pad; raw: previous handler
//!     │ no                                                 │
//!   page there again? ── yes: somebody installed it ───────▶ the instruction runs once more
//!     │ no                                                 │
//!   take a message from the channel, carry it out          │
//!     └─ none: wait for one, 1 to 4 ms ────────────────────┘
//!
//! SIGSEGV, access not allowed (SEGV_ACCERR), guarded ──▶ landing pad: a write met a segment that became read-only
//! ```
//!
//! A raw write to a segment that became read-only is a SIGSEGV, which goes to the previous handler: nothing could be
//! said to the program otherwise.
//!
//! The handler allocates nothing, touches no thread-local, saves `errno`, and takes no lock that interrupted code could
//! hold (see [`table`](super::table) for the one word it takes). Every signal is blocked in it, so that no handler of
//! the program runs while a message is half carried out; while it waits, those of the program are let in as they were
//! before the fault.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

use caps::error::{Code, Error};

use super::arch::{self, Interrupted};
use super::channel::{self, Found};
use super::signals;
use super::table::Slot;

/// `si_code` of an access to a page that is not there. `libc` does not name it for Linux.
const BUS_ADRERR: libc::c_int = 2;
/// `si_code` of an access that the page's protection forbids.
const SEGV_ACCERR: libc::c_int = 2;
/// How long a waiting thread sleeps before it looks at its page again, in milliseconds: this at first, then twice as
/// long each time, up to [`LOOK_MS_MAX`]. It has to look, because another thread may take the message it waits for.
const LOOK_MS_MIN: u64 = 1;
/// See [`LOOK_MS_MIN`].
const LOOK_MS_MAX: u64 = 4;

/// A signal of ours: what handled it before us. Set before our handler is, and what it points to is never freed or
/// changed.
struct Handled {
    signal: libc::c_int,
    previous: AtomicPtr<libc::sigaction>,
    installed: OnceLock<Result<(), i32>>,
}

static SIGBUS: Handled = Handled::new(libc::SIGBUS);
static SIGSEGV: Handled = Handled::new(libc::SIGSEGV);

/// Installs the handler for the whole process, once; later calls are free. SIGSEGV is only handled in a process whose
/// rights can be narrowed while they are mapped.
///
/// # Errors
/// `E_SYSTEM` if the kernel refuses, which it has no reason to do.
pub(super) fn install(rotating: bool) -> Result<(), Error> {
    SIGBUS.install()?;
    if rotating { SIGSEGV.install() } else { Ok(()) }
}

impl Handled {
    const fn new(signal: libc::c_int) -> Self {
        Self { signal, previous: AtomicPtr::new(ptr::null_mut()), installed: OnceLock::new() }
    }

    fn install(&self) -> Result<(), Error> {
        self.installed
            .get_or_init(|| self.install_once().map_err(|error| error.raw_os_error().unwrap_or(0)))
            .map_err(|errno| {
                let signal = self.signal;
                Error::with(Code::System, format!("sigaction for signal {signal} failed with errno {errno}"))
            })
    }

    fn install_once(&self) -> io::Result<()> {
        let previous = self.swap_action(None)?;
        // SAFETY: all-zero bytes are a valid `sigaction`: numbers, a set of signals, and a null restorer.
        let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        ours.sa_sigaction = on_fault as *const () as usize;
        // SA_ONSTACK: a thread whose stack is nearly full still gets its answer. SA_RESTART is the previous handler's,
        // which runs inside ours.
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | (previous.sa_flags & libc::SA_RESTART);
        // SAFETY: fills a whole set. `chain` gives the previous handler the mask that it asked for.
        unsafe { libc::sigfillset(&raw mut ours.sa_mask) };
        // Known before the handler can run; leaked, because a handler in another thread may be reading it for
        // ever.
        self.previous.store(Box::leak(Box::new(previous)), Ordering::Release);
        let replaced = self.swap_action(Some(&ours))?;
        if replaced.sa_sigaction != previous.sa_sigaction {
            // Another thread installed its handler between our two calls.
            self.previous.store(Box::leak(Box::new(replaced)), Ordering::Release);
        }
        Ok(())
    }

    /// Installs `new`, if given, and returns the action that was there.
    fn swap_action(&self, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `new` is null or a whole action whose handler is a function of that kind; `old` is writable.
        let result =
            unsafe { libc::sigaction(self.signal, new.map_or(ptr::null(), ptr::from_ref), old.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed is a valid value, and the call succeeded and filled it.
        Ok(unsafe { old.assume_init() })
    }
}

/// Lets this thread receive the signals of faults. The kernel kills a process whose thread faults while it blocks the
/// signal, and threads that block every signal are common; so each thread's first guarded access lifts that
/// block for itself.
#[inline]
pub(super) fn admit_thread() {
    thread_local! {
        static ADMITTED: Cell<bool> = const { Cell::new(false) };
    }
    #[cold]
    fn admit() {
        // SAFETY: both calls write only to `set`, which `sigemptyset` makes valid; neither can fail with a
        // valid signal.
        unsafe {
            let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGBUS);
            libc::sigaddset(&raw mut set, libc::SIGSEGV);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        }
        ADMITTED.set(true);
    }
    if !ADMITTED.get() {
        admit();
    }
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: a thread's errno is its own, and always there.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes a siginfo and a context that live until we return (SA_SIGINFO), to nobody
    // else.
    let (info_ref, context_ref) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let mask = signals::word(&context_ref.uc_sigmask);
    let ours = absorb(signal, info_ref, &mut Interrupted::new(context_ref), mask);
    // SAFETY: as above. The interrupted code may be about to read it.
    unsafe { *libc::__errno_location() = errno };
    if ours.is_none() {
        // SAFETY: the same arguments that the kernel gave us.
        unsafe { chain(signal, info, context, mask) };
    }
}

/// Decides. `None`: it is not ours, or there is nothing to be done for raw access.
fn absorb(
    signal: libc::c_int,
    info: &libc::siginfo_t,
    interrupted: &mut Interrupted<'_>,
    mask: u64,
) -> Option<()> {
    let absent = signal == libc::SIGBUS && info.si_code == BUS_ADRERR;
    let forbidden = signal == libc::SIGSEGV && info.si_code == SEGV_ACCERR;
    if !absent && !forbidden {
        return None;
    }
    // SAFETY: a fault with these codes carries an address.
    let address = unsafe { info.si_addr() } as usize;
    let landing_pad = arch::landing_pad(interrupted.pc());
    let slot = if landing_pad.is_some() {
        Slot::at(interrupted.slot()).filter(|slot| slot.contains(address))?
    } else if absent {
        Slot::containing(address)?
    } else {
        return None;
    };
    if absent && comes_back(slot, address, mask) {
        return Some(()); // the program counter stays: the instruction runs once more
    }
    interrupted.set_pc(landing_pad?);
    Some(())
}

/// Waits until the page at `address`, which was cut, is there again. False: it is not coming.
///
/// The owner of the slot is the interrupted code, or lent it its access, so the slot and its channel stay as long as
/// this runs.
fn comes_back(slot: &Slot, address: usize, mask: u64) -> bool {
    // A forked child shares its parent's channel, and would take the messages away from it. It is no survivor.
    if !slot.is_own() {
        return false;
    }
    let Some((channel, wait)) =
        slot.hold().rotating().map(|rotating| (rotating.channel_number(), rotating.wait()))
    else {
        return false;
    };
    // SAFETY: the mapping whose access is under way keeps the channel open.
    let channel = unsafe { BorrowedFd::borrow_raw(channel) };
    let end = now().saturating_add(wait);
    let mut look = LOOK_MS_MIN;
    loop {
        if slot.hold().rotating().is_none_or(|rotating| rotating.is_lost(address)) {
            return false;
        }
        if is_there(address) {
            return true;
        }
        let found = channel::take(channel);
        match found {
            Found::Message | Found::Nothing => {}
            Found::End => {
                if let Some(rotating) = slot.hold().rotating() {
                    rotating.hung_up();
                }
                return false;
            }
        }
        let left = end.saturating_sub(now());
        if left.is_zero() {
            return false;
        }
        if found == Found::Nothing {
            channel::wait(channel, left.min(Duration::from_millis(look)), mask);
            look = (look * 2).min(LOOK_MS_MAX);
        }
    }
}

/// Whether the page at `address` can be read: the kernel reads a word of it on our behalf, and says `EFAULT` instead of
/// raising a signal.
///
/// It is asked to change the signal mask in a way that does not exist, which it finds out after it has read the mask:
/// an old call, in every kernel, and one that no sandbox forbids.
fn is_there(address: usize) -> bool {
    const NO_SUCH_WAY: libc::c_int = -1;
    let word = address & !(signals::MASK_BYTES - 1);
    // SAFETY: the kernel checks the address itself, and changes nothing for a way that it does not know.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            NO_SUCH_WAY,
            word,
            ptr::null_mut::<u64>(),
            signals::MASK_BYTES,
        )
    };
    // SAFETY: a thread's errno is its own.
    result == 0 || unsafe { *libc::__errno_location() } != libc::EFAULT
}

/// The time since some start, which a suspended machine does not stretch: it does not age while it sleeps.
fn now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a span to write to; this clock exists always.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    // Neither is negative, and there are fewer than 10^9 nanoseconds.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Does what would have happened without us.
///
/// # Safety
/// Called in the handler with the kernel's arguments.
unsafe fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void, mask: u64) {
    let handled = if signal == libc::SIGBUS { &SIGBUS } else { &SIGSEGV };
    // SAFETY: set before the handler was installed, to an action that is never freed or changed.
    let previous = unsafe { &*handled.previous.load(Ordering::Acquire) };
    // SAFETY: the kernel's siginfo. Codes above 0 are its own: the access that faulted will fault again.
    let raised_by_access = unsafe { (*info).si_code } > 0;
    match previous.sa_sigaction {
        libc::SIG_IGN if !raised_by_access => {}
        // A fault cannot be ignored: the kernel treats it as the default action.
        libc::SIG_DFL | libc::SIG_IGN => die(signal, raised_by_access),
        handler => {
            if previous.sa_flags & libc::SA_RESETHAND != 0 {
                // It asked to be called once. The default action is what comes after it.
                handled.previous.store((&raw const DEFAULT.0).cast_mut(), Ordering::Release);
            }
            // It finds the mask that the kernel would have given it. Ours is full; the kernel restores the thread's
            // when we return.
            let itself = if previous.sa_flags & libc::SA_NODEFER == 0 { signals::only(signal) } else { 0 };
            signals::set(mask | signals::word(&previous.sa_mask) | itself);
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: with SA_SIGINFO the kernel would call it with these three arguments.
                let handler = unsafe {
                    std::mem::transmute::<
                        usize,
                        extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void),
                    >(handler)
                };
                handler(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO the kernel would call it with the signal alone.
                let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
                handler(signal);
            }
        }
    }
}

/// The default action as something that [`Handled::previous`] can point to.
struct Default(libc::sigaction);
// SAFETY: never written to.
unsafe impl Sync for Default {}
// SAFETY: all-zero bytes are a valid `sigaction`, and SIG_DFL is 0.
static DEFAULT: Default = Default(unsafe { MaybeUninit::zeroed().assume_init() });

/// Puts the default action back, so that the process dies by this very signal when the handler returns.
fn die(signal: libc::c_int, raised_by_access: bool) {
    // SAFETY: both calls are async-signal-safe, and the action is the default one.
    unsafe {
        libc::sigaction(signal, &raw const DEFAULT.0, ptr::null_mut());
        if !raised_by_access {
            // Somebody sent the signal, so no access will raise it again. It stays pending until we return.
            libc::raise(signal);
        }
    }
}
