//! Words that a client compares and swaps, or adds to.

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::rights::Rights;
use caps::wire::remote::{Add, Header, Swap};

use super::job::Sink;
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
    /// Changes the word, if it can be changed now, and gives what it was before to `out`, which had room, under the header
    /// that `header` makes for the answer's body. After [`Progress::Done`] that is done, and the word must not be changed
    /// again; after the others nothing is done.
    ///
    /// # Errors
    /// Why the word is not changed: `E_REVOKED`, `E_LEASE_EXPIRED`, `E_DENIED`, `E_RANGE`, `E_BUSY`, `E_SYSTEM`; what the
    /// client did wrong by it is on record. `E_UNREACHABLE` if it was changed and the connection is gone.
    pub(super) fn change(
        self,
        visitor: &mut Visitor,
        out: &mut dyn Sink,
        header: impl FnOnce(&[u8]) -> Result<Header>,
    ) -> Result<Progress> {
        let Self { handle, offset, change } = self;
        let changed =
            visitor.shared.provider.change_word(visitor.opener.session, handle, offset, change, |before| {
                let body = before.to_le_bytes();
                out.frame(header(&body)?, &[&body], &[handle]).map_err(|error| {
                    Error::with(Code::Unreachable, format!("a word was changed for nobody: {error}"))
                })
            });
        let asked = Access { rights: Rights::READ_WRITE, offset, bytes: WORD_BYTES as u64 };
        changed.map_err(|refused| visitor.refused(handle, asked, refused))
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
