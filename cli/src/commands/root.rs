//! `leasehold root`: the keys that mint tokens, and whose tokens are believed.

use caps::wire::row::RootRow;
use serde_json::json;

use crate::args::root::Root;
use crate::context::Context;
use crate::failure::Result;
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json};

pub(crate) fn run(command: &Root, context: &Context) -> Result<Report> {
    let client = context.connect()?.client;
    let rows = match *command {
        Root::Rotate => client.root_rotate()?,
        Root::Retire { id } => client.root_retire(id)?,
        Root::List => client.roots()?,
    };
    Ok(report(&rows, context))
}

fn report(rows: &[RootRow], context: &Context) -> Report {
    let mut table = Table::new([
        ("ID", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("RETIRES", Align::Left),
        ("PUBLIC KEY", Align::Left),
    ]);
    for row in rows {
        table.row([
            json::root_id(row.id),
            json::word(&row.state),
            human::time(row.since),
            human::or_nothing(row.retires.map(human::time)),
            row.public.to_string(),
        ]);
    }
    let value = json!({ "roots": rows.iter().map(json::root).collect::<Vec<_>>() });
    Report::new(value, table.render(context.style.stdout, "no root keys"))
}
