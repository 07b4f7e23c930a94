//! Attackers that go on with what they have: mappings, the descriptor, children, and no wish to die of a signal.

use std::os::fd::AsRawFd;
use std::ptr;

use serde::{Deserialize, Serialize};

use super::common::attack::Attack;
use super::common::{Ask, Said, USERS};
use super::scene::{Scene, Setting, play as scene};
use super::stage::{self, Held, PAGE, Stage, refused};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// Reads, writes and maps again.
    Everything,
    /// A forked child reads without pause.
    ChildReads,
    /// A forked child writes without pause.
    ChildWrites,
    /// A second mapping, made of the first without the descriptor.
    Remapped,
    /// SIGBUS is blocked.
    SignalBlocked,
    /// SIGBUS is ignored.
    SignalIgnored,
    /// SIGBUS has a handler that goes on.
    SignalHandled,
    /// The process is stopped while its right is taken back.
    Stopped,
    /// The descriptor goes to a process of another user.
    PassedOn,
    /// Every call on the descriptor, before.
    DescriptorBefore,
    /// Every call on the descriptor, afterwards: to fill the dead file again, above all.
    DescriptorAfter,
}

attacks! {
    both {
        a_kept_mapping_and_descriptor_reach_nothing => |setting| scene(setting, Crime::Keep(Row::Everything));
        a_forked_child_that_writes_dies => |setting| scene(setting, Crime::Keep(Row::ChildWrites));
        a_second_mapping_by_mremap_reaches_nothing => |setting| scene(setting, Crime::Keep(Row::Remapped));
        a_descriptor_abused_before_the_revoke_holds_up_nothing =>
            |setting| scene(setting, Crime::Keep(Row::DescriptorBefore));
        a_dead_file_cannot_be_refilled => |setting| scene(setting, Crime::Keep(Row::DescriptorAfter));
        a_stopped_process_faults_when_it_goes_on => stopped;
        a_stranger_with_the_descriptor_faults => stranger;
    }
    whole("what the kernel does at an access to a file that was cut does not depend on who maps another file") {
        a_forked_child_that_reads_dies => |setting| scene(setting, Crime::Keep(Row::ChildReads));
        a_blocked_sigbus_kills_all_the_same => |setting| scene(setting, Crime::Keep(Row::SignalBlocked));
        an_ignored_sigbus_kills_all_the_same => |setting| scene(setting, Crime::Keep(Row::SignalIgnored));
        a_handled_sigbus_shows_no_byte => |setting| scene(setting, Crime::Keep(Row::SignalHandled));
    }
}

fn stopped(setting: Setting) {
    let Some(mut scene) = Scene::set(setting, super::common::SMALL) else { return };
    let mut villain = scene.villain(Crime::Keep(Row::Stopped));
    villain.ready();
    villain.stopped();
    scene.take_back();
    villain.resume();
    scene.judge(villain.after());
    scene.end(villain);
}

fn stranger(setting: Setting) {
    let Some(mut scene) = Scene::set(setting, super::common::SMALL) else { return };
    let mut villain = scene.villain(Crime::Keep(Row::PassedOn));
    let descriptor = villain.take();
    let key = libmem::SigningKey::generate();
    let mut strangers = [USERS[2], USERS[3]].map(|uid| scene.world.actor(&key, uid));
    let pass = |stranger: &mut super::common::Actor| {
        let said = stranger.ask(&Ask::TakeDescriptor { bytes: super::common::SMALL as usize });
        assert!(matches!(said, Said::Ready), "{said:?}");
        stranger.give(std::os::fd::AsFd::as_fd(&descriptor));
        stranger.hear()
    };
    let [early, late] = &mut strangers;
    let said = pass(early);
    assert!(matches!(said, Some(Said::Started)), "{said:?}");
    villain.ready();
    scene.take_back();
    assert_eq!(early.wait_for_signal(), libc::SIGBUS);
    match pass(late) {
        Some(Said::Started) => assert_eq!(late.wait_for_signal(), libc::SIGBUS),
        said => assert!(matches!(said, Some(Said::Refused { .. })), "{said:?}"),
    }
    scene.judge(villain.after());
    drop((strangers, descriptor));
    scene.end(villain);
}

pub fn play(row: Row, stage: &mut Stage) {
    let held = stage.open();
    let bytes = held.bare.bytes;
    match row {
        Row::Everything => {
            stage.acknowledged();
            stage.touch("the old mapping", held.start, bytes);
            map_again(stage, &held);
            // SAFETY: asks the kernel to make present what a mapping of ours shows; it has nothing to show.
            let populated = unsafe { libc::madvise(held.start.cast(), bytes, libc::MADV_POPULATE_READ) };
            stage.tried("populate", refused(populated.into()));
        }
        Row::ChildReads | Row::ChildWrites => {
            let child = stage::fork(|| use_without_end(held.start, bytes, matches!(row, Row::ChildWrites)));
            stage.acknowledged();
            let ended = stage::reap(child).map_or_else(Outcome::Signal, |_| Outcome::Done);
            stage.tried("the child", ended);
            stage.touch("the parent's mapping", held.start, bytes);
        }
        Row::Remapped => {
            // SAFETY: an old length of nothing duplicates a shared mapping at a place of the kernel's choice.
            let second = unsafe { libc::mremap(held.start.cast(), 0, bytes, libc::MREMAP_MAYMOVE) };
            assert!(second != libc::MAP_FAILED && second != held.start.cast());
            stage.acknowledged();
            stage.touch("the second mapping", second.cast(), bytes);
            // SAFETY: as above; whether it still can be duplicated does not matter.
            let third = unsafe { libc::mremap(held.start.cast(), 0, bytes, libc::MREMAP_MAYMOVE) };
            if third != libc::MAP_FAILED {
                stage.touch("a third mapping", third.cast(), bytes);
            }
        }
        Row::SignalBlocked | Row::SignalIgnored | Row::SignalHandled => {
            defy(row);
            stage.acknowledged();
            for offset in (0..bytes).step_by(PAGE) {
                // SAFETY: inside the mapping.
                let place = unsafe { held.start.add(offset) };
                if let Row::SignalHandled = row {
                    stage.tried(format!("read at {offset}"), survive(place));
                } else {
                    stage.tried(format!("read at {offset}"), stage::read(place));
                }
            }
        }
        Row::Stopped => {
            stage.ready();
            // SAFETY: stops this process until the test lets it go on.
            assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
            stage.await_acknowledgement();
            stage.touch("the old mapping", held.start, bytes);
        }
        Row::PassedOn => {
            stage.give(&held.bare.descriptor);
            stage.acknowledged();
            stage.touch("the old mapping", held.start, bytes);
        }
        Row::DescriptorBefore => {
            abuse(stage, &held, "before");
            stage.acknowledged();
            stage.touch("the old mapping", held.start, bytes);
        }
        Row::DescriptorAfter => {
            stage.acknowledged();
            abuse(stage, &held, "after");
            stage.touch("the old mapping", held.start, bytes);
            map_again(stage, &held);
        }
    }
    drop(held.session);
}

/// Every call that changes something or reads without a mapping.
fn abuse(stage: &mut Stage, held: &Held, when: &str) {
    const CALLS: [Attack; 20] = [
        Attack::Truncate,
        Attack::Extend,
        Attack::Grow,
        Attack::Punch,
        Attack::Zero,
        Attack::Write,
        Attack::WriteBeyond,
        Attack::Read,
        Attack::MapExecutable,
        Attack::ProtectExecutable,
        Attack::ReopenWritable,
        Attack::ReopenTruncate,
        Attack::ChangeMode,
        Attack::ChangeOwner,
        Attack::Splice,
        Attack::Link,
        Attack::SetLease,
        Attack::Seal,
        Attack::Remove { writable: false },
        Attack::Remove { writable: true },
    ];
    for call in CALLS {
        let outcome = match call.run(&held.bare) {
            0 => Outcome::Done,
            errno => Outcome::Errno(errno),
        };
        stage.tried(format!("{when}: {call:?}"), outcome);
    }
}

fn map_again(stage: &mut Stage, held: &Held) {
    let bytes = held.bare.bytes;
    for (what, flags) in [("shared", libc::MAP_SHARED), ("private", libc::MAP_PRIVATE)] {
        let fd = held.bare.descriptor.as_raw_fd();
        let both = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let again = unsafe { libc::mmap(ptr::null_mut(), bytes, both, flags, fd, 0) };
        if again == libc::MAP_FAILED {
            stage.tried(format!("a new {what} mapping"), refused(-1));
        } else {
            stage.touch(&format!("a new {what} mapping"), again.cast(), bytes);
        }
    }
}

/// What a child does until the kernel ends it, or its parent's end does.
pub(super) fn use_without_end(start: *mut u8, bytes: usize, writing: bool) -> i32 {
    loop {
        for offset in (0..bytes).step_by(PAGE) {
            // SAFETY: inside a mapping that was inherited; that it faults one day is what this is about.
            unsafe {
                let byte = start.add(offset + 3000).read_volatile();
                if writing {
                    start.add(offset + 3000).write_volatile(byte ^ 0xff);
                }
            }
        }
    }
}

/// Makes SIGBUS something that this process, and its children, do not die of if they can help it.
fn defy(row: Row) {
    // SAFETY: changes what this process does at SIGBUS; the handler is a function that never returns.
    unsafe {
        match row {
            Row::SignalBlocked => {
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGBUS);
                assert_eq!(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()), 0);
            }
            Row::SignalIgnored => {
                assert!(libc::signal(libc::SIGBUS, libc::SIG_IGN) != libc::SIG_ERR);
            }
            _ => {
                let handler: extern "C" fn(i32) = caught;
                assert!(libc::signal(libc::SIGBUS, handler as libc::sighandler_t) != libc::SIG_ERR);
            }
        }
    }
}

/// What a child that caught SIGBUS ends with.
const CAUGHT: i32 = 77;

extern "C" fn caught(_: i32) {
    // SAFETY: ends the process that the signal came to, with nothing between.
    unsafe { libc::_exit(CAUGHT) }
}

/// Reads in a child that outlives the signal. It is stopped before it has a byte.
fn survive(place: *const u8) -> Outcome {
    // SAFETY: a mapping of ours; the fault leads to the handler.
    match stage::reap(stage::fork(|| i32::from(unsafe { place.read_volatile() } != 0))) {
        Ok(CAUGHT) => Outcome::Signal(libc::SIGBUS),
        Ok(0) => Outcome::Zeros,
        Ok(_) => Outcome::Leak,
        Err(signal) => Outcome::Signal(signal),
    }
}
