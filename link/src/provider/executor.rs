//! What is asked of a provider.

use broker::runtime::{Boxed, Claimed, ProviderStatus};
use caps::error::Result;
use caps::id::LeaseId;
use caps::time::Micros;
use caps::wire::cluster::Fact;
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow};

use crate::Facts;

/// Who does what a broker asks. As [`broker::runtime::ProviderLink`], from the other end: every future ends by itself, and
/// runs to its end whether or not the link is still there; the answer is dropped then.
pub trait Executor: Send + Sync {
    /// Turns a ticket into memory. The session that will own it is none of this process'.
    ///
    /// # Errors
    /// What the broker is told. Refused after `claim_by`.
    fn claim(&self, ticket: ClaimTicket) -> Boxed<'_, Result<Claimed>>;

    /// Makes a lease's deadline `ttl` from now.
    ///
    /// # Errors
    /// What the broker is told.
    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>>;

    /// Takes rights back. Doing it twice is no error, and a broker that lost the link does it twice.
    ///
    /// # Errors
    /// What the broker is told.
    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>>;

    /// What there is of a lease's memory.
    ///
    /// # Errors
    /// What the broker is told.
    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>>;

    /// How it is.
    ///
    /// # Errors
    /// What the broker is told.
    fn status(&self) -> Boxed<'_, Result<ProviderStatus>>;

    /// Everything that it has to know, before it joins and each time it joins again: what it knew before and is not here is
    /// over. A root key that is here no more is to be taken back, as with [`Self::fact`].
    ///
    /// # Errors
    /// If it cannot be gone on with, such as a policy that comes to another hash. The link ends, and is tried again.
    fn facts(&self, facts: Facts) -> Boxed<'_, Result<()>>;

    /// Something changed. One at a time, in the order of the changes; the broker counts on it once this is answered.
    ///
    /// # Errors
    /// As [`Self::facts`].
    fn fact(&self, fact: Fact) -> Boxed<'_, Result<()>>;
}
