//! What a token says, as plain values: the terms of a lease, how a block narrows them, and what is left.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId};
use crate::key::VerifyingKey;
use crate::limits::TOKEN_HOPS_MAX;
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::UnixMicros;

/// Largest integer that a token's Datalog can hold.
pub(super) const INTEGER_MAX: u64 = i64::MAX as u64;

/// The authority block: what the broker grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The lease.
    pub lease: LeaseId,
    /// The region of that lease.
    pub region: RegionId,
    /// The `MEM_SHARE` that this token comes from, if it is not the owner's.
    pub grant: Option<GrantId>,
    /// To which bytes of the region.
    pub range: ByteRange,
    /// What the holder may do.
    pub rights: Rights,
    /// Whose key must be proven.
    pub holder: PrincipalKey,
    /// From when on, in Unix microseconds.
    pub not_before: UnixMicros,
    /// Until just before when, in Unix microseconds.
    pub expires: UnixMicros,
    /// How often it may be delegated. 0 forbids it.
    pub max_hops: u8,
    /// The life of the control plane that it belongs to.
    pub cluster: ClusterEpoch,
    /// The life of the provider that holds the memory.
    pub provider: ProviderId,
}

impl Terms {
    /// Checks what a token cannot express or must not promise.
    ///
    /// # Errors
    /// `E_RANGE` for no rights, an empty or too late time, more than [`TOKEN_HOPS_MAX`] hops, or a holder's key that
    /// is no point of full order.
    pub fn check(&self) -> Result<()> {
        if self.rights.is_empty() {
            return Err(Error::new(Code::Range, "a token needs at least one right"));
        }
        if self.not_before >= self.expires || self.expires > UnixMicros::MAX {
            return Err(Error::new(
                Code::Range,
                "a token needs not_before < expires <= 2^63 - 1 microseconds",
            ));
        }
        if self.max_hops > TOKEN_HOPS_MAX {
            return Err(Error::new(Code::Range, "a token has room for at most 7 delegations"));
        }
        VerifyingKey::parse(self.holder).map(drop)
    }

    /// What the holder of the token may do as long as no block narrows it.
    #[must_use]
    pub const fn effective(&self) -> Effective {
        Effective {
            rights: self.rights,
            range: Some(self.range),
            not_before: self.not_before,
            expires: self.expires,
            hops: 0,
            max_hops: self.max_hops,
            opens: None,
            bytes_per_second: None,
            bytes_total: None,
        }
    }
}

/// How to narrow a token. `None` leaves a dimension as it is.
///
/// A value wider than what the token has left is refused when the block is made; an equal one is written down. (A
/// wider check in a block that somebody else made is harmless: every check of every block must hold.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Narrow {
    /// Keep these rights.
    #[serde(default)]
    pub rights: Option<Rights>,
    /// Keep these bytes of the region.
    #[serde(default)]
    pub range: Option<ByteRange>,
    /// End earlier, in Unix microseconds.
    #[serde(default)]
    pub expires: Option<UnixMicros>,
    /// Begin later, in Unix microseconds.
    #[serde(default)]
    pub not_before: Option<UnixMicros>,
    /// How many more delegations are allowed after this block.
    #[serde(default)]
    pub max_hops: Option<u8>,
    /// How often the right may be opened in all.
    #[serde(default)]
    pub opens: Option<u64>,
    /// How many bytes a second may be moved. Such a token is served by calls only, never mapped.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
    /// How many bytes may be moved in all. Such a token is served by calls only, never mapped.
    #[serde(default)]
    pub bytes_total: Option<u64>,
}

/// What a holder may do after every block so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The rights that every block leaves.
    pub rights: Rights,
    /// The bytes that every block leaves; `None` if nothing is left.
    pub range: Option<ByteRange>,
    /// From when on.
    pub not_before: UnixMicros,
    /// Until just before when.
    pub expires: UnixMicros,
    /// How often the token has been delegated.
    pub hops: u8,
    /// How often it may have been delegated. Less than `hops` if somebody delegated what he may not: then the token
    /// allows nothing.
    pub max_hops: u8,
    /// How often the right may be opened in all.
    pub opens: Option<u64>,
    /// How many bytes a second may be moved.
    pub bytes_per_second: Option<u64>,
    /// How many bytes may be moved in all.
    pub bytes_total: Option<u64>,
}

impl Effective {
    /// How many more delegations are allowed; `None` if there are too many already.
    #[must_use]
    pub const fn hops_left(&self) -> Option<u8> {
        self.max_hops.checked_sub(self.hops)
    }

    /// Whether bytes must be counted, which nobody can do for a mapping.
    #[must_use]
    pub const fn mediated_only(&self) -> bool {
        self.bytes_per_second.is_some() || self.bytes_total.is_some()
    }

    /// Whether everything that `other` allows is allowed here. Delegations made so far are not compared.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let at_most = |ours: Option<u64>, theirs: Option<u64>| match (ours, theirs) {
            (None, _) => true,
            (Some(ours), Some(theirs)) => theirs <= ours,
            (Some(_), None) => false,
        };
        let range = match (self.range, other.range) {
            (_, None) => true,
            (Some(ours), Some(theirs)) => ours.contains(theirs),
            (None, Some(_)) => false,
        };
        range
            && self.rights.contains(other.rights)
            && self.not_before <= other.not_before
            && other.expires <= self.expires
            && other.max_hops <= self.max_hops
            && at_most(self.opens, other.opens)
            && at_most(self.bytes_per_second, other.bytes_per_second)
            && at_most(self.bytes_total, other.bytes_total)
    }

    /// The same after one more block.
    pub(super) fn narrowed(mut self, by: &Narrowing) -> Self {
        let least = |ours: Option<u64>, theirs: Option<u64>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        if let Some(rights) = by.rights {
            self.rights = self.rights.intersect(rights);
        }
        self.range = self.range.and_then(|range| {
            let start = by.start.unwrap_or(0).max(range.start());
            let end = by.end.unwrap_or(INTEGER_MAX).min(range.end());
            ByteRange::new(start, end).ok()
        });
        self.not_before = self.not_before.max(UnixMicros(by.not_before.unwrap_or(0)));
        self.expires = self.expires.min(UnixMicros(by.expires.unwrap_or(INTEGER_MAX)));
        // No token has more than 7 hops, so that larger bounds all mean the same.
        self.max_hops = self.max_hops.min(by.hops.map_or(u8::MAX, |hops| hops.min(u64::from(u8::MAX)) as u8));
        self.opens = least(self.opens, by.opens);
        self.bytes_per_second = least(self.bytes_per_second, by.bytes_per_second);
        self.bytes_total = least(self.bytes_total, by.bytes_total);
        self
    }
}

/// The checks of one block, folded together: exactly what its Datalog says, in the units of the Datalog.
///
/// Every number is at most `i64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Narrowing {
    /// `{..}.contains($operation)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Rights>,
    /// First byte allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// One past the last byte allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// From when on, in Unix microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// Until just before when, in Unix microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Most delegations in the whole token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<u64>,
    /// Most opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opens: Option<u64>,
    /// Most bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Most bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
}

impl Narrowing {
    /// Both: what holds when every check of both holds.
    pub(super) fn and(self, other: Self) -> Self {
        fn both<T>(a: Option<T>, b: Option<T>, tighter: impl Fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(tighter(a, b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            rights: both(self.rights, other.rights, Rights::intersect),
            start: both(self.start, other.start, u64::max),
            end: both(self.end, other.end, u64::min),
            not_before: both(self.not_before, other.not_before, u64::max),
            expires: both(self.expires, other.expires, u64::min),
            hops: both(self.hops, other.hops, u64::min),
            opens: both(self.opens, other.opens, u64::min),
            bytes_per_second: both(self.bytes_per_second, other.bytes_per_second, u64::min),
            bytes_total: both(self.bytes_total, other.bytes_total, u64::min),
        }
    }
}

impl Narrow {
    /// Checks that nothing is wider than `now`, and counts hops from the token's start. `hops` is how many there are
    /// once the block is appended.
    ///
    /// # Errors
    /// `E_RANGE` if a value is wider than what is left, or is more than the Datalog can count.
    pub(super) fn resolve(&self, now: &Effective, hops: u8) -> Result<Narrowing> {
        let wider = |detail| Err(Error::new(Code::Range, detail));
        if self.rights.is_some_and(|rights| rights.is_empty() || !now.rights.contains(rights)) {
            return wider("keep at least one right, and only rights that the token has");
        }
        if self.range.is_some_and(|range| !now.range.is_some_and(|now| now.contains(range))) {
            return wider("the range is not within what the token has left");
        }
        if self.expires.is_some_and(|expires| expires > now.expires) {
            return wider("the token ends earlier than that");
        }
        if self.not_before.is_some_and(|begin| begin < now.not_before || begin > UnixMicros::MAX) {
            return wider("the token begins later than that");
        }
        let max_hops = self.max_hops.map(|more| hops.saturating_add(more));
        if max_hops.is_some_and(|most| most > now.max_hops) {
            return wider("the token allows fewer delegations than that");
        }
        for (new, old) in [
            (self.opens, now.opens),
            (self.bytes_per_second, now.bytes_per_second),
            (self.bytes_total, now.bytes_total),
        ] {
            if new.is_some_and(|new| new > old.unwrap_or(INTEGER_MAX)) {
                return wider("opens, rate or budget is more than the token has");
            }
        }
        Ok(Narrowing {
            rights: self.rights,
            start: self.range.map(ByteRange::start),
            end: self.range.map(ByteRange::end),
            not_before: self.not_before.map(|time| time.0),
            expires: self.expires.map(|time| time.0),
            hops: max_hops.map(u64::from),
            opens: self.opens,
            bytes_per_second: self.bytes_per_second,
            bytes_total: self.bytes_total,
        })
    }
}
