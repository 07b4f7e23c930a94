//! The control plane: who may have which memory, for how long, shared with whom.
#![forbid(unsafe_code)]

pub mod state;
