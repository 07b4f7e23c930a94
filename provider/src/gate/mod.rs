//! The local gate: a Unix `SEQPACKET` socket on which clients prove a key, ask, and receive descriptors.
//!
//! ```text
//!   accept ──▶ peer identity ──▶ Hello / Challenge / Prove / Welcome ──▶ requests, one at a time, in order
//!    uid on the    SO_PEERCRED,       possession of a key, once                │            │
//!    allow-list?   SO_PEERPIDFD                                                ▼            ▼
//!                                                                        ControlPlane   Provider
//!                                                                        (the broker)   (memory)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `listen` | the socket's path, its permissions, accepting, bounds on sessions |
//! | `peer` | who is at the other end, and how it died |
//! | `executable` | which program it runs |
//! | `socket` | packets in and out, a descriptor beside one |
//! | `fuzzing` | what must hold of a session's beginning, whatever a client says |
//! | `handshake` | the pure state machine of a session's beginning |
//! | `session` | one client's session from accept to end |
//! | `fault` | what a client did wrong, on record, and what follows |
//! | `refusals` | how often a principal was refused by its quota lately |
//! | `rejects` | refusals in the log, gathered so that nobody can fill it |
//! | `answered` | the changing requests that were answered last, so that asking again is no second effect |
//! | `visitor` | a client with a proven key, whichever way it speaks |
//! | `rights` | what a session remembers of the rights that it opened |
//! | `memory` | rights to memory: opened, closed, refused |
//! | `access` | bytes and descriptors over the local socket |
//! | `check` | what a token is worth now, for those whom it concerns |
//! | `quarantine` | the administrator's requests about dead memory that is kept |
//! | `revoke` | the request to take back a token below its grant |
//! | `roots` | the administrator's requests about root keys |
//! | `wrap`, `wraps` | tokens that are handed over through the node, each fetched once |
//! | `channel` | fresh segments for those who keep their rights through a rotation |
//! | `verified` | the tokens that were verified lately, within a bound of bytes |
//! | `verify_pool` | whose token is verified next |
//! | `remote` | the same over TLS, and bytes with it |
//!
//! A client can make the gate work on its own session only: every packet is bounded, every wait has a deadline, and
//! a session has one request in work at a time. What it sends as a descriptor is never received.

mod access;
mod answered;
mod channel;
mod check;
mod executable;
mod fault;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod listen;
mod memory;
mod peer;
mod quarantine;
mod refusals;
mod rejects;
#[cfg(feature = "remote")]
pub mod remote;
mod revoke;
mod rights;
mod roots;
mod session;
mod socket;
mod verified;
mod verify_pool;
mod visitor;
mod wrap;
mod wraps;

use std::future::Future;
use std::pin::Pin;

use caps::error::Result;
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::token::Cut;
use caps::wire::{Name, Reason, Reply, Request};

pub use listen::{Gate, GateConfig};
pub use peer::{Exit, Peer};

/// Who asks: facts that the gate established, none of them the client's word.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The key that the session proved.
    pub holder: PrincipalKey,
    /// The uid of its process, if it is one of this machine's.
    pub uid: Option<u32>,
    /// The session, numbered from the node's start.
    pub session: u64,
}

/// A future that can be sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What answers the requests that are not about memory. The broker's runtime, in the all-in-one node.
pub trait ControlPlane: Send + Sync {
    /// Answers one request.
    fn request(&self, caller: Caller, request: Request) -> BoxFuture<'_, Result<Reply>>;

    /// The registered name of a key, and whether it is the administrator's.
    fn principal(&self, key: PrincipalKey) -> BoxFuture<'_, (Option<Name>, bool)>;

    /// Whether the policy lets the caller open a right to `bytes` bytes. Asked on every opening, with a token that
    /// was verified.
    ///
    /// # Errors
    /// `E_POLICY_DENIED`, or why it could not be decided.
    fn may_open(&self, caller: Caller, bytes: u64, rights: Rights, hops: u8) -> Result<()>;

    /// What a principal may have open, and all else that it may hold. Asked on every opening, for who pays for it.
    fn quota(&self, principal: PrincipalKey) -> policy::Quota;

    /// Takes back everything that a principal holds: the operator's reaction to a fault of its.
    fn revoke_holder(&self, holder: PrincipalKey) -> BoxFuture<'_, Result<()>>;

    /// Takes back one block of a token that the caller showed, and that was verified.
    fn revoke_token(&self, caller: Caller, cut: Cut, reason: Reason) -> BoxFuture<'_, Result<Reply>>;

    /// A session is over: what was tied to it ends.
    fn session_ended(&self, session: u64);
}
