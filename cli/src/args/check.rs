//! `leasehold policy` and `leasehold config`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Names every mistake in a policy, with file, line and column
    #[command(after_help = "Example:\n  leasehold policy check policy.dl")]
    Check {
        /// The policy
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Names every mistake in a configuration, with file, line and column; starts nothing
    #[command(after_help = "Example:\n  leasehold config check leasehold.toml")]
    Check {
        /// The configuration
        file: PathBuf,
    },
}
