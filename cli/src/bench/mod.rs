//! `leasehold bench`: what a user can repeat. Each benchmark measures its baseline in the same run and prints the
//! ratio.
//!
//! ```text
//! bench ──┬── up (a node in a temporary directory)
//!         ├── Leasehold, through libmem      ┐ in turns, several rounds
//!         ├── the baseline, beside it        ┘
//!         └── Report: medians, ratios of medians, bounds, ok
//! ```
//!
//! | file | measures |
//! |---|---|
//! | `access` | bytes of a mapped lease, raw and guarded |
//! | `raw` | the loops over plain memory that both sides run |
//! | `map` | opening and mapping what is there |
//! | `control` | leases, renewals and shares a second |
//! | `population` | what a live lease costs in memory, and whether many make the others slower |
//! | `expiry` | how late the end of a lease is |
//! | `revoke/` | how long until memory that many processes use is nobody's |
//! | `beside/` | whether that is slower because somebody hostile holds another region |
//! | `token` | believing a token, and refusing one |
//! | `remote/` | leased memory over TLS, beside TLS alone and Redis |
//! | `crew` | clients in threads, each with a session and a key of its own |
//! | `machine` | the memory of kernel and node, the file system of a directory |
//! | `numbers` | samples, medians, spreads |
//! | `report` | the result, as JSON and as a table |
//!
//! Absolute figures move with the machine and with what else runs on it; a ratio of two sides that were measured in
//! turns holds better. A bound is met or missed as it comes out: nothing is repeated until it fits.

mod access;
mod beside;
mod control;
mod crew;
mod expiry;
mod machine;
mod map;
mod numbers;
mod population;
#[allow(unsafe_code)] // slices of leased memory: what a program that maps raw uses
mod raw;
mod remote;
mod report;
mod revoke;
mod token;

use std::ffi::OsString;
use std::path::PathBuf;

use caps::error::Result;
use clap::Subcommand;

use crate::args::value;

pub(crate) use remote::serve as peer;
pub(crate) use revoke::serve as mapper;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Where the node of the benchmark keeps its directory, audit log included
    #[arg(long, value_name = "DIR", global = true)]
    scratch: Option<PathBuf>,
    /// How often each side has its turn
    #[arg(long, value_name = "N", global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Bytes of a mapped lease beside plain memory and memcpy
    #[command(after_help = "Example:\n  leasehold bench access")]
    Access,
    /// Opening and mapping a lease, again and from nothing
    #[command(after_help = "Example:\n  leasehold bench map")]
    Map,
    /// Leases, renewals and shares a second by concurrent clients, durable and audited
    #[command(after_help = "Example:\n  leasehold bench control --leases 10,10000 --json")]
    Control {
        /// Concurrent clients
        #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
        clients: u32,
        /// Instead of rates: the cost of a live lease, and of an operation, with FEW and with MANY of them
        #[arg(long, value_name = "FEW,MANY", value_parser = two)]
        leases: Option<(u32, u32)>,
    },
    /// How late leases end: 1,000 expiries a second with 10,000 others alive
    #[command(after_help = "Example:\n  leasehold bench expiry")]
    Expiry,
    /// Taking back memory that many processes have mapped, beside the kernel's bare cut
    #[command(after_help = "Example:\n  leasehold bench revoke --size 1MiB --mappers 2 --json")]
    Revoke {
        /// Bytes of the lease
        #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = value::size)]
        size: u64,
        /// Instead: revoke one holder while so many others write at full speed, by rotation
        #[arg(long, value_name = "N", conflicts_with_all = ["mappers", "busy"], value_parser = clap::value_parser!(u8).range(1..=16))]
        survivors: Option<u8>,
        /// Processes that map it
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
        mappers: u32,
        /// How many of them touch it without pause; more than there are processors measures the scheduler
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        busy: u32,
    },
    /// Believing a token and refusing one, beside the token library alone
    #[command(after_help = "Example:\n  leasehold bench token --json")]
    Token,
    /// Taking back memory while a hostile process holds other memory, beside an honest one
    #[command(after_help = "Example:\n  leasehold bench beside --size 64KiB -- ./hostile --its-arguments")]
    Beside {
        /// Bytes of each lease
        #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = value::size)]
        size: u64,
        /// Take back what the neighbour was given alone, by rotation, instead of the lease
        #[arg(long)]
        grant: bool,
        /// Starts the hostile process; what it is told and must say is in docs/benchmarks.md
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Reading and writing leased memory over TLS, beside TLS alone and beside Redis
    #[command(after_help = "Example:\n  leasehold bench remote --json")]
    Remote {
        /// Do everything a few times only, to see that it works: no figure means anything
        #[arg(long)]
        quick: bool,
    },
}

/// Two numbers with a comma between them.
fn two(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(',').and_then(|(few, many)| Some((few.parse().ok()?, many.parse().ok()?)));
    numbers.ok_or("two numbers with a comma between them, as in 10,10000".into())
}

/// Runs one benchmark and prints what came of it. `Ok(true)` if every bound was met.
///
/// # Errors
/// What kept it from being measured.
pub fn run(args: &Args, json: bool) -> Result<bool> {
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let rounds = args.rounds;
    let report = match &args.what {
        What::Access => access::bench(&scratch, rounds.unwrap_or(access::ROUNDS)),
        What::Map => map::bench(&scratch, rounds.unwrap_or(map::ROUNDS)),
        What::Control { clients, leases: Some((few, many)) } => {
            let rounds = rounds.unwrap_or(population::ROUNDS);
            population::bench(&scratch, rounds, *clients, *few, *many)
        }
        What::Control { clients, leases: None } => {
            control::bench(&scratch, rounds.unwrap_or(control::ROUNDS), *clients)
        }
        What::Expiry => expiry::bench(&scratch),
        What::Token => token::bench(rounds.unwrap_or(token::ROUNDS)),
        &What::Revoke { size, survivors: Some(survivors), .. } => {
            let bytes = size.next_multiple_of(policy::limits::PAGE_BYTES);
            revoke::bench_survivors(&scratch, rounds.unwrap_or(revoke::ROTATIONS), survivors, bytes)
        }
        &What::Revoke { size: bytes, survivors: None, mappers, busy } => {
            revoke::bench(&scratch, rounds, revoke::Shape { bytes, mappers, busy })
        }
        What::Beside { size, grant, command } => {
            let take = if *grant { beside::Take::Grant } else { beside::Take::Lease };
            beside::bench(&scratch, rounds.unwrap_or(beside::ROUNDS), *size, take, command)
        }
        What::Remote { quick } => remote::bench(&scratch, remote::Shape::new(rounds, *quick)),
    }?;
    report.print(json)?;
    Ok(report.is_ok())
}
