//! `leasehold broker` and `leasehold provider`: the parts of a node on machines of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::value;
use crate::node::{LATER_VARIABLE, LIFE_VARIABLE};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold broker --config broker.toml")]
pub(crate) struct Broker {
    /// The configuration, instead of leasehold.toml in the node's directory
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Bytes of memory of its own that it leases out beside those of providers, instead of the configuration's; none by
    /// default
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) pool: Option<u64>,
    /// Start although this machine swaps and regions cannot be kept out of it
    #[arg(long)]
    pub(crate) allow_swap: bool,
    /// Serve clients of other machines over TLS here, instead of where the configuration says; port 0 for any that is free
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold provider --config provider.toml")]
pub(crate) struct Provider {
    /// The configuration, instead of leasehold.toml in the node's directory
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Bytes of memory that may be leased in all, instead of the configuration's
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) pool: Option<u64>,
    /// Start although this machine swaps and regions cannot be kept out of it
    #[arg(long)]
    pub(crate) allow_swap: bool,
    /// The process above this life
    #[arg(long, hide = true, env = LIFE_VARIABLE, hide_env = true, value_name = "PID")]
    pub(crate) life_of: Option<u32>,

    /// This life is not the first.
    #[arg(long, hide = true, env = LATER_VARIABLE, hide_env = true)]
    pub(crate) later_life: bool,
}
