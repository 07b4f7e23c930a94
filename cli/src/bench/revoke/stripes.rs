//! Writers that can tell afterwards whether a write of theirs was lost or torn.
//!
//! Each writer has every n-th cache line of the region and fills its words one after the other, round and round, with a
//! number that no other write ever has. So what each word must hold follows from how far its writer came, without a
//! copy of the memory, and a word that holds anything else says which way it went wrong:
//!
//! ```text
//! line    0    1    2    3    4    5   ...       a word holds            it is
//! writer  0    1    2    0    1    2   ...       its last number         whole
//!                                                an earlier number       lost
//!                                                anything else           torn
//! ```

use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use libmem::Mapping;

const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = size_of::<u64>();
const LINE_WORDS: usize = LINE_BYTES / WORD_BYTES;
/// Odd, so that multiplying by it loses nothing; and no half of a product says what the other half is.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse modulo 2^64.
const GATHER: u64 = 0xf1de_83e1_9937_733d;
/// A number is its writer, in so many bits from the top, and its step.
const STEP_BITS: u32 = 56;

const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1);

/// What was found in a writer's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Hold what was written last.
    pub whole: u64,
    /// Hold what was written before that.
    pub lost: u64,
    /// Hold what was never written there.
    pub torn: u64,
}

/// One writer and how far it came.
#[derive(Clone, Copy, Debug)]
pub struct Stripes {
    writer: u8,
    writers: u8,
    /// Words that are this writer's.
    words: u64,
    /// Writes that were done.
    steps: u64,
}

impl Stripes {
    /// Writer number `writer` of `writers` in a region of `bytes`.
    ///
    /// # Errors
    /// `E_RANGE` if there is no line for it.
    pub fn new(writer: u8, writers: u8, bytes: usize) -> Result<Self> {
        let lines = (bytes / LINE_BYTES).saturating_sub(writer.into()).div_ceil(usize::from(writers.max(1)));
        if writer >= writers || lines == 0 {
            return Err(Error::new(Code::Range, "no line of the region is this writer's"));
        }
        Ok(Self { writer, writers, words: (lines * LINE_WORDS) as u64, steps: 0 })
    }

    /// Where the word of a step lies.
    fn offset(&self, word: u64) -> usize {
        let (line, word) = (word as usize / LINE_WORDS, word as usize % LINE_WORDS);
        (line * usize::from(self.writers) + usize::from(self.writer)) * LINE_BYTES + word * WORD_BYTES
    }

    /// What a step writes. Never 0, which is what memory holds that was never written: steps count from 1.
    fn number(&self, step: u64) -> u64 {
        (u64::from(self.writer) << STEP_BITS | step).wrapping_mul(SPREAD)
    }

    /// The step that wrote a number, if it was one of this writer's.
    fn step(&self, number: u64) -> Option<u64> {
        let plain = number.wrapping_mul(GATHER);
        (plain >> STEP_BITS == u64::from(self.writer)).then_some(plain & ((1 << STEP_BITS) - 1))
    }

    /// Writes until `done` says so, which is asked once a round. Returns the longest pause between two writes.
    ///
    /// # Errors
    /// As [`Mapping::store_u64`]; the write that failed does not count as done.
    pub fn write(&mut self, mapping: &Mapping, mut done: impl FnMut() -> bool) -> Result<Duration> {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !done() {
            for _ in 0..self.words {
                let step = self.steps + 1;
                mapping.store_u64(self.offset(self.steps % self.words), self.number(step))?;
                self.steps = step;
                let now = Instant::now();
                longest = longest.max(now.duration_since(last));
                last = now;
            }
        }
        Ok(longest)
    }

    /// Looks at each of this writer's words while it does not write.
    ///
    /// # Errors
    /// As [`Mapping::load_u64`].
    pub fn verify(&self, mapping: &Mapping) -> Result<Found> {
        let mut found = Found::default();
        for word in 0..self.words {
            let held = mapping.load_u64(self.offset(word))?;
            // The last step that wrote this word, counting from 1; 0 if none did.
            let rounds = (self.steps + self.words - 1 - word) / self.words;
            let last = if rounds == 0 { 0 } else { (rounds - 1) * self.words + word + 1 };
            let expected = if last == 0 { 0 } else { self.number(last) };
            let earlier = |step: u64| step >= 1 && step < last && (step - 1) % self.words == word;
            match held {
                held if held == expected => found.whole += 1,
                0 => found.lost += 1,
                held if self.step(held).is_some_and(earlier) => found.lost += 1,
                _ => found.torn += 1,
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use libmem::{Access, Revocation, Segment};
    use rustix::fs::MemfdFlags;

    use super::*;

    const BYTES: usize = 4096;

    /// Plain memory under the mapping that leases have.
    fn memory() -> Mapping {
        let descriptor: OwnedFd = rustix::fs::memfd_create("stripes", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&descriptor, BYTES as u64).unwrap();
        let segment = Segment { descriptor, bytes: BYTES as u64 };
        Mapping::new(vec![segment], Access::ReadWrite, Revocation::new()).unwrap()
    }

    /// Writes so many rounds, and part of one more by hand.
    fn advance(stripes: &mut Stripes, memory: &Mapping, rounds: u64, more: u64) {
        let mut left = rounds;
        let done = || {
            left = left.wrapping_sub(1);
            left == u64::MAX
        };
        stripes.write(memory, done).unwrap();
        for _ in 0..more {
            let (at, step) = (stripes.offset(stripes.steps % stripes.words), stripes.steps + 1);
            memory.store_u64(at, stripes.number(step)).unwrap();
            stripes.steps = step;
        }
    }

    #[test]
    fn stripes_cover_the_region_once() {
        for writers in [1, 3, 4] {
            let mut owners = vec![0; BYTES / WORD_BYTES];
            for writer in 0..writers {
                let stripes = Stripes::new(writer, writers, BYTES).unwrap();
                (0..stripes.words).for_each(|word| owners[stripes.offset(word) / WORD_BYTES] += 1);
            }
            assert!(owners.iter().all(|&count| count == 1), "{writers} writers");
        }
        assert!(Stripes::new(4, 4, BYTES).is_err());
        assert!(Stripes::new(1, 2, LINE_BYTES).is_err());
    }

    #[test]
    fn what_was_written_is_whole_at_every_point_of_a_round() {
        let memory = memory();
        let mut all: Vec<_> = (0..3).map(|writer| Stripes::new(writer, 3, BYTES).unwrap()).collect();
        for (rounds, more) in [(0, 0), (0, 5), (1, 0), (2, 17), (1, 0)] {
            for stripes in &mut all {
                advance(stripes, &memory, rounds, more);
            }
            for stripes in &all {
                let found = stripes.verify(&memory).unwrap();
                assert_eq!(found, Found { whole: stripes.words, ..Found::default() });
            }
        }
    }

    #[test]
    fn a_lost_write_and_a_torn_one_are_told_apart() {
        let memory = memory();
        let mut stripes = Stripes::new(1, 2, BYTES).unwrap();
        advance(&mut stripes, &memory, 2, 3);
        let words = stripes.words;
        let (first, third) = (stripes.offset(0), stripes.offset(3));
        let expect = |lost, torn| {
            let found = stripes.verify(&memory).unwrap();
            assert_eq!(found, Found { whole: words - lost - torn, lost, torn });
        };
        let (last, before) = (stripes.number(2 * words + 1), stripes.number(words + 1));
        assert_eq!(memory.load_u64(first).unwrap(), last);
        expect(0, 0);
        memory.store_u64(first, before).unwrap();
        expect(1, 0);
        memory.store_u64(first, 0).unwrap(); // a fresh page in its place
        expect(1, 0);
        memory.store_u64(first, last & 0xffff_ffff | before & !0xffff_ffff).unwrap();
        expect(0, 1);
        memory.store_u64(first, last).unwrap();
        // A number of this writer's in a word where it does not belong, or from the future.
        memory.store_u64(third, before).unwrap();
        expect(0, 1);
        memory.store_u64(third, stripes.number(3 * words + 4)).unwrap();
        expect(0, 1);
        // Another writer's.
        memory.store_u64(third, Stripes::new(0, 2, BYTES).unwrap().number(4)).unwrap();
        expect(0, 1);
    }
}
