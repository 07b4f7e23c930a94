//! The remote gate: the verbs of the data plane over TLS, and the requests of the local socket inside one of them.
//!
//! | file | holds |
//! |---|---|
//! | `job` | one data request under way: begun, fed, run until it is answered |
//! | `read`, `write`, `batch`, `stat` | its verbs |
//! | `words` | words that are compared and swapped, or added to |
//! | `leases` | leases made with their first bytes, and given back, many at a time |
//! | `effects` | what clients asked for last that cannot be done twice, and what they were answered |
//! | `fingerprint` | what such a request is told apart by |
//! | `keeping` | an answer kept before it leaves, and sent again |
//! | `trial` | requests without a socket, for tests and measurements |
//!
//! What has left a connection and what must not leave any more is in [`crate::runtime::Outgoing`].

mod batch;
mod effects;
mod fingerprint;
mod job;
mod keeping;
mod leases;
mod read;
mod stat;
#[doc(hidden)]
pub mod trial;
mod words;
mod write;
