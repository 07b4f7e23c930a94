//! `leasehold policy check` and `leasehold config check`: every mistake at once, with its place, and nothing started.

use std::path::Path;

use ::policy::{Diagnostic, Policy, Severity};
use serde_json::json;

use crate::args::check;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, error, json};

pub(crate) fn policy(command: &check::Policy) -> Result<Report> {
    let check::Policy::Check { file } = command;
    let policy = Policy::load(file).map_err(Failure::mistakes)?;
    let warnings = lint(&policy, false)?;
    let text =
        format!("{}: {} rules, no mistakes\n{}", files::show(file), policy.rules().len(), lines(&warnings));
    let value = json!({ "policy": {
        "file": file.to_string_lossy(),
        "ok": true,
        "rules": policy.rules().len(),
        "warnings": warnings.iter().map(json::diagnostic).collect::<Vec<_>>(),
    }});
    Ok(Report::new(value, text))
}

pub(crate) fn config(command: &check::Config) -> Result<Report> {
    let check::Config::Check { file } = command;
    let config = ::policy::config::load(file).map_err(Failure::mistakes)?;
    // The policy that it names is part of what would be started.
    let policy_file = config.policy.path(file);
    let warnings = match &policy_file {
        None => Vec::new(),
        Some(path) => lint(&Policy::load(path).map_err(Failure::mistakes)?, config.policy.allow_all)?,
    };
    let also =
        policy_file.as_deref().map_or(String::new(), |path: &Path| format!(" and {}", files::show(path)));
    let text = format!("{}{also}: no mistakes\n{}", files::show(file), lines(&warnings));
    let value = json!({ "config": {
        "file": file.to_string_lossy(),
        "ok": true,
        "policy_file": policy_file.as_ref().map(|path| path.to_string_lossy()),
        "warnings": warnings.iter().map(json::diagnostic).collect::<Vec<_>>(),
    }});
    Ok(Report::new(value, text))
}

/// The warnings of a policy, unless it has mistakes that keep a node from starting.
fn lint(policy: &Policy, allow_all: bool) -> Result<Vec<Diagnostic>> {
    let found = policy.lint(allow_all);
    if found.iter().any(|mistake| mistake.severity == Severity::Error) {
        return Err(Failure::mistakes(found));
    }
    Ok(found)
}

fn lines(warnings: &[Diagnostic]) -> String {
    let line = |warning: &Diagnostic| {
        let (place, code) = (error::place(warning), warning.code.text());
        format!("warning[{code}]: {place}: {}\nhelp: {}\n", warning.message, warning.help)
    };
    warnings.iter().map(line).collect()
}
