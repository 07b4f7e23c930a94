//! A region: memory with one owner, from its first page to its wipe.
//!
//! Life, in order, with what a crash of the provider leaves at each step. In every case the guardian cuts what the
//! provider no longer can, so "cut by the guardian" below also means that the memory returns to the system.
//!
//! | step | method | a crash right after it leaves |
//! |---|---|---|
//! | file system made | [`Memory::region`](super::Memory::region) | an empty file in the guardian's table, closed with it |
//! | filled and pinned | same | pages that nobody else has seen; freed with the process |
//! | sealed | same | the same |
//! | descriptors out | [`Region::client_descriptor`] | mappings in clients: cut by the guardian |
//! | cut | [`Region::cut`] | orphaned pages; freed with the process, **unwiped** where a client pinned them itself |
//! | shut | [`Region::shut`] | the same |
//! | wiped | [`Region::wipe`] | zeros |
//! | closed | [`Region::close`] | nothing |
//!
//! The revoke path (cut, shut, wipe, close) allocates, faults and pins nothing: all of that was done at creation.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use caps::error::{Code, Error, Result};
use caps::wire::row::Tier;
use rustix::fs::{FallocateFlags, IFlags, fallocate, ftruncate, ioctl_setflags};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::backing;
use super::canary::Canary;
use super::mapping::Mapping;
use super::memory::Inner;
use super::pin::{Pin, PinCoverage};
use super::pipes::Held;
use super::seal;
use super::words::{Change, WORD_BYTES, Words};
use crate::factory::{Made, RegionKey, Shape, failed};

/// Bytes of one mediated read or write: it holds the inode's lock, so this is how long a mediated write (some tens
/// of microseconds) can delay the second half of a cut.
const MEDIATED_STEP_BYTES_MAX: usize = 64 << 10;
/// How often shutting is tried: each failure means that somebody refilled the file since the last cut.
const SHUT_TRIES_MAX: u32 = 8;
/// Regions from this size on are filled before they are pinned: the pin would do it under one lock. Below, it takes
/// less than the extra call.
const POPULATE_BYTES_MIN: usize = 1 << 20;
/// Creations from this size on look at the machine's free memory first; below, the look would cost more than it saves.
const LOOK_BYTES_MIN: u64 = 16 << 20;
/// Memory that a creation leaves to the rest of the machine: page tables, sockets, other programs' next steps.
const LEAVE_BYTES: u64 = 256 << 20;

static ZEROS: [u8; MEDIATED_STEP_BYTES_MAX] = [0; MEDIATED_STEP_BYTES_MAX];

/// What a mapping may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Loads.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Who will hold a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A process of another user.
    OtherUser,
    /// A process of the provider's own user, or root: no boundary but a sealed descriptor's.
    SameUser,
    /// A process started in the sandbox, whoever its user is.
    Sandboxed,
}

/// A finished cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Cut {
    /// Microseconds from the call until the canary was seen dead, and with it every mapping in every process.
    pub micros: u64,
}

/// Whether the file can be refilled after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Shut {
    /// The limit is lowered: no page can be allocated in it again.
    Done,
    /// Nobody has a descriptor that could allocate: there is nothing to shut.
    NotNeeded,
}

/// Closes a region in the factory's books; last, so that the file system's tear-down happens over there.
#[derive(Debug)]
struct Membership {
    memory: Arc<Inner>,
    key: RegionKey,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.memory.factory.forget(self.key);
    }
}

/// Memory with one owner. Dropping it takes everything back: cut, wipe, close.
///
/// ```text
///   Region (provider)          kernel                                            clients
///   ───────────────────        ─────────────────────────────────────────         ────────────
///   file ────────────────────► inode of a private tmpfs ── pages ◄──────────────  mappings
///                                   ▲                        ▲                       ▲
///   sealed[access] ─ dup ───────────┼── FUSE file, mmap only ┘                       │ given to each holder
///                                   │   (its server is gone)  ───────────────────────┘
///   pin ── slot in a PinTable ──────┼── registered buffer ── the same pages, cut or not
///   membership ── key               │
///   guardian (factory): its own descriptor of the inode (sealed) or the mount (open)
/// ```
/// It is mapped in this process to be pinned, and unmapped at once. Only a region in which words were changed
/// ([`Region::change_word`]) stays mapped, for that alone, and its cut waits until no change is under way: so the provider
/// can never be faulted by its own cut, and holds neither page tables nor address space for any other region.
#[derive(Debug)]
pub struct Region {
    // The order is the order of destruction: the mapping and the pin before the file, the books last.
    words: Words,
    pin: Option<Pin>,
    held: Option<Held>,
    /// The mmap-only descriptors, each made at the first need. The lock is held while one is made, so that two
    /// openers do not make two; nothing on the revoke path takes it.
    sealed: [Mutex<Option<OwnedFd>>; 2],
    file: OwnedFd,
    len: u64,
    shape: Shape,
    coverage: PinCoverage,
    huge_bytes: u64,
    /// Set when the first descriptor is made for a client: what nobody maps has no mapping to lose.
    canary: OnceLock<Canary>,
    is_cut: AtomicBool,
    /// Held for reading by a mediated write for one step of [`MEDIATED_STEP_BYTES_MAX`], for writing by the second
    /// half of a cut: then no write is under way that could have refilled the file after the first.
    writers: RwLock<()>,
    membership: Membership,
}

impl Region {
    /// Makes, fills, pins and seals. See [`super::Memory::region`].
    pub(super) fn create(memory: &Arc<Inner>, len: u64) -> Result<Self> {
        let page = memory.factory.page();
        let len = len
            .checked_next_multiple_of(page)
            .filter(|len| *len > 0 && usize::try_from(*len).is_ok())
            .ok_or(Error::new(Code::Range, "a region has at least one byte"))?;
        if len >= LOOK_BYTES_MIN && super::process::memory_available_bytes() < len.saturating_add(LEAVE_BYTES)
        {
            return Err(Error::new(Code::NoMemory, "the machine has too little free memory for this region"));
        }
        let shape = memory.shape();
        let Made { key, file } = memory.factory.create(len, shape)?;
        let membership = Membership { memory: Arc::clone(memory), key };
        // The pages, or a clean refusal: from here on nothing needs memory that might not be there.
        retry_on_intr(|| fallocate(&file, FallocateFlags::empty(), 0, len))
            .map_err(failed("fill a region"))?;
        let Filled { pin, held, coverage, huge_bytes } = fill_and_pin(memory, &file, len)?;
        if shape == Shape::Sealed {
            // From here on nobody, and not this process either, can change which pages the file has, except by
            // truncating through a descriptor that was open before: ours and the guardian's.
            ioctl_setflags(&file, IFlags::IMMUTABLE).map_err(failed("make a region's file immutable"))?;
        }
        Ok(Self {
            words: Words::default(),
            pin,
            held,
            sealed: [Mutex::new(None), Mutex::new(None)],
            file,
            len,
            shape,
            coverage,
            huge_bytes,
            canary: OnceLock::new(),
            is_cut: AtomicBool::new(false),
            writers: RwLock::new(()),
            membership,
        })
    }

    /// Bytes: what was asked for, rounded up to whole pages.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// How much of it is pinned, and so will be wiped after a cut.
    #[must_use]
    pub const fn coverage(&self) -> PinCoverage {
        self.coverage
    }

    /// Bytes that huge pages back. 0 also where the kernel cannot say.
    #[must_use]
    pub const fn huge_bytes(&self) -> u64 {
        self.huge_bytes
    }

    /// What would stand between such a holder and this region.
    #[must_use]
    pub const fn tier(&self, holder: Holder) -> Tier {
        match (self.shape, holder) {
            (Shape::Sealed, _) => Tier::Sealed,
            (Shape::Open, Holder::Sandboxed) => Tier::Sandboxed,
            (Shape::Open, Holder::OtherUser | Holder::SameUser) => Tier::Open,
        }
    }

    /// Whether it was cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// A descriptor to send to a client, for mapping [`Region::len`] bytes. Close it after sending.
    ///
    /// In tier `sealed` the first call of each access takes 0.2 to 4 ms and later ones a microsecond; in the others
    /// each call asks the factory.
    ///
    /// # Errors
    ///
    /// [`Code::Revoked`] after the cut; [`Code::MediatedOnly`] when this holder may not map read and write here;
    /// [`Code::Busy`] when descriptors run out; [`Code::System`] or [`Code::Timeout`] with the step that failed.
    pub fn client_descriptor(&self, access: Access, holder: Holder) -> Result<OwnedFd> {
        let descriptor = self.make_descriptor(access, holder)?;
        self.keep_canary(&descriptor)?;
        // A cut in between found no canary, and its caller was told so; the descriptor must not leave.
        self.refuse_if_cut().map(|()| descriptor)
    }

    /// Sets the canary up with the first descriptor.
    fn keep_canary(&self, descriptor: &OwnedFd) -> Result<()> {
        if self.canary.get().is_none() {
            let canary = Canary::of(descriptor.as_fd()).map_err(|error| {
                // The page was there when the region was made; only a cut takes it away.
                if self.is_cut() { revoked() } else { error }
            })?;
            let _ = self.canary.set(canary); // somebody else's, made meanwhile, does as well
        }
        Ok(())
    }

    fn make_descriptor(&self, access: Access, holder: Holder) -> Result<OwnedFd> {
        self.refuse_if_cut()?;
        let memory = &self.membership.memory;
        match (self.shape, access) {
            (Shape::Sealed, _) => self.sealed_descriptor(access),
            (Shape::Open, Access::ReadOnly) => memory.factory.read_only(self.membership.key),
            (Shape::Open, Access::ReadWrite) => {
                let opener = memory.opener.as_ref().filter(|_| holder != Holder::OtherUser);
                let opener = opener.ok_or(Error::new(
                    Code::MediatedOnly,
                    "on this machine another user's process may map for reading only",
                ))?;
                opener.open(memory.factory.mount(self.membership.key)?)
            }
        }
    }

    /// Whether [`Region::client_descriptor`] has what it needs, so that it takes microseconds.
    #[must_use]
    pub fn is_ready(&self, access: Access) -> bool {
        let cached = || self.sealed[access as usize].lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.shape == Shape::Sealed && cached()
    }

    /// Makes what [`Region::client_descriptor`] needs, so that it takes microseconds from here on. Nothing in the open
    /// tier, where there is nothing to prepare.
    ///
    /// # Errors
    ///
    /// Those of [`Region::client_descriptor`].
    pub fn prepare(&self, access: Access) -> Result<()> {
        if self.shape == Shape::Sealed {
            self.client_descriptor(access, Holder::OtherUser)?;
        }
        Ok(())
    }

    fn sealed_descriptor(&self, access: Access) -> Result<OwnedFd> {
        let mut cached = self.sealed[access as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(descriptor) = &*cached {
            return seal::duplicate(descriptor);
        }
        let descriptor = seal::mmap_only(self.file.as_fd(), self.len, access)?;
        let duplicate = seal::duplicate(&descriptor);
        *cached = Some(descriptor);
        duplicate
    }

    /// Reads at `offset`, without mapping anything. Returns the bytes read: fewer at the region's end.
    ///
    /// # Errors
    ///
    /// [`Code::Revoked`] if the region was cut before the last byte was read: nothing in `into` may then be used.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let wanted = self.within(offset, into.len());
        let mut done = 0;
        while done < wanted {
            self.refuse_if_cut()?;
            let end = wanted.min(done + MEDIATED_STEP_BYTES_MAX);
            match retry_on_intr(|| pread(&self.file, &mut into[done..end], offset + done as u64)) {
                // The file was as long as the region when it was made; only a cut makes it shorter.
                Ok(0) => return Err(revoked()),
                Ok(n) => done += n,
                Err(errno) => return Err(failed("read a region")(errno)),
            }
        }
        // Bytes that were read before the cut must not leave after it.
        self.refuse_if_cut().map(|()| wanted)
    }

    /// Writes at `offset`, without mapping anything. Returns the bytes written: fewer at the region's end.
    ///
    /// # Errors
    ///
    /// [`Code::Revoked`] if the region was cut before the last byte was written; none of the bytes is then readable.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        let wanted = self.within(offset, bytes.len());
        let mut done = 0;
        while done < wanted {
            let end = wanted.min(done + MEDIATED_STEP_BYTES_MAX);
            // Only a cut takes it for writing. Waiting for one here would keep a worker of the gate for as long as the
            // kernel needs to unmap a region, and the answer would be the same.
            let Ok(_writing) = self.writers.try_read() else { return Err(revoked()) };
            self.refuse_if_cut()?;
            let position = offset + done as u64;
            let written = retry_on_intr(|| pwrite(&self.file, &bytes[done..end], position));
            if self.is_cut() {
                // The cut overtook this write, which may have put fresh pages into the dead file. The cut truncates
                // once more when we let go of `writers`; until then a client may have mapped or even pinned these
                // pages, so they must not keep the bytes.
                let _ = retry_on_intr(|| pwrite(&self.file, &ZEROS[..end - done], position));
                return Err(revoked());
            }
            done += written.map_err(failed("write a region"))?;
        }
        Ok(wanted)
    }

    /// Changes the word at `offset`, of 8 bytes in this machine's order, by one instruction of the processor, and returns
    /// what it was before. Whoever changes the same word through a mapping, with such instructions, loses no change and
    /// loses none to this one.
    ///
    /// `stands` says whether the change is still wanted. It is asked last, when nothing is left that could take a while:
    /// who says no there waits for one instruction at most.
    ///
    /// The first change of a region maps it, and the first of a page makes it present: some microseconds, later ones one.
    ///
    /// # Errors
    ///
    /// [`Code::Range`] unless the word lies in the region and at a multiple of its length; [`Code::Revoked`] if the
    /// region was cut; [`Code::System`] or [`Code::NoMemory`] if it cannot be mapped; what `stands` says. Nothing was
    /// changed then.
    pub fn change_word(
        &self,
        offset: u64,
        change: Change,
        stands: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        let word = || {
            let (at, len) = (usize::try_from(offset).ok()?, usize::try_from(self.len).ok()?);
            let end = at.checked_add(WORD_BYTES)?;
            (at.is_multiple_of(WORD_BYTES) && end <= len).then_some((at, len))
        };
        let (at, len) =
            word().ok_or(Error::new(Code::Range, "a word has 8 bytes and stands at a multiple of 8"))?;
        self.refuse_if_cut()?;
        let stands = || self.refuse_if_cut().and_then(|()| stands());
        let changed = self.words.change(self.file.as_fd(), len, at, change, stands);
        // A page that cannot be made present is the sign of a cut that began meanwhile.
        changed.map_err(|error| if self.is_cut() { revoked() } else { error })
    }

    /// Takes the pages out of every mapping in every process: the next access there is SIGBUS. The caller has fenced
    /// the holders first, and runs this on a thread of real-time priority where allowed.
    ///
    /// Not bounded in tier `open` towards a same-user writer, who can hold the inode's lock for as long as it likes:
    /// never make two regions' cuts wait for each other.
    ///
    /// A crash before it leaves the cut to the guardian; after it, orphaned pages that die with this process, except
    /// those a client pinned for itself: these stay as they are until that client dies.
    ///
    /// # Errors
    ///
    /// [`Code::System`] if the kernel refuses, or if the canary lives on; neither should ever be. Then this process must
    /// end, and the guardian will cut.
    pub fn cut(&self) -> Result<Cut> {
        let started = Instant::now();
        self.is_cut.store(true, Ordering::SeqCst);
        // A word that is being changed through a mapping of this process is, before its page goes: one instruction.
        self.words.stop();
        self.truncate()?;
        // A mediated write that began before the flag was set may have refilled what the line above emptied.
        let drained = self.writers.write().unwrap_or_else(PoisonError::into_inner);
        self.truncate()?;
        drop(drained);
        if self.canary.get().is_some_and(|canary| !canary.is_dead()) {
            return Err(Error::new(Code::System, "a mapping of the region outlived its cut"));
        }
        Ok(Cut { micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX) })
    }

    /// Makes sure that nobody refills the dead file. Best effort, after [`Region::cut`]; never a condition of the
    /// acknowledgement. A crash after it leaves what a crash after the cut leaves.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`] if a writer kept refilling the file between the cuts that this makes; [`Code::Internal`] before
    /// the cut; what the factory says otherwise.
    pub fn shut(&self) -> Result<Shut> {
        self.require_cut()?;
        if self.shape == Shape::Sealed {
            return Ok(Shut::NotNeeded);
        }
        let mut tries = 1;
        loop {
            match self.membership.memory.factory.shut(self.membership.key) {
                Ok(()) => break,
                Err(error) if error.code() == Code::Busy && tries < SHUT_TRIES_MAX => {
                    tries += 1;
                    self.truncate()?;
                }
                Err(error) => return Err(error),
            }
        }
        // What was refilled before the limit fell is still mapped somewhere, perhaps.
        self.truncate().map(|()| Shut::Done)
    }

    /// Overwrites the orphaned pages with zeros, also where a client pinned them for itself. Returns the bytes wiped,
    /// which is [`PinCoverage::pinned`]. A crash in the middle leaves the rest unwiped where a client pinned it.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] before the cut; [`Code::System`] if the kernel refuses.
    pub fn wipe(&self) -> Result<u64> {
        self.require_cut()?;
        self.pin.as_ref().map_or(Ok(0), |pin| pin.wipe().map(|bytes| bytes as u64))
    }

    /// Fills `into` with bytes as they were at the cut, or at the wipe after it: for an investigator, once nobody else
    /// can reach them. Allocates and may take a while: not for the revoke path.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] before the cut; [`Code::Range`] beyond what is pinned ([`PinCoverage::pinned`]): what pipes hold
    /// can be taken out of them only once; [`Code::Busy`] when descriptors run out; [`Code::System`] if the kernel
    /// refuses.
    pub fn read_dead(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.require_cut()?;
        let unpinned =
            Error::new(Code::Range, "these bytes are not pinned, and only what is pinned can be read");
        let end = offset.checked_add(into.len() as u64).filter(|&end| end <= self.coverage.pinned);
        let (Some(pin), Some(_), Ok(offset)) = (&self.pin, end, usize::try_from(offset)) else {
            return Err(unpinned);
        };
        pin.read_at(offset, into)
    }

    /// Copies every byte as it was at the cut into `fresh`, which nobody else has seen yet: no store that a holder's
    /// mapping completed before the cut is lost. A crash leaves both regions to the guardian.
    ///
    /// # Errors
    ///
    /// [`Code::Internal`] before the cut or into a region of another length; [`Code::System`] if the region is not
    /// held whole, so that some bytes are already gone, or a second time where pipes hold it.
    pub fn copy_to(&self, fresh: &Self) -> Result<u64> {
        self.require_cut()?;
        if fresh.len != self.len || fresh.is_cut() {
            return Err(Error::new(Code::Internal, "a rotation needs a fresh region of the same length"));
        }
        if !self.coverage.is_rotatable() {
            return Err(Error::new(Code::System, "only a region that is held whole can be rotated"));
        }
        if let Some(pin) = &self.pin {
            pin.copy_to(fresh.file.as_fd())?;
        }
        if let Some(held) = &self.held {
            held.copy_to(fresh.file.as_fd())?;
        }
        Ok(self.len)
    }

    /// Lets the pages go and closes everything; the bytes return to the pool. If the region was not cut, it is cut
    /// and wiped first. A crash in the middle leaves the rest to the kernel, which closes in any order.
    pub fn close(self) {
        drop(self);
    }

    /// For tests of the mechanism itself: the provider's own descriptor.
    #[doc(hidden)]
    #[must_use]
    pub fn own_descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn truncate(&self) -> Result<()> {
        retry_on_intr(|| ftruncate(&self.file, 0)).map_err(failed("cut a region"))
    }

    fn refuse_if_cut(&self) -> Result<()> {
        if self.is_cut() { Err(revoked()) } else { Ok(()) }
    }

    fn require_cut(&self) -> Result<()> {
        if self.is_cut() { Ok(()) } else { Err(Error::new(Code::Internal, "this step comes after the cut")) }
    }

    /// How many of `len` bytes at `offset` lie within the region.
    fn within(&self, offset: u64, len: usize) -> usize {
        usize::try_from(self.len.saturating_sub(offset)).map_or(len, |rest| rest.min(len))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if !self.is_cut() {
            // A region that cannot be cut must not be forgotten as if it were: the guardian will do it.
            if self.cut().is_err() {
                std::process::abort();
            }
            if let Err(error) = self.wipe() {
                tracing::error!(code = error.code().text(), "a region was not wiped");
            }
        }
    }
}

fn revoked() -> Error {
    Error::new(Code::Revoked, "the region was cut")
}

/// What [`fill_and_pin`] makes.
struct Filled {
    pin: Option<Pin>,
    held: Option<Held>,
    coverage: PinCoverage,
    huge_bytes: u64,
}

/// Makes every page present, pins what may be pinned, and has pipes hold the rest. The mapping is gone when this
/// returns.
fn fill_and_pin(memory: &Inner, file: &OwnedFd, len: u64) -> Result<Filled> {
    let size = usize::try_from(len).map_err(|_| failed("map a region")(Errno::NOMEM))?;
    let mapping = Mapping::of(file.as_fd(), size)?;
    if size >= POPULATE_BYTES_MIN || memory.pins.is_none() {
        mapping.populate()?;
    }
    let (pin, mut stopped) = match &memory.pins {
        Some(pins) => {
            let (pin, stopped) = pins.pin(&mapping);
            (Some(pin), stopped)
        }
        None => (None, None),
    };
    let pinned = pin.as_ref().map_or(0, Pin::bytes);
    let mut held = None;
    if pinned < size {
        // The pin has filled what it holds.
        mapping.populate()?;
        match memory.pipes.as_ref().map(|pipes| pipes.hold(file.as_fd(), pinned, size)) {
            Some(Ok(holds)) => (held, stopped) = (Some(holds), None),
            Some(Err(error)) => stopped = stopped.or(Some(error)),
            None => {
                stopped = stopped.or(Some(Error::new(Code::System, "there is nothing to hold pages with")))
            }
        }
    }
    if let Some(error) = stopped.filter(|_| memory.shape() == Shape::Sealed) {
        return Err(error);
    }
    let pin = pin.filter(|_| pinned > 0);
    let held_bytes = held.as_ref().map_or(0, Held::bytes);
    let coverage = PinCoverage { pinned: pinned as u64, held: held_bytes, total: len };
    Ok(Filled { pin, held, coverage, huge_bytes: backing::huge_bytes(&mapping) })
}
