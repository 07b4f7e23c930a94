//! `leasehold completions`: what a shell needs to complete our words.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::failure::Result;
use crate::output::Report;

pub(crate) fn run(shell: Shell) -> Result<Report> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "leasehold", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Ok(Report::new(json!({ "shell": shell.to_string(), "script": script }), script))
}
