//! Guarded access: memory that can be taken away, or replaced, while it is being used.
//!
//! A revoke cuts the pages out of the mapping, and the next access is a SIGBUS. A [`Window`] makes accesses
//! that survive that: they go through a few routines in assembly that the signal handler knows, and come back
//! with "gone".
//!
//! ```text
//! Window::copy ──▶ arch::copy ──load, store──▶ pages there ──▶ all bytes copied
//!                      ▲   ▲                       │ pages cut
//!                      │   │ once more             ▼ SIGBUS
//!                      │   └── fresh pages ─── handler::on_fault ── not ours ──▶ the previous handler, or death
//!                      │                           │ reads      │ takes messages
//!                      └─ moved to the landing ────┤            ▼
//!                         pad: "n bytes left"      ▼          channel ──▶ rotating: maps the fresh segment
//!                                                 table::Slot: which addresses may fault
//! ```
//!
//! # Rotation
//!
//! When one of several holders loses its right, the node cuts the segment from everybody and hands the others a fresh
//! file with the same bytes, over the session's rotation channel. Two kinds of threads read that channel, whoever comes
//! first: any thread whose access met the cut, from its fault handler, and the session's watching thread, so that a
//! process in which nobody touches the memory follows too. Nobody else has to live for it: a thread that is stopped or
//! killed between two steps takes its whole process with it.
//!
//! The interrupted instruction then runs once more. That is right for every access, guarded or raw: one that faulted did
//! not happen, and what was written before the cut is in the fresh file.
//!
//! Files, in reading order: `table` (the ranges), `arch` (all assembly), `handler` (the decision), `channel` and
//! `rotating` (messages, and what they do), `signals` (masks);
//! this file puts them together. All of it works in every thread. It is not meant for use inside signal handlers: a
//! handler that blocks SIGBUS and then meets cut memory ends the process, rotation or not.

mod arch;
pub(crate) mod channel;
mod handler;
mod rotating;
pub(crate) mod signals;
mod table;

use std::sync::Arc;

use caps::error::Error;
pub(crate) use rotating::{Rotating, Rotation, Standing};
use table::Slot;

/// One registered range of leased addresses. Holding one proves that the handler is installed and knows the
/// range.
pub(crate) struct Window {
    slot: &'static Slot,
    /// See [`arch::string_min_bytes`].
    string_min_bytes: usize,
    /// The slot points to it. Dropped after the slot was released.
    rotating: Option<Arc<Rotating>>,
}

impl Window {
    /// Registers `length` bytes from `start`, and installs the handler if this is the first window of the
    /// process. Without `rotating` a cut of the range is final.
    ///
    /// # Errors
    /// `E_BUSY` if the table is full, `E_SYSTEM` if the handler cannot be installed.
    pub(crate) fn register(start: usize, length: usize, rotating: Option<Rotating>) -> Result<Self, Error> {
        handler::install(rotating.is_some())?;
        let rotating = rotating.map(Arc::new);
        let slot = Slot::claim(start, start + length, rotating.as_ref())?;
        Ok(Self { slot, string_min_bytes: arch::string_min_bytes(), rotating })
    }

    /// What may be done with `length` bytes from `offset`, as far as rotations have changed it.
    pub(crate) fn standing(&self, offset: usize, length: usize) -> Standing {
        self.rotating.as_ref().map_or(Standing::Whole, |rotating| rotating.standing(offset, length))
    }

    /// Copies `length` bytes and returns how many were copied: all, or those before the first that was cut.
    ///
    /// # Safety
    /// `source` is readable and `destination` writable for `length` bytes, apart from pages of this window
    /// that were cut. They do not overlap. Nobody relies on the destination's bytes being constant meanwhile.
    #[inline]
    pub(crate) unsafe fn copy(&self, destination: *mut u8, source: *const u8, length: usize) -> usize {
        handler::admit_thread();
        // SAFETY: the caller's promise; the slot is this window's, alive as long as `self`.
        let left =
            unsafe { arch::copy(destination, source, self.string_min_bytes, length, self.slot.address()) };
        length - left
    }

    /// Loads a word. `None`: it was cut.
    ///
    /// # Safety
    /// `address` is a multiple of 8 and lies in this window.
    #[inline]
    pub(crate) unsafe fn load(&self, address: *const u64) -> Option<u64> {
        handler::admit_thread();
        // SAFETY: the caller's promise.
        answer(unsafe { arch::load(address, self.slot.address()) })
    }

    /// Stores a word. `None`: it was cut.
    ///
    /// # Safety
    /// `address` is a multiple of 8 and lies in this window, which is mapped for writing.
    #[inline]
    pub(crate) unsafe fn store(&self, address: *mut u64, value: u64) -> Option<()> {
        handler::admit_thread();
        // SAFETY: the caller's promise.
        answer(unsafe { arch::store(address, value, self.slot.address()) }).map(drop)
    }

    /// Adds to a word, wrapping, and returns what it was. `None`: it was cut.
    ///
    /// # Safety
    /// As [`Window::store`].
    #[inline]
    pub(crate) unsafe fn fetch_add(&self, address: *mut u64, value: u64) -> Option<u64> {
        handler::admit_thread();
        // SAFETY: the caller's promise.
        answer(unsafe { arch::fetch_add(address, value, self.slot.address()) })
    }

    /// Stores `new` if the word is `current`, and returns what it was. `None`: it was cut.
    ///
    /// # Safety
    /// As [`Window::store`].
    #[inline]
    pub(crate) unsafe fn compare_exchange(&self, address: *mut u64, current: u64, new: u64) -> Option<u64> {
        handler::admit_thread();
        // SAFETY: the caller's promise.
        answer(unsafe { arch::compare_exchange(address, current, new, self.slot.address()) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.slot.release();
    }
}

fn answer(word: arch::Word) -> Option<u64> {
    (word.faulted == 0).then_some(word.value)
}
