//! Capability tokens, the wire types, and the closed error enum of Leasehold.
//!
//! This crate does no I/O and holds no `unsafe`. It is what both ends of every connection agree on, and the only
//! crate that [`libmem`](../libmem/index.html) shares with the broker and the provider.
//!
//! # Where things are
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | names of things: leases, regions, grants, principals, sessions. None of them carries authority |
//! | [`error`] | the closed set of stable error codes, and who is to blame for each |
//! | [`rights`], [`range`], [`time`] | the three dimensions in which a right can be narrowed |
//! | [`key`] | Ed25519 identities: secrets that erase themselves, public keys that are never weak |
//! | [`limits`] | the bounds of tokens and frames, each with unit and reason |
//! | [`token`] | the biscuit: gate, verify, effective rights, attenuate, seal, inspect |
//! | [`pop`] | the transcript by which a session proves that it holds a key |
//! | [`share`] | the contracts of `MEM_SHARE` and of a lease that changes its owner: the bytes that all parties sign |
//! | [`receipt`] | the signed proof of a revocation |
//! | [`wire`] | the frame and the messages of the local socket |
//!
//! # From bytes to authority
//!
//! ```text
//! bytes ──gate──▶ Gated ──verify──▶ VerifiedToken ──authorize(request, proof)──▶ Authorized
//!         │                │                         │
//!         │ size, shape,   │ every signature,        │ rights, range, time, hops,
//!         │ vocabulary     │ chain of holders        │ possession, cluster epoch
//! ```
//!
//! Each arrow is the only constructor of what stands at its head, so skipping a step does not compile.
#![forbid(unsafe_code)]

pub mod error;
mod hex;
pub mod id;
pub mod key;
pub mod limits;
pub mod pop;
pub mod range;
pub mod receipt;
pub mod rights;
pub mod share;
pub mod time;
pub mod token;
pub mod wire;

pub use error::{Blame, Code, Error, Result};
