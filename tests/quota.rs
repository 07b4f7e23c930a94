//! A client pays for the memory that a server leases on its behalf: it lends the server a part of its quota.

#[path = "common/mod.rs"]
mod common;

use std::time::Duration;

use caps::wire::{Reply, Request};
use common::raw::Raw;
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, Node, World, code, log, refused, until};
use libmem::{
    Client, Code, DonationId, DonationState, Endpoint, LeaseOptions, Leased, Lifetime, Result, SigningKey,
};
use serde_json::json;

const KIB: u64 = 1 << 10;
/// What the first persons of a world may each lease.
const OWN: u64 = 128 * KIB;

/// A world whose first `persons` have a small quota.
fn world(persons: usize) -> World {
    let small = |n| format!("[quota.p{n}]\nleased_bytes = \"128KiB\"\nresident_bytes = \"256KiB\"\n");
    World::with(&(0..persons).map(small).collect::<String>())
}

fn lease(person: &Person, bytes: u64) -> Result<Leased> {
    person.client.lease(LeaseOptions::new(bytes, MINUTE).lifetime(Lifetime::Detached))
}

fn free(person: &Person) -> u64 {
    person.client.quota().unwrap().free_bytes
}

fn give(from: &Person, to: &Person, bytes: u64, ttl: Duration) -> Result<libmem::DonationRow> {
    from.client.quota_give(DonationId::random(), to.key.public(), bytes, ttl)
}

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

#[test]
fn a_server_leases_with_its_client_s_quota_until_it_is_over() {
    let world = world(2);
    let (client, server) = (world.person(), world.person());
    refused(lease(&server, OWN + 32 * KIB), Code::Quota);
    // Long enough for a lease on a machine that stands still for a moment.
    let row = give(&client, &server, 64 * KIB, Duration::from_secs(5)).unwrap();
    assert_eq!((row.bytes, row.lent, row.state), (64 * KIB, 64 * KIB, DonationState::Given));
    assert_eq!((free(&client), free(&server)), (OWN - 64 * KIB, OWN + 64 * KIB));
    refused(lease(&client, OWN), Code::Quota);
    let big = lease(&server, OWN + 32 * KIB).unwrap();
    let shown = |person: &Person| person.client.donations().collect::<Result<Vec<_>>>().unwrap();
    assert_eq!(shown(&client).len(), 1);
    assert_eq!(shown(&client)[0].id, shown(&server)[0].id);

    until("the gift is over", || (shown(&server)[0].state == DonationState::Returning).then_some(()));
    refused(lease(&server, 4 * KIB), Code::Quota);
    // What the server uses of it is not the client's yet; the rest is.
    until("the rest is back", || (free(&client) == OWN - 32 * KIB).then_some(()));
    assert_eq!(shown(&client)[0].lent, 32 * KIB);
    refused(lease(&client, OWN), Code::Quota);
    // Nothing was taken from under the server.
    let region = server.client.open_mapped(&big.token, libmem::Rights::READ_WRITE).unwrap();
    region.write_at(OWN, b"still there").unwrap();
    drop(region);

    server.client.release(big.lease.id).unwrap();
    assert_eq!((free(&client), shown(&client).len()), (OWN, 0));
    until("what was wiped is free", || (free(&server) == OWN).then_some(()));
    let all = lease(&client, OWN).unwrap();
    client.client.release(all.lease.id).unwrap();

    let (giver, receiver) = (client.key.public().to_string(), server.key.public().to_string());
    drop((client, server));
    world.balances();
    let log = world.finish();
    let entries: Vec<_> = log::of(&log.broker, "config.load")
        .into_iter()
        .filter(|entry| !entry["donation"].is_null())
        .collect();
    let causes: Vec<_> = entries.iter().map(|entry| entry["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["quota", "quota_expired", "quota_returned"]);
    for entry in &entries {
        assert_eq!(entry["donation"], json!(row.id.to_string()));
        assert_eq!((&entry["owner"], &entry["receiver"]), (&json!(giver), &json!(receiver)));
        assert_eq!((&entry["bytes"], &entry["outcome"]), (&json!("65536"), &json!("ok")));
    }
    assert_eq!((&entries[0]["ttl_us"], entries[0]["expires"].is_string()), (&json!("5000000"), true));
    assert_eq!((&entries[1]["used"], &entries[2]["used"]), (&json!("32768"), &json!("0")));
}

#[test]
fn of_two_gifts_at_once_that_do_not_both_fit_one_is_made() {
    let world = world(1);
    let (client, others) = (world.person(), [world.person(), world.person()]);
    for _ in 0..20 {
        let mut sessions = [0, 1]
            .map(|_| Raw::connect(world.node.endpoint().path().expect("a socket"), &client.key).unwrap());
        let ids = [0, 1].map(|_| DonationId::random());
        for (at, raw) in sessions.iter_mut().enumerate() {
            let (to, ttl) = (others[at].key.public(), caps::time::Micros::from_millis(60_000));
            raw.post(&Request::QuotaGive { id: ids[at], to, bytes: 96 * KIB, ttl }).unwrap();
        }
        let answers = sessions.each_ref().map(|raw| raw.receive().map(|(reply, _)| reply));
        let mut said = answers.each_ref().map(code);
        said.sort_unstable();
        assert_eq!(said, ["E_QUOTA", "OK"]);
        assert_eq!(free(&client), 32 * KIB);
        let Some(Ok(Reply::Donated(row))) = answers.into_iter().find(Result::is_ok) else { panic!() };
        assert_eq!(client.client.quota_take_back(row.id).unwrap().lent, 0);
        assert_eq!(free(&client), OWN);
    }
    drop((client, others));
    world.balances();
    world.finish();
}

#[test]
fn hostile_gifts_are_refused_with_their_codes() {
    let world = world(3);
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let row = give(&alice, &bob, 4 * KIB, MINUTE).unwrap();
    let to_bob = |id, bytes, ttl| mallory.client.quota_give(id, bob.key.public(), bytes, ttl);
    let fresh = DonationId::random;
    refused(give(&mallory, &mallory, KIB, MINUTE), Code::Range);
    refused(to_bob(fresh(), 0, MINUTE), Code::Range);
    refused(to_bob(fresh(), u64::MAX, MINUTE), Code::Range);
    refused(to_bob(fresh(), i64::MAX as u64, MINUTE), Code::Quota);
    refused(to_bob(fresh(), OWN + 1, MINUTE), Code::Quota);
    refused(to_bob(fresh(), KIB, Duration::ZERO), Code::Range);
    refused(to_bob(fresh(), KIB, 10_000_000 * MINUTE), Code::Range);
    refused(to_bob(row.id, 4 * KIB, MINUTE), Code::Exists);
    let stranger = SigningKey::generate();
    refused(mallory.client.quota_give(fresh(), stranger.public(), KIB, MINUTE), Code::PrincipalUnknown);
    refused(mallory.client.quota_take_back(row.id), Code::DonationUnknown);
    refused(bob.client.quota_take_back(row.id), Code::DonationUnknown);
    let outside = world.connect(&stranger);
    refused(outside.quota_give(fresh(), bob.key.public(), KIB, MINUTE), Code::PrincipalUnknown);
    refused(outside.quota(), Code::PrincipalUnknown);
    drop(outside);

    // The same terms again are the same gift; other terms are none.
    let again = |bytes| alice.client.quota_give(row.id, bob.key.public(), bytes, MINUTE);
    assert_eq!(again(4 * KIB).unwrap().id, row.id);
    refused(again(8 * KIB), Code::Exists);
    assert_eq!((free(&alice), free(&bob), free(&mallory)), (OWN - 4 * KIB, OWN + 4 * KIB, OWN));

    // One who fills its part of the table leaves room for others.
    let ids: Vec<_> = (0..64).map(|_| to_bob(fresh(), 1, MINUTE).unwrap().id).collect();
    refused(to_bob(fresh(), 1, MINUTE), Code::Quota);
    give(&alice, &bob, KIB, MINUTE).unwrap();
    assert_eq!(mallory.client.donations().count(), ids.len());
    for id in ids {
        mallory.client.quota_take_back(id).unwrap();
    }
    assert_eq!(free(&mallory), OWN);
    // What was received is not passed on.
    assert_eq!(bob.client.quota().unwrap().giveable_bytes, OWN);
    refused(give(&bob, &mallory, OWN + 1, MINUTE), Code::Quota);
    drop((alice, bob, mallory));
    world.balances();
    world.finish();
}

#[test]
fn the_policy_may_say_no() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    let denies = "deny if request(\"quota.give\"), size($n), $n > 4096;\nallow if request($any), principal($key, $name);\n";
    std::fs::write(policy.path(), denies).unwrap();
    let world = World::with(&format!("[policy]\nfile = {:?}\n", policy.path()));
    let (alice, bob) = (world.person(), world.person());
    refused(give(&alice, &bob, 4097, MINUTE), Code::PolicyDenied);
    let row = give(&alice, &bob, 4096, MINUTE).unwrap();
    // What is one's own is taken back without asking.
    alice.client.quota_take_back(row.id).unwrap();
    drop((alice, bob));
    let log = world.finish();
    let denied: Vec<_> = log::of(&log.broker, "config.load");
    assert_eq!(denied.iter().filter(|entry| entry["code"] == "E_POLICY_DENIED").count(), 1);
}

#[test]
fn the_asynchronous_client_gives_and_takes_back() {
    let world = world(2);
    let (alice, bob) = (world.person(), world.person());
    let (endpoint, to): (Endpoint, _) = (world.node.endpoint(), bob.key.public());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = libmem::aio::Client::connect(&endpoint, &alice.key).await.unwrap();
        let id = DonationId::random();
        let row = client.quota_give(id, to, KIB, MINUTE).await.unwrap();
        assert_eq!(client.quota().await.unwrap().given_bytes, KIB);
        let mut rows = client.donations();
        let listed = rows.next().await.unwrap().unwrap();
        assert_eq!((listed.id, listed.receiver, row.giver), (id, to, alice.key.public()));
        assert!(rows.next().await.is_none());
        assert_eq!(client.quota_take_back(id).await.unwrap().lent, 0);
    });
    drop((alice, bob));
    world.finish();
}

#[test]
fn the_command_line_gives_lists_and_takes() {
    let mut node = Node::start("[quota.bob]\nleased_bytes = \"64KiB\"\nresident_bytes = \"128KiB\"\n");
    let shell = Shell::new(node.path());
    for name in ["alice", "bob"] {
        shell.json(&["id", "new", name]);
    }
    let create = ["lease", "create", "--as", "bob", "--size", "96KiB", "--ttl", "10m"];
    shell.fails(&create, 3, "E_QUOTA");
    let given = ["quota", "give", "bob", "--as", "alice", "--size", "64KiB", "--ttl", "10m"];
    let donation = &shell.json(&given)["donation"];
    let id = donation["id"].as_str().unwrap();
    assert_eq!((&donation["giver_name"], &donation["receiver_name"]), (&json!("alice"), &json!("bob")));
    assert_eq!((&donation["bytes"], &donation["state"]), (&json!(65536), &json!("given")));
    // The same once more, as after an answer that was lost.
    assert_eq!(shell.json(&[&given[..], &["--id", id]].concat())["donation"]["id"], id);
    let listed = shell.json(&["quota", "list", "--as", "bob"]);
    assert_eq!(
        listed["quota"],
        json!({
            "limit_bytes": 65536, "given_bytes": 0, "received_bytes": 65536, "used_bytes": 0,
            "free_bytes": 131072, "giveable_bytes": 65536,
        })
    );
    assert_eq!(listed["donations"].as_array().unwrap().len(), 1);
    let lease = shell.json(&create)["lease"]["id"].as_str().unwrap().to_owned();

    shell.fails(&["quota", "take", id, "--as", "bob"], 1, "E_DONATION_UNKNOWN");
    let taken = &shell.json(&["quota", "take", id, "--as", "alice"])["donation"];
    assert_eq!((&taken["lent"], &taken["state"]), (&json!(32768), &json!("returning")));
    let text = String::from_utf8(shell.bytes(&["quota", "list", "--as", "alice"])).unwrap();
    assert!(text.contains("returning") && text.contains("32KiB") && text.contains("free to lease"), "{text}");
    shell.json(&["lease", "release", &lease, "--as", "bob"]);
    let text = String::from_utf8(shell.bytes(&["quota", "list", "--as", "alice"])).unwrap();
    assert!(text.contains("nothing given, nothing received"), "{text}");
    shell.fails(&["quota", "give", "bob", "--as", "alice", "--size", "0", "--ttl", "10m"], 1, "E_RANGE");
    let admin: Client = node.admin();
    until("all is back", || (admin.status().unwrap().leases == 0).then_some(()));
    drop(admin);
    node.stop();
    log::verify(&node.audit());
}
