//! `leasehold quarantine`: dead memory that is kept instead of given back, for an investigator.

use std::io::{ErrorKind, Write};
use std::path::Path;

use caps::error::{Code, Error};
use caps::id::QuarantineId;
use caps::wire::row::QuarantineRow;
use serde_json::json;

use super::transfer::{STEP_BYTES, after, create, room, stream};
use crate::args::quarantine::{Add, Quarantine, Read};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::progress::Progress;
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
    if context.json && arguments.output.is_none() {
        return Err(Failure::usage(
            "with --json the bytes cannot go to standard output",
            "name a file for them with --output",
        ));
    }
    let session = context.connect()?;
    let row = find(arguments.id, &session)?;
    let range = row.range;
    let offset = arguments.offset.unwrap_or(range.start());
    let readable = range.start() + row.readable_bytes;
    let length = arguments.len.unwrap_or(readable.saturating_sub(offset));
    room(range, offset, length)?;
    let (mut output, name) = match &arguments.output {
        Some(path) => (create(path)?, path.as_path()),
        None => (stream(std::io::stdout())?, Path::new("standard output")),
    };
    let mut progress = Progress::start(Some(length));
    let mut buffer = vec![0; STEP_BYTES.min(usize::try_from(length).unwrap_or(STEP_BYTES))];
    let mut done = 0;
    while done < length {
        let step = usize::try_from(length - done).unwrap_or(STEP_BYTES).min(STEP_BYTES);
        session
            .client
            .quarantine_read(row.id, offset + done, &mut buffer[..step])
            .map_err(|error| after(error.into(), done))?;
        match output.write_all(&buffer[..step]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break, // the reader has seen enough
            Err(error) => return Err(files::failed(name, &error).into()),
        }
        done += step as u64;
        progress.at(done);
    }
    drop(progress);
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
