//! `leasehold run`.

use std::ffi::OsString;

use clap::Args;

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold run --as alice --token frames -- leasehold get frames --len 64"
)]
pub(crate) struct Run {
    /// What the program may use: a lease's or grant's id, a lease's name, or a token's file; several if said again
    #[arg(long = "token", value_name = "LEASE", value_parser = value::lease)]
    pub(crate) tokens: Vec<LeaseArg>,
    /// The program and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
