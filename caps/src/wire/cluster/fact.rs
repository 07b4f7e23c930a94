//! What a broker tells its providers: whose tokens to believe, what the policy is, how much each principal may have open,
//! and what principals are called. A provider believes no client's word about any of it.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;
use crate::limits::{LINK_EXPIRED_ROOTS_MAX, LINK_PAGE_MAX, LINK_POLICY_BYTES_MAX};
use crate::token::{ROOT_KEYS_MAX, RootPublic};
use crate::wire::Name;

/// What one principal may hold at most. Zero means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Leases.
    pub leases: u32,
    /// Bytes of leases.
    pub leased_bytes: u64,
    /// Bytes of memory, what is being taken back included.
    pub resident_bytes: u64,
    /// Bytes that it shares, summed over its grants.
    pub shared_bytes: u64,
    /// Live grants that it issued.
    pub grants: u32,
    /// Rights that it may have open at one time.
    pub opens: u32,
    /// Those of them that may be mapped.
    pub mappings: u32,
}

/// A policy as its operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// The text; at most [`LINK_POLICY_BYTES_MAX`] bytes.
    pub text: Box<str>,
    /// The hash of what it comes to, as broker and log have it. A provider that reads something else from the text has
    /// another release, and must not go on.
    #[serde(with = "serde_bytes")]
    pub hash: [u8; 32],
}

/// Quotas, a page of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// That of who is not named, in any page.
    pub default: Allowance,
    /// At most [`LINK_PAGE_MAX`] by name, beside those of other pages.
    pub named: Vec<(Name, Allowance)>,
}

/// Root keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// Whose tokens are believed, all of them; at most [`ROOT_KEYS_MAX`].
    pub keys: Vec<RootPublic>,
    /// The ids of those that are believed no longer because the last of their tokens has expired: what was opened under them
    /// lives on with its leases. What was opened under any other that is believed no longer is taken back, so one that is
    /// forgotten here does no harm. At most [`LINK_EXPIRED_ROOTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<u32>,
}

/// Something that a provider is told. Told again, it takes the place of what was told before: keys and policy as a whole,
/// quotas and names each for its principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Fact {
    /// The root keys.
    Roots(Roots),
    /// The policy in force.
    Policy(PolicyText),
    /// Quotas.
    Quotas(Quotas),
    /// Registered names; at most [`LINK_PAGE_MAX`] at once.
    Principals(Vec<(PrincipalKey, Name)>),
}

impl Fact {
    /// Checks what a decoder does not.
    ///
    /// # Errors
    /// `E_FRAME_TYPE` for more in one than there may be.
    pub fn check(&self) -> Result<()> {
        let (has, most) = match self {
            Self::Roots(roots) if roots.expired.len() > LINK_EXPIRED_ROOTS_MAX => {
                (roots.expired.len(), LINK_EXPIRED_ROOTS_MAX)
            }
            Self::Roots(roots) => (roots.keys.len(), ROOT_KEYS_MAX),
            Self::Policy(policy) => (policy.text.len(), LINK_POLICY_BYTES_MAX),
            Self::Quotas(quotas) => (quotas.named.len(), LINK_PAGE_MAX),
            Self::Principals(page) => (page.len(), LINK_PAGE_MAX),
        };
        if has <= most { Ok(()) } else { Err(Error::new(Code::FrameType, "a fact is larger than it may be")) }
    }
}
