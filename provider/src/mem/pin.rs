//! The pin: io_uring's registered buffers hold a region's pages from creation to the end of its wipe.
//!
//! ```text
//!  PinTable ─┬─ shard 0: ring, slots 0..n      a slot: one piece of one region, at most 1 GiB
//!            ├─ shard 1: ring, slots 0..n      a region: as many pieces as it needs, in any shards
//!            └─ ...
//! ```
//! A pinned page is not swapped, not moved, and stays reachable for the kernel after the cut has taken it out of the
//! file and of every mapping. That is the only way to reach the bytes that a hostile holder pinned for itself: the
//! wipe reads zeros from `/dev/zero` *into* the pinned pages, and a rotation writes the pinned pages to a fresh file.
//! Neither maps anything. The address a buffer was registered with is from then on only an offset: the mapping can go.
//!
//! Several rings, because the kernel holds a ring's lock while it pins or wipes: with one ring a region of 1 GiB
//! would make every other wait. Steps are short for the same reason.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use caps::error::{Code, Error, Result};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};

use super::mapping::Mapping;
use crate::factory::failed;

/// The longest buffer that the kernel registers (`SZ_1G` in io_uring/rsrc.c).
pub const PIECE_BYTES_MAX: usize = 1 << 30;
/// The shortest piece of a larger region: the pieces of one region lie in several rings, so that several processors can
/// wipe or copy it, and starting a thread for less would not pay.
pub const PIECE_BYTES_MIN: usize = 16 << 20;
/// Pieces that a whole pool is pinned in, about: enough that a large region has several, few enough for some rings.
const PIECES_OF_POOL: u64 = 4_096;
/// Threads that wipe or copy one region at most: two or three fill the memory's bandwidth.
const MOVERS_MAX: usize = 4;
/// Slots of one ring. The kernel could do more (`IORING_MAX_REG_BUFFERS`, 16,384), but when it registers a buffer of
/// compound pages it looks through all others of the ring (`headpage_already_acct` in io_uring/rsrc.c), so a new
/// region would take the longer the more there are. 512 keep that below what the rest of a registration takes, with
/// a ring, and its descriptor, for each 512 regions.
pub const SLOTS_PER_RING_MAX: usize = 512;
/// Bytes of one wipe or copy request: a fraction of a millisecond, which is what another region on the same ring
/// may have to wait for.
const STEP_BYTES_MAX: usize = 2 << 20;
/// Rings at least, so that one region's long registration leaves another ring free.
const RINGS_MIN: usize = 2;
/// Rings at most when slots do not ask for more; each costs a descriptor and two pages.
const RINGS_USUAL_MAX: usize = 8;
/// One request is under way on a ring at a time; the kernel's least size.
const RING_ENTRIES: u32 = 2;
/// Where less than a region may be pinned (`RLIMIT_MEMLOCK`), pieces are halved down to this length before giving up.
const PARTIAL_PIECE_BYTES_MIN: usize = 64 << 10;
/// Slots beyond the exact need: where only part of a region may be pinned, it is pinned in smaller pieces.
const SLOTS_SPARE: u64 = 64;
/// Bytes that are read through a pipe at a time: what the shortest one holds.
const PIPE_STEP_BYTES: usize = 4 << 10;
/// Requests in a row that may transfer nothing before a transfer counts as failed.
const EMPTY_STEPS_MAX: u32 = 1_000;

/// How much of a region is held through a cut, and how strongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinCoverage {
    /// Bytes under the pin, from the region's start: these can be copied and wiped after the cut.
    pub pinned: u64,
    /// Bytes after those that pipes hold: these can be copied, and not wiped.
    pub held: u64,
    /// Bytes of the region.
    pub total: u64,
}

impl PinCoverage {
    /// Whether every byte is pinned: the wipe is then a promise, not an attempt.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.pinned == self.total
    }

    /// Whether every byte is held one way or the other: a rotation then loses nothing.
    #[must_use]
    pub const fn is_rotatable(self) -> bool {
        self.pinned + self.held == self.total
    }
}

/// The rings and their free slots.
pub struct PinTable {
    shards: Vec<Shard>,
    zero: OwnedFd,
    /// Longest piece of a pin made here.
    piece_bytes: usize,
    /// Spreads regions over the rings.
    turn: AtomicUsize,
    /// Processors that may be used. Asked once: it reads several files.
    processors: usize,
}

struct Shard {
    ring: IoUring,
    /// Guards the submission and completion queue of `ring`: held for one request of [`STEP_BYTES_MAX`] at most, so
    /// that each request's completion is the only one there. Registering takes no lock of ours: it is one system call.
    queue: Mutex<()>,
    /// Slots nobody uses. Held for a push or a pop.
    free: Mutex<Vec<u16>>,
}

/// One registered buffer.
#[derive(Clone, Copy)]
struct Piece {
    shard: usize,
    slot: u16,
    /// The address it was registered with: an offset, since nothing need be mapped there any more.
    address: usize,
    len: usize,
}

/// What to do with the pages under a pin.
#[derive(Clone, Copy)]
enum Transfer<'a> {
    /// Zeros into the pages.
    Wipe,
    /// The pages into a file, from its start.
    CopyTo(BorrowedFd<'a>),
}

impl PinTable {
    /// Makes rings for `regions` regions and all bytes of a pool.
    ///
    /// # Errors
    ///
    /// Those of [`PinTable::new`].
    pub fn for_pool(regions: u32, pool_bytes: u64) -> Result<Arc<Self>> {
        let piece_bytes = (pool_bytes / PIECES_OF_POOL)
            .next_power_of_two()
            .clamp(PIECE_BYTES_MIN as u64, PIECE_BYTES_MAX as u64);
        let slots = u64::from(regions) + pool_bytes / piece_bytes + SLOTS_SPARE;
        let slots = usize::try_from(slots)
            .map_err(|_| Error::new(Code::Internal, "too many slots for pinned memory"))?;
        Self::new(slots, piece_bytes as usize) // at most 1 GiB
    }

    /// Makes rings with at least `slots` slots together, for pieces of at most `piece_bytes`.
    ///
    /// # Errors
    ///
    /// [`Code::System`] where io_uring is not available, [`Code::NoMemory`] where its own memory is not to be had.
    pub fn new(slots: usize, piece_bytes: usize) -> Result<Arc<Self>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let rings =
            (2 * processors).clamp(RINGS_MIN, RINGS_USUAL_MAX).max(slots.div_ceil(SLOTS_PER_RING_MAX));
        let per_ring = slots.div_ceil(rings).max(1);
        let shards = (0..rings).map(|_| Shard::new(per_ring)).collect::<Result<_>>()?;
        let zero = open("/dev/zero", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("open /dev/zero"))?;
        Ok(Arc::new(Self { shards, zero, piece_bytes, turn: AtomicUsize::new(0), processors }))
    }

    /// Pins a mapping's pages, from its start as far as the kernel allows, and faults each page in on the way.
    /// Second: why it stopped, if it did.
    pub(super) fn pin(self: &Arc<Self>, mapping: &Mapping) -> (Pin, Option<Error>) {
        let mut pin = Pin { table: Arc::clone(self), pieces: Vec::with_capacity(1) };
        let mut done = 0;
        let mut piece_max = self.piece_bytes;
        while done < mapping.len() {
            let len = (mapping.len() - done).min(piece_max);
            match self.pin_piece(mapping.address() + done, len) {
                Ok(piece) => {
                    pin.pieces.push(piece);
                    done += len;
                }
                Err(error) => {
                    // Over RLIMIT_MEMLOCK: a smaller piece may still fit.
                    piece_max = (len / 2).next_multiple_of(PARTIAL_PIECE_BYTES_MIN);
                    if error.code() != Code::NoMemory || len <= PARTIAL_PIECE_BYTES_MIN {
                        return (pin, Some(error));
                    }
                }
            }
        }
        (pin, None)
    }

    fn pin_piece(&self, address: usize, len: usize) -> Result<Piece> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.shards.len() {
            let shard = (first + step) % self.shards.len();
            let Some(slot) = self.shards[shard].take_slot() else { continue };
            let buffer = libc::iovec { iov_base: ptr::with_exposed_provenance_mut(address), iov_len: len };
            return match self.shards[shard].register(slot, buffer) {
                Ok(()) => Ok(Piece { shard, slot, address, len }),
                Err(errno) => {
                    self.shards[shard].give_slot(slot);
                    // EFAULT: the page could not be made present, which in a private tmpfs means no memory.
                    let errno = if errno == Errno::FAULT { Errno::NOMEM } else { errno };
                    Err(failed("pin a region")(errno))
                }
            };
        }
        Err(Error::new(Code::Busy, "every slot for pinned memory is in use"))
    }
}

impl std::fmt::Debug for PinTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinTable").field("rings", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Shard {
    fn new(slots: usize) -> Result<Self> {
        let ring = IoUring::builder().dontfork().build(RING_ENTRIES).map_err(io_failed("set up io_uring"))?;
        let slots =
            u16::try_from(slots).map_err(|_| Error::new(Code::Internal, "too many slots for one ring"))?;
        ring.submitter()
            .register_buffers_sparse(u32::from(slots))
            .map_err(io_failed("register a table of buffers"))?;
        let shard = Self { ring, queue: Mutex::new(()), free: Mutex::new((0..slots).rev().collect()) };
        // The first request makes the kernel allocate; a revoke must not be the first.
        shard.request(&opcode::Nop::new().build()).map_err(failed("run a first io_uring request"))?;
        Ok(shard)
    }

    fn take_slot(&self) -> Option<u16> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_slot(&self, slot: u16) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// Registers `buffer` in a slot, or clears the slot with an empty one.
    fn register(&self, slot: u16, buffer: libc::iovec) -> rustix::io::Result<()> {
        // SAFETY: the range is a live mapping of the caller (or empty). The kernel takes references to the pages, not
        // to the addresses, so that unmapping later is sound (io_uring/rsrc.c keeps `bio_vec`s only; the test
        // `pin_outlives_its_mapping` relies on it and would fail otherwise). Requests on it are made by `Pin` alone.
        let result =
            unsafe { self.ring.submitter().register_buffers_update(u32::from(slot), &[buffer], None) };
        result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Runs one request to its end and returns its result: bytes, or the errno.
    fn request(&self, entry: &squeue::Entry) -> rustix::io::Result<usize> {
        let _held = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: `queue` is held, so no other submission queue exists for this ring. The entry names a registered
        // buffer of a `Pin` that the caller borrows, and a descriptor that it borrows too: both outlive the request,
        // because this function does not return before the completion.
        let pushed = unsafe { self.ring.submission_shared().push(entry) };
        if pushed.is_err() {
            return Err(Errno::BUSY);
        }
        loop {
            let submitted = self.ring.submit_and_wait(1);
            // SAFETY: `queue` is held, so no other completion queue exists for this ring.
            if let Some(done) = unsafe { self.ring.completion_shared().next() } {
                let result = done.result();
                return usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result));
            }
            match submitted.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
                Ok(_) | Err(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => thread::yield_now(),
                // A request may be under way into memory that we could not vouch for once we returned.
                Err(_) => std::process::abort(),
            }
        }
    }
}

fn io_failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| failed(what)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// One region's pages, held. Dropping it lets them go.
pub(super) struct Pin {
    table: Arc<PinTable>,
    pieces: Vec<Piece>,
}

impl Pin {
    /// Bytes held, from the region's start.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len).sum()
    }

    /// Overwrites every pinned page with zeros, wherever else it is still referenced. Returns the bytes.
    pub(super) fn wipe(&self) -> Result<usize> {
        self.transfer(Transfer::Wipe)
    }

    /// Writes the pinned pages to the start of `file`. Returns the bytes.
    pub(super) fn copy_to(&self, file: BorrowedFd<'_>) -> Result<usize> {
        self.transfer(Transfer::CopyTo(file))
    }

    /// Fills `into` from `offset` of the pinned pages, cut or not, through a pipe: whatever of the bytes is under way is in
    /// kernel pages that are not swapped and belong to nobody else. A page at a time, which an empty pipe always takes.
    pub(super) fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let mut done = 0;
        let mut before = 0;
        for piece in &self.pieces {
            while done < into.len() && offset + done < before + piece.len {
                let from = offset + done - before;
                let len = (piece.len - from).min(into.len() - done).min(PIPE_STEP_BYTES);
                // Never followed as an address, as in `entry`.
                let position = ptr::without_provenance::<u8>(piece.address + from);
                let to = types::Fd(writer.as_raw_fd());
                let entry = opcode::WriteFixed::new(to, position, len as u32, piece.slot).build();
                let moved = retry_on_intr(|| self.table.shards[piece.shard].request(&entry))
                    .map_err(failed("a transfer through the pin"))?;
                let read = retry_on_intr(|| rustix::io::read(&reader, &mut into[done..done + moved]))
                    .map_err(failed("a transfer through the pin"))?;
                if moved == 0 || read != moved {
                    return Err(Error::new(Code::System, "a transfer through the pin makes no progress"));
                }
                done += read;
            }
            before += piece.len;
        }
        if done == into.len() { Ok(()) } else { Err(Error::new(Code::Range, "not all of it is pinned")) }
    }

    /// Moves every piece. Several threads where there are several pieces and processors; this one alone where no thread
    /// can be had, since taking memory back must not depend on one.
    fn transfer(&self, transfer: Transfer<'_>) -> Result<usize> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(index) =
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < self.pieces.len())
            {
                self.transfer_piece(index, transfer)?;
            }
            Ok(())
        };
        let helpers = self.pieces.len().min(self.table.processors).min(MOVERS_MAX).saturating_sub(1);
        thread::scope(|scope| {
            let helpers: Vec<_> = (0..helpers)
                .map_while(|_| thread::Builder::new().name("lh-move".into()).spawn_scoped(scope, work).ok())
                .collect();
            let own = work();
            helpers.into_iter().fold(own, |all, helper| {
                let one =
                    helper.join().unwrap_or(Err(Error::new(Code::Internal, "a moving thread panicked")));
                all.and(one)
            })
        })?;
        Ok(self.bytes())
    }

    /// Loops until all of one piece is done: the kernel answers short whenever it should yield (512 MiB took 523
    /// calls).
    fn transfer_piece(&self, index: usize, transfer: Transfer<'_>) -> Result<()> {
        let piece = &self.pieces[index];
        let before: usize = self.pieces[..index].iter().map(|piece| piece.len).sum();
        let shard = &self.table.shards[piece.shard];
        let (mut done, mut empty) = (0, 0);
        while done < piece.len {
            let len = (piece.len - done).min(STEP_BYTES_MAX);
            let entry = self.entry(piece, done, len, transfer, before + done);
            match shard.request(&entry) {
                Ok(0) | Err(Errno::INTR | Errno::AGAIN) => {
                    empty += 1;
                    if empty == EMPTY_STEPS_MAX {
                        return Err(Error::new(Code::System, "a transfer through the pin makes no progress"));
                    }
                }
                Ok(moved) => (done, empty) = (done + moved, 0),
                Err(errno) => return Err(failed("a transfer through the pin")(errno)),
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        piece: &Piece,
        done: usize,
        len: usize,
        transfer: Transfer<'_>,
        file_offset: usize,
    ) -> squeue::Entry {
        // Never followed as an address: io_uring subtracts the registered start from it.
        let position = ptr::without_provenance_mut::<u8>(piece.address + done);
        // At most STEP_BYTES_MAX.
        let len = len as u32;
        match transfer {
            Transfer::Wipe => {
                let zero = types::Fd(self.table.zero.as_raw_fd());
                opcode::ReadFixed::new(zero, position, len, piece.slot).build()
            }
            Transfer::CopyTo(file) => {
                let file = types::Fd(file.as_raw_fd());
                opcode::WriteFixed::new(file, position, len, piece.slot).offset(file_offset as u64).build()
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        for piece in &self.pieces {
            let shard = &self.table.shards[piece.shard];
            let empty = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
            match shard.register(piece.slot, empty) {
                Ok(()) => shard.give_slot(piece.slot),
                // The pages stay pinned and the slot stays taken: memory is lost, nothing is disclosed.
                Err(errno) => tracing::error!(errno = errno.raw_os_error(), "a pin could not be released"),
            }
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
