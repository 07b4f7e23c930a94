//! Makes the published vectors: the same bytes each time, from fixed seeds.
//!
//! Used by the tests that compare and by the example that writes the files, so that the two cannot differ. `README.md`
//! beside this file says what another implementer finds in them.
//!
//! | file | what it makes |
//! |---|---|
//! | `tokens.rs` | `tokens.json`: golden tokens, block by block |
//! | `requests.rs` | `requests.json`: who asks what with which of them, and the answer |
//! | `revocations.rs` | `revocations.json`: what revoking each block and each holder kills |
//! | `possession.rs` | `possession.json`: proofs that a session holds a key |
//! | `share.rs` | `share.json`: contracts, and the signatures of both parties |
//! | `hostile.rs` | `hostile.json`: what must be refused |

mod hostile;
mod possession;
mod requests;
mod revocations;
mod share;
pub(crate) mod tokens;

use serde_json::{Value, json};

use crate::support::*;

/// Names the shape of every file here. It goes up when a key changes its meaning, not when cases are added.
pub(crate) const FORMAT: &str = "leasehold-vectors-v2";

/// Every file by its name.
pub(crate) fn documents() -> Vec<(&'static str, Value)> {
    vec![
        ("tokens.json", tokens::document()),
        ("requests.json", requests::document()),
        ("revocations.json", revocations::document()),
        ("possession.json", possession::document()),
        ("share.json", share::document()),
        ("hostile.json", hostile::document()),
    ]
}

/// A file's text: one line per value, a line end at the end.
#[allow(dead_code)] // the test parses instead
pub(crate) fn text(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("JSON");
    text.push('\n');
    text
}

/// A file: what it is, the members that are its own, and its cases.
fn file(about: &str, own: Value, cases: Vec<Value>) -> Value {
    let mut file = json!({
        "format": FORMAT,
        "about": about,
        "warning": "every seed here is published: whoever uses one has no secret",
        "cases": cases,
    });
    let Value::Object(own) = own else { panic!("an object") };
    file.as_object_mut().expect("an object").extend(own);
    file
}

/// The people of the vectors, whose seeds are published with them. Person 0 is the lease's owner.
fn people(count: u8) -> Value {
    (0..count)
        .map(|number| json!({ "seed": hex(&seed(number)), "public": public(number).to_string() }))
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// `signature` with the order of the group added to its scalar: the same point, another spelling.
fn unreduced(signature: &[u8; 64]) -> [u8; 64] {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let (mut sum, mut carry) = (*signature, 0);
    for (byte, order) in sum[32..].iter_mut().zip(ORDER) {
        let digit = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (digit as u8, digit >> 8);
    }
    sum
}
