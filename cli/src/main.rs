//! The `leasehold` command.
//!
//! Thin: every command is a call into the crates beside it. What is here is what people see.
//!
//! ```text
//! arguments ──args──▶ Command ──commands──▶ Report ──output──▶ stdout: a table, or one JSON document
//!                        │           │
//!                        │           └─ Failure ──output──▶ stderr: error[E_CODE] and help; the exit code
//!                        └─ Context: which node (dirs), who I am (identity), where my tokens are (tokens)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `args/` | the commands and their options, with the help texts; one file a noun |
//! | `commands/` | what each does; one file a noun |
//! | `output/` | tables, JSON, errors, colours, progress |
//! | `context`, `dirs` | which node and which directories |
//! | `remote` | the way to nodes on other machines |
//! | `reach`, `nodes`, `places` | which of several nodes is asked: lists of them, and where providers were last |
//! | `failure` | how a command fails: code, message, help, exit code |
//! | `files` | files that hold secrets: made and read with care |
//! | `identity`, `contacts`, `tokens` | own keys, keys of others and tokens on disk |
//! | `people` | who a key is |
//! | `interrupt` | Ctrl-C for commands that have something to undo |
//! | `pki/` | a certificate authority for people who have none |
//! | `node/` | the node that `leasehold up` runs |
//! | `canary/` | two clients of the node's own that try whether revocations work |
//! | `demo/` | the story that `leasehold demo` plays |
//! | `bench/` | benchmarks that anyone can repeat, each beside its baseline |
//!
//! No secret is ever taken from an argument or an environment variable, or printed: keys and tokens are files that only
//! their owner may read, or standard input. What comes nearest to one is the id of a wrap without a receiver, which is
//! worth its token until it was used, once.
#![deny(unsafe_code)]

mod args;
mod bench;
mod canary;
mod commands;
mod contacts;
mod context;
mod demo;
mod dirs;
mod failure;
mod files;
mod identity;
mod interrupt;
mod node;
mod nodes;
mod output;
mod people;
mod pki;
mod places;
mod reach;
mod remote;
mod tokens;

mod lease_keys;

use std::process::ExitCode;

use context::Context;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let style = output::Style::detect();
    let cli = match args::parse(&arguments, style) {
        Ok(cli) => cli,
        Err(stop) => return stop.finish(),
    };
    let json = cli.global.json;
    let outcome = Context::new(&cli.global, style).and_then(|context| commands::run(&cli.command, &context));
    output::finish(outcome, json, style)
}
