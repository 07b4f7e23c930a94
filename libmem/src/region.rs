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

use crate::mapping::{Access, Mapping, Segment};
use crate::session::link::Link;
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

    /// Where `length` bytes from `offset` lie, if the right reaches all of them.
    fn check(&self, offset: u64, length: usize) -> Result<()> {
        let range = self.opened.range;
        let end = offset.checked_add(length as u64); // usize fits u64 on every target
        if end.is_some_and(|end| range.start() <= offset && end <= range.end()) {
            Ok(())
        } else {
            Err(Error::with(Code::Range, format!("the right reaches the bytes {range} of the region")))
        }
    }

    /// As [`Self::check`], and that the right allows it.
    pub(crate) fn check_read(&self, offset: u64, length: usize) -> Result<()> {
        if !self.opened.rights.contains(Rights::READ) {
            return Err(Error::new(Code::Denied, "the right was not opened for reading"));
        }
        self.check(offset, length)
    }

    /// As [`Self::check`], and that the right allows it.
    pub(crate) fn check_write(&self, offset: u64, length: usize) -> Result<()> {
        if !self.opened.rights.contains(Rights::WRITE) {
            return Err(Error::new(Code::Denied, "the right was not opened for writing"));
        }
        self.check(offset, length)
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
}

impl Region {
    /// Maps what came with the answer to an open.
    pub(crate) fn map(link: Arc<Link>, opened: Opened, answer: Answer) -> Result<Self> {
        let right = OpenRight::new(link, opened);
        if opened.range.end() > opened.region_bytes {
            return Err(Error::new(Code::Protocol, "the right reaches past the region that was announced"));
        }
        let descriptor = answer
            .descriptor
            .ok_or(Error::new(Code::DescriptorType, "no descriptor came with the mapping"))?;
        let access = if opened.rights.contains(Rights::WRITE) { Access::ReadWrite } else { Access::Read };
        let revocation = right.link.watch(opened.handle)?;
        let segment = Segment { descriptor, bytes: opened.region_bytes };
        Ok(Self { mapping: Mapping::new(vec![segment], access, revocation)?, right })
    }

    /// Copies bytes from `offset` on into `buffer`: all of it, but not as one step.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED` if the right is not to read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.right.check_read(offset, buffer.len())?;
        self.mapping.read_at(index(offset), buffer)
    }

    /// Copies all of `bytes` to `offset` and on, but not as one step.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED` if the right is not to write.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.right.check_write(offset, bytes.len())?;
        self.mapping.write_at(index(offset), bytes)
    }

    /// Reads the 8 bytes at `offset` as one.
    ///
    /// # Errors
    /// As [`Region::read_at`]; `E_RANGE` too if `offset` is no multiple of 8.
    pub fn load_u64(&self, offset: u64) -> Result<u64> {
        self.right.check_read(offset, size_of::<u64>())?;
        self.mapping.load_u64(index(offset))
    }

    /// Writes the 8 bytes at `offset` as one.
    ///
    /// # Errors
    /// As [`Region::write_at`]; `E_RANGE` too if `offset` is no multiple of 8.
    pub fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.store_u64(index(offset), value)
    }

    /// Adds to the 8 bytes at `offset` as one step, wrapping, and returns what they were.
    ///
    /// # Errors
    /// As [`Region::store_u64`].
    pub fn fetch_add_u64(&self, offset: u64, value: u64) -> Result<u64> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.fetch_add_u64(index(offset), value)
    }

    /// Writes `new` to the 8 bytes at `offset` if they are `current`, as one step, and returns what they were.
    ///
    /// # Errors
    /// As [`Region::store_u64`].
    pub fn compare_exchange_u64(&self, offset: u64, current: u64, new: u64) -> Result<u64> {
        self.right.check_write(offset, size_of::<u64>())?;
        self.mapping.compare_exchange_u64(index(offset), current, new)
    }

    /// The mapping itself: the volatile view and raw slices, at whose touch **a revoke ends the process**. It holds
    /// the whole region from offset 0, whichever part of it the right reaches.
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
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("mapping", &self.mapping).field("facts", &self.facts()).finish()
    }
}

/// An offset that was checked to lie in a region as an index into its mapping, which is never longer than an address.
const fn index(offset: u64) -> usize {
    offset as usize
}

/// What a right that is open allows, and how it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What may be done.
    pub rights: Rights,
    /// The bytes of the region that it reaches.
    pub range: ByteRange,
    /// How strongly a mapping of it is held.
    pub tier: Tier,
    /// How long it lived still when it was opened.
    pub expires_in: Duration,
    /// How long the node's audit device took to record the opening; zero if it was recorded before.
    pub audit: Duration,
}

impl From<&Opened> for Facts {
    fn from(opened: &Opened) -> Self {
        let &Opened { rights, range, tier, expires_in, audit, .. } = opened;
        Self {
            rights,
            range,
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
