//! Leases: what to ask for, and what one gets.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::receipt::Receipt;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::Name;
use caps::wire::request::LeaseSpec;
use caps::wire::row::{LeaseRow, Lifetime, MemoryRow};

/// What a lease should be. Size and time are mandatory: there is no lease without an end.
///
/// ```
/// use std::time::Duration;
/// use libmem::{LeaseOptions, Lifetime};
///
/// let options = LeaseOptions::new(64 << 20, Duration::from_secs(600))
///     .name("frames")?
///     .lifetime(Lifetime::Detached);
/// # Ok::<(), libmem::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    bytes: u64,
    ttl: Duration,
    name: Option<Name>,
    class: Option<Name>,
    lifetime: Lifetime,
    segment_bytes: Option<u64>,
    max_hops: u8,
    near: Option<Name>,
}

impl LeaseOptions {
    /// `bytes` (rounded up to whole pages by the node) for `ttl`, ending with this process.
    #[must_use]
    pub fn new(bytes: u64, ttl: Duration) -> Self {
        Self {
            bytes,
            ttl,
            name: None,
            class: None,
            lifetime: Lifetime::Process,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        }
    }

    /// What the owner calls it; unique among the owner's live leases.
    ///
    /// # Errors
    /// `E_RANGE` if the text is no name.
    pub fn name(mut self, name: &str) -> Result<Self> {
        self.name = Some(Name::new(name)?);
        Ok(self)
    }

    /// Its priority class, a fact for the node's policy.
    ///
    /// # Errors
    /// `E_RANGE` if the text is no name.
    pub fn class(mut self, class: &str) -> Result<Self> {
        self.class = Some(Name::new(class)?);
        Ok(self)
    }

    /// Whether the lease ends with this process ([`Lifetime::Process`], the default) or only with its time.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Bytes of a segment, the piece that is mapped and cut as one: a power of two from a page to 1 GiB. Rights to a part
    /// of the lease can be mapped where they fall on segments, and taking a right from one of several holders interrupts
    /// the others for as long as copying a segment takes. The node decides if this is not said: the whole lease is
    /// one segment, or as few as possible.
    #[must_use]
    pub fn segment(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// How often the lease's own token may be delegated, offline and without the receiver's consent. 0 if this is not
    /// said: then the memory is shared by grants alone, which both sign and which can be revoked one by one.
    #[must_use]
    pub fn max_hops(mut self, max_hops: u8) -> Self {
        self.max_hops = max_hops;
        self
    }

    /// Where it should be: the label of a locality, such as a room or a zone, that the operator gave to providers. A wish: it
    /// is taken elsewhere before it is refused.
    ///
    /// # Errors
    /// `E_RANGE` if the text is no name.
    pub fn near(mut self, locality: &str) -> Result<Self> {
        self.near = Some(Name::new(locality)?);
        Ok(self)
    }

    /// What its owner will call it.
    pub(crate) const fn lease_name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// As [`Self::new`], for whoever learns the size later.
    pub(crate) fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    pub(crate) fn spec(self) -> Result<LeaseSpec> {
        let Self { bytes, ttl, name, class, lifetime, segment_bytes, max_hops, near } = self;
        Ok(LeaseSpec { bytes, ttl: micros(ttl)?, name, class, lifetime, segment_bytes, max_hops, near })
    }
}

/// A span as it travels.
///
/// # Errors
/// `E_RANGE` if it does not fit; whatever else is too long or too short the node says, which knows its bounds.
pub(crate) fn micros(span: Duration) -> Result<Micros> {
    u64::try_from(span.as_micros())
        .map(Micros)
        .map_err(|_| Error::new(Code::Range, "a span has at most 2^64 - 1 microseconds"))
}

/// A lease and the capability that opens it.
#[derive(Clone)]
pub struct Leased {
    /// The row, as lists show it. No authority is in it.
    pub lease: LeaseRow,
    /// The capability, bound to the key of the session that asked.
    pub token: Token,
}

// By hand: a token belongs in no trace.
impl std::fmt::Debug for Leased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leased").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// A lease with what the provider knows of its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// What the broker knows.
    pub lease: LeaseRow,
    /// What the provider knows; `None` once the memory is gone.
    pub memory: Option<MemoryRow>,
}

/// The answer to a release or a revoke, checked as far as a client can.
///
/// A client has no other source for the node's receipt key, so what is checked here is that the receipt is whole and
/// signed by the key it names. An auditor compares that key with the node's.
///
/// # Errors
/// `E_CONTRACT_SIG` if the signature does not verify.
pub(crate) fn checked(receipt: Receipt) -> Result<Receipt> {
    receipt.verify(receipt.body.issuer)?;
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_spec() {
        let spec = LeaseOptions::new(4096, Duration::from_millis(5)).name("n").unwrap().class("c").unwrap();
        let spec = spec.near("room-1").unwrap().spec().unwrap();
        assert_eq!(spec.near.unwrap().as_str(), "room-1");
        assert_eq!((spec.bytes, spec.ttl, spec.lifetime), (4096, Micros(5_000), Lifetime::Process));
        assert_eq!(spec.segment_bytes, None);
        assert_eq!(spec.name.unwrap().as_str(), "n");
        let spec = LeaseOptions::new(1, Duration::ZERO).segment(8192).spec().unwrap();
        assert_eq!(spec.segment_bytes, Some(8192));
        assert!(LeaseOptions::new(1, Duration::ZERO).name("a/b").is_err());
        assert_eq!(LeaseOptions::new(1, Duration::MAX).spec().unwrap_err().code(), Code::Range);
    }
}
