//! The client library: leased memory in your process.
//!
//! # From a lease to a byte, and what a revoke does to it
//!
//! ```text
//! provider ──descriptor of each segment──▶ session ──Segment──▶ Mapping::new ──▶ Mapping
//!                                            │                  checks what         │ read_at, write_at, load_u64, ...
//!                                            │                  it was sent         ▼
//!                                            │                                  guard: copies that survive a cut
//!                                            │                                      │
//! revoke ──▶ provider cuts the pages ────────┼───────────── SIGBUS ────────────────▶ Err(E_REVOKED)
//! provider hangs up ─────────────────────────┴─ Revocation ────────────────────────▶ Err(E_REVOKED)
//! ```
//!
//! # Files, in reading order
//!
//! | file | what |
//! |---|---|
//! | [`mapping`] | leased memory as one range of addresses: guarded, volatile and raw access |
//! | `mapping/descriptor` | what a received descriptor must be |
//! | `mapping/reservation` | who owns which addresses |
//! | `mapping/volatile` | the safe view for raw access |
//! | `guard` | the routines that survive a cut, and the SIGBUS handler: table, assembly, decision |
//!
//! # What happens to SIGBUS in your process
//!
//! The first mapping installs a handler. It absorbs faults of guarded access to leased memory and nothing else; every other
//! SIGBUS goes to the handler that was there before, or ends the process as it would have. A handler that you install
//! *later* replaces it: keep the action that `sigaction` returns, and call it for faults that are not yours. Each thread's
//! first guarded access unblocks SIGBUS for that thread, because Linux kills a process that faults while the signal is blocked.
#![deny(unsafe_code)]

#[allow(unsafe_code)] // assembly, the signal handler, and calls between the two
mod guard;
#[allow(unsafe_code)] // mmap, munmap, and slices of what they gave
pub mod mapping;

pub use mapping::{Access, Mapping, Revocation, Segment, Volatile};
