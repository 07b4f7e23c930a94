//! `leasehold revoke`.

use caps::wire::Reason;
use clap::{Args, ValueEnum};

use super::value;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold revoke lease frames --as alice --reason handed-over")]
pub(crate) struct Revoke {
    /// What the id is of
    pub(crate) kind: Kind,
    /// A lease's id or name; a grant's id; a principal's name or key; a region's id
    pub(crate) id: String,
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
}
