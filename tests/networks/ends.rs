//! Leases end on time while nobody can be told, and nothing of them arrives afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libmem::{Client, Code, LeaseOptions, Lifetime, Reason, Rights, Target};
use policy::limits::{DRAIN_MS_MAX, FENCE_MS_MAX};

use crate::common::faults::{BOTH, Fault, Way};
use crate::common::{MINUTE, code, log, netns, pattern, refused, until};
use crate::scene::{Scene, lease};

/// How long the lease lives that ends by itself: longer than a busy machine takes to begin to use it.
const TTL: Duration = Duration::from_secs(10);
/// What a machine that is busy with other things may add to a bound of the node's. It is held against what the node's log
/// says, so that what the test itself and the log take is no part of it.
const SLACK: Duration = Duration::from_secs(2);
/// How long a call of a client may take.
const BOUND: Duration = Duration::from_secs(3);
/// Bytes of a lease.
const BYTES: usize = 1 << 20;

#[test]
fn a_lease_ends_on_time_while_its_holder_is_cut_off() {
    if !netns::possible() {
        return;
    }
    let scene = Scene::set(31);
    let id = scene.near(|| {
        let client = scene.alice(BOUND);
        let began = Instant::now();
        let options = LeaseOptions::new(BYTES as u64, TTL).lifetime(Lifetime::Detached);
        let leased = client.lease(options).unwrap();
        let id = leased.lease.id;
        let memory = client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
        memory.write_at(0, &pattern(1, BYTES)).unwrap();
        scene.wire.cut(&BOTH);
        let entry = log::await_provider(&scene.node.audit(), "the lease ends", |entry| {
            entry["event"] == "lease.expire" && entry["lease"] == id.to_string()
        });
        let took = began.elapsed();
        assert!(took >= TTL, "not before its time: {took:?}");
        // Counted from its deadline.
        assert_in_time(&entry, "fence_us", FENCE_MS_MAX);
        assert_in_time(&entry, "dead_us", DRAIN_MS_MAX);
        assert_eq!(entry["wiped_bytes"], BYTES.to_string(), "{entry}");

        scene.wire.mend();
        let read = memory.read_at(0, &mut [0; 8]);
        assert!(["E_REVOKED", "E_LEASE_EXPIRED"].contains(&code(&read)), "{read:?}");
        refused(client.renew(id, MINUTE), Code::LeaseExpired);
        let opened = client.open_mediated(&leased.token, Rights::READ);
        assert!(["E_TOKEN_EXPIRED", "E_LEASE_EXPIRED"].contains(&code(&opened)));
        // Who comes next finds nothing of it.
        let next = lease(&client, BYTES as u64);
        let mut found = vec![1; BYTES];
        client.open_mediated(&next.token, Rights::READ).unwrap().read_at(0, &mut found).unwrap();
        assert!(found.iter().all(|&byte| byte == 0), "bytes of the lease before");
        id
    });
    let log = scene.finish();
    assert_eq!(log::about(&log.broker, "lease.expire", id).len(), 1);
    assert_eq!(log::about(&log.provider, "lease.expire", id).len(), 1);
}

/// What a node says that it took is within its bound, and what a busy machine may add.
#[track_caller]
fn assert_in_time(entry: &serde_json::Value, what: &str, most_ms: u64) {
    let micros = entry[what].as_str().unwrap_or_else(|| panic!("{what}: {entry}")).parse().unwrap();
    let took = Duration::from_micros(micros);
    assert!(took <= Duration::from_millis(most_ms) + SLACK, "{what} is {took:?}: {entry}");
}

#[test]
fn a_revoke_is_acknowledged_in_time_and_nothing_of_it_is_sent_afterwards() {
    if !netns::possible() {
        return;
    }
    // The reader cut off; deaf; and one who hears what the node sends, and cannot acknowledge it.
    for (seed, ways) in [(32, &BOTH[..]), (33, &[Way::ToNear]), (34, &[Way::ToFar])] {
        revoke_while_cut(seed, ways);
    }
}

fn revoke_while_cut(seed: u64, ways: &[Way]) {
    let scene = Scene::set(seed);
    let owner = Client::connect(&scene.node.endpoint(), &scene.node.key("alice")).unwrap();
    let leased = lease(&owner, BYTES as u64);
    owner.open_mediated(&leased.token, Rights::READ_WRITE).unwrap().write_at(0, &pattern(5, BYTES)).unwrap();
    let other = lease(&owner, 4096);
    // Slow enough that there is always something on its way.
    scene.wire.set_both(Fault { delay: Duration::from_millis(5), ..Fault::default() });
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            scene.near(|| {
                let client = scene.alice(BOUND);
                let memory = client.open_mediated(&leased.token, Rights::READ).unwrap();
                let mut found = vec![0; BYTES];
                let first = loop {
                    if let Err(error) = memory.read_at(0, &mut found) {
                        break error.code();
                    }
                };
                stopped.store(true, Ordering::Relaxed);
                // Until it is mended nobody answers; then what became of the right is said.
                let second = until("the node answers again", || {
                    let again = memory.read_at(0, &mut found).unwrap_err().code();
                    (again != Code::Unreachable && again != Code::Timeout).then_some(again)
                });
                let other = client.open_mediated(&other.token, Rights::READ_WRITE).unwrap();
                other.write_at(0, b"goes on").unwrap();
                (first, second)
            })
        });
        until("the reader reads", || {
            (scene.wire.counts(Way::ToNear).payload_bytes() > 3 * BYTES as u64).then_some(())
        });
        scene.wire.cut(ways);
        let receipt = owner.revoke(Target::Lease(leased.lease.id), Reason::new("cut").unwrap()).unwrap();
        assert_eq!(receipt.body.wiped_bytes, BYTES as u64);
        let entry = log::await_provider(&scene.node.audit(), "the revoke is on record", |entry| {
            entry["event"] == "lease.revoke" && entry["lease"] == leased.lease.id.to_string()
        });
        // Counted from its arrival.
        assert_in_time(&entry, "dead_us", DRAIN_MS_MAX);

        // What the node's network had been given before is on the wire for this; after it nothing more may come.
        scene.wire.settle();
        let port = scene.node.address().port();
        let told = || -> BTreeMap<_, _> {
            let counts = scene.wire.counts(Way::ToNear);
            counts.payload.into_iter().filter(|((from, _), _)| *from == port).collect()
        };
        let at_receipt = told();
        assert!(at_receipt.values().sum::<u64>() > 0);
        // By then TCP would have sent again several times what it still had.
        until("the reader gives up", || stopped.load(Ordering::Relaxed).then_some(()));
        scene.wire.mend();
        let (first, second) = reader.join().unwrap();
        let gone = [Code::Timeout, Code::Unreachable, Code::Revoked, Code::TokenRevoked, Code::LeaseUnknown];
        assert!(gone.contains(&first), "{ways:?}: {first}");
        assert!(gone[2..].contains(&second), "{ways:?}: {second}");
        let afterwards = told();
        for (ports, bytes) in at_receipt {
            assert_eq!(afterwards[&ports], bytes, "{ways:?}: bytes were sent after the receipt");
        }
    });
    drop(owner);
    scene.finish();
}
