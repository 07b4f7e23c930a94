//! A bounded reader and a canonical writer for the few shapes of protobuf that tokens use.
//!
//! The reader borrows everything and allocates nothing: a length that lies is found by comparing it with what is
//! left, never by asking for that much memory. The writer produces the one canonical encoding: the gate writes what
//! it has read and compares, so that reordered or repeated fields and over-long integers need no rule of their own.

use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};

/// Wire type of an integer.
pub(super) const VARINT: u8 = 0;
/// Wire type of a length and that many bytes.
pub(super) const LENGTH: u8 = 2;

/// Most bytes of a 64-bit integer in protobuf: 7 bits a byte.
const VARINT_BYTES_MAX: usize = 10;

pub(super) const fn malformed(detail: &'static str) -> Error {
    Error::new(Code::TokenMalformed, detail)
}

pub(super) const fn noncanonical(detail: &'static str) -> Error {
    Error::new(Code::TokenNoncanonical, detail)
}

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and wire type; `None` at the end of the message.
    pub(super) fn field(&mut self) -> Result<Option<(u64, u8)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        Ok(Some((tag >> 3, (tag & 7) as u8)))
    }

    /// An integer of at most 64 bits.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(malformed("an integer has more than 64 bits"));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(malformed("an integer does not end"))
    }

    /// An integer of at most 32 bits. The library would cut a longer one, so that it reads another number than we.
    pub(super) fn varint32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| noncanonical("an integer is longer than its field"))
    }

    /// A length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        let bytes = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((bytes, rest)) = bytes else {
            return Err(malformed("a length points past the end"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// The same, as a message of its own.
    pub(super) fn message(&mut self) -> Result<Self> {
        self.bytes().map(Self::new)
    }
}

/// What a field that is known must be; anything else about a field is in the caller's `match`.
pub(super) fn wants(wire: u8, wanted: u8) -> Result<()> {
    if wire == wanted { Ok(()) } else { Err(malformed("a field has the wrong wire type")) }
}

/// The refusal of a field that the format does not have.
pub(super) const fn unknown_field() -> Error {
    noncanonical("a field that the format does not have")
}

/// Bytes of an integer.
const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Builds canonical protobuf: minimal integers, fields in the order of the calls.
///
/// What it writes may end with a token's secret, so the buffer erases itself. That only helps while it is not moved to
/// make room: ask for enough, where a secret is written.
#[derive(Default)]
pub(super) struct Writer {
    buffer: Zeroizing<Vec<u8>>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { buffer: Zeroizing::new(Vec::with_capacity(bytes)) }
    }

    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.buffer
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    pub(super) fn varint(&mut self, field: u64, value: u64) {
        self.raw_varint(field << 3 | u64::from(VARINT));
        self.raw_varint(value);
    }

    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.raw_varint(field << 3 | u64::from(LENGTH));
        self.raw_varint(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }

    /// A nested message. Its length is put in afterwards: most messages are shorter than 128 bytes, whose length is
    /// the one byte that was left for it.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.raw_varint(field << 3 | u64::from(LENGTH));
        self.buffer.push(0);
        let start = self.buffer.len();
        write(self);
        let length = self.buffer.len() - start;
        if length < 0x80 {
            self.buffer[start - 1] = length as u8;
        } else {
            // Moved within the buffer: a copy elsewhere would not be erased.
            let more = varint_bytes(length as u64) - 1;
            self.buffer.resize(start + length + more, 0);
            self.buffer.copy_within(start..start + length, start + more);
            let mut rest = length;
            for byte in &mut self.buffer[start - 1..start + more] {
                *byte = rest as u8 | 0x80;
                rest >>= 7;
            }
            self.buffer[start + more - 1] &= 0x7f;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lying_length_is_refused_without_memory() {
        for length in [5u64, 1 << 31, 1 << 63, u64::MAX] {
            let mut writer = Writer::default();
            writer.raw_varint(length);
            writer.buffer.extend_from_slice(b"four");
            let error = Reader::new(&writer.buffer).bytes().unwrap_err();
            assert_eq!(error.code(), Code::TokenMalformed);
        }
    }

    #[test]
    fn integers_of_more_than_64_bits_are_refused() {
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[0xff; 9]).varint().is_err());
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(Reader::new(&largest).varint().unwrap(), u64::MAX);
        largest[9] = 2;
        assert!(Reader::new(&largest).varint().is_err());
    }

    #[test]
    fn a_writer_with_enough_room_is_never_moved() {
        let mut writer = Writer::with_capacity(1 << 16);
        let place = writer.buffer.as_ptr();
        let lengths: &[usize] =
            if cfg!(miri) { &[0, 1, 127, 128] } else { &[0, 1, 127, 128, 16_383, 16_384] };
        for &length in lengths {
            writer.message(4, |inner| inner.bytes(1, &vec![7; length]));
        }
        assert_eq!(writer.into_bytes().as_ptr(), place);
    }

    /// Beyond a length of two bytes; what interprets every step gets to one of them.
    const BYTES_MAX: usize = if cfg!(miri) { 200 } else { 20_000 };

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64, bytes in proptest::collection::vec(any::<u8>(), 0..BYTES_MAX)) {
            let mut writer = Writer::default();
            writer.message(3, |inner| {
                inner.varint(1, value);
                inner.bytes(2, &bytes);
            });
            let mut reader = Reader::new(&writer.buffer);
            prop_assert_eq!(reader.field().unwrap(), Some((3, LENGTH)));
            let mut inner = reader.message().unwrap();
            prop_assert_eq!(reader.field().unwrap(), None);
            prop_assert_eq!(inner.field().unwrap(), Some((1, VARINT)));
            prop_assert_eq!(inner.varint().unwrap(), value);
            prop_assert_eq!(inner.field().unwrap(), Some((2, LENGTH)));
            prop_assert_eq!(inner.bytes().unwrap(), &bytes[..]);
            prop_assert_eq!(inner.field().unwrap(), None);
        }
    }
}
