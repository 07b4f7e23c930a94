//! What each command does. One file a noun; each returns a [`Report`] and prints nothing itself, but for bytes and lines
//! that cannot wait for the end.

pub(crate) mod audit;
mod bench;
mod check;
mod completions;
mod cosign;
mod doctor;
mod id;
mod inspect;
mod lease;
mod ownership;
mod pair;
mod pki;
mod quarantine;
mod quota;
mod receipt;
mod revoke;
mod root;
mod run;
mod share;
mod snapshot;
mod status;
mod token;
mod transfer;
mod up;
mod verify;
mod wrap;

mod encrypted;
mod lease_key;

mod node;
mod role;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Report;

/// Does what was asked.
pub(crate) fn run(command: &Command, context: &Context) -> Result<Report> {
    match command {
        Command::Demo => up::demo(context),
        Command::Up(arguments) => up::run(arguments, context),
        Command::DemoClient(arguments) => up::demo_client(arguments),
        Command::Canary => up::canary(),
        Command::Status => status::run(context),
        Command::Doctor => doctor::run(context),
        Command::Id(command) => id::run(command, context),
        Command::Lease(command) => lease::run(command, context),
        Command::Put(arguments) => transfer::put(arguments, context),
        Command::Get(arguments) => transfer::get(arguments, context),
        Command::Share(command) => share::run(command, context),
        Command::Revoke(arguments) => revoke::run(arguments, context),
        Command::Quarantine(command) => quarantine::run(command, context),
        Command::Root(command) => root::run(command, context),
        Command::Pki(command) => pki::run(command, context),
        Command::Run(arguments) => run::run(arguments, context),
        Command::Token(command) => token::run(command, context),
        Command::Audit(command) => audit::run(command, context),
        Command::Policy(command) => check::policy(command),
        Command::Config(command) => check::config(command),
        Command::BenchMapper => bench::mapper(),
        Command::BenchPeer => bench::peer(),
        Command::Bench(arguments) => bench::run(arguments, context),
        Command::Quota(command) => quota::run(command, context),
        Command::Completions { shell } => completions::run(*shell),
        Command::Transfer(command) => ownership::run(command, context),
        Command::Broker(arguments) => role::broker(arguments, context),
        Command::Provider(arguments) => role::provider(arguments, context),
        Command::Node(command) => node::run(command, context),
    }
}
