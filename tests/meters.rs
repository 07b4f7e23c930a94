//! Limits on use: how often a token is opened, how many bytes are moved under it, and how fast; and the quota of open
//! rights. Each is counted by the node, for everybody below the block or the person that it is set on.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use caps::limits::CHUNK_BYTES_MAX;
use caps::token::{Narrow, attenuate, delegate, seal};
use caps::wire::request::Path as By;
use caps::wire::{Reply, Request};
use common::raw::Raw;
use common::world::Person;
use common::{MINUTE, SMALL, World, log, refused, until};
use libmem::{Code, Error, LeaseOptions, Leased, Lifetime, Mediated, Reason, Rights, ShareOptions, Target};

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

fn opens(most: u64) -> Narrow {
    Narrow { opens: Some(most), ..Narrow::default() }
}

fn budget(bytes: u64) -> Narrow {
    Narrow { bytes_total: Some(bytes), ..Narrow::default() }
}

/// A lease whose token may be delegated `hops` times.
fn lease(owner: &Person, bytes: u64, hops: u8) -> Leased {
    let options = LeaseOptions::new(bytes, MINUTE).lifetime(Lifetime::Detached).max_hops(hops);
    owner.client.lease(options).unwrap()
}

/// That it was refused by this limit.
#[track_caller]
fn limited<T>(result: libmem::Result<T>, code: Code, limit: &str) -> Error {
    let error = result.err().expect("the limit refuses");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.detail().starts_with(limit), "{error}");
    error
}

#[track_caller]
fn read(right: &Mediated, bytes: u64) -> libmem::Result<()> {
    right.read_at(0, &mut vec![0; usize::try_from(bytes).unwrap()])
}

#[test]
fn three_openings_are_three_whoever_opens_however() {
    let world = World::new();
    let alice = world.person();
    let leased = lease(&alice, SMALL, 0);
    let token = attenuate(&leased.token, &opens(3)).unwrap();
    let child = attenuate(&token, &Narrow { rights: Some(Rights::READ), ..opens(2) }).unwrap();
    let second = world.connect(&alice.key);

    // What is refused for another reason is not counted.
    refused(alice.client.open_mediated(&child, Rights::READ_WRITE), Code::Denied);
    refused(world.person().client.open_mediated(&token, Rights::READ), Code::TokenBound);
    // One mapped, one in another session, one by the child.
    drop(alice.client.open_mapped(&token, Rights::READ_WRITE).unwrap());
    let open = second.open_mediated(&token, Rights::READ_WRITE).unwrap();
    drop(alice.client.open_mediated(&child, Rights::READ).unwrap());

    let sealed = seal(&token).unwrap();
    let further = attenuate(&token, &opens(3)).unwrap();
    let third = world.connect(&alice.key);
    for client in [&alice.client, &second, &third] {
        for used_up in [&token, &child, &sealed, &further] {
            limited(client.open_mediated(used_up, Rights::READ), Code::Denied, "opens: ");
            limited(client.open_mapped(used_up, Rights::READ), Code::Denied, "opens: ");
        }
    }
    // What is open goes on, and what has no such limit opens.
    read(&open, 8).unwrap();
    drop(alice.client.open_mapped(&leased.token, Rights::READ).unwrap());
    // A block of the child's own is used up before its parent's.
    let token = attenuate(&leased.token, &opens(3)).unwrap();
    let child = attenuate(&token, &opens(1)).unwrap();
    drop(alice.client.open_mediated(&child, Rights::READ).unwrap());
    limited(alice.client.open_mediated(&child, Rights::READ), Code::Denied, "opens: ");
    drop(alice.client.open_mediated(&token, Rights::READ).unwrap());
    drop(alice.client.open_mediated(&token, Rights::READ).unwrap());
    limited(alice.client.open_mediated(&token, Rights::READ), Code::Denied, "opens: ");

    alice.client.release(leased.lease.id).unwrap();
    drop((open, second, third, alice));
    world.balances();
    let log = world.finish();
    assert!(!log::of(&log.provider, "lease.deny").is_empty(), "refusals are on record");
}

#[test]
fn a_budget_is_shared_down_a_chain_of_delegations_to_the_byte() {
    let world = World::new();
    let (alice, bob, carol, dave) = (world.person(), world.person(), world.person(), world.person());
    let leased = lease(&alice, SMALL, 0);
    let options = ShareOptions::new(bob.key.public(), Rights::READ_WRITE).max_hops(2);
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
    let proposal = bob.client.share_show(grant.id).unwrap();
    let bobs = bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key).unwrap().token;
    let carols = delegate(&bobs, &bob.key, carol.key.public(), &budget(100_000)).unwrap();
    let narrowed = attenuate(&carols, &budget(30_000)).unwrap();
    let daves = delegate(&narrowed, &carol.key, dave.key.public(), &Narrow::default()).unwrap();

    // Only what is counted access by access: no mapping.
    refused(carol.client.open_mapped(&carols, Rights::READ), Code::MediatedOnly);
    refused(dave.client.open_mapped(&daves, Rights::READ), Code::MediatedOnly);
    let by_carol = carol.client.open_mediated(&carols, Rights::READ_WRITE).unwrap();
    let by_dave = dave.client.open_mediated(&daves, Rights::READ_WRITE).unwrap();
    let by_bob = bob.client.open_mediated(&bobs, Rights::READ_WRITE).unwrap();

    by_carol.write_at(0, &[7; 50_000]).unwrap();
    read(&by_dave, 10_000).unwrap();
    // Dave has 20,000 left of his 30,000, Carol 40,000 of her 100,000.
    limited(read(&by_dave, 20_001), Code::Denied, "budget: ");
    limited(read(&by_carol, 40_001), Code::Denied, "budget: ");
    read(&by_dave, 20_000).unwrap();
    limited(by_dave.write_at(0, b"x"), Code::Denied, "budget: ");
    // Narrowed once more, opened again, from another session: the same counts.
    let more = attenuate(&daves, &budget(30_000)).unwrap();
    let session = world.connect(&dave.key);
    drop(by_dave);
    for token in [&more, &daves, &seal(&daves).unwrap()] {
        for client in [&session, &dave.client] {
            let again = client.open_mediated(token, Rights::READ).unwrap();
            limited(read(&again, 1), Code::Denied, "budget: ");
        }
    }
    // What is refused for another reason costs nothing.
    let mut hand = Raw::connect(world.node.endpoint().path().expect("a socket"), &carol.key).unwrap();
    let open = Request::Open { token: seal(&carols).unwrap(), rights: Rights::READ, path: By::Mediated };
    let Ok(Reply::Opened(opened)) = hand.ask(&open) else { panic!("a token is opened") };
    refused(hand.ask(&Request::Read { handle: opened.handle, offset: SMALL, length: 8 }), Code::Range);
    read(&by_carol, 19_999).unwrap();
    limited(read(&by_carol, 2), Code::Denied, "budget: ");
    read(&by_carol, 1).unwrap();
    limited(read(&by_carol, 1), Code::Denied, "budget: ");
    limited(by_carol.write_at(0, b"x"), Code::Denied, "budget: ");
    // Who set the budget has none.
    read(&by_bob, SMALL).unwrap();

    drop((by_carol, by_bob));
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, carol, dave, session, hand));
    world.balances();
    let log = world.finish();
    // The read past the region's end, and no other: a budget that is used up is nobody's fault.
    let faults: Vec<_> =
        log.provider.iter().filter(|entry| entry["event"].as_str().unwrap().starts_with("fault.")).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
}

#[test]
fn bytes_that_did_not_leave_are_given_back() {
    const BUDGET: u64 = 64 << 20;
    let world = World::new();
    let alice = world.person();
    let leased = lease(&alice, SMALL, 0);
    let token = attenuate(&leased.token, &budget(BUDGET)).unwrap();
    let mut deaf = Raw::connect(world.node.endpoint().path().expect("a socket"), &alice.key).unwrap();
    let open = Request::Open { token: token.clone(), rights: Rights::READ, path: By::Mediated };
    let Ok(Reply::Opened(opened)) = deaf.ask(&open) else { panic!("a token is opened") };
    // It asks and does not listen: in the end an answer finds no room, and the session is over.
    let ask = Request::Read { handle: opened.handle, offset: 0, length: CHUNK_BYTES_MAX as u32 };
    let packet = deaf.packet(&ask);
    let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
    until("the session of who does not listen ends", || {
        let sent = || rustix::net::send(deaf.as_fd(), &packet, flags);
        let error = std::iter::repeat_with(sent).find_map(Result::err);
        (error == Some(rustix::io::Errno::PIPE)).then_some(())
    });
    let mut left = 0;
    while let Ok((reply, _)) = deaf.receive() {
        let Reply::Data { bytes, .. } = reply else { panic!("{reply:?}") };
        left += bytes.len() as u64;
    }
    assert!(left > 0, "some answers found room");
    // Another session has all the others' bytes, to the byte.
    let other = alice.client.open_mediated(&token, Rights::READ).unwrap();
    let mut rest = BUDGET - left;
    while rest > 0 {
        let piece = rest.min(CHUNK);
        read(&other, piece).unwrap();
        rest -= piece;
    }
    limited(read(&other, 1), Code::Denied, "budget: ");
    drop(other);

    alice.client.release(leased.lease.id).unwrap();
    drop((alice, deaf));
    world.balances();
    world.finish();
}

#[test]
fn a_rate_holds_over_a_span_and_the_wait_that_is_told_suffices() {
    const RATE: u64 = 400_000;
    const PIECE: u64 = 50_000;
    const REFUSALS: u32 = 5;
    let world = World::new();
    let alice = world.person();
    let leased = lease(&alice, SMALL, 0);
    let narrow = Narrow { bytes_per_second: Some(RATE), ..Narrow::default() };
    let token = attenuate(&leased.token, &narrow).unwrap();
    refused(alice.client.open_mapped(&token, Rights::READ), Code::MediatedOnly);
    let second = world.connect(&alice.key);
    let began = Instant::now();
    let rights = [&alice.client, &second].map(|client| client.open_mediated(&token, Rights::READ).unwrap());

    let (mut moved, mut refusals) = (0, 0);
    while refusals < REFUSALS {
        // By turns: both sessions share the one rate.
        for right in &rights {
            match read(right, PIECE) {
                Ok(()) => moved += PIECE,
                Err(error) => {
                    assert_eq!(error.code(), Code::Busy, "{error}");
                    assert!(error.detail().starts_with("rate: "), "{error}");
                    refusals += 1;
                    let wait = error.detail().rsplit(' ').nth(1).unwrap().parse().unwrap();
                    assert!((1..=PIECE * 1_000 / RATE + 1).contains(&wait), "{error}");
                    // Nobody else moves bytes, so what was told to suffice does.
                    std::thread::sleep(Duration::from_millis(wait));
                    read(right, PIECE).unwrap();
                    moved += PIECE;
                }
            }
        }
    }
    // Measured around everything that was counted: the node's span is shorter, never longer.
    let most = began.elapsed().as_secs_f64() * RATE as f64 + RATE as f64;
    assert!(moved as f64 <= most, "{moved} bytes, and at most {most:.0} are allowed");
    assert!(moved >= RATE, "a second's worth is there at the beginning");

    drop(rights);
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, second));
    world.balances();
    world.finish();
}

#[test]
fn who_delegates_pays_for_what_is_open() {
    // The first person that a world registers.
    let world = World::with("[quota.p0]\nopens = 3\nmappings = 1\n");
    let (alice, bob) = (world.person(), world.person());
    let leased = lease(&alice, SMALL, 1);
    let bobs = delegate(&leased.token, &alice.key, bob.key.public(), &Narrow::default()).unwrap();
    let session = world.connect(&bob.key);

    let mapped = session.open_mapped(&bobs, Rights::READ).unwrap();
    refused(alice.client.open_mapped(&leased.token, Rights::READ), Code::Quota);
    refused(bob.client.open_mapped(&bobs, Rights::READ), Code::Quota);
    let by_bob = bob.client.open_mediated(&bobs, Rights::READ).unwrap();
    let by_alice = alice.client.open_mediated(&leased.token, Rights::READ).unwrap();
    refused(bob.client.open_mediated(&bobs, Rights::READ), Code::Quota);
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::Quota);
    // Bob's own are not touched by that.
    let own = lease(&bob, SMALL, 0);
    drop(bob.client.open_mapped(&own.token, Rights::READ).unwrap());

    // A close, and the end of a session, each give a place back.
    drop(by_bob);
    let again = bob.client.open_mediated(&bobs, Rights::READ).unwrap();
    drop((mapped, session));
    let mapped = until("the session's right is given back", || {
        alice.client.open_mapped(&leased.token, Rights::READ).ok()
    });
    refused(bob.client.open_mediated(&bobs, Rights::READ), Code::Quota);
    // So does the end of the lease: all three are free.
    alice.client.revoke(Target::Lease(leased.lease.id), Reason::new("over").unwrap()).unwrap();
    let leased = lease(&alice, SMALL, 0);
    let all: Vec<_> =
        (0..3).map(|_| alice.client.open_mediated(&leased.token, Rights::READ).unwrap()).collect();
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::Quota);

    drop((again, by_alice, mapped, all));
    for (who, lease) in [(&alice, &leased), (&bob, &own)] {
        who.client.release(lease.lease.id).unwrap();
    }
    drop((alice, bob));
    world.balances();
    world.finish();
}
