//! The few messages of the FUSE protocol (linux/fuse.h, minor 40) that one OPEN needs, in the machine's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version.
pub(super) const MAJOR: u32 = 7;
/// Bytes that a read of /dev/fuse must offer at least (`FUSE_MIN_READ_BUFFER`).
pub(super) const READ_BYTES_MIN: usize = 8192;
/// The root's node id.
pub(super) const ROOT_NODE: u64 = 1;

/// Requests.
pub(super) const LOOKUP: u32 = 1;
pub(super) const FORGET: u32 = 2;
pub(super) const GETATTR: u32 = 3;
pub(super) const OPEN: u32 = 14;
pub(super) const INIT: u32 = 26;
pub(super) const BATCH_FORGET: u32 = 42;

/// INIT: `flags2` is used.
pub(super) const INIT_EXT: u32 = 1 << 30;
/// INIT, second word: files may be backed by another file (`FUSE_PASSTHROUGH`, bit 37).
pub(super) const INIT2_PASSTHROUGH: u32 = 1 << (37 - 32);

/// OPEN: reads and writes go to the server, which will be gone, and not to the backing file.
pub(super) const OPEN_DIRECT_IO: u32 = 1 << 0;
/// OPEN: closing asks nobody.
pub(super) const OPEN_NOFLUSH: u32 = 1 << 5;
/// OPEN: mappings go to the backing file.
pub(super) const OPEN_PASSTHROUGH: u32 = 1 << 7;

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) total_extlen: u16,
    pub(super) padding: u16,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    /// Zero, or a negative errno.
    pub(super) error: i32,
    pub(super) unique: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) flags2: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_gran: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    /// How many file systems may lie below: one, or the kernel offers no passthrough.
    pub(super) max_stack_depth: u32,
    pub(super) unused: [u32; 6],
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Attr {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) times: [u64; 3],
    pub(super) nanoseconds: [u32; 3],
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) blksize: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct EntryOut {
    pub(super) nodeid: u64,
    pub(super) generation: u64,
    /// Seconds that name and attributes stay valid.
    pub(super) entry_valid: u64,
    pub(super) attr_valid: u64,
    pub(super) nanoseconds: [u32; 2],
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct AttrOut {
    pub(super) attr_valid: u64,
    pub(super) nanoseconds: u32,
    pub(super) dummy: u32,
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct OpenOut {
    pub(super) fh: u64,
    pub(super) open_flags: u32,
    pub(super) backing_id: i32,
}

/// The argument of [`BACKING_OPEN`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct BackingMap {
    pub(super) fd: i32,
    pub(super) flags: u32,
    pub(super) padding: u64,
}

/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`; the result is the backing id.
pub(super) const BACKING_OPEN: u32 = (1 << 30) | ((size_of::<BackingMap>() as u32) << 16) | (229 << 8) | 1;

// The kernel's structures have these sizes; a field too many would shift every one after it.
const _: () = assert!(size_of::<InHeader>() == 40 && size_of::<OutHeader>() == 16);
const _: () = assert!(size_of::<InitOut>() == 64 && size_of::<Attr>() == 88 && size_of::<EntryOut>() == 128);
const _: () =
    assert!(size_of::<AttrOut>() == 104 && size_of::<OpenOut>() == 16 && size_of::<BackingMap>() == 16);
