//! `leasehold root`: the keys that mint tokens, and whose tokens are believed.

use caps::error::{Code, Error};
use caps::wire::row::RootRow;
use serde_json::json;

use crate::args::root::Root;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{Report, human, json};

pub(crate) fn run(command: &Root, context: &Context) -> Result<Report> {
    let client = context.connect()?.client;
    let rows = match *command {
        Root::Rotate => client.root_rotate(),
        Root::Retire { id } => client.root_retire(id),
        Root::List => client.roots(),
    };
    Ok(report(&rows.map_err(refused)?, context))
}

/// No token has to do with it: what is denied here is denied to everybody but the administrator.
fn refused(error: Error) -> Failure {
    let denied = error.code() == Code::Denied;
    let failure = Failure::from(error);
    if denied { failure.help(Code::NotAdmin.help()) } else { failure }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_the_administrator_is_told_to_be_it() {
        let denied = refused(Error::new(Code::Denied, "root keys are the administrator's"));
        assert_eq!((denied.code, &*denied.help), ("E_DENIED", Code::NotAdmin.help()));
        assert_eq!(refused(Code::Timeout.into()).help, Code::Timeout.help());
    }
}
