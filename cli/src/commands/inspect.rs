//! `leasehold token inspect`: everything that a token says, block by block, and what a node says of it.

use caps::error::Code;
use caps::time::Micros;
use caps::token::{BlockView, Inspection, Kind, Lowered, Signatures, Token, Took, inspect};
use caps::wire::reply::TokenState;
use serde_json::{Value, json};

use super::token::{root_keys, view_pairs};
use crate::args::token::{Node, Roots};
use crate::context::Context;
use crate::failure::Result;
use crate::output::{Report, bold, human, table};
use crate::people::People;

pub(super) fn run(token: &Token, roots: &Roots, node: Node, context: &Context) -> Result<Report> {
    let roots = root_keys(roots, context)?;
    let inspection = inspect(token, roots.as_ref())?;
    let Asked { people, state } = ask(token, &inspection.holders, node, context);
    let names: serde_json::Map<_, _> = inspection
        .holders
        .iter()
        .filter_map(|key| Some((key.clone(), Value::String(people.name(key)?.to_owned()))))
        .collect();
    let value = json!({ "token": inspection, "names": names, "node": state_value(&state) });
    Ok(Report::new(value, text(&inspection, &people, &state, context.style.stdout)))
}

/// What was learned of a token beside its own bytes.
pub(super) struct Asked {
    /// Names of keys.
    pub(super) people: People,
    /// What the node says of it, or why none said anything.
    pub(super) state: Result<TokenState, String>,
}

/// Asks the node, if one is here and it is wanted. What cannot be asked is no failure: tokens are read without a node.
pub(super) fn ask(token: &Token, holders: &[String], node: Node, context: &Context) -> Asked {
    if node.offline {
        return Asked { people: People::of(context, None), state: Err("--offline was said".to_owned()) };
    }
    let reach = match context.reach_as_one_of(holders) {
        Ok(reach) => reach,
        Err(failure) => return Asked { people: People::of(context, None), state: Err(failure.message) },
    };
    let deciding = reach.deciding(token);
    let people = People::of(context, deciding.as_deref().ok());
    let state = reach.token_check(token).map_err(|error| match error.code() {
        Code::TokenBound => {
            "the node tells those who have held it, the administrator and, while the lease lives, its owner; say --as NAME"
                .to_owned()
        }
        Code::Unreachable | Code::Timeout | Code::PeerIdentity | Code::PeerUid => {
            context.unreached(error).message
        }
        code => format!("the node does not know this token: {code}: {}", error.detail()),
    });
    Asked { people, state }
}

/// For `--json`.
pub(super) fn state_value(state: &Result<TokenState, String>) -> Value {
    match state {
        Ok(state) => json!({
            "asked": true,
            "opens": state.code.is_none(),
            "code": state.code.map(Code::text),
            "block": state.block,
            "expires_in_ms": state.expires_in.as_millis(),
        }),
        Err(reason) => json!({ "asked": false, "reason": reason }),
    }
}

/// For people.
pub(super) fn state_text(state: &Result<TokenState, String>) -> String {
    match state {
        Err(reason) => format!("not asked, so whether it was revoked is not known: {reason}"),
        Ok(TokenState { code: None, expires_in, .. }) => {
            format!("it opens now, for {} more; nothing of it was revoked", human::span(*expires_in))
        }
        Ok(TokenState { code: Some(code), block, .. }) => {
            let what = match code {
                Code::TokenRevoked => "REVOKED",
                Code::LeaseExpired | Code::TokenExpired => "EXPIRED",
                _ => "REFUSED",
            };
            let by = block.map_or(String::new(), |block| format!(", by block {block}"));
            format!("{what} ({code}){by}: it does not open")
        }
    }
}

fn text(
    inspection: &Inspection,
    people: &People,
    state: &Result<TokenState, String>,
    colour: bool,
) -> String {
    let signatures = match inspection.signatures {
        Signatures::NotChecked => {
            "not checked: no root key was given, and anybody could have written this".to_owned()
        }
        Signatures::Verified => "every one verifies".to_owned(),
        Signatures::Refused { code } => format!("REFUSED ({code}): this token is worthless here"),
    };
    let sealed = match (inspection.sealed, inspection.effective.hops_left) {
        (true, _) => "yes",
        (false, None | Some(0)) => "no: it can be narrowed",
        (false, Some(_)) => "no: it can be narrowed and delegated",
    };
    let holders: Vec<_> = inspection.holders.iter().map(|holder| people.short(holder)).collect();
    let mut pairs = vec![
        ("signatures", signatures),
        ("node", state_text(state)),
        ("size", format!("{} bytes, {} blocks", inspection.bytes, inspection.blocks.len())),
        ("sealed", sealed.to_owned()),
        ("lease", inspection.lease.clone()),
        ("region", inspection.region.clone()),
        ("grant", human::or_nothing(inspection.grant.as_ref())),
        ("cluster", inspection.cluster.clone()),
        ("provider", inspection.provider.clone()),
        ("held by", holders.join(" -> ")),
    ];
    pairs.extend(view_pairs(&inspection.effective));
    let mut text = table::pairs(colour, &pairs);
    for block in &inspection.blocks {
        let mut pairs = match block.kind {
            Kind::Authority => vec![("to", people.long(&inspection.holders[0]))],
            Kind::Attenuation => vec![("took", took(&block.took))],
            Kind::Delegation => vec![
                ("from", people.long(&block.signer)),
                ("to", block.delegate.as_ref().map_or(String::new(), |to| people.long(to))),
                ("took", took(&block.took)),
            ],
        };
        pairs.extend(view_pairs(&block.after));
        let heading = format!("block {}: {}", block.index, heading(block, people));
        text += &format!("\n{}\n{}", bold(colour, &heading), table::pairs(colour, &pairs));
    }
    text
}

/// What a block is, and whose.
pub(super) fn heading(block: &BlockView, people: &People) -> String {
    let kind = crate::output::json::word(&block.kind);
    match &block.delegate {
        Some(to) => format!("{kind} by {} to {}", people.short(&block.signer), people.short(to)),
        None => format!("{kind} by {}", block.signer),
    }
}

/// What a block took away, in words.
fn took(took: &Took) -> String {
    let lowered = |what: &str, bound: Option<Lowered>| {
        bound.map(|Lowered { from, to }| match from {
            Some(from) => format!("{what} {to} instead of {from}"),
            None => format!("{what} {to} at most"),
        })
    };
    let span = |micros: u64| human::span(Micros(micros));
    let some = |is: bool, text: String| is.then_some(text);
    let mut parts = vec![some(!took.rights.is_empty(), format!("the right to {}", took.rights))];
    parts.extend(took.bytes.iter().map(|[start, end]| Some(format!("bytes {start}..{end}"))));
    parts.extend([
        some(took.begins_later > 0, format!("its first {}", span(took.begins_later))),
        some(took.ends_earlier > 0, format!("its last {}", span(took.ends_earlier))),
        some(took.hops == 1, "1 delegation".to_owned()),
        some(took.hops > 1, format!("{} delegations", took.hops)),
        lowered("opens:", took.opens),
        lowered("bytes in all:", took.bytes_total),
        lowered("bytes a second:", took.bytes_per_second),
    ]);
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}
