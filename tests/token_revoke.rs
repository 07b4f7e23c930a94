//! Revoking below a grant: a token that its holder narrowed or delegated is taken back, with all that was made of it, on
//! every path; whoever holds anything else goes on and loses nothing.

#[path = "common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use caps::token::{Narrow, RevocationId, attenuate, delegate, forge, inspect};
use common::raw::Raw;
use common::shell::Shell;
use common::world::Person;
use common::{Ask, MINUTE, SMALL, Said, USERS, World, log, refused, until};
use libmem::{
    Accepted, Client, Code, LeaseOptions, Leased, Lifetime, Reason, Receipt, Region, Rights, ShareOptions,
    SigningKey, Target, Token,
};

/// Bytes of a segment.
const SEGMENT: u64 = 16 << 10;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

fn reason() -> Reason {
    Reason::new("a test ends it").unwrap()
}

/// A node at which whoever holds a token may open it, registered or not.
fn world() -> World {
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), "allow if request($any);\n").unwrap();
    World::with(&format!("[policy]\nfile = {:?}\nallow_all = true\n", policy.path()))
}

/// Somebody with a key, known to nobody.
fn outsider(world: &World) -> Person {
    let key = SigningKey::generate();
    let client = world.connect(&key);
    Person { key, client }
}

/// Shares all of a lease, read and write, with two delegations allowed.
fn share(alice: &Person, leased: &Leased, bob: &Person) -> Accepted {
    let options = ShareOptions::new(bob.key.public(), Rights::READ_WRITE).max_hops(2);
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
    let contract = bob.client.share_show(grant.id).unwrap().contract;
    bob.client.share_accept(&contract, Lifetime::Detached, &bob.key).unwrap()
}

/// Hands a token on, offline.
fn pass(token: &Token, from: &Person, to: &Person) -> Token {
    delegate(token, &from.key, to.key.public(), &Narrow::default()).unwrap()
}

/// The ids in a token.
fn ids(token: &Token) -> Vec<String> {
    inspect(token, None).unwrap().revocation_ids
}

fn read_only() -> Narrow {
    Narrow { rights: Some(Rights::READ), ..Narrow::default() }
}

/// Everything of `token` is dead, for a session that used it and for a fresh one.
#[track_caller]
fn dead(world: &World, who: &Person, token: &Token) {
    let fresh = world.connect(&who.key);
    for client in [&who.client, &fresh] {
        refused(client.open_mapped(token, Rights::READ), Code::TokenRevoked);
        refused(client.open_mediated(token, Rights::READ), Code::TokenRevoked);
    }
}

#[track_caller]
fn lives(region: &Region) {
    let before = region.load_u64(64).unwrap();
    region.store_u64(64, before + 1).unwrap();
    assert_eq!(region.load_u64(64).unwrap(), before + 1);
}

fn map(who: &Person, token: &Token) -> Region {
    who.client.open_mapped(token, Rights::READ_WRITE).unwrap()
}

#[track_caller]
fn of_block(world: &World, receipt: &Receipt, leased: &Leased, id: &str) {
    receipt.verify(world.node.issuer()).unwrap();
    let id = RevocationId::parse(id).unwrap();
    assert_eq!(receipt.body.target, Target::Block { lease: leased.lease.id, id });
    assert!(receipt.body.leases.is_empty(), "no lease's memory was taken back whole");
    assert!(receipt.body.log_index.is_some());
}

#[test]
fn a_delegate_is_dead_on_every_path_and_nobody_else_loses_anything() {
    let world = world();
    let (alice, bob) = (world.person(), world.person());
    let (carol, dave) = (outsider(&world), outsider(&world));
    let leased = alice.lease(SMALL);
    let to_bob = share(&alice, &leased, &bob);
    let (carols, daves) = (pass(&to_bob.token, &bob, &carol), pass(&to_bob.token, &bob, &dave));

    let mine = map(&alice, &leased.token);
    let (at_bobs, at_carols, at_daves) = (map(&bob, &to_bob.token), map(&carol, &carols), map(&dave, &daves));
    let mediated = carol.client.open_mediated(&carols, Rights::READ_WRITE).unwrap();
    mediated.write_at(512, b"by calls").unwrap();
    // She passes her bare descriptor on to a process that has neither key, token nor session.
    let mut holder = Raw::connect(world.node.endpoint().path().expect("a socket"), &carol.key).unwrap();
    let bare = holder.open_mapped(&carols, Rights::READ_WRITE).unwrap();
    let mut third = world.actor(&SigningKey::generate(), USERS[2]);
    let said = third.ask(&Ask::TakeDescriptor { bytes: SMALL as usize });
    assert!(matches!(said, Said::Ready), "{said:?}");
    third.give(std::os::fd::AsFd::as_fd(&bare.descriptor));
    assert!(matches!(third.hear(), Some(Said::Started)));
    // And uses it in a process of its own.
    let mut process = world.actor(&carol.key, USERS[1]);
    let memory = process.open(&carols.to_text(), Rights::READ, true);
    process.start_using(memory, false, false);

    let stop = AtomicBool::new(false);
    let (wrote, receipt) = std::thread::scope(|scope| {
        let bob_writes = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                at_bobs.store_u64(0, count).unwrap();
            }
            count
        });
        until("bob writes", || (mine.load_u64(0).unwrap() > 1_000).then_some(()));
        let receipt = bob.client.revoke_token(&carols, 1, reason()).unwrap();
        let then = mine.load_u64(0).unwrap();
        until("bob writes on", || (mine.load_u64(0).unwrap() > then + 1_000).then_some(()));
        stop.store(true, Ordering::Relaxed);
        (bob_writes.join().unwrap(), receipt)
    });
    assert_eq!(mine.load_u64(0).unwrap(), wrote, "no write of his is lost");
    // The delegating holder's signature names the block: it cannot be changed by appending it again.
    let id = ids(&carols).last().unwrap().clone();
    of_block(&world, &receipt, &leased, &id);

    refused(at_carols.load_u64(0), Code::Revoked);
    refused(mediated.write_at(512, b"too late"), Code::Revoked);
    assert_eq!(third.wait_for_signal(), libc::SIGBUS);
    assert_eq!(process.hear_stopped(), "E_REVOKED");
    dead(&world, &carol, &carols);
    // Nor has what she makes of it any life, nor the same block once more.
    dead(&world, &carol, &attenuate(&carols, &read_only()).unwrap());
    let block = forge::blocks(carols.as_bytes()).unwrap().pop().unwrap();
    let again = forge::append_raw(to_bob.token.as_bytes(), &block, Some(&bob.key.seed()), &[77; 32]).unwrap();
    let again = Token::from_bytes(again).unwrap();
    assert_ne!(ids(&again)[1], ids(&carols)[1], "another signature of the block");
    assert_eq!(ids(&again)[2], ids(&carols)[2], "on the same delegation");
    dead(&world, &carol, &again);

    for region in [&mine, &at_bobs, &at_daves] {
        lives(region);
    }
    // A new delegation is another one.
    let anew = delegate(&to_bob.token, &bob.key, carol.key.public(), &read_only()).unwrap();
    drop(carol.client.open_mapped(&anew, Rights::READ).unwrap());
    // With the grant everything that was made of it ends.
    alice.client.revoke(Target::Grant(to_bob.grant.id), reason()).unwrap();
    refused(at_daves.load_u64(0), Code::Revoked);
    dead(&world, &dave, &daves);
    dead(&world, &carol, &anew);
    lives(&mine);

    alice.client.release(leased.lease.id).unwrap();
    drop((mine, at_bobs, at_carols, at_daves, mediated, bare, holder, third, process));
    drop((alice, bob, carol, dave));
    world.balances();
    let log = world.finish();
    let entry = &log.broker[receipt.body.log_index.unwrap() as usize];
    assert_eq!(
        (&entry["event"], &entry["revocation_id"]),
        (&"lease.revoke".into(), &id[..].into()),
        "{entry}"
    );
    assert_eq!((&entry["cause"], &entry["reason"]), (&"revoked".into(), &"a test ends it".into()), "{entry}");
    // An auditor finds the id in what the provider wrote when she opened it.
    let named = ids(&carols).concat();
    let opened = log::of(&log.provider, "share.open");
    assert!(opened.iter().any(|entry| entry["revocation_id"] == named[..] && entry["method"] == "mapped"));
    assert!(opened.iter().any(|entry| entry["revocation_id"] == ids(&to_bob.token)[0][..]));
}

#[test]
fn who_held_a_token_may_revoke_what_came_after_and_nothing_before() {
    let world = world();
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let (carol, dave, stranger) = (outsider(&world), outsider(&world), outsider(&world));
    let leased = alice.lease(SMALL);
    let to_bob = share(&alice, &leased, &bob);
    let carols = pass(&to_bob.token, &bob, &carol);
    let daves = pass(&carols, &carol, &dave);
    let (at_carols, at_daves) = (map(&carol, &carols), map(&dave, &daves));

    refused(mallory.client.revoke_token(&daves, 2, reason()), Code::Denied);
    refused(stranger.client.revoke_token(&daves, 2, reason()), Code::PrincipalUnknown);
    refused(dave.client.revoke_token(&daves, 1, reason()), Code::PrincipalUnknown);
    refused(carol.client.revoke_token(&daves, 0, reason()), Code::PrincipalUnknown);
    refused(bob.client.revoke_token(&daves, 3, reason()), Code::Range);
    let id = RevocationId::parse(&ids(&daves)[2]).unwrap();
    let block = Target::Block { lease: leased.lease.id, id };
    refused(bob.client.revoke(block.clone(), reason()), Code::LeaseUnknown);
    lives(&at_daves);

    // By who delegated it, outside of the books as she is.
    carol.client.revoke_token(&daves, 2, reason()).unwrap();
    refused(at_daves.load_u64(0), Code::Revoked);
    lives(&at_carols);
    // By who holds it, of her own.
    carol.client.revoke_token(&carols, 1, reason()).unwrap();
    refused(at_carols.load_u64(0), Code::Revoked);
    dead(&world, &carol, &carols);

    // By the owner, by the id that stands in the log, and by the administrator; once more is the same.
    let (for_carol, for_dave) = (pass(&to_bob.token, &bob, &dave), pass(&to_bob.token, &bob, &mallory));
    let (one, two) = (map(&dave, &for_carol), map(&mallory, &for_dave));
    let id = RevocationId::parse(ids(&for_carol).last().unwrap()).unwrap();
    let by_id = Target::Block { lease: leased.lease.id, id };
    let first = alice.client.revoke(by_id.clone(), reason()).unwrap();
    refused(one.load_u64(0), Code::Revoked);
    lives(&two);
    assert_eq!(alice.client.revoke(by_id, reason()).unwrap(), first, "the receipt that it was");
    let receipt = world.admin.revoke_token(&for_dave, 1, reason()).unwrap();
    refused(two.load_u64(0), Code::Revoked);
    assert_eq!(world.admin.revoke_token(&for_dave, 1, reason()).unwrap(), receipt);
    // Somebody else's second receipt is its own, and tells of nothing closed.
    let other = bob.client.revoke_token(&for_dave, 1, reason()).unwrap();
    other.verify(world.node.issuer()).unwrap();
    assert_eq!((other.body.target, other.body.mappings_closed), (receipt.body.target, 0));
    lives(&map(&bob, &to_bob.token));

    alice.client.release(leased.lease.id).unwrap();
    // What is over is no error.
    bob.client.revoke_token(&for_dave, 1, reason()).unwrap();
    drop((at_carols, at_daves, one, two));
    drop((alice, bob, mallory, carol, dave, stranger));
    world.balances();
    world.finish();
}

#[test]
fn only_what_a_token_reaches_is_rotated_and_what_only_calls_use_is_fenced() {
    let world = world();
    let (alice, bob) = (world.person(), world.person());
    let carol = outsider(&world);
    let options = LeaseOptions::new(4 * SEGMENT, MINUTE).segment(SEGMENT).lifetime(Lifetime::Detached);
    let leased = alice.client.lease(options.max_hops(1)).unwrap();
    let to_bob = share(&alice, &leased, &bob);
    let rotations = || alice.client.lease_show(leased.lease.id).unwrap().memory.unwrap().rotations;
    let (mine, at_bobs) = (map(&alice, &leased.token), map(&bob, &to_bob.token));
    // Every segment of bob's is mapped.
    for segment in 0..4 {
        at_bobs.store_u64(segment * SEGMENT, segment).unwrap();
    }

    // Never mapped: the fence alone.
    let never = pass(&to_bob.token, &bob, &carol);
    let calls = carol.client.open_mediated(&never, Rights::READ).unwrap();
    bob.client.revoke_token(&never, 1, reason()).unwrap();
    refused(calls.read_at(0, &mut [0; 8]), Code::Revoked);
    assert_eq!(rotations(), 0);

    // A part: no other segment.
    let part = libmem::ByteRange::new(SEGMENT, 2 * SEGMENT).unwrap();
    let narrow = Narrow { range: Some(part), ..Narrow::default() };
    let second = delegate(&to_bob.token, &bob.key, carol.key.public(), &narrow).unwrap();
    let at_second = map(&carol, &second);
    at_second.store_u64(SEGMENT, 7).unwrap();
    bob.client.revoke_token(&second, 1, reason()).unwrap();
    refused(at_second.load_u64(SEGMENT), Code::Revoked);
    assert_eq!((rotations(), at_bobs.load_u64(SEGMENT).unwrap()), (1, 7));

    // What its holder narrowed for himself, and what the owner did and delegated.
    let child = attenuate(&to_bob.token, &read_only()).unwrap();
    let at_child = bob.client.open_mapped(&child, Rights::READ).unwrap();
    bob.client.revoke_token(&child, 1, reason()).unwrap();
    refused(at_child.load_u64(0), Code::Revoked);
    dead(&world, &bob, &child);
    let own = attenuate(&leased.token, &read_only()).unwrap();
    let at_own = alice.client.open_mapped(&own, Rights::READ).unwrap();
    alice.client.revoke_token(&own, 1, reason()).unwrap();
    refused(at_own.load_u64(0), Code::Revoked);
    let hers = pass(&leased.token, &alice, &carol);
    let at_hers = map(&carol, &hers);
    alice.client.revoke_token(&hers, 1, reason()).unwrap();
    refused(at_hers.load_u64(0), Code::Revoked);
    for region in [&mine, &at_bobs] {
        lives(region);
    }
    // The owner's own token itself: what it maps cannot be taken but with the memory.
    let receipt = alice.client.revoke_token(&leased.token, 0, reason()).unwrap();
    assert_eq!(receipt.body.leases, [leased.lease.id]);

    drop((mine, at_bobs, calls, at_second, at_child, at_own, at_hers));
    drop((alice, bob, carol));
    world.balances();
    world.finish();
}

#[test]
fn a_person_is_taken_off_as_a_delegate_whoever_delegated() {
    let world = world();
    let (alice, bob, ben) = (world.person(), world.person(), world.person());
    let carol = outsider(&world);
    let leased = alice.lease(SMALL);
    let (to_bob, to_ben) = (share(&alice, &leased, &bob), share(&alice, &leased, &ben));
    let tokens = [pass(&to_bob.token, &bob, &carol), pass(&to_ben.token, &ben, &carol)];
    let regions = tokens.each_ref().map(|token| map(&carol, token));
    let (at_bobs, mine) = (map(&bob, &to_bob.token), map(&alice, &leased.token));

    refused(bob.client.revoke(Target::Holder(carol.key.public()), reason()), Code::PrincipalUnknown);
    let receipt = alice.client.revoke(Target::Holder(carol.key.public()), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    for (region, token) in regions.iter().zip(&tokens) {
        refused(region.load_u64(0), Code::Revoked);
        dead(&world, &carol, token);
    }
    // Nor by a new delegation; but by a grant of her own.
    dead(&world, &carol, &delegate(&to_bob.token, &bob.key, carol.key.public(), &read_only()).unwrap());
    world.admin.principal_add(libmem::Name::new("carol").unwrap(), carol.key.public()).unwrap();
    let to_carol = alice.share(&leased.lease, &carol, Rights::READ_WRITE);
    lives(&map(&carol, &to_carol.token));
    for region in [&at_bobs, &mine] {
        lives(region);
    }

    alice.client.release(leased.lease.id).unwrap();
    drop((regions, at_bobs, mine));
    drop((alice, bob, ben, carol));
    world.balances();
    let log = world.finish();
    let entry = &log.broker[receipt.body.log_index.unwrap() as usize];
    assert_eq!((&entry["event"], &entry["count"]), (&"lease.revoke".into(), &"1".into()), "{entry}");
}

#[test]
fn where_no_more_can_be_remembered_the_grant_goes_and_a_mere_holder_is_told() {
    let world = world();
    let (alice, bob, ben) = (world.person(), world.person(), world.person());
    let carol = outsider(&world);
    let leased = alice.lease(SMALL);
    let (to_bob, to_ben) = (share(&alice, &leased, &bob), share(&alice, &leased, &ben));
    let carols = pass(&to_bob.token, &bob, &carol);
    let regions = [map(&alice, &leased.token), map(&bob, &to_bob.token), map(&carol, &carols)];
    let [mine, at_bobs, at_carols] = &regions;
    let fill = |client: &Client, from: usize, to: usize| {
        for n in from..to {
            let mut id = RevocationId([0; 64]);
            id.0[..8].copy_from_slice(&n.to_le_bytes());
            client.revoke(Target::Block { lease: leased.lease.id, id }, reason()).unwrap();
        }
    };
    let (half, whole) = (policy::limits::MARKS_OF_DELEGATES_MAX, policy::limits::MARKS_PER_REGION_MAX);
    fill(&alice.client, 0, half);
    refused(carol.client.revoke_token(&carols, 1, reason()), Code::Quota);
    lives(at_carols);
    // The owner has room yet.
    let others = pass(&to_bob.token, &bob, &ben);
    alice.client.revoke_token(&others, 1, reason()).unwrap();
    dead(&world, &ben, &others);
    lives(at_carols);
    // The other side of a grant takes all of that.
    let receipt = bob.client.revoke_token(&carols, 1, reason()).unwrap();
    of_block(&world, &receipt, &leased, ids(&carols).last().unwrap());
    for region in [at_carols, at_bobs] {
        refused(region.load_u64(0), Code::Revoked);
    }
    dead(&world, &bob, &to_bob.token);
    assert!(alice.client.shares().any(|row| row.unwrap().id == to_ben.grant.id));
    // And so does the owner, when all of the room is taken.
    fill(&alice.client, half, whole - 2);
    let at_bens = map(&ben, &to_ben.token);
    alice.client.revoke_token(&attenuate(&to_ben.token, &read_only()).unwrap(), 1, reason()).unwrap();
    refused(at_bens.load_u64(0), Code::Revoked);
    lives(mine);

    alice.client.release(leased.lease.id).unwrap();
    drop((regions, at_bens));
    drop((alice, bob, ben, carol));
    world.balances();
    world.finish();
}

#[test]
fn the_command_revokes_by_file_and_by_id() {
    let world = World::new();
    let shell = Shell::new(world.node.path());
    for name in ["ann", "ben", "cat"] {
        shell.json(&["id", "new", name]);
    }
    let create = ["lease", "create", "--as", "ann", "--size", "64KiB", "--ttl", "1m", "--name", "desk"];
    shell.json(&[&create[..], &["--hops", "1"]].concat());
    let hand = |range: &str, file: &str| {
        let to_cat = ["token", "delegate", "desk", "--as", "ann", "--to", "cat"];
        shell.json(&[&to_cat[..], &["--range", range, "-o", file]].concat());
    };
    hand("0..64KiB", "one.token");
    assert_eq!(shell.bytes(&["get", "./one.token", "--as", "cat"]).len(), 65_536);
    shell.fails(&["revoke", "token", "./one.token", "--block", "0", "--as", "cat"], 3, "E_DENIED");
    shell.fails(&["revoke", "token", "./one.token", "--lease", "desk", "--as", "ann"], 2, "E_USAGE");
    shell.fails(&["revoke", "lease", "desk", "--block", "0", "--as", "ann"], 2, "E_USAGE");
    shell.fails(&["revoke", "token", "./one.token", "--as", "ben"], 3, "E_DENIED");
    let whole = shell.json(&["revoke", "token", "./one.token", "--as", "ann", "--reason", "over"]);
    let receipt = &whole["receipt"];
    let ids = shell.json(&["token", "inspect", "./one.token"])["token"]["revocation_ids"].clone();
    assert_eq!((&receipt["target"]["kind"], &receipt["target"]["id"]), (&"block".into(), &ids[2]));
    shell.fails(&["get", "./one.token", "--as", "cat", "-o", "bytes"], 3, "E_TOKEN_REVOKED");
    // An auditor can check the receipt that was printed.
    std::fs::write(world.node.path().join("receipt.json"), whole.to_string()).unwrap();
    let audit = world.node.audit();
    let audit = audit.to_str().unwrap();
    let issuer = world.node.issuer().to_string();
    let vkeys = world.node.audit().join("vkeys");
    let vkeys = vkeys.to_str().unwrap();
    let check = ["audit", "receipt", "receipt.json", "--issuer", &issuer, "--log", audit, "--vkey", vkeys];
    assert_eq!(shell.json(&check)["ok"], true);

    // The same delegation once more is the one that was taken back; another is not.
    hand("0..64KiB", "same.token");
    shell.fails(&["get", "./same.token", "--as", "cat", "-o", "bytes"], 3, "E_TOKEN_REVOKED");
    hand("0..32KiB", "two.token");
    let ids = shell.json(&["token", "inspect", "./two.token"])["token"]["revocation_ids"].clone();
    let id = ids[2].as_str().unwrap();
    assert_eq!(shell.bytes(&["get", "./two.token", "--as", "cat"]).len(), 32_768);
    shell.fails(&["revoke", "block", id, "--as", "ann"], 2, "E_USAGE");
    shell.fails(&["revoke", "block", &id[1..], "--lease", "desk", "--as", "ann"], 2, "E_USAGE");
    let receipt = &shell.json(&["revoke", "block", id, "--lease", "desk", "--as", "ann"])["receipt"];
    assert_eq!(receipt["target"]["id"], id);
    shell.fails(&["get", "./two.token", "--as", "cat", "-o", "bytes"], 3, "E_TOKEN_REVOKED");
    assert_eq!(shell.bytes(&["get", "desk", "--as", "ann"]).len(), 65_536);
    shell.json(&["lease", "release", "desk", "--as", "ann"]);
    world.balances();
    world.finish();
}
