//! `leasehold revoke`: takes rights back and prints the signed receipt.

use std::path::Path;

use caps::error::{Code, Error};
use caps::id::RegionId;
use caps::receipt::Receipt;
use caps::token::{RevocationId, inspect};
use caps::wire::row::Target;
use serde_json::json;

use crate::args::revoke::{Kind, Revoke};
use crate::args::value;
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::{Report, human, json, table};
use crate::tokens::{self, LeaseArg};

pub(crate) fn run(arguments: &Revoke, context: &Context) -> Result<Report> {
    let wrong = |what: &str| Failure::usage(what, "`leasehold revoke --help` says what goes with what");
    if arguments.block.is_some() && arguments.kind != Kind::Token {
        return Err(wrong("--block is for `revoke token`"));
    }
    if arguments.lease.is_some() != (arguments.kind == Kind::Block) {
        return Err(wrong("--lease is for `revoke block`, which needs it"));
    }
    if arguments.kind == Kind::Token {
        return token(arguments, context);
    }
    let session = connect(arguments, context)?;
    let target = target(arguments, &session, context)?;
    let receipt = session.client.revoke(target, arguments.reason.clone()).map_err(untold)?;
    Ok(report(&receipt, context))
}

/// Of a list of nodes, to the one that the target is at.
fn connect(arguments: &Revoke, context: &Context) -> Result<Session> {
    let wrong = |message: String| Failure::usage(message, "`leasehold revoke --help` says what the id is of");
    match (arguments.kind, &arguments.lease) {
        (Kind::Lease, _) => context.connect_for(&LeaseArg::parse(&arguments.id).map_err(wrong)?),
        (Kind::Grant | Kind::Subtree, _) => {
            context.connect_for_grant(value::grant(&arguments.id).map_err(wrong)?)
        }
        (Kind::Block, Some(lease)) => context.connect_for(lease),
        _ => context.connect(),
    }
}

fn token(arguments: &Revoke, context: &Context) -> Result<Report> {
    let token = tokens::read(Path::new(&arguments.id))?;
    let block = match arguments.block {
        Some(block) => block,
        // At most 8 blocks pass the inspection.
        None => (inspect(&token, None)?.blocks.len() - 1) as u8,
    };
    let reach = context.reach(&token, false)?;
    let receipt = reach.revoke_token(&token, block, &arguments.reason).map_err(untold)?;
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
        Kind::Block => {
            let lease = arguments.lease.as_ref().ok_or_else(|| wrong("say --lease".to_owned()))?;
            let id = RevocationId::parse(id).map_err(|error| wrong(error.detail().to_owned()))?;
            Target::Block { lease: super::lease::find(lease, session)?, id }
        }
        Kind::Token => return Err(wrong("a token is no id".to_owned())),
    })
}

/// What is said where who was asked answers no more, or the provider does not answer it.
pub(crate) fn untold(error: Error) -> Failure {
    match error.code() {
        Code::Unreachable => Failure::from(error)
            .help("see that the broker and the lease's provider run and are reached, and say it again: it is done once"),
        _ => error.into(),
    }
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
