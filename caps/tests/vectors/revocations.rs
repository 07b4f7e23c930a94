//! What revoking each block and each holder kills: a token is dead if it has a mark that was revoked.

use std::collections::BTreeMap;

use caps::token::{Mark, VerifiedToken, gate};
use serde_json::{Value, json};

use super::file;
use super::tokens::{golden, trusted};
use crate::support::*;

pub(super) fn document() -> Value {
    let about = "what is dead once a block or a holder was revoked, of the tokens of tokens.json";
    file(about, json!({}), cases())
}

fn cases() -> Vec<Value> {
    let mut tokens: BTreeMap<String, VerifiedToken> = BTreeMap::new();
    for golden in golden() {
        let verified = gate(golden.token.as_bytes()).and_then(|gated| gated.verify(&trusted()));
        tokens.insert(golden.name, verified.expect("it verifies"));
    }
    let killed = |marks: &[Mark]| {
        let dead = |token: &&VerifiedToken| token.marks().iter().any(|mark| marks.contains(mark));
        let dead = tokens.iter().filter(|(_, token)| dead(token)).map(|(name, _)| name.clone());
        dead.collect::<Vec<_>>()
    };
    // By id, so that a block which many tokens descend from is revoked once.
    let mut blocks = BTreeMap::new();
    for (name, token) in &tokens {
        for block in 0..token.blocks() {
            let cut = token.cut(block).expect("it has this block");
            let marks: Vec<_> = cut.marks.iter().flatten().copied().collect();
            let alone = Mark::signature(&cut.id);
            blocks.entry((cut.id.to_string(), marks[0])).or_insert_with(|| {
                json!({
                    "revoke": "block",
                    "token": name,
                    "block": block,
                    "id": cut.id.to_string(),
                    "marks": marks.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "kills": killed(&marks),
                    "kills_by_id_alone": killed(&[alone]),
                })
            });
        }
    }
    let holders = (0..8).map(|number| {
        let mark = Mark::delegate(public(number));
        json!({
            "revoke": "holder",
            "holder": public(number).to_string(),
            "marks": [mark.to_string()],
            "kills": killed(&[mark]),
        })
    });
    blocks.into_values().chain(holders).collect()
}
