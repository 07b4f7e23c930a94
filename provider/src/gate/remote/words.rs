//! Words that a client compares and swaps, or adds to.

use caps::error::Result;
use caps::id::{RequestId, SlotHandle};
use caps::rights::Rights;
use caps::wire::remote::{Add, Swap};

use super::job::{Answering, Sink, Went};
use super::keeping;
use crate::gate::fault::Access;
use crate::gate::visitor::Visitor;
use crate::mem::{Change, WORD_BYTES};
use crate::runtime::Progress;

/// One word to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    handle: SlotHandle,
    offset: u64,
    change: Change,
}

impl From<&Swap> for Word {
    fn from(swap: &Swap) -> Self {
        let change = Change::Swap { expected: swap.expected(), desired: swap.desired() };
        Self { handle: swap.word.handle(), offset: swap.word.offset(), change }
    }
}

impl From<&Add> for Word {
    fn from(add: &Add) -> Self {
        Self { handle: add.word.handle(), offset: add.word.offset(), change: Change::Add(add.addend()) }
    }
}

impl Word {
    /// Changes the word, if it can be changed now, and gives what it was before to `out` while the slot is held. Only
    /// then is it done; otherwise nothing is.
    pub(super) fn step(&self, answer: &Answering, visitor: &mut Visitor, out: &mut dyn Sink) -> Result<Went> {
        if !out.has_room() {
            return Ok(Went::Full);
        }
        let Self { handle, offset, change } = *self;
        let changed =
            visitor.shared.provider.change_word(visitor.opener.session, handle, offset, change, |before| {
                // It was changed: nobody to tell is no failure of that.
                let _ = answer.frame(out, false, 0, &[&before.to_le_bytes()], &[handle]);
            });
        let asked = Access { rights: Rights::READ_WRITE, offset, bytes: WORD_BYTES as u64 };
        match changed.map_err(|refused| visitor.refused(handle, asked, refused))? {
            Progress::Done => Ok(Went::Done),
            Progress::Rotating(rotating) => Ok(Went::Rotating(rotating)),
            // Narrowed: it is judged again.
            Progress::Full => Ok(Went::On),
        }
    }

    /// Gives an answer that was kept to `out`, under the number `request`, while the right is open to this word: what a
    /// word was is not told after a revoke or a narrowing, also not once more, nor by a right that never reached it.
    ///
    /// # Errors
    /// Why it is not told, which is what changing a word by this right would be refused with.
    pub(super) fn repeat(
        &self,
        frames: &[u8],
        request: RequestId,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
    ) -> Result<()> {
        let Self { handle, offset, .. } = *self;
        let told = visitor.shared.provider.while_word_open(visitor.opener.session, handle, offset, || {
            keeping::repeat(frames, request, out, &[handle])
        });
        let asked = Access { rights: Rights::READ_WRITE, offset, bytes: WORD_BYTES as u64 };
        told.map_err(|refused| visitor.refused(handle, asked, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_what_was_asked_for() {
        let handle = SlotHandle { slot: 1, epoch: 2 };
        let swap = Word::from(&Swap::new(handle, 8, 3, 4));
        assert_eq!(swap, Word { handle, offset: 8, change: Change::Swap { expected: 3, desired: 4 } });
        let add = Word::from(&Add::new(handle, 16, u64::MAX));
        assert_eq!(add, Word { handle, offset: 16, change: Change::Add(u64::MAX) });
    }
}
