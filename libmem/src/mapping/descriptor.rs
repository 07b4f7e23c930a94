//! What a received descriptor must be before it is mapped.
//!
//! The provider may lie, or somebody may have taken its place. A descriptor is a lease's memory only if it is
//! a regular file of exactly the promised size that lives in RAM, opened for what the right allows. Whatever
//! else it is, the answer is `E_FD_TYPE` and the descriptor is closed (the caller owned it and drops it).
//!
//! All of it is system calls, and every answer a constant: a fresh segment is checked in a signal handler.

use std::os::fd::BorrowedFd;

use caps::error::{Code, Error};
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags};
use rustix::io::Errno;

use super::Access;

/// Whether a segment's file may have been cut on its way to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A file without a byte is a wrong file.
    Excluded,
    /// The node says over a channel what follows a cut: a file without a byte is mapped, and the next one waited for.
    Possible,
}

/// Checks one segment's descriptor. Async-signal-safe.
///
/// # Errors
/// `E_FD_TYPE`, with what is wrong.
pub(crate) fn check(descriptor: BorrowedFd<'_>, bytes: u64, access: Access, cut: Cut) -> Result<(), Error> {
    let wrong = |detail| Err(Error::new(Code::DescriptorType, detail));

    let flags = rustix::fs::fcntl_getfl(descriptor).map_err(|_| unanswered())?;
    if flags.contains(OFlags::PATH) {
        return wrong("the descriptor only names a file (O_PATH)");
    }
    match (flags & OFlags::ACCMODE, access) {
        (OFlags::RDWR, _) | (OFlags::RDONLY, Access::Read) => {}
        (OFlags::RDONLY, Access::ReadWrite) => {
            return wrong("the descriptor is read-only and the right is to write");
        }
        _ => return wrong("the descriptor cannot be read"),
    }

    // Attributes as the kernel has them in memory, without asking the file system. The descriptor of a sealed
    // lease has nobody left who could be asked (a plain `fstat` fails with ENOTCONN on 6.18), and a peer's own
    // file system must not get the chance to keep us waiting.
    let attributes = rustix::fs::statx(
        descriptor,
        "",
        AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
        StatxFlags::TYPE | StatxFlags::SIZE,
    )
    .map_err(|_| unanswered())?;
    if FileType::from_raw_mode(u32::from(attributes.stx_mode)) != FileType::RegularFile {
        return wrong("the descriptor is not a regular file");
    }
    let was_cut = cut == Cut::Possible && attributes.stx_size == 0;
    if attributes.stx_size != bytes && !was_cut {
        return wrong("the file is not as long as the segment");
    }

    match rustix::fs::fstatfs(descriptor) {
        Ok(system) if system.f_type == libc::TMPFS_MAGIC => Ok(()),
        // A FUSE file whose server is gone: its pages can only be those of the file behind it, and that is
        // what the descriptor of a sealed lease is. One whose server still runs could hold our reads for
        // ever.
        Err(Errno::NOTCONN | Errno::CONNABORTED) => Ok(()),
        Ok(_) => wrong("the file is not in RAM"),
        Err(_) => Err(unanswered()),
    }
}

fn unanswered() -> Error {
    Error::new(Code::DescriptorType, "the descriptor does not answer what it is")
}
