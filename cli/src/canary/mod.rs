//! The revocation canary: two clients of the node's own that try, again and again, whether a revocation does what its
//! receipt says.
//!
//! ```text
//!  up ──starts──▶ canary, another process, confined like a program of `leasehold run`
//!   │                ├── owner session:    leases a page, offers it, revokes the grant, still has its bytes
//!   │                └── receiver session: accepts, maps, touches until it is refused
//!   │                      │ the node's own socket, the gate, keys of their own, guarded access: as any client
//!   └──◀── one line a run ─┘
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `line` | what node and canary say to each other |
//! | `measure` | one revocation, measured from both ends |
//! | `pair` | the two clients, and what a run is made of |
//! | `keeper` | the node's side: starts it, listens, keeps the numbers |
//!
//! It is a process of its own so that the node's list of system calls stays as short as it is: the node never connects
//! to anybody and never maps as a client does. What it costs: two of the sessions that are kept for the node's own
//! user, a page of the pool and room to copy it, and the entries of each run. The lease is kept from run to run, so a
//! pool that is full does not stop the canary, and the canary asks nobody's place again. A run that the node refuses
//! (`E_BUSY`, `E_AUDIT_UNAVAILABLE`) is no failed run: it is counted apart, and shown.

mod keeper;
mod line;
mod measure;
mod pair;

pub(crate) use keeper::{Canary, Health, Keeper, NAMES, quota};
pub(crate) use pair::play;
