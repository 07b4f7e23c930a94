//! `leasehold pki`: a certificate authority for people who have none.

use caps::error::Code;
use caps::time::UnixMicros;
use caps::wire::Name;
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
            if let Some((_, taken)) = find(&authority, name, now)? {
                let message = format!("{} has a certificate", taken.id);
                return Err(Failure::of(Code::Exists, message)
                    .help(format!("`leasehold pki rotate {name}` issues it again")));
            }
            let role = match role {
                Role::Principal => transport::Role::Principal,
                Role::Provider => transport::Role::Provider,
                Role::Broker => transport::Role::Broker,
            };
            let id = PeerId { domain: authority.domain()?, role, name: name.clone(), key: *holder };
            Ok(issued(&authority.issue(&id, *ttl, now)?, context))
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
            let (_, before) = find(&authority, name, now)?.ok_or_else(|| unknown(name))?;
            Ok(issued(&authority.issue(&PeerId::parse(&before.id)?, *ttl, now)?, context))
        }
        Pki::Revoke { name } => {
            let (_, before) = find(&authority, name, now)?.ok_or_else(|| unknown(name))?;
            let many = authority.revoke(&PeerId::parse(&before.id)?, now)?;
            let lists = files::show(&authority.lists());
            let value = json!({ "revoked": { "id": before.id, "certificates": many, "lists": lists } });
            let text = format!("revoked {many} of {}; give {lists} to every node and client\n", before.id);
            Ok(Report::new(value, text))
        }
        Pki::List => Ok(list(&authority.issued(now)?, context)),
    }
}

/// The newest good certificate of a name.
fn find(authority: &Authority, name: &Name, now: UnixMicros) -> Result<Option<(u64, Issued)>> {
    let of_name = |issued: &Issued| PeerId::parse(&issued.id).is_ok_and(|id| id.name == *name);
    let good =
        authority.issued(now)?.into_iter().filter(|(_, issued)| issued.revoked.is_none() && of_name(issued));
    Ok(good.max_by_key(|(_, issued)| issued.until))
}

fn unknown(name: &Name) -> Failure {
    Failure::of(Code::ConfigValue, format!("`{name}` has no certificate that is good"))
        .help("`leasehold pki list` shows what was issued, `leasehold pki issue` makes one")
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
