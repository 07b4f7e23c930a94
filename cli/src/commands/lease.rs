//! `leasehold lease`: memory of one's own, for a time.

use std::path::Path;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::LeaseId;
use caps::token::inspect;
use caps::wire::Name;
use caps::wire::row::{LeaseRow, LeaseState, Lifetime};
use libmem::{LeaseOptions, LeaseView, Leased};
use serde_json::json;

use crate::args::lease::{Create, Lease};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json, placement, table};
use crate::tokens::{self, LeaseArg};

pub(crate) fn run(command: &Lease, context: &Context) -> Result<Report> {
    match command {
        Lease::Create(arguments) => create(arguments, context),
        Lease::List { all } => list(*all, context),
        Lease::Show { lease } => show(lease, &context.connect_for(lease)?, context),
        Lease::Renew { lease, ttl } => renew(lease, *ttl, &context.connect_for(lease)?, context),
        Lease::Release { lease } => release(lease, &context.connect_for(lease)?, context),
        Lease::Snapshot(arguments) => {
            super::snapshot::run(arguments, &context.connect_for(&arguments.lease)?, context)
        }
        // From files alone: no node is needed, and none is told.
        Lease::Key(command) => super::lease_key::run(command, context),
    }
}

fn show(lease: &LeaseArg, session: &Session, context: &Context) -> Result<Report> {
    let view = session.client.lease_show(find(lease, session)?)?;
    let text = table::pairs(context.style.stdout, &view_pairs(&view));
    Ok(Report::new(json!({ "lease": json::lease_view(&view) }), text))
}

fn release(lease: &LeaseArg, session: &Session, context: &Context) -> Result<Report> {
    let receipt = session.client.release(find(lease, session)?).map_err(super::revoke::untold)?;
    Ok(super::revoke::report(&receipt, context))
}

fn create(arguments: &Create, context: &Context) -> Result<Report> {
    // Commands are short: what they make outlives them.
    let mut options = LeaseOptions::new(arguments.size, arguments.ttl)
        .lifetime(Lifetime::Detached)
        .max_hops(arguments.hops);
    if let Some(segment) = arguments.segment {
        options = options.segment(segment);
    }
    if let Some(name) = &arguments.name {
        options = options.name(name.as_str())?;
    }
    if let Some(class) = &arguments.class {
        options = options.class(class.as_str())?;
    }
    if let Some(near) = &arguments.near {
        options = options.near(near.as_str())?;
    }
    refuse_existing(arguments.output.as_deref())?;
    // Before anything is leased: what is to be encrypted is not left half done.
    let interrupt = arguments.encrypt.then(Interrupt::listen).transpose()?;
    let (session, leased) = context.lease(options)?;
    let session = &session;
    let encrypt = |interrupt| super::encrypted::encrypt(&leased, interrupt, session, context);
    let key = interrupt.as_ref().map(encrypt).transpose()?;
    let mut report = kept(&leased, arguments.name.as_ref(), arguments.output.as_deref(), session, context)?;
    if let Some(key) = key {
        super::encrypted::with_key(&mut report, &leased, &key, context)?;
    }
    Ok(report)
}

fn renew(lease: &LeaseArg, ttl: Duration, session: &Session, context: &Context) -> Result<Report> {
    let leased = session.client.renew(find(lease, session)?, ttl)?;
    kept(&leased, leased.lease.name.as_ref(), None, session, context)
}

/// Refuses a file for a token that is there already, before anything is leased.
pub(super) fn refuse_existing(output: Option<&Path>) -> Result<()> {
    match output.filter(|path| path.exists()) {
        Some(path) => {
            let message = format!("{} exists", crate::files::show(path));
            Err(Failure::of(Code::Exists, message).help("name another file for the token"))
        }
        None => Ok(()),
    }
}

/// Keeps a new token and shows its lease.
pub(super) fn kept(
    leased: &Leased,
    name: Option<&Name>,
    output: Option<&Path>,
    session: &Session,
    context: &Context,
) -> Result<Report> {
    let file = session.tokens.keep(&leased.lease.id.to_string(), name, &leased.token)?;
    session.reach.remember(&leased.token);
    if let Some(path) = output {
        tokens::write(path, &leased.token)?;
    }
    let mut pairs = pairs(&leased.lease);
    pairs.push(("token", crate::files::show(&file)));
    let value = json!({ "lease": json::lease(&leased.lease), "token_file": file.to_string_lossy() });
    Ok(Report::new(value, table::pairs(context.style.stdout, &pairs)))
}

fn list(all: bool, context: &Context) -> Result<Report> {
    let (sessions, missing) = context.connect_all()?;
    let rows = sessions.iter().flat_map(|session| session.client.leases());
    let rows = rows.collect::<caps::Result<Vec<_>>>()?;
    let rows: Vec<_> = rows.into_iter().filter(|row| all || row.state != LeaseState::Ended).collect();
    let mut table = Table::new([
        ("ID", Align::Left),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("RIGHTS", Align::Left),
        ("EXPIRES IN", Align::Right),
        ("STATE", Align::Left),
        ("GRANTS", Align::Right),
        ("OWNER", Align::Left),
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            human::or_nothing(row.name.as_ref()),
            human::bytes(row.range.len()),
            row.rights.to_string(),
            human::span(row.expires_in),
            state(row),
            row.grants.to_string(),
            owner(row),
        ]);
    }
    let mut value = json!({ "leases": rows.iter().map(json::lease).collect::<Vec<_>>() });
    let mut text = table.render(context.style.stdout, "no leases");
    not_asked(&missing, &mut value, &mut text);
    Ok(Report::new(value, text))
}

/// Says which nodes of a list an answer is without.
pub(super) fn not_asked(missing: &[Error], value: &mut serde_json::Value, text: &mut String) {
    if missing.is_empty() {
        return;
    }
    let said = |error: &Error| json!({ "code": error.code().text(), "reason": error.detail() });
    value["not_asked"] = missing.iter().map(said).collect();
    for error in missing {
        *text += &format!("not asked: {}: {}\n", error.code(), error.detail());
    }
}

/// The lease that an argument means.
pub(crate) fn find(lease: &LeaseArg, session: &Session) -> Result<LeaseId> {
    match lease {
        LeaseArg::Id(id) => Ok(*id),
        LeaseArg::Name(name) => by_name(name, session),
        LeaseArg::File(_) | LeaseArg::Stdin => {
            let inspection = inspect(&session.tokens.find(lease)?, None)?;
            Ok(LeaseId::parse(&inspection.lease)?)
        }
    }
}

/// The node knows which lease has the name now; here is only the one that had it last.
fn by_name(name: &Name, session: &Session) -> Result<LeaseId> {
    let mut last = None;
    for row in session.client.leases() {
        let row = row?;
        if row.name.as_ref() == Some(name) && row.owner == session.client.holder() {
            if row.state != LeaseState::Ended {
                return Ok(row.id);
            }
            last = Some(row.id);
        }
    }
    last.or_else(|| session.tokens.id_of(name)).ok_or_else(|| {
        Error::with(Code::LeaseUnknown, format!("no lease of yours is called `{name}`")).into()
    })
}

fn owner(row: &LeaseRow) -> String {
    row.owner_name.as_ref().map_or_else(|| row.owner.to_string(), ToString::to_string)
}

fn state(row: &LeaseRow) -> String {
    let state = json::word(&row.state);
    row.cause.map_or(state.clone(), |cause| format!("{state}: {}", json::word(&cause)))
}

fn pairs(row: &LeaseRow) -> Vec<(&'static str, String)> {
    vec![
        ("lease", row.id.to_string()),
        ("name", human::or_nothing(row.name.as_ref())),
        ("size", human::bytes(row.range.len())),
        ("rights", row.rights.to_string()),
        ("range", row.range.to_string()),
        ("expires in", human::span(row.expires_in)),
        ("state", state(row)),
        ("owner", owner(row)),
        ("region", row.region.to_string()),
    ]
}

fn view_pairs(view: &LeaseView) -> Vec<(&'static str, String)> {
    let mut pairs = pairs(&view.lease);
    pairs.extend([
        ("epoch", view.lease.epoch.to_string()),
        ("grants", view.lease.grants.to_string()),
        ("provider", view.lease.provider.to_string()),
    ]);
    pairs.extend(view.lease.address.as_ref().map(|address| ("address", address.to_string())));
    pairs.extend(view.lease.placement.iter().flat_map(placement::pairs));
    match &view.memory {
        None => pairs.push(("memory", "gone".into())),
        Some(memory) => pairs.extend([
            ("memory", human::bytes(memory.bytes)),
            ("huge pages", human::bytes(memory.huge_bytes)),
            ("segments", format!("{} of {}", memory.segments, human::bytes(view.lease.segment_bytes))),
            ("rotations", memory.rotations.to_string()),
            ("tier", json::word(&memory.tier)),
            ("pinned", if memory.pinned { "whole" } else { "in part" }.to_owned()),
            ("in use", format!("{} opens, {} mappings", memory.opens, memory.mappings)),
        ]),
    }
    pairs
}
