//! A second opinion on checkpoint and leaf hash, from a tool that we did not write.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use audit::Log;
use audit::hash::Hash;
use common::{grow, key, origin};

/// Runs openssl, or says why not.
fn openssl(dir: &Path, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("openssl").args(arguments).current_dir(dir).stdin(Stdio::null()).output();
    let output = output.map_err(|error| println!("skipped: openssl cannot be run: {error}")).ok()?;
    Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn openssl_verifies_a_checkpoint_and_a_leaf() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("log");
    let mut log = Log::open(&dir, origin(), key()).unwrap();
    grow(&mut log, 1).unwrap();
    log.publish().unwrap();

    // By hand, as the format's recipe does it: nothing of the crate's own parsers.
    let note = std::fs::read_to_string(dir.join("checkpoint")).unwrap();
    let (body, signatures) = note.split_once("\n\n").unwrap();
    let signature = signatures.trim_end().rsplit_once(' ').unwrap().1;
    let signature = data_encoding::BASE64.decode(signature.as_bytes()).unwrap();
    let vkey = key().vkey(&origin()).to_string();
    let public = data_encoding::BASE64.decode(vkey.splitn(3, '+').nth(2).unwrap().as_bytes()).unwrap();
    let der = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &public[1..]].concat();
    let out = parent.path();
    std::fs::write(out.join("body"), format!("{body}\n")).unwrap();
    std::fs::write(out.join("sig"), &signature[4..]).unwrap();
    std::fs::write(out.join("pub.der"), der).unwrap();
    let verify =
        ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "pub.der", "-rawin", "-in", "body"];
    let Some((valid, said)) = openssl(out, &[&verify[..], &["-sigfile", "sig"]].concat()) else { return };
    assert!(valid, "{said}");
    std::fs::write(out.join("body"), format!("{body}x\n")).unwrap();
    let (valid, _) = openssl(out, &[&verify[..], &["-sigfile", "sig"]].concat()).unwrap();
    assert!(!valid, "openssl accepts anything, so its yes means nothing");

    let bundle = std::fs::read(dir.join("tile/entries/000.p/1")).unwrap();
    std::fs::write(out.join("leaf"), [&[0], &bundle[2..]].concat()).unwrap();
    let (_, digest) = openssl(out, &["dgst", "-sha256", "-r", "leaf"]).unwrap();
    assert!(digest.starts_with(&Hash::leaf(&bundle[2..]).to_string()), "{digest}");
    let tile = std::fs::read(dir.join("tile/0/000.p/1")).unwrap();
    assert!(digest.starts_with(&data_encoding::HEXLOWER.encode(&tile)), "{digest}");
}
