//! What people and scripts see.

pub(crate) mod error;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod placement;
pub(crate) mod progress;
pub(crate) mod table;

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

use crate::failure::{Failure, Result};

/// What a command did, in both forms.
#[derive(Debug)]
pub(crate) struct Report {
    /// One document, for `--json`. `None`: the command printed what there is to print.
    pub(crate) json: Option<Value>,
    /// For people. Ends in a line end unless it is empty.
    pub(crate) text: String,
    /// What was found besides, which decides the exit code: a log that was tampered with, a policy with mistakes.
    pub(crate) failure: Option<Failure>,
}

impl Report {
    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json: Some(json), text: text.into(), failure: None }
    }

    /// The command wrote to standard output itself.
    pub(crate) const fn silent() -> Self {
        Self { json: None, text: String::new(), failure: None }
    }

    pub(crate) fn failing(mut self, failure: Option<Failure>) -> Self {
        self.failure = failure;
        self
    }
}

/// Whether to colour. Standard output and standard error are each looked at for themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// Whether standard output takes colours.
    pub(crate) stdout: bool,
    /// Whether standard error takes colours.
    pub(crate) stderr: bool,
}

impl Style {
    /// Colours go to terminals that know them, unless `NO_COLOR` has any text in it (no-color.org).
    pub(crate) fn detect() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let plain = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let allowed = !unwanted && !plain;
        Self {
            stdout: allowed && std::io::stdout().is_terminal(),
            stderr: allowed && std::io::stderr().is_terminal(),
        }
    }
}

/// `text` in bold where `on`.
pub(crate) fn bold(on: bool, text: &str) -> String {
    if on { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// `text` in red where `on`.
pub(crate) fn red(on: bool, text: &str) -> String {
    if on { format!("\u{1b}[1;31m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Prints what came of a command, and says with which code to exit.
pub(crate) fn finish(outcome: Result<Report>, json: bool, style: Style) -> ExitCode {
    let failure = match outcome {
        Ok(report) => print(&report, json).err().or(report.failure),
        Err(failure) => Some(failure),
    };
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            error::print(&failure, json, style);
            ExitCode::from(failure.exit)
        }
    }
}

fn print(report: &Report, json: bool) -> Result<()> {
    match &report.json {
        Some(value) if json => to_stdout(json::document(value).as_bytes()),
        _ => to_stdout(report.text.as_bytes()),
    }
}

/// Writes to standard output. A reader that has seen enough and closed its end is no failure.
pub(crate) fn to_stdout(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(crate::files::failed(std::path::Path::new("standard output"), &error).into())
        }
        _ => Ok(()),
    }
}
