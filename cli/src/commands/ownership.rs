//! `leasehold transfer`: a lease changes its owner, and nothing is changed until the new one signs what the former one
//! signed.

use caps::error::{Code, Error};
use caps::id::PrincipalKey;
use caps::wire::Name;
use caps::wire::row::{Lifetime, TransferRow, TransferState};
use libmem::TransferProposal;
use serde_json::{Value, json};

use super::share;
use crate::args::ownership::{Accept, Offer, Transfer};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{self, Report, human, json, table};
use crate::tokens;

pub(crate) fn run(command: &Transfer, context: &Context) -> Result<Report> {
    let session = context.connect()?;
    match command {
        Transfer::Offer(arguments) => offer(arguments, &session, context),
        Transfer::Accept(arguments) => accept(arguments, &session, context),
        Transfer::List { all } => list(*all, &session, context),
        Transfer::Show { id } => {
            let proposal = session.client.transfer_show(*id).map_err(unknown)?;
            context.meet(named(&proposal.transfer))?;
            let mut shown = contract_pairs(&proposal);
            shown.push(("state", state(&proposal.transfer)));
            let value = json!({
                "transfer": row(&proposal.transfer),
                "contract": contract(&proposal),
                "digest": proposal.contract.digest().to_string(),
                "signed": signed(&proposal),
            });
            Ok(Report::new(value, table::pairs(context.style.stdout, &shown)))
        }
        Transfer::Withdraw { id } => {
            let transfer = session.client.transfer_withdraw(*id).map_err(unknown)?;
            let text = format!("the offer {} is over; the lease {} stays\n", transfer.id, transfer.lease);
            Ok(Report::new(json!({ "transfer": row(&transfer) }), text))
        }
    }
}

/// Where to look for the offer that was meant.
fn unknown(error: Error) -> Failure {
    let unknown = error.code() == Code::GrantUnknown;
    let failure = Failure::from(error);
    if unknown {
        failure.help("`leasehold transfer list` shows the offers that concern you")
    } else {
        failure
    }
}

fn offer(arguments: &Offer, session: &Session, context: &Context) -> Result<Report> {
    let to = context.principal(&session.client, &arguments.to)?;
    let lease = session.client.lease_show(super::lease::find(&arguments.lease, session)?)?.lease;
    let transfer = session.client.transfer_offer(&lease, to, arguments.ttl, &session.key)?;
    let text = format!(
        "{}\nthe offer waits for its receiver, who types:\n  leasehold{} transfer accept {}{}\n",
        table::pairs(context.style.stdout, &pairs(&transfer)),
        context.dirs.argument(),
        transfer.id,
        transfer.to_name.as_ref().map_or(String::new(), |name| format!(" --as {name}")),
    );
    Ok(Report::new(json!({ "transfer": row(&transfer) }), text))
}

fn accept(arguments: &Accept, session: &Session, context: &Context) -> Result<Report> {
    let proposal = session.client.transfer_show(arguments.id).map_err(unknown)?;
    context.meet(named(&proposal.transfer))?;
    // What is signed is what was shown: this very value goes on to be signed.
    let digest = proposal.contract.digest();
    share::seen_before(arguments.only_if, digest)?;
    let shown = table::pairs(context.style.stdout, &contract_pairs(&proposal));
    if arguments.dry_run {
        let value = json!({
            "contract": contract(&proposal),
            "digest": digest.to_string(),
            "accepted": false,
        });
        return Ok(Report::new(value, shown + "nothing was signed\n"));
    }
    if let Some(path) = arguments.output.as_ref().filter(|path| path.exists()) {
        let message = format!("{} exists", crate::files::show(path));
        return Err(Failure::of(Code::Exists, message).help("name another file for the token"));
    }
    if proposal.transfer.state != TransferState::Offered {
        // Nothing is signed that has no use.
        let message = format!("the offer does not stand: {}", state(&proposal.transfer));
        return Err(Failure::of(Code::ShareOrder, message).help("its owner may offer the lease again"));
    }
    if !context.json {
        output::to_stdout(format!("accepting exactly this:\n{shown}").as_bytes())?;
    }
    let taken = session.client.transfer_accept(&proposal.contract, Lifetime::Detached, &session.key)?;
    let (lease, token) = (&taken.leased.lease, &taken.leased.token);
    let file = session.tokens.keep(&lease.id.to_string(), lease.name.as_ref(), token)?;
    session.reach.remember(token);
    if let Some(path) = &arguments.output {
        tokens::write(path, token)?;
    }
    let text = format!("the lease {} is yours; the token is in {}\n", lease.id, crate::files::show(&file));
    let value = json!({
        "lease": json::lease(lease),
        "contract": contract(&proposal),
        "digest": digest.to_string(),
        "signed": signed(&TransferProposal { by_receiver: taken.signed.by_receiver, ..proposal }),
        "accepted": true,
        "token_file": file.to_string_lossy(),
    });
    Ok(Report::new(value, text))
}

fn list(all: bool, session: &Session, context: &Context) -> Result<Report> {
    let rows = session.client.transfers().collect::<caps::Result<Vec<_>>>()?;
    let over = |row: &TransferRow| matches!(row.state, TransferState::Done | TransferState::Ended);
    let rows: Vec<_> = rows.into_iter().filter(|row| all || !over(row)).collect();
    let mut table = Table::new([
        ("ID", Align::Left),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("STANDS FOR", Align::Right),
        ("STATE", Align::Left),
        ("LEASE", Align::Left),
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            who(row.from, row.from_name.as_ref()),
            who(row.to, row.to_name.as_ref()),
            human::span(row.stands_for),
            state(row),
            row.lease.to_string(),
        ]);
    }
    let value = json!({ "transfers": rows.iter().map(row).collect::<Vec<_>>() });
    let changed = context.meet(rows.iter().flat_map(named)).err();
    Ok(Report::new(value, table.render(context.style.stdout, "no offers of leases")).failing(changed))
}

fn who(key: PrincipalKey, name: Option<&Name>) -> String {
    name.map_or_else(|| key.to_string(), ToString::to_string)
}

/// The names that the node gives the two keys of an offer.
fn named(row: &TransferRow) -> Vec<(Name, PrincipalKey)> {
    let pairs = [(row.from_name.clone(), row.from), (row.to_name.clone(), row.to)];
    pairs.into_iter().filter_map(|(name, key)| Some((name?, key))).collect()
}

fn state(row: &TransferRow) -> String {
    let state = json::word(&row.state);
    row.cause.map_or(state.clone(), |cause| format!("{state}: {}", json::word(&cause)))
}

fn pairs(row: &TransferRow) -> Vec<(&'static str, String)> {
    vec![
        ("offer", row.id.to_string()),
        ("lease", row.lease.to_string()),
        ("from", who(row.from, row.from_name.as_ref())),
        ("to", who(row.to, row.to_name.as_ref())),
        ("stands for", human::span(row.stands_for)),
        ("state", state(row)),
    ]
}

/// Every field that is signed, and the names that the node gives the two keys; and what goes with it.
fn contract_pairs(proposal: &TransferProposal) -> Vec<(&'static str, String)> {
    let TransferProposal { transfer, contract, .. } = proposal;
    let named = |key: String, name: Option<&Name>| name.map_or(key.clone(), |name| format!("{key} ({name})"));
    vec![
        ("offer", contract.transfer.to_string()),
        ("cluster", contract.cluster.to_string()),
        ("lease", contract.lease.to_string()),
        ("region", contract.region.to_string()),
        ("from", named(contract.from.to_string(), transfer.from_name.as_ref())),
        ("to", named(contract.to.to_string(), transfer.to_name.as_ref())),
        ("for", format!("{} from when it was offered", human::span(contract.ttl))),
        ("digest", contract.digest().to_string()),
        ("bytes", human::bytes(transfer.bytes)),
        ("lease ends in", human::span(transfer.expires_in)),
    ]
}

/// An offer as lists show it.
fn row(row: &TransferRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "lease": row.lease.to_string(),
        "region": row.region.to_string(),
        "bytes": row.bytes,
        "from": row.from.to_string(),
        "from_name": row.from_name,
        "to": row.to.to_string(),
        "to_name": row.to_name,
        "ttl_ms": row.ttl.as_millis(),
        "stands_for_ms": row.stands_for.as_millis(),
        "expires_in_ms": row.expires_in.as_millis(),
        "state": row.state,
        "cause": row.cause,
    })
}

/// A contract: exactly what is signed.
fn contract(proposal: &TransferProposal) -> Value {
    let contract = &proposal.contract;
    json!({
        "cluster": contract.cluster.to_string(),
        "transfer": contract.transfer.to_string(),
        "lease": contract.lease.to_string(),
        "region": contract.region.to_string(),
        "from": contract.from.to_string(),
        "to": contract.to.to_string(),
        "ttl_us": contract.ttl.0,
    })
}

/// Who signed, and what.
fn signed(proposal: &TransferProposal) -> Value {
    let hex = |signature: &caps::key::Signature| data_encoding::HEXLOWER.encode(&signature.0);
    json!({
        "by_owner": hex(&proposal.by_owner),
        "by_receiver": proposal.by_receiver.as_ref().map(hex),
    })
}
