//! `leasehold quota`: quota of bytes, lent to somebody who leases memory on one's behalf.

use caps::error::Code;
use caps::id::{DonationId, PrincipalKey};
use caps::wire::Name;
use caps::wire::row::{DonationRow, QuotaRow};
use serde_json::json;

use crate::args::quota::{Give, Quota};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json, table};

pub(crate) fn run(command: &Quota, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    match command {
        Quota::Give(arguments) => give(arguments, &session, context),
        Quota::Take { id } => Ok(report(&session.client.quota_take_back(*id)?, context)),
        Quota::List => list(&session, context),
    }
}

fn give(arguments: &Give, session: &Session, context: &Context) -> Result<Report> {
    let to = context.principal(&session.client, &arguments.to)?;
    let id = arguments.id.unwrap_or_else(DonationId::random);
    let row = session.client.quota_give(id, to, arguments.size, arguments.ttl).map_err(|error| {
        let uncertain = error.code() == Code::Uncertain;
        let failure = Failure::from(error);
        if uncertain {
            failure.help(format!("ask again with --id {id}: while any of it is lent it gives once"))
        } else {
            failure
        }
    })?;
    Ok(report(&row, context))
}

fn report(row: &DonationRow, context: &Context) -> Report {
    let text = table::pairs(
        context.style.stdout,
        &[
            ("donation", row.id.to_string()),
            ("from", named(row.giver_name.as_ref(), row.giver)),
            ("to", named(row.receiver_name.as_ref(), row.receiver)),
            ("given", human::bytes(row.bytes)),
            ("lent", human::bytes(row.lent)),
            ("expires in", human::span(row.expires_in)),
            ("state", json::word(&row.state)),
        ],
    );
    Report::new(json!({ "donation": json::donation(row) }), text)
}

fn list(session: &Session, context: &Context) -> Result<Report> {
    let quota = session.client.quota()?;
    let rows = session.client.donations().collect::<caps::Result<Vec<_>>>()?;
    let mut table = Table::new([
        ("ID", Align::Left),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("GIVEN", Align::Right),
        ("LENT", Align::Right),
        ("EXPIRES IN", Align::Right),
        ("STATE", Align::Left),
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            named(row.giver_name.as_ref(), row.giver),
            named(row.receiver_name.as_ref(), row.receiver),
            human::bytes(row.bytes),
            human::bytes(row.lent),
            human::span(row.expires_in),
            json::word(&row.state),
        ]);
    }
    let value = json!({ "quota": json::quota(&quota), "donations": rows.iter().map(json::donation).collect::<Vec<_>>() });
    let text = table::pairs(context.style.stdout, &pairs(&quota))
        + &table.render(context.style.stdout, "nothing given, nothing received");
    let changed = context.meet(rows.iter().flat_map(names)).err();
    Ok(Report::new(value, text).failing(changed))
}

fn pairs(quota: &QuotaRow) -> [(&'static str, String); 6] {
    [
        ("limit", human::bytes(quota.limit_bytes)),
        ("given", human::bytes(quota.given_bytes)),
        ("received", human::bytes(quota.received_bytes)),
        ("used", human::bytes(quota.used_bytes)),
        ("free to lease", human::bytes(quota.free_bytes)),
        ("free to give", human::bytes(quota.giveable_bytes)),
    ]
}

fn named(name: Option<&Name>, key: PrincipalKey) -> String {
    name.map_or_else(|| key.to_string(), ToString::to_string)
}

/// The names that the node gives the two keys of a donation.
fn names(row: &DonationRow) -> Vec<(Name, PrincipalKey)> {
    let pairs = [(row.giver_name.clone(), row.giver), (row.receiver_name.clone(), row.receiver)];
    pairs.into_iter().filter_map(|(name, key)| Some((name?, key))).collect()
}
