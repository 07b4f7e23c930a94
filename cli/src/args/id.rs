//! `leasehold id`.

use caps::wire::Name;
use clap::Subcommand;

use super::value;

#[derive(Debug, Subcommand)]
pub(crate) enum Id {
    /// Makes a key, and registers it if a node is up and this user has its administrator's key
    #[command(after_help = "Example:\n  leasehold id new alice")]
    New {
        /// What to call it
        #[arg(value_parser = value::name)]
        name: Name,
        /// Fail if it could not be registered
        #[arg(long)]
        register: bool,
    },
    /// Registers an identity of this user with the node, as its administrator
    #[command(after_help = "Example:\n  leasehold id register alice")]
    Register {
        /// Which
        #[arg(value_parser = value::name)]
        name: Name,
    },
    /// Lists the identities of this user and the principals that the node knows
    #[command(after_help = "Example:\n  leasehold id list")]
    List,
    /// Shows the public key of an identity
    #[command(after_help = "Example:\n  leasehold id show alice")]
    Show {
        /// Which; without it, who I am
        #[arg(value_parser = value::name)]
        name: Option<Name>,
    },
}
