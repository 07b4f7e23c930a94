//! The table of leased address ranges: what the signal handler may look at.
//!
//! It is a static array of atomics that is never moved or freed, so the handler can read it in any thread, at
//! any moment, without a lock that interrupted code could hold.

use std::sync::atomic::{AtomicUsize, Ordering};

use caps::error::{Code, Error};

/// Most mappings that a process can hold at once. Linux allows a process 65,530 mappings (`vm.max_map_count`)
/// unless told otherwise, so the kernel's bound is met first; the table is 1 MiB of zero pages that cost
/// nothing until used.
pub(super) const MAPPINGS_MAX: usize = 65_536;

/// `start` of a slot that nobody uses.
const FREE: usize = 0;
/// `start` of a slot that is being filled. No mapping starts there: Linux maps nothing at the address 1.
const CLAIMED: usize = 1;

/// One leased address range, `start..end`.
pub(super) struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
}

static TABLE: [Slot; MAPPINGS_MAX] =
    [const { Slot { start: AtomicUsize::new(FREE), end: AtomicUsize::new(0) } }; MAPPINGS_MAX];

/// Where the next search begins: a hint, so that filling the table is not quadratic.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    /// Takes a free slot for `start..end`.
    ///
    /// # Errors
    /// `E_BUSY` if all [`MAPPINGS_MAX`] are taken.
    pub(super) fn claim(start: usize, end: usize) -> Result<&'static Self, Error> {
        debug_assert!(CLAIMED < start && start <= end);
        let first = NEXT.fetch_add(1, Ordering::Relaxed);
        (0..MAPPINGS_MAX)
            .map(|step| &TABLE[first.wrapping_add(step) % MAPPINGS_MAX])
            .find(|slot| {
                slot.start.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
            })
            .inspect(|slot| {
                slot.end.store(end, Ordering::Relaxed);
                // Release: who sees the start sees the end.
                slot.start.store(start, Ordering::Release);
            })
            .ok_or(Error::new(Code::Busy, "this process holds 65,536 mappings; close some first"))
    }

    /// Gives the slot back. The owner calls it before it unmaps, when no access can be under way.
    pub(super) fn release(&self) {
        self.end.store(0, Ordering::Relaxed);
        self.start.store(FREE, Ordering::Release);
    }

    /// The slot at this address, if there is one. The handler asks with what it found in a register.
    pub(super) fn at(address: usize) -> Option<&'static Self> {
        let offset = address.checked_sub(TABLE.as_ptr() as usize)?;
        if !offset.is_multiple_of(size_of::<Self>()) {
            return None;
        }
        TABLE.get(offset / size_of::<Self>())
    }

    /// What [`Slot::at`] takes.
    pub(super) fn address(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Whether `address` lies in the range. Exact while the owner's access is under way, because the slot
    /// cannot change before it ends.
    pub(super) fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start > CLAIMED && start <= address && address < self.end.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_end_with_their_owner() {
        let slot = Slot::claim(0x1000, 0x3000).unwrap();
        assert!(slot.contains(0x1000) && slot.contains(0x2fff));
        assert!(!slot.contains(0xfff) && !slot.contains(0x3000));
        slot.release();
        assert!(!slot.contains(0x1000) && !slot.contains(0));
    }

    #[test]
    fn only_addresses_of_slots_name_slots() {
        let slot = Slot::claim(0x1000, 0x2000).unwrap();
        assert!(std::ptr::eq(Slot::at(slot.address()).unwrap(), slot));
        let table = TABLE.as_ptr() as usize;
        for wrong in [0, 1, table - 16, slot.address() + 8, table + size_of_val(&TABLE), usize::MAX] {
            assert!(Slot::at(wrong).is_none());
        }
        slot.release();
    }

    #[test]
    fn threads_never_share_a_slot() {
        let mut addresses: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500).map(|_| Slot::claim(0x1000, 0x2000).unwrap().address()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        addresses.sort_unstable();
        assert!(addresses.windows(2).all(|pair| pair[0] != pair[1]));
        addresses.into_iter().for_each(|address| Slot::at(address).unwrap().release());
    }
}
