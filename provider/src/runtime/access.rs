//! Mediated reads and writes: every one passes its slot, and its bytes leave only while the slot is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::CHUNK_BYTES_MAX;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{BootNanos, Micros};

use super::Provider;
use super::cells::{Known, Right, Terms};
use super::memory::Memory;
use super::meters::Charge;
use crate::kernel::RegionKey;
use crate::slot::InFlight;

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// Through a handle of this session's whose right had ended.
    AfterEnd,
    /// Through the handle of another session's right.
    Foreign,
    /// Through a handle that nobody was ever given.
    Forged,
    /// Through a handle so old that the provider no longer knows whose it was.
    Stale,
    /// An operation or bytes that the right does not have.
    Right,
    /// Bytes outside of the region.
    Outside,
}

/// What an access was guilty of, for the entry that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What.
    pub misuse: Misuse,
    /// The right that it was made by, where one is known. Another session's is not said here.
    pub held: Option<Terms>,
    /// How long ago that ended.
    pub after: Option<Micros>,
}

impl Violation {
    const fn of(misuse: Misuse) -> Self {
        Self { misuse, held: None, after: None }
    }
}

/// A refused access.
#[derive(Debug)]
pub struct Refused {
    /// What the client is told.
    pub error: Error,
    /// What it is guilty of; `None` if it sent something malformed, or is not to blame.
    pub violation: Option<Violation>,
}

/// How far an access came.
#[must_use]
pub enum Progress {
    /// All of it.
    Done,
    /// Nothing of it yet: there was no room for the answer.
    Full,
    /// Nothing that counts: a segment is being rotated. To be tried again after [`Rotating::over`].
    Rotating(Rotating),
}

/// A rotation to be waited for.
pub struct Rotating {
    memory: Arc<Memory>,
    /// As it was before the access found the segment dead.
    version: u64,
}

impl Rotating {
    /// Waits until some segment has its fresh file, or none will have.
    pub async fn over(&self) {
        self.memory.changed_since(self.version).await;
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, violation: None }
    }
}

/// What a client is told: the same whatever is wrong with its handle, so that nothing is learnt by guessing.
const GONE: Error = Error::new(Code::Revoked, "no open right of this session has that handle");

/// An access met a dead segment: the right ended, or the segment is being rotated.
pub(super) fn interrupted(
    gone: impl FnOnce() -> Refused,
    error: Error,
    inside: &InFlight<'_>,
    right: &Right,
    version: u64,
) -> Result<Progress, Refused> {
    if error.code() != Code::Revoked {
        return Err(error.into());
    }
    if !inside.still_open() {
        return Err(gone());
    }
    // The fence comes before the cut, so a right that is open has lost nothing but its segment's old file.
    Ok(Progress::Rotating(Rotating { memory: right.memory.clone(), version }))
}

impl Provider {
    /// What using a handle amounts to that names no open right of the session.
    pub(crate) fn misuse(&self, session: u64, handle: SlotHandle) -> Violation {
        match self.0.cells.known(RegionKey { index: handle.slot, generation: handle.epoch }) {
            Known::Ended(last) if last.session == session => Violation {
                misuse: Misuse::AfterEnd,
                held: Some(last.terms),
                after: Some(self.0.clock.boot().since(last.fenced)),
            },
            // It was fenced after the access met the fence, or is about to be.
            Known::Open(owner, terms) if owner == session => {
                Violation { misuse: Misuse::AfterEnd, held: Some(terms), after: None }
            }
            Known::Open(..) | Known::Ended(_) => Violation::of(Misuse::Foreign),
            Known::Older => Violation::of(Misuse::Stale),
            Known::Never => Violation::of(Misuse::Forged),
        }
    }

    /// The right of a handle that ended, and when; `None` if it is open, or forgotten.
    pub(crate) fn ended(&self, handle: SlotHandle) -> Option<(Terms, BootNanos)> {
        match self.0.cells.known(RegionKey { index: handle.slot, generation: handle.epoch }) {
            Known::Ended(last) => Some((last.terms, last.fenced)),
            Known::Open(..) | Known::Older | Known::Never => None,
        }
    }

    pub(super) fn gone(&self, session: u64, handle: SlotHandle) -> Refused {
        Refused { error: GONE, violation: Some(self.misuse(session, handle)) }
    }

    /// Reads `length` bytes at `offset` and hands them to `send` while the slot is held; `send` says whether they
    /// left. A revoke waits for `send`, so it must not wait itself. Unless the answer is [`Progress::Done`] the caller
    /// comes again, to be judged again.
    ///
    /// # Errors
    /// `E_REVOKED`, `E_LEASE_EXPIRED`, `E_DENIED`, `E_RANGE`, `E_SYSTEM`, `E_BUSY` for a token with a rate that has to
    /// wait, or the error of `send`. A budget or rate that is used up is no misuse: who shares one cannot know.
    pub fn read(
        &self,
        session: u64,
        handle: SlotHandle,
        offset: u64,
        length: u32,
        send: impl FnOnce(&[u8]) -> Result<bool>,
    ) -> Result<Progress, Refused> {
        let length = length as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(Error::new(Code::Range, "a read has at most 64 KiB").into());
        }
        let key = RegionKey { index: handle.slot, generation: handle.epoch };
        let gone = || self.gone(session, handle);
        let (inside, right) = self.0.cells.enter(key).ok_or_else(gone)?;
        self.judge(session, handle, &right, Rights::READ, offset, length as u64)?;
        let charge = Charge::take(&right.meters, length as u64, || self.0.clock.boot())?;
        let mut bytes = vec![0; length];
        let version = right.memory.version();
        match right.memory.read_at(offset, &mut bytes) {
            Ok(()) => {}
            Err(error) => return interrupted(gone, error, &inside, &right, version),
        }
        if !inside.still_open() {
            return Err(gone());
        }
        if right.is_superseded() {
            // Narrowed meanwhile: nothing has left, and what is left of the right is judged the next time.
            return Ok(Progress::Full);
        }
        if !send(&bytes)? {
            return Ok(Progress::Full);
        }
        charge.kept();
        right.operations.fetch_add(1, Ordering::Relaxed);
        right.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(Progress::Done)
    }

    /// Writes `bytes` at `offset`, all of them or none that anybody can see after a revoke.
    ///
    /// # Errors
    /// As [`Self::read`], and `E_CHECKSUM` if the bytes are not those that `crc` was made of.
    pub fn write(
        &self,
        session: u64,
        handle: SlotHandle,
        offset: u64,
        bytes: &[u8],
        crc: u32,
    ) -> Result<Progress, Refused> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(Error::new(Code::Range, "a write has at most 64 KiB").into());
        }
        if crc32c::crc32c(bytes) != crc {
            return Err(Error::new(Code::Checksum, "the chunk's checksum does not match its bytes").into());
        }
        let key = RegionKey { index: handle.slot, generation: handle.epoch };
        let gone = || self.gone(session, handle);
        let (inside, right) = self.0.cells.enter(key).ok_or_else(gone)?;
        self.judge(session, handle, &right, Rights::WRITE, offset, bytes.len() as u64)?;
        if right.is_superseded() {
            return Ok(Progress::Full);
        }
        let charge = Charge::take(&right.meters, bytes.len() as u64, || self.0.clock.boot())?;
        let version = right.memory.version();
        match right.memory.write_at(offset, bytes).1 {
            Ok(()) => {}
            Err(error) => return interrupted(gone, error, &inside, &right, version),
        }
        charge.kept();
        right.operations.fetch_add(1, Ordering::Relaxed);
        right.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Progress::Done)
    }

    /// Whether this right allows this access now. The deadline is asked here too: a timer may be late, a clock is not.
    pub(super) fn judge(
        &self,
        session: u64,
        handle: SlotHandle,
        right: &Right,
        needed: Rights,
        offset: u64,
        length: u64,
    ) -> Result<(), Refused> {
        if right.session != session {
            return Err(self.gone(session, handle));
        }
        let held = Some(right.terms());
        let (now, deadline) = (self.0.clock.boot(), right.deadline());
        if deadline <= now {
            let error = Error::new(Code::LeaseExpired, "the right's time is over");
            let after = Some(now.since(deadline));
            return Err(Refused {
                error,
                violation: Some(Violation { misuse: Misuse::AfterEnd, held, after }),
            });
        }
        let guilty = |misuse| Some(Violation { misuse, held, after: None });
        let outside =
            |detail| Refused { error: Error::new(Code::Range, detail), violation: guilty(Misuse::Outside) };
        if !right.rights.contains(needed) {
            let error = Error::new(Code::Denied, "rights: the right was not opened for this operation");
            return Err(Refused { error, violation: guilty(Misuse::Right) });
        }
        let end = offset.checked_add(length).ok_or_else(|| outside("offset and length wrap past 2^64"))?;
        if length == 0 {
            // Nothing is asked for; an offset outside the right is still wrong.
            return if right.range.start() <= offset && end <= right.range.end() {
                Ok(())
            } else {
                Err(outside("the offset lies outside the right"))
            };
        }
        if ByteRange::new(offset, end).is_ok_and(|asked| right.range.contains(asked)) {
            return Ok(());
        }
        if end > right.memory.len() {
            return Err(outside("the access ends past the region"));
        }
        let error = Error::new(Code::Denied, "range: the right does not reach all of these bytes");
        Err(Refused { error, violation: guilty(Misuse::Right) })
    }
}
