//! `leasehold pki`: a certificate authority for people who have none.

use caps::error::{Code, Error};
use serde_json::{Value, json};
use transport::PeerId;

use crate::args::pki::{Pki, Role};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::table::{Align, Table};
use crate::output::{Report, human, table};
use crate::pki::{Authority, Issue, Issued};

pub(crate) fn run(command: &Pki, context: &Context) -> Result<Report> {
    let authority = Authority::new(context.dirs.pki());
    let now = super::token::now();
    match command {
        Pki::Init { domain } => {
            authority.begin(domain, now)?;
            let pairs = [
                ("domain", domain.to_string()),
                ("roots", files::show(&authority.roots())),
                ("lists", files::show(&authority.lists())),
            ];
            let value = json!({ "authority": {
                "domain": domain.as_str(),
                "roots": files::show(&authority.roots()),
                "lists": files::show(&authority.lists()),
            }});
            Ok(Report::new(value, table::pairs(context.style.stdout, &pairs)))
        }
        Pki::Issue { name, role, holder, ttl } => {
            if holder.is_some() && *role != Role::Principal {
                return Err(Failure::usage(
                    "only a principal has a key that it holds leases by",
                    "leave out --holder",
                ));
            }
            let role = match role {
                Role::Principal => transport::Role::Principal,
                Role::Provider => transport::Role::Provider,
                Role::Broker => transport::Role::Broker,
            };
            let id = PeerId { domain: authority.domain()?, role, name: name.clone(), key: *holder };
            let issue = authority.issue(&id, *ttl, now).map_err(|error| match error.code() {
                Code::Exists => {
                    Failure::from(error).help(format!("`leasehold pki rotate {name}` issues it again"))
                }
                _ => error.into(),
            })?;
            Ok(issued(&issue, context))
        }
        Pki::Rotate { ca: true, .. } => {
            authority.renew(now)?;
            let roots = files::show(&authority.roots());
            let value = json!({ "authority": { "roots": roots } });
            Ok(Report::new(
                value,
                format!("renewed; give {roots} to every node and client before you issue\n"),
            ))
        }
        Pki::Rotate { name, ttl, .. } => {
            let name =
                name.as_ref().ok_or_else(|| Failure::usage("whose certificate?", "name it, or say --ca"))?;
            Ok(issued(&authority.reissue(name, *ttl, now).map_err(unknown)?, context))
        }
        Pki::Revoke { name } => {
            let (id, many) = authority.revoke(name, now).map_err(unknown)?;
            let lists = files::show(&authority.lists());
            let value = json!({ "revoked": { "id": id.to_string(), "certificates": many, "lists": lists } });
            let text = format!("revoked {many} of {id}; give {lists} to every node and client\n");
            Ok(Report::new(value, text))
        }
        Pki::List { renew: true } => {
            let (until, lists) = (authority.renew_list(now)?, files::show(&authority.lists()));
            let value = json!({ "lists": { "file": lists, "until": human::time(until) } });
            let until = human::time(until);
            Ok(Report::new(value, format!("good until {until}; give {lists} to every node and client\n")))
        }
        Pki::List { renew: false } => Ok(list(&authority.issued(now)?, context)),
    }
}

/// With what to do about a name that has no certificate.
fn unknown(error: Error) -> Failure {
    match error.code() {
        Code::ConfigValue => Failure::from(error)
            .help("`leasehold pki list` shows what was issued, `leasehold pki issue` makes one"),
        _ => error.into(),
    }
}

fn issued(issue: &Issue, context: &Context) -> Report {
    let pairs = [
        ("id", issue.id.to_string()),
        ("serial", format!("{:016x}", issue.serial)),
        ("until", human::time(issue.until)),
        ("certificate", files::show(&issue.chain)),
        ("key", files::show(&issue.key)),
    ];
    let value = json!({ "certificate": {
        "id": issue.id.to_string(),
        "serial": format!("{:016x}", issue.serial),
        "until": human::time(issue.until),
        "file": files::show(&issue.chain),
        "key_file": files::show(&issue.key),
    }});
    Report::new(value, table::pairs(context.style.stdout, &pairs))
}

fn list(issued: &[(u64, Issued)], context: &Context) -> Report {
    let mut table = Table::new([
        ("IDENTITY", Align::Left),
        ("SERIAL", Align::Left),
        ("UNTIL", Align::Left),
        ("STATE", Align::Left),
    ]);
    let state = |issued: &Issued| if issued.revoked.is_some() { "revoked" } else { "good" };
    for (serial, issued) in issued {
        let until = human::time(issued.until);
        table.row([issued.id.clone(), format!("{serial:016x}"), until, state(issued).to_owned()]);
    }
    let rows: Vec<Value> = issued
        .iter()
        .map(|(serial, issued)| {
            json!({
                "id": issued.id,
                "serial": format!("{serial:016x}"),
                "until": human::time(issued.until),
                "state": state(issued),
            })
        })
        .collect();
    Report::new(json!({ "certificates": rows }), table.render(context.style.stdout, "no certificates"))
}
