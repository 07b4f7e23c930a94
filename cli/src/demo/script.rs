//! What the demo and its client processes say to each other, one line of JSON each.

use caps::id::{GrantId, LeaseId, PrincipalKey};
use serde::{Deserialize, Serialize};

/// Which part a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Leases, writes, shares, revokes.
    Owner,
    /// Accepts, checks, reads guarded.
    Receiver,
    /// Reads raw until it dies.
    RawReader,
    /// Owns or receives, and writes until it is stopped or revoked.
    Writer,
}

impl Role {
    /// As it stands on the hidden command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Receiver => "receiver",
            Self::RawReader => "raw-reader",
            Self::Writer => "writer",
        }
    }
}

/// One line. A token or a seed is in some of them: they pass through pipes between the demo and its own children,
/// and are never printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    // To a client
    Begin { socket: std::path::PathBuf, seed: String },
    Lease { bytes: u64 },
    Narrow,
    Offer { to: PrincipalKey },
    Accept { grant: GrantId },
    Fill,
    Check,
    Touch { token: String },
    ReadUntilRevoked,
    Revoke { lease: LeaseId },
    OfferToWrite { to: PrincipalKey },
    Write { part: u64 },
    RevokeGrant { grant: GrantId },
    AwaitRefusal,
    StopWriting,

    // From a client
    Ready,
    Leased { lease: LeaseId, took_us: u64 },
    Narrowed { write: String, beyond: String, within: String },
    Offered { grant: GrantId },
    Accepted { token: String },
    Sum { sum: u64 },
    Checked { sum: u64, took_us: u64 },
    Started,
    Revoked { dead_us: u64, wiped_bytes: u64, mappings_closed: u32, log_index: u64 },
    Wrote { added: u64, found: u64, longest_us: u64, code: String },
    Stopped { reads: u64, code: String },
    Failed { code: String },
}
