//! What node and canary say to each other over two pipes: one line of JSON each. No secret is in any: the canary makes
//! its keys itself, and tells the public ones.

use caps::id::PrincipalKey;
use caps::wire::Name;
use serde::{Deserialize, Serialize};

/// To the canary.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Order {
    /// Connect, and run until the pipe closes.
    Begin {
        socket: std::path::PathBuf,
        /// Between the beginnings of two runs.
        every_ms: u64,
        /// Life and size of a lease that this node grants.
        ttl_ms: u64,
        bytes: u64,
        /// Where it should be: near the node's own memory, if there is other.
        near: Option<Name>,
    },
}

/// To the node.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Said {
    /// The first line.
    Keys { owner: PrincipalKey, receiver: PrincipalKey },
    /// From the call to revoke until the receiver was refused, and until the receipt.
    Measured { dead_us: u64, receipt_us: u64 },
    /// The node refused, with this code: nothing was measured.
    Skipped { code: String },
    /// A revocation did not do what its receipt says.
    Failed { what: String },
}
