//! The SIGBUS handler: one decision, made of loads and compares.
//!
//! A fault is absorbed only if all four hold; anything else goes to whoever handled SIGBUS before:
//! 1. the kernel raised it for an access to a page that is not there (`BUS_ADRERR`): not sent by a process,
//!    and not a memory error of the machine;
//! 2. the interrupted instruction lies in a guarded routine;
//! 3. the slot register of that routine names a slot of the table;
//! 4. the address that faulted lies in that slot's range. So a guarded copy whose *other* side is bad (the
//!    caller's own buffer, or raw memory of another lease) still ends the process: that is a defect, not a
//!    revoke.
//!
//! The handler allocates nothing, takes no lock, touches no thread-local and calls nothing on the way that
//! absorbs.
//!
//! Where it will grow: before the decision, the handler that knows of a rotation looks the *address* up in
//! the table (raw accesses too), maps the fresh segment there, and returns without moving the program
//! counter.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use caps::error::{Code, Error};

use super::arch::{self, Interrupted};
use super::table::Slot;

/// `si_code` of an access to a page that is not there. `libc` does not name it for Linux.
const BUS_ADRERR: libc::c_int = 2;

/// What handled SIGBUS before us. Set before our handler is, and what it points to is never freed or changed.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler for the whole process, once; later calls are free.
///
/// # Errors
/// `E_SYSTEM` if the kernel refuses, which it has no reason to do.
pub(super) fn install() -> Result<(), Error> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| install_once().map_err(|error| error.raw_os_error().unwrap_or(0)))
        .map_err(|errno| Error::with(Code::System, format!("sigaction for SIGBUS failed with errno {errno}")))
}

fn install_once() -> io::Result<()> {
    let previous = swap_action(None)?;
    // SAFETY: all-zero bytes are a valid `sigaction`: numbers, a set of signals, and a null restorer.
    let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ours.sa_sigaction = on_sigbus as *const () as usize;
    // SA_ONSTACK: a thread whose stack is nearly full still gets its answer. The mask, SA_NODEFER and
    // SA_RESTART are the previous handler's, because it runs inside ours and must find what it asked for.
    ours.sa_flags =
        libc::SA_SIGINFO | libc::SA_ONSTACK | (previous.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART));
    ours.sa_mask = previous.sa_mask;
    // Known before the handler can run; leaked, because a handler in another thread may be reading it for
    // ever.
    PREVIOUS.store(Box::leak(Box::new(previous)), Ordering::Release);
    let replaced = swap_action(Some(&ours))?;
    if replaced.sa_sigaction != previous.sa_sigaction {
        // Another thread installed its handler between our two calls.
        PREVIOUS.store(Box::leak(Box::new(replaced)), Ordering::Release);
    }
    Ok(())
}

/// Installs `new`, if given, and returns the action that was there.
fn swap_action(new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `new` is null or a whole action whose handler is a function of that kind; `old` is writable.
    let result =
        unsafe { libc::sigaction(libc::SIGBUS, new.map_or(ptr::null(), ptr::from_ref), old.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value, and the call succeeded and filled it.
    Ok(unsafe { old.assume_init() })
}

/// Lets this thread receive SIGBUS. The kernel kills a process whose thread faults while it blocks the
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
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        }
        ADMITTED.set(true);
    }
    if !ADMITTED.get() {
        admit();
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo and a context that live until we return (SA_SIGINFO), to nobody
    // else.
    let absorbed = unsafe { absorb(&*info, &mut Interrupted::new(&mut *context.cast::<libc::ucontext_t>())) };
    if absorbed.is_none() {
        // SAFETY: the same arguments that the kernel gave us.
        unsafe { chain(signal, info, context) };
    }
}

/// Moves the thread to its landing pad if the fault is ours.
fn absorb(info: &libc::siginfo_t, interrupted: &mut Interrupted<'_>) -> Option<()> {
    if info.si_code != BUS_ADRERR {
        return None;
    }
    let landing_pad = arch::landing_pad(interrupted.pc())?;
    let slot = Slot::at(interrupted.slot())?;
    // SAFETY: a fault with this code carries an address.
    let address = unsafe { info.si_addr() } as usize;
    if !slot.contains(address) {
        return None;
    }
    interrupted.set_pc(landing_pad);
    Some(())
}

/// Does what would have happened without us.
///
/// # Safety
/// Called in the handler with the kernel's arguments.
unsafe fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: set before the handler was installed, to an action that is never freed or changed.
    let previous = unsafe { &*PREVIOUS.load(Ordering::Acquire) };
    // SAFETY: the kernel's siginfo. Codes above 0 are its own: the access that faulted will fault again.
    let raised_by_access = unsafe { (*info).si_code } > 0;
    match previous.sa_sigaction {
        libc::SIG_IGN if !raised_by_access => {}
        // A fault cannot be ignored: the kernel treats it as the default action.
        libc::SIG_DFL | libc::SIG_IGN => die(signal, raised_by_access),
        handler => {
            if previous.sa_flags & libc::SA_RESETHAND != 0 {
                // It asked to be called once. The default action is what comes after it.
                PREVIOUS.store((&raw const DEFAULT.0).cast_mut(), Ordering::Release);
            }
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

/// The default action as something [`PREVIOUS`] can point to.
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
