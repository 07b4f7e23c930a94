//! Opened rights: what a token gives once the node has taken it.
//!
//! Offsets count from the region's start, whichever way the bytes go and however narrow the right is: the same number
//! names the same byte in a token, in a share, in the log and here.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::reply::Opened;
use caps::wire::row::Tier;

use crate::calls::{self, Call};
use crate::mapping::{Access, Mapping, Segment, Unfinished};
use crate::session::link::{Link, Watched};
use crate::session::protocol::Answer;

/// An open right at the node. Dropping it closes it there, without waiting.
pub(crate) struct OpenRight {
    link: Arc<Link>,
    opened: Opened,
}

impl OpenRight {
    pub(crate) fn new(link: Arc<Link>, opened: Opened) -> Self {
        Self { link, opened }
    }

    pub(crate) const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Whether the right reaches these bytes, and allows it.
    pub(crate) fn check_read(&self, offset: u64, length: usize) -> Result<()> {
        if !self.opened.rights.contains(Rights::READ) {
            return Err(Error::new(Code::Denied, "the right was not opened for reading"));
        }
        reaches(&self.opened, offset, length)
    }

    /// Whether the right reaches these bytes, and allows it.
    pub(crate) fn check_write(&self, offset: u64, length: usize) -> Result<()> {
        if !self.opened.rights.contains(Rights::WRITE) {
            return Err(Error::new(Code::Denied, "the right was not opened for writing"));
        }
        reaches(&self.opened, offset, length)
    }
}

/// Whether a right reaches `length` bytes from `offset`, all of them.
///
/// # Errors
/// `E_RANGE`.
pub(crate) fn reaches(opened: &Opened, offset: u64, length: usize) -> Result<()> {
    let range = opened.range;
    let end = offset.checked_add(length as u64); // usize fits u64 on every target
    if end.is_some_and(|end| range.start() <= offset && end <= range.end()) {
        Ok(())
    } else {
        Err(Error::with(Code::Range, format!("the right reaches the bytes {range} of the region")))
    }
}

impl Drop for OpenRight {
    fn drop(&mut self) {
        self.link.close(self.opened.handle);
    }
}

/// Leased memory, mapped into this process, with accesses that survive a revoke.
///
/// Every method answers `Err(E_REVOKED)` once the memory was taken back, and from then on always; the process does
/// not die. [`Region::mapping`] has the faster ways in, which do not survive it.
///
/// Dropping it unmaps the memory and then closes the right. It keeps its session alive, so the
/// [`Client`](crate::Client) may be dropped before it.
pub struct Region {
    // Dropped in this order: the node may count the mapping as given back only once it is gone.
    mapping: Mapping,
    right: OpenRight,
    base: u64,
}

/// A right whose segments are on their way. Dropping it closes the right.
pub(crate) struct Opening {
    // As in `Region`.
    unfinished: Unfinished,
    right: OpenRight,
    /// First byte of the mapping, and one past its last, in the region.
    start: u64,
    end: u64,
    /// First byte of the next segment.
    next: u64,
}

impl Opening {
    /// Begins with what came with the answer to an open: the right, and its first segment.
    ///
    /// # Errors
    /// `E_PROTOCOL` for a right that cannot be mapped as it was announced; `E_FD_TYPE`, `E_NOMEM`, `E_SYSTEM`.
    pub(crate) fn new(link: Arc<Link>, opened: Opened, answer: &mut Answer) -> Result<Self> {
        let right = OpenRight::new(link, opened);
        let Opened { range, region_bytes, segment_bytes, .. } = opened;
        if range.end() > region_bytes {
            return Err(Error::new(Code::Protocol, "the right reaches past the region that was announced"));
        }
        let whole = segment_bytes > 0
            && range.start().is_multiple_of(segment_bytes)
            && (range.end() == region_bytes || range.end().is_multiple_of(segment_bytes))
            && u32::try_from(region_bytes.div_ceil(segment_bytes)).is_ok();
        if !whole {
            return Err(Error::new(Code::Protocol, "a right that is mapped falls on whole segments"));
        }
        let access = if opened.rights.contains(Rights::WRITE) { Access::ReadWrite } else { Access::Read };
        let (start, end) = (range.start(), range.end());
        let unfinished = Unfinished::in_segments(end - start, segment_bytes, access)?;
        let mut opening = Self { unfinished, right, start, end, next: start };
        opening.map(answer)?;
        Ok(opening)
    }

    /// What to ask next; `None` once every segment is here.
    pub(crate) fn ask(&self) -> Option<Call<u32>> {
        let index = self.index(self.next);
        (self.next < self.end).then(|| calls::segment(self.right.opened().handle, index))
    }

    /// Takes the answer to [`Opening::ask`].
    ///
    /// # Errors
    /// `E_PROTOCOL` for another segment than was asked for; `E_FD_TYPE`, `E_NOMEM`, `E_SYSTEM`.
    pub(crate) fn take(&mut self, index: u32, answer: &mut Answer) -> Result<()> {
        if index != self.index(self.next) {
            return Err(Error::new(Code::Protocol, "the node sent another segment than was asked for"));
        }
        self.map(answer)
    }

    /// Maps the next segment, and closes its descriptor.
    fn map(&mut self, answer: &mut Answer) -> Result<()> {
        let descriptor = answer
            .descriptor
            .take()
            .ok_or(Error::new(Code::DescriptorType, "no descriptor came with the mapping"))?;
        let bytes = self.right.opened().segment_bytes.min(self.end - self.next);
        self.unfinished.map_rotating(&Segment { descriptor, bytes })?;
        self.next += bytes;
        Ok(())
    }

    /// The number, in the region, of the segment that begins at `offset`; `new` checked that it has so many bits.
    fn index(&self, offset: u64) -> u32 {
        (offset / self.right.opened().segment_bytes) as u32
    }

    /// Registers the mapping, and tells the node that it may speak of it.
    ///
    /// # Errors
    /// `E_BUSY`, `E_SYSTEM`, `E_PROTOCOL`; `E_UNREACHABLE` if the node is gone.
    pub(crate) fn finish(self) -> Result<Region> {
        let first = self.index(self.start);
        let Self { unfinished, right, start, .. } = self;
        let &Opened { handle, segment_bytes, .. } = right.opened();
        // A segment longer than an address can count is one that no right reaches the end of: any bound does.
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        let Watched { revocation, rotation } = right.link.watch(handle, first, segment_bytes)?;
        let mapping = unfinished.finish(revocation, Some(rotation))?;
        let region = Region { mapping, right, base: start };
        region.right.link.ready(handle)?;
        Ok(region)
    }
}

impl Region {
    /// Copies bytes from `offset` on into `buffer`: all of it, but not as one step.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED` if the right is not to read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.right.check_read(offset, buffer.len())?;
        self.mapping.read_at(self.index(offset), buffer)
    }

    /// Copies all of `bytes` to `offset` and on, but not as one step.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED` if the right is not to write.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.right.check_write(offset, bytes.len())?;
        self.mapping.write_at(self.index(offset), bytes)
    }

    /// Reads the 8 bytes at `offset` as one.
    ///
    /// # Errors
    /// As [`Region::read_at`]; `E_RANGE` too if `offset` is no multiple of 8.
    pub fn load_u64(&self, offset: u64) -> Result<u64> {
        self.right.check_read(offset, size_of::<u64>())?;
        self.mapping.load_u64(self.index(offset))
    }

    /// Writes the 8 bytes at `offset` as one.
    ///
    /// # Errors
    /// As [`Region::write_at`]; `E_RANGE` too if `offset` is no multiple of 8.
    pub fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.store_u64(self.index(offset), value)
    }

    /// Adds to the 8 bytes at `offset` as one step, wrapping, and returns what they were.
    ///
    /// # Errors
    /// As [`Region::store_u64`].
    pub fn fetch_add_u64(&self, offset: u64, value: u64) -> Result<u64> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.fetch_add_u64(self.index(offset), value)
    }

    /// Writes `new` to the 8 bytes at `offset` if they are `current`, as one step, and returns what they were.
    ///
    /// # Errors
    /// As [`Region::store_u64`].
    pub fn compare_exchange_u64(&self, offset: u64, current: u64, new: u64) -> Result<u64> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.compare_exchange_u64(self.index(offset), current, new)
    }

    /// The offset in the region of the mapping's first byte: where the right begins. What is at `offset` in the region is
    /// at `offset - base` in [`Region::mapping`].
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// The mapping itself: the volatile view and raw slices, at whose touch **a revoke ends the process**. It holds
    /// the segments that the right reaches and no others, so its own offsets count from [`Region::base`].
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// As [`Region::mapping`], for [`Mapping::as_mut_slice`].
    #[must_use]
    pub const fn mapping_mut(&mut self) -> &mut Mapping {
        &mut self.mapping
    }

    /// What was opened and how.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.right.opened().into()
    }

    /// The same in the node's words.
    pub(crate) const fn opened(&self) -> &Opened {
        self.right.opened()
    }

    /// An offset as an index into the mapping. One outside the right is refused before this is used.
    const fn index(&self, offset: u64) -> usize {
        offset.wrapping_sub(self.base) as usize
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("mapping", &self.mapping).field("facts", &self.facts()).finish()
    }
}

/// What a right that is open allows, and how it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What may be done.
    pub rights: Rights,
    /// The bytes of the region that it reaches.
    pub range: ByteRange,
    /// Bytes of the region that are mapped and taken back as one piece.
    pub segment_bytes: u64,
    /// How strongly a mapping of it is held.
    pub tier: Tier,
    /// How long it lived still when it was opened.
    pub expires_in: Duration,
    /// How long the node's audit device took to record the opening; zero if it was recorded before.
    pub audit: Duration,
}

impl From<&Opened> for Facts {
    fn from(opened: &Opened) -> Self {
        let &Opened { rights, range, segment_bytes, tier, expires_in, audit, .. } = opened;
        Self {
            rights,
            range,
            segment_bytes,
            tier,
            expires_in: Duration::from_micros(expires_in.0),
            audit: Duration::from_micros(audit.0),
        }
    }
}

/// The pieces in which `length` bytes from `offset` travel through the node: the offset of each in the region and
/// its place in the caller's buffer.
pub(crate) fn chunks(offset: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    let step = caps::limits::CHUNK_BYTES_MAX;
    (0..length).step_by(step).map(move |start| (offset + start as u64, start..length.min(start + step)))
}

/// Checks one chunk that the node sent and copies it to its place.
///
/// # Errors
/// `E_PROTOCOL` for another length than asked, `E_CHECKSUM` for bytes that are not what the node summed up.
pub(crate) fn take_chunk(place: &mut [u8], bytes: &[u8], crc: u32) -> Result<()> {
    if bytes.len() != place.len() {
        return Err(Error::new(Code::Protocol, "the node sent more or fewer bytes than asked"));
    }
    if crc32c::crc32c(bytes) != crc {
        return Err(Error::new(Code::Checksum, "the bytes do not have the checksum that came with them"));
    }
    place.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use caps::limits::CHUNK_BYTES_MAX;

    use super::*;

    #[test]
    fn chunks_cover_everything_once_and_in_order() {
        for length in
            [0, 1, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 3 * CHUNK_BYTES_MAX + 5]
        {
            let mut next = 0;
            for (offset, place) in chunks(100, length) {
                assert_eq!((offset, place.start), (100 + next as u64, next));
                assert!(!place.is_empty() && place.len() <= CHUNK_BYTES_MAX);
                next = place.end;
            }
            assert_eq!(next, length);
        }
    }

    #[test]
    fn a_chunk_is_checked_before_it_is_taken() {
        let mut place = [0; 3];
        take_chunk(&mut place, b"abc", crc32c::crc32c(b"abc")).unwrap();
        assert_eq!(&place, b"abc");
        assert_eq!(take_chunk(&mut place, b"xyz", 0).unwrap_err().code(), Code::Checksum);
        assert_eq!(take_chunk(&mut place, b"ab", crc32c::crc32c(b"ab")).unwrap_err().code(), Code::Protocol);
        assert_eq!(&place, b"abc");
    }
}
