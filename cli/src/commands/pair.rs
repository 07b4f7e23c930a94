//! `leasehold share show` and `share verify`: an agreement on paper, and whether it is one.
//!
//! | looked at | with |
//! |---|---|
//! | all signatures, over every field | the keys that the contract names |
//! | that the offer, the acceptance and a co-signature are in the log, with these fields and signatures | the broker's log |
//! | that the log is whole and signed | its public key |

use std::path::Path;

use audit::read::Stored;
use audit::verify::verify_dir;
use caps::error::Code;
use caps::id::GrantId;
use caps::share::{AgreedShare, ShareContract, ShareFile, SharePair, Signed};
use serde_json::{Value, json};

use super::audit::vkeys;
use crate::args::share::{Show, Verify};
use crate::context::{Context, Session};
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::{Report, human, json, table};

/// Bytes of a file with a contract and three signatures, with its spaces.
const PAIR_FILE_BYTES_MAX: usize = 16 << 10;
/// What a verification that found tampering ends with.
const TAMPERED_EXIT: u8 = 5;

pub(super) fn show(arguments: &Show, session: &Session, context: &Context) -> Result<Report> {
    let proposal = session.client.share_show(arguments.id)?;
    let signed = proposal.signed();
    let text = text_of(&signed);
    let mut pairs = super::share::contract_pairs(&proposal);
    let by = match (signed.by_receiver, signed.by_cosigner) {
        (Some(_), Some(_)) => "all three",
        (Some(_), None) => "both",
        (None, Some(_)) => "the owner and the co-signer",
        (None, None) => "the owner alone",
    };
    pairs.push(("signed by", by.to_owned()));
    let mut shown = table::pairs(context.style.stdout, &pairs);
    if let Some(path) = &arguments.output {
        files::create(path, &text)?;
        shown += &format!("written to {}\n", files::show(path));
    }
    let value = json!({
        "share": json::grant(&proposal.grant),
        "signed": ShareFile::from(&signed),
        "digest": signed.contract.digest().to_string(),
        "complete": signed.is_complete(),
        "file": arguments.output.as_ref().map(|path| path.to_string_lossy()),
    });
    Ok(Report::new(value, shown))
}

/// One document, as `share verify` reads it.
fn text_of(signed: &Signed) -> String {
    crate::output::json::document(&json!(ShareFile::from(signed)))
}

pub(super) fn verify(arguments: &Verify, context: &Context) -> Result<Report> {
    let signed = read(&arguments.file)?;
    let Some(pair) = signed.pair() else {
        signed.contract.verify(signed.contract.owner, &signed.by_owner).map_err(tampered)?;
        if signed.by_cosigner.is_some() {
            signed.contract.verify_cosigner(signed.by_cosigner.as_ref()).map_err(tampered)?;
        }
        return Err(Failure::of(Code::ShareOrder, "its receiver has not signed: an offer, and no agreement")
            .help(
                "its receiver agrees with `leasehold share accept`; then write it again with `share show -o`",
            ));
    };
    let agreed = pair.verify().map_err(tampered)?;
    let entries = match &arguments.log {
        Some(log) => Some(in_log(&pair, log, &arguments.vkeys)?),
        None => None,
    };
    let mut pairs = agreed_pairs(&agreed);
    pairs.push(match entries {
        None => ("log", "not looked at: say --log".to_owned()),
        Some(Entries { offer, accept, cosign }) => {
            let cosign = cosign.map_or(String::new(), |entry| format!("co-signed in entry {entry}, "));
            ("log", format!("offered in entry {offer}, {cosign}accepted in entry {accept}"))
        }
    });
    let value = json!({
        "ok": true,
        "contract": json::contract(agreed.contract()),
        "digest": agreed.digest().to_string(),
        "in_log": entries.is_some(),
        "entries": entries.map(|found| [found.offer, found.accept]),
        "cosign_entry": entries.and_then(|found| found.cosign),
    });
    Ok(Report::new(value, table::pairs(context.style.stdout, &pairs)))
}

fn read(path: &Path) -> Result<Signed> {
    let text = files::read_text(path, PAIR_FILE_BYTES_MAX)?;
    let form = |what: String| {
        Failure::of(Code::ConfigSyntax, format!("{}: {what}", files::show(path)))
            .help("give what `leasehold share show -o` wrote")
    };
    let file: ShareFile = serde_json::from_str(&text).map_err(|error| form(error.to_string()))?;
    Signed::try_from(&file).map_err(|error| form(error.detail().to_owned()))
}

/// What does not agree with what was signed, written down or recorded.
pub(super) fn tampered(error: caps::Error) -> Failure {
    Failure { exit: TAMPERED_EXIT, ..Failure::from(error) }
}

/// Who agreed to what.
fn agreed_pairs(agreed: &AgreedShare) -> Vec<(&'static str, String)> {
    let ShareContract {
        grant,
        cluster,
        lease,
        region,
        owner,
        receiver,
        rights,
        range,
        ttl,
        max_hops,
        cosigner,
    } = *agreed.contract();
    let mut pairs = vec![
        ("grant", grant.to_string()),
        ("cluster", cluster.to_string()),
        ("lease", lease.to_string()),
        ("region", region.to_string()),
        ("shared by", format!("{owner}, who signed")),
        ("accepted by", format!("{receiver}, who signed")),
        ("rights", rights.to_string()),
        ("range", range.to_string()),
        ("for", format!("{} from when it was issued", human::span(ttl))),
        ("hops", max_hops.to_string()),
        ("digest", agreed.digest().to_string()),
    ];
    if let Some(cosigner) = cosigner {
        pairs.insert(6, ("co-signed by", format!("{cosigner}, who signed")));
    }
    pairs
}

/// Where a log has what was signed.
#[derive(Clone, Copy)]
struct Entries {
    offer: u64,
    accept: u64,
    /// Where the contract names a co-signer.
    cosign: Option<u64>,
}

/// The entries of the offer, of the acceptance and of a co-signature in a log that verifies, all with what the pair says.
fn in_log(pair: &SharePair, dir: &Path, keys: &[String]) -> Result<Entries> {
    let vkeys = keys.iter().map(|text| vkeys(text)).collect::<Result<Vec<_>>>()?.concat();
    let below = dir.join("broker");
    let log = if below.is_dir() { below } else { dir.to_owned() };
    if let Some((_, damage)) = verify_dir(&log, &vkeys)?.damage() {
        return Err(tampered(damage.clone().into_error()));
    }
    let mut found = [None; 3];
    for stored in audit::read::entries(&log, 0)? {
        note(&stored?, pair, &mut found)?;
    }
    let missing = |what: &str| {
        let message = format!("the log has no {what} of grant {}", pair.contract.grant);
        Failure { exit: TAMPERED_EXIT, ..Failure::of(Code::ProofMismatch, message) }
    };
    match found {
        [None, ..] => Err(missing("offer")),
        [_, None, _] => Err(missing("acceptance")),
        [.., None] if pair.contract.cosigner.is_some() => Err(missing("co-signature")),
        [Some(offer), Some(accept), cosign] => Ok(Entries { offer, accept, cosign }),
    }
}

/// Looks whether an entry is the offer, the acceptance or the co-signature of the pair's grant, and if it is, whether it says
/// the same.
fn note(stored: &Stored, pair: &SharePair, found: &mut [Option<u64>; 3]) -> Result<()> {
    let Ok(entry) = serde_json::from_slice::<Value>(&stored.bytes) else { return Ok(()) };
    let is = |grant: GrantId| entry["grant"] == grant.to_string() && entry["outcome"] == "ok";
    let (at, signature) = match entry["event"].as_str() {
        Some("share.offer") if entry["cause"] == "cosigned" => (2, pair.by_cosigner.as_ref()),
        Some("share.offer") => (0, Some(&pair.by_owner)),
        Some("share.accept") => (1, Some(&pair.by_receiver)),
        _ => return Ok(()),
    };
    if !is(pair.contract.grant) {
        return Ok(());
    }
    let signed = signature.is_some_and(|by| entry["signature"] == data_encoding::HEXLOWER.encode(&by.0));
    if !says(&entry, &pair.contract) || !signed {
        let message = format!("entry {} of the log is of this grant and says something else", stored.index);
        return Err(Failure { exit: TAMPERED_EXIT, ..Failure::of(Code::ProofMismatch, message) });
    }
    found[at] = Some(stored.index);
    Ok(())
}

/// Whether an entry has every field of the contract.
fn says(entry: &Value, contract: &ShareContract) -> bool {
    let ShareContract {
        grant,
        cluster,
        lease,
        region,
        owner,
        receiver,
        rights,
        range,
        ttl,
        max_hops,
        cosigner,
    } = contract;
    let is = |key: &str, value: Value| entry[key] == value;
    is("grant", json!(grant.to_string()))
        && is("cluster", json!(cluster.to_string()))
        && is("lease", json!(lease.to_string()))
        && is("region", json!(region.to_string()))
        && is("owner", json!(owner.to_string()))
        && is("receiver", json!(receiver.to_string()))
        && is("rights", json!(rights.to_string()))
        && is("range", json!([range.start().to_string(), range.end().to_string()]))
        && is("ttl_us", json!(ttl.0.to_string()))
        && is("hops", json!(max_hops))
        // Absent, like `null`, where nobody has to.
        && is("cosigner", json!(cosigner.map(|key| key.to_string())))
}

#[cfg(test)]
mod tests {
    use caps::id::{ClusterEpoch, LeaseId, RegionId};
    use caps::key::SigningKey;
    use caps::range::ByteRange;
    use caps::rights::Rights;
    use caps::time::Micros;

    use super::*;

    fn pair() -> SharePair {
        let (owner, receiver) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let contract = ShareContract {
            cluster: ClusterEpoch([7; 16]),
            grant: GrantId([1; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            owner: owner.public(),
            receiver: receiver.public(),
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            ttl: Micros(9),
            max_hops: 0,
            cosigner: None,
        };
        SharePair {
            contract,
            by_owner: contract.sign(&owner),
            by_receiver: contract.sign(&receiver),
            by_cosigner: None,
        }
    }

    /// The entry of the acceptance, as the broker writes it.
    fn accepted(pair: &SharePair) -> Value {
        let contract = &pair.contract;
        json!({
            "event": "share.accept", "outcome": "ok",
            "cluster": contract.cluster.to_string(), "grant": contract.grant.to_string(),
            "lease": contract.lease.to_string(), "region": contract.region.to_string(),
            "owner": contract.owner.to_string(), "receiver": contract.receiver.to_string(),
            "rights": "r", "range": ["0", "4096"], "ttl_us": "9", "hops": 0,
            "signature": data_encoding::HEXLOWER.encode(&pair.by_receiver.0),
        })
    }

    #[test]
    fn an_entry_of_the_grant_that_says_something_else_is_found_out() {
        let pair = pair();
        let looked = |entry: &Value| {
            let (mut found, bytes) = ([None; 3], entry.to_string().into_bytes());
            note(&Stored { index: 7, bytes }, &pair, &mut found).map(|()| found)
        };
        let good = accepted(&pair);
        assert_eq!(looked(&good).unwrap(), [None, Some(7), None]);
        let with = |key: &str, value: Value| {
            let mut entry = good.clone();
            entry[key] = value;
            looked(&entry)
        };
        for (key, value) in [
            ("cluster", json!("00")),
            ("lease", json!("00")),
            ("region", json!("00")),
            ("owner", json!("00")),
            ("receiver", json!("00")),
            ("rights", json!("rw")),
            ("range", json!(["0", "8192"])),
            ("ttl_us", json!("10")),
            ("hops", json!(1)),
            ("cosigner", json!("00")),
            ("signature", json!(data_encoding::HEXLOWER.encode(&pair.by_owner.0))),
        ] {
            assert_eq!(with(key, value).unwrap_err().exit, TAMPERED_EXIT, "{key}");
        }
        for (key, value) in
            [("grant", json!("00")), ("outcome", json!("error")), ("event", json!("share.end"))]
        {
            assert_eq!(with(key, value).unwrap(), [None; 3], "{key}: another entry");
        }
    }
}
