//! `leasehold node`: the providers of a broker.

use caps::error::Code;
use caps::wire::provider::ProviderRow;
use serde_json::{Value, json};

use crate::args::node::Node;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, human, placement};

pub(crate) fn run(command: &Node, context: &Context) -> Result<Report> {
    let client = context.connect()?.client;
    let done = match command {
        // Others would be shown none, as if there were none.
        Node::List if !client.welcome().admin => {
            return Err(Failure::of(Code::NotAdmin, "only the administrator sees providers"));
        }
        Node::List => Ok(()),
        Node::Drain { name } => client.provider_drain(name.clone(), true),
        Node::Undrain { name } => client.provider_drain(name.clone(), false),
        Node::Lost { name } => client.provider_lost(name.clone()),
    };
    done.map_err(|error| match error.code() {
        Code::Range => Failure::from(error).help("`leasehold node list` shows their names"),
        _ => error.into(),
    })?;
    // How they are then, whatever was asked: one look for all four.
    Ok(report(&client.status()?.providers, context))
}

fn report(rows: &[ProviderRow], context: &Context) -> Report {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("ADDRESS", Align::Left),
        ("TAKEN", Align::Right),
        ("OF", Align::Right),
        ("SESSIONS", Align::Right),
        ("HEARD", Align::Left),
        ("LOCALITY", Align::Left),
        ("CLASSES", Align::Left),
    ]);
    for row in rows {
        let classes: Vec<_> = row.classes.iter().map(ToString::to_string).collect();
        table.row([
            row.name.to_string(),
            row.state.name().to_owned(),
            human::or_nothing(row.address.as_ref()),
            human::bytes(row.reserved_bytes.saturating_add(row.committed_bytes)),
            human::bytes(row.bytes),
            row.load.sessions.to_string(),
            format!("{} ago", human::span(row.silent_for)),
            human::or_nothing(row.locality.as_ref()),
            human::or_nothing((!classes.is_empty()).then(|| classes.join(", "))),
        ]);
    }
    let value = json!({ "nodes": rows.iter().map(placement::provider).collect::<Vec<Value>>() });
    Report::new(value, table.render(context.style.stdout, "no providers"))
}
