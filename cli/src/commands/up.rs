//! `leasehold up`, `leasehold demo`, and the demo's clients.

use serde_json::Value;

use crate::args::up::{DemoClient, Up};
use crate::context::Context;
use crate::failure::Result;
use crate::node::{self, Options};
use crate::output::Report;

pub(crate) fn run(arguments: &Up, context: &Context) -> Result<Report> {
    node::run(Options {
        dirs: context.dirs.clone(),
        pool: arguments.pool,
        allow_swap: arguments.allow_swap,
        json: context.json,
    })?;
    Ok(Report::silent())
}

pub(crate) fn demo(context: &Context) -> Result<Report> {
    let (told, failure) = crate::demo::demo(context.json);
    let json = serde_json::to_value(&told).unwrap_or(Value::Null); // numbers and texts encode
    Ok(Report::new(json, told.in_words()).failing(failure.map(Into::into)))
}

pub(crate) fn demo_client(arguments: &DemoClient) -> Result<Report> {
    crate::demo::play(arguments.role)?;
    Ok(Report::silent())
}
