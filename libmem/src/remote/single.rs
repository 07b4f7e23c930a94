//! Requests of one frame and answers of one number: words, and what a right reaches.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::SlotHandle;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::remote::answer::Answer;
use caps::wire::remote::body::WORD_BYTES;
use caps::wire::remote::{Add, Span, Swap, Verb};
use zerocopy::IntoBytes;

use super::right::Right;
use super::talk::{Frame, Taken, Talk};
use crate::mediated::Stat;

/// What is done with one word.
enum Word {
    Swap { expected: u64, desired: u64 },
    Add(u64),
}

struct Wording {
    offset: u64,
    word: Word,
    before: u64,
}

impl Talk for Wording {
    fn verb(&self) -> Verb {
        match self.word {
            Word::Swap { .. } => Verb::Cas,
            Word::Add(_) => Verb::FetchAdd,
        }
    }

    fn changes(&self) -> bool {
        true
    }

    fn frame<'a>(
        &'a self,
        _: usize,
        _: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        match self.word {
            Word::Swap { expected, desired } => {
                head.extend_from_slice(Swap::new(handle, self.offset, expected, desired).as_bytes());
            }
            Word::Add(addend) => head.extend_from_slice(Add::new(handle, self.offset, addend).as_bytes()),
        }
        Ok(Frame { items: 0, more: false, data: &[] })
    }

    fn take(&mut self, _: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        let &Taken::Came(Answer::Word(before)) = answer else { return Err(Code::Internal.into()) };
        self.before = before;
        Ok(())
    }
}

struct Standing(Option<Stat>);

impl Talk for Standing {
    fn verb(&self) -> Verb {
        Verb::Stat
    }

    fn changes(&self) -> bool {
        false
    }

    fn frame<'a>(
        &'a self,
        _: usize,
        _: usize,
        handle: SlotHandle,
        head: &mut Vec<u8>,
    ) -> Result<Frame<'a>, Error> {
        head.extend_from_slice(Span::new(handle, 0, 0).as_bytes());
        Ok(Frame { items: 0, more: false, data: &[] })
    }

    fn take(&mut self, _: usize, answer: &Taken<'_>, _: bool) -> Result<(), Error> {
        let Taken::Came(Answer::Standing(standing)) = answer else { return Err(Code::Internal.into()) };
        let (start, end) = standing.range();
        let range = ByteRange::new(start, end)
            .map_err(|_| Error::new(Code::Protocol, "the node says that a right reaches no bytes"))?;
        if end > standing.region_bytes() {
            return Err(Error::new(Code::Protocol, "the node says that a right reaches past its region"));
        }
        self.0 = Some(Stat {
            region_bytes: standing.region_bytes(),
            range,
            rights: standing.rights()?,
            expires_in: Duration::from_micros(standing.left_us()),
        });
        Ok(())
    }
}

impl Right {
    /// `new` for `current` at `offset`, in one step. Returns what was there.
    pub(crate) fn compare_exchange_u64(&self, offset: u64, current: u64, new: u64) -> Result<u64> {
        self.word(offset, Word::Swap { expected: current, desired: new })
    }

    /// Adds to the word at `offset`. Returns what was there.
    pub(crate) fn fetch_add_u64(&self, offset: u64, value: u64) -> Result<u64> {
        self.word(offset, Word::Add(value))
    }

    fn word(&self, offset: u64, word: Word) -> Result<u64> {
        self.check(Rights::WRITE, offset, WORD_BYTES as usize)?;
        if !offset.is_multiple_of(WORD_BYTES) {
            return Err(Error::new(Code::Range, "a word has 8 bytes and stands at a multiple of 8"));
        }
        let mut wording = Wording { offset, word, before: 0 };
        self.session.talk(&mut wording, Some(self))?;
        Ok(wording.before)
    }

    /// What the right reaches now.
    pub(crate) fn stat(&self) -> Result<Stat> {
        let mut standing = Standing(None);
        self.session.talk(&mut standing, Some(self))?;
        standing.0.ok_or(Error::new(Code::Internal, "an answer is read that did not come"))
    }
}
