//! `leasehold node`.

use caps::wire::Name;
use clap::Subcommand;

use super::value;

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Lists the providers: how they are, and how much of each is taken
    #[command(after_help = "Example:\n  leasehold node list --as admin")]
    List,
    /// Has a provider take no new leases; what it has stays until it ends
    #[command(after_help = "Example:\n  leasehold node drain node-1 --as admin")]
    Drain {
        /// The provider
        #[arg(value_parser = value::name)]
        name: Name,
    },
    /// Has a provider take new leases again
    #[command(after_help = "Example:\n  leasehold node undrain node-1 --as admin")]
    Undrain {
        /// The provider
        #[arg(value_parser = value::name)]
        name: Name,
    },
    /// Gives a provider up whose process is gone: its leases end, and nothing more is waited for
    ///
    /// Whoever says so answers for it: a provider that runs on serves what it has to those who have opened it, until its
    /// leases' time is over.
    #[command(after_help = "Example:\n  leasehold node lost node-1 --as admin")]
    Lost {
        /// The provider
        #[arg(value_parser = value::name)]
        name: Name,
    },
}
