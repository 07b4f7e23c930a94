//! `bench remote`: leased memory over TLS, beside TLS alone and beside Redis over TLS.
//!
//! ```text
//!                      ┌── node                        client library
//! benchmark ── TLS ────┼── rustls_echo  (process)      rustls, blocking
//! (the client)         └── redis_tls    (process)      rustls, blocking
//! ```
//!
//! All three are processes of their own on the loopback, have certificates of the same authority, ask for the client's, and
//! are measured in turns: what else runs on the machine hits all. `rustls_echo` sends as many bytes as Leasehold does for
//! the same value and does nothing else. Where `redis-server` is not installed, its column is missing and what is said of
//! it is not judged.
//!
//! | file | what |
//! |---|---|
//! | `papers` | certificates for all of them |
//! | `stage` | the three, started and ended |
//! | `side` | what can be asked of each, and turns |
//! | `stack` | TLS over a blocking socket: the client of both baselines |
//! | `echo`, `redis`, `ours` | each of the three |
//! | `single` | one connection: times, rates, stalls, bytes on the wire |
//! | `relay` | counts bytes on the wire |
//! | `many` | sixteen connections |
//! | `load` | idle sessions, overload, slow peers, as the benchmark sees them |
//! | `child` | the benchmark's other processes |
//! | `idle`, `crowd`, `slow` | what they do |
//! | `session` | a session as small as can be, for them |

mod child;
mod crowd;
mod echo;
mod idle;
mod load;
mod many;
mod ours;
mod papers;
mod redis;
mod relay;
mod session;
mod side;
mod single;
mod slow;
mod stack;
mod stage;
#[cfg(test)]
mod tests;

use std::path::Path;

use caps::error::Result;
use serde_json::Value;

use super::machine;
use super::report::Report;
use load::Many;
use stage::{Stage, Who};

pub use child::serve;

/// Turns of each side.
pub const ROUNDS: u32 = 20;
/// Turns when it only has to be seen that everything works.
pub const ROUNDS_QUICK: u32 = 2;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub rounds: u32,
    /// So little that no figure means anything.
    pub quick: bool,
    many: Many,
}

impl Shape {
    pub fn new(rounds: Option<u32>, quick: bool) -> Self {
        let (usual, many) = if quick { (ROUNDS_QUICK, Many::QUICK) } else { (ROUNDS, Many::FULL) };
        Self { rounds: rounds.unwrap_or(usual), quick, many }
    }
}

/// Measures all of it.
pub fn bench(scratch: &Path, shape: Shape) -> Result<Report> {
    // Before the node is started: it has this process' limit.
    let (many, said) = load::possible(shape.many);
    let shape = Shape { many, ..shape };
    let lengths = [64, 4 << 10, 64 << 10, 1 << 20];
    let stage = Stage::start(scratch, &lengths)?;
    let mut report = Report::new("remote");
    report.param("rounds", shape.rounds);
    report.param("quick", shape.quick);
    report.param("transport", "TLS 1.3, both sides with P-256 certificates, loopback");
    report.param("redis", stage.redis_version().unwrap_or("not installed: nothing is said of it"));
    report.param("load_1m", machine::load());
    single::measure(&stage, &shape, &mut report)?;
    many::measure(&stage, &shape, &mut report)?;
    report.param("crowds", said);
    load::measure(&stage, &shape, &mut report)?;
    Ok(report)
}

/// A figure of one of them.
fn tell(report: &mut Report, who: Who, what: &str, value: Value, text: String) {
    match who {
        Who::Leasehold => report.ours(what, value, text),
        Who::Echo | Who::Redis => report.of_baseline(who.name(), what, value, text),
    }
}
