//! Leased memory behind the node: at its socket, or over TLS.

use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::wire::reply::Opened;

use crate::calls;
use crate::local::Local;
use crate::region::{Facts, OpenRight, Region, chunks};
use crate::remote;

/// Leased memory behind the node. Dropping it closes the right.
///
/// At a node's socket each read and write is a request of at most 64 KiB with a checksum each way. Over TLS one request
/// moves up to 1 GiB, and the bytes come and go in frames of 64 KiB: that is how much still moves when the right ends. A
/// connection that is lost is made again and the right opened again, while the caller waits.
pub struct Mediated(Way);

enum Way {
    Local { session: Arc<Local>, right: OpenRight },
    Remote(remote::Right),
}

/// What a right reaches now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes of the region.
    pub region_bytes: u64,
    /// The bytes of it that the right reaches.
    pub range: ByteRange,
    /// What may be done.
    pub rights: Rights,
    /// How long it lives still.
    pub expires_in: Duration,
}

impl Mediated {
    pub(crate) const fn local(session: Arc<Local>, right: OpenRight) -> Self {
        Self(Way::Local { session, right })
    }

    pub(crate) const fn remote(right: remote::Right) -> Self {
        Self(Way::Remote(right))
    }

    /// Fills `buffer` from `offset` of the region on.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED`; `E_CHECKSUM`. Some first part of `buffer` may be filled.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.0 {
            Way::Local { session, right } => {
                right.check_read(offset, buffer.len())?;
                let handle = right.opened().handle;
                session.fill(offset, buffer, |at, length| calls::read(handle, at, length))
            }
            Way::Remote(right) => right.read_at(offset, buffer),
        }
    }

    /// Writes all of `bytes` to `offset` of the region and on.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right; `E_DENIED`; `E_CHECKSUM`; `E_UNCERTAIN` if no answer came. Some
    /// first part may be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match &self.0 {
            Way::Local { session, right } => {
                right.check_write(offset, bytes.len())?;
                for (at, place) in chunks(offset, bytes.len()) {
                    session.call(calls::write(right.opened().handle, at, &bytes[place]))?;
                }
                Ok(())
            }
            Way::Remote(right) => right.write_at(offset, bytes),
        }
    }

    /// Fills `buffer` from `offset` of the region on as far as the region goes, and says how many bytes that were: fewer
    /// than the buffer has where the region ends before. What is behind them in the buffer stays as it was.
    ///
    /// # Errors
    /// As [`Self::read_at`]; `E_RANGE` only for an offset behind the region's end; `E_DENIED` or `E_RANGE` for bytes of the
    /// region that the right does not reach.
    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.0 {
            Way::Local { right, .. } => {
                let length = within(right.opened(), offset, buffer.len())?;
                self.read_at(offset, &mut buffer[..length]).map(|()| length)
            }
            Way::Remote(right) => right.read_into(offset, buffer),
        }
    }

    /// Fills many buffers, each from its own offset as [`Self::read_into`], and says of each how many bytes came. Over TLS
    /// 512 of them are one request; at a socket it is one after the other. Not one moment of the region: others may write
    /// in between.
    ///
    /// Where it fails, as a whole or for an item, the buffers may hold pieces of what was read all the same: no more than
    /// the bytes that are said to have come means anything.
    ///
    /// # Errors
    /// What concerns the right or the session as a whole; each item as [`Self::read_into`].
    pub fn gather(&self, items: &mut [(u64, &mut [u8])]) -> Result<Vec<Result<usize>>> {
        match &self.0 {
            Way::Local { .. } => {
                Ok(items.iter_mut().map(|(offset, buffer)| self.read_into(*offset, buffer)).collect())
            }
            Way::Remote(right) => right.gather(items),
        }
    }

    /// Writes many pieces, each to its own offset, and says of each how many bytes were written: fewer than it has where
    /// the region ends before. Over TLS 512 of them are one request; at a socket it is one after the other.
    ///
    /// # Errors
    /// What concerns the right or the session as a whole, `E_UNCERTAIN` among it; each item as [`Self::write_at`]. Over
    /// TLS the text of an item's error says how many of its bytes, from the first on, were written all the same.
    pub fn scatter(&self, items: &[(u64, &[u8])]) -> Result<Vec<Result<usize>>> {
        match &self.0 {
            Way::Local { right, .. } => {
                let write = |&(offset, bytes): &(u64, &[u8])| {
                    let length = within(right.opened(), offset, bytes.len())?;
                    self.write_at(offset, &bytes[..length]).map(|()| length)
                };
                Ok(items.iter().map(write).collect())
            }
            Way::Remote(right) => right.scatter(items),
        }
    }

    /// Writes `new` to the 8 bytes at `offset` if they are `current`, as one step, and returns what they were: little-endian
    /// numbers over TLS, which is what this machine has, too.
    ///
    /// # Errors
    /// `E_REVOKED`; `E_RANGE` outside the right and if `offset` is no multiple of 8; `E_DENIED`; `E_UNCERTAIN` if no answer
    /// came and it may have taken effect. `E_MEDIATED_ONLY` at a node's socket, where words are changed in a mapping
    /// ([`Region::compare_exchange_u64`]): two calls would not be one step.
    pub fn compare_exchange_u64(&self, offset: u64, current: u64, new: u64) -> Result<u64> {
        match &self.0 {
            Way::Local { .. } => Err(NO_WORDS),
            Way::Remote(right) => right.compare_exchange_u64(offset, current, new),
        }
    }

    /// Adds to the 8 bytes at `offset` as one step, wrapping, and returns what they were.
    ///
    /// # Errors
    /// As [`Self::compare_exchange_u64`].
    pub fn fetch_add_u64(&self, offset: u64, value: u64) -> Result<u64> {
        match &self.0 {
            Way::Local { .. } => Err(NO_WORDS),
            Way::Remote(right) => right.fetch_add_u64(offset, value),
        }
    }

    /// What the right reaches now: it may have been narrowed since it was opened.
    ///
    /// # Errors
    /// `E_REVOKED`. `E_PROTOCOL` at a node's socket, which has no such request: [`Self::facts`] has what was opened, and
    /// [`crate::Client::token_check`] how long it lives.
    pub fn stat(&self) -> Result<Stat> {
        match &self.0 {
            Way::Local { .. } => Err(Error::new(
                Code::Protocol,
                "a node's socket has no request for this: `facts` has what was opened",
            )),
            Way::Remote(right) => right.stat(),
        }
    }

    /// What was opened and how.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.opened().into()
    }

    /// The same in the node's words.
    pub(crate) const fn opened(&self) -> &Opened {
        match &self.0 {
            Way::Local { right, .. } => right.opened(),
            Way::Remote(right) => right.opened(),
        }
    }
}

const NO_WORDS: Error =
    Error::new(Code::MediatedOnly, "at a node's socket words are changed in a mapping: this right has none");

/// How many of `length` bytes from `offset` lie in the region.
pub(crate) fn within(opened: &Opened, offset: u64, length: usize) -> Result<usize> {
    let left = opened
        .region_bytes
        .checked_sub(offset)
        .ok_or(Error::new(Code::Range, "the offset lies behind the region's end"))?;
    Ok(usize::try_from(left).unwrap_or(usize::MAX).min(length))
}

/// Leased memory, whichever way its bytes go.
pub enum Memory {
    /// Mapped into this process.
    Mapped(Region),
    /// Behind the node.
    Mediated(Mediated),
}

impl Memory {
    /// Fills `buffer` from `offset` of the region on.
    ///
    /// # Errors
    /// As [`Region::read_at`] and [`Mediated::read_at`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::Mapped(region) => region.read_at(offset, buffer),
            Self::Mediated(mediated) => mediated.read_at(offset, buffer),
        }
    }

    /// Writes all of `bytes` to `offset` of the region and on.
    ///
    /// # Errors
    /// As [`Region::write_at`] and [`Mediated::write_at`].
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Mapped(region) => region.write_at(offset, bytes),
            Self::Mediated(mediated) => mediated.write_at(offset, bytes),
        }
    }

    /// What was opened and how.
    #[must_use]
    pub fn facts(&self) -> Facts {
        match self {
            Self::Mapped(region) => region.facts(),
            Self::Mediated(mediated) => mediated.facts(),
        }
    }

    /// The same in the node's words.
    pub(crate) const fn opened(&self) -> &Opened {
        match self {
            Self::Mapped(region) => region.opened(),
            Self::Mediated(mediated) => mediated.opened(),
        }
    }
}
