//! Sealed memory: reads and writes of any length, block by block in batches.

use std::ops::{ControlFlow, Range};

use caps::error::{Code, Result};
use zeroize::Zeroizing;

use super::bytes::Bytes;
use super::cipher::Cipher;
use super::key::DataKey;
use super::layout::{BLOCK, PAYLOAD_IN_BLOCK, Part, Reach, physical};
use crate::snapshot::Progress;

/// Bytes of the memory that are read or written at a time, and so about all that a read or a write takes in this
/// process: large enough that requests do not count, small enough that a revoke is noticed soon.
pub const IO_BYTES: usize = 1 << 20;
/// Blocks in them.
const IO_BLOCKS: usize = IO_BYTES / BLOCK;
/// How often a block is read that does not authenticate. Who reads while somebody writes the block sees a part of the old
/// and a part of the new one; a moment later it is whole. One that was tampered with costs this many reads.
pub const READ_TRIES: usize = 4;

const _: () = assert!(IO_BYTES.is_multiple_of(BLOCK) && IO_BLOCKS > 0);

/// Memory whose bytes are sealed under a [`DataKey`]: see [`crate::sealed`] for what that answers and what it does not.
///
/// Offsets count the caller's own bytes from the region's start, of which every block holds
/// [`PAYLOAD_BYTES`](super::PAYLOAD_BYTES). It can be shared between threads as the memory in it can.
pub struct Sealed<M> {
    memory: M,
    cipher: Cipher,
    reach: Reach,
}

impl<M: Bytes> Sealed<M> {
    /// Over memory that belongs to the key's lease. Nothing is read yet: another lease's key shows at the first access.
    ///
    /// # Errors
    /// `E_RANGE` if the right reaches no whole block.
    pub fn new(memory: M, key: &DataKey) -> Result<Self> {
        let reach = Reach::of(memory.range())?;
        Ok(Self { memory, cipher: Cipher::new(key)?, reach })
    }

    /// Which of the caller's bytes the right reaches, counted from the region's start.
    pub const fn range(&self) -> Range<u64> {
        self.reach.logical()
    }

    /// How many.
    #[allow(clippy::len_without_is_empty)] // there is a whole block at least
    pub const fn len(&self) -> u64 {
        let Range { start, end } = self.range();
        end - start
    }

    /// The memory itself, with its sealed blocks.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Fills every block in reach with sealed zeros. Before this nothing can be read, and no block can be written in part.
    ///
    /// # Errors
    /// Those of the memory's writes. Some first blocks may be written.
    pub fn format(&self) -> Result<()> {
        self.format_with(|_, _| ControlFlow::Continue(())).map(|_| ())
    }

    /// As [`Self::format`]. `progress` is told after each batch how many bytes of the memory are done and of how many, and
    /// can stop it: then the answer is `Break`.
    ///
    /// # Errors
    /// As [`Self::format`].
    pub fn format_with(&self, mut progress: impl Progress) -> Result<ControlFlow<()>> {
        let Range { start, end } = self.reach.blocks();
        let mut buffer = Batch::of(end - start);
        let mut next = start;
        while next < end {
            let blocks = buffer.blocks(usize::try_from(end - next).unwrap_or(IO_BLOCKS).min(IO_BLOCKS));
            let first = next;
            for block in &mut *blocks {
                block.fill(0);
                self.cipher.seal(next, block)?;
                next += 1;
            }
            self.memory.write_at(physical(first), blocks.as_flattened())?;
            if progress(physical(next - start), physical(end - start)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `E_SEAL` if a block is not what somebody with the key wrote to this place, or was never formatted; `E_RANGE` outside
    /// of [`Self::range`]; those of the memory's reads. Some first part of `buffer` may be filled, with bytes that did
    /// authenticate.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut parts = self.reach.parts(offset, buffer.len())?;
        let mut batch = Batch::of(parts.clone().count() as u64);
        while let Some(first) = parts.next() {
            let now: Vec<Part> = std::iter::once(first).chain(parts.by_ref().take(IO_BLOCKS - 1)).collect();
            let blocks = batch.blocks(now.len());
            self.memory.read_at(physical(now[0].block), blocks.as_flattened_mut())?;
            for (part, block) in now.into_iter().zip(blocks) {
                self.open(part.block, block)?;
                buffer[part.place].copy_from_slice(&block[PAYLOAD_IN_BLOCK][part.within]);
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` to `offset` and on. A block of which only a part is written is read first.
    ///
    /// # Errors
    /// `E_SEAL` if such a block does not authenticate: write it whole, or format; `E_DENIED` if such a block may not be
    /// read; `E_RANGE` outside of [`Self::range`]; those of the memory's writes. Some first part may be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut parts = self.reach.parts(offset, bytes.len())?;
        let mut batch = Batch::of(parts.clone().count() as u64);
        while let Some(first) = parts.next() {
            let now: Vec<Part> = std::iter::once(first).chain(parts.by_ref().take(IO_BLOCKS - 1)).collect();
            let (begin, blocks) = (now[0].block, batch.blocks(now.len()));
            for (part, block) in now.into_iter().zip(&mut *blocks) {
                if !part.is_whole() {
                    self.memory.read_at(physical(part.block), block)?;
                    self.open(part.block, block)?;
                }
                block[PAYLOAD_IN_BLOCK][part.within].copy_from_slice(&bytes[part.place]);
                self.cipher.seal(part.block, block)?;
            }
            self.memory.write_at(physical(begin), blocks.as_flattened())?;
        }
        Ok(())
    }

    /// Opens a block that was read, and reads it again a few times where somebody may be writing it.
    fn open(&self, number: u64, block: &mut [u8; BLOCK]) -> Result<()> {
        for _ in 1..READ_TRIES {
            match self.cipher.open(number, block) {
                Err(error) if error.code() == Code::Seal => {
                    std::thread::yield_now(); // who writes may be waiting for this processor
                    self.memory.read_at(physical(number), block)?;
                }
                done => return done,
            }
        }
        self.cipher.open(number, block)
    }
}

/// Blocks of plaintext on their way, wiped when they are dropped.
struct Batch(Zeroizing<Vec<[u8; BLOCK]>>);

impl Batch {
    /// Room for so many blocks, or for as many as are moved at a time.
    fn of(blocks: u64) -> Self {
        let blocks = usize::try_from(blocks).unwrap_or(IO_BLOCKS).min(IO_BLOCKS);
        Self(Zeroizing::new(vec![[0; BLOCK]; blocks]))
    }

    fn blocks(&mut self, count: usize) -> &mut [[u8; BLOCK]] {
        &mut self.0[..count]
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use caps::error::Error;
    use caps::id::LeaseId;
    use caps::range::ByteRange;
    use proptest::prelude::*;

    use super::*;
    use crate::sealed::layout::{PAYLOAD, PAYLOAD_BYTES};

    const LEASE: LeaseId = LeaseId([7; 16]);

    /// Memory of this process, as a right that reaches `range` of a region.
    struct Plain {
        range: ByteRange,
        bytes: RefCell<Vec<u8>>,
        reads: Cell<usize>,
        /// Whether the next read meets a writer in the middle.
        torn: Cell<bool>,
    }

    impl Plain {
        fn of(start: u64, length: u64) -> Self {
            Self {
                range: ByteRange::at(start, length).unwrap(),
                bytes: RefCell::new(vec![0; length as usize]),
                reads: Cell::new(0),
                torn: Cell::new(false),
            }
        }

        fn place(&self, offset: u64, length: usize) -> Result<Range<usize>> {
            if offset < self.range.start() || offset + length as u64 > self.range.end() {
                return Err(Error::new(Code::Range, "outside"));
            }
            let start = (offset - self.range.start()) as usize;
            Ok(start..start + length)
        }
    }

    impl Bytes for Plain {
        fn range(&self) -> ByteRange {
            self.range
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            self.reads.set(self.reads.get() + 1);
            buffer.copy_from_slice(&self.bytes.borrow()[self.place(offset, buffer.len())?]);
            if self.torn.take() {
                buffer[100] ^= 1;
            }
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
            let place = self.place(offset, bytes.len())?;
            self.bytes.borrow_mut()[place].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn formatted(start: u64, length: u64) -> (DataKey, Sealed<Plain>) {
        let key = DataKey::generate(LEASE);
        let memory = Sealed::new(Plain::of(start, length), &key).unwrap();
        memory.format().unwrap();
        (key, memory)
    }

    fn read(memory: &Sealed<impl Bytes>, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0xee; length];
        memory.read_at(offset, &mut bytes).map(|()| bytes)
    }

    fn seal_broken<T: std::fmt::Debug>(result: Result<T>) {
        assert_eq!(result.unwrap_err().code(), Code::Seal);
    }

    #[test]
    fn formatted_memory_is_zeros_and_unformatted_memory_is_nothing() {
        let (_, memory) = formatted(0, 4 * 4096);
        assert_eq!((memory.range(), memory.len()), (0..4 * PAYLOAD_BYTES, 4 * PAYLOAD_BYTES));
        assert_eq!(read(&memory, 0, 4 * PAYLOAD).unwrap(), vec![0; 4 * PAYLOAD]);
        assert!(memory.memory().bytes.borrow().chunks(16).all(|chunk| chunk.iter().any(|&byte| byte != 0)));

        let blank = Sealed::new(Plain::of(0, 8192), &DataKey::generate(LEASE)).unwrap();
        seal_broken(read(&blank, 0, 1));
        seal_broken(blank.write_at(5, b"a part"));
        blank.write_at(0, &[1; PAYLOAD]).unwrap(); // a whole block needs nothing to be there
        assert_eq!(read(&blank, 0, PAYLOAD).unwrap(), [1; PAYLOAD]);
        seal_broken(read(&blank, 0, PAYLOAD + 1));
    }

    #[test]
    fn nothing_that_is_written_is_in_the_memory() {
        let (_, memory) = formatted(0, 4 * 4096);
        memory.write_at(4000, &b"SECRET!!".repeat(700)).unwrap();
        let stored = memory.memory().bytes.borrow();
        assert!(!stored.windows(8).any(|window| b"SECRET!!SECRET!".windows(8).any(|part| part == window)));
    }

    #[test]
    fn blocks_that_were_moved_swapped_zeroed_cut_or_flipped_are_refused() {
        let (_, memory) = formatted(0, 4 * 4096);
        memory.write_at(0, &[b'a'; 4 * PAYLOAD]).unwrap();
        let good = memory.memory().bytes.borrow().clone();
        let broken = |change: &dyn Fn(&mut [u8]), bad: &[u64]| {
            let mut bytes = good.clone();
            change(&mut bytes);
            *memory.memory().bytes.borrow_mut() = bytes;
            for block in 0..4 {
                let found = read(&memory, block * PAYLOAD_BYTES, PAYLOAD);
                if bad.contains(&block) {
                    seal_broken(found);
                    seal_broken(memory.write_at(block * PAYLOAD_BYTES + 1, b"a part"));
                } else {
                    assert_eq!(found.unwrap(), [b'a'; PAYLOAD], "block {block}");
                }
            }
        };
        broken(&|_| (), &[]);
        broken(&|bytes| bytes.copy_within(0..4096, 8192), &[2]);
        broken(
            &|bytes| {
                let (one, two) = bytes.split_at_mut(4096);
                one.swap_with_slice(&mut two[..4096]);
            },
            &[0, 1],
        );
        broken(&|bytes| bytes[4096..8192].fill(0), &[1]);
        broken(&|bytes| bytes[16_000..].fill(0), &[3]);
        broken(&|bytes| bytes[9000] ^= 0x80, &[2]);
        // And a write of the whole block repairs it.
        memory.write_at(2 * PAYLOAD_BYTES, &[b'b'; PAYLOAD]).unwrap();
        assert_eq!(read(&memory, 2 * PAYLOAD_BYTES, PAYLOAD).unwrap(), [b'b'; PAYLOAD]);
    }

    #[test]
    fn an_older_block_in_its_place_is_not_found_out() {
        // Said in the module's documentation. If this ever fails, that has to be said anew.
        let (_, memory) = formatted(0, 8192);
        memory.write_at(0, b"old").unwrap();
        let old = memory.memory().bytes.borrow()[..4096].to_vec();
        memory.write_at(0, b"new").unwrap();
        memory.memory().bytes.borrow_mut()[..4096].copy_from_slice(&old);
        assert_eq!(read(&memory, 0, 3).unwrap(), b"old");
    }

    #[test]
    fn who_meets_a_writer_looks_again_and_not_for_ever() {
        let (_, memory) = formatted(0, 8192);
        memory.write_at(0, b"whole").unwrap();
        memory.memory().torn.set(true);
        assert_eq!(read(&memory, 0, 5).unwrap(), b"whole");
        memory.memory().torn.set(true);
        memory.write_at(1, b"H").unwrap();
        assert_eq!(read(&memory, 0, 5).unwrap(), b"wHole");
        memory.memory().bytes.borrow_mut()[100] ^= 1;
        memory.memory().reads.set(0);
        seal_broken(read(&memory, 0, 5));
        assert_eq!(memory.memory().reads.get(), READ_TRIES);
    }

    #[test]
    fn another_key_reads_nothing_and_breaks_nothing_by_a_part() {
        let (key, memory) = formatted(0, 8192);
        memory.write_at(0, b"hers").unwrap();
        let other = Sealed::new(memory.memory(), &DataKey::generate(LEASE)).unwrap();
        seal_broken(read(&other, 0, 4));
        seal_broken(other.write_at(0, b"his"));
        let same = Sealed::new(memory.memory(), &DataKey::of(LEASE, key.secret()).unwrap()).unwrap();
        assert_eq!(read(&same, 0, 4).unwrap(), b"hers");
    }

    #[test]
    fn a_right_to_a_part_reaches_its_blocks_under_the_same_numbers() {
        let (key, whole) = formatted(0, 8 * 4096);
        whole.write_at(0, &(0..8 * PAYLOAD).map(|at| (at / 7) as u8).collect::<Vec<_>>()).unwrap();
        let part = Plain::of(4096 + 100, 4 * 4096);
        part.write_at(4196, &whole.memory().bytes.borrow()[4196..4196 + 4 * 4096]).unwrap();
        let part = Sealed::new(part, &key).unwrap();
        assert_eq!(part.range(), 2 * PAYLOAD_BYTES..5 * PAYLOAD_BYTES);
        let at = 2 * PAYLOAD_BYTES + 9;
        assert_eq!(read(&part, at, 5000).unwrap(), read(&whole, at, 5000).unwrap());
        assert_eq!(read(&part, 0, 1).unwrap_err().code(), Code::Range);
    }

    #[test]
    fn batches_are_joined_without_a_gap_and_a_format_can_be_stopped() {
        let blocks = 2 * IO_BLOCKS as u64 + 3;
        let (_, memory) = formatted(0, blocks * 4096);
        let bytes: Vec<u8> = (0..memory.len() - 11).map(|at| (at % 251) as u8).collect();
        memory.memory().reads.set(0);
        memory.write_at(5, &bytes).unwrap();
        assert_eq!(memory.memory().reads.get(), 2, "the first and the last block alone are read");
        assert!(read(&memory, 5, bytes.len()).unwrap() == bytes);
        assert_eq!(read(&memory, 0, 5).unwrap(), [0; 5]);

        let mut told = Vec::new();
        let stopped = memory.format_with(|done, total| {
            told.push((done, total));
            if told.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(stopped.unwrap().is_break());
        let total = blocks * 4096;
        assert_eq!(told, [(IO_BYTES as u64, total), (2 * IO_BYTES as u64, total)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_is_written_it_reads_like_plain_memory(
            start in 0..3u64,
            writes in prop::collection::vec((0..6 * PAYLOAD, prop::collection::vec(any::<u8>(), 0..9000)), 1..8),
        ) {
            let (_, memory) = formatted(start * 4096, 6 * 4096);
            let base = start * PAYLOAD_BYTES;
            let mut model = vec![0; 6 * PAYLOAD];
            for (at, bytes) in writes {
                let fits = at + bytes.len() <= model.len();
                let written = memory.write_at(base + at as u64, &bytes);
                prop_assert_eq!(written.is_ok(), fits);
                if fits {
                    model[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            prop_assert!(read(&memory, base, model.len()).unwrap() == model);
        }
    }
}
