//! Somebody dies: a client, the node, or the node in good order.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Actor, Ask, MINUTE, Node, SMALL, USERS, World, log, oom_kills, refused, until};
use libmem::{Client, Code, LeaseOptions, Lifetime, Name, Rights, SigningKey};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

/// Within what time the clients of a killed node lose its memory.
const GUARDIAN: Duration = Duration::from_secs(2);

#[test]
fn a_killed_client_loses_what_was_tied_to_it_and_nothing_else() {
    let world = World::new();
    let (alice_key, bob_key) = (world.register(), world.register());
    let mut alice = world.actor(&alice_key, USERS[0]);
    let mut bob = world.actor(&bob_key, USERS[1]);
    let (tied, tied_token) = alice.lease(SMALL, 60_000, false);
    let (detached, detached_token) = alice.lease(SMALL, 60_000, true);
    let shared = alice.share(&tied, &mut bob, &bob_key, Rights::READ);
    let bobs = bob.open(&shared, Rights::READ, true);
    let mapped = world.node.is_sealed() || !common::is_root();
    for token in [&tied_token, &detached_token] {
        let memory = alice.open(token, Rights::READ_WRITE, mapped);
        alice.ask(&Ask::Write { memory, offset: 0, bytes: b"secret".to_vec() });
    }
    assert_eq!(bob.read(bobs, 0, 6), b"secret");
    bob.start_using(bobs, false, false);
    let pid = alice.pid();
    alice.kill();

    // The owner's death ends the lease, and with it what it gave.
    assert_eq!(bob.hear_stopped(), "E_REVOKED");
    let client = world.connect(&alice_key);
    until("the tied lease ends", || {
        client.leases().map(Result::unwrap).find(|row| row.id == tied.id && row.cause.is_some())
    });
    let exit = log::await_provider(&world.node.audit(), "the entry of the holder's exit", |entry| {
        entry["event"] == "holder.exit" && entry["signal"] == libc::SIGKILL
    });
    assert!(exit["peer_pid"] == pid || exit["peer_pid"] == pid.to_string()[..], "{exit}");
    // What was not tied to the process is still there, with its bytes.
    let token = libmem::Token::parse_text(&detached_token).unwrap();
    let region = client.open_mapped(&token, Rights::READ).unwrap();
    let mut bytes = [0; 6];
    region.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"secret");
    drop(region);
    client.release(detached.id).unwrap();
    drop((client, alice, bob));
    world.balances();
    let log = world.finish();
    let ended = log::about(&log.provider, "lease.release", tied.id);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["cause"], "holder_exit");
    let wiped = ended[0]["wiped_bytes"].as_str().map_or(0, |bytes| bytes.parse().unwrap());
    assert_eq!(wiped, SMALL, "its memory was wiped: {}", ended[0]);
}

#[test]
fn a_killed_node_takes_its_clients_mappings_along() {
    let mut node = Node::start("");
    let admin = node.admin();
    let key = SigningKey::generate();
    admin.principal_add(Name::new("alice").unwrap(), key.public()).unwrap();
    let client = Client::connect(&node.endpoint(), &key).unwrap();
    let lease = |bytes| client.lease(LeaseOptions::new(bytes, MINUTE).lifetime(Lifetime::Detached)).unwrap();
    let (small, large) = (lease(SMALL), lease(32 << 20));
    let mut actors: Vec<Actor> = Vec::new();
    for (leased, raw) in [(&small, false), (&small, true), (&large, false), (&large, true)] {
        let mut actor = Actor::enter(&node, &key, USERS[0]);
        let memory = actor.open(&leased.token.to_text(), Rights::READ, true);
        actor.start_using(memory, false, raw);
        actors.push(actor);
    }
    let mine = client.open_mapped(&small.token, Rights::READ_WRITE).unwrap();
    mine.write_at(0, b"here").unwrap();

    let killed = Instant::now();
    node.kill();
    for (at, actor) in actors.iter_mut().enumerate() {
        if at % 2 == 0 {
            assert_eq!(actor.hear_stopped(), "E_REVOKED");
        } else {
            assert_eq!(actor.wait_for_signal(), libc::SIGBUS);
        }
    }
    assert!(killed.elapsed() < GUARDIAN, "{:?}", killed.elapsed());
    refused(mine.read_at(0, &mut [0]), Code::Revoked);
    assert!(client.status().is_err());
    drop((actors, mine, client, admin));

    // What it had acknowledged is on record, and the log goes on where it was cut off.
    let before = log::verify(&node.audit());
    assert_eq!(log::about(&before.broker, "lease.grant", small.lease.id).len(), 1);
    node.restart();
    node.stop();
    let after = log::verify(&node.audit());
    for (before, after) in [(&before.broker, &after.broker), (&before.provider, &after.provider)] {
        assert!(after.len() > before.len());
        assert_eq!(after[..before.len()], before[..], "no entry changed");
        assert_eq!(after[before.len()]["event"], "log.start");
    }
}

#[test]
fn a_stopped_node_takes_everything_back_and_closes_its_logs() {
    let mut node = Node::start("");
    let admin = node.admin();
    let key = SigningKey::generate();
    admin.principal_add(Name::new("alice").unwrap(), key.public()).unwrap();
    let mut guarded = Actor::enter(&node, &key, USERS[0]);
    let mut raw = Actor::enter(&node, &key, USERS[0]);
    let (lease, token) = guarded.lease(SMALL, 60_000, true);
    let (memory, unguarded) =
        (guarded.open(&token, Rights::READ, true), raw.open(&token, Rights::READ, true));
    guarded.start_using(memory, false, false);
    raw.start_using(unguarded, false, true);
    node.stop();
    assert_eq!(guarded.hear_stopped(), "E_REVOKED");
    assert_eq!(raw.wait_for_signal(), libc::SIGBUS);
    assert!(!node.path().join("node.sock").exists(), "its socket is gone");
    let log = log::verify(&node.audit());
    for entries in [&log.broker, &log.provider] {
        assert_eq!(entries.last().unwrap()["event"], "log.stop");
    }
    let ended = log::about(&log.provider, "lease.revoke", lease.id);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["cause"], "node_stopped");
    drop((admin, guarded, raw));
}

#[test]
fn a_node_that_starts_again_knows_its_people_and_none_of_their_tokens() {
    let kills = oom_kills();
    let mut node = Node::start("");
    let (alice, bob) = (SigningKey::generate(), SigningKey::generate());
    let admin = node.admin();
    admin.principal_add(Name::new("alice").unwrap(), alice.public()).unwrap();
    admin.principal_add(Name::new("bob").unwrap(), bob.public()).unwrap();
    let client = Client::connect(&node.endpoint(), &alice).unwrap();
    let first = client.welcome().clone();
    let leased = client.lease(LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached)).unwrap();
    drop((client, admin));
    let vkeys = std::fs::read(node.audit().join("vkeys")).unwrap();
    for violent in [false, true] {
        if violent {
            node.kill();
        } else {
            node.stop();
        }
        node.restart();
        let client = Client::connect(&node.endpoint(), &alice).unwrap();
        let welcome = client.welcome();
        assert_eq!(welcome.name.as_ref().map(Name::as_str), Some("alice"));
        assert_ne!((welcome.cluster, welcome.provider), (first.cluster, first.provider));
        refused(client.open_mapped(&leased.token, Rights::READ), Code::Epoch);
        refused(client.open_mediated(&leased.token, Rights::READ), Code::Epoch);
        refused(client.lease_show(leased.lease.id), Code::LeaseUnknown);
        assert_eq!(client.leases().count(), 0);
        let names: Vec<_> = node.admin().principals().map(|row| row.unwrap().name.to_string()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        // The same name and key cannot be registered twice, in any life.
        refused(node.admin().principal_add(Name::new("alice").unwrap(), alice.public()), Code::Exists);
        let fresh = client.lease(LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached)).unwrap();
        drop(client.open_mapped(&fresh.token, Rights::READ_WRITE).unwrap());
    }
    node.stop();
    assert_eq!(std::fs::read(node.audit().join("vkeys")).unwrap(), vkeys, "the logs' keys stay");
    let log = log::verify(&node.audit());
    assert_eq!(log::of(&log.broker, "epoch.bump").len(), 3);
    assert_eq!(log::of(&log.broker, "log.stop").len(), 2);
    assert_eq!(oom_kills(), kills);
}

#[test]
fn one_node_uses_a_directory_at_a_time() {
    let mut node = Node::start("");
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["up", "--json", "--dir"])
        .arg(node.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("E_LOCKED"), "{second:?}");
    assert!(node.admin().status().is_ok(), "the first one serves on");
    node.stop();
    log::verify(&node.audit());
}
