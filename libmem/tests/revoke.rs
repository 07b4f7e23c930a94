//! Memory that is cut while it is used under guard: every access comes back with `E_REVOKED`, in every
//! thread.

mod common;

use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use caps::error::Code;
use common::{cut, map, memfd, page};
use libmem::{Access, Mapping, Revocation};

/// Uses the memory in one way until it fails, and returns the code.
fn use_until_revoked(mapping: &Mapping, way: usize, running: &AtomicUsize) -> Code {
    let mut buffer = vec![0u8; mapping.len()];
    let mut turn = 0u64;
    loop {
        let offset = (turn as usize * 8) % (mapping.len() / 2);
        let result = match way % 6 {
            0 => mapping.read_at(0, &mut buffer),
            1 => mapping.write_at(0, &buffer),
            2 => mapping.read_at(offset + 1, &mut buffer[..301]),
            3 => mapping.store_u64(offset, turn),
            4 => mapping.fetch_add_u64(offset, 1).map(drop),
            _ => mapping
                .load_u64(offset)
                .and_then(|value| mapping.compare_exchange_u64(offset, value, turn))
                .map(drop),
        };
        if turn == 0 {
            running.fetch_add(1, Ordering::Release);
        }
        turn += 1;
        if let Err(error) = result {
            return error.code();
        }
    }
}

/// Twelve threads use the mapping in six ways; once all are at it, `cut_it` takes the memory away.
fn cut_under_threads(pages: usize, cut_it: impl FnOnce(&std::os::fd::OwnedFd)) {
    const THREADS: usize = 12;
    let fd = memfd(pages);
    // A flag for each thread, so that none stops because another met the cut: every one takes the fault
    // itself.
    let mappings: Vec<_> = (0..THREADS).map(|_| map(&fd, pages, Access::ReadWrite)).collect();
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = mappings
            .iter()
            .enumerate()
            .map(|(way, mapping)| {
                let running = &running;
                scope.spawn(move || use_until_revoked(mapping, way, running))
            })
            .collect();
        while running.load(Ordering::Acquire) < THREADS {
            std::thread::yield_now();
        }
        cut_it(&fd);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Code::Revoked);
        }
    });
}

#[test]
fn cut_by_a_thread() {
    for round in 0..40 {
        cut_under_threads(4 + round * 8, |fd| cut(fd));
    }
}

#[test]
fn cut_by_another_process() {
    for _ in 0..5 {
        cut_under_threads(64, |fd| {
            let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
            let status = Command::new("truncate").args(["-s", "0", &path]).status().unwrap();
            assert!(status.success());
        });
    }
}

#[test]
fn threads_share_one_mapping() {
    let fd = memfd(64);
    let mapping = map(&fd, 64, Access::ReadWrite);
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|way| {
                let (mapping, running) = (&mapping, &running);
                scope.spawn(move || use_until_revoked(mapping, way, running))
            })
            .collect();
        while running.load(Ordering::Acquire) < 6 {
            std::thread::yield_now();
        }
        cut(&fd);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Code::Revoked);
        }
    });
}

#[test]
fn the_border_of_the_cut_is_exact() {
    let (pages, kept) = (8, 3);
    let border = kept * page();
    // Below and above the length from which x86_64 copies with its string instruction, and around the widths
    // of the loop.
    for before in [0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 300, 1023, 1024, 1500, border] {
        for after in [1, 7, 64, 500, 2 * page() + 3] {
            let fd = memfd(pages);
            let mapping = map(&fd, pages, Access::ReadWrite);
            let bytes: Vec<u8> = (0..pages * page()).map(|i| (i % 251) as u8).collect();
            mapping.write_at(0, &bytes).unwrap();
            let other = map(&fd, pages, Access::ReadWrite);
            rustix::fs::ftruncate(&fd, border as u64).unwrap();

            let mut got = vec![0xff; before + after];
            let error = mapping.read_at(border - before, &mut got).unwrap_err();
            assert_eq!(error.code(), Code::Revoked);
            assert_eq!(got[..before], bytes[border - before..border]);
            assert!(got[before..].iter().all(|&byte| byte == 0xff), "before {before}, after {after}");

            let error = other.write_at(border - before, &vec![0xee; before + after]).unwrap_err();
            assert_eq!(error.code(), Code::Revoked);
            let fresh = map(&fd, kept, Access::Read);
            let mut left = vec![0; border];
            fresh.read_at(0, &mut left).unwrap();
            assert_eq!(left[..border - before], bytes[..border - before]);
            assert!(
                left[border - before..].iter().all(|&byte| byte == 0xee),
                "before {before}, after {after}"
            );
        }
    }
}

#[test]
fn revoked_stays_revoked() {
    let fd = memfd(2);
    let mapping = map(&fd, 2, Access::ReadWrite);
    let mut byte = [0];
    mapping.read_at(0, &mut byte).unwrap();
    cut(&fd);
    assert_eq!(mapping.read_at(0, &mut byte).unwrap_err().code(), Code::Revoked);
    // Somebody who can write to the dead file puts pages back: this mapping does not read them.
    rustix::fs::ftruncate(&fd, 2 * page() as u64).unwrap();
    assert_eq!(mapping.read_at(0, &mut byte).unwrap_err().code(), Code::Revoked);
    assert_eq!(mapping.write_at(0, &byte).unwrap_err().code(), Code::Revoked);
    assert_eq!(mapping.load_u64(0).unwrap_err().code(), Code::Revoked);
}

#[test]
fn a_hang_up_ends_guarded_access_to_memory_that_is_still_there() {
    let fd = memfd(2);
    let hang_up = Revocation::new();
    let mappings: Vec<_> = (0..3)
        .map(|_| Mapping::new(vec![common::segment(&fd, 2)], Access::ReadWrite, hang_up.clone()).unwrap())
        .collect();
    let bystander = map(&fd, 2, Access::ReadWrite);
    let running = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = mappings
            .iter()
            .enumerate()
            .map(|(way, mapping)| {
                let running = &running;
                scope.spawn(move || use_until_revoked(mapping, way, running))
            })
            .collect();
        while running.load(Ordering::Acquire) < 3 {
            std::thread::yield_now();
        }
        hang_up.revoke();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Code::Revoked);
        }
    });
    for mapping in &mappings {
        assert_eq!(mapping.read_at(0, &mut []).unwrap_err().code(), Code::Revoked);
        assert_eq!(mapping.write_at(0, &[]).unwrap_err().code(), Code::Revoked);
        assert_eq!(mapping.store_u64(0, 0).unwrap_err().code(), Code::Revoked);
        assert_eq!(mapping.fetch_add_u64(0, 0).unwrap_err().code(), Code::Revoked);
        assert_eq!(mapping.compare_exchange_u64(0, 0, 0).unwrap_err().code(), Code::Revoked);
    }
    bystander.read_at(0, &mut [0; 16]).unwrap();
}

#[test]
fn only_the_cut_mapping_fails() {
    let (lost, kept) = (memfd(4), memfd(4));
    let (dead, alive) = (map(&lost, 4, Access::ReadWrite), map(&kept, 4, Access::ReadWrite));
    cut(&lost);
    let mut buffer = vec![0; 4 * page()];
    assert!(dead.read_at(0, &mut buffer).is_err());
    alive.write_at(0, &buffer).unwrap();
    alive.read_at(0, &mut buffer).unwrap();
    assert!(!alive.revocation().is_revoked());
}

#[test]
fn a_thread_that_blocks_every_signal_survives() {
    let fd = memfd(4);
    let mapping = map(&fd, 4, Access::ReadWrite);
    cut(&fd);
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: the set is filled before it is used.
                unsafe {
                    let mut all = std::mem::zeroed();
                    libc::sigfillset(&raw mut all);
                    assert_eq!(
                        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()),
                        0
                    );
                }
                assert_eq!(mapping.read_at(0, &mut [0; 4096]).unwrap_err().code(), Code::Revoked);
            })
            .join()
            .unwrap();
    });
}

#[test]
fn a_forked_child_is_cut_as_well() {
    let fd = memfd(4);
    let mapping = map(&fd, 4, Access::ReadWrite);
    mapping.write_at(0, &[7; 64]).unwrap();
    let (go_read, go_write) = rustix::pipe::pipe().unwrap();
    let (ready_read, ready_write) = rustix::pipe::pipe().unwrap();
    let no_core = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let children: Vec<libc::pid_t> = [false, true]
        .into_iter()
        .map(|raw| {
            // SAFETY: the child calls only what is safe after a fork of a process with threads: no
            // allocation, no lock.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0);
            if pid == 0 {
                let mut buffer = [0; 64];
                let _ = rustix::process::setrlimit(rustix::process::Resource::Core, no_core);
                // SAFETY: closes the child's copy, so that a parent that dies ends the wait below.
                unsafe { libc::close(go_write.as_raw_fd()) };
                let before = mapping.read_at(0, &mut buffer).is_ok() && buffer[0] == 7;
                let _ = rustix::io::write(&ready_write, b"r");
                let _ = rustix::io::read(&go_read, &mut [0u8; 1]);
                let code = if raw {
                    10 + i32::from(mapping.volatile().load_u8(0).is_ok())
                } else {
                    let after = mapping.read_at(0, &mut buffer);
                    if before && after.is_err_and(|error| error.code() == Code::Revoked) { 0 } else { 1 }
                };
                // SAFETY: ends the child without running what belongs to the parent.
                unsafe { libc::_exit(code) };
            }
            pid
        })
        .collect();
    // Both have read what the memory held; only then is it cut.
    let mut ready = 0;
    while ready < children.len() {
        ready += rustix::io::read(&ready_read, &mut [0u8; 2]).unwrap();
    }
    cut(&fd);
    rustix::io::write(&go_write, b"go").unwrap();
    let ends: Vec<i32> = children
        .into_iter()
        .map(|pid| {
            let mut status = 0;
            // SAFETY: `status` is writable, and the child is ours.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            status
        })
        .collect();
    assert!(libc::WIFEXITED(ends[0]) && libc::WEXITSTATUS(ends[0]) == 0, "guarded: {:#x}", ends[0]);
    assert!(libc::WIFSIGNALED(ends[1]) && libc::WTERMSIG(ends[1]) == libc::SIGBUS, "raw: {:#x}", ends[1]);
}
