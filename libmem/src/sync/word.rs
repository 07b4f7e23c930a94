//! One shared word: 8 bytes of a mapping, touched under guard only.

use std::time::Duration;

use caps::error::{Code, Error, Result};

use super::futex::{self, Watched};
use super::limits::{LINE_BYTES, WAKE_TRIES_MAX};
use crate::mapping::Mapping;

/// A word at `offset`, which is a multiple of 8 within the mapping (or every access is `E_RANGE`).
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    mapping: &'a Mapping,
    offset: usize,
}

impl<'a> Word<'a> {
    pub(super) const fn new(mapping: &'a Mapping, offset: usize) -> Self {
        Self { mapping, offset }
    }

    pub(super) fn load(self) -> Result<u64> {
        self.mapping.load_u64(self.offset)
    }

    pub(super) fn store(self, value: u64) -> Result<()> {
        self.mapping.store_u64(self.offset, value)
    }

    pub(super) fn fetch_add(self, value: u64) -> Result<u64> {
        self.mapping.fetch_add_u64(self.offset, value)
    }

    /// Whether `new` took the place of `current`.
    pub(super) fn replace(self, current: u64, new: u64) -> Result<bool> {
        Ok(self.mapping.compare_exchange_u64(self.offset, current, new)? == current)
    }

    /// Wakes up to `count` of those who sleep on this word.
    ///
    /// If the pages are gone, a guarded load brings them back or says `E_REVOKED`, and then it is tried again.
    pub(super) fn wake(self, count: u32) -> Result<()> {
        for _ in 0..WAKE_TRIES_MAX {
            if futex::wake(self.address(), count)? {
                return Ok(());
            }
            self.load()?;
        }
        // Rotation upon rotation: those who sleep in processes that do not follow look again by themselves.
        Ok(())
    }

    /// What a sleeper tells the kernel about this word.
    pub(super) fn watched(self, seen: u64) -> Watched {
        Watched { address: self.address(), seen: seen as u32 } // the low half is the futex
    }

    /// Sleeps as [`futex::sleep`] does, on this word alone.
    pub(super) fn sleep(self, seen: u64, rotations: u32, at_most: Duration) -> Result<()> {
        futex::sleep(&[self.watched(seen)], rotations, at_most)
    }

    fn address(self) -> *mut u32 {
        self.mapping.as_ptr().wrapping_add(self.offset).cast()
    }
}

/// That `bytes` from `offset` on lie in the mapping and begin on a cache line.
pub(super) fn check_range(mapping: &Mapping, offset: usize, bytes: usize) -> Result<()> {
    if !offset.is_multiple_of(LINE_BYTES) {
        return Err(Error::new(Code::Range, "shared words begin on a multiple of 64 bytes"));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > mapping.len()) {
        return Err(Error::new(Code::Range, "the shared words lie outside the mapping"));
    }
    Ok(())
}
