//! Words and rings in leased memory by which processes wait for one another, and which survive a rotation and a
//! peer's death.
//!
//! | | what | who may write |
//! |---|---|---|
//! | [`Event`] | a count that goes up, and those who wait for it | who notifies |
//! | [`Lock`] | mutual exclusion whose owner may die | everyone |
//! | [`ring::spsc`] | messages from one to one | each end its own part |
//! | [`ring::mpsc`] | messages from many to one: a lane each | each end its own part |
//!
//! # Why not a futex
//!
//! When one of several holders is revoked, the kernel takes the segment's pages out of every mapping, and the others get the same
//! bytes in a fresh file at the same address (a *rotation*). An access just goes on. A futex does not: the kernel
//! knows it by its file, so who sleeps through the old file is never found through the new one. So here
//!
//! - every sleeper also sleeps on a private word that each rotation in this process changes;
//! - it looks at its word again at least every **50 ms**, under guard. In a process where everybody sleeps
//!   nothing else would touch the memory and so notice the rotation, or the revoke;
//! - a wake-up that finds the pages gone touches the word, which brings them back, and is sent again.
//!
//! What a lost wake-up can cost (the peer died before it, or never meant to send it) is those 50 ms.
//!
//! # What peers can do
//!
//! Everything in the memory is a claim of whoever may write there. Each value is read once, checked, and only then used; no
//! index from the memory leads outside its mapping; every loop is bounded by a count or by the caller's time-out.
//! So a hostile peer can deny service on what it may write to, and send false messages as itself. It cannot
//! make this process touch other memory, wait for longer than it said, or grow. What it may write to is what it
//! was given: [`ring`] says how to give each end its own part.
//!
//! # Files, in reading order
//!
//! | file | what |
//! |---|---|
//! | `limits` | every bound, with its reason |
//! | `event`, `lock` | the two words |
//! | `ring/shape`, `ring/spsc`, `ring/mpsc` | where a lane lies; its two ends; many lanes |
//! | `doorbell` | when a writer must make a system call; model-checked |
//! | `word`, `futex`, `rotation` | one guarded word; sleep and wake; the word that ends every sleep |
//! | `deadline` | when a wait is over |

mod deadline;
mod doorbell;
mod event;
#[allow(unsafe_code)] // system calls with addresses of leased memory, which no reference may stand for
mod futex;
pub mod limits;
mod lock;
pub mod ring;
pub(crate) mod rotation;
mod word;

#[cfg(test)]
#[allow(unsafe_code)] // a mapping put over another one
mod testing;

pub use event::Event;
pub use lock::{Lock, LockGuard};

use crate::mapping::Mapping;
use crate::region::Region;

/// Whatever owns or lends mapped memory: a [`Mapping`], a [`Region`], a reference to one, or an `Arc` of one.
pub trait Mapped {
    /// The memory.
    fn mapping(&self) -> &Mapping;
}

impl Mapped for Mapping {
    fn mapping(&self) -> &Mapping {
        self
    }
}

impl Mapped for Region {
    fn mapping(&self) -> &Mapping {
        Self::mapping(self)
    }
}

impl<M: Mapped + ?Sized> Mapped for &M {
    fn mapping(&self) -> &Mapping {
        (**self).mapping()
    }
}

impl<M: Mapped + ?Sized> Mapped for std::sync::Arc<M> {
    fn mapping(&self) -> &Mapping {
        (**self).mapping()
    }
}
