//! `leasehold quota`.

use std::time::Duration;

use caps::id::DonationId;
use clap::{Args, Subcommand};

use super::value;

#[derive(Debug, Subcommand)]
pub(crate) enum Quota {
    /// Lends a part of my quota: I may lease so much less, and the receiver so much more, until it is over
    Give(Give),
    /// Ends a donation of mine, or as the administrator anybody's, early; what its receiver has leased with it stays lent until that memory is given back
    #[command(after_help = "Example:\n  leasehold quota take cb7e55f12a6eaca416bd6db6c7e7ae87 --as alice")]
    Take {
        /// Which donation
        #[arg(value_parser = value::donation)]
        id: DonationId,
    },
    /// Lists what I gave and was given, and what I may still lease and give
    #[command(after_help = "Example:\n  leasehold quota list --as alice")]
    List,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold quota give bob --as alice --size 64MiB --ttl 10m")]
pub(crate) struct Give {
    /// To whom: a principal's name, or its key as 64 hexadecimal digits
    #[arg(value_parser = value::principal, value_name = "NAME")]
    pub(crate) to: String,
    /// How many bytes
    #[arg(long, value_parser = value::size)]
    pub(crate) size: u64,
    /// For how long from now
    #[arg(long, value_parser = value::span)]
    pub(crate) ttl: Duration,
    /// The donation's id: asking again with it, and the same size and time, gives once for as long as any of it is lent;
    /// once it is wholly back the id is free and asking again gives anew. Drawn without it
    #[arg(long, value_parser = value::donation)]
    pub(crate) id: Option<DonationId>,
}
