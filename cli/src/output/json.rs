//! The JSON forms. The keys are a promise to scripts: cli.md in the documentation lists the ones that checks rely on.
//!
//! Ids and keys are lowercase hexadecimal, spans whole milliseconds or microseconds as the key's end says, rights as in
//! `rws`, ranges `[first, one past the last]`.

use caps::error::Error;
use caps::id::{GrantId, LeaseId, PrincipalKey, ReceiptId, RegionId};
use caps::key::Signature;
use caps::range::ByteRange;
use caps::receipt::{Receipt, ReceiptBody};
use caps::rights::Rights;
use caps::share::{Rest, ShareContract};
use caps::time::{Micros, UnixMicros};
use caps::token::RevocationId;
use caps::wire::link::Method;
use caps::wire::row::{
    CanaryRow, DonationRow, GrantRow, LeaseRow, MemoryRow, NodeStatus, PrincipalRow, QuarantineRow, QuotaRow,
    RootRow, Target,
};
use data_encoding::HEXLOWER;
use libmem::LeaseView;
use policy::Diagnostic;
use serde::Serialize;
use serde_json::{Value, json};

use super::placement;

/// One document, with a line end.
pub(crate) fn document(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The name that a value of ours has in its serialized form, as in `live`.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => super::human::NOTHING.to_owned(), // every enum that comes here serializes to a text
    }
}

fn range(range: ByteRange) -> Value {
    json!([range.start(), range.end()])
}

/// A lease as lists show it.
pub(crate) fn lease(row: &LeaseRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "region": row.region.to_string(),
        "name": row.name,
        "owner": row.owner.to_string(),
        "owner_name": row.owner_name,
        "holder": row.owner.to_string(),
        "rights": row.rights.to_string(),
        "range": range(row.range),
        "segment_bytes": row.segment_bytes,
        "expires_in_ms": row.expires_in.as_millis(),
        "state": row.state,
        "cause": row.cause,
        "epoch": row.epoch,
        "provider": row.provider.to_string(),
        "grants": row.grants,
    })
}

/// A lease with its memory.
pub(crate) fn lease_view(view: &LeaseView) -> Value {
    let mut value = lease(&view.lease);
    value["memory"] = view.memory.as_ref().map_or(Value::Null, memory);
    value["placement"] = view.lease.placement.as_ref().map_or(Value::Null, placement::value);
    value["address"] = json!(view.lease.address);
    value
}

fn memory(row: &MemoryRow) -> Value {
    json!({
        "bytes": row.bytes,
        "huge_bytes": row.huge_bytes,
        "segments": row.segments,
        "rotations": row.rotations,
        "tier": row.tier,
        "mappings": row.mappings,
        "opens": row.opens,
        "pinned": row.pinned,
    })
}

/// A grant as lists show it.
pub(crate) fn grant(row: &GrantRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "lease": row.lease.to_string(),
        "region": row.region.to_string(),
        "owner": row.owner.to_string(),
        "owner_name": row.owner_name,
        "receiver": row.receiver.to_string(),
        "receiver_name": row.receiver_name,
        "rights": row.rights.to_string(),
        "range": range(row.range),
        "agreed": { "rights": row.agreed.rights.to_string(), "range": range(row.agreed.range) },
        "ttl_ms": row.ttl.as_millis(),
        "max_hops": row.max_hops,
        "expires_in_ms": row.expires_in.as_millis(),
        "state": row.state,
        "cause": row.cause,
        "cosigner": row.cosigner.as_ref().map(|cosigner| json!({
            "key": cosigner.key.to_string(),
            "name": cosigner.name,
            "signed": cosigner.signed,
        })),
    })
}

/// Something in quarantine.
pub(crate) fn quarantined(row: &QuarantineRow) -> Value {
    json!({
        "id": row.id.0,
        "lease": row.lease.to_string(),
        "owner": row.owner.to_string(),
        "bytes": row.range.len(),
        "range": range(row.range),
        "readable_bytes": row.readable_bytes,
        "since_us": row.since.0,
        "cause": row.cause,
    })
}

/// What a narrowing has left of a grant's contract; all of it where nothing was taken.
pub(crate) fn left(row: &GrantRow) -> Value {
    json!({
        "rights": row.rights.to_string(),
        "range": range(row.range),
        "expires_in_ms": row.expires_in.as_millis(),
    })
}

/// A root key.
pub(crate) fn root(row: &RootRow) -> Value {
    json!({
        "id": root_id(row.id),
        "public": row.public.to_string(),
        "since_us": row.since.0,
        "state": row.state,
        "retires_us": row.retires.map(|retires| retires.0),
    })
}

/// A root key's id, as tokens' inspections and key files have it.
pub(crate) fn root_id(id: u32) -> String {
    format!("{id:08x}")
}

/// A donation of quota.
pub(crate) fn donation(row: &DonationRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "giver": row.giver.to_string(),
        "giver_name": row.giver_name,
        "receiver": row.receiver.to_string(),
        "receiver_name": row.receiver_name,
        "bytes": row.bytes,
        "lent": row.lent,
        "expires_in_ms": row.expires_in.as_millis(),
        "state": row.state,
    })
}

/// What a quota of bytes comes to.
pub(crate) fn quota(row: &QuotaRow) -> Value {
    json!({
        "limit_bytes": row.limit_bytes,
        "given_bytes": row.given_bytes,
        "received_bytes": row.received_bytes,
        "used_bytes": row.used_bytes,
        "free_bytes": row.free_bytes,
        "giveable_bytes": row.giveable_bytes,
    })
}

/// A contract: exactly what is signed.
pub(crate) fn contract(contract: &ShareContract) -> Value {
    json!({
        "cluster": contract.cluster.to_string(),
        "grant": contract.grant.to_string(),
        "lease": contract.lease.to_string(),
        "region": contract.region.to_string(),
        "owner": contract.owner.to_string(),
        "receiver": contract.receiver.to_string(),
        "rights": contract.rights.to_string(),
        "range": range(contract.range),
        "ttl_us": contract.ttl.0,
        "max_hops": contract.max_hops,
        "cosigner": contract.cosigner.map(|key| key.to_string()),
    })
}

/// A receipt.
pub(crate) fn receipt(receipt: &Receipt) -> Value {
    let body = &receipt.body;
    let leases: Vec<_> = body.leases.iter().map(ToString::to_string).collect();
    let (kind, id) = target(&body.target);
    let mut aim = json!({ "kind": kind, "id": id });
    if let Target::Block { lease, .. } = body.target {
        aim["lease"] = lease.to_string().into();
    }
    if let Some(left) = body.left {
        // Of a narrowing: what the target still gives.
        aim["left"] = json!({
            "rights": left.rights.to_string(),
            "range": range(left.range),
            "expires_us": left.expires.0,
        });
    }
    json!({
        "id": body.id.to_string(),
        "target": aim,
        "leases": leases,
        "mappings_closed": body.mappings_closed,
        "method": body.method,
        "fence_us": body.fence.0,
        "dead_us": body.dead.0,
        "wiped_bytes": body.wiped_bytes,
        "quarantined_bytes": body.quarantined_bytes,
        "log_index": body.log_index,
        "issuer": body.issuer.to_string(),
        "signature": HEXLOWER.encode(&receipt.signature.0),
    })
}

/// A receipt from the document that [`receipt`] makes. Every field is there and nothing else is: what is signed is
/// exactly what is read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_receipt(text: &str) -> Result<Receipt, &'static str> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Document {
        receipt: Fields,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        id: String,
        target: Aim,
        leases: Vec<String>,
        mappings_closed: u32,
        method: Method,
        fence_us: u64,
        dead_us: u64,
        wiped_bytes: u64,
        // Receipts of before there was quarantine by hand have none.
        #[serde(default)]
        quarantined_bytes: u64,
        log_index: Option<u64>,
        issuer: String,
        signature: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Aim {
        kind: String,
        id: String,
        // Of a block of a token.
        lease: Option<String>,
        // Of a narrowing.
        left: Option<Left>,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Left {
        rights: String,
        range: (u64, u64),
        expires_us: u64,
    }
    let wrong = |_| "an id or a key in it is none";
    let Document { receipt } = serde_json::from_str(text).map_err(|_| "this is no receipt")?;
    let id = &receipt.target.id[..];
    let target = match &receipt.target.kind[..] {
        "lease" => Target::Lease(LeaseId::parse(id).map_err(wrong)?),
        "grant" => Target::Grant(GrantId::parse(id).map_err(wrong)?),
        "holder" => Target::Holder(PrincipalKey::parse(id).map_err(wrong)?),
        "subtree" => Target::Subtree(GrantId::parse(id).map_err(wrong)?),
        "region" => Target::Region(RegionId::parse(id).map_err(wrong)?),
        "block" => {
            let lease = receipt.target.lease.as_deref().ok_or("a block is of a lease")?;
            let lease = LeaseId::parse(lease).map_err(wrong)?;
            Target::Block { lease, id: RevocationId::parse(id).map_err(wrong)? }
        }
        _ => return Err("its target is of no kind"),
    };
    let left = receipt.target.left.map(|left| {
        Ok(Rest {
            rights: Rights::parse(&left.rights)?,
            range: ByteRange::new(left.range.0, left.range.1)?,
            expires: UnixMicros(left.expires_us),
        })
    });
    let left = left.transpose().map_err(|_: Error| "what it says is left makes no sense")?;
    let leases = receipt.leases.iter().map(|id| LeaseId::parse(id)).collect::<caps::Result<_>>();
    let signature =
        HEXLOWER.decode(receipt.signature.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let body = ReceiptBody {
        id: ReceiptId::parse(&receipt.id).map_err(wrong)?,
        target,
        leases: leases.map_err(wrong)?,
        left,
        mappings_closed: receipt.mappings_closed,
        method: receipt.method,
        fence: Micros(receipt.fence_us),
        dead: Micros(receipt.dead_us),
        wiped_bytes: receipt.wiped_bytes,
        quarantined_bytes: receipt.quarantined_bytes,
        log_index: receipt.log_index,
        issuer: PrincipalKey::parse(&receipt.issuer).map_err(wrong)?,
    };
    Ok(Receipt { body, signature: Signature(signature.ok_or("its signature is none")?) })
}

/// What a revocation was aimed at, and its id.
pub(crate) fn target(target: &Target) -> (&'static str, String) {
    match target {
        Target::Lease(id) => ("lease", id.to_string()),
        Target::Grant(id) => ("grant", id.to_string()),
        Target::Holder(key) => ("holder", key.to_string()),
        Target::Subtree(id) => ("subtree", id.to_string()),
        Target::Region(id) => ("region", id.to_string()),
        Target::Block { id, .. } => ("block", id.to_string()),
    }
}

/// A principal as the node knows it.
pub(crate) fn principal(row: &PrincipalRow) -> Value {
    json!({
        "name": row.name,
        "key": row.key.to_string(),
        "admin": row.admin,
        "leases": row.leases,
        "leased_bytes": row.leased_bytes,
    })
}

/// An identity of this user.
pub(crate) fn identity(name: &str, key: PrincipalKey, file: &std::path::Path) -> Value {
    json!({ "name": name, "key": key.to_string(), "file": file.to_string_lossy() })
}

/// The node's numbers.
pub(crate) fn status(status: &NodeStatus) -> Value {
    json!({
        "cluster": status.cluster.to_string(),
        "provider": status.own().map(|id| id.to_string()),
        "uptime_ms": status.uptime.as_millis(),
        "pool_bytes": status.pool_bytes,
        "leased_bytes": status.leased_bytes,
        "committed_bytes": status.committed_bytes,
        "leases": status.leases,
        "grants": status.grants,
        "principals": status.principals,
        "sessions": status.sessions,
        "tier": status.own().map(|_| status.tier),
        "audit": status.audit,
        "broker_entries": status.broker_entries,
        "provider_entries": status.provider_entries,
        "policy": status.policy,
        "canary": status.canary.as_ref().map(canary),
        "providers": status.providers.iter().map(placement::provider).collect::<Vec<_>>(),
    })
}

/// The revocation canary's numbers.
fn canary(row: &CanaryRow) -> Value {
    json!({
        "state": row.state,
        "every_ms": row.every.as_millis(),
        "last_us": row.last.0,
        "p50_us": row.p50.0,
        "p99_us": row.p99.0,
        "receipt_us": row.receipt.0,
        "runs": row.runs,
        "failures": row.failures,
        "skipped": row.skipped,
        "age_ms": row.age.map(|age| age.as_millis()),
        "said": row.said,
    })
}

/// A mistake in a file.
pub(crate) fn diagnostic(mistake: &Diagnostic) -> Value {
    json!({
        "code": mistake.code.text(),
        "severity": match mistake.severity {
            policy::Severity::Error => "error",
            policy::Severity::Warning => "warning",
        },
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "message": mistake.message,
        "help": mistake.help,
    })
}

#[cfg(test)]
mod tests {
    use caps::id::ProviderId;
    use caps::key::SigningKey;
    use caps::wire::row::LeaseState;

    use super::*;

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let left = Rest {
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            expires: UnixMicros(1_700_000_000_000_000),
        };
        for left in [None, Some(left)] {
            let key = SigningKey::from_seed(&[5; 32]);
            let body = ReceiptBody {
                id: ReceiptId([1; 16]),
                target: Target::Grant(GrantId([2; 16])),
                leases: Vec::new(),
                mappings_closed: 1,
                method: Method::Rotate,
                fence: Micros(3),
                dead: Micros(90),
                wiped_bytes: 4096,
                log_index: None,
                issuer: key.public(),
                left,
                quarantined_bytes: 8192,
            };
            let written = body.clone().sign(&key);
            let text = document(&json!({ "receipt": receipt(&written) }));
            assert_eq!(parse_receipt(&text), Ok(written), "{text}");
        }
    }

    #[test]
    fn a_receipt_has_the_promised_keys_and_no_other() {
        let body = ReceiptBody {
            id: ReceiptId([1; 16]),
            target: Target::Lease(LeaseId([2; 16])),
            leases: vec![LeaseId([2; 16])],
            mappings_closed: 2,
            method: Method::Cut,
            fence: Micros(3),
            dead: Micros(90),
            wiped_bytes: 4096,
            log_index: Some(7),
            issuer: SigningKey::from_seed(&[5; 32]).public(),
            left: None,
            quarantined_bytes: 0,
        };
        let value = receipt(&body.sign(&SigningKey::from_seed(&[5; 32])));
        let mut promised = [
            "id",
            "target",
            "leases",
            "mappings_closed",
            "method",
            "fence_us",
            "dead_us",
            "wiped_bytes",
            "quarantined_bytes",
            "log_index",
            "issuer",
            "signature",
        ];
        promised.sort_unstable();
        let mut found = keys(&value);
        found.sort_unstable();
        assert_eq!(found, promised);
        assert_eq!((&value["method"], &value["dead_us"]), (&json!("cut"), &json!(90)));
    }

    #[test]
    fn a_lease_has_the_promised_keys() {
        let value = lease(&LeaseRow {
            id: LeaseId([1; 16]),
            region: RegionId([2; 16]),
            name: None,
            owner: PrincipalKey([3; 32]),
            owner_name: None,
            rights: Rights::ALL,
            range: ByteRange::new(0, 4096).unwrap(),
            segment_bytes: 4096,
            expires_in: Micros(1_500_000),
            state: LeaseState::Live,
            cause: None,
            epoch: 4,
            provider: ProviderId([5; 16]),
            grants: 0,
            node: None,
            placement: None,
            address: None,
        });
        for key in [
            "id",
            "region",
            "owner",
            "holder",
            "rights",
            "range",
            "expires_in_ms",
            "state",
            "epoch",
            "provider",
        ] {
            assert!(!value[key].is_null(), "{key}");
        }
        assert_eq!(value["range"], json!([0, 4096]));
        assert_eq!((&value["expires_in_ms"], &value["state"]), (&json!(1500), &json!("live")));
    }
}
