//! What a token's holder does at a terminal: it gives a part on without asking anybody, and everybody whom the token
//! concerns sees what became of it.

use std::fs;

use super::common::shell::Shell;
use super::common::{Node, log};
use super::{get, id};

/// Alice's lease, bob's grant that he may give on once, carol's token from bob.
fn handed_on(shell: &Shell) -> String {
    for name in ["alice", "bob", "carol", "dave"] {
        shell.json(&["id", "new", name]);
    }
    let lease = ["lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "10m", "--segment", "16KiB"];
    shell.json(&[&lease[..], &["--name", "frames"]].concat());
    assert!(shell.pipe(&["put", "frames", "--as", "alice"], b"for carol").status.success());
    let offer = ["share", "offer", "frames", "--as", "alice", "--to", "bob", "--rights", "r", "--hops", "1"];
    let offered = shell.json(&offer);
    assert_eq!(offered["share"]["max_hops"], 1);
    let grant = id(&offered["share"]["id"]);
    shell.json(&["share", "accept", &grant, "--as", "bob"]);
    let delegate = ["token", "delegate", &grant, "--as", "bob", "--to", "carol", "--rights", "r"];
    let narrow = ["--range", "0..16KiB", "--ttl", "5m", "-o", "carol.token"];
    let made = shell.json(&[&delegate[..], &narrow].concat());
    let effective = &made["token"]["effective"];
    assert_eq!((&effective["hops_left"], &effective["range"]), (&0.into(), &serde_json::json!([0, 16384])));
    grant
}

#[test]
fn a_delegated_token_is_looked_into_by_those_whom_it_concerns_until_it_is_dead() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    let grant = handed_on(&shell);
    // Looking is not opening: the grant still waits for its first use afterwards.
    shell.json(&["token", "verify", &grant, "--as", "bob"]);
    shell.json(&["token", "verify", "./carol.token", "--as", "carol"]);
    let state = || shell.json(&["share", "list", "--as", "bob"])["shares"][0]["state"].clone();
    assert_eq!(state(), "accepted");
    let keys = ["bob", "carol", "dave", "admin"].map(|name| (name, node.key(name).public().to_string()));
    let keys = std::collections::HashMap::from(keys);
    let key = |name: &str| keys[name].clone();
    assert_eq!(shell.bytes(&["get", "./carol.token", "--as", "carol", "--len", "9"]), b"for carol");

    assert_eq!(state(), "open");

    // The holders, the owner and the administrator are told; a stranger is told that it is none of these.
    for who in ["carol", "bob", "alice", "admin"] {
        let seen = shell.json(&["token", "inspect", "./carol.token", "--as", who]);
        assert_eq!((&seen["node"]["asked"], &seen["node"]["opens"]), (&true.into(), &true.into()), "{who}");
        assert!(
            seen["node"]["expires_in_ms"].as_u64().unwrap() <= 300_000,
            "the token's end, not the lease's"
        );
        assert_eq!(seen["names"][key("carol")], "carol");
        let taken = &seen["token"]["blocks"][1]["took"];
        assert_eq!(taken["bytes"], serde_json::json!([[16384, 65536]]));
        assert!(
            taken["ends_earlier"].as_u64().unwrap() > 290_000_000 && taken["rights"].is_null(),
            "{taken}"
        );
    }
    let seen = shell.json(&["token", "inspect", "./carol.token", "--as", "dave"]);
    assert_eq!(seen["node"]["asked"], false);
    assert!(
        seen["node"]["opens"].is_null() && seen["node"]["reason"].as_str().unwrap().contains("--as NAME")
    );
    // Nobody is named: the one key here that has held it asks.
    let verify = ["token", "verify", "./carol.token"];
    assert_eq!(shell.json(&verify)["node"]["asked"], true);
    let offline = shell.json(&[&verify[..], &["--offline"]].concat());
    assert_eq!((&offline["verified"], &offline["node"]["asked"]), (&true.into(), &false.into()));

    // Revoked by who never heard of carol.
    let receipt = shell.json(&["revoke", "grant", &grant, "--as", "alice", "--reason", "done"]);
    assert!(receipt["receipt"]["log_index"].is_u64());
    shell.fails(&get("./carol.token", "carol"), 3, "E_TOKEN_REVOKED");
    for who in ["carol", "alice"] {
        let output = shell.pipe(&["token", "verify", "./carol.token", "--as", who, "--json"], b"");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["verified"], false);
        let reason = &said["reasons"][0];
        assert_eq!((&reason["code"], &reason["block"]), (&"E_TOKEN_REVOKED".into(), &0.into()), "{said}");
    }
    // Without the node nobody can know, and nobody says so.
    let offline = shell.bytes(&[&verify[..], &["--offline"]].concat());
    assert!(String::from_utf8(offline).unwrap().contains("whether it was revoked is not known"));
    node.stop();
    let after = shell.json(&verify);
    assert_eq!((&after["verified"], &after["node"]["asked"]), (&true.into(), &false.into()));

    // The provider's log: carol's opening and her refusal with the chain, the stranger's question, and no other opening.
    let log = log::verify(&node.audit());
    let about = |event: &str, who: &str| {
        let who = key(who);
        let of = log::of(&log.provider, event);
        of.into_iter().filter(|entry| entry["subject"] == who[..]).cloned().collect::<Vec<_>>()
    };
    let chain = serde_json::json!([key("bob"), key("carol")]);
    let opened = about("share.open", "carol");
    assert_eq!((opened.len(), &opened[0]["chain"]), (1, &chain));
    let refused = about("lease.deny", "carol");
    assert!(refused.iter().all(|entry| entry["code"] == "E_TOKEN_REVOKED" && entry["chain"] == chain));
    assert_eq!(refused.len(), 2, "get, for people and for programs; verify is no attempt to open");
    assert_eq!(about("lease.deny", "dave")[0]["code"], "E_TOKEN_BOUND");
    for who in ["bob", "admin"] {
        assert!(about("share.open", who).is_empty() && about("lease.deny", who).is_empty(), "{who}");
    }
}

#[test]
fn a_name_keeps_the_key_that_it_was_met_with() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    let grant = handed_on(&shell);
    let bob = node.key("bob").public().to_string();
    // From here on bob is somebody else, whose key the node tells.
    fs::rename(node.path().join("ids/bob.key"), node.path().join("bob.key")).unwrap();
    let delegate = |to: &str, file: &str| {
        ["token", "delegate", "frames", "--as", "alice", "--to", to, "-o", file].map(str::to_owned)
    };
    let arguments = delegate("bob", "x.token");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    shell.fails(&arguments, 1, "E_PRINCIPAL_UNKNOWN");
    let listed = shell.json(&["id", "list", "--as", "alice"]);
    assert_eq!(listed["contacts"].as_array().unwrap().len(), 1, "bob, and none of the node's own: {listed}");
    assert_eq!(
        (&listed["contacts"][0]["name"], &listed["contacts"][0]["key"]),
        (&"bob".into(), &bob[..].into())
    );
    assert_eq!(shell.json(&["id", "show", "bob"])["contact"]["key"], bob[..]);
    shell.fails(&arguments, 3, "E_DENIED"); // he is known, and her own token has no hops

    // The key is another one than the node says: nothing is signed, whoever of the two is right.
    let dave = node.key("dave").public().to_string();
    shell.json(&["id", "forget", "bob"]);
    shell.json(&["id", "trust", "bob", &dave]);
    let offer = ["share", "offer", "frames", "--as", "alice", "--to", "bob", "--rights", "r"];
    shell.fails(&offer, 3, "E_KEY_CHANGED");
    let offered = |state: &str| {
        let output = shell.pipe(&["share", "list", "--as", "alice", "--all", "--json"], b"");
        assert_eq!(output.status.code(), Some(3), "a list says it, too: {output:?}");
        let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        listed["shares"].as_array().unwrap().iter().filter(|share| share["state"] == state).count()
    };
    assert_eq!(offered("issued"), 0);
    let output = shell.pipe(&["id", "list", "--as", "alice"], b"");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&bob) && said.contains(&dave) && said.contains("id forget bob"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("NO: another key"));
    // As help says: then it goes on.
    shell.json(&["id", "forget", "bob"]);
    shell.json(&["id", "trust", "bob", &bob]);
    shell.json(&offer);
    assert_eq!(shell.json(&["token", "inspect", "./carol.token", "--as", "alice"])["names"][&bob], "bob");
    assert!(!grant.is_empty());
    node.stop();
}
