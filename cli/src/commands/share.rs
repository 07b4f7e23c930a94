//! `leasehold share`: `MEM_SHARE`, in which nothing is shared until the receiver signs what the owner signed.

use std::fmt::Display;

use caps::error::{Code, Error};
use caps::id::GrantId;
use caps::share::{ShareContract, ShareDigest, ShareFile, Signed};
use caps::wire::row::{GrantRow, GrantState, Lifetime};
use libmem::{Narrowing, Proposal, ShareOptions};
use serde_json::json;

use super::{cosign, pair};
use crate::args::share::{Accept, Narrow, Offer, Share};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::table::{Align, Table};
use crate::output::{self, Report, human, json, table};
use crate::tokens;

pub(crate) fn run(command: &Share, context: &Context) -> Result<Report> {
    match command {
        Share::Offer(arguments) => offer(arguments, &context.connect_for(&arguments.lease)?, context),
        Share::Accept(arguments) => {
            let session =
                arguments.id.map_or_else(|| context.connect(), |id| context.connect_for_grant(id))?;
            accept(arguments, &session, context)
        }
        Share::Narrow(arguments) => narrow(arguments, &context.connect_for_grant(arguments.grant)?, context),
        Share::Show(arguments) => pair::show(arguments, &context.connect_for_grant(arguments.id)?, context),
        // From its files alone: no node is needed.
        Share::Verify(arguments) => pair::verify(arguments, context),
        Share::List { all } => list(*all, context),
        Share::Cosign(arguments) => {
            cosign::run(arguments, &context.connect_for_grant(arguments.id)?, context)
        }
    }
}

fn offer(arguments: &Offer, session: &Session, context: &Context) -> Result<Report> {
    let receiver = context.principal(&session.client, &arguments.to)?;
    let lease = session.client.lease_show(super::lease::find(&arguments.lease, session)?)?.lease;
    let mut options = ShareOptions::new(receiver, arguments.rights).max_hops(arguments.hops);
    if let Some(range) = arguments.range {
        options = options.range(range);
    }
    if let Some(ttl) = arguments.ttl {
        options = options.ttl(ttl);
    }
    if let Some(cosigner) = &arguments.cosigner {
        options = options.cosigner(context.principal(&session.client, cosigner)?);
    }
    let grant = session.client.share_offer(&lease, &options, &session.key)?;
    let (whom, command, name) = match &grant.cosigner {
        Some(cosigner) => ("co-signer", "cosign", &cosigner.name),
        None => ("receiver", "accept", &grant.receiver_name),
    };
    let text = format!(
        "{}\nMEM_SHARE:{} waits for its {whom}, who types:\n  leasehold{} share {command} {}{}\n",
        table::pairs(context.style.stdout, &pairs(&grant)),
        grant.id,
        context.dirs.argument(),
        grant.id,
        name.as_ref().map_or(String::new(), |name| format!(" --as {name}")),
    );
    Ok(Report::new(json!({ "share": json::grant(&grant) }), text))
}

fn accept(arguments: &Accept, session: &Session, context: &Context) -> Result<Report> {
    let id = arguments.id.map_or_else(|| only_waiting(session), Ok)?;
    let ToSign { proposal, contract, digest, shown } = to_sign(id, arguments.only_if, session, context)?;
    if arguments.dry_run {
        let value = json!({
            "contract": json::contract(&contract),
            "digest": digest.to_string(),
            "left": json::left(&proposal.grant),
            "accepted": false,
        });
        return Ok(Report::new(value, shown + "nothing was signed\n"));
    }
    if !context.json {
        output::to_stdout(format!("accepting exactly this:\n{shown}").as_bytes())?;
    }
    let accepted = session.client.share_accept(&contract, Lifetime::Detached, &session.key)?;
    let file = session.tokens.keep(&accepted.grant.id.to_string(), None, &accepted.token)?;
    session.reach.remember(&accepted.token);
    if let Some(path) = &arguments.output {
        tokens::write(path, &accepted.token)?;
    }
    let text = format!(
        "accepted; the token is in {}\n  leasehold{} get {} --as {} --len 16 >bytes\n",
        crate::files::show(&file),
        context.dirs.argument(),
        accepted.grant.id,
        context.identity()?,
    );
    let value = json!({
        "share": json::grant(&accepted.grant),
        "contract": json::contract(&contract),
        "digest": digest.to_string(),
        "left": json::left(&accepted.grant),
        "signed": accepted.pair.map(|pair| ShareFile::from(&Signed::from(pair))),
        "accepted": true,
        "token_file": file.to_string_lossy(),
    });
    Ok(Report::new(value, text))
}

/// A contract before it is signed. What is signed is what was shown: this very value goes on to be signed.
pub(super) struct ToSign {
    pub(super) proposal: Proposal,
    pub(super) contract: ShareContract,
    pub(super) digest: ShareDigest,
    pub(super) shown: String,
}

/// Asks for a contract and shows it, if it is the one that was seen before.
pub(super) fn to_sign(
    id: GrantId,
    only_if: Option<ShareDigest>,
    session: &Session,
    context: &Context,
) -> Result<ToSign> {
    let proposal = session.client.share_show(id)?;
    context.meet(named(&proposal.grant))?;
    let contract = proposal.contract;
    let digest = contract.digest();
    seen_before(only_if, digest)?;
    let shown = table::pairs(context.style.stdout, &contract_pairs(&proposal));
    Ok(ToSign { proposal, contract, digest, shown })
}

/// Refuses to sign another contract than the one that was seen.
pub(super) fn seen_before<T: PartialEq + Display>(only_if: Option<T>, digest: T) -> Result<()> {
    let Some(expected) = only_if.filter(|expected| *expected != digest) else { return Ok(()) };
    let message = format!("the contract's digest is {digest} and not {expected}: nothing was signed");
    let help = "look at it with --dry-run; whoever wrote the digest down saw another contract";
    Err(pair::tampered(Error::with(Code::ContractSignature, message)).help(help))
}

/// The one grant that waits for my signature.
fn only_waiting(session: &Session) -> Result<GrantId> {
    let me = session.client.holder();
    let waiting = session
        .client
        .shares()
        .filter(|row| row.as_ref().map_or(true, |row| row.receiver == me && row.state == GrantState::Issued));
    let waiting = waiting.collect::<caps::Result<Vec<_>>>()?;
    match &waiting[..] {
        [only] => Ok(only.id),
        [] => Err(Failure::of(Code::GrantUnknown, "no grant waits for you")),
        _ => {
            let ids: Vec<_> = waiting.iter().map(|row| row.id.to_string()).collect();
            Err(Failure::usage("several grants wait for you", format!("name one: {}", ids.join(", "))))
        }
    }
}

fn narrow(arguments: &Narrow, session: &Session, context: &Context) -> Result<Report> {
    let Narrow { grant, rights, range, ttl } = *arguments;
    let mut narrowing = Narrowing::new();
    if let Some(rights) = rights {
        narrowing = narrowing.rights(rights);
    }
    if let Some(range) = range {
        narrowing = narrowing.range(range);
    }
    if let Some(ttl) = ttl {
        narrowing = narrowing.ttl(ttl);
    }
    let receipt = session.client.share_narrow(grant, narrowing)?;
    Ok(super::revoke::report(&receipt, context))
}

fn list(all: bool, context: &Context) -> Result<Report> {
    let (sessions, missing) = context.connect_all()?;
    let rows = sessions.iter().flat_map(|session| session.client.shares());
    let rows = rows.collect::<caps::Result<Vec<_>>>()?;
    let rows: Vec<_> = rows.into_iter().filter(|row| all || row.state != GrantState::Ended).collect();
    let mut table = Table::new([
        ("ID", Align::Left),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("RIGHTS", Align::Left),
        ("RANGE", Align::Left),
        ("EXPIRES IN", Align::Right),
        ("STATE", Align::Left),
        ("LEASE", Align::Left),
    ]);
    for row in &rows {
        table.row([
            row.id.to_string(),
            owner(row),
            receiver(row),
            left(row.rights.to_string(), row.agreed.rights.to_string()),
            left(row.range.to_string(), row.agreed.range.to_string()),
            human::span(row.expires_in),
            state(row),
            row.lease.to_string(),
        ]);
    }
    let mut value = json!({ "shares": rows.iter().map(json::grant).collect::<Vec<_>>() });
    let mut text = table.render(context.style.stdout, "no grants");
    super::lease::not_asked(&missing, &mut value, &mut text);
    let changed = context.meet(rows.iter().flat_map(named)).err();
    Ok(Report::new(value, text).failing(changed))
}

/// What is left, and what was agreed where that was more.
fn left(left: String, agreed: String) -> String {
    if left == agreed { left } else { format!("{left} (of {agreed})") }
}

fn owner(row: &GrantRow) -> String {
    row.owner_name.as_ref().map_or_else(|| row.owner.to_string(), ToString::to_string)
}

fn receiver(row: &GrantRow) -> String {
    row.receiver_name.as_ref().map_or_else(|| row.receiver.to_string(), ToString::to_string)
}

/// The names that the node gives the keys of a grant.
pub(super) fn named(row: &GrantRow) -> Vec<(caps::wire::Name, caps::id::PrincipalKey)> {
    let pairs = [(row.owner_name.clone(), row.owner), (row.receiver_name.clone(), row.receiver)];
    let cosigner = row.cosigner.as_ref().map(|cosigner| (cosigner.name.clone(), cosigner.key));
    pairs.into_iter().chain(cosigner).filter_map(|(name, key)| Some((name?, key))).collect()
}

fn state(row: &GrantRow) -> String {
    let state = json::word(&row.state);
    match (&row.cosigner, row.cause) {
        (_, Some(cause)) => format!("{state}: {}", json::word(&cause)),
        (Some(cosigner), None) if row.state == GrantState::Offered && !cosigner.signed => {
            format!("{state}: waits for {}", cosign::who(cosigner))
        }
        _ => state,
    }
}

pub(super) fn pairs(row: &GrantRow) -> Vec<(&'static str, String)> {
    let mut pairs = vec![
        ("grant", row.id.to_string()),
        ("lease", row.lease.to_string()),
        ("from", owner(row)),
        ("to", receiver(row)),
        ("rights", row.rights.to_string()),
        ("range", row.range.to_string()),
        ("expires in", human::span(row.expires_in)),
        ("state", state(row)),
    ];
    if let Some(cosigner) = &row.cosigner {
        pairs.insert(4, ("co-signer", cosign::who(cosigner)));
    }
    pairs
}

/// Every field that is signed, and the names that the node gives the keys; and, where a narrowing has
/// taken a part of it already, what is left.
pub(super) fn contract_pairs(proposal: &Proposal) -> Vec<(&'static str, String)> {
    let Proposal { grant, contract, .. } = proposal;
    let named = |key: String, name: Option<&caps::wire::Name>| {
        name.map_or(key.clone(), |name| format!("{key} ({name})"))
    };
    let mut pairs = vec![
        ("grant", contract.grant.to_string()),
        ("cluster", contract.cluster.to_string()),
        ("lease", contract.lease.to_string()),
        ("region", contract.region.to_string()),
        ("from", named(contract.owner.to_string(), grant.owner_name.as_ref())),
        ("to", named(contract.receiver.to_string(), grant.receiver_name.as_ref())),
        ("rights", contract.rights.to_string()),
        ("range", contract.range.to_string()),
        ("for", format!("{} from when it was issued", human::span(contract.ttl))),
        ("hops", contract.max_hops.to_string()),
        ("digest", contract.digest().to_string()),
    ];
    if let Some(cosigner) = &grant.cosigner {
        pairs.insert(6, ("co-signer", named(cosigner.key.to_string(), cosigner.name.as_ref())));
        let signed = if cosigner.signed { "yes" } else { "not yet: it cannot be accepted before" };
        pairs.push(("co-signed", signed.to_owned()));
    }
    if proposal.is_narrowed() {
        pairs.push(("left of it", format!("{} to {}", grant.rights, grant.range)));
    }
    pairs
}
