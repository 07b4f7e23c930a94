//! `leasehold put` and `leasehold get`.

use std::path::PathBuf;

use clap::Args;

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold put frames --as alice </etc/hostname")]
pub(crate) struct Put {
    /// Where to: a lease's or grant's id, a lease's name, or a token's file
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// First byte, counted from the region's start; without it, the first that the right reaches
    #[arg(long, value_parser = value::size)]
    pub(crate) offset: Option<u64>,
    /// Reads this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Over the network: a checksum with each piece, against memory that errs on the way to TLS and from it
    #[arg(long)]
    pub(crate) crc: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold get frames --as alice --len 4KiB >frames.bin")]
pub(crate) struct Get {
    /// Where from: a lease's or grant's id, a lease's name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// First byte, counted from the region's start; without it, the first that the right reaches
    #[arg(long, value_parser = value::size)]
    pub(crate) offset: Option<u64>,
    /// How many bytes; without it, up to the last that the right reaches
    #[arg(long, value_parser = value::size)]
    pub(crate) len: Option<u64>,
    /// Writes to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Over the network: a checksum with each piece, against memory that errs on the way to TLS and from it
    #[arg(long)]
    pub(crate) crc: bool,
}
