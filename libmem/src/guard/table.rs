//! The table of leased address ranges: what the signal handler may look at.
//!
//! It is a static array of atomics that is never moved or freed, so the handler can read it in any thread, at
//! any moment, without a lock that interrupted code could hold.
//!
//! # The install word
//!
//! What a rotation needs to know about a range ([`Rotating`]) is on the heap, and a fresh segment may be mapped only
//! while the range still belongs to its owner. Both hang on the slot's *install word*: whoever looks at the
//! `Rotating` of a slot or maps into its range holds the word ([`Slot::hold`]), and the owner holds it while
//! it takes the range out of the table. So no segment is ever mapped into addresses that were given back, and nothing
//! is freed while somebody looks.
//!
//! It is taken in signal handlers, and cannot deadlock with the code they interrupt, because its three holders take no
//! signal meanwhile and touch no leased memory: the fault handler (its mask is full), the watching thread (blocks
//! everything), the dropping owner ([`Blocked`]). They wait for nothing else while they hold it.
//!
//! A forked child has a copy of the word that may be held by a thread that it has not. It never takes the word of a
//! slot that its parent filled: [`Slot::is_own`].

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use caps::error::{Code, Error};
use caps::id::SlotHandle;

use super::rotating::Rotating;
use super::signals::Blocked;

/// Most mappings that a process can hold at once. Linux allows a process 65,530 mappings (`vm.max_map_count`)
/// unless told otherwise, so the kernel's bound is met first; the table is 3 MiB of zero pages that cost
/// nothing until used.
pub(super) const MAPPINGS_MAX: usize = 65_536;

/// `start` of a slot that nobody uses.
const FREE: usize = 0;
/// `start` of a slot that is being filled. No mapping starts there: Linux maps nothing at the address 1.
const CLAIMED: usize = 1;
/// How often a waiter for an install word yields before it sleeps between two looks. A thread of real-time priority
/// that only yielded would keep the holder from ever running.
const YIELDS_MAX: u32 = 32;
/// How long it then sleeps, in nanoseconds. The word is held for two or three system calls.
const NAP_NANOSECONDS: i64 = 50_000;

/// One leased address range, `start..end`.
pub(super) struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    /// Null: a cut of this range is final. Read and followed only by whoever holds `install`.
    rotating: AtomicPtr<Rotating>,
    /// The right's handle and its session's channel: hints for the search, compared again under `install`.
    handle: AtomicU64,
    channel: AtomicI32,
    /// The process that filled the slot.
    process: AtomicU32,
    /// The install word: 1 while somebody holds it.
    install: AtomicU32,
}

impl Slot {
    const fn empty() -> Self {
        Self {
            start: AtomicUsize::new(FREE),
            end: AtomicUsize::new(0),
            rotating: AtomicPtr::new(ptr::null_mut()),
            handle: AtomicU64::new(0),
            channel: AtomicI32::new(0),
            process: AtomicU32::new(0),
            install: AtomicU32::new(0),
        }
    }
}

static TABLE: [Slot; MAPPINGS_MAX] = [const { Slot::empty() }; MAPPINGS_MAX];

/// Where the next search for a free slot begins: a hint, so that filling the table is not quadratic.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// One past the highest slot that was ever taken: how far a search through the table goes.
static HIGH: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    /// Takes a free slot for `start..end`. The caller keeps `rotating` alive until [`Slot::release`] has returned.
    ///
    /// # Errors
    /// `E_BUSY` if all [`MAPPINGS_MAX`] are taken.
    pub(super) fn claim(
        start: usize,
        end: usize,
        rotating: Option<&Arc<Rotating>>,
    ) -> Result<&'static Self, Error> {
        debug_assert!(CLAIMED < start && start <= end);
        let first = NEXT.load(Ordering::Relaxed);
        let (index, slot) = (0..MAPPINGS_MAX)
            .map(|step| first.wrapping_add(step) % MAPPINGS_MAX)
            .map(|index| (index, &TABLE[index]))
            .find(|(_, slot)| {
                slot.start.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
            })
            .ok_or(Error::new(Code::Busy, "this process holds 65,536 mappings; close some first"))?;
        NEXT.store(index + 1, Ordering::Relaxed);
        HIGH.fetch_max(index + 1, Ordering::Relaxed);
        if !slot.is_own() {
            // Whoever held the word when its parent forked is not here. In the process that filled the slot before, a
            // late searcher may hold the word for a moment, and gives it back itself.
            slot.install.store(0, Ordering::Relaxed);
            slot.process.store(process(), Ordering::Relaxed);
        }
        slot.end.store(end, Ordering::Relaxed);
        if let Some(rotating) = rotating {
            slot.handle.store(pack(rotating.handle()), Ordering::Relaxed);
            slot.channel.store(rotating.channel_number(), Ordering::Relaxed);
            slot.rotating.store(Arc::as_ptr(rotating).cast_mut(), Ordering::Release);
        }
        // Release: who sees the start sees the rest.
        slot.start.store(start, Ordering::Release);
        Ok(slot)
    }

    /// Gives the slot back. The owner calls it before it unmaps, when no access can be under way; once it returns,
    /// nobody maps into the range any more.
    pub(super) fn release(&self) {
        if self.is_own() && !self.rotating.load(Ordering::Relaxed).is_null() {
            // A handler of the program that interrupted us here and touched cut memory would wait for ourselves.
            let _blocked = Blocked::all();
            let held = self.hold();
            self.rotating.store(ptr::null_mut(), Ordering::Relaxed);
            drop(held);
        } else {
            self.rotating.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.end.store(0, Ordering::Relaxed);
        self.start.store(FREE, Ordering::Release);
        // The lowest free slot next, so that searches stay short.
        let index = (self.address() - TABLE.as_ptr() as usize) / size_of::<Self>();
        NEXT.fetch_min(index, Ordering::Relaxed);
    }

    /// The slot at this address, if there is one. The handler asks with what it found in a register.
    pub(super) fn at(address: usize) -> Option<&'static Self> {
        let offset = address.checked_sub(TABLE.as_ptr() as usize)?;
        if !offset.is_multiple_of(size_of::<Self>()) {
            return None;
        }
        TABLE.get(offset / size_of::<Self>())
    }

    /// The slot in whose range `address` lies: for faults of code that carries no slot. Async-signal-safe.
    pub(super) fn containing(address: usize) -> Option<&'static Self> {
        TABLE[..HIGH.load(Ordering::Relaxed)].iter().find(|slot| slot.contains(address))
    }

    /// Calls `with` for the right that `handle` names on the channel of this number, if this process has mapped it, and
    /// holds its install word meanwhile. Async-signal-safe if `with` is.
    pub(super) fn with_right(channel: i32, handle: SlotHandle, with: impl FnOnce(&Rotating)) {
        for slot in &TABLE[..HIGH.load(Ordering::Relaxed)] {
            let may_be = slot.handle.load(Ordering::Relaxed) == pack(handle)
                && slot.channel.load(Ordering::Relaxed) == channel
                && slot.start.load(Ordering::Acquire) > CLAIMED
                && slot.is_own();
            if !may_be {
                continue;
            }
            let held = slot.hold();
            if let Some(rotating) = held.rotating()
                && rotating.handle() == handle
                && rotating.channel_number() == channel
            {
                return with(rotating);
            }
        }
    }

    /// What [`Slot::at`] takes.
    pub(super) fn address(&self) -> usize {
        ptr::from_ref(self) as usize
    }

    /// Whether `address` lies in the range. Exact while the owner's access is under way, because the slot
    /// cannot change before it ends.
    pub(super) fn contains(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start > CLAIMED && start <= address && address < self.end.load(Ordering::Relaxed)
    }

    /// Whether this very process filled the slot, and no process that it was forked from.
    pub(super) fn is_own(&self) -> bool {
        self.process.load(Ordering::Relaxed) == process()
    }

    /// Waits for the install word. Only for slots that [are own](Self::is_own), and with every signal blocked.
    pub(super) fn hold(&self) -> Held<'_> {
        let mut turns = 0;
        while self.install.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            turns += 1;
            if turns < YIELDS_MAX {
                rustix::thread::sched_yield();
            } else {
                let nap = libc::timespec { tv_sec: 0, tv_nsec: NAP_NANOSECONDS };
                let rest = ptr::null::<libc::timespec>();
                // The C library's own call, which a sandbox has; the older one it may not have.
                // SAFETY: a whole span to read, and nowhere to write the rest of an interrupted sleep.
                unsafe {
                    libc::syscall(libc::SYS_clock_nanosleep, libc::CLOCK_MONOTONIC, 0, &raw const nap, rest);
                }
            }
        }
        Held(self)
    }
}

/// The install word of a slot, held.
pub(super) struct Held<'a>(&'a Slot);

impl Held<'_> {
    /// What the slot's owner said about rotation; `None` if it said nothing, or took the range back.
    pub(super) fn rotating(&self) -> Option<&Rotating> {
        let rotating = self.0.rotating.load(Ordering::Acquire);
        // SAFETY: null, or what `claim` was given. Its owner keeps it alive until `release` has set the pointer to null
        // under the word that we hold.
        unsafe { rotating.as_ref() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.install.store(0, Ordering::Release);
    }
}

const fn pack(handle: SlotHandle) -> u64 {
    (handle.slot as u64) << 32 | handle.epoch as u64
}

/// The number of this process, from the kernel: a forked child must not be told its parent's.
fn process() -> u32 {
    // SAFETY: takes nothing, changes nothing, cannot fail; a process number is positive.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

#[cfg(test)]
mod tests {
    use super::super::rotating::Rotation;
    use super::*;
    use crate::mapping::{Access, Revocation};

    #[test]
    fn ranges_are_half_open_and_end_with_their_owner() {
        let slot = Slot::claim(0x1000, 0x3000, None).unwrap();
        assert!(slot.contains(0x1000) && slot.contains(0x2fff));
        assert!(!slot.contains(0xfff) && !slot.contains(0x3000));
        slot.release();
        assert!(!slot.contains(0x1000) && !slot.contains(0));
    }

    #[test]
    fn only_addresses_of_slots_name_slots() {
        let slot = Slot::claim(0x1000, 0x2000, None).unwrap();
        assert!(std::ptr::eq(Slot::at(slot.address()).unwrap(), slot));
        let table = TABLE.as_ptr() as usize;
        for wrong in [0, 1, table - 16, slot.address() + 8, table + size_of_val(&TABLE), usize::MAX] {
            assert!(Slot::at(wrong).is_none());
        }
        slot.release();
    }

    fn rotating() -> Arc<Rotating> {
        let (channel, _) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let rotation = Rotation {
            channel: Arc::new(channel),
            handle: SlotHandle { slot: 3, epoch: 4 },
            first: 0,
            segment_bytes: 0x1000,
            wait: std::time::Duration::ZERO,
        };
        Arc::new(Rotating::new(rotation, 0x1000, 0x1000, Access::Read, Revocation::new()))
    }

    #[test]
    fn a_range_is_not_given_back_while_somebody_installs_into_it() {
        let rotating = rotating();
        let slot = Slot::claim(0x1000, 0x2000, Some(&rotating)).unwrap();
        let released = AtomicU32::new(0);
        let times_found = || {
            let mut found = 0;
            Slot::with_right(rotating.channel_number(), rotating.handle(), |_| found += 1);
            found
        };
        std::thread::scope(|scope| {
            Slot::with_right(rotating.channel_number(), rotating.handle(), |_| {
                scope.spawn(|| {
                    slot.release();
                    released.store(1, Ordering::Release);
                });
                // Long enough for a release that does not wait to be seen.
                for _ in 0..2_000 {
                    rustix::thread::sched_yield();
                    std::thread::sleep(std::time::Duration::from_micros(10));
                    assert_eq!(released.load(Ordering::Acquire), 0);
                }
                assert!(slot.contains(0x1000));
            });
        });
        assert_eq!(released.load(Ordering::Acquire), 1);
        assert_eq!(times_found(), 0);
    }

    #[test]
    fn a_right_is_found_by_its_channel_and_handle_together() {
        let (one, other) = (rotating(), rotating());
        let slot = Slot::claim(0x1000, 0x2000, Some(&one)).unwrap();
        let found = |channel: i32, handle| {
            let mut found = false;
            Slot::with_right(channel, handle, |rotating| found = std::ptr::eq(rotating, &raw const *one));
            found
        };
        assert!(found(one.channel_number(), one.handle()));
        assert!(!found(other.channel_number(), one.handle()));
        assert!(!found(one.channel_number(), SlotHandle { slot: 3, epoch: 5 }));
        slot.release();
        assert!(!found(one.channel_number(), one.handle()));
    }

    #[test]
    fn threads_never_share_a_slot() {
        let mut addresses: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..500)
                            .map(|_| Slot::claim(0x1000, 0x2000, None).unwrap().address())
                            .collect::<Vec<_>>()
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
