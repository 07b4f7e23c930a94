//! A half-open range of bytes of a region.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// `[start, end)` in bytes. Never empty and never past `i64::MAX`, because the token's Datalog counts in `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The largest end a range can have.
    pub const END_MAX: u64 = i64::MAX as u64;

    /// `[start, end)`.
    ///
    /// # Errors
    /// `E_RANGE` if the range is empty, turned round, or ends past [`Self::END_MAX`].
    pub const fn new(start: u64, end: u64) -> Result<Self, Error> {
        if start < end && end <= Self::END_MAX {
            Ok(Self { start, end })
        } else {
            Err(Error::new(Code::Range, "a range has start < end <= 2^63 - 1"))
        }
    }

    /// `length` bytes from `offset`.
    ///
    /// # Errors
    /// `E_RANGE` if the sum wraps, or as [`Self::new`].
    pub const fn at(offset: u64, length: u64) -> Result<Self, Error> {
        match offset.checked_add(length) {
            Some(end) => Self::new(offset, end),
            None => Err(Error::new(Code::Range, "offset and length wrap past 2^64")),
        }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // no range is empty
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether every byte of `other` lies in this range.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The bytes of both, if there are any.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end)).ok()
    }

    /// Whether both borders are multiples of `unit`.
    #[must_use]
    pub const fn is_aligned(self, unit: u64) -> bool {
        self.start.is_multiple_of(unit) && self.end.is_multiple_of(unit)
    }
}

impl TryFrom<(u64, u64)> for ByteRange {
    type Error = Error;

    fn try_from((start, end): (u64, u64)) -> Result<Self, Error> {
        Self::new(start, end)
    }
}

impl From<ByteRange> for (u64, u64) {
    fn from(range: ByteRange) -> Self {
        (range.start, range.end)
    }
}

impl std::fmt::Display for ByteRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders() {
        assert!(ByteRange::new(0, 0).is_err());
        assert!(ByteRange::new(2, 1).is_err());
        assert!(ByteRange::new(0, 1 << 63).is_err());
        assert!(ByteRange::at(u64::MAX, 1).is_err());
        assert!(ByteRange::at(u64::MAX, 2).is_err());
        assert!(ByteRange::at(5, 0).is_err());
        assert_eq!(ByteRange::new(0, i64::MAX as u64).unwrap().len(), i64::MAX as u64);
    }

    #[test]
    fn intersections_lie_in_both() {
        let all: Vec<_> =
            (0..5).flat_map(|a| (a + 1..6).map(move |b| ByteRange::new(a, b).unwrap())).collect();
        for &a in &all {
            for &b in &all {
                match a.intersect(b) {
                    Some(both) => assert!(a.contains(both) && b.contains(both)),
                    None => assert!(a.end() <= b.start() || b.end() <= a.start()),
                }
            }
        }
    }

    #[test]
    fn a_range_from_the_wire_is_checked() {
        let mut bytes = Vec::new();
        ciborium::into_writer(&(9u64, 3u64), &mut bytes).unwrap();
        assert!(ciborium::from_reader::<ByteRange, _>(&bytes[..]).is_err());
    }
}
