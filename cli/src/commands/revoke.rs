//! `leasehold revoke`: takes rights back and prints the signed receipt.

use caps::id::RegionId;
use caps::receipt::Receipt;
use caps::wire::row::Target;
use serde_json::json;

use crate::args::revoke::{Kind, Revoke};
use crate::args::value;
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::{Report, human, json, table};
use crate::tokens::LeaseArg;

pub(crate) fn run(arguments: &Revoke, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    let target = target(arguments, &session, context)?;
    let receipt = session.client.revoke(target, arguments.reason.clone())?;
    Ok(report(&receipt, context))
}

fn target(arguments: &Revoke, session: &Session, context: &Context) -> Result<Target> {
    let wrong = |message: String| Failure::usage(message, "`leasehold revoke --help` says what the id is of");
    let id = &arguments.id[..];
    Ok(match arguments.kind {
        Kind::Lease => {
            let lease = LeaseArg::parse(id).map_err(wrong)?;
            Target::Lease(super::lease::find(&lease, session)?)
        }
        Kind::Grant => Target::Grant(value::grant(id).map_err(wrong)?),
        Kind::Subtree => Target::Subtree(value::grant(id).map_err(wrong)?),
        Kind::Holder => Target::Holder(context.principal(&session.client, id)?),
        Kind::Region => {
            Target::Region(RegionId::parse(id).map_err(|error| wrong(error.detail().to_owned()))?)
        }
    })
}

/// The receipt in both forms.
pub(crate) fn report(receipt: &Receipt, context: &Context) -> Report {
    let body = &receipt.body;
    let (kind, id) = json::target(&body.target);
    let mut pairs = vec![
        ("receipt", body.id.to_string()),
        ("target", format!("{kind} {id}")),
        ("leases", body.leases.len().to_string()),
        ("mappings closed", body.mappings_closed.to_string()),
        ("method", json::word(&body.method)),
        ("fenced after", format!("{} us", body.fence.0)),
        ("dead after", format!("{} us", body.dead.0)),
        ("wiped", human::bytes(body.wiped_bytes)),
        ("log index", body.log_index.map_or("not recorded yet".to_owned(), |index| index.to_string())),
        ("issuer", body.issuer.to_string()),
    ];
    if body.quarantined_bytes > 0 {
        pairs.insert(8, ("quarantined", human::bytes(body.quarantined_bytes)));
    }
    if let Some(left) = body.left {
        pairs.insert(2, ("left", human::rest(&left)));
    }
    let text = table::pairs(context.style.stdout, &pairs);
    Report::new(json!({ "receipt": json::receipt(receipt) }), text)
}
