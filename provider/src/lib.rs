//! The kernel of Leasehold: it owns the memory, hands it out, and takes it back.
//!
//! Files: [`factory`] is the small process that makes private file systems and guards them; [`mem`] turns one into a
//! region that can be mapped, cut and wiped. Unsafe code stands in these two alone, file by file.
#![deny(unsafe_code)]

pub mod factory;
pub mod mem;
