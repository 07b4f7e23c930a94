//! `leasehold transfer`.

use std::path::PathBuf;
use std::time::Duration;

use caps::id::TransferId;
use caps::share::TransferDigest;
use clap::{Args, Subcommand};

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum Transfer {
    /// Offers a lease of mine to another owner; it stays mine until that one accepts
    Offer(Offer),
    /// Prints what is offered to me, signs exactly that, and takes the lease over with the bytes in it
    Accept(Accept),
    /// Lists the leases that I offered or was offered
    #[command(after_help = "Example:\n  leasehold transfer list --as bob")]
    List {
        /// Those too that are over
        #[arg(long)]
        all: bool,
    },
    /// Shows the contract of an offer and who signed it
    #[command(after_help = "Example:\n  leasehold transfer show cb7e55f12a6eaca416bd6db6c7e7ae87 --as bob")]
    Show {
        /// Which offer
        #[arg(value_parser = value::transfer)]
        id: TransferId,
    },
    /// Takes an offer back, or turns one down, before it is accepted
    #[command(
        after_help = "Example:\n  leasehold transfer withdraw cb7e55f12a6eaca416bd6db6c7e7ae87 --as alice"
    )]
    Withdraw {
        /// Which offer
        #[arg(value_parser = value::transfer)]
        id: TransferId,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold transfer offer frames --as alice --to bob --ttl 5m")]
pub(crate) struct Offer {
    /// The lease: its id, its name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// To whom: a principal's name, or its key as 64 hexadecimal digits
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) to: String,
    /// For how long the offer stands; without it, as long as the lease lives
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold transfer accept cb7e55f12a6eaca416bd6db6c7e7ae87 --as bob")]
pub(crate) struct Accept {
    /// Which offer
    #[arg(value_parser = value::transfer)]
    pub(crate) id: TransferId,
    /// Prints the contract with its digest, and signs nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Signs only a contract of this digest, as `--dry-run` and `transfer show` print it
    #[arg(long = "if", value_parser = value::transfer_digest, value_name = "DIGEST")]
    pub(crate) only_if: Option<TransferDigest>,
    /// Writes the token to this new file too, readable by me alone
    #[arg(short, long, value_name = "TOKEN")]
    pub(crate) output: Option<PathBuf>,
}
