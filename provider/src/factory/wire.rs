//! The messages between provider and factory: fixed size, little-endian, one a datagram.
//!
//! ```text
//! request  32 bytes   kind u32 | shape u32 | id u64 | region u64 | bytes u64
//! reply    32 bytes   status u32 | errno u32 | step u32 | facts u32 | id u64 | region u64     (+ at most one descriptor)
//! ```
//! Both ends are the same binary, forked: there is no version to negotiate.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the provider asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// Make a region of `bytes`; the reply carries its file.
    Create = 1,
    /// Lower the limit of the region's file system to its plug.
    Shut = 2,
    /// Open the region's file read-only in a read-only clone of its mount; the reply carries it.
    ReadOnly = 3,
    /// The reply carries the region's mount.
    Mount = 4,
    /// Forget the region. No reply: whoever takes memory back must not wait for this process's turn.
    Drop = 5,
    /// Cut everything and exit. No reply: the exit is the reply.
    Goodbye = 6,
    /// Reply when everything that came before on this channel is done.
    Settle = 7,
}

impl Kind {
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Create,
            2 => Self::Shut,
            3 => Self::ReadOnly,
            4 => Self::Mount,
            5 => Self::Drop,
            6 => Self::Goodbye,
            7 => Self::Settle,
            _ => return None,
        })
    }
}

/// How a region will be used, which decides what the factory keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Shape {
    /// Clients will hold mmap-only descriptors: the file never has a name, and the factory keeps the file.
    Sealed = 1,
    /// Clients will hold plain descriptors: the file keeps its name for re-opening, a plug page makes
    /// [`crate::factory::Factory::shut`] possible, and the factory keeps the mount.
    Open = 2,
}

impl Shape {
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Sealed,
            2 => Self::Open,
            _ => return None,
        })
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Status {
    Done = 0,
    /// A system call failed: `step` says which, `errno` how.
    Failed = 1,
    /// The pool's bytes or the table of regions would be exceeded.
    Full = 2,
    /// No such region, or it has the wrong shape for this request.
    Unknown = 3,
    /// The request is not one.
    Malformed = 4,
}

impl Status {
    pub(super) const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Done,
            1 => Self::Failed,
            2 => Self::Full,
            3 => Self::Unknown,
            4 => Self::Malformed,
            _ => return None,
        })
    }
}

/// The system call that failed, for the message a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Step {
    None = 0,
    Unshare,
    UidMap,
    FsOpen,
    Size,
    Inodes,
    Huge,
    NoSwap,
    CreateSuper,
    FsMount,
    OpenFile,
    Resize,
    Plug,
    Pick,
    Reconfigure,
    Clone,
    ReadOnly,
    Reopen,
    Filter,
}

impl Step {
    const ALL: [(Self, &'static str); 19] = [
        (Self::None, "factory"),
        (Self::Unshare, "unshare a user and mount namespace"),
        (Self::UidMap, "map the user id into the namespace"),
        (Self::FsOpen, "fsopen tmpfs"),
        (Self::Size, "set the size of the tmpfs"),
        (Self::Inodes, "set the inodes of the tmpfs"),
        (Self::Huge, "ask for huge pages"),
        (Self::NoSwap, "forbid swapping"),
        (Self::CreateSuper, "create the tmpfs"),
        (Self::FsMount, "fsmount"),
        (Self::OpenFile, "create the region's file"),
        (Self::Resize, "set the length of the region's file"),
        (Self::Plug, "fill the plug page"),
        (Self::Pick, "fspick"),
        (Self::Reconfigure, "lower the size of the tmpfs"),
        (Self::Clone, "clone the mount"),
        (Self::ReadOnly, "make the clone read-only"),
        (Self::Reopen, "open the region's file again"),
        (Self::Filter, "filter its own system calls"),
    ];

    /// The step with this number, in words.
    pub(super) fn text(number: u32) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step as u32 == number).map_or("factory", |(_, text)| text)
    }
}

/// A request. All fields of kinds that do not use them are zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Request {
    pub(super) kind: U32,
    pub(super) shape: U32,
    pub(super) id: U64,
    pub(super) region: U64,
    pub(super) bytes: U64,
}

/// A reply. `id` repeats the request's, so that an answer that came too late is known for what it is.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Reply {
    pub(super) status: U32,
    pub(super) errno: U32,
    pub(super) step: U32,
    pub(super) facts: U32,
    pub(super) id: U64,
    pub(super) region: U64,
}

/// Bit of `facts` in the first reply: the factory is in a user namespace of its own.
pub(super) const FACT_USER_NAMESPACE: u32 = 1 << 0;
/// Bit of `facts`: tmpfs accepted `noswap`.
pub(super) const FACT_NOSWAP: u32 = 1 << 1;
/// Bit of `facts`: tmpfs accepted `huge=within_size`.
pub(super) const FACT_HUGE: u32 = 1 << 2;

const _: () = assert!(size_of::<Request>() == 32 && size_of::<Reply>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_words() {
        for (index, (step, text)) in Step::ALL.iter().enumerate() {
            assert_eq!(*step as usize, index);
            assert_eq!(Step::text(index as u32), *text);
        }
        assert_eq!(Step::text(u32::MAX), "factory");
    }

    #[test]
    fn numbers_round_trip() {
        for number in 0..10 {
            if let Some(kind) = Kind::from_number(number) {
                assert_eq!(kind as u32, number);
            }
            if let Some(status) = Status::from_number(number) {
                assert_eq!(status as u32, number);
            }
        }
        assert_eq!(Kind::from_number(Kind::Goodbye as u32), Some(Kind::Goodbye));
        assert_eq!(Status::from_number(Status::Malformed as u32), Some(Status::Malformed));
        assert_eq!(Shape::from_number(Shape::Open as u32), Some(Shape::Open));
    }
}
