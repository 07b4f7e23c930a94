//! `leasehold share cosign`: the signature of the third party that a contract names.

use caps::error::Code;
use caps::share::{ShareFile, Signed};
use caps::wire::row::{CosignerRow, GrantState};
use serde_json::json;

use super::share::{ToSign, pairs, to_sign};
use crate::args::share::Cosign;
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::output::{self, Report, json, table};

pub(super) fn run(arguments: &Cosign, session: &Session, context: &Context) -> Result<Report> {
    let ToSign { proposal, contract, digest, shown } =
        to_sign(arguments.id, arguments.only_if, session, context)?;
    if arguments.dry_run {
        let value = json!({
            "contract": json::contract(&contract),
            "digest": digest.to_string(),
            "cosigned": false,
        });
        return Ok(Report::new(value, shown + "nothing was signed\n"));
    }
    // The node would refuse both. Better before it is shown as if it were signed.
    if contract.cosigner != Some(session.client.holder()) {
        return Err(Failure::of(Code::Denied, "the contract names somebody else to co-sign it, or nobody"));
    }
    if proposal.grant.state != GrantState::Offered {
        return Err(Failure::of(Code::ShareOrder, "it was co-signed before, or is over"));
    }
    if !context.json {
        output::to_stdout(format!("co-signing exactly this:\n{shown}").as_bytes())?;
    }
    let grant = session.client.share_cosign(&contract, &session.key)?;
    // A signature is a function of the key and the text: this is the one that was sent.
    let signed = Signed { by_cosigner: Some(contract.sign(&session.key)), ..proposal.signed() };
    let text = format!(
        "co-signed\n{}\nMEM_SHARE:{} waits for its receiver, who types:\n  leasehold{} share accept {}{}\n",
        table::pairs(context.style.stdout, &pairs(&grant)),
        grant.id,
        context.dirs.argument(),
        grant.id,
        grant.receiver_name.as_ref().map_or(String::new(), |name| format!(" --as {name}")),
    );
    let value = json!({
        "share": json::grant(&grant),
        "contract": json::contract(&contract),
        "digest": digest.to_string(),
        "signed": ShareFile::from(&signed),
        "cosigned": true,
    });
    Ok(Report::new(value, text))
}

/// The co-signer's name, or its key where the node has none for it.
pub(super) fn who(cosigner: &CosignerRow) -> String {
    cosigner.name.as_ref().map_or_else(|| cosigner.key.to_string(), ToString::to_string)
}
