//! The kernel of Leasehold.
#![deny(unsafe_code)]

pub mod kernel;
pub mod slot;
