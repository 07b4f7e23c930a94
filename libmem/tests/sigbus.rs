//! What the handler does not absorb: raw access, faults of other memory, signals that somebody sent.

mod common;

use common::{cut, died_by_sigbus, gone, in_child, map, memfd};
use libmem::Access;

/// How a handler of the test's says that it ran. Nothing else ends a child with it.
const HANDLED: i32 = 42;

extern "C" fn plain_handler(signal: libc::c_int) {
    // SAFETY: `_exit` is async-signal-safe.
    unsafe { libc::_exit(if signal == libc::SIGBUS { HANDLED } else { 1 }) }
}

extern "C" fn full_handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo, handed on; `_exit` is async-signal-safe.
    unsafe {
        let whole = signal == libc::SIGBUS && (*info).si_signo == signal && !context.is_null();
        libc::_exit(if whole { HANDLED } else { 1 });
    }
}

fn set_action(handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: a whole action: a handler of the kind that the flags say, no mask, no restorer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn send_sigbus() {
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGBUS) };
}

#[test]
fn raw_access_dies() {
    let status = in_child("raw_access_dies", || {
        gone(4).volatile().load_u8(0).unwrap();
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn raw_slices_die_and_so_do_stores() {
    let status = in_child("raw_slices_die_and_so_do_stores", || {
        let mut mapping = gone(4);
        // SAFETY: nobody else knows the file.
        unsafe { mapping.as_mut_slice().unwrap()[4096] = 1 };
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn raw_access_dies_after_guarded_access_failed() {
    let status = in_child("raw_access_dies_after_guarded_access_failed", || {
        let mapping = gone(4);
        assert!(mapping.read_at(0, &mut [0; 8]).is_err());
        mapping.volatile().load_u8(0).unwrap();
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn with_the_default_action_before_us() {
    let status = in_child("with_the_default_action_before_us", || {
        set_action(libc::SIG_DFL, 0);
        let mapping = gone(4);
        assert!(mapping.read_at(0, &mut [0; 8]).is_err());
        mapping.volatile().load_u8(0).unwrap();
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn ignoring_does_not_help_raw_access() {
    let status = in_child("ignoring_does_not_help_raw_access", || {
        set_action(libc::SIG_IGN, 0);
        gone(4).volatile().load_u8(0).unwrap();
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn a_copy_into_the_callers_own_lost_memory_dies() {
    let status = in_child("a_copy_into_the_callers_own_lost_memory_dies", || {
        let fd = memfd(4);
        let healthy = map(&fd, 4, Access::ReadWrite);
        let mut lost = gone(4);
        // SAFETY: nobody else knows the file.
        let buffer = unsafe { lost.as_mut_slice() }.unwrap();
        // The lost memory is another lease's, but it stands on the side that this call does not guard.
        let _ = healthy.read_at(0, buffer);
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn a_copy_from_the_callers_own_lost_memory_dies() {
    let status = in_child("a_copy_from_the_callers_own_lost_memory_dies", || {
        let fd = memfd(4);
        let healthy = map(&fd, 4, Access::ReadWrite);
        // A file mapped by the caller itself: no lease at all.
        let own = memfd(4);
        // SAFETY: a new mapping where the kernel likes, never unmapped; nobody else knows the file.
        let bytes = unsafe {
            let start = rustix::mm::mmap(
                std::ptr::null_mut(),
                4 * common::page(),
                rustix::mm::ProtFlags::READ,
                rustix::mm::MapFlags::SHARED,
                &own,
                0,
            )
            .unwrap();
            std::slice::from_raw_parts(start.cast::<u8>(), 4 * common::page())
        };
        cut(&own);
        let _ = healthy.write_at(0, bytes);
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn an_earlier_handler_gets_what_is_not_ours() {
    for (name, handler, flags) in [
        ("full", full_handler as *const () as usize, libc::SA_SIGINFO),
        ("plain", plain_handler as *const () as usize, 0),
        ("once", plain_handler as *const () as usize, libc::SA_RESETHAND),
    ] {
        for sent in [false, true] {
            let status = in_child_variant(
                "an_earlier_handler_gets_what_is_not_ours",
                &format!("{name}-{sent}"),
                || {
                    set_action(handler, flags);
                    let mapping = gone(4);
                    assert!(mapping.read_at(0, &mut [0; 8]).is_err(), "absorbed, not handed on");
                    if sent {
                        send_sigbus();
                    } else {
                        mapping.volatile().load_u8(0).unwrap();
                    }
                },
            );
            if let Some(status) = status {
                assert_eq!(status.code(), Some(HANDLED), "{name}, sent {sent}: {status}");
            }
        }
    }
}

/// As `in_child`, for one of several children of a test: `None` in a child that is meant for another.
fn in_child_variant(test: &str, variant: &str, child: impl FnOnce()) -> Option<std::process::ExitStatus> {
    const VARIANT: &str = "LIBMEM_TEST_VARIANT";
    match std::env::var(VARIANT) {
        Ok(chosen) if chosen != variant => None,
        Ok(_) => Some(in_child(test, child)),
        Err(_) => Some(common::in_child_with(test, &[(VARIANT, variant)], child)),
    }
}

#[test]
fn a_handler_that_asked_for_one_call_gets_one() {
    extern "C" fn returns(_: libc::c_int) {}
    let status = in_child("a_handler_that_asked_for_one_call_gets_one", || {
        set_action(returns as *const () as usize, libc::SA_RESETHAND);
        let _mapping = gone(4);
        send_sigbus(); // handled, and the process lives on
        send_sigbus(); // the default action
    });
    assert!(died_by_sigbus(status), "{status}");
}

#[test]
fn a_sent_signal_is_ignored_if_it_was_before() {
    let status = in_child("a_sent_signal_is_ignored_if_it_was_before", || {
        set_action(libc::SIG_IGN, 0);
        let mapping = gone(4);
        send_sigbus();
        assert!(mapping.read_at(0, &mut [0; 8]).is_err(), "the handler is still ours");
    });
    assert!(status.success(), "{status}");
}

#[test]
fn a_sent_signal_kills_if_it_did_before() {
    let status = in_child("a_sent_signal_kills_if_it_did_before", || {
        set_action(libc::SIG_DFL, 0);
        let _mapping = gone(4);
        send_sigbus();
    });
    assert!(died_by_sigbus(status), "{status}");
}

extern "C" fn mask_handler(_: libc::c_int) {
    // SAFETY: asks for the mask, into a set that is whole; `_exit` is async-signal-safe.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask);
        let blocked = |signal| libc::sigismember(&raw const mask, signal) == 1;
        let right = blocked(libc::SIGBUS) && blocked(libc::SIGUSR1) && !blocked(libc::SIGUSR2);
        libc::_exit(if right { HANDLED } else { 1 });
    }
}

#[test]
fn the_handler_before_us_finds_the_mask_it_asked_for() {
    let status = in_child("the_handler_before_us_finds_the_mask_it_asked_for", || {
        // SAFETY: a whole action: a handler of the plain kind, a mask with one signal, no restorer.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = mask_handler as *const () as libc::sighandler_t;
            libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1);
            assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()), 0);
        }
        gone(4).volatile().load_u8(0).unwrap();
    });
    assert_eq!(status.code(), Some(HANDLED), "{status}");
}
