//! The fixed parts of bodies.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Code, Error, Result};
use crate::id::SlotHandle;
use crate::limits::CHUNK_BYTES_MAX;

/// Bytes of one region: an open right, the first byte counted from the region's start, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Span {
    slot: U32,
    epoch: U32,
    offset: U64,
    length: U64,
}

impl Span {
    /// Bytes of a span on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// `length` bytes at `offset` of what `handle` opened.
    #[must_use]
    pub fn new(handle: SlotHandle, offset: u64, length: u64) -> Self {
        Self {
            slot: handle.slot.into(),
            epoch: handle.epoch.into(),
            offset: offset.into(),
            length: length.into(),
        }
    }

    /// The open right.
    #[must_use]
    pub fn handle(&self) -> SlotHandle {
        SlotHandle { slot: self.slot.get(), epoch: self.epoch.get() }
    }

    /// The first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset.get()
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length.get()
    }
}

/// What became of one item of a batch, or of a part of it; its bytes stand behind all pieces of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Piece {
    index: U32,
    code: U32,
    length: U64,
}

impl Piece {
    /// Bytes of a piece on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// `length` bytes of item `index`; `code` says why there are no more of them than that, `None` that all is well. Of a
    /// write that failed these are the bytes, from its first on, that are in the region for certain.
    #[must_use]
    pub fn new(index: u32, code: Option<Code>, length: u64) -> Self {
        let code = code.map_or(0, |code| u32::from(code as u16));
        Self { index: index.into(), code: code.into(), length: length.into() }
    }

    /// Which item, counted from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index.get()
    }

    /// How many bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length.get()
    }

    /// Why the item ended here, if it did not end well.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` for a number that is no code.
    pub fn code(&self) -> Result<Option<Code>> {
        code_of(self.code.get())
    }
}

/// A number on the wire as the code that it stands for; 0 stands for none.
///
/// # Errors
/// `E_FRAME_TYPE` for a number that is no code.
pub fn code_of(number: u32) -> Result<Option<Code>> {
    if number == 0 {
        return Ok(None);
    }
    let code = u16::try_from(number).ok().and_then(Code::from_number);
    code.map(Some).ok_or(Error::new(Code::FrameType, "the answer has a code that nobody knows"))
}

/// A word of 8 bytes at a multiple of 8, and what it is to become if it is what the client thinks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Swap {
    /// Where the word is; its length is 8.
    pub word: Span,
    expected: U64,
    desired: U64,
}

impl Swap {
    /// Bytes of a swap on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// `desired` for `expected` at `offset`.
    #[must_use]
    pub fn new(handle: SlotHandle, offset: u64, expected: u64, desired: u64) -> Self {
        Self {
            word: Span::new(handle, offset, WORD_BYTES),
            expected: expected.into(),
            desired: desired.into(),
        }
    }

    /// What the client thinks the word is.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.expected.get()
    }

    /// What it is to be.
    #[must_use]
    pub fn desired(&self) -> u64 {
        self.desired.get()
    }
}

/// A word of 8 bytes at a multiple of 8, and what is added to it, past 2^64 from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Add {
    /// Where the word is; its length is 8.
    pub word: Span,
    addend: U64,
}

impl Add {
    /// Bytes of an addition on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// `addend` to the word at `offset`.
    #[must_use]
    pub fn new(handle: SlotHandle, offset: u64, addend: u64) -> Self {
        Self { word: Span::new(handle, offset, WORD_BYTES), addend: addend.into() }
    }

    /// What is added.
    #[must_use]
    pub fn addend(&self) -> u64 {
        self.addend.get()
    }
}

/// Bytes of a word.
pub const WORD_BYTES: u64 = 8;

/// Whether a span is one word.
pub(super) fn word(span: &Span) -> Result<()> {
    if span.length() != WORD_BYTES || !span.offset().is_multiple_of(WORD_BYTES) {
        return Err(Error::new(Code::Range, "a word has 8 bytes and stands at a multiple of 8"));
    }
    Ok(())
}

/// What a right reaches now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Standing {
    region_bytes: U64,
    start: U64,
    end: U64,
    left_us: U64,
    rights: U64,
}

impl Standing {
    /// Bytes on the wire.
    pub const BYTES: usize = size_of::<Self>();

    /// A region of `region_bytes`, of which `start..end` may be used as `rights` for `left_us` more microseconds.
    #[must_use]
    pub fn new(region_bytes: u64, range: (u64, u64), rights: crate::rights::Rights, left_us: u64) -> Self {
        Self {
            region_bytes: region_bytes.into(),
            start: range.0.into(),
            end: range.1.into(),
            left_us: left_us.into(),
            rights: u64::from(rights.bits()).into(),
        }
    }

    /// Bytes of the region.
    #[must_use]
    pub fn region_bytes(&self) -> u64 {
        self.region_bytes.get()
    }

    /// The bytes that the right reaches, first to behind the last.
    #[must_use]
    pub fn range(&self) -> (u64, u64) {
        (self.start.get(), self.end.get())
    }

    /// Microseconds until it ends by itself.
    #[must_use]
    pub fn left_us(&self) -> u64 {
        self.left_us.get()
    }

    /// What may be done.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` for rights that there are not.
    pub fn rights(&self) -> Result<crate::rights::Rights> {
        let bits = u8::try_from(self.rights.get()).ok();
        bits.and_then(|bits| crate::rights::Rights::try_from(bits).ok())
            .ok_or(Error::new(Code::FrameType, "the answer has rights that there are not"))
    }
}

/// The `count` values that a body begins with, and what comes after them.
pub(super) fn split<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    body: &[u8],
    count: usize,
) -> Result<(&[T], &[u8])> {
    <[T]>::ref_from_prefix_with_elems(body, count)
        .map_err(|_| Error::new(Code::FrameType, "the frame's body is shorter than what it announces"))
}

/// One value that a body begins with, and what comes after it.
pub(super) fn first<T: FromBytes + Immutable + KnownLayout + Unaligned>(body: &[u8]) -> Result<(&T, &[u8])> {
    T::ref_from_prefix(body)
        .map_err(|_| Error::new(Code::FrameType, "the frame's body is shorter than what it announces"))
}

/// Refuses bytes that nothing announced.
pub(super) fn end(rest: &[u8]) -> Result<()> {
    if rest.is_empty() { Ok(()) } else { Err(Error::new(Code::FrameType, "bytes follow the message")) }
}

/// A region's bytes in a frame, of which there are at most [`CHUNK_BYTES_MAX`].
pub(super) fn data(bytes: &[u8]) -> Result<&[u8]> {
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(Error::new(Code::FrameSize, "a frame carries at most 64 KiB of a region"));
    }
    Ok(bytes)
}
