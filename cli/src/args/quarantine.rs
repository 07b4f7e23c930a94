//! `leasehold quarantine`.

use std::path::PathBuf;

use caps::id::QuarantineId;
use caps::wire::Reason;
use clap::{Args, Subcommand};

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Takes a lease from everybody, as a revoke does, and keeps its bytes as they were; prints the receipt
    Add(Add),
    /// Lists what is kept, since when and why
    #[command(after_help = "Example:\n  leasehold quarantine list --as admin")]
    List,
    /// Writes bytes of what is kept to standard output, or to a file; each piece is recorded
    Read(Read),
    /// Wipes what is kept and gives its bytes back to the pool
    #[command(after_help = "Example:\n  leasehold quarantine release 1 --as admin")]
    Release {
        /// Its number in the list
        #[arg(value_parser = value::quarantine, value_name = "ID")]
        id: QuarantineId,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold quarantine add cb7e55f12a6eaca416bd6db6c7e7ae87 --as admin --reason case-7"
)]
pub(crate) struct Add {
    /// The lease: its id, or the name of one of mine
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// Why, for the log: at most 256 characters of printable ASCII
    #[arg(long, value_parser = value::reason, default_value = "", hide_default_value = true)]
    pub(crate) reason: Reason,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold quarantine read 1 --as admin --len 4KiB >evidence.bin")]
pub(crate) struct Read {
    /// Its number in the list
    #[arg(value_parser = value::quarantine, value_name = "ID")]
    pub(crate) id: QuarantineId,
    /// First byte, counted from the region's start; without it, the first that is kept
    #[arg(long, value_parser = value::size)]
    pub(crate) offset: Option<u64>,
    /// How many bytes; without it, up to the last that is kept
    #[arg(long, value_parser = value::size)]
    pub(crate) len: Option<u64>,
    /// Writes to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
