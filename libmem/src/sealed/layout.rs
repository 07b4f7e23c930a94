//! Where a logical byte is. Arithmetic alone: no bytes, no keys, no I/O.
//!
//! ```text
//! physical   │ block 0: 4,096 bytes              │ block 1                           │ ...
//!            │ nonce 12 │ ciphertext 4,068 │ tag 16 │ nonce │ ciphertext │ tag             │
//! logical               │ bytes 0..4,068   │                │ 4,068..8,136 │
//! ```
//!
//! Blocks are counted from the region's start, however narrow the right is, so that all who share a lease give a byte
//! the same number. A right reaches the blocks that lie wholly within its range.

use std::ops::Range;

use caps::error::{Code, Error, Result};
use caps::range::ByteRange;

/// Bytes of a block in the region. A page: regions are whole pages, so that every byte of them is in a block, and a block
/// never lies across two segments. Larger ones would make small writes dearer, as a block is written whole.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of the nonce before the ciphertext: what AES-GCM-SIV takes.
pub(super) const NONCE_BYTES: usize = 12;
/// Bytes of the tag behind it.
pub(super) const TAG_BYTES: usize = 16;
/// Bytes of a block that are the caller's.
pub const PAYLOAD_BYTES: u64 = BLOCK_BYTES - (NONCE_BYTES + TAG_BYTES) as u64;

/// As a length in memory.
pub(super) const BLOCK: usize = BLOCK_BYTES as usize;
/// As a length in memory.
pub(super) const PAYLOAD: usize = PAYLOAD_BYTES as usize;
/// Where the ciphertext lies in a block.
pub(super) const PAYLOAD_IN_BLOCK: Range<usize> = NONCE_BYTES..NONCE_BYTES + PAYLOAD;

const _: () =
    assert!(PAYLOAD_IN_BLOCK.end + TAG_BYTES == BLOCK, "a block is nonce, ciphertext and tag, and no more");

/// How many bytes of one's own fit into a region of so many bytes. A last block that is not whole is not used.
#[must_use]
pub const fn logical_bytes(physical: u64) -> u64 {
    physical / BLOCK_BYTES * PAYLOAD_BYTES
}

/// How long a region must be for so many bytes of one's own: whole blocks. `None` if no region is so long.
#[must_use]
pub const fn physical_bytes(logical: u64) -> Option<u64> {
    match logical.div_ceil(PAYLOAD_BYTES).checked_mul(BLOCK_BYTES) {
        Some(physical) if physical <= ByteRange::END_MAX => Some(physical),
        _ => None,
    }
}

/// The blocks that a right reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    first: u64,
    /// One past the last.
    end: u64,
}

impl Reach {
    /// The blocks that lie wholly in `range`.
    ///
    /// # Errors
    /// `E_RANGE` if none does.
    pub(super) fn of(range: ByteRange) -> Result<Self> {
        let (first, end) = (range.start().div_ceil(BLOCK_BYTES), range.end() / BLOCK_BYTES);
        if first < end {
            return Ok(Self { first, end });
        }
        Err(Error::with(
            Code::Range,
            format!("the right's range {range} holds no whole block of {BLOCK_BYTES} bytes"),
        ))
    }

    /// The blocks.
    pub(super) const fn blocks(self) -> Range<u64> {
        self.first..self.end
    }

    /// The logical bytes in them. No block is past `i64::MAX / 4096`, so nothing here wraps.
    pub(super) const fn logical(self) -> Range<u64> {
        self.first * PAYLOAD_BYTES..self.end * PAYLOAD_BYTES
    }

    /// Splits `length` logical bytes from `offset` into the parts that lie in one block each, in order.
    ///
    /// # Errors
    /// `E_RANGE` if they are not all in reach.
    pub(super) fn parts(self, offset: u64, length: usize) -> Result<impl Iterator<Item = Part> + Clone> {
        let Range { start, end } = self.logical();
        let stop = offset.checked_add(length as u64).filter(|&stop| start <= offset && stop <= end);
        let Some(stop) = stop else {
            let message = format!("the right reaches the bytes {start}..{end} of the sealed region");
            return Err(Error::with(Code::Range, message));
        };
        let blocks = if length == 0 { 0..0 } else { offset / PAYLOAD_BYTES..stop.div_ceil(PAYLOAD_BYTES) };
        Ok(blocks.map(move |block| {
            let begin = block * PAYLOAD_BYTES;
            let (from, to) = (offset.max(begin), stop.min(begin + PAYLOAD_BYTES));
            // All three differences are at most the length of a buffer or of a block.
            let within = (from - begin) as usize..(to - begin) as usize;
            Part { block, within, place: (from - offset) as usize..(to - offset) as usize }
        }))
    }
}

/// The bytes of one block that a read or a write touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which block of the region.
    pub(super) block: u64,
    /// Where in its payload; never empty.
    pub(super) within: Range<usize>,
    /// Where in the caller's buffer, equally long.
    pub(super) place: Range<usize>,
}

impl Part {
    /// Whether it is all of the block.
    pub(super) fn is_whole(&self) -> bool {
        self.within == (0..PAYLOAD)
    }
}

/// Where a block begins in the region.
pub(super) const fn physical(block: u64) -> u64 {
    block * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn lengths_are_those_of_the_picture() {
        assert_eq!((PAYLOAD_BYTES, logical_bytes(4095), logical_bytes(4096)), (4068, 0, 4068));
        assert_eq!(logical_bytes(3 * 4096 + 17), 3 * 4068);
        assert_eq!(physical_bytes(0), Some(0));
        assert_eq!(physical_bytes(1), Some(4096));
        assert_eq!(physical_bytes(4068), Some(4096));
        assert_eq!(physical_bytes(4069), Some(8192));
        assert_eq!(physical_bytes(u64::MAX), None);
    }

    #[test]
    fn a_right_reaches_whole_blocks_alone() {
        assert_eq!(Reach::of(range(0, 8192)).unwrap().logical(), 0..8136);
        assert_eq!(Reach::of(range(1, 8192)).unwrap().logical(), 4068..8136);
        assert_eq!(Reach::of(range(4096, 12_287)).unwrap().blocks(), 1..2);
        for (start, end) in [(0, 4095), (1, 4096), (4095, 8191), (1, 8191)] {
            assert_eq!(Reach::of(range(start, end)).unwrap_err().code(), Code::Range, "{start}..{end}");
        }
        let all = Reach::of(range(0, ByteRange::END_MAX)).unwrap();
        assert!(all.logical().end < ByteRange::END_MAX);
    }

    #[test]
    fn bytes_out_of_reach_are_refused_and_none_are_nothing() {
        let reach = Reach::of(range(4096, 12_288)).unwrap();
        for (offset, length) in
            [(4067, 1), (4067, 2), (12_204, 1), (4068, 8137), (u64::MAX, 1), (u64::MAX, 0), (0, 0)]
        {
            assert_eq!(reach.parts(offset, length).err().unwrap().code(), Code::Range, "{offset} {length}");
        }
        for offset in [4068, 5000, 12_204] {
            assert_eq!(reach.parts(offset, 0).unwrap().count(), 0);
        }
    }

    proptest! {
        #[test]
        fn what_fits_fits_back(logical in 0..=ByteRange::END_MAX / 2) {
            let physical = physical_bytes(logical).unwrap();
            prop_assert!(logical_bytes(physical) >= logical);
            prop_assert!(physical == 0 || logical_bytes(physical - BLOCK_BYTES) < logical);
            prop_assert_eq!(physical % BLOCK_BYTES, 0);
        }

        #[test]
        fn a_reach_is_all_whole_blocks_of_the_range(start in 0..100_000u64, length in 1..100_000u64) {
            let whole: Vec<u64> = (0..60)
                .filter(|block| start <= block * BLOCK_BYTES && (block + 1) * BLOCK_BYTES <= start + length)
                .collect();
            match Reach::of(range(start, start + length)) {
                Ok(reach) => prop_assert_eq!(reach.blocks().collect::<Vec<_>>(), whole),
                Err(_) => prop_assert!(whole.is_empty()),
            }
        }

        #[test]
        fn parts_cover_every_byte_once_and_in_order(skip in 0..20_000u64, length in 1..30_000usize, first in 0..9u64) {
            let start = first * BLOCK_BYTES;
            let reach = Reach::of(range(start, start + 20 * BLOCK_BYTES)).unwrap();
            let offset = first * PAYLOAD_BYTES + skip;
            let mut next = 0;
            for part in reach.parts(offset, length).unwrap() {
                prop_assert_eq!(part.place.start, next);
                prop_assert_eq!(part.place.len(), part.within.len());
                prop_assert!(!part.within.is_empty() && part.within.end <= PAYLOAD);
                // The byte that the block holds there is the byte that was meant.
                prop_assert_eq!(part.block * PAYLOAD_BYTES + part.within.start as u64, offset + next as u64);
                prop_assert!(reach.blocks().contains(&part.block));
                prop_assert_eq!(part.is_whole(), part.within.len() == PAYLOAD);
                next = part.place.end;
            }
            prop_assert_eq!(next, length);
        }
    }
}
