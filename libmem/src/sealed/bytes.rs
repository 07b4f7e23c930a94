//! What can be sealed.

use caps::error::Result;
use caps::range::ByteRange;

use crate::{Mediated, Memory, Region};

/// Bytes at offsets that count from a region's start. Leased memory is this, whichever way its bytes go; so is anything
/// else that can keep sealed blocks.
pub trait Bytes {
    /// The bytes that can be reached.
    fn range(&self) -> ByteRange;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The memory's own. Some first part of `buffer` may be filled.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes all of `bytes` to `offset` and on.
    ///
    /// # Errors
    /// The memory's own. Some first part may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
}

macro_rules! leased {
    ($($memory:ty),*) => {$(
        impl Bytes for $memory {
            fn range(&self) -> ByteRange {
                self.facts().range
            }

            fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
                <$memory>::read_at(self, offset, buffer)
            }

            fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
                <$memory>::write_at(self, offset, bytes)
            }
        }
    )*};
}

leased!(Region, Mediated, Memory);

impl<M: Bytes + ?Sized> Bytes for &M {
    fn range(&self) -> ByteRange {
        (**self).range()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        (**self).write_at(offset, bytes)
    }
}
