//! `leasehold status`: the node's numbers.

use caps::wire::provider::ProviderRow;
use caps::wire::row::{CanaryRow, CanaryState};
use serde_json::json;

use crate::context::Context;
use crate::failure::Result;
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json, table};

pub(crate) fn run(context: &Context) -> Result<Report> {
    if context.is_list() {
        return each(context);
    }
    let client = context.connect_as_anybody()?;
    let status = client.status()?;
    let used = |bytes: u64| {
        let percent = u128::from(bytes) * 100 / u128::from(status.pool_bytes.max(1));
        format!("{} ({percent} %)", human::bytes(bytes))
    };
    let mut pairs = vec![
        ("node", status.own().map_or("none: it has no memory of its own".to_owned(), |id| id.to_string())),
        ("cluster", status.cluster.to_string()),
        ("up for", human::span(status.uptime)),
        ("tier", status.own().map_or("-".to_owned(), |_| json::word(&status.tier))),
        ("pool", human::bytes(status.pool_bytes)),
        ("leased", used(status.leased_bytes)),
        ("committed", used(status.committed_bytes)),
        ("leases", status.leases.to_string()),
        ("grants", status.grants.to_string()),
        ("principals", status.principals.to_string()),
        ("sessions", status.sessions.to_string()),
        ("audit", if status.audit { "records" } else { "DOES NOT RECORD" }.to_owned()),
        ("entries", format!("{} broker, {} provider", status.broker_entries, status.provider_entries)),
        ("policy", policy::diagnostic::quote(&status.policy)),
        ("canary", status.canary.as_ref().map_or("off".to_owned(), canary)),
    ];
    // A node of its own has said everything about its one provider.
    if status.providers.iter().any(|row| row.id != status.provider || status.providers.len() > 1) {
        pairs.extend(status.providers.iter().map(|row| ("provider", provider(row))));
    }
    let text = table::pairs(context.style.stdout, &pairs);
    Ok(Report::new(json!({ "status": json::status(&status) }), text))
}

/// The nodes of a list, each in a line.
fn each(context: &Context) -> Result<Report> {
    let nodes = context.listed_as_anybody()?;
    let asked = nodes.sessions().into_iter().map(|client| client?.status());
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("UP FOR", Align::Right),
        ("POOL", Align::Right),
        ("LEASED", Align::Right),
        ("LEASES", Align::Right),
        ("STATE", Align::Left),
    ]);
    let mut values = Vec::new();
    for (address, status) in context.addresses().zip(asked) {
        let (cells, value) = match status {
            Ok(status) => (
                [
                    human::span(status.uptime),
                    human::bytes(status.pool_bytes),
                    human::bytes(status.leased_bytes),
                    status.leases.to_string(),
                    "up".to_owned(),
                ],
                json!({ "node": address, "status": json::status(&status) }),
            ),
            Err(error) => {
                let nothing = || "-".to_owned();
                let code = error.code().text();
                (
                    [nothing(), nothing(), nothing(), nothing(), code.to_owned()],
                    json!({ "node": address, "code": code, "reason": error.detail() }),
                )
            }
        };
        let [up, pool, leased, leases, state] = cells;
        table.row([address.to_owned(), up, pool, leased, leases, state]);
        values.push(value);
    }
    Ok(Report::new(json!({ "nodes": values }), table.render(context.style.stdout, "no nodes")))
}

/// A provider in a line.
fn provider(row: &ProviderRow) -> String {
    let taken = human::bytes(row.reserved_bytes.saturating_add(row.committed_bytes));
    let (name, state, bytes) = (&row.name, row.state.name(), human::bytes(row.bytes));
    format!("{name}, {state}: {taken} of {bytes} taken, heard {} ago", human::span(row.silent_for))
}

/// How revocations are, in a line.
pub(super) fn canary(row: &CanaryRow) -> String {
    let CanaryRow { last, p50, p99, runs, skipped, .. } = row;
    let said = policy::diagnostic::quote(&row.said);
    let age = row.age.map_or("never heard of".to_owned(), |age| format!("{} ago", human::span(age)));
    let times = format!(
        "dead after {} us (p50 {} us, p99 {} us), {runs} runs, {skipped} skipped, {age}",
        last.0, p50.0, p99.0
    );
    match row.state {
        CanaryState::Waiting => "no run yet".to_owned(),
        CanaryState::Ok => times,
        CanaryState::CouldNotRun => format!("could not run: {said}; before: {times}"),
        CanaryState::Failed => format!("REVOCATION FAILED {} times: {said}; {times}", row.failures),
        CanaryState::Stopped => format!("STOPPED: {said}; before: {times}"),
    }
}
