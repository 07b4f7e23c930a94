//! Root keys rotate with overlap: what the old key minted is believed until it has expired, or until it is retired,
//! which takes back what was opened under it. A key is on disk before it mints, and a crash leaves a node that starts.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use caps::token::{ROOT_KEYS_MAX, inspect};
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, Node, SMALL, USERS, World, log, pattern, refused, until};
use libmem::{Client, Code, LeaseOptions, Lifetime, Name, Rights, RootRow, RootState, SigningKey, Token};
use serde_json::json;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// The key that minted a token.
fn root_of(token: &Token) -> u32 {
    inspect(token, None).unwrap().root_key_id.unwrap()
}

/// The root keys that are published for offline verifiers.
fn published(node: &Node) -> Vec<String> {
    fs::read_to_string(node.audit().join("root")).unwrap().lines().map(str::to_owned).collect()
}

fn public_of(rows: &[RootRow]) -> Vec<String> {
    rows.iter().map(|row| row.public.to_string()).collect()
}

/// Files of root keys in the node's directory, the list among them; each is its owner's alone.
fn key_files(node: &Node) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(node.path().join("keys"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
            entry.file_name().into_string().unwrap()
        })
        .filter(|name| name.starts_with("root"))
        .collect();
    names.sort();
    names
}

/// Registers a principal at a node without a world.
fn person(node: &Node, name: &str) -> Person {
    let key = SigningKey::generate();
    node.admin().principal_add(Name::new(name).unwrap(), key.public()).unwrap();
    let client = Client::connect(&node.endpoint(), &key).unwrap();
    Person { key, client }
}

#[test]
fn tokens_of_both_keys_open_after_a_rotation() {
    let world = World::new();
    let alice = world.person();
    let before = alice.lease(SMALL);
    let first = world.admin.roots().unwrap();
    assert_eq!((first.len(), first[0].state, first[0].retires), (1, RootState::Minting, None));
    assert_eq!(root_of(&before.token), first[0].id);

    let rows = world.admin.root_rotate().unwrap();
    assert_eq!(rows, world.admin.roots().unwrap());
    let [new, old] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((new.state, new.retires, old.state), (RootState::Minting, None, RootState::Believed));
    assert_eq!((old.id, old.public, old.since), (first[0].id, first[0].public, first[0].since));
    assert!(new.id != old.id && new.since > old.since);
    // The bystander's token is the one that lives longest.
    let left = old.retires.unwrap().since(new.since);
    assert!(left > MINUTE.into_micros() && left <= (10 * MINUTE).into_micros(), "{left:?}");

    let after = alice.lease(SMALL);
    assert_eq!(root_of(&after.token), new.id);
    let stranger = world.connect(&alice.key);
    for (client, token) in [&alice.client, &stranger]
        .into_iter()
        .flat_map(|client| [(client, &before.token), (client, &after.token)])
    {
        client.open_mapped(token, Rights::READ_WRITE).unwrap().write_at(0, b"bytes").unwrap();
    }
    let renewed = alice.client.renew(before.lease.id, 2 * MINUTE).unwrap();
    assert_eq!(root_of(&renewed.token), new.id, "a renewal mints under the new key");

    // Whoever verifies offline finds both keys.
    assert_eq!(published(&world.node), public_of(&rows));
    let shell = Shell::new(world.node.path());
    for (name, token) in [("before", &before.token), ("after", &after.token)] {
        let path = world.node.path().join(name);
        fs::write(&path, format!("{}\n", token.to_text().as_str())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let verified = shell.json(&["token", "verify", path.to_str().unwrap()]);
        assert_eq!((&verified["verified"], &verified["root_key_id"]), (&json!(true), &json!(root_of(token))));
    }

    // Nobody but the administrator may look, or change anything.
    refused(alice.client.root_rotate(), Code::Denied);
    refused(alice.client.root_retire(old.id), Code::Denied);
    refused(alice.client.roots(), Code::Denied);
    assert_eq!(world.admin.roots().unwrap(), rows);

    for lease in [before.lease.id, after.lease.id] {
        alice.client.release(lease).unwrap();
    }
    let (admin, public) = (world.admin.holder().to_string(), new.public.to_string());
    let stranger_key = alice.key.public().to_string();
    drop((alice, stranger));
    world.balances();
    let log = world.finish();
    let changes = log::of(&log.broker, "key.rotate");
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!((&changes[0]["outcome"], &changes[0]["cause"]), (&json!("ok"), &json!("rotate")));
    assert_eq!((&changes[0]["root"], &changes[0]["subject"]), (&json!(public), &json!(admin)));
    let denied = log::of(&log.provider, "lease.deny");
    assert!(denied.iter().any(|entry| entry["code"] == "E_DENIED" && entry["subject"] == stranger_key));
}

#[test]
fn a_retired_key_opens_nothing_and_what_it_opened_ends() {
    let mut node = Node::start("");
    let admin = node.admin();
    let (alice, carol) = (person(&node, "alice"), person(&node, "carol"));
    let bob_key = SigningKey::generate();
    admin.principal_add(Name::new("bob").unwrap(), bob_key.public()).unwrap();
    let bob = Person { client: Client::connect(&node.endpoint(), &bob_key).unwrap(), key: bob_key };
    let leased = alice.lease(SMALL);
    let old = root_of(&leased.token);
    let to_bob = alice.share(&leased.lease, &bob, Rights::READ_WRITE);
    let bytes = pattern(3, SMALL as usize);
    let mapped = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let mediated = alice.client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
    mapped.write_at(0, &bytes).unwrap();

    let rows = admin.root_rotate().unwrap();
    let new = rows[0].id;
    refused(admin.root_retire(new), Code::Denied);
    refused(admin.root_retire(new ^ old ^ 1), Code::TokenUnknownKey);
    // A right under the new key to the same memory.
    let to_carol = alice.share(&leased.lease, &carol, Rights::READ_WRITE);
    assert_eq!((root_of(&to_bob.token), root_of(&to_carol.token)), (old, new));
    let carols = carol.client.open_mapped(&to_carol.token, Rights::READ_WRITE).unwrap();
    // A process that uses its mapping raw, without libmem's guard.
    let mut raw = common::Actor::enter(&node, &bob.key, USERS[0]);
    let memory = raw.open(&to_bob.token.to_text(), Rights::READ, true);
    raw.start_using(memory, false, true);

    let left = admin.root_retire(old).unwrap();
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [new]);
    assert_eq!(raw.wait_for_signal(), libc::SIGBUS, "dead as by any revoke");
    let mut read = vec![0; bytes.len()];
    refused(mapped.read_at(0, &mut read), Code::Revoked);
    refused(mediated.read_at(0, &mut read[..8]), Code::Revoked);
    // Verified in this very session before: what it remembers of that is of no use any more.
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::TokenUnknownKey);
    refused(alice.client.open_mapped(&leased.token, Rights::READ), Code::TokenUnknownKey);
    refused(bob.client.open_mediated(&to_bob.token, Rights::READ), Code::TokenUnknownKey);
    let fresh = Client::connect(&node.endpoint(), &alice.key).unwrap();
    refused(fresh.open_mediated(&leased.token, Rights::READ), Code::TokenUnknownKey);
    refused(admin.root_retire(old), Code::TokenUnknownKey);

    // Nobody else loses anything: neither a right of the new key, nor the lease and its bytes.
    carols.read_at(0, &mut read).unwrap();
    assert!(read == bytes, "every write before the retirement is there");
    carols.write_at(0, b"carol goes on").unwrap();
    let renewed = alice.client.renew(leased.lease.id, MINUTE).unwrap();
    let again = alice.client.open_mapped(&renewed.token, Rights::READ_WRITE).unwrap();
    again.read_at(0, &mut read).unwrap();
    assert_eq!(read[..13], *b"carol goes on");
    assert!(read[13..] == bytes[13..]);

    assert_eq!(published(&node), public_of(&left));
    assert_eq!(key_files(&node), [format!("root-{new:08x}"), "roots".to_owned()]);
    let public = rows[1].public.to_string();
    drop((again, carols, mapped, mediated, raw, fresh, alice, bob, carol, admin));
    node.stop();
    let log = log::verify(&node.audit());
    let changes = log::of(&log.broker, "key.rotate");
    let told: Vec<_> = changes.iter().map(|entry| (&entry["outcome"], &entry["cause"])).collect();
    let (ok, deny, none) = (&json!("ok"), &json!("deny"), &json!(null));
    let (rotate, retire) = (&json!("rotate"), &json!("retire"));
    assert_eq!(told, [(ok, rotate), (deny, none), (deny, none), (ok, retire), (deny, none)]);
    assert_eq!(changes[3]["root"], public);
    assert_ne!(changes[3]["mappings_closed"], "0");
    let rejects = log::of(&log.provider, "token.reject");
    assert!(rejects.iter().any(|entry| entry["code"] == "E_TOKEN_UNKNOWN_KEY"), "{rejects:?}");
}

#[test]
fn a_restart_keeps_the_keys_and_a_crash_leaves_a_node_that_starts() {
    let mut node = Node::start("");
    let alice = person(&node, "alice");
    alice.lease(SMALL);
    let rows = node.admin().root_rotate().unwrap();
    assert_eq!(rows.len(), 2);
    let files = key_files(&node);
    drop(alice);
    // As a crash between making a key and naming it leaves them: whole, and torn.
    let keys = node.path().join("keys");
    for (name, text) in [
        ("root-00000001", fs::read_to_string(keys.join("root")).unwrap()),
        ("root-00000002", "leasehold-key-v1:".to_owned()),
    ] {
        fs::write(keys.join(name), text).unwrap();
        fs::set_permissions(keys.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for end in [Node::kill, Node::stop] {
        end(&mut node);
        node.restart();
        assert_eq!(node.admin().roots().unwrap(), rows);
        assert_eq!((key_files(&node), published(&node)), (files.clone(), public_of(&rows)));
        let key = node.key("admin");
        let client = Client::connect(&node.endpoint(), &key).unwrap();
        let leased = client.lease(LeaseOptions::new(SMALL, MINUTE)).unwrap();
        assert_eq!(root_of(&leased.token), rows[0].id, "the new key mints");
        client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap().write_at(0, b"new life").unwrap();
    }
    // The key that mints cannot be missing without being missed.
    node.stop();
    fs::remove_file(keys.join(format!("root-{:08x}", rows[0].id))).unwrap();
    let shell = Shell::new(node.path());
    let output = shell.pipe(&["up", "--pool", "64MiB"], b"");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("E_CONFIG_IO"), "{output:?}");
}

#[test]
fn a_ninth_key_is_refused_until_one_retires() {
    let mut node = Node::start("");
    let (admin, alice) = (node.admin(), person(&node, "alice"));
    let shell = Shell::new(node.path());
    for keys in 2..=ROOT_KEYS_MAX {
        alice.lease(SMALL);
        let listed = shell.json(&["root", "rotate", "--as", "admin"]);
        assert_eq!(listed["roots"].as_array().unwrap().len(), keys);
    }
    alice.lease(SMALL);
    let (rows, files) = (admin.roots().unwrap(), key_files(&node));
    refused(admin.root_rotate(), Code::Busy);
    assert_eq!((admin.roots().unwrap(), key_files(&node)), (rows.clone(), files));
    let id = |row: &RootRow| format!("{:08x}", row.id);
    shell.fails(&["root", "retire", &id(&rows[0]), "--as", "admin"], 3, "E_DENIED");
    let left = shell.json(&["root", "retire", &id(&rows[3]), "--as", "admin"]);
    let left: Vec<_> = left["roots"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    let expected: Vec<_> = rows.iter().filter(|row| row.id != rows[3].id).map(id).collect();
    assert_eq!(left, expected);
    let listed = shell.json(&["root", "list", "--as", "admin"]);
    assert_eq!(
        (&listed["roots"][0]["state"], &listed["roots"][1]["state"]),
        (&json!("minting"), &json!("believed"))
    );
    assert!(listed["roots"][1]["retires_us"].as_u64() > listed["roots"][1]["since_us"].as_u64());
    assert_eq!(admin.root_rotate().unwrap().len(), ROOT_KEYS_MAX);
    drop((admin, alice));
    node.stop();
    log::verify(&node.audit());
}

#[test]
fn a_key_retires_by_itself_when_its_last_token_has_expired() {
    let mut node = Node::start("");
    let (admin, alice) = (node.admin(), person(&node, "alice"));
    // It has minted nothing, so nobody misses it.
    let rows = admin.root_rotate().unwrap();
    assert_eq!(rows.len(), 1);
    let options = LeaseOptions::new(SMALL, Duration::from_secs(2)).lifetime(Lifetime::Detached);
    let leased = alice.client.lease(options).unwrap();
    assert_eq!(root_of(&leased.token), rows[0].id);
    let mapped = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    mapped.write_at(0, b"mine").unwrap();
    let both = admin.root_rotate().unwrap();
    assert_eq!(both.len(), 2);
    alice.client.renew(leased.lease.id, MINUTE).unwrap();
    until("the old key retires", || (admin.roots().unwrap().len() == 1).then_some(()));
    assert!(node.admin().roots().unwrap()[0].since == both[0].since);
    // The lease was renewed, and what is open of it goes on.
    let mut bytes = [0; 4];
    mapped.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, *b"mine");
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::TokenUnknownKey);
    assert_eq!(key_files(&node).len(), 2, "one key, and the list");
    assert_eq!(published(&node), public_of(&both[..1]));
    drop((mapped, admin, alice));
    node.stop();
    let log = log::verify(&node.audit());
    let causes: Vec<_> =
        log::of(&log.broker, "key.rotate").into_iter().map(|entry| entry["cause"].clone()).collect();
    assert_eq!(causes, ["rotate", "expire", "rotate", "expire"]);
}

trait IntoMicros {
    fn into_micros(self) -> caps::time::Micros;
}

impl IntoMicros for Duration {
    fn into_micros(self) -> caps::time::Micros {
        caps::time::Micros::from_millis(self.as_millis() as u64)
    }
}
