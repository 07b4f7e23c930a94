//! A lease changes its owner: the bytes stay, and nothing of the former owner's does.

#[path = "common/mod.rs"]
mod common;

use caps::share::TransferContract;
use caps::time::Micros;
use caps::token::Narrow;
use caps::wire::{Reply, Request};
use common::raw::Raw;
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, SMALL, World, log, pattern, refused, until};
use libmem::{
    Client, Code, LeaseOptions, Leased, Lifetime, Reason, Rights, ShareOptions, TakenOver, Target,
    TransferId, TransferState,
};
use serde_json::Value;

fn offer(from: &Person, leased: &Leased, to: &Person) -> TransferContract {
    let row = from.client.transfer_offer(&leased.lease, to.key.public(), None, &from.key).unwrap();
    to.client.transfer_show(row.id).unwrap().contract
}

fn accept(to: &Person, contract: &TransferContract) -> libmem::Result<TakenOver> {
    to.client.transfer_accept(contract, Lifetime::Detached, &to.key)
}

fn raw(world: &World, who: &Person) -> Raw {
    Raw::connect(world.node.endpoint().path().expect("a socket"), &who.key).unwrap()
}

/// Leases and bytes of a person, as the administrator sees them.
fn used(admin: &Client, who: &Person) -> (u32, u64) {
    let row = admin.principals().map(Result::unwrap).find(|row| row.key == who.key.public()).unwrap();
    (row.leases, row.leased_bytes)
}

fn reason() -> Reason {
    Reason::new("over").unwrap()
}

#[test]
fn the_bytes_go_over_and_no_right_of_the_former_owner_does() {
    let world = World::new();
    let (alice, bob, carol, dave) = (world.person(), world.person(), world.person(), world.person());
    let options = LeaseOptions::new(SMALL, MINUTE).lifetime(Lifetime::Detached).max_hops(1);
    let leased = alice.client.lease(options).unwrap();
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let bytes = pattern(7, SMALL as usize);
    mine.write_at(0, &bytes).unwrap();
    let by_hand = alice.client.open_mediated(&leased.token, Rights::READ_WRITE).unwrap();
    // Whom alice let in: by a grant that is open, by one that nobody opened yet, by one nobody accepted, offline.
    let granted = alice.share(&leased.lease, &carol, Rights::READ_WRITE);
    let carols = carol.client.open_mapped(&granted.token, Rights::READ_WRITE).unwrap();
    let unopened = alice.share(&leased.lease, &carol, Rights::READ);
    let offered = ShareOptions::new(dave.key.public(), Rights::READ);
    let offered = alice.client.share_offer(&leased.lease, &offered, &alice.key).unwrap();
    let waiting = dave.client.share_show(offered.id).unwrap();
    let delegated =
        caps::token::delegate(&leased.token, &alice.key, dave.key.public(), &Narrow::default()).unwrap();
    let daves = dave.client.open_mediated(&delegated, Rights::READ).unwrap();

    let contract = offer(&alice, &leased, &bob);
    let mut first = [0; 8];
    mine.read_at(0, &mut first).unwrap();
    assert_eq!((used(&world.admin, &alice).0, used(&world.admin, &bob).0), (1, 0), "an offer moves nothing");
    let taken = accept(&bob, &contract).unwrap();
    assert_eq!((used(&world.admin, &alice), used(&world.admin, &bob)), ((0, 0), (1, SMALL)));
    assert_eq!((taken.leased.lease.id, taken.leased.lease.owner), (leased.lease.id, bob.key.public()));

    // Every path that was there: mappings, open rights, kept tokens.
    refused(mine.read_at(0, &mut first), Code::Revoked);
    refused(mine.write_at(0, &first), Code::Revoked);
    refused(carols.read_at(0, &mut first), Code::Revoked);
    refused(by_hand.read_at(0, &mut first), Code::Revoked);
    refused(by_hand.write_at(0, &first), Code::Revoked);
    refused(daves.read_at(0, &mut first), Code::Revoked);
    for token in [&leased.token, &leased.token] {
        refused(alice.client.open_mediated(token, Rights::READ), Code::TokenRevoked);
        refused(alice.client.open_mapped(token, Rights::READ_WRITE), Code::TokenRevoked);
        // Not even for the session that has it verified already, nor for a new one.
        refused(world.connect(&alice.key).open_mediated(token, Rights::READ), Code::TokenRevoked);
    }
    refused(carol.client.open_mapped(&granted.token, Rights::READ), Code::TokenRevoked);
    refused(carol.client.open_mediated(&unopened.token, Rights::READ), Code::TokenRevoked);
    refused(dave.client.open_mediated(&delegated, Rights::READ), Code::TokenRevoked);
    refused(dave.client.share_accept(&waiting.contract, Lifetime::Detached, &dave.key), Code::ShareOrder);
    refused(alice.client.renew(leased.lease.id, MINUTE), Code::LeaseUnknown);
    refused(alice.client.release(leased.lease.id), Code::LeaseUnknown);
    refused(alice.client.revoke(Target::Lease(leased.lease.id), reason()), Code::LeaseUnknown);
    refused(alice.client.lease_show(leased.lease.id), Code::LeaseUnknown);

    // Bob has all of it.
    let region = bob.client.open_mapped(&taken.leased.token, Rights::READ_WRITE).unwrap();
    let mut read = vec![0; SMALL as usize];
    region.read_at(0, &mut read).unwrap();
    assert_eq!(read, bytes);
    region.write_at(3, b"bob").unwrap();
    let renewed = bob.client.renew(leased.lease.id, 2 * MINUTE).unwrap();
    let again = bob.client.open_mediated(&renewed.token, Rights::READ).unwrap();
    again.read_at(3, &mut first[..3]).unwrap();
    assert_eq!(&first[..3], b"bob");
    let shared = bob.share(&renewed.lease, &carol, Rights::READ);
    let by_bobs = carol.client.open_mapped(&shared.token, Rights::READ).unwrap();
    by_bobs.read_at(3, &mut first[..3]).unwrap();
    assert_eq!(&first[..3], b"bob");
    // Alice still holds her old token, and what she takes back of it is nothing of bob's.
    alice.client.revoke_token(&leased.token, 0, reason()).unwrap();
    region.read_at(3, &mut first[..3]).unwrap();
    // To revoke her as a holder takes nothing of bob's, either.
    world.admin.revoke(Target::Holder(alice.key.public()), reason()).unwrap();
    region.write_at(3, b"BOB").unwrap();
    by_bobs.read_at(3, &mut first[..3]).unwrap();
    assert_eq!(&first[..3], b"BOB");
    bob.client.release(leased.lease.id).unwrap();
    refused(region.read_at(0, &mut first), Code::Revoked);
    drop((mine, by_hand, carols, by_bobs, daves, region, again));
    drop((alice, bob, carol, dave));
    world.balances();

    let log = world.finish();
    let id = contract.transfer;
    let of = |event| log::about(&log.broker, event, id);
    let offers = of("lease.offer");
    assert_eq!(offers.len(), 2, "both signatures");
    for (entry, signed) in offers.iter().zip([taken.signed.by_owner, taken.signed.by_receiver.unwrap()]) {
        assert_eq!(entry["signature"], data_encoding::HEXLOWER.encode(&signed.0)[..], "{entry}");
    }
    assert_eq!((of("lease.release").len(), of("lease.grant").len()), (1, 1));
    let (from, to) = (contract.from.to_string(), contract.to.to_string());
    let owners = |event: &str| -> Vec<&Value> {
        let about = |entry: &&Value| entry["lease"] == leased.lease.id.to_string()[..];
        log::of(&log.broker, event).into_iter().filter(about).map(|entry| &entry["subject"]).collect()
    };
    assert_eq!(owners("lease.grant"), [&from[..], &to[..]], "who owned it, in order");
    assert_eq!(owners("lease.release"), [&from[..], &to[..]], "and who gave it away, or up");
}

#[test]
fn a_lease_that_comes_back_brings_no_old_token_to_life() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let there = accept(&bob, &offer(&alice, &leased, &bob)).unwrap();
    let back = accept(&alice, &offer(&bob, &there.leased, &alice)).unwrap();
    refused(bob.client.open_mediated(&there.leased.token, Rights::READ), Code::TokenRevoked);
    refused(alice.client.open_mediated(&leased.token, Rights::READ), Code::TokenRevoked);
    alice.client.open_mapped(&back.leased.token, Rights::READ_WRITE).unwrap();
    assert_eq!((used(&world.admin, &alice), used(&world.admin, &bob)), ((1, SMALL), (0, 0)));
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob));
    world.balances();
    world.finish();
}

#[test]
fn what_is_refused_changes_nothing() {
    let world = World::with(&format!("[quota.p1]\nleased_bytes = \"{}\"\n", SMALL / 2));
    let (alice, bob, carol) = (world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    mine.write_at(0, b"hers").unwrap();
    let nobody = libmem::SigningKey::generate();
    let (mut by_alice, mut by_bob, mut by_carol) =
        (raw(&world, &alice), raw(&world, &bob), raw(&world, &carol));

    // Offers: of what is not there, by who does not own it, to nobody, with a wrong signature.
    let contract = TransferContract {
        cluster: alice.client.welcome().cluster,
        transfer: TransferId([5; 16]),
        lease: leased.lease.id,
        region: leased.lease.region,
        from: alice.key.public(),
        to: carol.key.public(),
        ttl: Micros(60_000_000),
    };
    let ask =
        |contract: TransferContract, key| Request::TransferOffer { contract, signature: contract.sign(key) };
    let stolen = TransferContract { from: carol.key.public(), to: bob.key.public(), ..contract };
    refused(by_carol.ask(&ask(contract, &alice.key)), Code::LeaseUnknown);
    refused(by_carol.ask(&ask(stolen, &carol.key)), Code::LeaseUnknown);
    refused(by_alice.ask(&ask(stolen, &alice.key)), Code::LeaseUnknown);
    refused(by_alice.ask(&ask(contract, &carol.key)), Code::ContractSignature);
    let to_nobody = TransferContract { to: nobody.public(), ..contract };
    refused(by_alice.ask(&ask(to_nobody, &alice.key)), Code::PrincipalUnknown);
    let to_self = TransferContract { to: alice.key.public(), ..contract };
    refused(by_alice.ask(&ask(to_self, &alice.key)), Code::Range);
    let elsewhere = TransferContract { cluster: caps::id::ClusterEpoch([7; 16]), ..contract };
    refused(by_alice.ask(&ask(elsewhere, &alice.key)), Code::Epoch);
    // Acceptance before there is an offer.
    let yes = |contract: &TransferContract, key| Request::TransferAccept {
        transfer: contract.transfer,
        signature: contract.sign(key),
        lifetime: Lifetime::Detached,
    };
    refused(by_carol.ask(&yes(&contract, &carol.key)), Code::GrantUnknown);

    // To bob, whose quota has no room for it.
    let to_bob = offer(&alice, &leased, &bob);
    refused(by_alice.ask(&ask(contract, &alice.key)), Code::Exists);
    refused(accept(&bob, &to_bob), Code::Quota);
    mine.write_at(0, b"HERS").unwrap();
    alice.client.open_mediated(&leased.token, Rights::READ).unwrap();
    assert_eq!((used(&world.admin, &alice), used(&world.admin, &bob)), ((1, SMALL), (0, 0)));
    // A stranger learns nothing, and who is a party signs for itself alone.
    refused(by_carol.ask(&yes(&to_bob, &carol.key)), Code::GrantUnknown);
    refused(carol.client.transfer_show(to_bob.transfer), Code::GrantUnknown);
    refused(carol.client.transfer_withdraw(to_bob.transfer), Code::GrantUnknown);
    assert_eq!(carol.client.transfers().count(), 0);
    refused(by_alice.ask(&yes(&to_bob, &bob.key)), Code::Denied);
    refused(by_bob.ask(&yes(&to_bob, &alice.key)), Code::Quota);
    assert_eq!(bob.client.transfer_withdraw(to_bob.transfer).unwrap().state, TransferState::Ended);
    refused(accept(&bob, &to_bob), Code::ShareOrder);

    // To carol, who may have it: the wrong key, the wrong text, then twice.
    let to_carol = offer(&alice, &leased, &carol);
    refused(by_carol.ask(&yes(&to_carol, &bob.key)), Code::ContractSignature);
    let other = TransferContract { ttl: Micros(1), ..to_carol };
    refused(by_carol.ask(&yes(&other, &carol.key)), Code::ContractSignature);
    let share = Request::ShareAccept {
        grant: caps::id::GrantId(to_carol.transfer.0),
        signature: to_carol.sign(&carol.key),
        lifetime: Lifetime::Detached,
    };
    refused(by_carol.ask(&share), Code::GrantUnknown);
    mine.write_at(0, b"hers").unwrap();
    assert!(matches!(by_carol.ask(&yes(&to_carol, &carol.key)), Ok(Reply::Transferred { .. })));
    refused(by_carol.ask(&yes(&to_carol, &carol.key)), Code::ShareOrder);
    refused(alice.client.transfer_withdraw(to_carol.transfer), Code::ShareOrder);
    refused(mine.write_at(0, b"hers"), Code::Revoked);
    refused(
        alice.client.transfer_offer(&leased.lease, bob.key.public(), None, &alice.key),
        Code::LeaseUnknown,
    );
    // An offer ends with its lease.
    let hers = carol.client.lease_show(leased.lease.id).unwrap().lease;
    let row = carol.client.transfer_offer(&hers, alice.key.public(), None, &carol.key).unwrap();
    let last = alice.client.transfer_show(row.id).unwrap().contract;
    carol.client.release(leased.lease.id).unwrap();
    refused(accept(&alice, &last), Code::ShareOrder);
    drop((mine, by_alice, by_bob, by_carol));
    drop((alice, bob, carol));
    world.balances();
    world.finish();
}

#[test]
fn an_offer_ends_by_itself_and_a_lease_with_its_new_owners_process() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let short = Some(std::time::Duration::from_millis(50));
    let row = alice.client.transfer_offer(&leased.lease, bob.key.public(), short, &alice.key).unwrap();
    let contract = bob.client.transfer_show(row.id).unwrap().contract;
    until("the offer is over", || {
        let row = bob.client.transfer_show(row.id).unwrap().transfer;
        (row.state == TransferState::Ended && row.cause.is_some()).then_some(())
    });
    refused(accept(&bob, &contract), Code::ShareOrder);
    // The session that took the lease over ends, and the lease with it, though it was detached before.
    let contract = offer(&alice, &leased, &bob);
    let session = world.connect(&bob.key);
    session.transfer_accept(&contract, Lifetime::Process, &bob.key).unwrap();
    // The former owner's process may go meanwhile.
    drop(alice);
    assert_eq!(used(&world.admin, &bob), (1, SMALL));
    drop(session);
    drop(bob);
    world.balances();
    world.finish();
}

#[test]
fn the_command_line_shows_what_it_signs_and_takes_the_lease_over() {
    let world = World::new();
    let shell = Shell::new(world.node.path());
    for name in ["ann", "ben"] {
        shell.json(&["id", "new", name]);
    }
    shell.bytes(&["lease", "create", "--as", "ann", "--size", "64KiB", "--ttl", "1m", "--name", "frames"]);
    shell.pipe(&["put", "frames", "--as", "ann"], b"for ben");
    let offered = shell.json(&["transfer", "offer", "frames", "--as", "ann", "--to", "ben", "--ttl", "30s"]);
    let id = offered["transfer"]["id"].as_str().unwrap();
    let dry = shell.json(&["transfer", "accept", id, "--as", "ben", "--dry-run"]);
    assert_eq!(dry["accepted"], false);
    let shown = shell.json(&["transfer", "show", id, "--as", "ann"]);
    assert_eq!((&shown["digest"], &shown["contract"]), (&dry["digest"], &dry["contract"]));
    assert_eq!(shown["signed"]["by_receiver"], Value::Null);
    let wrong = "0".repeat(64);
    shell.fails(&["transfer", "accept", id, "--as", "ben", "--if", &wrong], 5, "E_CONTRACT_SIG");
    assert_eq!(
        shell.bytes(&["get", "frames", "--as", "ann", "--len", "7"]),
        b"for ben",
        "nothing was changed"
    );
    let digest = dry["digest"].as_str().unwrap();
    let token = world.node.path().join("taken.token");
    let token = token.to_str().unwrap();
    let taken = shell.json(&["transfer", "accept", id, "--as", "ben", "--if", digest, "-o", token]);
    assert_eq!(taken["lease"]["owner_name"], "ben");
    assert_eq!(shell.bytes(&["get", "frames", "--as", "ben", "--len", "7"]), b"for ben");
    assert_eq!(shell.bytes(&["get", token, "--as", "ben", "--len", "3"]), b"for");
    let kept = shell.pipe(&["get", "frames", "--as", "ann", "--len", "7"], b"");
    assert_eq!((kept.status.code(), &kept.stdout[..]), (Some(3), &b""[..]), "{kept:?}");
    assert!(kept.stderr.starts_with(b"error[E_TOKEN_REVOKED]"), "{kept:?}");
    let none = shell.json(&["transfer", "list", "--as", "ann"]);
    assert_eq!(none["transfers"].as_array().unwrap().len(), 0);
    let all = shell.json(&["transfer", "list", "--as", "ann", "--all"]);
    assert_eq!(all["transfers"][0]["state"], "done");
    let lease = taken["lease"]["id"].as_str().unwrap();
    let next = shell.json(&["transfer", "offer", lease, "--as", "ben", "--to", "ann"]);
    let next = next["transfer"]["id"].as_str().unwrap();
    shell.json(&["transfer", "withdraw", next, "--as", "ben"]);
    shell.fails(&["transfer", "accept", next, "--as", "ann"], 1, "E_SHARE_ORDER");
    shell.json(&["lease", "release", lease, "--as", "ben"]);
    world.balances();
    world.finish();
}
