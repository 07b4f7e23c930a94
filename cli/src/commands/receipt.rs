//! `leasehold audit receipt`: whether a receipt is the node's, unchanged, and of a revocation that its log has.
//!
//! | looked at | with |
//! |---|---|
//! | the signature, over every field | the issuer's key, which the auditor has from elsewhere |
//! | that the logs' directory names the same issuer | `issuer` beside the logs |
//! | that the entry at `log_index` is of this revocation | the broker's log |
//! | that a signed checkpoint covers this entry | an inclusion proof, checked with the log's public key |

use std::path::{Path, PathBuf};

use audit::proof::{check, prove};
use audit::read::Reader;
use caps::error::Code;
use caps::id::PrincipalKey;
use caps::receipt::Receipt;
use caps::wire::row::{EndCause, Target};
use serde_json::{Value, json};

use super::audit::vkeys;
use crate::args;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, table};

/// Bytes of a receipt's file: one that names the most leases, with their spaces.
const RECEIPT_FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a file with one key.
const KEY_FILE_BYTES_MAX: usize = 4_096;
/// What a verification that found tampering ends with.
const TAMPERED_EXIT: u8 = 5;

pub(super) fn run(arguments: &args::audit::Receipt, context: &Context) -> Result<Report> {
    let text = files::read_text(&arguments.file, RECEIPT_FILE_BYTES_MAX)?;
    let receipt = crate::output::json::parse_receipt(&text).map_err(|what| {
        Failure::of(Code::ConfigIo, format!("{}: {what}", files::show(&arguments.file)))
            .help("give what `leasehold revoke --json` printed")
    })?;
    let issuer = issuer(&arguments.issuer)?;
    receipt.verify(issuer).map_err(|error| tampered(error.code(), error.detail().to_owned()))?;
    let proven = match &arguments.log {
        Some(log) => Some(in_log(&receipt, log, arguments)?),
        None => None,
    };
    let said = match proven {
        None => "not looked at: say --log",
        Some(Proven::Covered) => "has this revocation, under a signed checkpoint",
        Some(Proven::Young) => "has this revocation, not yet under a signed checkpoint",
    };
    let index = receipt.body.log_index;
    let pairs = [
        ("receipt", receipt.body.id.to_string()),
        ("signature", "ok".to_owned()),
        ("issuer", issuer.to_string()),
        ("log index", index.map_or("not recorded".to_owned(), |index| index.to_string())),
        ("log", said.to_owned()),
    ];
    let value = json!({
        "ok": true,
        "id": receipt.body.id.to_string(),
        "issuer": issuer.to_string(),
        "log_index": index,
        "in_log": proven.is_some(),
        "covered": proven.map(|proven| proven == Proven::Covered),
    });
    Ok(Report::new(value, table::pairs(context.style.stdout, &pairs)))
}

/// How well an entry is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proven {
    /// A signed checkpoint covers it.
    Covered,
    /// It is acknowledged, and the next checkpoint will.
    Young,
}

fn tampered(code: Code, message: impl Into<String>) -> Failure {
    Failure { exit: TAMPERED_EXIT, ..Failure::of(code, message) }
}

/// A key, or the file that has it.
fn issuer(text: &str) -> Result<PrincipalKey> {
    if let Ok(key) = PrincipalKey::parse(text) {
        return Ok(key);
    }
    let path = Path::new(text);
    if !path.exists() {
        return Err(Failure::usage(
            "neither a public key nor a file",
            "the key is in the file `issuer` beside the logs",
        ));
    }
    Ok(PrincipalKey::parse(files::read_text(path, KEY_FILE_BYTES_MAX)?.trim_end())?)
}

fn in_log(receipt: &Receipt, dir: &Path, arguments: &args::audit::Receipt) -> Result<Proven> {
    let below = dir.join("broker");
    let (log, beside): (PathBuf, _) =
        if below.is_dir() { (below, Some(dir)) } else { (dir.to_owned(), dir.parent()) };
    if let Some(published) = beside.map(|beside| beside.join("issuer")).filter(|path| path.exists()) {
        let published = files::read_text(&published, KEY_FILE_BYTES_MAX)?;
        if published.trim_end() != receipt.body.issuer.to_string() {
            return Err(tampered(Code::ContractSignature, "the node of these logs signs with another key"));
        }
    }
    let Some(index) = receipt.body.log_index else {
        return Err(Failure::of(Code::Range, "the receipt names no entry: no audit device recorded then")
            .help("the log has the revocation, without a number, from when a device recorded again"));
    };
    let vkeys = arguments.vkeys.iter().map(|text| vkeys(text)).collect::<Result<Vec<_>>>()?.concat();
    let (entry, proven) = match prove(&log, index) {
        Ok(inclusion) => {
            check(inclusion.proof.as_bytes(), &inclusion.entry, &vkeys)
                .map_err(|error| tampered(error.code(), error.detail().to_owned()))?;
            (inclusion.entry, Proven::Covered)
        }
        Err(error) if error.code() == Code::Range => {
            let stored = Reader::open(&log, index)?.batch()?.into_iter().find(|stored| stored.index == index);
            let missing =
                || tampered(Code::ProofMismatch, format!("the log has no entry {index}: it was cut"));
            (stored.ok_or_else(missing)?.bytes, Proven::Young)
        }
        Err(error) => return Err(error.into()),
    };
    if is_of(&entry, receipt) {
        Ok(proven)
    } else {
        Err(tampered(Code::ProofMismatch, format!("entry {index} of the log is not of this revocation")))
    }
}

/// Whether an entry is of the revocation that a receipt is of: what it was aimed at, or a lease that it reached.
fn is_of(entry: &[u8], receipt: &Receipt) -> bool {
    let Ok(entry) = serde_json::from_slice::<Value>(entry) else { return false };
    let is = |key: &str, id: &str| entry[key] == id;
    let ends = ["lease.revoke", "lease.release", "share.end", "holder.exit", "lease.expire"];
    let reached = || receipt.body.leases.iter().any(|lease| is("lease", &lease.to_string()));
    entry["event"].as_str().is_some_and(|event| ends.contains(&event))
        // What ends for a former owner when a lease goes over to another was not taken back by anybody.
        && !is("cause", EndCause::Transfer.name())
        && match &receipt.body.target {
            Target::Lease(id) => is("lease", &id.to_string()),
            Target::Grant(id) => is("grant", &id.to_string()),
            Target::Subtree(id) => {
                ["grant", "parent_grant"].into_iter().any(|key| is(key, &id.to_string())) || reached()
            }
            Target::Holder(key) => {
                ["holder", "receiver", "owner"].into_iter().any(|field| is(field, &key.to_string()))
                    || reached()
            }
            Target::Region(id) => is("region", &id.to_string()) || reached(),
            // Its lease stands in the entry where there was no room to take the block alone.
            Target::Block { lease, id } => {
                is("revocation_id", &id.to_string())
                    || entry["revocation_id"].is_null() && is("lease", &lease.to_string())
            }
        }
}

#[cfg(test)]
mod tests {
    use caps::id::{GrantId, LeaseId, ReceiptId};
    use caps::key::SigningKey;
    use caps::receipt::ReceiptBody;
    use caps::time::Micros;
    use caps::token::RevocationId;
    use caps::wire::link::Method;

    use super::*;

    #[test]
    fn an_entry_of_something_else_is_not_of_the_revocation() {
        let key = SigningKey::from_seed(&[5; 32]);
        let (grant, lease, other) = (GrantId([1; 16]), LeaseId([2; 16]), LeaseId([3; 16]));
        let receipt = |target| {
            ReceiptBody {
                id: ReceiptId([4; 16]),
                target,
                leases: vec![lease],
                left: None,
                quarantined_bytes: 0,
                mappings_closed: 0,
                method: Method::Cut,
                fence: Micros(0),
                dead: Micros(0),
                wiped_bytes: 0,
                log_index: Some(7),
                issuer: key.public(),
            }
            .sign(&key)
        };
        let is = |target, entry: Value| is_of(entry.to_string().as_bytes(), &receipt(target));
        let ended = json!({ "event": "share.end", "grant": grant.to_string(), "lease": lease.to_string() });
        assert!(is(Target::Grant(grant), ended.clone()) && is(Target::Lease(lease), ended.clone()));
        assert!(!is(Target::Lease(other), ended.clone()) && !is(Target::Grant(GrantId([9; 16])), ended));
        let issued = json!({ "event": "share.issue", "grant": grant.to_string() });
        assert!(!is(Target::Grant(grant), issued), "it is about the grant and does not end it");
        let holder = Target::Holder(key.public());
        assert!(is(holder.clone(), json!({ "event": "share.end", "receiver": key.public().to_string() })));
        assert!(!is(holder, json!({ "event": "share.end", "receiver": "00", "lease": other.to_string() })));
        let id = RevocationId([7; 64]);
        let block = Target::Block { lease, id };
        let cut = |id: RevocationId| json!({ "event": "lease.revoke", "lease": lease.to_string(), "revocation_id": id.to_string() });
        assert!(is(block.clone(), cut(id)) && !is(block, cut(RevocationId([8; 64]))));
        let mut given = json!({ "event": "lease.release", "lease": lease.to_string() });
        assert!(is(Target::Lease(lease), given.clone()));
        given["cause"] = json!("transfer");
        assert!(!is(Target::Lease(lease), given), "the lease is another's, and lives");
        assert!(!is_of(b"no entry", &receipt(Target::Grant(grant))));
    }
}
