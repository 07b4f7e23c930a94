//! Where leases go.

use std::collections::BTreeMap;

use crate::common::{netns, pattern};
use crate::stage::Stage;

#[test]
fn leases_go_to_both_providers_and_their_bytes_to_the_one_that_has_them() {
    if !netns::possible() {
        return;
    }
    let stage = Stage::set();
    let mut by_node: BTreeMap<String, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    for number in 0..6_u64 {
        let name = format!("l{number}");
        let made = stage.lease(&name, "8MiB", "10m");
        let lease = made["lease"]["id"].as_str().unwrap().to_owned();
        let bytes = pattern(number, (1 << 20) + 17);
        stage.bytes(&["put", &name, "--as", "alice"], &bytes);
        by_node.entry(stage.node_of(&lease)).or_default().push((lease, bytes));
    }
    assert_eq!(by_node.keys().collect::<Vec<_>>(), ["node-a", "node-b"]);
    for (node, leases) in &by_node {
        let row = stage.providers().into_iter().find(|row| row["name"] == node[..]).unwrap();
        assert_eq!(row["committed_bytes"], leases.len() as u64 * (8 << 20), "{row}");
        for (lease, bytes) in leases {
            let got = stage.bytes(&["get", lease, "--as", "alice", "--len", &bytes.len().to_string()], b"");
            assert!(got == *bytes, "the bytes of {lease} came back changed");
        }
    }
    // Each provider has recorded its own, and nobody else's.
    for part in [&stage.a, &stage.b] {
        let log = part.log();
        for (node, leases) in &by_node {
            for (lease, _) in leases {
                let named = log.iter().any(|entry| entry["lease"] == lease[..]);
                assert_eq!(named, part.name == node, "{lease} of {node} at {}", part.name);
            }
        }
    }
    for (lease, _) in by_node.values().flatten() {
        let receipt = stage.json(&["lease", "release", lease, "--as", "alice"]);
        assert_eq!(receipt["receipt"]["wiped_bytes"], 8 << 20, "{receipt}");
    }
    stage.balances();
    stage.finish();
}

#[test]
fn a_provider_that_is_drained_takes_nothing_new_and_keeps_what_it_has() {
    if !netns::possible() {
        return;
    }
    let mut stage = Stage::set();
    let [mut a, mut b] = crate::held::Held::on_both(&mut stage);
    stage.administrate(&["node", "drain", "node-a"]);
    for number in 0..4 {
        let made = stage.lease(&format!("drained-{number}"), "1MiB", "10m");
        assert_eq!(stage.node_of(made["lease"]["id"].as_str().unwrap()), "node-b");
    }
    a.is_whole(&stage);
    b.is_whole(&stage);
    stage.administrate(&["node", "undrain", "node-a"]);
    stage.await_providers("it takes new ones again", |rows| rows.iter().all(|row| row["state"] == "up"));
    stage.finish();
}
