//! `leasehold up`, `leasehold demo`, and the processes that they start.

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use crate::args::up::{DemoClient, Up};
use crate::context::Context;
use crate::failure::Result;
use crate::node::{self, Options, Role};
use crate::output::Report;

/// Which of the node's messages go to standard error, as in `debug` or `provider=trace`. Warnings without it.
const LOG_VARIABLE: &str = "LEASEHOLD_LOG";

pub(crate) fn run(arguments: &Up, context: &Context) -> Result<Report> {
    say_what_happens(context);
    node::run(Options {
        dirs: context.dirs.clone(),
        config: None,
        role: Role::AllInOne,
        pool: arguments.pool,
        allow_swap: arguments.allow_swap,
        listen: arguments.listen,
        json: context.json,
    })?;
    Ok(Report::silent())
}

/// Sends the node's messages to standard error.
pub(super) fn say_what_happens(context: &Context) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("warn")))
        .with_writer(std::io::stderr)
        .with_ansi(context.style.stderr)
        .init();
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

pub(crate) fn canary() -> Result<Report> {
    crate::canary::play()?;
    Ok(Report::silent())
}
