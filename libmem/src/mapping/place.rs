//! Mapping a segment's file over addresses that are ours: when a mapping is made, and when a rotation brings a fresh
//! file. Async-signal-safe.

use std::os::fd::BorrowedFd;

use caps::error::{Code, Error};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::Access;

/// Maps `bytes` of `descriptor` at `start`, over whatever is there: shared, never executable, kept out of core dumps.
/// On an error the addresses stay reserved, with nothing behind them that could be read.
///
/// # Errors
/// `E_FD_TYPE` if the kernel refuses to map this descriptor so, `E_NOMEM`, or `E_SYSTEM`.
///
/// # Safety
/// The range belongs to the caller: whole pages of a reservation of its own. Who uses it meanwhile expects it to change.
pub(crate) unsafe fn segment(
    start: *mut u8,
    bytes: usize,
    descriptor: BorrowedFd<'_>,
    access: Access,
) -> Result<(), Error> {
    let protection = match access {
        Access::Read => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    // SAFETY: the caller's promise: the range is its own.
    let mapped = unsafe {
        rustix::mm::mmap(start.cast(), bytes, protection, MapFlags::SHARED | MapFlags::FIXED, descriptor, 0)
    };
    if let Err(errno) = mapped {
        // The kernel may have removed what was there before it failed. NOREPLACE: should others have taken the hole
        // already, theirs stays.
        // SAFETY: as above, and it replaces nothing.
        let _ = unsafe { empty(start, bytes, MapFlags::FIXED_NOREPLACE) };
        return Err(refused(errno));
    }
    // SAFETY: the range was mapped just now; the advice changes no byte and no right.
    unsafe { rustix::mm::madvise(start.cast(), bytes, Advice::LinuxDontDump) }.map_err(|_| {
        // SAFETY: the caller's promise.
        let _ = unsafe { empty(start, bytes, MapFlags::FIXED) };
        Error::new(Code::System, "a segment could not be kept out of core dumps")
    })
}

/// Reserves the range without anything behind it.
///
/// # Safety
/// As [`segment`].
unsafe fn empty(start: *mut u8, bytes: usize, fixed: MapFlags) -> Result<(), Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | fixed;
    // SAFETY: the caller's promise.
    unsafe { rustix::mm::mmap_anonymous(start.cast(), bytes, ProtFlags::empty(), flags) }.map(drop)
}

/// Constants only: this is said in signal handlers too.
const fn refused(errno: Errno) -> Error {
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::NODEV | Errno::INVAL | Errno::OVERFLOW => {
            Error::new(Code::DescriptorType, "the descriptor cannot be mapped as the right says")
        }
        Errno::NOMEM => Error::new(Code::NoMemory, "this process has no room for another mapping"),
        _ => Error::new(Code::System, "mmap of a segment failed"),
    }
}
