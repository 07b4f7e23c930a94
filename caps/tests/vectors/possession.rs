//! Proofs that a session holds a key.

use caps::error::Code;
use caps::id::{PrincipalKey, ProviderId};
use caps::key::{Purpose, Signature, SigningKey};
use caps::pop::{Nonce, Transcript};
use serde_json::{Value, json};

use super::{file, hex, people, unreduced};
use crate::support::*;

pub(super) fn document() -> Value {
    let about = "what a client signs to prove to a node that it holds a key, and what the node says to it";
    file(about, json!({ "holders": people(2) }), cases())
}

/// A point of small order: with it a signature verifies that nobody made.
const WEAK: PrincipalKey = PrincipalKey([0; 32]);

fn case(name: &str, transcript: &Transcript, signature: &Signature, verdict: Option<Code>) -> Value {
    let Transcript { node, server, client, holder } = transcript;
    json!({
        "name": name,
        "node": node.to_string(),
        "server_nonce": hex(&server.0),
        "client_nonce": hex(&client.0),
        "holder": holder.to_string(),
        // Put together here and not by the library, so that the two are compared by the signature.
        "message": hex(&[&b"leasehold-pop-v1\0"[..], &node.0, &server.0, &client.0, &holder.0].concat()),
        "signature": hex(&signature.0),
        "verdict": verdict.map_or("ok", Code::text),
    })
}

fn cases() -> Vec<Value> {
    let (key, other): (SigningKey, SigningKey) = (person(0), person(1));
    let count = |from: u8| Nonce(std::array::from_fn(|index| from + index as u8));
    let transcript = Transcript {
        node: ProviderId([6; 16]),
        server: count(0x20),
        client: count(0x80),
        holder: key.public(),
    };
    let zeros = Transcript {
        node: ProviderId([0; 16]),
        server: Nonce([0; 32]),
        client: Nonce([0; 32]),
        holder: other.public(),
    };
    let proof = transcript.sign(&key);
    let swapped = Transcript { server: transcript.client, client: transcript.server, ..transcript };
    let mut flipped = proof;
    flipped.0[0] ^= 1;
    // R and S of the neutral element: 0 = 0 for a weak key, whatever the message.
    let mut neutral = [0; 64];
    neutral[0] = 1;
    let bytes =
        [&transcript.node.0[..], &transcript.server.0, &transcript.client.0, &transcript.holder.0].concat();
    let refused = Some(Code::Possession);
    vec![
        case("a proof", &transcript, &proof, None),
        case("another key, and nonces of zeros", &zeros, &zeros.sign(&other), None),
        case("to another node", &Transcript { node: ProviderId([7; 16]), ..transcript }, &proof, refused),
        case(
            "to another nonce of the node",
            &Transcript { server: Nonce([0; 32]), ..transcript },
            &proof,
            refused,
        ),
        case(
            "with another nonce of the client",
            &Transcript { client: Nonce([0; 32]), ..transcript },
            &proof,
            refused,
        ),
        case("the two nonces swapped", &swapped, &proof, refused),
        case("in another's name", &Transcript { holder: other.public(), ..transcript }, &proof, refused),
        case("signed by another", &transcript, &transcript.sign(&other), refused),
        case("one bit of it flipped", &transcript, &flipped, refused),
        case("its scalar not reduced", &transcript, &Signature(unreduced(&proof.0)), refused),
        case("signed for another purpose", &transcript, &key.sign(Purpose::Share, &bytes), refused),
        case(
            "of a key of small order",
            &Transcript { holder: WEAK, ..transcript },
            &Signature(neutral),
            refused,
        ),
    ]
}
