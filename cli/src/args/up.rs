//! `leasehold up` and `leasehold demo`.

use clap::Args;

use super::value;
use crate::demo::Role;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold up --pool 256MiB")]
pub(crate) struct Up {
    /// Bytes of memory that may be leased in all, instead of the configuration's
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) pool: Option<u64>,
    /// Start although this machine swaps and regions cannot be kept out of it
    #[arg(long)]
    pub(crate) allow_swap: bool,
    /// Serve clients of other machines over TLS here, instead of where the configuration says; port 0 for any that is free
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoClient {
    /// Which part to play
    pub(crate) role: Role,
}
