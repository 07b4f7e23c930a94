//! `leasehold bench`.

use caps::error::Code;

use crate::bench::{self, Args};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::Report;

pub(crate) fn run(arguments: &Args, context: &Context) -> Result<Report> {
    if bench::run(arguments, context.json)? {
        return Ok(Report::silent());
    }
    // Every figure was printed; the exit code says that one of them misses its bound.
    Err(Failure::of(Code::Internal, "a figure misses its bound")
        .help("the table marks it; other work may share the machine"))
}

pub(crate) fn mapper() -> Result<Report> {
    bench::mapper()?;
    Ok(Report::silent())
}

pub(crate) fn peer() -> Result<Report> {
    bench::peer()?;
    Ok(Report::silent())
}
