//! A lease from its request to the return of its bytes: what it gives, to whom, and what is refused.

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use common::node::POOL;
use common::{Ask, MINUTE, SMALL, Said, USERS, World, code, log, oom_kills, pattern, refused};
use libmem::{Code, LeaseOptions, Lifetime, Rights, Target};

/// The longest life of a lease, by default.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

#[test]
fn what_one_process_writes_another_reads_and_the_bytes_return() {
    let world = World::new();
    let (alice_key, bob_key) = (world.register(), world.register());
    let mut alice = world.actor(&alice_key, USERS[0]);
    let mut bob = world.actor(&bob_key, USERS[1]);
    let (lease, token) = alice.lease(SMALL, 60_000, true);
    assert_eq!((lease.range.start(), lease.range.end(), lease.owner), (0, SMALL, alice_key.public()));

    // A tier that cannot hold another user's writable mapping says so; the bytes then go through the node.
    let mapped = world.node.is_sealed() || !common::is_root();
    let memory = alice.open(&token, Rights::READ_WRITE, mapped);
    assert_eq!(alice.read(memory, 0, SMALL as usize), vec![0; SMALL as usize], "fresh memory is zero");
    let bytes = pattern(1, SMALL as usize);
    for (at, chunk) in bytes.chunks(16 << 10).enumerate() {
        let said = alice.ask(&Ask::Write { memory, offset: (at as u64) << 14, bytes: chunk.to_vec() });
        assert!(matches!(said, Said::Done), "{said:?}");
    }

    let shared = alice.share(&lease, &mut bob, &bob_key, Rights::READ);
    for mapped in [true, false] {
        let memory = bob.open(&shared, Rights::READ, mapped);
        assert_eq!(bob.read(memory, 0, SMALL as usize), bytes, "mapped: {mapped}");
        let said = bob.ask(&Ask::Write { memory, offset: 0, bytes: vec![1] });
        assert!(matches!(&said, Said::Refused { code } if code == "E_DENIED"), "{said:?}");
        bob.ask(&Ask::Close { memory });
    }

    alice.release(lease.id);
    alice.leave();
    bob.leave();
    world.balances();
    let log = world.finish();
    for event in ["lease.offer", "lease.grant", "lease.release"] {
        assert_eq!(log::about(&log.broker, event, lease.id).len(), 1, "{event}");
    }
    for event in ["lease.claim", "lease.open"] {
        assert_eq!(log::about(&log.provider, event, lease.id).len(), 1, "{event}");
    }
}

#[test]
fn openings_of_a_right_are_one_entry_and_their_closings_another() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let other = bob.client.lease(LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Process)).unwrap();
    let mut bytes = [0; 100];
    for (who, token) in [(&alice, &leased.token), (&bob, &other.token)] {
        for _ in 0..40 {
            who.client.open_mediated(token, Rights::READ).unwrap().read_at(0, &mut bytes).unwrap();
        }
    }
    // One lease ends while nobody has it open, the other is left to its session's end with one opening more.
    alice.client.release(leased.lease.id).unwrap();
    let last = bob.client.open_mediated(&other.token, Rights::READ).unwrap();
    last.read_at(0, &mut bytes).unwrap();
    drop((alice, last, bob));
    world.balances();
    let log = world.finish();
    for (lease, cause, count) in [(leased.lease.id, "released", "40"), (other.lease.id, "holder_exit", "41")]
    {
        assert_eq!(log::about(&log.provider, "lease.open", lease).len(), 1);
        let closes = log::about(&log.provider, "lease.close", lease);
        assert_eq!(closes.len(), 1, "{closes:?}");
        assert_eq!((&closes[0]["cause"], &closes[0]["count"]), (&cause.into(), &count.into()));
        assert_eq!(closes[0]["ops"], count);
        assert_eq!(closes[0]["bytes"], format!("{count}00"));
    }
}

#[test]
fn a_released_lease_is_over_by_every_path() {
    let world = World::new();
    let alice = world.person();
    let leased = alice.lease(SMALL);
    let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let mediated = alice.client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(0, b"still here").unwrap();
    let receipt = alice.client.release(leased.lease.id).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    assert_eq!(receipt.body.leases, [leased.lease.id]);

    let mut byte = [0];
    refused(region.read_at(0, &mut byte), Code::Revoked);
    refused(region.write_at(0, &byte), Code::Revoked);
    refused(mediated.read_at(0, &mut byte), Code::Revoked);
    refused(mediated.write_at(0, &byte), Code::Revoked);
    refused(alice.client.open_mapped(&leased.token, Rights::READ), Code::TokenRevoked);
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::TokenRevoked);
    refused(alice.client.renew(leased.lease.id, MINUTE), Code::LeaseExpired);
    drop((region, mediated, alice));
    world.balances();
    world.finish();
}

#[test]
fn a_renewal_moves_the_end_and_brings_a_token_for_it() {
    let world = World::new();
    let alice = world.person();
    let leased = alice.lease(SMALL);
    let region = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    region.write_at(0, b"kept").unwrap();
    let renewed = alice.client.renew(leased.lease.id, 5 * MINUTE).unwrap();
    assert_eq!(renewed.lease.id, leased.lease.id);
    let left = Duration::from_micros(renewed.lease.expires_in.0);
    assert!(left > 4 * MINUTE && left <= 5 * MINUTE, "{left:?}");
    let mut bytes = [0; 4];
    region.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
    let again = alice.client.open_mapped(&renewed.token, Rights::READ).unwrap();
    again.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");

    refused(alice.client.renew(leased.lease.id, Duration::ZERO), Code::Range);
    // What is longer than the node allows is cut to that: a day.
    refused(alice.client.renew(leased.lease.id, DAY + Duration::from_micros(1)), Code::Range);
    let longest = alice.client.renew(leased.lease.id, DAY).unwrap();
    assert!(longest.lease.expires_in.0 <= DAY.as_micros() as u64, "{:?}", longest.lease.expires_in);
    drop((region, again));
    alice.client.release(leased.lease.id).unwrap();
    drop(alice);
    world.finish();
}

#[test]
fn names_are_an_owners_own_and_lists_come_page_by_page() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let named = || LeaseOptions::new(4096, MINUTE).name("frames").unwrap().lifetime(Lifetime::Detached);
    let first = alice.client.lease(named()).unwrap();
    refused(alice.client.lease(named()), Code::Exists);
    let other = bob.client.lease(named()).unwrap();
    alice.client.release(first.lease.id).unwrap();
    let again = alice.client.lease(named()).unwrap();
    assert_ne!(again.lease.id, first.lease.id);

    // More than a page has rows: 256.
    let mut mine: BTreeSet<_> = (0..300).map(|_| alice.lease(4096).lease.id).collect();
    mine.insert(again.lease.id);
    let live = |row: &libmem::LeaseRow| row.cause.is_none();
    let rows: Vec<_> = alice.client.leases().map(Result::unwrap).filter(live).map(|row| row.id).collect();
    assert!(rows.is_sorted(), "rows come in the order of their ids");
    assert_eq!(rows.iter().copied().collect::<BTreeSet<_>>(), mine);
    assert_eq!(rows.len(), mine.len(), "no row comes twice");
    let theirs: Vec<_> = bob.client.leases().map(|row| row.unwrap().id).collect();
    assert_eq!(theirs, [other.lease.id]);
    let all: BTreeSet<_> = world.admin.leases().map(|row| row.unwrap().id).collect();
    assert!(mine.is_subset(&all) && all.contains(&other.lease.id));

    let receipt = world.admin.revoke(Target::Holder(alice.key.public()), libmem::Reason::new("").unwrap());
    assert_eq!(code(&receipt), "OK");
    bob.client.release(other.lease.id).unwrap();
    drop((alice, bob));
    world.balances();
    world.finish();
}

#[test]
fn a_lease_id_is_no_authority() {
    let world = World::new();
    let (alice, mallory) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let id = leased.lease.id;
    refused(mallory.client.lease_show(id), Code::LeaseUnknown);
    refused(mallory.client.renew(id, MINUTE), Code::LeaseUnknown);
    refused(mallory.client.release(id), Code::LeaseUnknown);
    for target in [Target::Lease(id), Target::Region(leased.lease.region)] {
        refused(mallory.client.revoke(target, libmem::Reason::new("mine").unwrap()), Code::LeaseUnknown);
    }
    let options = libmem::ShareOptions::new(mallory.key.public(), Rights::READ);
    refused(mallory.client.share_offer(&leased.lease, &options, &mallory.key), Code::LeaseUnknown);
    assert_eq!(mallory.client.leases().count(), 0);

    // Nor is the token, in a session that proved another key.
    refused(mallory.client.open_mapped(&leased.token, Rights::READ), Code::TokenBound);
    refused(mallory.client.open_mediated(&leased.token, Rights::READ), Code::TokenBound);
    assert_eq!(alice.client.lease_show(id).unwrap().memory.unwrap().opens, 0);

    // Whoever is not registered gets nothing, and is not told of what there is.
    let stranger = libmem::SigningKey::generate();
    let client = world.connect(&stranger);
    refused(client.lease(LeaseOptions::new(SMALL, MINUTE)), Code::PrincipalUnknown);
    refused(client.lease_show(id), Code::PrincipalUnknown);
    refused(
        client.principal_add(libmem::Name::new("me").unwrap(), stranger.public()),
        Code::PrincipalUnknown,
    );
    refused(
        mallory.client.principal_add(libmem::Name::new("me").unwrap(), stranger.public()),
        Code::NotAdmin,
    );

    alice.client.release(id).unwrap();
    drop((alice, mallory, client));
    world.balances();
    let log = world.finish();
    let bound = log::about(&log.provider, "lease.deny", id);
    assert!(bound.iter().any(|entry| entry["code"] == "E_TOKEN_BOUND"), "{bound:?}");
}

#[test]
fn quotas_the_pool_and_the_bounds_refuse_and_kill_nobody() {
    let kills = oom_kills();
    let world =
        World::with("[quota.default]\nleases = 4\nleased_bytes = \"200MiB\"\nresident_bytes = \"1GiB\"\n");
    let (alice, bob) = (world.person(), world.person());
    let lease = |who: &common::world::Person, bytes, ttl| {
        who.client.lease(LeaseOptions::new(bytes, ttl).lifetime(Lifetime::Detached))
    };
    // Numbers that nothing could satisfy.
    for bytes in [0, POOL + 1, 1 << 40, 1 << 62, 1 << 63, u64::MAX - 4095, u64::MAX] {
        refused(lease(&alice, bytes, MINUTE), Code::Range);
    }
    for ttl in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(1 << 50), Duration::MAX] {
        refused(lease(&alice, SMALL, ttl), Code::Range);
    }
    // The quota of bytes, to the byte.
    refused(lease(&alice, (200 << 20) + 1, MINUTE), Code::Quota);
    let most = lease(&alice, 200 << 20, MINUTE).unwrap();
    refused(lease(&alice, 1, MINUTE), Code::Quota);
    // The pool, which others fill as well.
    refused(lease(&bob, 100 << 20, MINUTE), Code::NoMemory);
    alice.client.release(most.lease.id).unwrap();
    let now = lease(&bob, 100 << 20, MINUTE).unwrap();
    bob.client.release(now.lease.id).unwrap();
    // The quota of leases.
    let four: Vec<_> = (0..4).map(|_| lease(&alice, 1, MINUTE).unwrap()).collect();
    refused(lease(&alice, 1, MINUTE), Code::Quota);
    assert_eq!(four[0].lease.range.len(), 4096, "whole pages");
    for leased in four {
        alice.client.release(leased.lease.id).unwrap();
    }
    drop((alice, bob));
    world.balances();
    let log = world.finish();
    let denied = log::of(&log.broker, "quota.deny");
    for code in ["E_QUOTA", "E_NOMEM"] {
        assert!(denied.iter().any(|entry| entry["code"] == code), "{code}");
    }
    assert_eq!(oom_kills(), kills, "nobody was killed for lack of memory");
}

#[test]
fn of_two_requests_that_fit_alone_but_not_together_one_is_done() {
    const ROUNDS: usize = 4;
    let world = World::new();
    let pair = [world.person(), world.person()];
    for _ in 0..ROUNDS {
        let start = Barrier::new(pair.len());
        let results: Vec<_> = std::thread::scope(|scope| {
            let ask = |who: &common::world::Person| {
                start.wait();
                who.client.lease(LeaseOptions::new(150 << 20, MINUTE).lifetime(Lifetime::Detached))
            };
            let asked: Vec<_> = pair.iter().map(|who| scope.spawn(move || ask(who))).collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut codes: Vec<_> = results.iter().map(code).collect();
        codes.sort_unstable();
        assert_eq!(codes, ["E_NOMEM", "OK"]);
        for (who, result) in pair.iter().zip(results) {
            if let Ok(leased) = result {
                who.client.release(leased.lease.id).unwrap();
            }
        }
        world.balances();
    }
    drop(pair);
    world.finish();
}
