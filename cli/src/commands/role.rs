//! `leasehold broker` and `leasehold provider`.

use crate::args::role::{Broker, Provider};
use crate::context::Context;
use crate::failure::Result;
use crate::node::{self, Options, ProviderOptions, Role};
use crate::output::Report;

pub(crate) fn broker(arguments: &Broker, context: &Context) -> Result<Report> {
    super::up::say_what_happens(context);
    node::run(Options {
        dirs: context.dirs.clone(),
        config: arguments.config.clone(),
        role: Role::Broker,
        pool: arguments.pool,
        allow_swap: arguments.allow_swap,
        listen: arguments.listen,
        json: context.json,
    })?;
    Ok(Report::silent())
}

pub(crate) fn provider(arguments: &Provider, context: &Context) -> Result<Report> {
    super::up::say_what_happens(context);
    node::run_provider(ProviderOptions {
        dirs: context.dirs.clone(),
        config: arguments.config.clone(),
        pool: arguments.pool,
        allow_swap: arguments.allow_swap,
        json: context.json,
        life_of: arguments.life_of,
        later: arguments.later_life,
    })?;
    Ok(Report::silent())
}
