//! `leasehold pki`.

use std::time::Duration;

use caps::id::PrincipalKey;
use caps::wire::Name;
use clap::{Subcommand, ValueEnum};

use super::value;

#[derive(Debug, Subcommand)]
pub(crate) enum Pki {
    /// Begins an authority that issues certificates for one trust domain
    #[command(after_help = "Example:\n  leasehold pki init --domain mem.example")]
    Init {
        /// Whose certificates believe each other: a name of yours, as in mem.example
        #[arg(long, value_parser = value::domain)]
        domain: transport::Domain,
    },
    /// Issues a certificate, with a key of its own
    #[command(after_help = "Example:\n  leasehold pki issue node-1 --role provider")]
    Issue {
        /// Whom for
        #[arg(value_parser = value::name)]
        name: Name,
        /// What it is
        #[arg(long, value_enum, default_value_t = Role::Principal)]
        role: Role,
        /// For a principal: its public key, which the certificate then vouches for; without it, the node's list does
        #[arg(long, value_parser = value::key, value_name = "KEY")]
        holder: Option<PrincipalKey>,
        /// For how long
        #[arg(long, value_parser = value::span, default_value = "720h")]
        ttl: Duration,
    },
    /// Issues a certificate again under a new key, as it was; or renews the authority itself
    #[command(after_help = "Example:\n  leasehold pki rotate node-1")]
    Rotate {
        /// Whose
        #[arg(value_parser = value::name, required_unless_present = "ca")]
        name: Option<Name>,
        /// The authority's own: both are believed until what the old one issued is over
        #[arg(long, conflicts_with = "name")]
        ca: bool,
        /// For how long
        #[arg(long, value_parser = value::span, default_value = "720h")]
        ttl: Duration,
    },
    /// Believes all certificates of a name no longer, once the list has reached those who are to know
    #[command(after_help = "Example:\n  leasehold pki revoke alice")]
    Revoke {
        /// Whose
        #[arg(value_parser = value::name)]
        name: Name,
    },
    /// Lists what is in use; or makes the list of the revoked anew, which counts for 30 days
    #[command(after_help = "Example:\n  leasehold pki list --renew")]
    List {
        /// The list of the revoked, for another 30 days: without a newer one nobody is let in then
        #[arg(long)]
        renew: bool,
    },
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// A client
    Principal,
    /// A node that has memory
    Provider,
    /// A node that decides
    Broker,
}
