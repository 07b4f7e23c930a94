//! The mmap-only descriptor: what clients of a sealed region receive.
//!
//! ```text
//!   client's descriptor ──── mmap ───────────────► the region's tmpfs pages (huge pages included)
//!        │
//!        └── read, write, fallocate, ftruncate, reopen, ... ──► a FUSE server that no longer exists: an error at once
//! ```
//! A private FUSE mount answers exactly one OPEN, with passthrough to the region's file for mappings and direct I/O
//! for everything else, and is then abandoned. Without it a client could call `write` with a buffer that stalls, hold
//! the inode's lock from inside the kernel, and block the cut for ever.
//!
//! Steps, and what a failure at each leaves: nothing but descriptors of this function, which its return closes.
//! Closing `/dev/fuse` aborts the connection, which also wakes the thread that waits in `openat`.
//!
//! Needs Linux 6.9 and `CAP_SYS_ADMIN` in the initial user namespace.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::{Errno, read, writev};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::fuse::{self, Attr, AttrOut, BackingMap, EntryOut, InHeader, InitIn, InitOut, OpenOut, OutHeader};
use super::region::Access;
use crate::factory::failed;

/// The whole conversation takes 0.2 to 4 ms; this much later something is broken.
const CONVERSATION_MS_MAX: u64 = 2_000;
/// How often to look whether the opening thread has given up.
const POLL_MS: i64 = 20;
/// The node id of the one file.
const FILE_NODE: u64 = 2;
/// Attributes never change, and nobody will be there to be asked again: valid for longer than any lease.
const VALID_S: u64 = 1 << 31;

/// Makes an mmap-only descriptor of `file`, which has `bytes` bytes.
///
/// # Errors
///
/// [`Code::System`] with the step and errno, [`Code::Timeout`] if the conversation hangs.
pub(super) fn mmap_only(file: BorrowedFd<'_>, bytes: u64, access: Access) -> Result<OwnedFd> {
    let device =
        open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open /dev/fuse"))?;
    let mount = mount_fuse(&device)?;
    let flags = OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | match access {
            Access::ReadOnly => OFlags::RDONLY,
            Access::ReadWrite => OFlags::RDWR,
        };
    let mut server = Server { device, file, bytes, opened: false };
    thread::scope(|scope| {
        let opening = thread::Builder::new()
            .name("open-sealed".into())
            .spawn_scoped(scope, || openat(&mount, c"memory", flags, Mode::empty()))
            .map_err(|_| Error::new(Code::Busy, "no thread for opening a sealed descriptor"))?;
        let served = server.serve_until(|| opening.is_finished());
        // Aborts the connection: `openat` returns now at the latest.
        drop(server);
        let opened = opening.join().map_err(|_| Error::new(Code::Internal, "the opening thread panicked"))?;
        served?;
        opened.map_err(failed("open a sealed descriptor"))
    })
}

fn mount_fuse(device: &OwnedFd) -> Result<OwnedFd> {
    let what = failed("mount a private FUSE");
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(&what)?;
    fsconfig_set_string(&context, c"source", c"leasehold").map_err(&what)?;
    fsconfig_set_string(&context, c"fd", device.as_raw_fd().to_string()).map_err(&what)?;
    fsconfig_set_string(&context, c"rootmode", c"40000").map_err(&what)?;
    fsconfig_set_string(&context, c"user_id", c"0").map_err(&what)?;
    fsconfig_set_string(&context, c"group_id", c"0").map_err(&what)?;
    fsconfig_set_flag(&context, c"allow_other").map_err(&what)?;
    fsconfig_create(&context).map_err(&what)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(&what)
}

/// The server of one file, for the length of one OPEN.
struct Server<'a> {
    device: OwnedFd,
    file: BorrowedFd<'a>,
    bytes: u64,
    opened: bool,
}

impl Server<'_> {
    /// Answers requests until OPEN is answered or the opener has given up.
    fn serve_until(&mut self, gave_up: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_millis(CONVERSATION_MS_MAX);
        let mut buffer = [0_u8; fuse::READ_BYTES_MIN];
        let wait = Timespec { tv_sec: 0, tv_nsec: POLL_MS * 1_000_000 };
        while !self.opened && !gave_up() {
            if Instant::now() > deadline {
                return Err(Error::new(Code::Timeout, "the kernel did not ask to open the sealed file"));
            }
            match poll(&mut [PollFd::new(&self.device, PollFlags::IN)], Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(failed("wait for a FUSE request")(errno)),
            }
            match read(&self.device, &mut buffer) {
                Ok(len) => self.answer(&buffer[..len]).map_err(failed("answer a FUSE request"))?,
                // ENOENT: the request was taken back before it was read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(errno) => return Err(failed("read a FUSE request")(errno)),
            }
        }
        Ok(())
    }

    fn answer(&mut self, message: &[u8]) -> rustix::io::Result<()> {
        let (header, body) = InHeader::read_from_prefix(message).map_err(|_| Errno::PROTO)?;
        match header.opcode {
            fuse::INIT => {
                let (ask, _) = InitIn::read_from_prefix(body).map_err(|_| Errno::PROTO)?;
                if ask.major != fuse::MAJOR || ask.flags2 & fuse::INIT2_PASSTHROUGH == 0 {
                    return self.refuse(&header, Errno::PROTO);
                }
                self.reply(&header, &init_out(ask.minor, ask.max_readahead))
            }
            fuse::LOOKUP => {
                let entry = EntryOut {
                    nodeid: FILE_NODE,
                    generation: 1,
                    entry_valid: VALID_S,
                    attr_valid: VALID_S,
                    nanoseconds: [0; 2],
                    attr: self.attr(FILE_NODE),
                };
                self.reply(&header, &entry)
            }
            fuse::GETATTR => {
                let attr =
                    AttrOut { attr_valid: VALID_S, attr: self.attr(header.nodeid), ..AttrOut::default() };
                self.reply(&header, &attr)
            }
            fuse::OPEN => {
                let open_flags = fuse::OPEN_PASSTHROUGH | fuse::OPEN_DIRECT_IO | fuse::OPEN_NOFLUSH;
                let open = match self.backing_id() {
                    Ok(backing_id) => OpenOut { fh: 0, open_flags, backing_id },
                    Err(errno) => return self.refuse(&header, errno),
                };
                self.reply(&header, &open)?;
                self.opened = true;
                Ok(())
            }
            // These two want no answer.
            fuse::FORGET | fuse::BATCH_FORGET => Ok(()),
            _ => self.refuse(&header, Errno::NOSYS),
        }
    }

    fn attr(&self, node: u64) -> Attr {
        let root = node == fuse::ROOT_NODE;
        Attr {
            ino: node,
            size: if root { 0 } else { self.bytes },
            blocks: if root { 0 } else { self.bytes.div_ceil(512) },
            mode: if root { libc::S_IFDIR | 0o700 } else { libc::S_IFREG | 0o600 },
            nlink: if root { 2 } else { 1 },
            blksize: 4096,
            ..Attr::default()
        }
    }

    /// Tells the connection about the region's file.
    fn backing_id(&self) -> rustix::io::Result<i32> {
        let map = BackingMap { fd: self.file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: this ioctl reads one `struct fuse_backing_map` (16 bytes; asserted beside its definition), which
        // lives across the call, and returns a number.
        let id = unsafe {
            libc::ioctl(self.device.as_raw_fd(), libc::Ioctl::from(fuse::BACKING_OPEN), &raw const map)
        };
        if id > 0 {
            return Ok(id);
        }
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }

    fn reply<T: IntoBytes + Immutable>(&self, header: &InHeader, body: &T) -> rustix::io::Result<()> {
        self.write(header, 0, body.as_bytes())
    }

    fn refuse(&self, header: &InHeader, errno: Errno) -> rustix::io::Result<()> {
        self.write(header, -errno.raw_os_error(), &[])
    }

    fn write(&self, header: &InHeader, error: i32, body: &[u8]) -> rustix::io::Result<()> {
        let len = (size_of::<OutHeader>() + body.len()) as u32;
        let head = OutHeader { len, error, unique: header.unique };
        let parts = [std::io::IoSlice::new(head.as_bytes()), std::io::IoSlice::new(body)];
        match writev(&self.device, &parts) {
            // ENOENT: whoever asked was interrupted.
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn init_out(minor: u32, max_readahead: u32) -> InitOut {
    InitOut {
        major: fuse::MAJOR,
        minor,
        max_readahead,
        flags: fuse::INIT_EXT,
        max_background: 1,
        congestion_threshold: 1,
        max_write: 4096,
        time_gran: 1,
        flags2: fuse::INIT2_PASSTHROUGH,
        max_stack_depth: 1,
        ..InitOut::default()
    }
}

/// Another descriptor of the same open file, for another holder.
pub(super) fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(descriptor.as_fd(), 0).map_err(failed("duplicate a descriptor"))
}
