//! `leasehold lease key`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseKey {
    /// Makes a copy of a lease's key that one receiver alone can open, signed with my key; needs no node
    Export(Export),
    /// Takes a lease's key that was made for me; needs no node
    Import(Import),
    /// Shreds a lease's key: what is written with it cannot be read any more with this copy, nor by anybody without another one
    Destroy(Destroy),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold lease key export frames --as alice --to bob -o frames-for-bob.key",
    long_about = "Makes a copy of a lease's key that one receiver alone can open, signed with my key; needs no node\n\nA \
                  share or a delegated token gives memory, and not the key to read it: give the receiver both. Who has \
                  the key can give it on, and a revoke does not take it back: it takes the memory. The receiver is an identity of this user, or one whose key was given \
                  with `leasehold id trust`: the node's word for a name is not taken, since the key is to be kept from it."
)]
pub(crate) struct Export {
    /// The lease: its id or a grant's, its name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
    /// To whom: an identity of this user, a name given with `leasehold id trust`, or a key as 64 hexadecimal digits
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) to: String,
    /// Writes to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold lease key import frames-for-bob.key --as bob --from alice",
    long_about = "Takes a lease's key that was made for me; needs no node\n\nWhose key is used reads what is written with \
                  it. So it is taken alone from an identity of this user, or from one whose key was given with \
                  `leasehold id trust`, and the name is printed: say --from to take it from nobody else."
)]
pub(crate) struct Import {
    /// What `lease key export` wrote, or `-` for standard input
    pub(crate) file: PathBuf,
    /// From whom it has to be: an identity of this user, a name given with `leasehold id trust`, or a key as 64
    /// hexadecimal digits
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold lease key destroy frames --as alice",
    long_about = "Shreds a lease's key: what is written with it cannot be read any more with this copy, nor by anybody \
                  without another one\n\nIts file is overwritten and removed. Copies that were exported, and backups of \
                  this directory, are copies all the same: the bytes are gone when the last one is. A file system that \
                  does not write in place, or a disk that moves blocks, may keep what the file held."
)]
pub(crate) struct Destroy {
    /// The lease: its id or a grant's, its name, a token's file, or `-` for a token on standard input
    #[arg(value_parser = value::lease)]
    pub(crate) lease: LeaseArg,
}
