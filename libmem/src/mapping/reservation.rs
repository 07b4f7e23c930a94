//! An owned range of addresses.
//!
//! ```text
//! mmap(PROT_NONE), one huge page longer than needed
//! ├─ head ─┼──────────── the reservation ────────────┼─ tail ─┤
//!          ▲ a multiple of 2 MiB                     ▲ head and tail are given back
//!          ├─ segment 0 ─┼─ segment 1 ─┼─ segment 2 ─┤  MAP_FIXED, over our own addresses only
//! ```

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use caps::error::{Code, Error};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::{Access, place};

/// Size of a huge page in bytes, on x86_64 and on aarch64 with 4 KiB pages. Only ranges that begin on its
/// multiples are mapped with huge pages, and a misaligned 1 GiB takes 68 ms to cut where an aligned one takes
/// 1.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Addresses that belong to us until this is dropped. Nobody else maps or unmaps anything there.
pub(super) struct Reservation {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a reservation is a range of addresses of the process, not of a thread.
unsafe impl Send for Reservation {}
// SAFETY: through a shared reference one can only ask for the start and the length.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `length` bytes without memory behind them, 2 MiB aligned if they are at least as many.
    ///
    /// # Errors
    /// `E_NOMEM` if the address space has no room, `E_SYSTEM` for anything else the kernel says.
    ///
    /// `length` is a multiple of the page size, not 0, and at most [`super::MAPPING_BYTES_MAX`].
    pub(super) fn new(length: usize) -> Result<Self, Error> {
        let page = rustix::param::page_size();
        debug_assert!(length > 0 && length.is_multiple_of(page));
        let spare = if length >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES - page } else { 0 };
        // SAFETY: a new anonymous mapping where the kernel likes; it replaces nothing.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length + spare,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }
        .map_err(|errno| system("mmap of a reservation", errno))?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Error::new(Code::System, "mmap returned 0"))?;
        let mut whole = Self { start, length: length + spare };
        if spare > 0 {
            let head = start.as_ptr().align_offset(HUGE_PAGE_BYTES);
            whole.trim(head, length)?;
        }
        Ok(whole)
    }

    /// Gives back all but `length` bytes from `head` on. If that fails, `self` still owns what it did not
    /// give back.
    fn trim(&mut self, head: usize, length: usize) -> Result<(), Error> {
        let tail = self.length - head - length;
        let unmap = |start: *mut u8, length: usize| match length {
            0 => Ok(()),
            // SAFETY: both calls below pass a part of this reservation, which nothing has been mapped over
            // yet.
            _ => unsafe { rustix::mm::munmap(start.cast(), length) }.map_err(|errno| system("munmap", errno)),
        };
        unmap(self.start.as_ptr().wrapping_add(head + length), tail)?;
        self.length -= tail;
        unmap(self.start.as_ptr(), head)?;
        // SAFETY: `head` is within the range that was mapped.
        self.start = unsafe { self.start.add(head) };
        self.length -= head;
        Ok(())
    }

    /// Maps `bytes` of `descriptor` at `offset`, shared, never executable, kept out of core dumps.
    ///
    /// # Errors
    /// `E_FD_TYPE` if the kernel refuses to map this descriptor so, `E_NOMEM`, or `E_SYSTEM`.
    pub(super) fn map(
        &mut self,
        offset: usize,
        bytes: usize,
        descriptor: BorrowedFd<'_>,
        access: Access,
    ) -> Result<(), Error> {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.length),
            "a segment lies in its mapping"
        );
        let at = self.start.as_ptr().wrapping_add(offset);
        // SAFETY: the range was checked to be ours, and `&mut self` says that nobody uses it yet.
        unsafe { place::segment(at, bytes, descriptor, access) }
    }

    pub(super) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) const fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and references into it borrow the owner that is being dropped.
        if unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) }.is_err() {
            // Leased memory would stay mapped behind the back of everyone who believes that it is closed.
            std::process::abort();
        }
    }
}

fn system(call: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOMEM => Error::new(Code::NoMemory, "the process has no room for another mapping"),
        errno => Error::with(Code::System, format!("{call} failed with errno {}", errno.raw_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_ranges_start_on_a_huge_page() {
        let page = rustix::param::page_size();
        for length in
            [page, HUGE_PAGE_BYTES - page, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + page, 5 * HUGE_PAGE_BYTES]
        {
            for _ in 0..4 {
                let reservation = Reservation::new(length).unwrap();
                assert_eq!(reservation.length(), length);
                if length >= HUGE_PAGE_BYTES {
                    assert_eq!(reservation.start().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
                }
            }
        }
    }

    #[test]
    fn more_than_the_address_space_is_refused() {
        let too_much = 1 << 60;
        assert_eq!(Reservation::new(too_much).err().unwrap().code(), Code::NoMemory);
    }
}
