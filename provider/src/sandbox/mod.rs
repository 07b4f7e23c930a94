//! Sandboxes: which system calls a process of ours, or one that we start, may make.
//!
//! | file | holds |
//! |---|---|
//! | `rule` | one line of a list: a call, what its arguments must be, and why it is there |
//! | `filter` | lists become programs for the kernel |
//! | [`program`] | the list of a program that `leasehold run` starts, and what kills it |
//! | `files` | the few files such a program may read |
//! | `threads` | the flags that make a thread and not a process |
//! | `launch` | from the process that has the keys to the program that must not have them |
//! | [`node`], [`factory`] | the lists of the node and of the guardian |
//!
//! A call that is on no list: a program in the sandbox is told that the kernel has no such call (`ENOSYS`), for which
//! C libraries are prepared; a call that is an attack ends it. Our own processes have no reason ever to make a call
//! that is not on their list, so it ends them, and the guardian cuts what the node leaves.

pub mod factory;
mod files;
mod filter;
#[allow(unsafe_code)]
// descriptors are moved to fixed numbers, right before the process becomes another program
mod launch;
pub mod node;
pub mod program;
mod rule;
mod threads;

pub use launch::{Launch, SESSION_FD, TOKENS_MAX, confine_this_client, give_up_privileges};
pub use rule::{Arg, Rule};

pub(crate) use filter::confine_this_process;
