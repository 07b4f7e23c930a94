//! Tokens that must be refused.

use caps::error::Code;
use caps::token::hostile;
use caps::token::{Narrow, RootKey, forge, sample};
use serde_json::{Value, json};

use super::{file, hex};
use crate::support::*;

/// A hostile token of more bytes than this is left out: its class is told by its name, and it is refused for its size.
const PUBLISHED_BYTES_MAX: usize = 8 * 1024;

pub(super) fn document() -> Value {
    let own = json!({
        "roots": [{
            "seed": hex(&ROOT_SEED),
            "public": root().public().to_string(),
            "id": root().id(),
        }],
    });
    file("tokens that every verifier refuses, with the code of the first rule that each breaks", own, cases())
}

/// A token that is refused with `code`, by the gate or by the verification.
fn case(name: &str, why: &str, token: &[u8], code: Code) -> Value {
    json!({ "name": name, "why": why, "token": hex(token), "verdict": code.text() })
}

fn cases() -> Vec<Value> {
    assert_eq!(sample::ROOT_SEED, ROOT_SEED, "one root key for all of them");
    let set = hostile::set().expect("everything in it can be made");
    let classes = set.iter().filter(|one| one.bytes.len() <= PUBLISHED_BYTES_MAX);
    let classes = classes.map(|one| case(one.name, "a class of the bad-input set", &one.bytes, one.code));
    chosen().into_iter().chain(classes).collect()
}

fn chosen() -> Vec<Value> {
    let minted = token();
    let bytes = minted.as_bytes();
    let raw = |block: &[u8]| forge::append_raw(bytes, block, None, &[9; 32]).unwrap();
    let facts = |terms: &[u8]| [&[0x18, 0x03][..], terms].concat();
    let mut flipped = bytes.to_vec();
    flipped[100] ^= 1;
    let other = RootKey::from_seed(&[42; 32]);
    let other = forge::mint(&other, &terms(), &NEXT_SEED).unwrap();
    let theft = {
        // delegate(<thief>), signed by the thief, who is not the holder.
        let honest = forge::delegate(&minted, &person(0), public(3), &Narrow::default(), &[9; 32]).unwrap();
        let block = forge::blocks(honest.as_bytes()).unwrap().pop().unwrap();
        forge::append_raw(bytes, &block, Some(&seed(3)), &[9; 32]).unwrap()
    };
    vec![
        case("empty", "no byte", &[], Code::TokenMalformed),
        case("cut", "the last byte is missing", &bytes[..bytes.len() - 1], Code::TokenMalformed),
        case("trailing-byte", "one byte too many", &[bytes, &[0]].concat(), Code::TokenNoncanonical),
        case("flipped", "one bit of the lease's facts", &flipped, Code::TokenSignature),
        case("another-root", "signed by a key nobody trusts", other.as_bytes(), Code::TokenUnknownKey),
        case("theft", "a delegation that the holder did not sign", &theft, Code::TokenSignature),
        case(
            "fact",
            "right(\"write\") in a later block",
            &raw(&facts(&[0x22, 0x0a, 0x0a, 0x08, 0x08, 0x04, 0x12, 0x04, 0x18, 0x01, 0x18, 0x01])),
            Code::TokenNoncanonical,
        ),
        case(
            "fact-canonical",
            "the same in the canonical encoding",
            &raw(&facts(&[0x22, 0x08, 0x0a, 0x06, 0x08, 0x04, 0x12, 0x02, 0x18, 0x01])),
            Code::TokenProfile,
        ),
        case("version-6", "a block schema with closures", &raw(&[0x18, 0x06]), Code::TokenVersion),
        case("says-nothing", "a block without a check", &raw(&[0x18, 0x03]), Code::TokenProfile),
        case(
            "smuggled-symbol",
            "text that nothing names",
            &raw(&[0x0a, 0x01, b'x', 0x18, 0x03]),
            Code::TokenProfile,
        ),
        case(
            "lying-length",
            "a length of 2^63",
            &[0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            Code::TokenMalformed,
        ),
    ]
}
