//! `leasehold share`.

use std::path::PathBuf;
use std::time::Duration;

use caps::id::GrantId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareDigest;
use clap::{ArgGroup, Args, Subcommand};

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum Share {
    /// Offers a lease of mine, or a part of it, to a principal; nothing is shared until it accepts
    Offer(Offer),
    /// Prints what is offered to me and signs exactly that
    Accept(Accept),
    /// Takes rights, bytes or time off a grant of mine, at once, and leaves the rest; prints the receipt
    Narrow(Narrow),
    /// Shows a grant's contract and who signed it, and writes it with the signatures to a file
    Show(Show),
    /// Checks all signatures on a contract from its file alone, and says who agreed to what
    Verify(Verify),
    /// Lists the grants that I offered, was offered or have to co-sign
    #[command(after_help = "Example:\n  leasehold share list --as bob")]
    List {
        /// Those too that are over
        #[arg(long)]
        all: bool,
    },
    /// Signs, as the third party that a contract names, exactly what is printed; only then is it issued
    Cosign(Cosign),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold share offer frames --as alice --to bob --rights r --ttl 5m",
    long_about = "Offers a lease of mine, or a part of it, to a principal; nothing is shared until it accepts\n\nOf a lease \
                  made with --encrypt this gives the memory alone: `leasehold lease key export` gives the key to read it. \
                  The receiver of a range reads the blocks of 4KiB that lie wholly in it."
)]
pub(crate) struct Offer {
    /// The lease: its id, its name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// To whom: a principal's name, or its key as 64 hexadecimal digits
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) to: String,
    /// What it may do: r, rw
    #[arg(long, value_parser = value::rights)]
    pub(crate) rights: Rights,
    /// To which bytes; without it, all of the lease
    #[arg(long, value_parser = value::range, value_name = "A..B")]
    pub(crate) range: Option<ByteRange>,
    /// For how long from now; without it, as long as the lease lives
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Option<Duration>,
    /// How often it may be delegated onwards, offline; not at all without it
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) hops: u8,
    /// Who else must sign before it can be accepted: a principal's name, or its key as 64 hexadecimal digits
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) cosigner: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold share show cb7e55f12a6eaca416bd6db6c7e7ae87 --as bob -o agreed.json"
)]
pub(crate) struct Show {
    /// Which grant
    #[arg(value_parser = value::grant)]
    pub(crate) id: GrantId,
    /// Writes the contract and its signatures to this new file, for `share verify`
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold share verify agreed.json --log /var/lib/leasehold/audit --vkey \
                  /var/lib/leasehold/audit/vkeys"
)]
pub(crate) struct Verify {
    /// What `share show -o` wrote
    pub(crate) file: PathBuf,
    /// The directory of the node's logs, or the broker's log: the offer, the acceptance and a co-signature are looked for there
    #[arg(long, value_name = "DIR", requires = "vkeys")]
    pub(crate) log: Option<PathBuf>,
    /// The public key of the broker's log, or a file with one a line; more than once for several
    #[arg(long = "vkey", id = "vkeys", value_name = "K", requires = "log")]
    pub(crate) vkeys: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold share accept --as bob")]
pub(crate) struct Accept {
    /// Which grant; without it, the only one that waits for me
    #[arg(value_parser = value::grant)]
    pub(crate) id: Option<GrantId>,
    /// Prints the contract with its digest, and signs nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Signs only a contract of this digest, as `--dry-run` and `share show` print it
    #[arg(long = "if", value_parser = value::share_digest, value_name = "DIGEST")]
    pub(crate) only_if: Option<ShareDigest>,
    /// Writes the token to this new file too, readable by me alone
    #[arg(short, long, value_name = "TOKEN")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold share narrow cb7e55f12a6eaca416bd6db6c7e7ae87 --as alice --rights r",
    group(ArgGroup::new("part").required(true).multiple(true).args(["rights", "range", "ttl"]))
)]
pub(crate) struct Narrow {
    /// Which grant
    #[arg(value_parser = value::grant)]
    pub(crate) grant: GrantId,
    /// What its receiver may still do: r, rw
    #[arg(long, value_parser = value::rights)]
    pub(crate) rights: Option<Rights>,
    /// To which bytes, within those that it still reaches
    #[arg(long, value_parser = value::range, value_name = "A..B")]
    pub(crate) range: Option<ByteRange>,
    /// For how long from now
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold share cosign cb7e55f12a6eaca416bd6db6c7e7ae87 --as security --dry-run"
)]
pub(crate) struct Cosign {
    /// Which grant
    #[arg(value_parser = value::grant)]
    pub(crate) id: GrantId,
    /// Prints the contract with its digest, and signs nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Signs only a contract of this digest, as `--dry-run` and `share show` print it
    #[arg(long = "if", value_parser = value::share_digest, value_name = "DIGEST")]
    pub(crate) only_if: Option<ShareDigest>,
}
