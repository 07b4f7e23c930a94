//! What a holder of a lease's descriptor may try with it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use caps::id::SlotHandle;
use serde::{Deserialize, Serialize};

/// A descriptor as the node sent it.
pub struct Bare {
    /// It.
    pub descriptor: OwnedFd,
    /// Bytes of the region.
    pub bytes: usize,
    /// The open right that it belongs to.
    pub handle: SlotHandle,
}

/// Something that a holder must not be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attack {
    /// ftruncate to nothing: pages vanish from the others' mappings.
    Truncate,
    /// ftruncate to twice the size.
    Extend,
    /// fallocate beyond the end.
    Grow,
    /// fallocate with PUNCH_HOLE: other pages under the same right.
    Punch,
    /// fallocate with ZERO_RANGE.
    Zero,
    /// write(2).
    Write,
    /// write(2) beyond the end.
    WriteBeyond,
    /// read(2), which nobody would count.
    Read,
    /// mmap with PROT_EXEC.
    MapExecutable,
    /// mmap with PROT_WRITE, shared.
    MapWritable,
    /// mprotect of a readable mapping to PROT_WRITE.
    ProtectWritable,
    /// mprotect of a readable mapping to PROT_EXEC.
    ProtectExecutable,
    /// Opens it again through /proc/self/fd, read and write.
    ReopenWritable,
    /// Opens it again through /proc/self/fd to truncate it.
    ReopenTruncate,
    /// madvise(MADV_REMOVE): a hole by way of the mapping. `writable` mappings only are asked for permission late.
    Remove { writable: bool },
    /// fchmod: a mode that lets others in.
    ChangeMode,
    /// fchown to oneself.
    ChangeOwner,
    /// splice from it into a pipe: pins pages beyond the mapping's life.
    Splice,
    /// linkat through /proc/self/fd: a name for what has none.
    Link,
    /// A lease or lock that could hold up others: fcntl(F_SETLEASE).
    SetLease,
    /// fcntl(F_ADD_SEALS): a file that may not shrink cannot be cut.
    Seal,
}

impl Attack {
    /// Tries it. 0 if it succeeded, else the errno.
    pub fn run(self, bare: &Bare) -> i32 {
        let fd = bare.descriptor.as_raw_fd();
        let bytes = bare.bytes as libc::off_t;
        let page = [0xa5_u8; 4096];
        let proc = CString::new(format!("/proc/self/fd/{fd}")).unwrap();
        // SAFETY: system calls on a descriptor of ours, with buffers and paths that live until each returns. Whatever
        // they do to the file, no Rust object of this process lies in it.
        let result = unsafe {
            match self {
                Self::Truncate => libc::ftruncate(fd, 0).into(),
                Self::Extend => libc::ftruncate(fd, 2 * bytes).into(),
                Self::Grow => libc::fallocate(fd, 0, bytes, bytes).into(),
                Self::Punch => {
                    libc::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096)
                        .into()
                }
                Self::Zero => libc::fallocate(fd, libc::FALLOC_FL_ZERO_RANGE, 0, 4096).into(),
                Self::Write => libc::pwrite(fd, page.as_ptr().cast(), page.len(), 0) as i64,
                Self::WriteBeyond => libc::pwrite(fd, page.as_ptr().cast(), page.len(), bytes) as i64,
                Self::Read => {
                    let mut into = page;
                    libc::pread(fd, into.as_mut_ptr().cast(), into.len(), 0) as i64
                }
                Self::MapExecutable => return mapped(bare, libc::PROT_READ | libc::PROT_EXEC, |_| 0),
                Self::MapWritable => return mapped(bare, libc::PROT_READ | libc::PROT_WRITE, |_| 0),
                Self::ProtectWritable => {
                    return mapped(bare, libc::PROT_READ, |start| {
                        libc::mprotect(start.cast(), bare.bytes, libc::PROT_READ | libc::PROT_WRITE)
                    });
                }
                Self::ProtectExecutable => {
                    return mapped(bare, libc::PROT_READ, |start| {
                        libc::mprotect(start.cast(), bare.bytes, libc::PROT_READ | libc::PROT_EXEC)
                    });
                }
                Self::ReopenWritable => opened(libc::open(proc.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)),
                Self::ReopenTruncate => {
                    opened(libc::open(proc.as_ptr(), libc::O_WRONLY | libc::O_TRUNC | libc::O_CLOEXEC))
                }
                Self::Remove { writable } => {
                    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
                    return mapped(bare, protection, |start| {
                        libc::madvise(start.cast(), 4096, libc::MADV_REMOVE)
                    });
                }
                Self::ChangeMode => libc::fchmod(fd, 0o666).into(),
                Self::ChangeOwner => libc::fchown(fd, libc::geteuid(), libc::getegid()).into(),
                Self::Splice => {
                    let mut pipe = [0; 2];
                    assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
                    let mut from = 0;
                    let moved = libc::splice(
                        fd,
                        &raw mut from,
                        pipe[1],
                        std::ptr::null_mut(),
                        4096,
                        libc::SPLICE_F_NONBLOCK,
                    );
                    let errno = std::io::Error::last_os_error();
                    libc::close(pipe[0]);
                    libc::close(pipe[1]);
                    return if moved < 0 { errno.raw_os_error().unwrap() } else { 0 };
                }
                Self::Link => {
                    let name = CString::new(format!("/tmp/leasehold-e2e-link-{}", libc::getpid())).unwrap();
                    let linked = libc::linkat(
                        libc::AT_FDCWD,
                        proc.as_ptr(),
                        libc::AT_FDCWD,
                        name.as_ptr(),
                        libc::AT_SYMLINK_FOLLOW,
                    );
                    if linked == 0 {
                        libc::unlink(name.as_ptr());
                    }
                    linked.into()
                }
                Self::SetLease => libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK).into(),
                Self::Seal => libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK).into(),
            }
        };
        errno(result)
    }
}

fn errno(result: i64) -> i32 {
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap() } else { 0 }
}

fn opened(fd: libc::c_int) -> i64 {
    if fd >= 0 {
        // SAFETY: a descriptor that was opened here and that nobody else knows.
        unsafe { libc::close(fd) };
    }
    fd.into()
}

/// Maps the whole region, shared.
///
/// # Errors
/// The errno.
pub fn map(descriptor: &OwnedFd, bytes: usize, protection: i32) -> Result<*mut u8, i32> {
    let fd = descriptor.as_raw_fd();
    // SAFETY: a fresh mapping at an address of the kernel's choice; it touches nothing of ours.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED { Err(errno(-1)) } else { Ok(start.cast()) }
}

/// Maps, tries something on the mapping, and unmaps. The errno of the first that fails.
fn mapped(bare: &Bare, protection: i32, attack: impl FnOnce(*mut u8) -> i32) -> i32 {
    match map(&bare.descriptor, bare.bytes, protection) {
        Err(errno) => errno,
        Ok(start) => {
            let result = errno(attack(start).into());
            // SAFETY: the mapping just made, to which nobody has a pointer any more.
            unsafe { libc::munmap(start.cast(), bare.bytes) };
            result
        }
    }
}

/// Holds the lock of a region's file from inside `pwrite`, by a buffer whose page fault nobody answers, for as long as
/// this process lives. `device` is /dev/userfaultfd. Returns once the lock is held.
pub fn hold_lock(bare: &Bare, device: &OwnedFd) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping, and a userfaultfd of this process' from the device (USERFAULTFD_IOC_NEW takes flags).
    let (at, faults) = unsafe {
        let at = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED);
        let faults = libc::ioctl(device.as_raw_fd(), 0xAA00, libc::O_CLOEXEC);
        assert!(faults >= 0, "{}", std::io::Error::last_os_error());
        (at as usize, <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(faults))
    };
    // struct uffdio_api { api, features, ioctls }; struct uffdio_register { start, len, mode, ioctls }.
    let mut api = [0xAA_u64, 0, 0];
    let mut register = [at as u64, 4096, 1, 0];
    // SAFETY: UFFDIO_API and UFFDIO_REGISTER read and write structures of three and four 64-bit words.
    unsafe {
        assert_eq!(libc::ioctl(faults.as_raw_fd(), 0xC018_AA3F, api.as_mut_ptr()), 0);
        assert_eq!(libc::ioctl(faults.as_raw_fd(), 0xC020_AA00, register.as_mut_ptr()), 0);
    }
    let file = bare.descriptor.as_raw_fd();
    std::thread::spawn(move || {
        // SAFETY: pwrite(2) from the mapping above, which lives as long as the process.
        unsafe { libc::pwrite(file, at as *const _, 4096, 0) }
    });
    // The event comes when the write has faulted, inside the lock.
    assert_eq!(rustix::io::read(&faults, &mut [0; 32]).unwrap(), 32);
    std::mem::forget(faults); // closing it would answer
}
