//! The golden tokens: their bytes never change by accident, and each gets the verdict that is written beside it.

#[path = "vectors/generate.rs"]
mod generate;
mod support;

use serde_json::Value;
use support::*;

const FILE: &str = include_str!("vectors/tokens.json");

fn file() -> Value {
    serde_json::from_str(FILE).unwrap()
}

#[test]
fn the_file_is_what_we_make_today() {
    assert!(
        file() == generate::document(),
        "tokens have changed: if that is meant, `cargo run -p caps --example vectors` and say so in the release notes"
    );
}

#[test]
fn each_gets_its_verdict() {
    let file = file();
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let name = &case["name"];
        let bytes = data_encoding::HEXLOWER.decode(case["token"].as_str().unwrap().as_bytes()).unwrap();
        match verify(&bytes) {
            Err(error) => assert_eq!(case["verdict"], error.code().text(), "{name}: {error}"),
            Ok(verified) => {
                let left = verified.effective();
                assert_eq!(case["verdict"], "ok", "{name}");
                assert_eq!(case["holder"], verified.chain().holder.to_string(), "{name}");
                assert_eq!(case["rights"], left.rights.to_string(), "{name}");
                assert_eq!(case["range"], serde_json::json!(left.range), "{name}");
                assert_eq!(case["expires"], left.expires.0, "{name}");
            }
        }
    }
}
