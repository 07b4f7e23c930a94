//! `leasehold id`.

use caps::id::PrincipalKey;
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
    /// Lists the identities of this user, the principals that the node knows, and the keys that were taken
    #[command(after_help = "Example:\n  leasehold id list")]
    List,
    /// Shows the public key of an identity, or of somebody else whose key was taken
    #[command(after_help = "Example:\n  leasehold id show alice")]
    Show {
        /// Which; without it, who I am
        #[arg(value_parser = value::name)]
        name: Option<Name>,
    },
    /// Takes somebody else's public key, to delegate to by name; never in place of another one
    #[command(
        after_help = "Example:\n  leasehold id trust carol 5d4d3dc6c2dfd46f1707e0e993d7351561ec5e5616115214784bc48af49ab327"
    )]
    Trust {
        /// What to call it
        #[arg(value_parser = value::name)]
        name: Name,
        /// The key that `leasehold id show` prints there: 64 hexadecimal digits
        #[arg(value_parser = value::key, value_name = "KEY")]
        public: PrincipalKey,
    },
    /// Forgets the public key that a name of somebody else stands for
    #[command(after_help = "Example:\n  leasehold id forget carol")]
    Forget {
        /// Whose
        #[arg(value_parser = value::name)]
        name: Name,
    },
}
