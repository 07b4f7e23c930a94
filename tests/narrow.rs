//! A part of a grant is taken back, live, and the rest goes on: read-write to read-only, a narrower range, an earlier
//! end. After the receipt nothing beyond the rest can be reached by any path; nobody else loses anything.

#[path = "common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::shell::Shell;
use common::world::Person;
use common::{Ask, MINUTE, SMALL, Said, USERS, World, log, refused, until};
use libmem::{
    Accepted, ByteRange, Code, GrantId, LeaseOptions, Leased, Lifetime, Narrowing, Reason, Receipt, Region,
    Rights, ShareOptions, Target,
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

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

fn read_only() -> Narrowing {
    Narrowing::new().rights(Rights::READ)
}

/// A lease of four segments.
fn pieces(owner: &Person) -> Leased {
    let options = LeaseOptions::new(4 * SEGMENT, MINUTE).segment(SEGMENT).lifetime(Lifetime::Detached);
    owner.client.lease(options).unwrap()
}

/// The row of a grant, as `who` sees it.
fn row(who: &Person, grant: GrantId) -> libmem::GrantRow {
    who.client.shares().map(Result::unwrap).find(|row| row.id == grant).unwrap()
}

fn map(who: &Person, accepted: &Accepted, rights: Rights) -> Region {
    who.client.open_mapped(&accepted.token, rights).unwrap()
}

#[track_caller]
fn checked(world: &World, receipt: &Receipt, grant: GrantId) {
    receipt.verify(world.node.issuer()).unwrap();
    assert_eq!(receipt.body.target, Target::Grant(grant));
    assert!(receipt.body.leases.is_empty(), "no lease's memory was taken back whole");
    assert!(receipt.body.log_index.is_some());
}

#[test]
fn a_writer_becomes_a_reader_and_nobody_else_loses_anything() {
    let world = World::new();
    let (alice, bob, carol) = (world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let to_bob = alice.share(&leased.lease, &bob, Rights::READ_WRITE);
    let to_carol = alice.share(&leased.lease, &carol, Rights::READ_WRITE);
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let (bobs, carols) = (map(&bob, &to_bob, Rights::READ_WRITE), map(&carol, &to_carol, Rights::READ_WRITE));
    let mediated = bob.client.open_mediated(&to_bob.token, Rights::READ_WRITE).unwrap();
    mediated.write_at(512, b"by calls").unwrap();

    let grant = to_bob.grant.id;
    let (done, receipt) = std::thread::scope(|scope| {
        // Each writes a count of its own until that fails; a count that was written once is never lost.
        fn write(region: &Region, offset: u64) -> (u64, Code) {
            let mut count = 0;
            loop {
                match region.store_u64(offset, count + 1) {
                    Ok(()) => count += 1,
                    Err(error) => return (count, error.code()),
                }
            }
        }
        let bob_writes = scope.spawn(|| write(&bobs, 0));
        let carol_writes = scope.spawn(|| write(&carols, 8));
        until("both write", || {
            (mine.load_u64(0).unwrap() > 1_000 && mine.load_u64(8).unwrap() > 1_000).then_some(())
        });
        let receipt = alice.client.share_narrow(grant, read_only()).unwrap();
        let after = mine.load_u64(0).unwrap();
        let bob_wrote = bob_writes.join().unwrap();
        assert_eq!(
            bob_wrote,
            (after, Code::Denied),
            "no write after the receipt, and none before it is lost"
        );
        assert_eq!(bobs.load_u64(0).unwrap(), after, "and he reads on, what all others read");
        let carol_wrote = mine.load_u64(8).unwrap();
        until("carol writes on", || (mine.load_u64(8).unwrap() > carol_wrote + 1_000).then_some(()));
        let last = alice.client.revoke(Target::Grant(to_carol.grant.id), reason()).unwrap();
        assert_eq!(last.body.left, None);
        (carol_writes.join().unwrap(), receipt)
    });
    assert_eq!(done, (mine.load_u64(8).unwrap(), Code::Revoked));

    checked(&world, &receipt, grant);
    let left = receipt.body.left.unwrap();
    assert_eq!((left.rights, left.range), (Rights::READ, leased.lease.range));
    // The old right is gone by every path, and by a fresh session.
    let again = world.connect(&bob.key);
    for client in [&bob.client, &again] {
        refused(client.open_mapped(&to_bob.token, Rights::READ_WRITE), Code::Denied);
        refused(client.open_mediated(&to_bob.token, Rights::READ_WRITE), Code::Denied);
        let reader = client.open_mapped(&to_bob.token, Rights::READ).unwrap();
        assert_eq!(reader.load_u64(0).unwrap(), mine.load_u64(0).unwrap());
        refused(reader.write_at(0, b"x"), Code::Denied);
    }
    refused(mediated.write_at(512, b"too late"), Code::Denied);
    let mut bytes = [0; 8];
    mediated.read_at(512, &mut bytes).unwrap();
    assert_eq!(&bytes, b"by calls");
    // What all others write, bob sees.
    mine.store_u64(0, 7).unwrap();
    assert_eq!(bobs.load_u64(0).unwrap(), 7);

    // The list shows what is left; the contract is as both signed it.
    for who in [&alice, &bob] {
        let row = row(who, grant);
        assert_eq!((row.rights, row.agreed.rights), (Rights::READ, Rights::READ_WRITE));
        assert_eq!(row.range, row.agreed.range);
    }
    let proposal = bob.client.share_show(grant).unwrap();
    assert_eq!((proposal.contract.rights, proposal.grant.rights), (Rights::READ_WRITE, Rights::READ));
    // Once more is the same, and the receipt is the one it was.
    let second = alice.client.share_narrow(grant, read_only()).unwrap();
    assert_eq!(second, receipt);
    // Then the end of it.
    let last = alice.client.revoke(Target::Grant(grant), reason()).unwrap();
    assert_ne!(last.body.id, receipt.body.id);
    refused(bobs.load_u64(0), Code::Revoked);
    refused(alice.client.share_narrow(grant, read_only()), Code::ShareOrder);

    alice.client.release(leased.lease.id).unwrap();
    drop((mine, bobs, carols, mediated, again));
    drop((alice, bob, carol));
    world.balances();
    let log = world.finish();
    let entry = &log.broker[receipt.body.log_index.unwrap() as usize];
    assert_eq!(
        (&entry["event"], &entry["cause"]),
        (&"lease.attenuate".into(), &"narrowed".into()),
        "{entry}"
    );
    assert_eq!(entry["rights"], "r", "{entry}");
    let rotation = log::about(&log.provider, "lease.attenuate", grant);
    assert_eq!(rotation.len(), 1, "one rotation");
    assert_eq!(rotation[0]["method"], "rotate");
}

#[test]
fn processes_that_write_stop_as_they_chose_and_those_that_read_go_on() {
    let world = World::new();
    let (alice, bob_key, carol) = (world.person(), world.register(), world.person());
    if common::is_root() && !world.node.is_sealed() {
        return; // this tier gives another user no writable mapping
    }
    let leased = alice.lease(SMALL);
    let options = ShareOptions::new(bob_key.public(), Rights::READ_WRITE);
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap().id;
    let bob = world.connect(&bob_key);
    let contract = bob.share_show(grant).unwrap().contract;
    let token =
        bob.share_accept(&contract, Lifetime::Detached, &bob_key).unwrap().token.to_text().to_string();
    let others = alice.share(&leased.lease, &carol, Rights::READ_WRITE).token.to_text().to_string();

    let begin = |key, token: &str, uid, mapped, writing, raw| {
        let mut user = world.actor(key, uid);
        let rights = if writing { Rights::READ_WRITE } else { Rights::READ };
        let memory = user.open(token, rights, mapped);
        user.start_using(memory, writing, raw);
        user
    };
    let mut guarded = begin(&bob_key, &token, USERS[0], true, true, false);
    let mut mediated = begin(&bob_key, &token, USERS[0], false, true, false);
    let mut raw = begin(&bob_key, &token, USERS[1], true, true, true);
    let mut reader = begin(&bob_key, &token, USERS[1], true, false, false);
    let mut raw_reader = begin(&bob_key, &token, USERS[1], true, false, true);
    let mut writer = begin(&carol.key, &others, USERS[2], true, true, true);

    let receipt = alice.client.share_narrow(grant, read_only()).unwrap();
    checked(&world, &receipt, grant);
    assert!(receipt.body.mappings_closed >= 2, "two mapped it writable: {receipt:?}");
    assert_eq!(guarded.hear_stopped(), "E_DENIED");
    assert_eq!(mediated.hear_stopped(), "E_DENIED");
    let signal = raw.wait_for_signal();
    assert!([libc::SIGBUS, libc::SIGSEGV].contains(&signal), "{signal}");
    // A bare descriptor of before is of the old file, and one of now is for reading.
    let mut late = world.actor(&bob_key, USERS[3]);
    let said = late.ask(&Ask::OpenBare { token: token.clone(), rights: Rights::READ_WRITE });
    assert!(matches!(&said, Said::Refused { code } if code == "E_DENIED"), "{said:?}");
    // The others go on until the grant itself ends, or the lease.
    for user in [&reader, &raw_reader, &writer] {
        assert!(std::path::Path::new(&format!("/proc/{}", user.pid())).exists());
    }
    alice.client.revoke(Target::Grant(grant), reason()).unwrap();
    assert_eq!(reader.hear_stopped(), "E_REVOKED");
    assert_eq!(raw_reader.wait_for_signal(), libc::SIGBUS);
    alice.client.release(leased.lease.id).unwrap();
    assert_eq!(writer.wait_for_signal(), libc::SIGBUS, "nothing before that ended carol");
    drop((guarded, mediated, raw, reader, raw_reader, writer, late, bob, alice, carol));
    world.balances();
    world.finish();
}

#[test]
fn bytes_beyond_a_narrower_range_are_gone_and_those_within_go_on() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = pieces(&alice);
    let accepted = alice.share(&leased.lease, &bob, Rights::READ_WRITE);
    let grant = accepted.grant.id;
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let bobs = map(&bob, &accepted, Rights::READ_WRITE);
    let mediated = bob.client.open_mediated(&accepted.token, Rights::READ_WRITE).unwrap();
    for segment in 0..4 {
        bobs.store_u64(segment * SEGMENT, segment + 1).unwrap();
    }

    let inner = range(SEGMENT, 3 * SEGMENT);
    let receipt = alice.client.share_narrow(grant, Narrowing::new().range(inner)).unwrap();
    checked(&world, &receipt, grant);
    assert_eq!(receipt.body.left.unwrap().range, inner);
    for outside in [0, 3 * SEGMENT] {
        refused(bobs.load_u64(outside), Code::Revoked);
        refused(bobs.store_u64(outside, 9), Code::Revoked);
        refused(mediated.read_at(outside, &mut [0; 8]), Code::Denied);
        refused(mediated.write_at(outside, &[9; 8]), Code::Denied);
    }
    for within in [SEGMENT, 2 * SEGMENT] {
        assert_eq!(bobs.load_u64(within).unwrap(), within / SEGMENT + 1);
        bobs.store_u64(within, within).unwrap();
        assert_eq!(mine.load_u64(within).unwrap(), within);
        mediated.write_at(within + 8, b"by calls").unwrap();
    }
    for segment in [0, 3] {
        assert_eq!(mine.load_u64(segment * SEGMENT).unwrap(), segment + 1, "the owner lost nothing");
    }
    // The token knows nothing of it: what it opens is the rest.
    assert_eq!(map(&bob, &accepted, Rights::READ_WRITE).facts().range, inner);
    let reopened = bob.client.open_mediated(&accepted.token, Rights::READ).unwrap();
    assert_eq!(reopened.facts().range, inner);
    assert_eq!((row(&bob, grant).range, row(&bob, grant).agreed.range), (inner, leased.lease.range));

    // Twice: the rest of the rest, and no segment of it can be mapped any more.
    let page = range(SEGMENT, SEGMENT + 4096);
    let both = Narrowing::new().range(page).rights(Rights::READ);
    let receipt = alice.client.share_narrow(grant, both).unwrap();
    assert_eq!(receipt.body.left.map(|left| (left.rights, left.range)), Some((Rights::READ, page)));
    refused(bobs.load_u64(SEGMENT), Code::Revoked);
    refused(bobs.load_u64(2 * SEGMENT), Code::Revoked);
    refused(bob.client.open_mapped(&accepted.token, Rights::READ), Code::MediatedOnly);
    refused(mediated.write_at(SEGMENT, &[1; 8]), Code::Denied);
    mediated.read_at(SEGMENT, &mut [0; 8]).unwrap();
    refused(mediated.read_at(SEGMENT + 4096, &mut [0; 8]), Code::Denied);
    for segment in 1..3 {
        assert_eq!(mine.load_u64(segment * SEGMENT).unwrap(), segment * SEGMENT);
    }
    alice.client.release(leased.lease.id).unwrap();
    drop((mine, bobs, mediated, reopened, alice, bob));
    world.balances();
    world.finish();
}

#[test]
fn an_earlier_end_is_kept_without_another_word() {
    let world = World::new();
    let (alice, bob, carol) = (world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let accepted = alice.share(&leased.lease, &bob, Rights::READ_WRITE);
    let others = alice.share(&leased.lease, &carol, Rights::READ_WRITE);
    let grant = accepted.grant.id;
    let (bobs, carols) = (map(&bob, &accepted, Rights::READ_WRITE), map(&carol, &others, Rights::READ_WRITE));
    bobs.store_u64(0, 5).unwrap();

    let span = Duration::from_millis(400);
    let asked = Instant::now();
    let receipt = alice.client.share_narrow(grant, Narrowing::new().ttl(span)).unwrap();
    checked(&world, &receipt, grant);
    assert_eq!(receipt.body.mappings_closed, 0, "nothing is over yet");
    assert!(row(&bob, grant).expires_in.0 <= span.as_micros() as u64);
    let ended = until("bob's right ends", || bobs.load_u64(0).err());
    assert_eq!(ended.code(), Code::Revoked);
    assert!(asked.elapsed() >= span, "not before its time");
    refused(bob.client.open_mediated(&accepted.token, Rights::READ), Code::TokenExpired);
    let cause = until("the grant is over", || row(&alice, grant).cause);
    assert_eq!(format!("{cause:?}"), "Expired");
    assert_eq!(carols.load_u64(0).unwrap(), 5, "carol has what was there, and her right");
    carols.store_u64(0, 6).unwrap();

    alice.client.release(leased.lease.id).unwrap();
    drop((bobs, carols, alice, bob, carol));
    world.balances();
    world.finish();
}

#[test]
fn nobody_widens_and_none_but_the_owner_narrows() {
    let world = World::new();
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let leased = pieces(&alice);
    let accepted = alice.share(&leased.lease, &bob, Rights::READ_WRITE);
    let grant = accepted.grant.id;
    let narrow = |who: &Person, narrowing| who.client.share_narrow(grant, narrowing);
    refused(narrow(&mallory, read_only()), Code::GrantUnknown);
    refused(narrow(&bob, read_only()), Code::Denied);
    refused(alice.client.share_narrow(GrantId([9; 16]), read_only()), Code::GrantUnknown);
    refused(narrow(&alice, Narrowing::new()), Code::Range);
    refused(narrow(&alice, Narrowing::new().rights(Rights::NONE)), Code::Range);
    refused(narrow(&alice, Narrowing::new().ttl(Duration::ZERO)), Code::Range);
    refused(narrow(&alice, Narrowing::new().ttl(10 * MINUTE)), Code::Range);
    refused(narrow(&alice, Narrowing::new().range(range(0, 4 * SEGMENT + 1))), Code::Range);
    refused(narrow(&alice, Narrowing::new().rights(Rights::ALL)), Code::Denied);
    let row = row(&alice, grant);
    assert_eq!((row.rights, row.range), (Rights::READ_WRITE, leased.lease.range), "which changed nothing");
    bob.client.open_mapped(&accepted.token, Rights::READ_WRITE).unwrap().store_u64(0, 1).unwrap();

    // The administrator may, as it may revoke; and back is no way for anybody.
    let half = Narrowing::new().rights(Rights::READ).range(range(0, 2 * SEGMENT));
    let receipt = world.admin.share_narrow(grant, half).unwrap();
    checked(&world, &receipt, grant);
    refused(narrow(&alice, Narrowing::new().rights(Rights::READ_WRITE)), Code::Denied);
    refused(narrow(&alice, Narrowing::new().range(leased.lease.range)), Code::Range);
    refused(world.admin.share_narrow(grant, Narrowing::new().rights(Rights::READ_WRITE)), Code::Denied);
    refused(narrow(&bob, half), Code::Denied);

    // Before it is accepted: what is left is what the token gives, and the contract is signed as it is.
    let options = ShareOptions::new(bob.key.public(), Rights::READ_WRITE);
    let early = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap().id;
    alice.client.share_narrow(early, read_only()).unwrap();
    let proposal = bob.client.share_show(early).unwrap();
    assert_eq!((proposal.contract.rights, proposal.grant.rights), (Rights::READ_WRITE, Rights::READ));
    let accepted = bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key).unwrap();
    assert_eq!(accepted.grant.rights, Rights::READ);
    refused(bob.client.open_mediated(&accepted.token, Rights::READ_WRITE), Code::Denied);
    drop(bob.client.open_mapped(&accepted.token, Rights::READ).unwrap());

    alice.client.release(leased.lease.id).unwrap();
    refused(narrow(&alice, read_only()), Code::ShareOrder);
    drop((alice, bob, mallory));
    world.balances();
    let log = world.finish();
    let refusals = log::about(&log.broker, "lease.attenuate", grant);
    assert!(refusals.iter().any(|entry| entry["code"] == "E_DENIED" && entry["outcome"] == "deny"));
}

#[test]
fn the_command_narrows_and_the_list_shows_the_rest() {
    let world = World::new();
    let shell = Shell::new(world.node.path());
    for name in ["ann", "ben"] {
        shell.json(&["id", "new", name]);
    }
    shell.json(&["lease", "create", "--as", "ann", "--size", "64KiB", "--ttl", "1m", "--name", "desk"]);
    let offer = ["share", "offer", "desk", "--as", "ann", "--to", "ben", "--rights", "rw"];
    let grant = shell.json(&offer)["share"]["id"].as_str().unwrap().to_owned();
    shell.json(&["share", "accept", &grant, "--as", "ben"]);
    assert!(shell.pipe(&["put", &grant, "--as", "ben"], b"by ben").status.success());
    shell.fails(&["share", "narrow", &grant, "--as", "ann"], 2, "E_USAGE");
    shell.fails(&["share", "narrow", &grant, "--as", "ben", "--rights", "r"], 3, "E_DENIED");
    let narrow =
        ["share", "narrow", &grant, "--as", "ann", "--rights", "r", "--range", "0..4KiB", "--ttl", "30s"];
    let receipt = &shell.json(&narrow)["receipt"];
    assert_eq!((&receipt["target"]["kind"], &receipt["target"]["id"]), (&"grant".into(), &grant[..].into()));
    assert_eq!(receipt["target"]["left"]["rights"], "r");
    assert_eq!(receipt["target"]["left"]["range"], serde_json::json!([0, 4096]));
    shell.fails(&["put", &grant, "--as", "ben"], 3, "E_DENIED");
    assert_eq!(shell.bytes(&["get", &grant, "--as", "ben"]).len(), 4096);
    let share = &shell.json(&["share", "list", "--as", "ben"])["shares"][0];
    assert_eq!((&share["rights"], &share["agreed"]["rights"]), (&"r".into(), &"rw".into()));
    assert_eq!(share["agreed"]["range"], serde_json::json!([0, 65_536]));
    assert!(share["expires_in_ms"].as_u64().unwrap() <= 30_000);
    let text = shell.bytes(&["share", "list", "--as", "ann"]);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("r (of rw)") && text.contains("0..4096 (of 0..65536)"), "{text}");
    shell.json(&["lease", "release", "desk", "--as", "ann"]);
    world.balances();
    world.finish();
}
