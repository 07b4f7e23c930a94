//! The command line against a node that is up: what a user does in a second terminal, and what a script may rely on.

#[path = "common/mod.rs"]
mod common;
#[path = "cli/holder.rs"]
mod holder;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::shell::Shell;
use common::{Node, log, pattern, until};
use rustix::process::Signal;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// `get`, with a place for its bytes, which may not go to standard output beside JSON.
fn get<'a>(what: &'a str, who: &'a str) -> [&'a str; 6] {
    ["get", what, "--as", who, "-o", "got"]
}

fn id(value: &serde_json::Value) -> String {
    let id = value.as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    id.to_owned()
}

#[test]
fn the_story_of_the_readme_by_commands_and_pipes() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    for name in ["alice", "bob"] {
        let made = shell.json(&["id", "new", name]);
        let file = fs::metadata(made["identity"]["file"].as_str().unwrap()).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        assert_eq!(made["registered"], true);
    }
    let create = ["lease", "create", "--as", "alice", "--size", "4MiB", "--ttl", "10m", "--name", "frames"];
    let made = shell.json(&create);
    let lease = id(&made["lease"]["id"]);
    for key in
        ["id", "region", "owner", "holder", "rights", "range", "expires_in_ms", "state", "epoch", "provider"]
    {
        assert!(!made["lease"][key].is_null(), "{key}");
    }
    let token_file = made["token_file"].as_str().unwrap();
    assert_eq!(fs::metadata(token_file).unwrap().permissions().mode() & 0o7777, 0o600);

    // Through pipes, whole and in part.
    let bytes = pattern(7, 3 << 20);
    let put = shell.pipe(&["put", "frames", "--as", "alice"], &bytes);
    assert!(put.status.success(), "{put:?}");
    let got = shell.bytes(&["get", "frames", "--as", "alice", "--len", &bytes.len().to_string()]);
    assert!(got == bytes, "the bytes came back changed");
    let put = shell.pipe(&["put", &lease, "--as", "alice", "--offset", "4097"], b"in the middle");
    assert!(put.status.success(), "{put:?}");
    let got = shell.bytes(&["get", "frames", "--as", "alice", "--offset", "4090", "--len", "27"]);
    assert_eq!(got, [&bytes[4090..4097], &b"in the middle"[..], &bytes[4110..4117]].concat());
    assert_eq!(shell.bytes(&["get", "frames", "--as", "alice"]).len(), 4 << 20, "all of it, without --len");

    // A page for bob, which he reads and nothing else.
    let offer = [
        "share",
        "offer",
        "frames",
        "--as",
        "alice",
        "--to",
        "bob",
        "--rights",
        "r",
        "--range",
        "4096..8192",
    ];
    let grant = id(&shell.json(&offer)["share"]["id"]);
    let listed = shell.json(&["share", "list", "--as", "bob"]);
    assert_eq!(listed["shares"][0]["id"], grant[..]);
    shell.fails(&get(&grant, "bob"), 1, "E_LEASE_UNKNOWN"); // not accepted: he has no token
    let accepted = shell.json(&["share", "accept", &grant, "--as", "bob"]);
    assert_eq!(accepted["accepted"], true);
    assert_eq!(
        shell.bytes(&["get", &grant, "--as", "bob", "--offset", "4097", "--len", "13"]),
        b"in the middle"
    );
    assert_eq!(shell.bytes(&["get", &grant, "--as", "bob"]).len(), 4096, "what the right reaches");
    shell.fails(&[&get(&grant, "bob")[..], &["--offset", "0", "--len", "1"]].concat(), 1, "E_RANGE");
    shell.fails(&["put", &grant, "--as", "bob"], 3, "E_DENIED");

    // Narrowed offline, judged by the node.
    let narrow = [
        "token",
        "attenuate",
        "frames",
        "--as",
        "alice",
        "--rights",
        "r",
        "--range",
        "0..4096",
        "-o",
        "t.token",
    ];
    shell.json(&narrow);
    shell.json(&["token", "verify", "./t.token"]);
    let root = ["token", "verify", "./t.token", "--root", "admin.key"];
    let admin = node.key("admin").public();
    fs::write(
        node.path().join("admin.key"),
        format!(
            "{admin}
"
        ),
    )
    .unwrap();
    shell.fails(&root, 1, "E_TOKEN_UNKNOWN_KEY");
    assert_eq!(shell.bytes(&["get", "./t.token", "--as", "alice"]), bytes[..4096]);
    shell.fails(&["put", "./t.token", "--as", "alice"], 3, "E_DENIED");
    shell.fails(&get("./t.token", "bob"), 3, "E_TOKEN_BOUND");

    // Revoked: a receipt, and no byte more.
    let receipt = shell.json(&["revoke", "grant", &grant, "--as", "alice", "--reason", "that is enough"]);
    for key in [
        "id",
        "target",
        "leases",
        "mappings_closed",
        "method",
        "fence_us",
        "dead_us",
        "wiped_bytes",
        "log_index",
        "issuer",
        "signature",
    ] {
        assert!(!receipt["receipt"][key].is_null(), "{key}");
    }
    shell.fails(&get(&grant, "bob"), 3, "E_TOKEN_REVOKED");
    shell.json(&["lease", "renew", "frames", "--as", "alice", "--ttl", "20m"]);
    let shown = shell.json(&["lease", "show", "frames", "--as", "alice"]);
    assert!(shown["lease"]["expires_in_ms"].as_u64().unwrap() > 600_000, "{shown}");
    let placement = &shown["lease"]["placement"];
    assert_eq!(
        (placement["node"].as_str(), placement["others"].as_u64()),
        (Some("local"), Some(0)),
        "{shown}"
    );
    // Figures of providers are those of others' leases: who leases is shown none.
    assert_eq!(placement["considered"], serde_json::json!([]), "{shown}");
    let id = shown["lease"]["id"].as_str().unwrap();
    let why = &shell.json(&["lease", "show", id, "--as", "admin"])["lease"]["placement"];
    assert_eq!(why["considered"][0]["verdict"], "chosen", "{why}");
    shell.json(&["lease", "release", "frames", "--as", "alice"]);
    shell.fails(&get(&lease, "alice"), 3, "E_TOKEN_REVOKED");
    let status = shell.json(&["status"]);
    assert_eq!((&status["status"]["leases"], &status["status"]["committed_bytes"]), (&0.into(), &0.into()));
    let providers = status["status"]["providers"].as_array().unwrap();
    let [own] = &providers[..] else { panic!("{status}") };
    assert_eq!((own["name"].as_str(), own["state"].as_str()), (Some("local"), Some("up")), "{status}");
    assert_eq!(own["id"], shown["lease"]["provider"]);
    assert_eq!((&own["bytes"], &own["committed_bytes"]), (&status["status"]["pool_bytes"], &0.into()));

    // The log, meanwhile and afterwards, from its files and the public keys alone.
    let (audit, vkeys) = (node.audit(), node.audit().join("vkeys"));
    let verify = ["audit", "verify", audit.to_str().unwrap(), "--vkey", vkeys.to_str().unwrap()];
    assert_eq!(shell.json(&verify)["ok"], true);
    let tail = String::from_utf8(shell.bytes(&["audit", "tail", "--lines", "1000"])).unwrap();
    assert!(tail.contains("share.accept") && tail.contains("lease.revoke") || tail.contains("share.end"));
    node.stop(); // with a last checkpoint, which covers everything
    assert_eq!(shell.json(&verify)["ok"], true);
    let index = receipt["receipt"]["log_index"].to_string();
    let proof = String::from_utf8(shell.bytes(&["audit", "prove", &index])).unwrap();
    assert!(proof.contains("c2sp.org/tlog-proof@v1"), "{proof}");
    // The receipt, with nothing but files: as it is, and with one number of it, or the log, changed.
    let (file, issuer) = (node.path().join("receipt.json"), node.audit().join("issuer"));
    let text = serde_json::to_string(&receipt).unwrap();
    std::fs::write(&file, &text).unwrap();
    let (file, issuer) = (file.to_str().unwrap(), issuer.to_str().unwrap());
    let alone = ["audit", "receipt", file, "--issuer", issuer];
    let logged =
        [&alone[..], &["--log", audit.to_str().unwrap(), "--vkey", vkeys.to_str().unwrap()]].concat();
    assert_eq!(shell.json(&alone)["in_log"], false);
    assert_eq!(shell.json(&logged)["covered"], true);
    let dead = format!("\"dead_us\":{}", receipt["receipt"]["dead_us"]);
    std::fs::write(file, text.replace(&dead, "\"dead_us\":1")).unwrap();
    shell.fails(&alone, 5, "E_CONTRACT_SIG");
    std::fs::write(file, &text).unwrap();
    let other = node.key("bob").public().to_string();
    shell.fails(&["audit", "receipt", file, "--issuer", &other], 5, "E_CONTRACT_SIG");
    // Another entry than the one that was signed.
    let mut lying = receipt.clone();
    lying["receipt"]["log_index"] = 0.into();
    std::fs::write(file, lying.to_string()).unwrap();
    shell.fails(&logged, 5, "E_CONTRACT_SIG");
    std::fs::write(file, "{}").unwrap();
    assert_ne!(shell.pipe(&alone, b"").status.code(), Some(0));
    let young = shell.pipe(&["audit", "prove", "1000000"], b"");
    let said = String::from_utf8(young.stderr).unwrap();
    assert!(said.contains("E_RANGE") && said.contains("entry 1000000 is not among the"), "{said}");
    assert!(said.contains("wait for the next checkpoint"), "{said}");
    log::verify(&node.audit());
}

#[test]
fn exit_codes_and_errors_are_what_scripts_rely_on() {
    let mut node = Node::start("[quota.bob]\nleased_bytes = \"1MiB\"\n");
    let shell = Shell::new(node.path());
    shell.json(&["id", "new", "alice"]);
    shell.json(&["id", "new", "bob"]);
    let create = |who, size| ["lease", "create", "--as", who, "--size", size, "--ttl", "1m"];
    // 1: failed.
    shell.fails(&["lease", "list", "--as", "nobody"], 1, "E_CONFIG_IO");
    shell.fails(
        &["lease", "show", "0123456789abcdef0123456789abcdef", "--as", "alice"],
        1,
        "E_LEASE_UNKNOWN",
    );
    shell.fails(&["id", "new", "alice"], 1, "E_EXISTS");
    shell.fails(&create("alice", "300MiB"), 1, "E_RANGE");
    // 2: wrong usage.
    for usage in [
        &["frobnicate"][..],
        &["lease", "create", "--as", "alice"],
        &create("alice", "1 potato"),
        &create("alice", "18446744073709551616"),
        &create("alice", "-1"),
        &["revoke", "everything", "x"],
        &["lease", "create", "--as", "../alice", "--size", "1MiB", "--ttl", "1m"],
    ] {
        shell.fails(usage, 2, "E_USAGE");
    }
    // 3: refused.
    shell.fails(&create("bob", "2MiB"), 3, "E_QUOTA");
    let lease = id(&shell.json(&create("alice", "64KiB"))["lease"]["id"]);
    shell.fails(&["lease", "release", &lease, "--as", "bob"], 1, "E_LEASE_UNKNOWN");
    shell.json(&["revoke", "holder", "alice", "--as", "admin"]);
    // Half of a put, beyond the end.
    let small = id(&shell.json(&create("alice", "4KiB"))["lease"]["id"]);
    let over = shell.pipe(&["put", &small, "--as", "alice"], &[1; 4097]);
    assert_eq!(over.status.code(), Some(1), "{over:?}");
    assert!(String::from_utf8_lossy(&over.stderr).contains("error[E_RANGE]"), "{over:?}");
    // 4: nobody there.
    node.stop();
    shell.fails(&["status"], 4, "E_UNREACHABLE");
    shell.fails(&create("alice", "64KiB"), 4, "E_UNREACHABLE");

    // 5: somebody changed the log. Every byte of it counts; here one in the middle of a bundle.
    let (audit, vkeys) = (node.audit(), node.audit().join("vkeys"));
    let verify = ["audit", "verify", audit.to_str().unwrap(), "--vkey", vkeys.to_str().unwrap()];
    shell.bytes(&verify);
    let entries = audit.join("broker/tile/entries");
    let bundle = fs::read_dir(&entries).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            fs::read_dir(path).unwrap().next().map(|entry| entry.unwrap().path())
        } else {
            Some(path)
        }
    });
    let bundle = bundle.unwrap();
    let whole = fs::read(&bundle).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&bundle, &changed).unwrap();
    let output = shell.pipe(&verify, b"");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let output = shell.pipe(&[&verify[..], &["--json"]].concat(), b"");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    fs::write(&bundle, &whole).unwrap();
    shell.bytes(&verify);
    // A key that is not this log's finds tampering, not agreement.
    let other = Node::start("");
    fs::copy(other.audit().join("vkeys"), node.path().join("other")).unwrap();
    let output = shell.pipe(&["audit", "verify", audit.to_str().unwrap(), "--vkey", "other"], b"");
    assert_eq!(output.status.code(), Some(5), "{output:?}");
}

#[test]
fn no_secret_is_printed_and_none_is_taken_from_the_command_line() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    shell.json(&["id", "new", "alice"]);
    let create = ["lease", "create", "--as", "alice", "--size", "64KiB", "--ttl", "1m", "--name", "x"];
    let made = shell.bytes(&create);
    let seed = fs::read_to_string(node.path().join("ids/alice.key")).unwrap();
    let seed = seed.trim_end().rsplit(':').next().unwrap();
    let mut tokens =
        fs::read_dir(node.path().join("tokens/alice")).unwrap().map(|entry| entry.unwrap().path());
    let token = tokens.find(|path| path.extension().is_some_and(|end| end == "token")).unwrap();
    let token = fs::read_to_string(token).unwrap();
    let secret = &token.trim_end()[token.trim_end().len() - 40..];
    let mut said = vec![made];
    for args in [
        &["id", "list"][..],
        &["id", "show", "alice"],
        &["lease", "list", "--as", "alice"],
        &["lease", "show", "x", "--as", "alice"],
        &["token", "inspect", "x", "--as", "alice"],
        &["token", "verify", "x", "--as", "alice"],
        &["audit", "tail", "--lines", "1000"],
        &["status", "--as", "alice"],
        &["doctor"],
    ] {
        said.push(shell.bytes(args));
        said.push(shell.bytes(&[args, &["--json"]].concat()));
    }
    let refused = shell.pipe(&["get", token.trim_end(), "--as", "alice"], b"");
    assert!(!refused.status.success(), "a token is no argument");
    said.push([refused.stdout, refused.stderr].concat());
    said.push(fs::read(node.path().join("stderr")).unwrap());
    for said in said {
        let said = String::from_utf8(said).unwrap();
        assert!(!said.contains(seed) && !said.contains(secret), "a secret is in:\n{said}");
    }
    node.stop();
}

#[test]
fn an_interrupted_node_ends_as_well_as_a_terminated_one() {
    let mut node = Node::start("");
    let shell = Shell::new(node.path());
    shell.json(&["id", "new", "alice"]);
    shell.json(&["lease", "create", "--as", "alice", "--size", "1MiB", "--ttl", "10m"]);
    node.signal(Signal::INT);
    assert!(node.wait().success());
    shell.fails(&["lease", "list", "--as", "alice"], 4, "E_UNREACHABLE");
    let log = log::verify(&node.audit());
    assert_eq!(log::of(&log.provider, "lease.revoke").len(), 1, "what was leased was taken back");
    // And the next one finds a clean place, whoever asks first.
    node.restart();
    until("alice is known again", || {
        let listed = shell.json(&["id", "list"]);
        listed["principals"].as_array().unwrap().iter().any(|row| row["name"] == "alice").then_some(())
    });
    node.stop();
}
