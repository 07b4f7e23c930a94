//! The remote gate: the verbs of the data plane over TLS, and the requests of the local socket inside one of them.
//!
//! | file | holds |
//! |---|---|
//! | `job` | one data request under way: begun, fed, run until it is answered |
//! | `read`, `write`, `batch`, `stat` | its verbs |
//!
//! What has left a connection and what must not leave any more is in [`crate::runtime::Outgoing`].

mod batch;
mod job;
mod read;
mod stat;
mod write;
