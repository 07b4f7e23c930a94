//! Leases made and given back many at a time: the CBOR of `CREATE` and `DELETE`.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::id::LeaseId;
use crate::limits::REMOTE_LEASES_MAX;
use crate::token::Token;
use crate::wire::request::LeaseSpec;
use crate::wire::row::LeaseRow;

/// What `CREATE` asks: leases, each of at least [`VALUE_BYTES_MIN`](crate::limits::VALUE_BYTES_MIN) and at most
/// [`VALUE_BYTES_MAX`](crate::limits::VALUE_BYTES_MAX). Their first bytes may follow; what none come for is zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Which, at most [`REMOTE_LEASES_MAX`].
    pub leases: Vec<LeaseSpec>,
}

/// What `DELETE` asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Which, at most [`REMOTE_LEASES_MAX`].
    pub leases: Vec<LeaseId>,
}

/// One lease that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// The lease.
    pub lease: LeaseRow,
    /// Its capability, bound to who asked.
    pub token: Token,
    /// How many of its first bytes were written.
    pub written: u64,
}

// By hand: it holds a token.
impl std::fmt::Debug for Created {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Created({}, {} bytes)", self.lease.id, self.written)
    }
}

/// What became of each item of a `CREATE`, in its order.
pub type Creations = Vec<Result<Created>>;
/// What became of each item of a `DELETE`, in its order.
pub type Deletions = Vec<Result<()>>;

/// Whether a batch has 1 to [`REMOTE_LEASES_MAX`] items.
///
/// # Errors
/// `E_RANGE`.
pub fn bounded(items: usize) -> Result<()> {
    if items == 0 || items > REMOTE_LEASES_MAX {
        return Err(Error::new(Code::Range, "a batch has 1 to 64 leases"));
    }
    Ok(())
}
