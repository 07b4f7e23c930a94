//! Leased memory in this process: one range of addresses over one or more segments.
//!
//! ```text
//! Mapping ─┬─ window ──────▶ guard::table: "faults in here are a revoke"
//!          ├─ reservation ─▶ 2 MiB aligned: │ segment 0 │ segment 1 │ ...   (shared, no exec, not in core dumps)
//!          └─ revocation ──▶ a flag that the session sets when the provider hangs up
//! ```
//!
//! Three ways in, from safe to fast:
//!
//! | way | after a revoke | cost |
//! |---|---|---|
//! | [`Mapping::read_at`], [`Mapping::write_at`], [`Mapping::load_u64`] and its kin | `Err(E_REVOKED)` | a call and a flag; at 4 KiB and more, as fast as `memcpy` |
//! | [`Mapping::volatile`] | the process dies by SIGBUS | one instruction an access |
//! | [`Mapping::as_slice`], [`Mapping::as_mut_slice`] | the process dies by SIGBUS | none; `unsafe`, because others write meanwhile |
//!
//! # When somebody else's right ends
//!
//! A mapping that a session made ([`Client::open_mapped`](crate::Client::open_mapped)) outlives the revoke of *another*
//! holder of the same memory: the node cuts the segment from everybody and gives those who stay the same bytes in a
//! fresh file, which is mapped at the same address. Every access, guarded or raw, waits for that and goes on; no write is
//! lost, no word is torn, and what nobody touches is replaced as well. It takes as long as the node needs to copy the
//! segment, at most `caps::limits::ROTATION_WAIT_MS_MAX`; after that the memory counts as taken back. Smaller segments
//! ([`LeaseOptions::segment`](crate::LeaseOptions::segment)) make it shorter.
//!
//! What it asks of the program:
//!
//! - **Do not register the memory for kernel I/O** (io_uring's buffers, RDMA, `vmsplice`, `O_DIRECT` under way): the
//!   kernel would hold on to the old pages. A system call that is handed a pointer into cut memory (`read`, `write`)
//!   fails with `EFAULT` instead of waiting; touch the memory and call again.
//! - **No futex but this library's own**: a futex is keyed to the file that was replaced, and its waiters would sleep
//!   for ever.
//! - **Raw access in signal handlers** works only where SIGBUS is not blocked: the kernel ends a process that faults
//!   while it blocks the signal. A handler that is installed later must call ours for faults that are not its own.
//! - **A right can shrink**: a segment that is withdrawn answers `E_REVOKED` while the others go on, one that became
//!   read-only answers `E_DENIED` to writes. A *raw* write to the latter is a SIGSEGV, a raw access to the former a
//!   SIGBUS.
//!
//! # Forked children
//!
//! A child inherits the mapping (no `MADV_DONTFORK`). The cut takes the pages from it as from everyone, and
//! guarded access fails there as it does here; with `MADV_DONTFORK` a child would meet a hole in its
//! addresses, which no guard can tell from a defect. What a child does not inherit is the hang-up: its copy
//! of the flag is its own. So in the one case where only the hang-up helps (provider and guardian killed at
//! once), a child keeps what its parent loses. A child that must not have the memory drops the mapping first.
//!
//! Nor is a child a survivor of a rotation: the fresh segments come over the parent's channel, to the parent. A segment
//! that was rotated after the fork is lost to the child, by `E_REVOKED` or SIGBUS, at once. A child that wants to share
//! the memory opens it in a session of its own.

pub(crate) mod descriptor;
pub(crate) mod place;
mod reservation;
mod volatile;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use caps::error::{Code, Error};

use crate::guard::{Rotating, Rotation, Standing, Window};
use descriptor::Cut;
use reservation::Reservation;
pub use volatile::Volatile;

/// Most segments side by side in one mapping. Each is a mapping of its own to the kernel, which allows a
/// process 65,530.
pub const MAPPING_SEGMENTS_MAX: usize = 4096;
/// Most bytes in one mapping: half the 128 TiB that both architectures give a process, more than any host's
/// RAM.
pub const MAPPING_BYTES_MAX: u64 = 64 << 40;
/// Size of the words that are read and written as one, in bytes.
pub const WORD_BYTES: usize = size_of::<u64>();

/// What a mapping allows: the page protection, and what the guarded calls check first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

impl Access {
    #[inline]
    const fn check_write(self) -> Result<(), Error> {
        match self {
            Self::ReadWrite => Ok(()),
            Self::Read => Err(Error::new(Code::Denied, "the mapping is read-only")),
        }
    }
}

/// A flag that ends guarded access, shared by the mappings of a lease and the session that watches it.
///
/// The kernel's cut needs no flag. This is for what the kernel does not see: the provider hung up, or said
/// that the lease ended. It is set once and never cleared.
#[derive(Clone, Debug, Default)]
pub struct Revocation(Arc<AtomicU8>);

/// Guarded access ended.
const REVOKED_BIT: u8 = 1;
/// Some segment of some mapping with this flag is withdrawn or read-only: guarded access looks whether it is meant. In
/// the same byte, so that guarded access reads one flag and no more.
const NARROWED_BIT: u8 = 2;

impl Revocation {
    /// A flag that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends guarded access: every call that starts after this one returns, in any thread, fails with
    /// `E_REVOKED`.
    pub fn revoke(&self) {
        self.0.fetch_or(REVOKED_BIT, Ordering::Release);
    }

    /// Whether it ended.
    #[must_use]
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & REVOKED_BIT != 0
    }

    /// Sends guarded access to look at the segments first.
    pub(crate) fn narrowed(&self) {
        self.0.fetch_or(NARROWED_BIT, Ordering::Release);
    }

    /// Whether nothing happened at all.
    #[inline]
    fn is_clear(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// One piece of a region as the provider handed it over.
#[derive(Debug)]
pub struct Segment {
    /// The file. It is closed once it is mapped or refused.
    pub descriptor: OwnedFd,
    /// How long the provider says it is, in bytes: a multiple of the page size.
    pub bytes: u64,
}

/// Leased memory, mapped. Dropping it unmaps it.
///
/// It can be shared between threads. Bytes can change at any time: other holders, in other processes, write
/// to them.
pub struct Mapping {
    // Dropped in this order: the range is forgotten before it is unmapped.
    window: Window,
    reservation: Reservation,
    access: Access,
    revocation: Revocation,
}

impl Mapping {
    /// Checks the segments and maps them side by side, in the order given.
    ///
    /// # Errors
    /// `E_RANGE` for no segment, more than [`MAPPING_SEGMENTS_MAX`], a length that is no multiple of the page
    /// size, or more than [`MAPPING_BYTES_MAX`] in all; `E_FD_TYPE` for a descriptor that is not a lease's
    /// memory; `E_NOMEM` if the address space has no room; `E_BUSY` if the process holds 65,536 mappings. On
    /// every error all descriptors are closed and nothing stays mapped.
    pub fn new(segments: Vec<Segment>, access: Access, revocation: Revocation) -> Result<Self, Error> {
        let length = total_bytes(&segments)?;
        for segment in &segments {
            descriptor::check(segment.descriptor.as_fd(), segment.bytes, access, Cut::Excluded)?;
        }
        let mut unfinished = Unfinished::new(length, access)?;
        for segment in segments {
            unfinished.map(&segment)?;
        }
        unfinished.finish(revocation, None)
    }

    /// Number of bytes; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // no mapping is empty
    pub const fn len(&self) -> usize {
        self.reservation.length()
    }

    /// What the mapping was made for. Single segments may have become read-only since, or been withdrawn.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// The flag that ends guarded access here.
    #[must_use]
    pub const fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Copies bytes from `offset` on into `buffer`: all of it.
    ///
    /// Not atomic: a writer elsewhere may be half done. 8-byte words that must be whole are read with
    /// [`Mapping::load_u64`].
    ///
    /// # Errors
    /// `E_RANGE` if the range does not lie in the mapping. `E_REVOKED` if the memory was taken back before
    /// the last byte was read; then some first part of `buffer` may hold bytes read before that, and the
    /// mapping stays revoked.
    #[inline]
    pub fn read_at(&self, offset: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let source = self.address(offset, buffer.len())?;
        self.check_live(offset, buffer.len(), Access::Read)?;
        // SAFETY: the source lies in the window (checked by `address`), the buffer is a caller's exclusive
        // borrow, so they do not overlap.
        let copied = unsafe { self.window.copy(buffer.as_mut_ptr(), source, buffer.len()) };
        if copied == buffer.len() { Ok(()) } else { Err(self.cut(offset + copied, Access::Read)) }
    }

    /// Copies all of `bytes` to `offset` and on.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping or segment, before anything is touched unless it became read-only during the
    /// call, when some first part may be written. `E_RANGE` if the range does not lie in the mapping. `E_REVOKED` if the memory was taken back before the last byte was written; what was
    /// written went to memory that is gone, and the mapping stays revoked.
    #[inline]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.access.check_write()?;
        let destination = self.address(offset, bytes.len())?;
        self.check_live(offset, bytes.len(), Access::ReadWrite)?;
        // SAFETY: the destination lies in the window, which is mapped for writing (both checked above);
        // `bytes` is borrowed, and an overlap would need a slice made with the unsafe methods, whose contract
        // forbids writes meanwhile.
        let copied = unsafe { self.window.copy(destination, bytes.as_ptr(), bytes.len()) };
        if copied == bytes.len() { Ok(()) } else { Err(self.cut(offset + copied, Access::ReadWrite)) }
    }

    /// Reads the 8 bytes at `offset` as one: never a mixture of two writes that were 8-byte words themselves.
    ///
    /// This holds on x86_64 and aarch64, between processes as between threads, because an aligned word never
    /// crosses a cache line. The four word operations are sequentially consistent.
    ///
    /// # Errors
    /// `E_RANGE` outside the mapping or if `offset` is no multiple of 8; `E_REVOKED`.
    #[inline]
    pub fn load_u64(&self, offset: usize) -> Result<u64, Error> {
        let address = self.word(offset)?;
        self.check_live(offset, WORD_BYTES, Access::Read)?;
        // SAFETY: aligned and in the window, checked by `word`.
        unsafe { self.window.load(address) }.ok_or_else(|| self.cut(offset, Access::Read))
    }

    /// Writes the 8 bytes at `offset` as one.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping or segment; otherwise as [`Mapping::load_u64`].
    #[inline]
    pub fn store_u64(&self, offset: usize, value: u64) -> Result<(), Error> {
        let address = self.word_to_write(offset)?;
        // SAFETY: aligned, in the window and writable, checked by `word_to_write`.
        unsafe { self.window.store(address, value) }.ok_or_else(|| self.cut(offset, Access::ReadWrite))
    }

    /// Adds to the 8 bytes at `offset` as one, wrapping, and returns what they were.
    ///
    /// # Errors
    /// As [`Mapping::store_u64`].
    #[inline]
    pub fn fetch_add_u64(&self, offset: usize, value: u64) -> Result<u64, Error> {
        let address = self.word_to_write(offset)?;
        // SAFETY: aligned, in the window and writable, checked by `word_to_write`.
        unsafe { self.window.fetch_add(address, value) }.ok_or_else(|| self.cut(offset, Access::ReadWrite))
    }

    /// Writes `new` to the 8 bytes at `offset` if they are `current`, as one step, and returns what they
    /// were: it took place if that is `current`.
    ///
    /// # Errors
    /// As [`Mapping::store_u64`].
    #[inline]
    pub fn compare_exchange_u64(&self, offset: usize, current: u64, new: u64) -> Result<u64, Error> {
        let address = self.word_to_write(offset)?;
        // SAFETY: aligned, in the window and writable, checked by `word_to_write`.
        unsafe { self.window.compare_exchange(address, current, new) }
            .ok_or_else(|| self.cut(offset, Access::ReadWrite))
    }

    /// A safe view for raw access. **A revoke under it ends the process**; see [`Volatile`].
    #[must_use]
    pub const fn volatile(&self) -> Volatile<'_> {
        Volatile::new(self)
    }

    /// The first byte's address. Valid as long as the mapping lives, even after a revoke, when touching it is
    /// a SIGBUS.
    ///
    /// Do not register it for the kernel's asynchronous I/O, and do not wait on it with a futex: both hold on
    /// to pages that a revoke replaces. [`sync`](crate::sync) has what to wait on instead.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.reservation.start().as_ptr()
    }

    /// The bytes as a plain slice.
    ///
    /// # Safety
    /// Rust assumes that the bytes of a `&[u8]` do not change. As long as the slice is in use, nobody may
    /// write to the region: no other holder in any process (which only those who hold all of its rights to
    /// write can promise), and nobody in this process, guarded calls included. If somebody does, the
    /// behaviour is undefined.
    ///
    /// A revoke, an expiry or the provider's death ends the process by SIGBUS at the next touch. That is no
    /// undefined behaviour: no code runs after it.
    #[must_use]
    pub const unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the range is mapped readable as long as `self` lives, its length fits an isize
        // (MAPPING_BYTES_MAX), and the caller promises that nobody writes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// The bytes as a plain slice to write to.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping.
    ///
    /// # Safety
    /// As [`Mapping::as_slice`], and nobody may read meanwhile either.
    pub unsafe fn as_mut_slice(&mut self) -> Result<&mut [u8], Error> {
        self.access.check_write()?;
        // SAFETY: as in `as_slice`; mapped for writing, checked above; `&mut self` excludes this process'
        // other borrows.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) })
    }

    /// The address of `length` bytes at `offset`, if they lie in the mapping.
    #[inline]
    fn address(&self, offset: usize, length: usize) -> Result<*mut u8, Error> {
        if offset.checked_add(length).is_some_and(|end| end <= self.len()) {
            Ok(self.as_ptr().wrapping_add(offset))
        } else {
            Err(Error::new(Code::Range, "outside the mapping"))
        }
    }

    /// The address of the word at `offset`.
    #[inline]
    fn word(&self, offset: usize) -> Result<*mut u64, Error> {
        // The start is a page's, so the offset alone decides.
        if !offset.is_multiple_of(WORD_BYTES) {
            return Err(Error::new(Code::Range, "a word lies on a multiple of 8 bytes"));
        }
        self.address(offset, WORD_BYTES).map(<*mut u8>::cast)
    }

    #[inline]
    fn word_to_write(&self, offset: usize) -> Result<*mut u64, Error> {
        self.access.check_write()?;
        let address = self.word(offset)?;
        self.check_live(offset, WORD_BYTES, Access::ReadWrite)?;
        Ok(address)
    }

    #[inline]
    fn check_live(&self, offset: usize, length: usize, access: Access) -> Result<(), Error> {
        if self.revocation.is_clear() { Ok(()) } else { self.look(offset, length, access) }
    }

    /// Something happened to this mapping: whether it concerns this access.
    #[cold]
    fn look(&self, offset: usize, length: usize, access: Access) -> Result<(), Error> {
        if self.revocation.is_revoked() {
            return Err(REVOKED);
        }
        match (self.window.standing(offset, length), access) {
            (Standing::Lost, _) => Err(REVOKED),
            (Standing::ReadOnly, Access::ReadWrite) => Err(NARROWED),
            _ => Ok(()),
        }
    }

    /// A guarded access found the memory at `offset` gone. If that is not said of its segment alone, the flag is set too,
    /// so that nothing succeeds after the first failure, even if somebody who can write to the dead file puts pages back.
    #[cold]
    fn cut(&self, offset: usize, access: Access) -> Error {
        self.look(offset, 1, access).err().unwrap_or_else(|| {
            self.revocation.revoke();
            REVOKED
        })
    }
}

/// A mapping that is being put together, segment by segment.
pub(crate) struct Unfinished {
    reservation: Reservation,
    access: Access,
    mapped: usize,
}

impl Unfinished {
    /// Reserves `length` bytes of addresses.
    ///
    /// # Errors
    /// `E_NOMEM`, `E_SYSTEM`.
    fn new(length: usize, access: Access) -> Result<Self, Error> {
        Ok(Self { reservation: Reservation::new(length)?, access, mapped: 0 })
    }

    /// As [`Unfinished::new`], for segments of `segment_bytes` each, but the last.
    ///
    /// # Errors
    /// `E_RANGE` for a length or segments that no mapping has; `E_NOMEM`, `E_SYSTEM`.
    pub(crate) fn in_segments(length: u64, segment_bytes: u64, access: Access) -> Result<Self, Error> {
        let page = rustix::param::page_size() as u64;
        if segment_bytes == 0 || !segment_bytes.is_multiple_of(page) || !length.is_multiple_of(page) {
            return Err(WHOLE_PAGES);
        }
        if length == 0 || length.div_ceil(segment_bytes) > MAPPING_SEGMENTS_MAX as u64 {
            return Err(SEGMENTS);
        }
        if length > MAPPING_BYTES_MAX {
            return Err(TOO_LONG);
        }
        Self::new(length as usize, access) // at most MAPPING_BYTES_MAX, and targets have 64 bits
    }

    /// Maps the next segment of a mapping that rotates, whose file may have been cut since it was sent.
    ///
    /// # Errors
    /// `E_FD_TYPE`, `E_NOMEM`, `E_SYSTEM`.
    pub(crate) fn map_rotating(&mut self, segment: &Segment) -> Result<(), Error> {
        descriptor::check(segment.descriptor.as_fd(), segment.bytes, self.access, Cut::Possible)?;
        self.map(segment)
    }

    fn map(&mut self, segment: &Segment) -> Result<(), Error> {
        // Lossless: the whole is at most MAPPING_BYTES_MAX, and targets have 64 bits.
        let bytes = segment.bytes as usize;
        self.reservation.map(self.mapped, bytes, segment.descriptor.as_fd(), self.access)?;
        self.mapped += bytes;
        Ok(())
    }

    /// Registers the range, whose every segment is mapped.
    ///
    /// # Errors
    /// `E_BUSY` if the process holds 65,536 mappings; `E_SYSTEM`.
    pub(crate) fn finish(self, revocation: Revocation, rotation: Option<Rotation>) -> Result<Mapping, Error> {
        let Self { reservation, access, mapped } = self;
        assert_eq!(mapped, reservation.length(), "every segment is mapped");
        let start = reservation.start().as_ptr() as usize;
        let rotating =
            rotation.map(|rotation| Rotating::new(rotation, start, mapped, access, revocation.clone()));
        let window = Window::register(start, mapped, rotating)?;
        Ok(Mapping { window, reservation, access, revocation })
    }
}

/// The one answer of guarded access to a revoke. A constant, so that it costs no allocation.
const REVOKED: Error = Error::new(Code::Revoked, "the memory was taken back");
/// As [`REVOKED`], for a write to what may still be read.
const NARROWED: Error = Error::new(Code::Denied, "this segment became read-only");
const SEGMENTS: Error = Error::new(Code::Range, "a mapping has 1 to 4,096 segments");
const WHOLE_PAGES: Error = Error::new(Code::Range, "a segment is a whole number of pages");
const TOO_LONG: Error = Error::new(Code::Range, "a mapping has at most 64 TiB");

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapping")
            .field("bytes", &self.len())
            .field("access", &self.access)
            .field("revoked", &self.revocation.is_revoked())
            .finish_non_exhaustive()
    }
}

/// The length of all segments together, checked.
fn total_bytes(segments: &[Segment]) -> Result<usize, Error> {
    if segments.is_empty() || segments.len() > MAPPING_SEGMENTS_MAX {
        return Err(SEGMENTS);
    }
    let page = rustix::param::page_size() as u64;
    if segments.iter().any(|segment| segment.bytes == 0 || !segment.bytes.is_multiple_of(page)) {
        return Err(WHOLE_PAGES);
    }
    segments
        .iter()
        .try_fold(0u64, |sum, segment| sum.checked_add(segment.bytes))
        .filter(|&sum| sum <= MAPPING_BYTES_MAX)
        .and_then(|sum| usize::try_from(sum).ok())
        .ok_or(TOO_LONG)
}
