//! What a cluster begins with: identities, the pool, the size of every table, and the bounds of time.
//!
//! Part of the state, so replicas that disagree about a bound cannot disagree about an answer in silence: their
//! serialized states differ from the first byte on.

use std::collections::BTreeMap;

use caps::id::{ClusterEpoch, PrincipalKey};
use caps::time::{Micros, UnixMicros};
use caps::wire::Name;
use caps::wire::provider::Registration;
use caps::{Code, Error, Result};
use policy::limits;
use policy::quota::Quota;
use serde::{Deserialize, Serialize};

/// The initial state. Nothing in it changes while the cluster lives, `provider`, `policy` and `at` excepted: of
/// those the state machine keeps what became of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// This life of the control plane.
    pub cluster: ClusterEpoch,
    /// The provider in the broker's own process, if it has one. Others come by themselves.
    pub provider: Option<Registration>,
    /// When it began.
    pub at: UnixMicros,
    /// The administrator: registers principals, may revoke anything.
    pub admin: PrincipalKey,
    /// What the administrator is called.
    pub admin_name: Name,
    /// SHA-256 of the policy in force at the beginning.
    #[serde(with = "serde_bytes")]
    pub policy: [u8; 32],
    /// Size of every table, in rows.
    pub capacity: Capacity,
    /// Bounds of leases and grants.
    pub bounds: Bounds,
    /// What a principal without a quota of its own may use.
    pub quota: Quota,
    /// Quotas of principals by name.
    pub quotas: BTreeMap<Name, Quota>,
}

/// Rows that each table holds. Full is a refusal, never growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Registered principals.
    pub principals: u32,
    /// Leases that have not ended.
    pub leases: u32,
    /// Grants that have not ended.
    pub grants: u32,
    /// Leases, and as many grants, that ended and are still listed.
    pub ended: u32,
    /// Donations of quota that are not wholly back.
    pub donations: u32,
    /// Providers, those included that are lost and still listed.
    pub providers: u32,
}

/// Bounds of what a principal may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Bytes that may be leased in all, at whatever providers.
    pub pool_bytes: u64,
    /// The smallest lease in bytes.
    pub lease_bytes_min: u64,
    /// The largest lease in bytes.
    pub lease_bytes_max: u64,
    /// Leases are rounded up to multiples of this many bytes.
    pub page_bytes: u64,
    /// The largest segment of a lease in bytes: a power of two.
    pub segment_bytes_max: u64,
    /// Most segments of a lease.
    pub segments_per_lease: u64,
    /// The shortest life of a lease. Shorter wishes are refused.
    pub ttl_min: Micros,
    /// The longest life of a lease from its creation or renewal. Longer wishes are refused.
    pub ttl_max: Micros,
    /// How long a reservation waits for its claim.
    pub claim_within: Micros,
    /// How long an issued grant waits for its receiver, if its own span is not shorter.
    pub accept_within: Micros,
    /// How long an offer waits for its co-signer.
    pub cosign_within: Micros,
    /// Grants of one lease that have not ended.
    pub grants_per_lease: u32,
    /// How long a provider may take to say that memory is back before it is told again.
    pub take_again: Micros,
    /// Most delegations that a token may allow.
    pub hops_max: u8,
    /// Donations of quota of one giver that are not wholly back.
    pub donations_per_giver: u32,
    /// How often a provider is asked how it is.
    pub heartbeat_every: Micros,
    /// From which silence on a provider is given no new leases.
    pub silent_after: Micros,
    /// From which silence on a provider is lost.
    pub lost_after: Micros,
    /// How far a provider's clock may be from the broker's.
    pub skew: Micros,
}

impl Default for Capacity {
    /// The sizes of [`policy::limits`].
    fn default() -> Self {
        // Each of them has far fewer than 32 bits.
        Self {
            principals: limits::PRINCIPALS_MAX as u32,
            leases: limits::LEASES_MAX as u32,
            grants: limits::GRANTS_MAX as u32,
            ended: limits::ENDED_ROWS_MAX as u32,
            donations: limits::DONATIONS_MAX as u32,
            providers: limits::PROVIDERS_MAX as u32,
        }
    }
}

impl Bounds {
    /// The bounds of [`policy::limits`] over a pool of `pool_bytes`.
    #[must_use]
    pub const fn of_pool(pool_bytes: u64) -> Self {
        Self {
            pool_bytes,
            lease_bytes_min: limits::LEASE_BYTES_MIN,
            lease_bytes_max: limits::REGION_BYTES_MAX,
            page_bytes: limits::PAGE_BYTES,
            segment_bytes_max: limits::SEGMENT_BYTES_MAX,
            segments_per_lease: limits::SEGMENTS_PER_REGION_MAX,
            ttl_min: Micros::from_millis(limits::LEASE_TTL_MS_MIN),
            ttl_max: Micros::from_millis(limits::LEASE_TTL_MS_MAX_DEFAULT),
            claim_within: Micros::from_millis(limits::RESERVATION_MS_MAX),
            accept_within: Micros::from_millis(limits::GRANT_ACCEPT_MS_MAX),
            cosign_within: Micros::from_millis(limits::GRANT_COSIGN_MS_MAX),
            grants_per_lease: limits::GRANTS_PER_LEASE_MAX as u32,
            // By then a holder that blocks a take-back has been killed.
            take_again: Micros::from_millis(2 * limits::KILL_MS_MAX),
            hops_max: limits::TOKEN_HOPS_MAX,
            donations_per_giver: limits::DONATIONS_PER_GIVER_MAX as u32,
            heartbeat_every: Micros::from_millis(limits::HEARTBEAT_MS),
            silent_after: Micros::from_millis(limits::PROVIDER_SILENT_MS),
            lost_after: Micros::from_millis(limits::PROVIDER_LOST_MS),
            skew: Micros::from_millis(limits::CLOCK_SKEW_MS_MAX),
        }
    }
}

impl Bounds {
    /// The same where memory is that of whatever providers come: as much as they bring.
    #[must_use]
    pub const fn of_cluster() -> Self {
        Self::of_pool(limits::PROVIDERS_MAX as u64 * limits::POOL_BYTES_MAX)
    }
}

impl Genesis {
    /// Checks what the state machine relies on.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` for a table without rows, an empty pool, a page size that is no power of two, a span
    /// of zero, or a provider without room.
    pub fn check(&self) -> Result<()> {
        let capacity = &self.capacity;
        let tables = [
            capacity.principals,
            capacity.leases,
            capacity.grants,
            capacity.ended,
            capacity.donations,
            capacity.providers,
        ];
        let bounds = &self.bounds;
        let spans = [
            bounds.ttl_min,
            bounds.claim_within,
            bounds.accept_within,
            bounds.cosign_within,
            bounds.take_again,
            bounds.heartbeat_every,
        ];
        if tables.contains(&0) {
            return Err(Error::new(Code::ConfigValue, "every table of the broker needs at least one row"));
        }
        if spans.contains(&Micros(0)) || bounds.ttl_max < bounds.ttl_min {
            return Err(Error::new(
                Code::ConfigValue,
                "every span of the broker is positive and the longest life not below the shortest",
            ));
        }
        if bounds.silent_after < bounds.heartbeat_every || bounds.lost_after < bounds.silent_after {
            return Err(Error::new(
                Code::ConfigValue,
                "a provider is silent after a heartbeat at the earliest, and lost no sooner than that",
            ));
        }
        if let Some(provider) = &self.provider {
            provider
                .check()
                .map_err(|_| Error::new(Code::ConfigValue, "the node's own provider has no room"))?;
        }
        if !bounds.page_bytes.is_power_of_two() || bounds.pool_bytes == 0 {
            return Err(Error::new(Code::ConfigValue, "the pool is not empty and a page is a power of two"));
        }
        let largest = bounds.segment_bytes_max.checked_mul(bounds.segments_per_lease);
        if !bounds.segment_bytes_max.is_power_of_two()
            || bounds.segment_bytes_max < bounds.page_bytes
            || largest.is_none_or(|bytes| bytes < bounds.lease_bytes_max)
        {
            return Err(Error::new(
                Code::ConfigValue,
                "a segment is a power of two, at least a page, and enough of the largest make the largest lease",
            ));
        }
        Ok(())
    }

    /// The quota of the principal called `name`.
    #[must_use]
    pub fn quota_of(&self, name: &Name) -> Quota {
        *self.quotas.get(name).unwrap_or(&self.quota)
    }
}
