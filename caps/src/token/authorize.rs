//! The decision, natively: one request against what a verified token leaves.
//!
//! This is what runs per open and per operation. The Datalog decision (`datalog.rs`) is the reference; a
//! differential test holds the two together.

use serde::{Deserialize, Serialize};

use super::terms::Effective;
use super::verify::VerifiedToken;
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, LeaseId, PrincipalKey, ProviderId, RegionId};
use crate::pop::Proven;
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

/// One question to a token. Exactly one operation on one range: a check passes if *any* matching fact satisfies it,
/// so two operations must never be asked at once.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What is to be done.
    pub operation: Operation,
    /// To which bytes.
    pub range: ByteRange,
    /// The verifier's wall clock.
    pub now: UnixMicros,
    /// The key that this session has proven.
    pub proven: Proven,
    /// The lease that is used.
    pub lease: LeaseId,
    /// The region that is used.
    pub region: RegionId,
    /// The verifier's life of the control plane.
    pub cluster: ClusterEpoch,
    /// The verifier's own life as a provider.
    pub provider: ProviderId,
    /// What the verifier counts. `None` says that it does not count, and refuses every token that needs counting.
    pub usage: Option<Usage>,
}

/// What a verifier has counted for this token, the request included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How often the right has been opened, this time included.
    pub opens: u64,
    /// To how many bytes a second the verifier holds this session.
    pub bytes_per_second: u64,
    /// How many bytes have been moved, this request's included.
    pub bytes_total: u64,
}

impl Usage {
    /// For a verifier that judges the limits on use by counts of its own, one for each of
    /// [`VerifiedToken::meters`]: to the token nothing is used yet, so none of these limits refuses here. Whoever
    /// passes it has to count, because nobody else does.
    #[must_use]
    pub const fn judged_by_meters() -> Self {
        Self { opens: 0, bytes_per_second: 0, bytes_total: 0 }
    }
}

/// The limit that a request fell outside of. Its name is what a log and an error say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The session has proven another key than the holder's.
    Holder,
    /// The token is of another life of the control plane.
    Cluster,
    /// The token's time is over.
    Expires,
    /// The token's time has not begun.
    NotBefore,
    /// The token was delegated more often than it allows.
    Hops,
    /// Another lease.
    Lease,
    /// Another region.
    Region,
    /// Another provider.
    Provider,
    /// The operation is not among the rights.
    Rights,
    /// A byte outside the range.
    Range,
    /// Opened too often, or nobody counts opens.
    Opens,
    /// Faster than allowed, or nobody holds the session to a rate.
    Rate,
    /// More bytes than allowed, or nobody counts bytes.
    Budget,
}

impl Limit {
    /// The stable code of a refusal at this limit.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Holder => Code::TokenBound,
            Self::Cluster => Code::Epoch,
            Self::Expires => Code::TokenExpired,
            Self::NotBefore => Code::TokenNotYet,
            Self::Hops
            | Self::Lease
            | Self::Region
            | Self::Provider
            | Self::Rights
            | Self::Range
            | Self::Opens
            | Self::Rate
            | Self::Budget => Code::Denied,
        }
    }

    /// What happened, beginning with the limit's name.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Holder => "holder: the token is bound to another key than this session proved",
            Self::Cluster => "cluster: the token is of another life of the control plane",
            Self::Expires => "expires: the token's time is over",
            Self::NotBefore => "not_before: the token's time has not begun",
            Self::Hops => "hops: the token was delegated more often than it allows",
            Self::Lease => "lease: the token is for another lease",
            Self::Region => "region: the token is for another region",
            Self::Provider => "provider: the token is for another provider",
            Self::Rights => "rights: the token does not allow this operation",
            Self::Range => "range: the token does not allow all of these bytes",
            Self::Opens => "opens: the token was opened as often as it allows",
            Self::Rate => "rate: the token allows fewer bytes a second",
            Self::Budget => "budget: the token allows no more bytes",
        }
    }
}

impl From<Limit> for Error {
    fn from(limit: Limit) -> Self {
        Self::new(limit.code(), limit.detail())
    }
}

/// Evidence that a token allows one operation on one range. Made by [`VerifiedToken::authorize`] and by the Datalog
/// reference, and nowhere else. It says nothing about revocation: that is the provider's to check, and to check
/// again.
///
/// ```compile_fail
/// fn forge(honest: caps::token::Authorized, range: caps::range::ByteRange) -> caps::token::Authorized {
///     caps::token::Authorized { range, ..honest }
/// }
/// ```
/// ```
/// fn honest(token: &caps::token::VerifiedToken, request: &caps::token::Request) -> caps::Result<caps::token::Authorized> {
///     token.authorize(request)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an authorization that nobody looks at protects nothing"]
pub struct Authorized {
    operation: Operation,
    range: ByteRange,
    lease: LeaseId,
    region: RegionId,
    holder: PrincipalKey,
    effective: Effective,
}

impl Authorized {
    /// The operation that was allowed.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.operation
    }

    /// The bytes that were allowed.
    #[must_use]
    pub const fn range(&self) -> ByteRange {
        self.range
    }

    /// The lease.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The region.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.region
    }

    /// The holder, whose key was proven.
    #[must_use]
    pub const fn holder(&self) -> PrincipalKey {
        self.holder
    }

    /// What the token leaves, the deadline and the counters included.
    #[must_use]
    pub const fn effective(&self) -> &Effective {
        &self.effective
    }
}

impl VerifiedToken {
    /// Decides one request.
    ///
    /// The first limit that fails is reported. Whoever is not the holder learns nothing but that.
    ///
    /// # Errors
    /// `E_TOKEN_BOUND`, `E_EPOCH`, `E_TOKEN_EXPIRED`, `E_TOKEN_NOT_YET`, or `E_DENIED` with the limit's name first in
    /// the detail; see [`Limit`].
    pub fn authorize(&self, request: &Request) -> Result<Authorized> {
        match self.refusal(request) {
            None => Ok(self.evidence(request)),
            Some(limit) => Err(limit.into()),
        }
    }

    /// The first limit that a request falls outside of, if any: [`Self::authorize`] for who wants the limit itself.
    #[must_use]
    pub fn refusal(&self, request: &Request) -> Option<Limit> {
        let (terms, left) = (&self.terms, &self.effective);
        // A token without such a limit asks for no counter; with one, nobody who does not count may serve it.
        let counted = |most: Option<u64>, count: fn(&Usage) -> u64| {
            most.is_none_or(|most| request.usage.as_ref().is_some_and(|usage| count(usage) <= most))
        };
        let checks = [
            (Limit::Holder, request.proven.holder() == self.chain.holder),
            (Limit::Cluster, request.cluster == terms.cluster),
            (Limit::Expires, request.now < left.expires),
            (Limit::NotBefore, left.not_before <= request.now),
            (Limit::Hops, left.hops <= left.max_hops),
            (Limit::Lease, request.lease == terms.lease),
            (Limit::Region, request.region == terms.region),
            (Limit::Provider, request.provider == terms.provider),
            (Limit::Rights, left.rights.contains(Rights::of(request.operation))),
            (Limit::Range, left.range.is_some_and(|range| range.contains(request.range))),
            (Limit::Opens, counted(left.opens, |usage| usage.opens)),
            (Limit::Rate, counted(left.bytes_per_second, |usage| usage.bytes_per_second)),
            (Limit::Budget, counted(left.bytes_total, |usage| usage.bytes_total)),
        ];
        checks.into_iter().find(|(_, holds)| !holds).map(|(limit, _)| limit)
    }

    /// Evidence, for the two deciders of this module's family.
    pub(super) const fn evidence(&self, request: &Request) -> Authorized {
        Authorized {
            operation: request.operation,
            range: request.range,
            lease: self.terms.lease,
            region: self.terms.region,
            holder: self.chain.holder,
            effective: self.effective,
        }
    }
}
