//! `leasehold doctor`: tries on this machine what the node needs, and says what is weaker here and why.
//!
//! No node has to run. What is tried is tried for real, with one page of memory that is gone afterwards.

use provider::factory::{Factory, FactoryConfig, Namespace};
use provider::mem::{Check, Memory, Strength, Tier};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
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
    let checks = memory.capabilities().checks();
    let mut table = Table::new([("CHECK", Align::Left), ("", Align::Left), ("FOUND", Align::Left)]);
    for Check { name, ok, found, .. } in checks {
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
    Ok(Report::new(json!({ "doctor": { "tier": tier, "checks": checks } }), text))
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
