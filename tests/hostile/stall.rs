//! Attackers that keep the kernel inside a call on the region, so that a lock of it might never be free again.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::common::{SMALL, until};
use super::fuse::{self, Silent};
use super::scene::{Scene, Setting, play as scene};
use super::stage::{Stage, refused};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// write(2) to the region from a buffer that never fills.
    WriteFromSilence,
    /// read(2) into the region from a file that never answers.
    ReadFromSilence,
    /// 64 threads write more than fits, all the time.
    ManyWrites,
}

/// Threads of [`Row::ManyWrites`].
const WRITERS: usize = 64;
/// Bytes of each of their writes: address space, of which no page is ever made.
const HUGE: usize = 480 << 20;

attacks! {
    both {
        a_write_from_a_buffer_that_never_fills_holds_up_nothing => |setting| silence(setting, Row::WriteFromSilence);
        a_read_that_never_ends_holds_up_nothing => |setting| silence(setting, Row::ReadFromSilence);
        threads_that_queue_huge_writes_hold_up_nothing => |setting| scene(setting, Crime::Stall(Row::ManyWrites));
    }
}

fn silence(setting: Setting, row: Row) {
    let Some(mut scene) = Scene::set(setting, SMALL) else { return };
    let mut villain = scene.villain(Crime::Stall(row));
    let silent = Silent::new(); // after the villain: whatever happens here, it ends first
    villain.give(silent.file());
    villain.ready();
    scene.take_back();
    drop(silent); // only now may its calls end
    scene.judge(villain.after());
    scene.end(villain);
}

pub fn play(row: Row, stage: &mut Stage) {
    let held = stage.open();
    let (fd, start) = (held.bare.descriptor.as_raw_fd(), held.start as usize);
    match row {
        Row::WriteFromSilence => {
            let silent = stage.take();
            let buffer = map(fuse::BYTES, libc::MAP_SHARED, silent.as_raw_fd(), libc::PROT_READ);
            let called = in_flight(libc::SYS_pwrite64, move || {
                // SAFETY: the buffer is a mapping of ours, which the kernel reads; in vain, as is intended.
                unsafe { libc::pwrite(fd, buffer as *const _, 4096, 0) as i64 }
            });
            stage.acknowledged();
            stage.tried("the write", called.join().unwrap());
        }
        Row::ReadFromSilence => {
            let silent = stage.take();
            let from = silent.as_raw_fd();
            let called = in_flight(libc::SYS_pread64, move || {
                // SAFETY: the kernel writes to a mapping of ours, in which no Rust object lies.
                unsafe { libc::pread(from, start as *mut _, 4096, 0) as i64 }
            });
            stage.acknowledged();
            stage.tried("the read", called.join().unwrap());
        }
        Row::ManyWrites => {
            let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let buffer = map(HUGE, anonymous, -1, libc::PROT_READ);
            let (over, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
            let writers: Vec<_> = (0..WRITERS)
                .map(|_| {
                    let (over, begun) = (over.clone(), begun.clone());
                    std::thread::spawn(move || {
                        let mut worst = Outcome::Zeros;
                        begun.fetch_add(1, Ordering::SeqCst);
                        while !over.load(Ordering::SeqCst) {
                            // SAFETY: the buffer is a mapping of ours, which the kernel reads.
                            let wrote = unsafe { libc::pwrite(fd, buffer as *const _, HUGE, 0) as i64 };
                            if worst != Outcome::Done {
                                worst = refused(wrote);
                            }
                        }
                        worst
                    })
                })
                .collect();
            until("all of them write", || (begun.load(Ordering::SeqCst) == WRITERS).then_some(()));
            stage.acknowledged();
            over.store(true, Ordering::SeqCst);
            for (n, writer) in writers.into_iter().enumerate() {
                stage.tried(format!("writer {n}"), writer.join().unwrap());
            }
        }
    }
    stage.touch("the old mapping", held.start, held.bare.bytes);
    drop(held.session);
}

fn map(bytes: usize, flags: i32, fd: RawFd, protection: i32) -> usize {
    // SAFETY: a fresh mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    start as usize
}

/// Makes a call in a thread, and returns when the thread is inside it, or through with it already.
fn in_flight(
    number: libc::c_long,
    call: impl FnOnce() -> i64 + Send + 'static,
) -> std::thread::JoinHandle<Outcome> {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
        refused(call())
    });
    let task = format!("/proc/self/task/{}/syscall", told.recv().unwrap());
    until("a thread is inside its call", || {
        let inside = std::fs::read_to_string(&task).unwrap_or_default();
        (inside.starts_with(&format!("{number} ")) || thread.is_finished()).then_some(())
    });
    thread
}
