//! Attackers that hold the pages by other means than a mapping, and use those after the acknowledgement.
//!
//! What the kernel gave a reference to stays a page of memory for as long as the reference lives. It must hold zeros,
//! and what is written to it must be in nobody's lease.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use io_uring::{IoUring, opcode, types};
use serde::{Deserialize, Serialize};

use super::scene::play as scene;
use super::stage::{Held, Stage, judge, refused};
use super::villain::{Crime, Outcome};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Row {
    /// Pages in a pipe, by vmsplice from the mapping.
    Vmsplice,
    /// Pages in a pipe, by splice from the descriptor.
    Splice,
    /// An io_uring buffer, read from.
    RegisteredRead,
    /// An io_uring buffer, written to.
    RegisteredWrite,
    /// /proc/self/mem.
    ProcMem,
    /// process_vm_readv and process_vm_writev.
    ProcessVm,
    /// read(2) into the mapping that began before.
    ReadInFlight,
}

attacks! {
    both {
        pages_pinned_by_vmsplice_read_zeros => |setting| scene(setting, Crime::Pin(Row::Vmsplice));
        pages_pinned_by_io_uring_read_zeros => |setting| scene(setting, Crime::Pin(Row::RegisteredRead));
        writes_through_an_io_uring_pin_reach_nobody => |setting| scene(setting, Crime::Pin(Row::RegisteredWrite));
        a_read_in_flight_reaches_nothing => |setting| scene(setting, Crime::Pin(Row::ReadInFlight));
    }
    whole("they reach the cut file or nothing, as a mapping does; what they pin is tried by the others") {
        pages_are_not_spliced_from_the_descriptor => |setting| scene(setting, Crime::Pin(Row::Splice));
        proc_self_mem_reaches_nothing => |setting| scene(setting, Crime::Pin(Row::ProcMem));
        process_vm_calls_reach_nothing => |setting| scene(setting, Crime::Pin(Row::ProcessVm));
    }
}

pub fn play(row: Row, stage: &mut Stage) {
    let held = stage.open();
    let bytes = held.bare.bytes;
    match row {
        Row::Vmsplice => vmsplice(stage, &held),
        Row::Splice => {
            let (_out, into) = rustix::pipe::pipe().unwrap();
            for when in ["before", "after"] {
                let fd = held.bare.descriptor.as_raw_fd();
                let mut from = 0;
                // SAFETY: moves references between two descriptors of ours; the offset lives through the call.
                let moved =
                    unsafe { libc::splice(fd, &raw mut from, into.as_raw_fd(), ptr::null_mut(), bytes, 0) };
                stage.tried(format!("splice {when}"), refused(moved as i64));
                if when == "before" {
                    stage.acknowledged();
                }
            }
        }
        Row::RegisteredRead => {
            let ring = registered(&held);
            let file = memory_file();
            assert_eq!(copy_out(&ring, &held, &file), bytes as i32);
            assert_eq!(judge(&contents(&file, bytes)), Outcome::Leak, "the pin sees the bytes while it may");
            stage.acknowledged();
            let file = memory_file();
            let copied = copy_out(&ring, &held, &file);
            stage.tried("through the buffer", outcome_of(copied, judge(&contents(&file, bytes))));
            let again = ring.submitter().register_buffers_sparse(1);
            assert!(again.is_err(), "the first registration still stands");
        }
        Row::RegisteredWrite => {
            let ring = registered(&held);
            let file = memory_file();
            file.write_all_at(&vec![0xee; bytes], 0).unwrap();
            stage.acknowledged();
            let copied = copy_in(&ring, &held, &file);
            stage.tried("through the buffer", outcome_of(copied, Outcome::Orphaned));
        }
        Row::ProcMem => {
            let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
            let mut byte = [0];
            memory.read_exact_at(&mut byte, held.start as u64).unwrap();
            assert_ne!(byte, [0], "it sees the bytes while it may");
            stage.acknowledged();
            let got = memory.read_at(&mut byte, held.start as u64).map_or(-1, |_| 0);
            stage.tried("pread", refused(got));
            let put = memory.write_at(&[0xee], held.start as u64).map_or(-1, |_| 0);
            stage.tried("pwrite", refused(put));
        }
        Row::ProcessVm => process_vm(stage, &held),
        Row::ReadInFlight => {
            let (out, into) = rustix::pipe::pipe().unwrap();
            let at = held.start as usize;
            let (tell, told) = std::sync::mpsc::channel();
            let reader = std::thread::spawn(move || {
                tell.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
                // SAFETY: the kernel writes to a mapping of ours, in which no Rust object lies.
                let got = unsafe { libc::read(out.as_raw_fd(), at as *mut _, 4096) };
                refused(got as i64)
            });
            let task = format!("/proc/self/task/{}/syscall", told.recv().unwrap());
            super::common::until("a thread is inside read", || {
                let inside = std::fs::read_to_string(&task).unwrap();
                inside.starts_with(&format!("{} ", libc::SYS_read)).then_some(())
            });
            stage.acknowledged();
            rustix::io::write(&into, &[0xee; 4096]).unwrap();
            stage.tried("a read that began before", reader.join().unwrap());
        }
    }
    stage.touch("the old mapping", held.start, bytes);
    drop(held.session);
}

fn vmsplice(stage: &mut Stage, held: &Held) {
    const PIECE: usize = 16 * 4096; // what a pipe holds
    let pipes: Vec<(OwnedFd, OwnedFd)> = (0..2)
        .map(|_| {
            let (out, into) = rustix::pipe::pipe().unwrap();
            let piece = libc::iovec { iov_base: held.start.cast(), iov_len: PIECE };
            // SAFETY: reads one iovec that names pages of a mapping of ours.
            let moved = unsafe { libc::vmsplice(into.as_raw_fd(), &raw const piece, 1, 0) };
            assert_eq!(moved, PIECE as isize);
            (out, into)
        })
        .collect();
    let drain = |pipe: &OwnedFd| {
        let mut bytes = vec![1; PIECE];
        let mut done = 0;
        while done < PIECE {
            done += rustix::io::read(pipe, &mut bytes[done..]).unwrap();
        }
        judge(&bytes)
    };
    assert_eq!(drain(&pipes[0].0), Outcome::Leak, "the pin sees the bytes while it may");
    stage.acknowledged();
    stage.tried("through the pipe", drain(&pipes[1].0));
    let piece = libc::iovec { iov_base: held.start.cast(), iov_len: PIECE };
    // SAFETY: as above.
    let moved = unsafe { libc::vmsplice(pipes[0].1.as_raw_fd(), &raw const piece, 1, 0) };
    stage.tried("vmsplice once more", refused(moved as i64));
}

fn registered(held: &Held) -> IoUring {
    let ring = IoUring::new(2).unwrap();
    let piece = libc::iovec { iov_base: held.start.cast(), iov_len: held.bare.bytes };
    // SAFETY: the mapping lives as long as this process.
    unsafe { ring.submitter().register_buffers(&[piece]) }.unwrap();
    ring
}

fn copy_out(ring: &IoUring, held: &Held, to: &File) -> i32 {
    let fd = types::Fd(to.as_raw_fd());
    done(ring, opcode::WriteFixed::new(fd, held.start, held.bare.bytes as u32, 0).build())
}

fn copy_in(ring: &IoUring, held: &Held, from: &File) -> i32 {
    let fd = types::Fd(from.as_raw_fd());
    done(ring, opcode::ReadFixed::new(fd, held.start, held.bare.bytes as u32, 0).build())
}

fn done(ring: &IoUring, request: io_uring::squeue::Entry) -> i32 {
    // SAFETY: this thread alone uses the ring, and waits for the request's end before it returns.
    unsafe { ring.submission_shared().push(&request).unwrap() };
    ring.submit_and_wait(1).unwrap();
    // SAFETY: as above.
    unsafe { ring.completion_shared().next() }.unwrap().result()
}

fn outcome_of(result: i32, done: Outcome) -> Outcome {
    if result < 0 { Outcome::Errno(-result) } else { done }
}

fn memory_file() -> File {
    File::from(rustix::fs::memfd_create("spoils", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

fn contents(file: &File, bytes: usize) -> Vec<u8> {
    let mut found = vec![0; bytes];
    let got = rustix::io::pread(file.as_fd(), &mut found, 0).unwrap();
    found.truncate(got);
    found
}

fn process_vm(stage: &mut Stage, held: &Held) {
    let mut byte = [0_u8];
    let mut call = |writing: bool| {
        let near = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let far = libc::iovec { iov_base: held.start.cast(), iov_len: 1 };
        // SAFETY: both name bytes of this process: one of a variable, one of a mapping in which no Rust object lies.
        let moved = unsafe {
            let call = if writing { libc::process_vm_writev } else { libc::process_vm_readv };
            call(libc::getpid(), &raw const near, 1, &raw const far, 1, 0)
        };
        refused(moved as i64)
    };
    assert_eq!(call(false), Outcome::Done, "it sees the bytes while it may");
    stage.acknowledged();
    stage.tried("process_vm_readv", call(false));
    stage.tried("process_vm_writev", call(true));
}
