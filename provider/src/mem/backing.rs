//! What the kernel gave: how much of a mapping stands on huge pages.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

use super::mapping::{HUGE_BYTES, Mapping};

/// `PAGE_IS_HUGE` of linux/fs.h: the page is mapped by a huge entry.
const PAGE_IS_HUGE: u64 = 1 << 6;
/// `PAGEMAP_SCAN` of linux/fs.h, `_IOWR('f', 16, struct pm_scan_arg)`; Linux 6.7.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
/// Ranges that one call answers at most. Neighbours are merged, so one is enough for memory all of one kind.
const RANGES_MAX: usize = 16;

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<Scan>() == 96, "the request number says so");

/// Bytes of a present mapping that huge pages back. 0 where the kernel cannot say, which is before Linux 6.7.
pub(super) fn huge_bytes(mapping: &Mapping) -> u64 {
    if mapping.len() < HUGE_BYTES {
        return 0;
    }
    File::open("/proc/self/pagemap").map_or(0, |pagemap| scan(&pagemap, mapping))
}

fn scan(pagemap: &File, mapping: &Mapping) -> u64 {
    let mut ranges = [Range::default(); RANGES_MAX];
    let (mut start, end) = (mapping.address() as u64, (mapping.address() + mapping.len()) as u64);
    let mut huge = 0;
    while start < end {
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start,
            end,
            walk_end: 0,
            vec: ranges.as_mut_ptr().expose_provenance() as u64,
            vec_len: RANGES_MAX as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: PAGE_IS_HUGE,
            category_anyof_mask: 0,
            return_mask: PAGE_IS_HUGE,
        };
        // SAFETY: the request has the size it says, and `vec` points to `vec_len` ranges that live across the call. The
        // kernel only reads page tables of the range, which `mapping` keeps mapped.
        let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut request) };
        let Ok(found) = usize::try_from(found) else { return 0 };
        huge += ranges.iter().take(found).map(|range| range.end.saturating_sub(range.start)).sum::<u64>();
        if request.walk_end <= start {
            break;
        }
        start = request.walk_end;
    }
    huge
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    #[test]
    fn small_pages_are_not_counted() {
        let file = memfd_create("backing", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 2 * HUGE_BYTES as u64).unwrap();
        let mapping = Mapping::of(file.as_fd(), 2 * HUGE_BYTES).unwrap();
        mapping.populate().unwrap();
        // A memfd has small pages unless the administrator turned `shmem_enabled` on for all of the machine.
        assert!(huge_bytes(&mapping).is_multiple_of(HUGE_BYTES as u64));
    }
}
