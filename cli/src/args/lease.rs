//! `leasehold lease`.

use std::path::PathBuf;
use std::time::Duration;

use caps::wire::Name;
use clap::{Args, Subcommand};

use super::lease_key::LeaseKey;
use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum Lease {
    /// Leases memory and keeps its token
    Create(Create),
    /// Lists my leases, or everyone's for the administrator
    #[command(after_help = "Example:\n  leasehold lease list --as alice")]
    List {
        /// Those too that are over
        #[arg(long)]
        all: bool,
    },
    /// Shows a lease with its memory
    #[command(after_help = "Example:\n  leasehold lease show frames --as alice --json")]
    Show {
        /// Its id, its name, a token's file, or `-` for a token on standard input
        #[arg(value_parser = value::lease)]
        lease: LeaseArg,
    },
    /// Moves a lease's end to so long from now, and keeps the new token
    #[command(after_help = "Example:\n  leasehold lease renew frames --as alice --ttl 30m")]
    Renew {
        /// Its id, its name, a token's file, or `-` for a token on standard input
        #[arg(value_parser = value::lease)]
        lease: LeaseArg,
        /// How long from now: ms, s, m, h
        #[arg(long, value_parser = value::span)]
        ttl: Duration,
    },
    /// Gives a lease back before its time and prints the receipt
    #[command(after_help = "Example:\n  leasehold lease release frames --as alice")]
    Release {
        /// Its id, its name, a token's file, or `-` for a token on standard input
        #[arg(value_parser = value::lease)]
        lease: LeaseArg,
    },
    /// Copies what a token reaches into a new lease of mine
    Snapshot(Snapshot),
    /// Keys of encrypted leases: given on, taken, destroyed
    #[command(subcommand, after_help = "Example:\n  leasehold lease key export frames --as alice --to bob")]
    Key(LeaseKey),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold lease snapshot frames --as alice --ttl 10m --name frames-copy",
    long_about = "Copies what a token reaches into a new lease of mine, of the same size and segment size\n\nIt is not a \
                  point in time: bytes are copied one piece after the other, and who writes meanwhile is seen in some \
                  and not in others. If the original ends meanwhile, or on Ctrl-C, the new lease is released; then the \
                  code is E_INTERRUPTED and the exit code 130. A second Ctrl-C ends the command at once, and the half \
                  copy ends with its time."
)]
pub(crate) struct Snapshot {
    /// Of what: a lease's or grant's id, a lease's name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// For how long from now the copy lives: ms, s, m, h
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Duration,
    /// What to call the copy; unique among my live leases
    #[arg(long, value_parser = value::name)]
    pub(crate) name: Option<Name>,
    /// Writes the copy's token to this new file too, readable by me alone
    #[arg(short, long, value_name = "TOKEN")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold lease create --as alice --size 64MiB --ttl 10m --name frames")]
pub(crate) struct Create {
    /// How much: bytes, KiB, MiB, GiB; rounded up to whole pages
    #[arg(long, value_parser = value::size)]
    pub(crate) size: u64,
    /// For how long from now: ms, s, m, h
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Duration,
    /// What is mapped and taken back as one piece: a power of two, 4KiB to 1GiB; the whole lease if not said. Shares
    /// of parts that fall on segments can be mapped
    #[arg(long, value_parser = value::size)]
    pub(crate) segment: Option<u64>,
    /// How often its token may be delegated, offline and without anybody's consent; 0 if not said, and then it is
    /// shared by grants alone
    #[arg(long, default_value_t = 0)]
    pub(crate) hops: u8,
    /// What to call it; unique among my live leases
    #[arg(long, value_parser = value::name)]
    pub(crate) name: Option<Name>,
    /// Its priority class, a fact for the node's policy
    #[arg(long, value_parser = value::name)]
    pub(crate) class: Option<Name>,
    /// Writes the token to this new file too, readable by me alone
    #[arg(short, long, value_name = "TOKEN")]
    pub(crate) output: Option<PathBuf>,
    /// Keeps what I write from everybody without the lease's key, the node among them: a key is drawn and kept here, `put`
    /// and `get` use it, and `lease key export` gives it on. 28 bytes of each 4,096 are taken for it
    #[arg(long)]
    pub(crate) encrypt: bool,
    /// Where it should be: the label of a locality that providers have. A wish: it is taken elsewhere before it is refused
    #[arg(long, value_name = "LABEL", value_parser = value::name)]
    pub(crate) near: Option<Name>,
}
