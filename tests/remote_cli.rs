//! The command line over the network: the same commands with `--broker`, against a node that serves TLS.

#[path = "remote_client/node.rs"]
mod node;

use std::process::Output;

use node::Node;

fn code(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let code = text.strip_prefix("error[").and_then(|rest| rest.split_once(']'));
    code.unwrap_or_else(|| panic!("no error: {output:?}")).0.to_owned()
}

#[track_caller]
fn done(output: Output) -> Vec<u8> {
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn create(node: &Node, size: &str) -> String {
    let create = ["lease", "create", "--as", "alice", "--size", size, "--ttl", "10m", "--name", "frames"];
    node.json(&create)["lease"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn bytes_go_there_and_back_in_any_part() {
    let node = Node::start(&["alice"]);
    let lease = create(&node, "32MiB");
    // More than one step, through a pipe that gives 64 KiB at a time.
    let bytes = pattern((17 << 20) + 123);
    done(node.remote(&["put", "frames", "--as", "alice"], &bytes));
    let length = bytes.len().to_string();
    let got = done(node.remote(&["get", "frames", "--as", "alice", "--len", &length], b""));
    assert!(got == bytes, "the bytes came back changed");
    // A node's own machine sees the same.
    assert!(done(node.local(&["get", &lease, "--as", "alice", "--len", &length], b"")) == bytes);

    done(node.remote(&["put", &lease, "--as", "alice", "--offset", "4097", "--crc"], b"in the middle"));
    let middle = ["get", &lease, "--as", "alice", "--offset", "4096", "--len", "15", "--crc"];
    let mut expected = bytes[4096..4111].to_vec();
    expected[1..14].copy_from_slice(b"in the middle");
    assert_eq!(done(node.remote(&middle, b"")), expected);

    let told = node.json(&["get", "frames", "--as", "alice", "--len", "64KiB", "-o", "got"]);
    assert_eq!((&told["get"]["path"], &told["get"]["bytes"]), (&"remote".into(), &65_536.into()));

    // The region's end is known before a byte moves.
    let over = ["get", "frames", "--as", "alice", "--offset", "32MiB", "--len", "1"];
    assert_eq!(code(&node.remote(&over, b"")), "E_RANGE");
    let receipt = node.json(&["lease", "release", "frames", "--as", "alice"]);
    assert_eq!(receipt["receipt"]["wiped_bytes"], 32 << 20);
    assert_eq!(code(&node.remote(&["get", &lease, "--as", "alice", "--len", "1"], b"")), "E_TOKEN_REVOKED");
}

#[test]
fn many_read_at_once_and_all_read_the_same() {
    let node = Node::start(&["alice"]);
    create(&node, "4MiB");
    let bytes = pattern(4 << 20);
    done(node.local(&["put", "frames", "--as", "alice"], &bytes));
    std::thread::scope(|scope| {
        for reader in 0..8_usize {
            let (node, bytes) = (&node, &bytes);
            scope.spawn(move || {
                let offset = reader * 300_007;
                let at = offset.to_string();
                let got = done(node.remote(&["get", "frames", "--as", "alice", "--offset", &at], b""));
                assert!(got == bytes[offset..], "reader {reader}");
            });
        }
    });
}

#[test]
fn a_share_is_offered_accepted_and_revoked_from_afar() {
    let node = Node::start(&["alice", "bob"]);
    create(&node, "64KiB");
    done(node.remote(&["put", "frames", "--as", "alice"], b"for bob"));
    let offer = ["share", "offer", "frames", "--as", "alice", "--to", "bob", "--rights", "r", "--ttl", "5m"];
    let grant = node.json(&offer)["share"]["id"].as_str().unwrap().to_owned();
    node.json(&["share", "accept", &grant, "--as", "bob"]);
    let get = ["get", &grant, "--as", "bob", "--len", "7"];
    assert_eq!(done(node.remote(&get, b"")), b"for bob");
    assert_eq!(code(&node.remote(&["put", &grant, "--as", "bob"], b"x")), "E_DENIED");
    node.json(&["revoke", "grant", &grant, "--as", "alice"]);
    assert_eq!(code(&node.remote(&get, b"")), "E_TOKEN_REVOKED");
    // What belongs to one machine says so.
    let run = node.remote(&["run", "--as", "alice", "--token", "frames", "--", "true"], b"");
    assert_eq!((run.status.code(), &code(&run)[..]), (Some(2), "E_USAGE"));
}

#[test]
fn certificates_and_keys_have_to_mean_the_same_and_the_node_the_one_that_was_meant() {
    let node = Node::start(&["alice", "bob"]);
    let list = ["lease", "list", "--as", "alice"];
    node.json(&list);
    node.json(&[&list[..], &["--node", "node-1"]].concat());
    let refused = |args: &[&str]| {
        let output = node.remote(args, b"");
        assert_eq!((output.status.code(), &code(&output)[..]), (Some(3), "E_PEER_IDENTITY"), "{output:?}");
    };
    refused(&[&list[..], &["--node", "node-2"]].concat());
    // A key that the node does not know.
    let nowhere = node.path().join("nowhere.sock");
    assert!(!nowhere.exists());
    done(node.local(&["pki", "issue", "mallory"], b""));
    let other = tempfile::tempdir().unwrap();
    let elsewhere = other.path().to_str().unwrap();
    done(node.local(&["--dir", elsewhere, "id", "new", "mallory"], b""));
    let tls = node.path().join("pki");
    let tls = tls.to_str().unwrap();
    refused(&["--dir", elsewhere, "--tls", tls, "lease", "list", "--as", "mallory"]);
    // Alice's certificate with a key of another's, under her name.
    done(node.local(&["--dir", elsewhere, "id", "new", "alice"], b""));
    refused(&["--dir", elsewhere, "--tls", tls, "lease", "list", "--as", "alice"]);
    // Certificates of an authority that the node never heard of, and that never heard of the node.
    done(node.local(&["--dir", elsewhere, "pki", "init", "--domain", "mem.example"], b""));
    done(node.local(&["--dir", elsewhere, "pki", "issue", "alice"], b""));
    refused(&["--dir", elsewhere, "lease", "list", "--as", "alice"]);
}
