//! How large a lane is and where it lies.

use caps::error::{Code, Error, Result};

use crate::sync::Mapped;
use crate::sync::limits::{LINE_BYTES, RING_BYTES_MAX, RING_BYTES_MIN, RING_MESSAGE_BYTES_MAX};
use crate::sync::word::{Word, check_range};

/// Bytes of the part that the receiver writes: two words, each on its own cache line.
pub const TAKEN_BYTES: usize = 2 * LINE_BYTES;
/// Bytes of the words before the messages in the part that the sender writes.
const SENT_WORDS_BYTES: usize = 2 * LINE_BYTES;
/// Bytes of a message's header.
const HEADER_BYTES: usize = size_of::<u64>();

/// What both ends agree on: how many bytes are under way at most, and how long a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    capacity: usize,
    message_bytes_max: usize,
}

impl Shape {
    /// A ring of `capacity` bytes, a power of two from 64 to 1 GiB, for messages of at most `message_bytes_max` bytes, which is
    /// at most 64 KiB and 8 less than the capacity. A message takes 8 bytes and its own length, rounded up to
    /// a multiple of 8.
    ///
    /// # Errors
    /// `E_RANGE`.
    pub const fn new(capacity: usize, message_bytes_max: usize) -> Result<Self> {
        if !capacity.is_power_of_two() || capacity < RING_BYTES_MIN || capacity > RING_BYTES_MAX {
            return Err(Error::new(Code::Range, "a ring has a power of two of bytes, 64 to 1 GiB"));
        }
        if message_bytes_max > RING_MESSAGE_BYTES_MAX || message_bytes_max > capacity - HEADER_BYTES {
            return Err(Error::new(
                Code::Range,
                "a message has at most 64 KiB, and fits its ring with 8 bytes more",
            ));
        }
        Ok(Self { capacity, message_bytes_max })
    }

    /// Bytes of the part that the sender writes.
    #[must_use]
    pub const fn sent_bytes(self) -> usize {
        SENT_WORDS_BYTES + self.capacity
    }

    /// Bytes of a lane with both parts, side by side: a multiple of 64.
    #[must_use]
    pub const fn lane_bytes(self) -> usize {
        self.sent_bytes() + TAKEN_BYTES
    }

    /// Longest message in bytes.
    #[must_use]
    pub const fn message_bytes_max(self) -> usize {
        self.message_bytes_max
    }

    pub(super) const fn capacity(self) -> u64 {
        self.capacity as u64
    }

    /// What a message of that many bytes takes in the ring. At most the capacity for one that is allowed: both terms
    /// of the bound in [`Shape::new`] are multiples of 8.
    pub(super) const fn taken_by(length: usize) -> u64 {
        (HEADER_BYTES + length.next_multiple_of(8)) as u64
    }
}

/// Where a part of a lane lies: `offset` bytes into a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Place<M> {
    /// The memory.
    pub memory: M,
    /// Bytes from its start, a multiple of 64.
    pub offset: usize,
}

impl<M: Mapped> Place<M> {
    pub(super) fn check(&self, bytes: usize) -> Result<()> {
        check_range(self.memory.mapping(), self.offset, bytes)
    }

    /// The word that counts: `tail` or `head`.
    pub(super) fn position(&self) -> Word<'_> {
        Word::new(self.memory.mapping(), self.offset)
    }

    /// The word that says that this part's writer sleeps.
    pub(super) fn waits(&self) -> Word<'_> {
        Word::new(self.memory.mapping(), self.offset + LINE_BYTES)
    }

    /// Where the byte of a position lies in the mapping, in the part that the sender writes.
    fn at(&self, position: u64, shape: Shape) -> usize {
        // Lossless: less than the capacity. That is a power of two, so nothing jumps where positions wrap.
        self.offset + SENT_WORDS_BYTES + (position % shape.capacity()) as usize
    }

    /// The header of the message at `position`, a multiple of 8, so that the word never lies across the end.
    pub(super) fn header(&self, position: u64, shape: Shape) -> Word<'_> {
        Word::new(self.memory.mapping(), self.at(position, shape))
    }

    /// Splits `length` bytes of the message at `position` where the ring ends.
    ///
    /// Returns where the first piece lies and how long it is; the second one begins at the ring's start.
    fn pieces(&self, position: u64, length: usize, shape: Shape) -> (usize, usize, usize) {
        let body = position.wrapping_add(HEADER_BYTES as u64);
        let to_end = (shape.capacity() - body % shape.capacity()) as usize;
        (self.at(body, shape), length.min(to_end), self.at(0, shape))
    }

    /// Copies a message's bytes in.
    pub(super) fn write(&self, position: u64, bytes: &[u8], shape: Shape) -> Result<()> {
        let (first, split, start) = self.pieces(position, bytes.len(), shape);
        let mapping = self.memory.mapping();
        mapping.write_at(first, &bytes[..split])?;
        mapping.write_at(start, &bytes[split..])
    }

    /// Copies a message's bytes out.
    pub(super) fn read(&self, position: u64, bytes: &mut [u8], shape: Shape) -> Result<()> {
        let (first, split, start) = self.pieces(position, bytes.len(), shape);
        let mapping = self.memory.mapping();
        mapping.read_at(first, &mut bytes[..split])?;
        mapping.read_at(start, &mut bytes[split..])
    }
}

/// Where both parts of a lane lie.
#[derive(Clone, Copy, Debug)]
pub struct Lane<M> {
    /// What the sender writes: [`Shape::sent_bytes`].
    pub sent: Place<M>,
    /// What the receiver writes: [`TAKEN_BYTES`].
    pub taken: Place<M>,
}

impl<M: Mapped + Clone> Lane<M> {
    /// A lane whose parts lie side by side from `offset` on, [`Shape::lane_bytes`] in all. Then both ends may write to all of it.
    pub fn in_one(memory: M, offset: usize, shape: Shape) -> Self {
        // An offset near the end of all numbers is refused when an end is made.
        let after = offset.saturating_add(shape.sent_bytes());
        Self { sent: Place { memory: memory.clone(), offset }, taken: Place { memory, offset: after } }
    }
}

impl<M: Mapped> Lane<M> {
    pub(super) fn check(&self, shape: Shape) -> Result<()> {
        self.sent.check(shape.sent_bytes())?;
        self.taken.check(TAKEN_BYTES)
    }
}

/// Whether `head` and `tail` can be those of a lane: whole words, and no more between them than fits.
pub(super) const fn plausible(head: u64, tail: u64, shape: Shape) -> bool {
    head.is_multiple_of(8) && tail.is_multiple_of(8) && tail.wrapping_sub(head) <= shape.capacity()
}

/// The one answer to a peer that writes what no sender or receiver would.
pub(super) const BROKEN: Error = Error::new(Code::Protocol, "the lane holds what no honest peer writes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_bounds() {
        for (capacity, message) in
            [(0, 0), (32, 8), (63, 8), (96, 8), (64, 57), (1 << 20, (64 << 10) + 1), (2 << 30, 8)]
        {
            assert_eq!(
                Shape::new(capacity, message).unwrap_err().code(),
                Code::Range,
                "{capacity} {message}"
            );
        }
        for (capacity, message) in [(64, 56), (64, 0), (1 << 17, 64 << 10), (1 << 30, 64 << 10)] {
            let shape = Shape::new(capacity, message).unwrap();
            assert!(Shape::taken_by(message) <= shape.capacity());
            assert!(shape.lane_bytes().is_multiple_of(LINE_BYTES));
        }
    }
}
