//! `leasehold revoke`.

use caps::wire::Reason;
use clap::{Args, ValueEnum};

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold revoke lease frames --as alice --reason handed-over")]
pub(crate) struct Revoke {
    /// What the id is of
    pub(crate) kind: Kind,
    /// A lease's id or name; a grant's id; a principal's name or key; a region's id; a token's file; a revocation id
    pub(crate) id: String,
    /// Of a token: which block, 0 being the authority block; without it the last
    #[arg(long, value_name = "N")]
    pub(crate) block: Option<u8>,
    /// Of a block: the lease of its token, by id or name
    #[arg(long, value_name = "LEASE", value_parser = LeaseArg::parse)]
    pub(crate) lease: Option<LeaseArg>,
    /// Why, for the log: at most 256 characters of printable ASCII
    #[arg(long, value_parser = value::reason, default_value = "", hide_default_value = true)]
    pub(crate) reason: Reason,
}

/// What can be revoked in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A lease with every grant of it
    Lease,
    /// A grant with all that was delegated from it
    Grant,
    /// Everything that a principal holds
    Holder,
    /// A grant and everything below it
    Subtree,
    /// A region, whoever holds it
    Region,
    /// One block of a token in a file, with all that was made of it
    Token,
    /// The same by the id that the log shows; for a delegation, its last one
    Block,
}
