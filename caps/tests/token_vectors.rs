//! The published vectors: their bytes never change by accident, and each gets the verdict that is written beside it.
//! `vectors_by_hand.rs` asks the same of a second verifier.

#[path = "vectors/generate.rs"]
mod generate;
mod support;

use caps::id::{ClusterEpoch, LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::Signature;
use caps::pop::{Nonce, Transcript};
use caps::share::{ShareFile, Signed};
use caps::time::UnixMicros;
use caps::token::{RootKeys, RootPublic, VerifiedToken};
use generate::tokens::trusted;
use serde_json::{Value, json};
use support::*;

const FILES: [(&str, &str); 6] = [
    ("tokens.json", include_str!("vectors/tokens.json")),
    ("requests.json", include_str!("vectors/requests.json")),
    ("revocations.json", include_str!("vectors/revocations.json")),
    ("possession.json", include_str!("vectors/possession.json")),
    ("share.json", include_str!("vectors/share.json")),
    ("hostile.json", include_str!("vectors/hostile.json")),
];

fn file(name: &str) -> Value {
    let (_, text) = FILES.iter().find(|(known, _)| *known == name).unwrap();
    serde_json::from_str(text).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    file(name)["cases"].as_array().unwrap().clone()
}

fn unhex(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

#[test]
fn the_files_are_what_we_make_today() {
    let made = generate::documents();
    assert_eq!(made.iter().map(|(name, _)| *name).collect::<Vec<_>>(), FILES.map(|(name, _)| name));
    for (name, document) in made {
        assert!(
            file(name) == document,
            "{name} has changed: if that is meant, `cargo run -p caps --example vectors` and say so in the release notes"
        );
    }
}

#[test]
fn each_case_has_a_name_of_its_own() {
    for (name, _) in FILES {
        let mut names = std::collections::BTreeSet::new();
        for case in cases(name).iter().filter(|case| case.get("name").is_some()) {
            assert!(names.insert(case["name"].to_string()), "{name}: {}", case["name"]);
        }
    }
}

fn verified(token: &Value, keys: &RootKeys) -> caps::Result<VerifiedToken> {
    caps::token::gate(&unhex(token))?.verify(keys)
}

#[test]
fn golden_tokens_verify() {
    let cases = cases("tokens.json");
    assert!(cases.len() >= 28);
    for case in cases {
        let (name, token) = (&case["name"], verified(&case["token"], &trusted()).unwrap());
        assert_eq!(
            case["holders"].as_array().unwrap().last().unwrap(),
            &token.chain().holder.to_string(),
            "{name}"
        );
        let left = token.effective();
        let after = &case["blocks"].as_array().unwrap().last().unwrap()["after"];
        assert_eq!(after["rights"], left.rights.to_string(), "{name}");
        assert_eq!(after["range"], json!(left.range), "{name}");
        assert_eq!(after["expires"], left.expires.0, "{name}");
    }
}

#[test]
fn hostile_tokens_are_refused_with_their_codes() {
    let file = file("hostile.json");
    let root = RootPublic::parse(file["roots"][0]["public"].as_str().unwrap()).unwrap();
    let keys = RootKeys::of(root).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 100);
    for case in cases {
        let error = verified(&case["token"], &keys).unwrap_err();
        assert_eq!(case["verdict"], error.code().text(), "{}: {error}", case["name"]);
    }
}

#[test]
fn requests_get_their_answers_from_both_deciders() {
    let tokens = cases("tokens.json");
    for case in cases("requests.json") {
        let (name, text) = (&case["name"], |key: &str| case[key].as_str().unwrap());
        let token = tokens.iter().find(|token| token["name"] == case["token"]).unwrap();
        let key = PrincipalKey::parse(text("proven")).unwrap();
        let number = (0..8).find(|number| public(*number) == key).unwrap();
        let [start, end]: [u64; 2] = serde_json::from_value(case["range"].clone()).unwrap();
        let request = caps::token::Request {
            operation: serde_json::from_value(case["operation"].clone()).unwrap(),
            range: range(start, end),
            now: UnixMicros(case["now"].as_u64().unwrap()),
            proven: proven(number),
            lease: LeaseId::parse(text("lease")).unwrap(),
            region: RegionId::parse(text("region")).unwrap(),
            cluster: ClusterEpoch::parse(text("cluster")).unwrap(),
            provider: ProviderId::parse(text("provider")).unwrap(),
            usage: serde_json::from_value(case["usage"].clone()).unwrap(),
        };
        let verified = verified(&token["token"], &trusted()).unwrap();
        let verdict = verified.authorize(&request).map_or_else(|error| error.code().text(), |_| "allow");
        assert_eq!(text("verdict"), verdict, "{name}");
        assert_eq!(case["limit"], json!(verified.refusal(&request)), "{name}");
        let datalog = verified.authorize_by_datalog(&unhex(&token["token"]), &trusted(), &request);
        assert_eq!(datalog.is_ok(), verdict == "allow", "{name}: Datalog {datalog:?}");
    }
}

#[test]
fn proofs_of_possession_get_their_verdicts() {
    for case in cases("possession.json") {
        let transcript = Transcript {
            node: ProviderId(array(&case["node"])),
            server: Nonce(array(&case["server_nonce"])),
            client: Nonce(array(&case["client_nonce"])),
            holder: PrincipalKey(array(&case["holder"])),
        };
        let proven = transcript.verify(&Signature(array(&case["signature"])));
        let verdict = proven.map_or_else(|error| error.code().text(), |_| "ok");
        assert_eq!(case["verdict"], verdict, "{}", case["name"]);
    }
}

#[test]
fn contracts_get_their_verdicts() {
    for case in cases("share.json") {
        let file = json!({
            "contract": case["contract"],
            "by_owner": case["by_owner"],
            "by_receiver": case["by_receiver"],
            "by_cosigner": case["by_cosigner"],
        });
        let file: ShareFile = serde_json::from_value(file).unwrap();
        let pair = Signed::try_from(&file).unwrap().pair().unwrap();
        assert_eq!(case["digest"], pair.contract.digest().to_string(), "{}", case["name"]);
        let verdict = pair.verify().map_or_else(|error| error.code().text(), |_| "ok");
        assert_eq!(case["verdict"], verdict, "{}", case["name"]);
    }
}
