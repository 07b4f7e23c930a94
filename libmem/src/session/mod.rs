//! One session with a node: a socket, a proven key, and requests that are answered in order.
//!
//! ```text
//!  Client (blocking)   aio::Client          Region, Mediated
//!        │ waits by poll  │ waits by AsyncFd      │ asks "hung up?", closes on drop
//!        └───────┬────────┘                       │
//!                ▼                                ▼
//!              Link ◀── hangup: a thread that notices it while nobody asks anything, and reads the rotation channel
//!                │ never waits
//!        ┌───────┴────────┐
//!        ▼                ▼
//!    Protocol          socket
//!    (no I/O)          (one packet at a time, at most one descriptor)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`protocol`] | numbers requests, checks every rule about what may come back; no I/O |
//! | [`handshake`] | hello, challenge, proof, welcome; no I/O |
//! | [`fuzzing`] | what must hold of the protocol, whatever a node says |
//! | [`socket`] | connect, send a packet, receive a packet with room for exactly one descriptor |
//! | [`link`] | both together, without ever waiting; closing what was dropped |
//! | [`hangup`] | a node that is gone: the flag, the mappings it revokes, the thread that notices; it also takes fresh segments |

#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod handshake;
pub(crate) mod hangup;
pub(crate) mod link;
pub(crate) mod protocol;
pub(crate) mod socket;
