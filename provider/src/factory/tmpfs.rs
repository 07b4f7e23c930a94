//! A private file system in a few calls: made, reopened read-only, and lowered to nothing.
//!
//! The file system is detached: it is in no mount namespace's tree, no path leads to it, and it dies with the last
//! descriptor. `noexec`, `nosuid` and `nodev` hold for every mapping and reopening of its file.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, open_tree,
};

use super::wire::{Shape, Step};

/// The one file of an open region. A sealed region's file never has a name.
pub(super) const FILE_NAME: &CStr = c"memory";
/// The file that fills the last page of an open region's limit.
const PLUG_NAME: &CStr = c"plug";

/// Which step failed, and how.
pub(super) type StepResult<T> = Result<T, (Step, Errno)>;

/// Names the step of a failed call.
pub(super) fn step<T>(step: Step) -> impl FnOnce(Errno) -> Result<T, (Step, Errno)> {
    move |errno| Err((step, errno))
}

/// What this kernel and namespace accept, tried once at the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) noswap: bool,
    pub(super) huge: bool,
}

/// A fresh region: its file, and its mount while that is needed.
pub(super) struct Fresh {
    pub(super) file: OwnedFd,
    pub(super) mount: OwnedFd,
}

/// Makes a file system whose limit is `bytes` (rounded up to pages by the caller) and its file of that length.
/// No page is allocated here, except the plug of an open region: filling is the work of the thread that asked, so
/// that one large region never makes another wait for this process.
pub(super) fn create(bytes: u64, page: u64, shape: Shape, options: Options) -> StepResult<Fresh> {
    let plug = match shape {
        Shape::Sealed => 0,
        Shape::Open => page,
    };
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).or_else(step(Step::FsOpen))?;
    fsconfig_set_string(&context, c"size", (bytes + plug).to_string()).or_else(step(Step::Size))?;
    // The root, the file, and the plug: nobody makes another.
    let inodes = if plug == 0 { c"2" } else { c"3" };
    fsconfig_set_string(&context, c"nr_inodes", inodes).or_else(step(Step::Inodes))?;
    // At every size: below 2 MiB it gives folios larger than a page, which makes filling, pinning and cutting 64 KiB
    // two to eight times as fast.
    if options.huge {
        fsconfig_set_string(&context, c"huge", c"within_size").or_else(step(Step::Huge))?;
    }
    if options.noswap {
        fsconfig_set_flag(&context, c"noswap").or_else(step(Step::NoSwap))?;
    }
    fsconfig_create(&context).or_else(step(Step::CreateSuper))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).or_else(step(Step::FsMount))?;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = match shape {
        // O_TMPFILE with O_EXCL: created and unlinked in one call, and never to be linked.
        Shape::Sealed => {
            openat(&mount, c".", OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC, mode)
        }
        Shape::Open => openat(
            &mount,
            FILE_NAME,
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            mode,
        ),
    }
    .or_else(step(Step::OpenFile))?;
    // The length first: `huge=within_size` looks at it when pages are allocated.
    ftruncate(&file, bytes).or_else(step(Step::Resize))?;
    if plug != 0 {
        let plug_file = openat(
            &mount,
            PLUG_NAME,
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR,
        )
        .or_else(step(Step::Plug))?;
        retry_on_intr(|| fallocate(&plug_file, FallocateFlags::empty(), 0, plug))
            .or_else(step(Step::Plug))?;
    }
    Ok(Fresh { file, mount })
}

/// Lowers the limit of a live file system to the plug's page, so that nothing can be allocated in it any more.
/// Zero would mean "no limit". The kernel refuses with `EINVAL` while more than the plug is in use.
pub(super) fn shut(mount: BorrowedFd<'_>, page: u64) -> StepResult<()> {
    let context = fspick(mount, c"", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)
        .or_else(step(Step::Pick))?;
    fsconfig_set_string(&context, c"size", page.to_string()).or_else(step(Step::Size))?;
    fsconfig_reconfigure(&context).or_else(step(Step::Reconfigure))
}

/// The region's file opened read-only in a read-only clone of its mount: opening it again for writing is `EROFS`,
/// even for root, because the descriptor leads to no other mount.
pub(super) fn read_only(mount: BorrowedFd<'_>) -> StepResult<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(mount, c"", flags).or_else(step(Step::Clone))?;
    make_read_only(clone.as_fd()).or_else(step(Step::ReadOnly))?;
    openat(&clone, FILE_NAME, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .or_else(step(Step::Reopen))
}

/// Opens an open region's file for reading and writing.
pub(super) fn reopen(mount: BorrowedFd<'_>) -> StepResult<OwnedFd> {
    openat(mount, FILE_NAME, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .or_else(step(Step::Reopen))
}

/// Tries which options this kernel accepts here. The first error of a file system without any option is the answer
/// "this machine cannot do it at all".
pub(super) fn probe(page: u64) -> StepResult<Options> {
    create(page, page, Shape::Sealed, Options::default())?;
    Ok(Options {
        noswap: create(page, page, Shape::Sealed, Options { noswap: true, huge: false }).is_ok(),
        huge: create(page, page, Shape::Sealed, Options { noswap: false, huge: true }).is_ok(),
    })
}

fn make_read_only(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: mount_setattr(2) takes a directory descriptor, a NUL-terminated path, flags, a pointer to a
    // `struct mount_attr` and its size; it only reads them. The path is a literal and the struct lives across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The errno of the call just made.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
