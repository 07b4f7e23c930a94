//! `leasehold token`.

use std::path::PathBuf;
use std::time::Duration;

use caps::range::ByteRange;
use caps::rights::Rights;
use clap::{Args, Subcommand};

use super::value::{self, When};
use super::wrap::{Unwrap, Wrap};
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Shows what a token says, block by block
    #[command(after_help = "Example:\n  leasehold token inspect frames --as alice --json")]
    Inspect {
        #[command(flatten)]
        token: Source,
        #[command(flatten)]
        roots: Roots,
        #[command(flatten)]
        node: Node,
    },
    /// Narrows a token: fewer rights, fewer bytes, an earlier end, limits on use
    #[command(
        after_help = "Example:\n  leasehold token attenuate frames --as alice --rights r --range 0..4KiB --opens 3 -o narrow.token"
    )]
    Attenuate {
        #[command(flatten)]
        token: Source,
        #[command(flatten)]
        narrow: Narrow,
        #[command(flatten)]
        target: Target,
    },
    /// Makes the token of another holder, signed with my key
    #[command(
        long_about = "Makes the token of another holder, signed with my key\n\nOf a lease made with --encrypt this gives the \
                      memory alone: `leasehold lease key export` gives the key to read it.",
        after_help = "Example:\n  leasehold token delegate frames --as alice --to bob --rights r --range 0..16KiB --ttl 5m -o \
                      bob.token"
    )]
    Delegate {
        #[command(flatten)]
        token: Source,
        /// To whom: a name from `leasehold id list`, or a key as 64 hexadecimal digits
        #[arg(long, value_parser = value::principal, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        narrow: Narrow,
        #[command(flatten)]
        target: Target,
    },
    /// Makes a copy that nobody can narrow or delegate any more, to hand over
    #[command(after_help = "Example:\n  leasehold token seal frames --as alice -o sealed.token")]
    Seal {
        #[command(flatten)]
        token: Source,
        #[command(flatten)]
        target: Target,
    },
    /// Says whether a token is good, and for what: signatures, time, delegations, rights, bytes and, at a node, revocation
    Verify(Verify),
    /// Puts a token into the node, to be fetched once, and prints the id to fetch it by
    Wrap(Wrap),
    /// Fetches a token that was put into the node; who comes second is told who was first
    Unwrap(Unwrap),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold token verify frames --as alice --rights r --range 0..4KiB --at +5m"
)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) token: Source,
    /// Whether it allows all of this: r, w, s in that order
    #[arg(long, value_parser = value::rights)]
    pub(crate) rights: Option<Rights>,
    /// Whether it reaches all of these bytes
    #[arg(long, value_parser = value::range, value_name = "A..B")]
    pub(crate) range: Option<ByteRange>,
    /// Whether it will, or did, at this time: 2026-11-21T20:30:00Z in UTC, or +5m from now
    #[arg(long, value_parser = value::time, value_name = "TIME")]
    pub(crate) at: Option<When>,
    #[command(flatten)]
    pub(crate) roots: Roots,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Whether to ask a node what only a node knows.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Node {
    /// Do not ask the node whether it was revoked, nor who is who
    #[arg(long)]
    pub(crate) offline: bool,
}

/// Which token.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// A token's file, `-` for standard input, or the id or name of a lease whose token is kept here
    #[arg(value_name = "TOKEN", value_parser = value::lease)]
    pub(crate) token: LeaseArg,
}

/// Whom to believe.
#[derive(Debug, Args)]
pub(crate) struct Roots {
    /// A root key: 64 hexadecimal digits, or a file with them; without it, the one that the node published
    #[arg(long = "root", value_name = "KEY")]
    pub(crate) roots: Vec<String>,
}

/// How much less.
#[derive(Debug, Args)]
pub(crate) struct Narrow {
    /// Keep these rights: r, w, s in that order
    #[arg(long, value_parser = value::rights)]
    pub(crate) rights: Option<Rights>,
    /// Keep these bytes of the region
    #[arg(long, value_parser = value::range, value_name = "A..B")]
    pub(crate) range: Option<ByteRange>,
    /// End so long from now
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Option<Duration>,
    /// How many more delegations are allowed after this
    #[arg(long, value_name = "NUMBER")]
    pub(crate) hops: Option<u8>,
    /// How often it may be opened in all, counted with every token made of the new one
    #[arg(long, value_name = "NUMBER")]
    pub(crate) opens: Option<u64>,
    /// How many bytes may be moved in all, counted with every token made of the new one; such a token is never mapped
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) bytes: Option<u64>,
    /// How many bytes a second may be moved, by every token made of the new one together; such a token is never mapped
    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    pub(crate) bytes_per_second: Option<u64>,
}

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The new token's file, which must not exist; readable by me alone
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}
