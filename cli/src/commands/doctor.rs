//! `leasehold doctor`: tries on this machine what the node needs, and says what is weaker here and why.
//!
//! No node has to run; of one that does, it says what its canary found. What is tried is tried for real, with one page of memory that is gone afterwards.

use std::os::fd::{AsRawFd, BorrowedFd};

use caps::error::Code;
use caps::wire::row::{CanaryRow, CanaryState};
use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::mem::{Check, Memory, Strength, Tier};
use serde_json::json;

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, bold};

/// Memory that the trial may use at most, in bytes. It uses one page.
const POOL_BYTES: u64 = 16 << 20;
/// Regions that the trial may make at most.
const REGIONS_MAX: u32 = 4;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let config = FactoryConfig {
        pool_bytes_max: POOL_BYTES,
        regions_max: REGIONS_MAX,
        namespace: Namespace::default(),
    };
    // The factory forks, so this comes before any thread.
    let memory = Memory::start(Factory::spawn(config)?, Strength::Best)?;
    let (tier, meaning) = tier(memory.tier());
    let mut checks = memory.capabilities().checks().to_vec();
    checks.push(daemons(memory.guardian()));
    let mut failure = None;
    // This command is about the machine it runs on: a node elsewhere says nothing of it.
    if let Some(row) = (!context.is_remote()).then(|| running_canary(context)).flatten() {
        let (check, found) = canary(row.as_ref());
        checks.push(check);
        failure = found;
    }
    let mut table = Table::new([("CHECK", Align::Left), ("", Align::Left), ("FOUND", Align::Left)]);
    for Check { name, ok, found, .. } in &checks {
        let mark = if *ok { "ok" } else { "weaker" };
        table.row([(*name).to_owned(), mark.to_owned(), policy::diagnostic::quote(found)]);
    }
    let colour = context.style.stdout;
    let mut text = table.render(colour, "nothing was checked");
    for check in checks.iter().filter(|check| !check.ok) {
        text += &format!("\n{}: {}\n", bold(colour, check.name), check.advice);
    }
    text += &format!("\ntier {tier}: {meaning}\n");
    let checks: Vec<_> = checks
        .iter()
        .map(|Check { name, ok, found, advice }| {
            let advice = (!ok).then_some(advice);
            json!({ "name": name, "ok": ok, "found": found, "advice": advice })
        })
        .collect();
    Ok(Report::new(json!({ "doctor": { "tier": tier, "checks": checks } }), text).failing(failure))
}

/// What the node's canary says, if a node runs that this user may ask. The inner one is `None` where it is turned off.
#[expect(clippy::option_option, reason = "no node and no canary are two things")]
fn running_canary(context: &Context) -> Option<Option<CanaryRow>> {
    Some(context.connect_as_anybody().ok()?.status().ok()?.canary)
}

/// Whether revocations do what they promise, at the node that runs; and why this command fails if not.
fn canary(row: Option<&CanaryRow>) -> (Check, Option<Failure>) {
    let found = row.map_or("turned off".to_owned(), super::status::canary);
    let ok = matches!(row.map(|row| row.state), Some(CanaryState::Ok | CanaryState::Waiting));
    let (advice, failure) = match row.map(|row| row.state) {
        Some(CanaryState::Failed) => (
            "do not rely on revocations of this node: stop it, keep its logs, and report what the canary found",
            Some("a revocation did not do what its receipt says"),
        ),
        Some(CanaryState::Stopped) => {
            ("nobody watches whether revocations work; start the node again", Some("the canary has stopped"))
        }
        Some(_) => ("the node refuses the canary; what it says is the reason", None),
        None => ("nobody watches whether revocations work; `canary.every` in the node's configuration", None),
    };
    let failure = failure.map(|message| Failure::of(Code::Internal, message).help(advice));
    (Check { name: "revocation canary", ok, found, advice }, failure)
}

/// Whether the daemons' own system calls are filtered: read from the guardian that was started for the trial. A node
/// that cannot do the same does not start.
fn daemons(guardian: BorrowedFd<'_>) -> Check {
    let is_filtered = || {
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", guardian.as_raw_fd())).ok()?;
        let pid: u32 = value(&about, "Pid:")?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some((value(&status, "Seccomp:")? == "2") && (value(&status, "NoNewPrivs:")? == "1"))
    };
    let (ok, found) = match is_filtered() {
        Some(true) => (true, "node and guardian run under lists of system calls"),
        Some(false) => (false, "the guardian's system calls are not filtered"),
        None => (false, "/proc does not say"),
    };
    let advice = "a node that was taken over could make any system call; mount /proc, use a kernel with seccomp filters";
    Check { name: "daemons sandboxed", ok, found: found.to_owned(), advice }
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

const fn tier(tier: Tier) -> (&'static str, &'static str) {
    match tier {
        Tier::Sealed => {
            ("sealed", "clients of other users may map to read and to write, and can do nothing else")
        }
        Tier::Sandboxed => ("sandboxed", "clients that `leasehold run` started may map to read and to write"),
        Tier::Open => (
            "open",
            "clients of other users map to read only and write through the node; clients of the node's own user \
             have no boundary",
        ),
    }
}

#[cfg(test)]
mod tests {
    use caps::time::Micros;

    use super::*;

    #[test]
    fn a_canary_that_failed_or_stopped_makes_the_command_fail() {
        let row = |state| CanaryRow {
            state,
            every: Micros(1),
            last: Micros(2),
            p50: Micros(2),
            p99: Micros(2),
            receipt: Micros(3),
            runs: 4,
            failures: u64::from(state == CanaryState::Failed),
            skipped: 0,
            age: Some(Micros(5)),
            said: "it lives".to_owned(),
        };
        for (state, ok, fails) in [
            (CanaryState::Waiting, true, false),
            (CanaryState::Ok, true, false),
            (CanaryState::CouldNotRun, false, false),
            (CanaryState::Failed, false, true),
            (CanaryState::Stopped, false, true),
        ] {
            let (check, failure) = canary(Some(&row(state)));
            assert_eq!((check.ok, failure.is_some()), (ok, fails), "{state:?}");
            assert!(failure.is_none_or(|failure| failure.exit == 1));
        }
        let (check, _) = canary(Some(&row(CanaryState::Failed)));
        assert!(check.found.contains("REVOCATION FAILED 1 times: it lives"), "{}", check.found);
        assert!(!canary(None).0.ok && canary(None).1.is_none(), "turned off is weaker, and no failure");
    }
}
