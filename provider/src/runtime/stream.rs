//! Bytes for requests that may be longer than a chunk: of each chunk its own passage through the slot.
//!
//! ```text
//!   pass ──▶ read, or write ──▶ stands? ──▶ the caller sends ──▶ kept
//!    enter the slot, judge        still open, not narrowed         counted, and the slot is let go
//! ```
//! What reaches past the region's end is cut off before it is judged, so a longer request moves what there is; the local
//! gate refuses it, as `access` judges. A passage that is dropped before it is [kept](Passage::kept) is taken back from
//! its meters. Nothing here allocates: the caller brings the buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::limits::CHUNK_BYTES_MAX;
use caps::rights::Rights;
use caps::wire::remote::Standing;

use super::Provider;
use super::access::{Progress, Refused, interrupted};
use super::cells::Right;
use super::meters::{self, Charge};
use crate::kernel::RegionKey;
use crate::slot::InFlight;

/// An operation inside its slot. A take-back of the right waits until it is dropped.
#[must_use]
pub(crate) struct Passage<'p> {
    provider: &'p Provider,
    session: u64,
    handle: SlotHandle,
    // Before the right: whoever sees the slot drained may take the memory that the right keeps.
    inside: InFlight<'p>,
    right: Arc<Right>,
    reach: u64,
    /// Bytes that were taken from the meters.
    charged: u64,
    /// Bytes of the last write, from its first on, that are in the region for certain.
    written: usize,
}

impl Provider {
    /// Enters the slot of a right and judges `length` bytes at `offset` by it, all of them that lie in the region.
    ///
    /// # Errors
    /// `E_REVOKED`, `E_LEASE_EXPIRED`, `E_DENIED`; `E_RANGE` for an offset behind the region's end.
    pub(crate) fn pass(
        &self,
        session: u64,
        handle: SlotHandle,
        needed: Rights,
        offset: u64,
        length: u64,
    ) -> Result<Passage<'_>, Refused> {
        let (inside, right) = self.enter(session, handle)?;
        let reach = clip(offset, length, right.memory.len());
        self.judge(session, handle, &right, needed, offset, reach)?;
        Ok(Passage { provider: self, session, handle, inside, right, reach, charged: 0, written: 0 })
    }

    /// What a right reaches now.
    ///
    /// # Errors
    /// `E_REVOKED`, `E_LEASE_EXPIRED`.
    pub(crate) fn standing(&self, session: u64, handle: SlotHandle) -> Result<Standing, Refused> {
        let (_inside, right) = self.enter(session, handle)?;
        // No bytes at its own beginning: nothing is asked of it but that it lives and is this session's.
        self.judge(session, handle, &right, Rights::default(), right.range.start(), 0)?;
        let left = right.deadline().since(self.0.clock.boot());
        let range = (right.range.start(), right.range.end());
        Ok(Standing::new(right.memory.len(), range, right.rights, left.0))
    }

    fn enter(&self, session: u64, handle: SlotHandle) -> Result<(InFlight<'_>, Arc<Right>), Refused> {
        let key = RegionKey { index: handle.slot, generation: handle.epoch };
        self.0.cells.enter(key).ok_or_else(|| self.gone(session, handle))
    }
}

/// How many of `length` bytes at `offset` lie in a region of `bytes`. An offset behind the end is left for the judge.
fn clip(offset: u64, length: u64, bytes: u64) -> u64 {
    bytes.checked_sub(offset).map_or(length, |rest| length.min(rest))
}

impl Passage<'_> {
    /// How many of the bytes that were judged lie in the region.
    pub(crate) fn reach(&self) -> u64 {
        self.reach
    }

    /// Reads all of `into`, at most a chunk, at `offset`: a part of what was judged. What it came to is never
    /// [`Progress::Full`].
    ///
    /// # Errors
    /// `E_REVOKED` if the right ended meanwhile; `E_DENIED` and `E_BUSY` of the token's limits; `E_SYSTEM`.
    pub(crate) fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<Progress, Refused> {
        self.charge(into.len())?;
        let version = self.right.memory.version();
        match self.right.memory.read_at(offset, into) {
            Ok(()) => Ok(Progress::Done),
            Err(error) => self.interrupted(error, version),
        }
    }

    /// Writes all of `bytes`, at most a chunk, at `offset`: a part of what was judged. [`Progress::Full`] says that the
    /// right was narrowed since it was judged, and nothing was written.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<Progress, Refused> {
        if self.right.is_superseded() {
            return Ok(Progress::Full);
        }
        self.charge(bytes.len())?;
        let version = self.right.memory.version();
        let (written, outcome) = self.right.memory.write_at(offset, bytes);
        self.written = written;
        match outcome {
            Ok(()) => Ok(Progress::Done),
            Err(error) => self.interrupted(error, version),
        }
    }

    /// How many bytes of the last write, from its first on, are in the region for certain, whatever it came to: those in
    /// the segments before the one that was dead.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Whether the right stands as it was judged. Asked right before bytes leave: a take-back that comes later waits for
    /// this passage.
    pub(crate) fn stands(&self) -> bool {
        self.inside.still_open() && !self.right.is_superseded()
    }

    /// The bytes were moved.
    pub(crate) fn kept(mut self) {
        let charged = std::mem::take(&mut self.charged);
        self.right.operations.fetch_add(1, Ordering::Relaxed);
        self.right.bytes.fetch_add(charged, Ordering::Relaxed);
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Refused> {
        if bytes > CHUNK_BYTES_MAX {
            return Err(Error::new(Code::Internal, "a passage moves at most 64 KiB").into());
        }
        let bytes = bytes as u64;
        Charge::take(&self.right.meters, bytes, || self.provider.0.clock.boot())?.kept();
        self.charged += bytes;
        Ok(())
    }

    fn interrupted(&self, error: Error, version: u64) -> Result<Progress, Refused> {
        let gone = || self.provider.gone(self.session, self.handle);
        interrupted(gone, error, &self.inside, &self.right, version)
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.charged > 0 {
            meters::give_back(&self.right.meters, self.charged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_cut_at_the_regions_end_and_not_behind_it() {
        assert_eq!((clip(0, 10, 10), clip(5, 10, 10), clip(10, 10, 10)), (10, 5, 0));
        assert_eq!(clip(11, 10, 10), 10, "the judge refuses that");
        assert_eq!(clip(u64::MAX, 0, 10), 0);
    }
}
