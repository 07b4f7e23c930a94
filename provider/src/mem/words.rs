//! Words of a region, changed by one instruction of the processor: the same that a local client makes through its own
//! mapping, on the same bytes, so neither ever loses the other's change.
//!
//! That takes a mapping in this process, and a cut takes the pages out of it as out of every other: an instruction after
//! that would be a SIGBUS. The file has one *turn*:
//!
//! ```text
//!   change                                    cut
//!   1 make the page present                   1 say that the region is cut
//!   2 take the turn                           2 take the turn, and give it back
//!   3 is the region cut? then nothing         3 truncate
//!   4 one instruction
//!   5 give the turn back
//! ```
//! An instruction that begins before 2 of a cut is over before its 3; one that comes later finds the region cut at its own
//! 3 and is not made. So it is always known whether a word was changed, and what was changed before a cut is in the pages
//! that a rotation copies. A cut waits for one instruction at most, whose page is present: nothing that a client does is
//! between the two. The turn lends its holder the priority of who waits ([`super::turn`]).
//!
//! Few pages are present at a time ([`super::present`]): so many, and one more for each thread that is about to give one up
//! and waits for the turn of its region. One is given up in the way of a cut, so that a change which had
//! made it present either is over or makes it present again.
//!
//! Only a process that may truncate or punch the file could take the page away between 1 and 4. In tier `sealed` there is
//! none but this one and its guardian, which waits for this one's end. In tier `open` a client of the provider's own user
//! that may write has a descriptor by which it can: by `fallocate` or `MADV_REMOVE` it makes a hole, and the instruction
//! then finds a page of zeros, for which the file system must have room; if it has none, or the file was made shorter, the
//! provider dies of SIGBUS and the guardian cuts everything. Such a client is trusted as far as that: by its user it can
//! as well kill the provider.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use caps::error::Result;

use super::mapping::Mapping;
use super::present::{Place, Present};
use super::turn::Turn;

/// Bytes of a word, which stands at a multiple of them.
pub const WORD_BYTES: usize = size_of::<u64>();

/// What becomes of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `desired`, if it is `expected`.
    Swap {
        /// What it has to be.
        expected: u64,
        /// What it becomes.
        desired: u64,
    },
    /// The sum of it and this, past 2^64 from 0 on.
    Add(u64),
}

impl Change {
    /// Makes the change and returns what the word was before.
    fn make(self, word: &AtomicU64) -> u64 {
        // SeqCst, as the strongest that a local client may rely on.
        match self {
            Self::Add(addend) => word.fetch_add(addend, Ordering::SeqCst),
            Self::Swap { expected, desired } => word
                .compare_exchange(expected, desired, Ordering::SeqCst, Ordering::SeqCst)
                .unwrap_or_else(|found| found),
        }
    }
}

/// The pages that are present in the mappings of all regions.
static PRESENT: Present<Mapped> = Present::new();
/// How often a page is made present for one change, if it is given up before its turn. After that the instruction does it,
/// and a cut that comes then waits for that as well.
const TRIES: usize = 4;

/// How the words of one region are changed.
#[derive(Debug, Default)]
pub(super) struct Words(Arc<Mapped>);

/// A region's file, as this process has it mapped.
#[derive(Debug, Default)]
struct Mapped {
    /// Held for step 3 and 4 of a change.
    turn: Turn,
    /// From the first change on. Addresses alone: few of its pages are present.
    mapping: OnceLock<Mapping>,
    /// Goes up when pages are being given up, and when they are: odd meanwhile.
    given_up: AtomicU64,
    /// Held meanwhile: two at a time would leave the number even.
    giving_up: Mutex<()>,
}

impl Place for Mapped {
    /// As a cut does: who begins after the first line sees it and makes the page present again, and who had begun is over
    /// after the second.
    fn give_up(&self, offset: usize) {
        let _alone = self.giving_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.given_up.fetch_add(1, Ordering::SeqCst);
        drop(self.turn.take());
        if let Some(mapping) = self.mapping.get() {
            mapping.make_absent(offset);
        }
        self.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

impl Words {
    /// Changes the word at `offset` of `file`, a multiple of [`WORD_BYTES`] at least that far from `len`, and returns what
    /// it was before. `stands` says whether the region still stands; it is asked when nothing can be cut any more until the
    /// change is made.
    ///
    /// # Errors
    /// What `stands` says; what the kernel says if the region cannot be mapped, or is cut while its page is made present.
    /// Nothing was changed then.
    pub(super) fn change(
        &self,
        file: BorrowedFd<'_>,
        len: usize,
        offset: usize,
        change: Change,
        stands: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        let mapping = self.mapping(file, len)?;
        assert!(offset.is_multiple_of(WORD_BYTES) && offset < len && len - offset >= WORD_BYTES);
        // Outside of the turn: making a page present can take a while.
        let mut tries = 0..TRIES;
        let _turn = loop {
            let before = self.0.given_up.load(Ordering::SeqCst);
            mapping.make_present(offset)?;
            PRESENT.used(&self.0, offset);
            let turn = self.0.turn.take();
            let stays = before.is_multiple_of(2) && self.0.given_up.load(Ordering::SeqCst) == before;
            if stays || tries.next().is_none() {
                break turn;
            }
        };
        stands()?;
        // SAFETY: the word lies in the mapping (asserted above, whose length is `len`) and is aligned, as the mapping
        // begins at a page. The mapping lives as long as `self`. Everybody who touches the word meanwhile is another
        // process, or this kernel for one. The page is there: it was made present above while the file was whole (or the kernel makes it
        // so again, of the same file), `stands`
        // says that no cut has begun, and one that begins now truncates only after this turn is given back (`stop`). Whoever
        // else may take it away, in tier `open`, ends this process at worst (SIGBUS): see the module's documentation.
        let word = unsafe { AtomicU64::from_ptr(mapping.at(offset).cast()) };
        Ok(change.make(word))
    }

    /// Waits until no change is between its look at `stands` and its end. Called when `stands` says no already: from here
    /// on there is none.
    pub(super) fn stop(&self) {
        drop(self.0.turn.take());
    }

    fn mapping(&self, file: BorrowedFd<'_>, len: usize) -> Result<&Mapping> {
        if let Some(mapping) = self.0.mapping.get() {
            return Ok(mapping);
        }
        let made = Mapping::of(file, len)?;
        Ok(self.0.mapping.get_or_init(|| made)) // somebody else's, made meanwhile, does as well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_answers_what_was_before() {
        let word = AtomicU64::new(7);
        assert_eq!(Change::Add(3).make(&word), 7);
        assert_eq!(Change::Swap { expected: 9, desired: 1 }.make(&word), 10, "not what it was thought to be");
        assert_eq!(Change::Swap { expected: 10, desired: 1 }.make(&word), 10);
        assert_eq!(Change::Add(u64::MAX).make(&word), 1);
        assert_eq!(word.into_inner(), 0, "past 2^64 from 0 on");
    }
}
