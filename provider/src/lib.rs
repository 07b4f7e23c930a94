//! The kernel of Leasehold: it owns the memory and every mapping, hands memory out, and takes it back at once.
//!
//! ```text
//!            clients                                broker
//!               │ SEQPACKET, descriptors               │ claim, renew, take
//!               ▼                                      ▼
//!            gate ──────────────▶ runtime ◀────────────┘
//!                                  │   ▲
//!                       events     ▼   │ effects
//!                                 kernel            pure: no clock, no descriptor, no thread
//!                                  │
//!                                  ▼
//!                                 mem ───────▶ factory   another process: makes file systems, and cuts
//!                                                        everything when this one dies
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`kernel`] | the tables: regions, open rights, deadlines; a pure step from event to effects |
//! | [`slot`] | the word that fences operations, model-checked |
//! | [`runtime`] | executes effects: threads that cut and wipe, the timer, the records |
//! | [`gate`] | the local socket: identity, proof of possession, requests |
//! | [`mem`] | a region of memory from its first page to its wipe |
//! | [`factory`] | the small process that makes private file systems and guards them |
//! | [`sandbox`] | which system calls the node, the guardian, and a client that `leasehold run` starts may make |
//!
//! What this defends, against whom, which test tries it, and where it stops: `docs/threat-model.md`.
//!
//! Unsafe code stands in `mem`, in `factory` and in the files `sys` and `sandbox/launch`, each block with the facts it relies on.
#![deny(unsafe_code)]

pub mod factory;
pub mod gate;
pub mod kernel;
pub mod mem;
pub mod runtime;
pub mod sandbox;
pub mod slot;
mod sys;

pub use sys::watch;
