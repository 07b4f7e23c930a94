//! The memory mechanism: regions that can be mapped by other processes and taken back from all of them at once.
//!
//! ```text
//!            Memory::region(bytes)                              Region::cut, shut, wipe, close
//!  ─────────────────────────────────────────────          ─────────────────────────────────────────
//!  1 factory   a private tmpfs, its file, empty             1 (the caller fences the holders)
//!  2 here      fallocate: the pages, or a refusal           2 cut    ftruncate(0): every mapping of every
//!  3 here      map 2 MiB aligned, pin, unmap                         process loses its pages, SIGBUS from now on
//!  4 here      seal: FS_IMMUTABLE_FL                        3 shut   nobody can refill the dead file
//!  5 later     a descriptor for each client that opens      4 wipe   zeros into the orphaned pages, by the pin
//!                                                           5 close  unpin, close, forget
//! ```
//! All that taking back needs is done in the left column, before any client has a descriptor: the right column
//! allocates, faults and pins nothing. There is no free list: **fresh memory** is all a region ever gets, zeroed by the
//! kernel, and its pages go back to the kernel at the end.
//!
//! A sealed region, all of it (picture with the clients at [`Region`]):
//!
//! ```text
//!  offset 0                                                                 len (whole pages)
//!  ├── page ──┼── page ──┼── ... (2 MiB pages from 2 MiB on) ... ──┼── page ──┤   tmpfs file, limit = len
//!  ├──────────────── piece 0, at most 1 GiB ──────────┼────── piece 1 ... ───┤   slots of the pin
//!  open regions have one page more in their file system, the plug, so that the limit can be lowered onto it
//! ```
//!
//! Files: `memory` what a provider starts, `region` the life of a region, `pin` the io_uring tables, `pipes` the weaker hold without them, `mapping` one
//! mapping, `words` words that are changed through it and `turn` what keeps that apart from a cut, `seal` and `fuse` the mmap-only descriptor, `opener` descriptors without the right to
//! truncate, `canary` the mapping that a cut must kill, `backing` which pages
//! the kernel gave, `capabilities` what this machine can do, `process` and `rt` what the node sets on itself.

mod backing;
mod canary;
mod capabilities;
mod fuse;
mod mapping;
mod memory;
mod opener;
mod pin;
mod pipes;
mod present;
pub mod process;
mod region;
pub mod rt;
mod seal;
mod turn;
mod words;

pub use capabilities::{Capabilities, Check};
pub use caps::wire::row::Tier;
pub use memory::{Memory, Strength};
pub use pin::{PIECE_BYTES_MAX, PinCoverage, PinTable, SLOTS_PER_RING_MAX};
pub use region::{Access, Cut, Holder, Region, Shut};
pub use words::{Change, WORD_BYTES};
