//! Writers that can tell afterwards whether a write of theirs was lost or torn.
//!
//! Each writer has every n-th cache line of the region and fills its words one after the other, round and round, with a
//! number that no other write ever has. So what each word must hold follows from how far its writer came, without a
//! copy of the memory, and a word that holds anything else says which way it went wrong. Each word is looked at before it
//! is written over, and all of them at the end: so every single write was looked at, and none twice.
//!
//! ```text
//! line    0    1    2    3    4    5   ...       a word holds            it is
//! writer  0    1    2    0    1    2   ...       its last number         whole
//!                                                an earlier number       lost
//!                                                anything else           torn
//! ```

use std::time::{Duration, Instant};

use libmem::{Code, Error, Mapping, Result, Volatile};
use serde::{Deserialize, Serialize};

pub(super) const LINE_BYTES: usize = 64;
pub(super) const WORD_BYTES: usize = size_of::<u64>();
const LINE_WORDS: usize = LINE_BYTES / WORD_BYTES;
/// Odd, so that multiplying by it loses nothing; and no half of a product says what the other half is.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse modulo 2^64.
const GATHER: u64 = 0xf1de_83e1_9937_733d;
/// A number is its writer, in so many bits from the top, and its step.
const STEP_BITS: u32 = 56;

const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1);

/// Memory that is written word by word. Offsets are multiples of 8.
pub trait Words {
    /// Reads a word.
    ///
    /// # Errors
    /// Those of the access.
    fn load(&self, offset: usize) -> Result<u64>;
    /// Writes a word.
    ///
    /// # Errors
    /// Those of the access; the word is as it was.
    fn store(&self, offset: usize, value: u64) -> Result<()>;
}

impl Words for Mapping {
    fn load(&self, offset: usize) -> Result<u64> {
        self.load_u64(offset)
    }

    fn store(&self, offset: usize, value: u64) -> Result<()> {
        self.store_u64(offset, value)
    }
}

impl Words for Volatile<'_> {
    fn load(&self, offset: usize) -> Result<u64> {
        self.load_u64(offset)
    }

    fn store(&self, offset: usize, value: u64) -> Result<()> {
        self.store_u64(offset, value)
    }
}

/// What was found in a writer's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Hold what was written last.
    pub whole: u64,
    /// Hold what was written before that.
    pub lost: u64,
    /// Hold what was never written there.
    pub torn: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, more: Self) {
        self.whole += more.whole;
        self.lost += more.lost;
        self.torn += more.torn;
    }
}

/// One writer and how far it came.
#[derive(Clone, Copy, Debug)]
pub struct Stripes {
    writer: u8,
    writers: u8,
    /// Words that are this writer's.
    pub(super) words: u64,
    /// Writes that were done.
    pub(super) steps: u64,
    /// What was found in words that were written over: one for each write that is not of the last round.
    found: Found,
    /// The longest pause between two writes since it was last asked for.
    pause: Duration,
}

impl Stripes {
    /// Writer number `writer` of `writers` in a region of `bytes`, all of them 0.
    ///
    /// # Errors
    /// `E_RANGE` if there is no line for it.
    pub fn new(writer: u8, writers: u8, bytes: usize) -> Result<Self> {
        let lines = (bytes / LINE_BYTES).saturating_sub(writer.into()).div_ceil(usize::from(writers.max(1)));
        if writer >= writers || lines == 0 {
            return Err(Error::new(Code::Range, "no line of the region is this writer's"));
        }
        let words = (lines * LINE_WORDS) as u64;
        Ok(Self { writer, writers, words, steps: 0, found: Found::default(), pause: Duration::ZERO })
    }

    /// As a writer that has done so many writes leaves it.
    #[must_use]
    pub const fn after(self, steps: u64) -> Self {
        Self { steps, ..self }
    }

    /// Writes that were done.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The longest pause between two writes of one [`Stripes::write`], since this was last asked.
    pub const fn take_pause(&mut self) -> Duration {
        std::mem::replace(&mut self.pause, Duration::ZERO)
    }

    /// Where the word of a step lies.
    pub(super) fn offset(&self, word: u64) -> usize {
        let (line, word) = (word as usize / LINE_WORDS, word as usize % LINE_WORDS);
        (line * usize::from(self.writers) + usize::from(self.writer)) * LINE_BYTES + word * WORD_BYTES
    }

    /// What a step writes. Never 0, which is what memory holds that was never written: steps count from 1.
    pub(super) fn number(&self, step: u64) -> u64 {
        (u64::from(self.writer) << STEP_BITS | step).wrapping_mul(SPREAD)
    }

    /// The step that wrote a number, if it was one of this writer's.
    fn step(&self, number: u64) -> Option<u64> {
        let plain = number.wrapping_mul(GATHER);
        (plain >> STEP_BITS == u64::from(self.writer)).then_some(plain & ((1 << STEP_BITS) - 1))
    }

    /// Writes `count` words, one after the other.
    ///
    /// # Errors
    /// As [`Words`]; the write that failed does not count as done.
    pub fn write(&mut self, memory: &impl Words, count: u64) -> Result<()> {
        let mut last = Instant::now();
        for _ in 0..count {
            let word = self.steps % self.words;
            let offset = self.offset(word);
            let held = memory.load(offset)?;
            memory.store(offset, self.number(self.steps + 1))?;
            self.judge(word, held, (self.steps + 1).saturating_sub(self.words));
            self.steps += 1;
            let now = Instant::now();
            self.pause = self.pause.max(now.duration_since(last));
            last = now;
        }
        Ok(())
    }

    /// Counts what a word holds that `last`, a step from 1 on, was the last to write; 0 if none was.
    fn judge(&mut self, word: u64, held: u64, last: u64) {
        if last == 0 {
            self.found.torn += u64::from(held != 0);
            return;
        }
        let expected = self.number(last);
        let earlier = |step: u64| step >= 1 && step < last && (step - 1) % self.words == word;
        if held == expected {
            self.found.whole += 1;
        } else if held == 0 || self.step(held).is_some_and(earlier) {
            self.found.lost += 1;
        } else {
            self.found.torn += 1;
        }
    }

    /// Looks at each of this writer's words while it does not write. What is found includes what was found in words
    /// that were written over: every write so far.
    ///
    /// # Errors
    /// As [`Words`].
    pub fn verify(&self, memory: &impl Words) -> Result<Found> {
        let mut all = *self;
        for word in 0..self.words {
            let held = memory.load(self.offset(word))?;
            let rounds = (self.steps + self.words - 1 - word) / self.words;
            all.judge(word, held, if rounds == 0 { 0 } else { (rounds - 1) * self.words + word + 1 });
        }
        Ok(all.found)
    }
}
