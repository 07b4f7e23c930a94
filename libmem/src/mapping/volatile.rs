//! Raw access without references: a view of single bytes and words.

use std::marker::PhantomData;
use std::ptr::NonNull;

use caps::error::{Code, Error};

use super::{Access, Mapping, WORD_BYTES};

/// A view of a mapping, or of a part of it, through volatile loads and stores. They compile to single
/// instructions.
///
/// Safe, because it never makes a reference into memory that others change: each access happens exactly once,
/// and two accesses may see different bytes. Nothing here is guarded: **the first access after the memory was
/// cut ends the process by SIGBUS**. It never returns a wrong byte. Where that is too harsh, use the guarded
/// methods of [`Mapping`].
///
/// A rotation does not disturb it: an access waits for the fresh segment and goes on. But a store to a segment that
/// became read-only meanwhile ends the process by SIGSEGV.
///
/// It does not look at the mapping's [`Revocation`](super::Revocation): a hang-up alone does not stop it.
#[derive(Clone, Copy)]
pub struct Volatile<'a> {
    start: NonNull<u8>,
    length: usize,
    access: Access,
    mapping: PhantomData<&'a Mapping>,
}

// SAFETY: a view is a borrowed range of addresses, usable from any thread as the mapping itself is.
unsafe impl Send for Volatile<'_> {}
// SAFETY: as above; every access is volatile and goes to memory that is shared with others anyway.
unsafe impl Sync for Volatile<'_> {}

impl<'a> Volatile<'a> {
    pub(super) const fn new(mapping: &'a Mapping) -> Self {
        Self {
            start: mapping.reservation.start(),
            length: mapping.reservation.length(),
            access: mapping.access,
            mapping: PhantomData,
        }
    }

    /// Number of bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.length
    }

    /// Whether the view has no byte; a mapping's own view never is.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// The view of `length` bytes from `offset`.
    ///
    /// # Errors
    /// `E_RANGE` if they do not lie in this view.
    pub fn part(self, offset: usize, length: usize) -> Result<Self, Error> {
        let start = self.address(offset, length, 1)?;
        Ok(Self { start, length, ..self })
    }

    /// Reads the byte at `offset`.
    ///
    /// # Errors
    /// `E_RANGE` outside the view.
    #[inline]
    pub fn load_u8(self, offset: usize) -> Result<u8, Error> {
        let address = self.address(offset, 1, 1)?;
        // SAFETY: in the view, so mapped and readable as long as the mapping is borrowed; cut memory ends the
        // process.
        Ok(unsafe { address.read_volatile() })
    }

    /// Writes the byte at `offset`.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping, `E_RANGE` outside the view.
    #[inline]
    pub fn store_u8(self, offset: usize, value: u8) -> Result<(), Error> {
        self.access.check_write()?;
        let address = self.address(offset, 1, 1)?;
        // SAFETY: as in `load_u8`, and mapped for writing.
        unsafe { address.write_volatile(value) };
        Ok(())
    }

    /// Reads the 8 bytes at `offset` with one load: never a mixture of two stores. No order towards other
    /// accesses.
    ///
    /// # Errors
    /// `E_RANGE` outside the view, or if the address is not a multiple of 8.
    #[inline]
    pub fn load_u64(self, offset: usize) -> Result<u64, Error> {
        let address = self.address(offset, WORD_BYTES, WORD_BYTES)?.cast::<u64>();
        // SAFETY: as in `load_u8`; the address was checked to be aligned.
        Ok(unsafe { address.read_volatile() })
    }

    /// Writes the 8 bytes at `offset` with one store. No order towards other accesses.
    ///
    /// # Errors
    /// `E_DENIED` on a read-only mapping; `E_RANGE` outside the view, or if the address is not a multiple of
    /// 8.
    #[inline]
    pub fn store_u64(self, offset: usize, value: u64) -> Result<(), Error> {
        self.access.check_write()?;
        let address = self.address(offset, WORD_BYTES, WORD_BYTES)?.cast::<u64>();
        // SAFETY: as in `store_u8`; the address was checked to be aligned.
        unsafe { address.write_volatile(value) };
        Ok(())
    }

    /// The address of `length` bytes at `offset`, checked against the view and against `alignment`.
    #[inline]
    fn address(self, offset: usize, length: usize, alignment: usize) -> Result<NonNull<u8>, Error> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(Error::new(Code::Range, "outside the view"));
        }
        // SAFETY: `offset` is at most the view's length, checked above.
        let address = unsafe { self.start.add(offset) };
        if !(address.as_ptr() as usize).is_multiple_of(alignment) {
            return Err(Error::new(Code::Range, "a word lies on a multiple of 8 bytes"));
        }
        Ok(address)
    }
}
