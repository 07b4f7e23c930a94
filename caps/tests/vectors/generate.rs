//! Makes the golden tokens of `tokens.json`: the same bytes each time, from fixed seeds.
//!
//! Used by the test that compares and by the example that writes the file, so that the two cannot differ.

use caps::error::Code;
use caps::id::GrantId;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Narrow, RootKey, Terms, Token, forge, seal};
use serde_json::{Value, json};

use crate::support::*;

/// The whole file.
pub(crate) fn document() -> Value {
    let mut cases = accepted();
    cases.extend(refused());
    json!({
        "format": "leasehold-token-vectors-v1",
        "root": {
            "seed": hex(&ROOT_SEED),
            "public": root().public().to_string(),
            "id": root().id(),
        },
        "holders": (0..4).map(|number| json!({
            "seed": hex(&seed(number)),
            "public": public(number).to_string(),
        })).collect::<Vec<_>>(),
        "cases": cases,
    })
}

/// The file's text: one line per value, a line end at the end.
#[allow(dead_code)] // the test parses instead
pub(crate) fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("JSON");
    text.push('\n');
    text
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// A token that verifies, with its final holder and what is left.
fn case(
    name: &str,
    why: &str,
    token: &Token,
    holder: u8,
    rights: &str,
    range: [u64; 2],
    expires: u64,
) -> Value {
    json!({
        "name": name,
        "why": why,
        "token": hex(token.as_bytes()),
        "verdict": "ok",
        "holder": public(holder).to_string(),
        "rights": rights,
        "range": range,
        "expires": expires,
    })
}

fn everything() -> Narrow {
    Narrow {
        rights: Some(Rights::READ.union(Rights::SHARE)),
        range: Some(range(8_192, 16_384)),
        expires: Some(UnixMicros(END - 5)),
        not_before: Some(UnixMicros(BEGIN + 5)),
        max_hops: Some(1),
        opens: Some(10),
        bytes_per_second: Some(1 << 20),
        bytes_total: Some(1 << 30),
    }
}

fn accepted() -> Vec<Value> {
    let (all, whole) = ("rws", [4_096, 65_536]);
    let minted = token();
    let granted = Terms { grant: Some(GrantId([8; 16])), rights: Rights::READ, ..terms() };
    let granted = forge::mint(&root(), &granted, &NEXT_SEED).unwrap();
    let read = Narrow { rights: Some(Rights::READ), ..Narrow::default() };
    let narrowed = forge::attenuate(&minted, &read, &[11; 32]).unwrap();
    let full = forge::attenuate(&minted, &everything(), &[12; 32]).unwrap();
    let delegated = forge::delegate(&minted, &person(0), public(1), &Narrow::default(), &[13; 32]).unwrap();
    let twice = forge::delegate(&delegated, &person(1), public(2), &everything(), &[14; 32]).unwrap();
    let after = forge::attenuate(&twice, &read, &[15; 32]).unwrap();
    let sealed = seal(&after).unwrap();
    vec![
        case("minted", "one authority block", &minted, 0, all, whole, END),
        case("minted-for-a-grant", "names the MEM_SHARE it comes from", &granted, 0, "r", whole, END),
        case("narrowed", "one first-party block", &narrowed, 0, "r", whole, END),
        case(
            "narrowed-in-every-dimension",
            "every template there is",
            &full,
            0,
            "rs",
            [8_192, 16_384],
            END - 5,
        ),
        case("delegated", "one block signed by the holder", &delegated, 1, all, whole, END),
        case("delegated-twice", "the second hop narrows as well", &twice, 2, "rs", [8_192, 16_384], END - 5),
        case(
            "narrowed-after-delegation",
            "signature version 1 from there on",
            &after,
            2,
            "r",
            [8_192, 16_384],
            END - 5,
        ),
        case("sealed", "ends with a signature, not a secret", &sealed, 2, "r", [8_192, 16_384], END - 5),
    ]
}

/// A token that is refused with `code`, by the gate or by the verification.
fn hostile(name: &str, why: &str, token: &[u8], code: Code) -> Value {
    json!({ "name": name, "why": why, "token": hex(token), "verdict": code.text() })
}

fn refused() -> Vec<Value> {
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
        hostile("empty", "no byte", &[], Code::TokenMalformed),
        hostile("cut", "the last byte is missing", &bytes[..bytes.len() - 1], Code::TokenMalformed),
        hostile("trailing-byte", "one byte too many", &[bytes, &[0]].concat(), Code::TokenNoncanonical),
        hostile("flipped", "one bit of the lease's facts", &flipped, Code::TokenSignature),
        hostile("another-root", "signed by a key nobody trusts", other.as_bytes(), Code::TokenUnknownKey),
        hostile("theft", "a delegation that the holder did not sign", &theft, Code::TokenSignature),
        hostile(
            "fact",
            "right(\"write\") in a later block",
            &raw(&facts(&[0x22, 0x0a, 0x0a, 0x08, 0x08, 0x04, 0x12, 0x04, 0x18, 0x01, 0x18, 0x01])),
            Code::TokenNoncanonical,
        ),
        hostile(
            "fact-canonical",
            "the same in the canonical encoding",
            &raw(&facts(&[0x22, 0x08, 0x0a, 0x06, 0x08, 0x04, 0x12, 0x02, 0x18, 0x01])),
            Code::TokenProfile,
        ),
        hostile("version-6", "a block schema with closures", &raw(&[0x18, 0x06]), Code::TokenVersion),
        hostile("says-nothing", "a block without a check", &raw(&[0x18, 0x03]), Code::TokenProfile),
        hostile(
            "smuggled-symbol",
            "text that nothing names",
            &raw(&[0x0a, 0x01, b'x', 0x18, 0x03]),
            Code::TokenProfile,
        ),
        hostile(
            "lying-length",
            "a length of 2^63",
            &[0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            Code::TokenMalformed,
        ),
    ]
}
