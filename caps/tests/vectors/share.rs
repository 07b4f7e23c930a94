//! `MEM_SHARE` contracts and the signatures of both parties.

use caps::error::Code;
use caps::id::{GrantId, PrincipalKey};
use caps::key::{Signature, SigningKey};
use caps::rights::Rights;
use caps::share::{ContractText, ShareContract, SharePair};
use caps::time::Micros;
use serde_json::{Value, json};

use super::{file, hex, people, unreduced};
use crate::support::*;

pub(super) fn document() -> Value {
    let about = "contracts, the exact bytes that both parties sign, and whether both did";
    file(about, json!({ "holders": people(3) }), cases())
}

/// The one place where a contract of the vectors is made: person 0 shares with person 1.
fn contract() -> ShareContract {
    let terms = terms();
    ShareContract {
        cluster: terms.cluster,
        grant: GrantId([8; 16]),
        lease: terms.lease,
        region: terms.region,
        owner: public(0),
        receiver: public(1),
        rights: Rights::READ_WRITE,
        range: range(4_096, 8_192),
        ttl: Micros(3_600_000_000),
        max_hops: 1,
        cosigner: None,
    }
}

fn signed(contract: ShareContract, owner: &SigningKey, receiver: &SigningKey) -> SharePair {
    SharePair {
        contract,
        by_owner: contract.sign(owner),
        by_receiver: contract.sign(receiver),
        by_cosigner: None,
    }
}

/// By the two whom the contract names.
fn agreed(contract: ShareContract) -> SharePair {
    signed(contract, &person(0), &person(1))
}

/// The same contract where person 2 has to sign as well, and did.
fn cosigned() -> SharePair {
    let contract = ShareContract { cosigner: Some(public(2)), ..contract() };
    SharePair { by_cosigner: Some(contract.sign(&person(2))), ..agreed(contract) }
}

fn case(name: &str, pair: &SharePair, verdict: Option<Code>) -> Value {
    let contract = &pair.contract;
    json!({
        "name": name,
        "contract": ContractText::from(contract),
        "message": hex(&message(contract)),
        "digest": contract.digest().to_string(),
        "by_owner": hex(&pair.by_owner.0),
        "by_receiver": hex(&pair.by_receiver.0),
        "by_cosigner": pair.by_cosigner.map(|signature| hex(&signature.0)),
        "verdict": verdict.map_or("ok", Code::text),
    })
}

/// The signed bytes, put together here and not by the library, so that the two are compared by the signatures.
fn message(contract: &ShareContract) -> Vec<u8> {
    [
        &b"leasehold-share-v1\0"[..],
        &contract.cluster.0,
        &contract.grant.0,
        &contract.lease.0,
        &contract.region.0,
        &contract.owner.0,
        &contract.receiver.0,
        &[contract.rights.bits()],
        &contract.range.start().to_be_bytes(),
        &contract.range.end().to_be_bytes(),
        &contract.ttl.0.to_be_bytes(),
        &[contract.max_hops],
        &contract.cosigner.map_or(vec![], |key| [&[1], &key.0[..]].concat()),
    ]
    .concat()
}

/// A contract whose co-signer is one of its sides.
fn by_two(cosigner: PrincipalKey, key: &SigningKey) -> SharePair {
    let contract = ShareContract { cosigner: Some(cosigner), ..contract() };
    SharePair { by_cosigner: Some(contract.sign(key)), ..agreed(contract) }
}

fn cases() -> Vec<Value> {
    let good = agreed(contract());
    let (owner, third, cosigned) = (person(0), person(2), cosigned());
    let mut flipped = good;
    flipped.by_receiver.0[63] ^= 1;
    let own = ShareContract { receiver: public(0), ..contract() };
    let weak = ShareContract { receiver: PrincipalKey([0; 32]), ..contract() };
    let refused = Some(Code::ContractSignature);
    let changed = |name: &str, contract: ShareContract| case(name, &SharePair { contract, ..good }, refused);
    vec![
        case("agreed", &good, None),
        case("every right", &agreed(ShareContract { rights: Rights::ALL, ..contract() }), None),
        case("one byte", &agreed(ShareContract { range: range(0, 1), ..contract() }), None),
        case(
            "the longest",
            &agreed(ShareContract { ttl: Micros(i64::MAX as u64), max_hops: 7, ..contract() }),
            None,
        ),
        case("above 2^53", &agreed(ShareContract { ttl: Micros((1 << 53) + 1), ..contract() }), None),
        case("co-signed", &cosigned, None),
        case("without the co-signer's signature", &SharePair { by_cosigner: None, ..cosigned }, refused),
        case(
            "a co-signature of the owner",
            &SharePair { by_cosigner: Some(cosigned.by_owner), ..cosigned },
            refused,
        ),
        case(
            "a co-signature that nobody asked for",
            &SharePair { by_cosigner: cosigned.by_cosigner, ..good },
            refused,
        ),
        changed("a co-signer more", ShareContract { cosigner: Some(public(2)), ..contract() }),
        case(
            "the co-signer taken out",
            &SharePair { contract: contract(), by_cosigner: None, ..cosigned },
            refused,
        ),
        case("an owner who co-signs", &by_two(public(0), &owner), refused),
        case("a receiver who co-signs", &by_two(public(1), &person(1)), refused),
        case(
            "each other's signature",
            &SharePair { by_owner: good.by_receiver, by_receiver: good.by_owner, ..good },
            refused,
        ),
        case("a third for the receiver", &signed(contract(), &owner, &third), refused),
        case("a third for the owner", &signed(contract(), &third, &person(1)), refused),
        case("the owner twice", &SharePair { by_receiver: good.by_owner, ..good }, refused),
        case("one key for both sides", &signed(own, &owner, &owner), refused),
        case("one bit of a signature flipped", &flipped, refused),
        case(
            "a scalar that is not reduced",
            &SharePair { by_owner: Signature(unreduced(&good.by_owner.0)), ..good },
            refused,
        ),
        case(
            "a receiver of small order",
            &SharePair { contract: weak, by_owner: weak.sign(&owner), ..good },
            refused,
        ),
        changed("another grant", ShareContract { grant: GrantId([9; 16]), ..contract() }),
        changed("another receiver", ShareContract { receiver: public(2), ..contract() }),
        changed("more rights", ShareContract { rights: Rights::ALL, ..contract() }),
        changed("more bytes", ShareContract { range: range(4_096, 8_193), ..contract() }),
        changed("a longer time", ShareContract { ttl: Micros(3_600_000_001), ..contract() }),
        changed("more hops", ShareContract { max_hops: 2, ..contract() }),
    ]
}
