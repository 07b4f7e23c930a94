//! What taking back is compared with: the kernel's own `ftruncate` of a file that the same processes map, and the speed
//! at which this machine overwrites memory.

use std::hint::black_box;
use std::os::fd::OwnedFd;

use caps::error::{Code, Error, Result};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::bench::numbers::timed;

/// The kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On a tmpfs of its own that uses huge pages, as the provider makes it. Needs `CAP_SYS_ADMIN`.
    Huge,
    /// A memfd.
    Memfd,
}

/// A file of `bytes` in memory, every page of it allocated.
///
/// # Errors
/// `E_SYSTEM` if this user or this kernel cannot make one.
pub fn file(kind: Kind, bytes: u64) -> Result<OwnedFd> {
    let make = || {
        let file = match kind {
            Kind::Huge => huge(bytes)?,
            Kind::Memfd => rustix::fs::memfd_create("leasehold-bench", MemfdFlags::CLOEXEC)?,
        };
        rustix::fs::ftruncate(&file, bytes)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(file)
    };
    make().map_err(|errno: Errno| {
        let (what, number) = (format!("{kind:?}").to_lowercase(), errno.raw_os_error());
        let detail =
            format!("no {what} file to compare with: errno {number}; a tmpfs of one's own takes root");
        Error::with(Code::System, detail)
    })
}

fn huge(bytes: u64) -> rustix::io::Result<OwnedFd> {
    let system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&system, "size", bytes.to_string())?;
    rustix::mount::fsconfig_set_string(&system, "huge", "within_size")?;
    rustix::mount::fsconfig_create(&system)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = rustix::mount::fsmount(&system, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(&mount, ".", flags, Mode::RUSR | Mode::WUSR)
}

/// The bare cut.
///
/// # Errors
/// `E_SYSTEM` if the kernel refuses, which it never should.
pub fn cut(file: &OwnedFd) -> Result<()> {
    rustix::fs::ftruncate(file, 0).map_err(|_| Error::new(Code::System, "cannot truncate a file"))
}

/// Microseconds of overwriting `bytes` of memory in huge pages with zeros, once it is there, by one thread.
///
/// # Errors
/// `E_NOMEM`.
pub fn memset(bytes: usize) -> Result<f64> {
    let no_memory = |_| Error::new(Code::NoMemory, "no memory to overwrite");
    let mut memory = memmap2::MmapMut::map_anon(bytes).map_err(no_memory)?;
    let _ = memory.advise(memmap2::Advice::HugePage); // where there are none, small ones are the machine's memset
    memory.fill(1);
    let (micros, ()) = timed(|| black_box(&mut memory).fill(0));
    black_box(&memory);
    Ok(micros)
}
