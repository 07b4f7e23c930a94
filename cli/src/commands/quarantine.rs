//! `leasehold quarantine`: dead memory that is kept instead of given back, for an investigator.

use caps::error::{Code, Error};
use caps::id::QuarantineId;
use caps::wire::row::QuarantineRow;
use serde_json::json;

use super::transfer::{pour, refuse_two_documents, room, step_bytes};
use crate::args::quarantine::{Add, Quarantine, Read};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json};

pub(crate) fn run(command: &Quarantine, context: &Context) -> Result<Report> {
    match command {
        Quarantine::Add(arguments) => add(arguments, context),
        Quarantine::List => list(context),
        Quarantine::Read(arguments) => read(arguments, context),
        Quarantine::Release { id } => release(*id, context),
    }
}

fn add(arguments: &Add, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    let lease = super::lease::find(&arguments.lease, &session)?;
    let receipt = session.client.quarantine_add(lease, arguments.reason.clone())?;
    Ok(super::revoke::report(&receipt, context))
}

fn list(context: &Context) -> Result<Report> {
    let session = context.connect()?;
    let rows = session.client.quarantine()?;
    let mut table = Table::new([
        ("ID", Align::Right),
        ("LEASE", Align::Left),
        ("OWNER", Align::Left),
        ("BYTES", Align::Right),
        ("RANGE", Align::Left),
        ("SINCE", Align::Left),
        ("WHY", Align::Left),
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            row.lease.to_string(),
            row.owner.to_string(),
            human::bytes(row.range.len()),
            row.range.to_string(),
            human::time(row.since),
            json::word(&row.cause),
        ]);
    }
    let value = json!({ "quarantine": rows.iter().map(json::quarantined).collect::<Vec<_>>() });
    Ok(Report::new(value, table.render(context.style.stdout, "nothing is in quarantine")))
}

fn read(arguments: &Read, context: &Context) -> Result<Report> {
    refuse_two_documents(arguments.output.as_deref(), context)?;
    let session = context.connect()?;
    let row = find(arguments.id, &session)?;
    let range = row.range;
    let offset = arguments.offset.unwrap_or(range.start());
    let readable = range.start() + row.readable_bytes;
    let length = arguments.len.unwrap_or(readable.saturating_sub(offset));
    room(range, offset, length)?;
    let done = pour(arguments.output.as_deref(), length, step_bytes(context), |done, buffer| {
        session.client.quarantine_read(row.id, offset + done, buffer)
    })?;
    if arguments.output.is_none() {
        return Ok(Report::silent());
    }
    let text = format!("read {} at {offset} of {} in quarantine\n", human::bytes(done), row.id);
    let value = json!({ "quarantine": {
        "id": row.id.0, "lease": row.lease.to_string(), "offset": offset, "bytes": done,
    }});
    Ok(Report::new(value, text))
}

fn release(id: QuarantineId, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    let row = find(id, &session)?;
    let wiped = session.client.quarantine_release(id)?;
    let text = format!("released {id}: wiped {}, of lease {}\n", human::bytes(wiped), row.lease);
    let value = json!({ "quarantine": {
        "id": id.0, "lease": row.lease.to_string(), "wiped_bytes": wiped,
    }});
    Ok(Report::new(value, text))
}

fn find(id: QuarantineId, session: &Session) -> Result<QuarantineRow> {
    let rows = session.client.quarantine()?;
    rows.into_iter().find(|row| row.id == id).ok_or_else(|| {
        let unknown = Error::new(Code::LeaseUnknown, "nothing of that number is in quarantine");
        Failure::from(unknown).help("`leasehold quarantine list --as admin` shows what is")
    })
}
