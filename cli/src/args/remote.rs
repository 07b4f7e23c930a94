//! Which node, where it is on another machine.

use std::path::PathBuf;

use caps::wire::Name;
use clap::Args;

use super::value;

/// Where these options stand in a help text.
const HEADING: &str = "Over the network";

/// What every command that speaks to a node takes.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The node at this address instead of the one on this machine
    #[arg(
        long,
        env = "LEASEHOLD_BROKER",
        hide_env_values = true,
        value_name = "HOST:PORT",
        global = true,
        help_heading = HEADING,
        value_parser = value::address
    )]
    pub(crate) broker: Option<String>,
    /// Where my certificate is, instead of `pki` in the state directory: NAME.pem, NAME.key, roots.pem, domain and, if
    /// there is one, lists.pem
    #[arg(
        long,
        env = "LEASEHOLD_TLS",
        hide_env_values = true,
        value_name = "DIR",
        global = true,
        help_heading = HEADING
    )]
    pub(crate) tls: Option<PathBuf>,
    /// The name that the node's certificate must have; without it, that of any node of my domain
    #[arg(
        long = "node",
        id = "remote_node",
        value_name = "NAME",
        global = true,
        requires = "broker",
        help_heading = HEADING,
        value_parser = value::name
    )]
    pub(crate) node: Option<Name>,
    /// A plain list of nodes, each its own, one `HOST:PORT [NAME]` a line; a lease goes where most is free
    #[arg(
        long,
        env = "LEASEHOLD_NODES",
        hide_env_values = true,
        value_name = "FILE",
        global = true,
        conflicts_with = "broker",
        help_heading = HEADING
    )]
    pub(crate) nodes: Option<PathBuf>,
}
