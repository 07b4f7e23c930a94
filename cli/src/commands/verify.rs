//! `leasehold token verify`: yes or no, and why.

use caps::error::Code;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::{Inspection, Question, Shortfall, Token, gate, inspect};
use caps::wire::reply::TokenState;
use serde_json::{Value, json};

use super::inspect::{Asked, ask, heading, state_text, state_value};
use super::token::{now, root_keys};
use crate::args::token::Verify;
use crate::args::value::When;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::{Report, human};
use crate::people::People;

/// One reason for a no.
struct Reason {
    code: Code,
    /// The name of the limit, or `revocation`.
    limit: String,
    detail: String,
    block: Option<u8>,
}

pub(super) fn run(token: &Token, arguments: &Verify, context: &Context) -> Result<Report> {
    let roots = root_keys(&arguments.roots, context)?.ok_or_else(|| {
        Failure::usage("no root key to verify with", "name one with --root: 64 digits, or a file with them")
    })?;
    let gated = gate(token.as_bytes())?;
    let verified = gated.verify(&roots)?;
    let question = Question {
        rights: arguments.rights.unwrap_or(Rights::NONE),
        range: arguments.range,
        at: match arguments.at {
            None => now(),
            Some(When::At(time)) => time,
            Some(When::In(span)) => now().plus(Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))),
        },
    };
    let mut reasons: Vec<_> = gated.shortfalls(&question)?.into_iter().map(Reason::from).collect();
    let inspection = inspect(token, Some(&roots))?;
    let Asked { people, state } = ask(token, &inspection.holders, arguments.node, context);
    if let Ok(TokenState { code: Some(code), block, .. }) = state {
        // The node speaks of now, by its clock. What it says of the time is no answer about another time.
        let of_now = matches!(code, Code::TokenExpired | Code::TokenNotYet);
        let said = reasons.iter().any(|reason| reason.code == code);
        if !(said || of_now && arguments.at.is_some()) {
            reasons.push(Reason {
                code,
                limit: if code == Code::TokenRevoked { "revocation" } else { "node" }.to_owned(),
                detail: detail(code).to_owned(),
                block,
            });
        }
    }
    let value = json!({
        "verified": reasons.is_empty(),
        "root_key_id": verified.root_key_id(),
        "holder": verified.chain().holder.to_string(),
        "asked": {
            "rights": arguments.rights.map(|rights| rights.to_string()),
            "range": arguments.range.map(|range| [range.start(), range.end()]),
            "at": human::time(question.at),
        },
        "reasons": reasons.iter().map(|reason| value(reason, &inspection, &people)).collect::<Vec<_>>(),
        "node": state_value(&state),
    });
    let mut text = format!(
        "every signature verifies, from root key {:08x} on; held by {}\nnode: {}\n",
        verified.root_key_id(),
        people.long(&verified.chain().holder.to_string()),
        state_text(&state)
    );
    if reasons.is_empty() {
        text += &format!("yes: {}\n", asked(arguments, question.at, &inspection));
    }
    for reason in &reasons {
        text += &format!("no: {}\n", sentence(reason, &inspection, &people));
    }
    let failure = reasons.first().map(|reason| {
        let others = match reasons.len() {
            1 => String::new(),
            many => format!(", and {} more", many - 1),
        };
        Failure::of(reason.code, sentence(reason, &inspection, &people) + &others)
    });
    Ok(Report::new(value, text).failing(failure))
}

impl From<Shortfall> for Reason {
    fn from(Shortfall { limit, block }: Shortfall) -> Self {
        let detail = limit.detail().split_once(": ").map_or(limit.detail(), |(_, detail)| detail);
        let limit_name = crate::output::json::word(&limit);
        Self { code: limit.code(), limit: limit_name, detail: detail.to_owned(), block: Some(block) }
    }
}

/// Why a node would not open it.
const fn detail(code: Code) -> &'static str {
    match code {
        Code::TokenRevoked => "it was taken back",
        Code::TokenExpired | Code::LeaseExpired => "its time is over, says the node",
        Code::TokenNotYet => "its time has not begun, says the node",
        Code::Epoch => "the node has started anew since, and the memory is gone",
        Code::PolicyDenied => "the policy does not let its holder open it",
        _ => "the node does not open it",
    }
}

/// What the answer is yes to.
fn asked(arguments: &Verify, at: UnixMicros, inspection: &Inspection) -> String {
    let rights = arguments.rights.map_or(inspection.effective.rights.clone(), |rights| rights.to_string());
    let range = match (arguments.range, inspection.effective.range) {
        (Some(range), _) => range.to_string(),
        (None, range) => range.map_or(human::NOTHING.to_owned(), |[start, end]| format!("{start}..{end}")),
    };
    format!("{rights} on {range} at {}", human::time(at))
}

fn by(reason: &Reason, inspection: &Inspection, people: &People) -> Option<String> {
    inspection.blocks.get(usize::from(reason.block?)).map(|block| heading(block, people))
}

fn sentence(reason: &Reason, inspection: &Inspection, people: &People) -> String {
    let by = by(reason, inspection, people);
    let place = reason.block.zip(by).map_or(String::new(), |(block, by)| format!(" (block {block}: {by})"));
    format!("{}: {}{place}", reason.limit, reason.detail)
}

fn value(reason: &Reason, inspection: &Inspection, people: &People) -> Value {
    json!({
        "code": reason.code.text(),
        "limit": reason.limit,
        "detail": reason.detail,
        "block": reason.block,
        "by": by(reason, inspection, people),
    })
}
