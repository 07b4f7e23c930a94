//! `leasehold token wrap` and `leasehold token unwrap`.

use std::time::Duration;

use caps::wire::wrap::WrapId;
use clap::Args;

use super::token::Target;
use super::value;
use crate::tokens::LeaseArg;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  leasehold token wrap bob.token --as alice --to bob --ttl 5m")]
pub(crate) struct Wrap {
    /// A token's file, `-` for standard input, or the id or name of a lease whose token is kept here
    #[arg(value_name = "TOKEN", value_parser = value::lease, required_unless_present = "show")]
    pub(crate) token: Option<LeaseArg>,
    /// Who alone may fetch it: a name from `leasehold id list`, or a key as 64 hexadecimal digits; without it, the
    /// first who knows the id
    #[arg(long, value_parser = value::principal, value_name = "NAME")]
    pub(crate) to: Option<String>,
    /// For how long from now, at most 10m
    #[arg(long, value_parser = value::span, default_value = "5m")]
    pub(crate) ttl: Duration,
    /// Says whether the token of this wrap of mine was fetched, by whom and when
    #[arg(long, value_parser = value::wrap, value_name = "ID", conflicts_with_all = ["token", "to", "ttl"])]
    pub(crate) show: Option<WrapId>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  leasehold token unwrap cb7e55f12a6eaca416bd6db6c7e7ae87 --as bob -o mine.token"
)]
pub(crate) struct Unwrap {
    /// What `leasehold token wrap` printed
    #[arg(value_parser = value::wrap)]
    pub(crate) id: WrapId,
    #[command(flatten)]
    pub(crate) target: Target,
}
