//! `leasehold token wrap` and `leasehold token unwrap`: a token handed over through the node, to be fetched once.

use std::path::Path;

use caps::error::{Code, Error};
use caps::time::Micros;
use caps::wire::wrap::{WrapId, WrapRow};
use libmem::Client;
use serde_json::json;

use super::token::{find, shown};
use crate::args::wrap::{Unwrap, Wrap};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::{Report, human, table};
use crate::people::People;
use crate::{files, tokens};

pub(crate) fn wrap(arguments: &Wrap, context: &Context) -> Result<Report> {
    match (&arguments.token, arguments.show) {
        (_, Some(id)) => show(id, &context.connect()?, context),
        (Some(token), None) => {
            let token = find(token, context)?;
            put(&token, arguments, &context.connect_for_token(&token)?, context)
        }
        (None, None) => Err(Failure::usage("a token is missing", "name its file, or an id with --show")),
    }
}

fn put(token: &libmem::Token, arguments: &Wrap, session: &Session, context: &Context) -> Result<Report> {
    let to = arguments.to.as_deref().map(|to| context.principal(&session.client, to)).transpose()?;
    let wrapped = session.reach.wrap(token, to, arguments.ttl)?;
    let expires_in = Micros(u64::try_from(wrapped.expires_in.as_micros()).unwrap_or(u64::MAX));
    let id = wrapped.id.to_string();
    let mut text = table::pairs(
        context.style.stdout,
        &[
            ("wrap", id.clone()),
            (
                "for",
                arguments.to.clone().unwrap_or_else(|| "whoever has this id first: keep it secret".into()),
            ),
            ("expires in", human::span(expires_in)),
        ],
    );
    let who = arguments.to.as_deref().map_or(String::new(), |to| format!(" --as {to}"));
    // A provider keeps what it was given to itself.
    let place = session.reach.place(token);
    let at = place.as_ref().and_then(|place| Some((place.address.as_ref()?, &place.node)));
    let at = at.map_or(String::new(), |(address, node)| format!(" --broker {address} --node {node}"));
    text += &format!(
        "\nit can be fetched once:\n  leasehold{} token unwrap {id}{who}{at} -o FILE\n",
        context.dirs.argument()
    );
    let value = json!({ "wrap": {
        "id": id, "to": to.map(|to| to.to_string()), "expires_in_ms": expires_in.as_millis(),
    }});
    Ok(Report::new(value, text))
}

fn show(id: WrapId, session: &Session, context: &Context) -> Result<Report> {
    let row = session.client.wrap_show(id).map_err(unknown)?;
    let people = People::of(context, Some(&session.client));
    let text = table::pairs(context.style.stdout, &pairs(&row, &people));
    let fetched = row.fetched.map(|fetched| json!({ "by": fetched.by.to_string(), "at_us": fetched.at.0 }));
    let value = json!({ "wrap": {
        "by": row.by.to_string(),
        "to": row.to.map(|to| to.to_string()),
        "lease": row.lease.to_string(),
        "since_us": row.since.0,
        "expires_in_ms": row.expires_in.as_millis(),
        "fetched": fetched,
        "refused": row.refused,
    }});
    Ok(Report::new(value, text))
}

fn pairs(row: &WrapRow, people: &People) -> Vec<(&'static str, String)> {
    let who = |key: libmem::PrincipalKey| {
        let key = key.to_string();
        people.name(&key).map_or_else(|| key.clone(), str::to_owned)
    };
    vec![
        ("lease", row.lease.to_string()),
        ("from", who(row.by)),
        ("for", row.to.map_or("whoever has the id first".to_owned(), who)),
        ("since", human::time(row.since)),
        ("expires in", human::span(row.expires_in)),
        (
            "fetched",
            match row.fetched {
                None => "not yet".to_owned(),
                Some(fetched) => format!("by {}, at {}", who(fetched.by), human::time(fetched.at)),
            },
        ),
        ("refused", format!("{} times", row.refused)),
    ]
}

pub(crate) fn unwrap(arguments: &Unwrap, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    let path = &arguments.target.output;
    // Before the token is fetched, which works once: a file that cannot be made would lose it.
    files::create(path, "")?;
    let token = fetch(&session.client, arguments.id, path)?;
    tokens::replace(path, &token).map_err(|error| {
        give_up(path);
        error.help("the token was fetched and is lost: ask whoever wrapped it to do so again")
    })?;
    shown(&token, path, context)
}

fn fetch(client: &Client, id: WrapId, path: &Path) -> Result<libmem::Token> {
    client.unwrap(id).map_err(|error| {
        give_up(path);
        match error.code() {
            Code::Denied => Failure::from(error).help(
                "somebody has the token: unless it was you, tell whoever wrapped it, who can take it back with \
                 `leasehold revoke token`",
            ),
            Code::GrantUnknown => unknown(error),
            _ => error.into(),
        }
    })
}

/// Removes the file that was to hold the token: it is empty and ours.
fn give_up(path: &Path) {
    let _ = std::fs::remove_file(path);
}

fn unknown(error: Error) -> Failure {
    if error.code() != Code::GrantUnknown {
        return error.into();
    }
    Failure::from(error)
        .help("check the id and --as; a wrap lives for 10 minutes at most, so ask for another")
}
