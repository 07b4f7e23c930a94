//! What the broker asks of a provider. In the all-in-one node the other end is in the same process.
//!
//! All that goes in and comes out has a form on the wire, so that the other end may be on another machine, but for two
//! things: [`Claimed::recorded`] is a second answer to the same question, which has to come as a message of its own; and
//! a session's number is that of the node that serves the client. The provider's notices go the other way, to
//! [`Handle::provider_notice`](super::Handle::provider_notice), and from the broker's own process to
//! [`Handle::notice`](super::Handle::notice).
//!
//! A link that loses the other end answers `E_UNREACHABLE` or `E_TIMEOUT`, in bounded time, and from then on nothing of
//! what it was given arrives any more: a renewal that arrives late would lengthen what the broker has told others is
//! ending.

use std::future::Future;
use std::pin::Pin;

use caps::Result;
use caps::id::LeaseId;
use caps::time::Micros;
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow, Tier};
use serde::{Deserialize, Serialize};

/// A future that a trait object can return.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a claim came to.
pub struct Claimed {
    /// Bytes that were committed: those of the ticket.
    pub bytes: u64,
    /// Ends when the provider's entry of the claim is durable. If it cannot be, the provider takes the memory back by
    /// itself, says so with a notice, and this ends with the error: so the broker can go on meanwhile, and waits for it
    /// before it answers.
    pub recorded: Boxed<'static, Result<()>>,
}

/// The provider's part of `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderStatus {
    /// Bytes of memory committed to regions, the ones being taken back included.
    pub committed_bytes: u64,
    /// Open sessions.
    pub sessions: u32,
    /// How strongly mappings of other uids are held.
    pub tier: Tier,
    /// Entries in the provider's log.
    pub entries: u64,
}

/// The broker's hand at a provider. Every future ends by itself, within bounds that the provider states, and runs to
/// its end whether or not somebody waits for it.
pub trait ProviderLink: Send + Sync {
    /// Turns a ticket into memory, for the session that will own it. Refused after `claim_by`.
    fn claim(&self, ticket: ClaimTicket, session: u64) -> Boxed<'_, Result<Claimed>>;

    /// Makes a lease's deadline `ttl` from now.
    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>>;

    /// Takes rights back. Answered when nothing of them can be reached. Doing it twice is no error: a lease that is
    /// being taken is waited for, one that is gone, or never came, is `E_LEASE_UNKNOWN`, and a ticket that was taken
    /// cannot be claimed.
    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>>;

    /// What the provider knows of a lease's memory; `None` if there is none. `E_UNREACHABLE` or `E_TIMEOUT`: it could not
    /// be asked.
    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>>;

    /// The provider's numbers, and with them that it is there.
    fn status(&self) -> Boxed<'_, Result<ProviderStatus>>;

    /// This life of the provider is over in the broker's books, and this link is let go: if it is still there, it is to
    /// take everything back and come as a new one. Returns at once; nothing is waited for.
    fn over(&self) {}
}
