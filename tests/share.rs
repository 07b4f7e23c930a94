//! `MEM_SHARE`: offer, issue, accept, open, end. Five steps, two signatures, no other order.

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use caps::share::{ShareContract, ShareFile, Signed};
use caps::wire::{Reply, Request};
use common::raw::Raw;
use common::shell::Shell;
use common::world::Person;
use common::{MINUTE, SMALL, World, log, refused, until};
use libmem::{
    ByteRange, Code, GrantId, LeaseOptions, Leased, Lifetime, Reason, Rights, ShareOptions, Target,
};
use serde_json::json;

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

fn offer(owner: &Person, leased: &Leased, to: &Person, rights: Rights) -> libmem::GrantRow {
    let options = ShareOptions::new(to.key.public(), rights);
    owner.client.share_offer(&leased.lease, &options, &owner.key).unwrap()
}

fn raw(world: &World, who: &Person) -> Raw {
    Raw::connect(world.node.endpoint().path().expect("a socket"), &who.key).unwrap()
}

/// The contract that an honest owner would sign.
fn contract(who: &Person, leased: &Leased, to: &Person) -> ShareContract {
    let options = ShareOptions::new(to.key.public(), Rights::READ);
    options.contract(who.client.welcome().cluster, &leased.lease).unwrap()
}

fn reason() -> Reason {
    Reason::new("over").unwrap()
}

#[test]
fn the_five_steps_leave_one_entry_each() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    mine.write_at(100, b"for bob").unwrap();
    let grant = offer(&alice, &leased, &bob, Rights::READ);
    assert_eq!(alice.client.shares().count(), 1);
    let shown: Vec<_> = bob.client.shares().map(Result::unwrap).collect();
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].id, shown[0].rights, shown[0].range), (grant.id, Rights::READ, leased.lease.range));

    let proposal = bob.client.share_show(grant.id).unwrap();
    let accepted = bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key).unwrap();
    let region = bob.client.open_mapped(&accepted.token, Rights::READ).unwrap();
    let mut bytes = [0; 7];
    region.read_at(100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"for bob");
    until("the broker knows that the grant is open", || {
        let state = bob.client.shares().next().unwrap().unwrap().state;
        (format!("{state:?}") == "Open").then_some(())
    });

    let receipt = alice.client.revoke(Target::Grant(grant.id), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    refused(region.read_at(100, &mut bytes), Code::Revoked);
    refused(bob.client.open_mapped(&accepted.token, Rights::READ), Code::TokenRevoked);
    // Alice's mapping is the same, over fresh memory with the same bytes.
    mine.read_at(100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"for bob");
    mine.write_at(100, b"for her").unwrap();
    mine.read_at(100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"for her");
    drop((region, mine));
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob));
    world.balances();
    let log = world.finish();
    for event in ["share.offer", "share.issue", "share.accept", "share.open", "share.end"] {
        assert_eq!(log::about(&log.broker, event, grant.id).len(), 1, "{event}");
    }
    assert_eq!(log::about(&log.provider, "share.open", grant.id).len(), 1);
    let mut steps: Vec<_> =
        log.broker.iter().filter(|entry| entry["grant"] == grant.id.to_string()[..]).collect();
    steps.sort_by_key(|entry| entry["seq"].as_str().unwrap().parse::<u64>().unwrap());
    let order: Vec<_> = steps.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert_eq!(order, ["share.offer", "share.issue", "share.accept", "share.open", "share.end"]);
}

#[test]
fn no_step_can_be_skipped_or_done_twice() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let never = contract(&alice, &leased, &bob);

    // Accept before offer.
    refused(bob.client.share_show(never.grant), Code::GrantUnknown);
    refused(bob.client.share_accept(&never, Lifetime::Detached, &bob.key), Code::GrantUnknown);
    // Open before accept: there is no token, and the owner's is not bob's.
    let grant = offer(&alice, &leased, &bob, Rights::READ);
    refused(bob.client.open_mapped(&leased.token, Rights::READ), Code::TokenBound);
    // Accept twice.
    let proposal = bob.client.share_show(grant.id).unwrap();
    bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key).unwrap();
    refused(bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key), Code::ShareOrder);
    // Offer the same contract again: its id is taken, live or over.
    let mut hand = raw(&world, &alice);
    let signature = proposal.contract.sign(&alice.key);
    let again = Request::ShareOffer { contract: proposal.contract, signature };
    refused(hand.ask(&again), Code::Exists);
    alice.client.revoke(Target::Grant(grant.id), reason()).unwrap();
    refused(hand.ask(&again), Code::Exists);
    // Accept after the end.
    refused(bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key), Code::ShareOrder);
    // An offer that ended before it was accepted.
    let grant = offer(&alice, &leased, &bob, Rights::READ);
    let proposal = bob.client.share_show(grant.id).unwrap();
    alice.client.revoke(Target::Grant(grant.id), reason()).unwrap();
    refused(bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key), Code::ShareOrder);
    // An offer whose lease ended.
    let grant = offer(&alice, &leased, &bob, Rights::READ);
    let proposal = bob.client.share_show(grant.id).unwrap();
    alice.client.release(leased.lease.id).unwrap();
    refused(bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key), Code::ShareOrder);
    // A lease that ended is not offered.
    let late = contract(&alice, &leased, &bob);
    let offer = Request::ShareOffer { contract: late, signature: late.sign(&alice.key) };
    assert!(hand.ask(&offer).is_err());
    assert_eq!(bob.client.leases().count(), 0, "a grant is no lease of the receiver's");

    drop((alice, bob, hand));
    world.balances();
    let log = world.finish();
    assert_eq!(log::of(&log.provider, "share.open").len(), 0);
}

#[test]
fn only_the_two_who_are_named_can_sign() {
    let world = World::new();
    let (alice, bob, mallory) = (world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let honest = contract(&alice, &leased, &bob);
    let mut by_alice = raw(&world, &alice);
    let mut by_mallory = raw(&world, &mallory);
    let ask = |contract, signature| Request::ShareOffer { contract, signature };

    // The owner's signature: another key's, over another text, by another session.
    refused(by_alice.ask(&ask(honest, honest.sign(&mallory.key))), Code::ContractSignature);
    let wider = ShareContract { rights: Rights::READ_WRITE, ..honest };
    refused(by_alice.ask(&ask(wider, honest.sign(&alice.key))), Code::ContractSignature);
    refused(by_mallory.ask(&ask(honest, honest.sign(&alice.key))), Code::LeaseUnknown);
    let stolen = ShareContract { owner: mallory.key.public(), ..honest };
    refused(by_mallory.ask(&ask(stolen, stolen.sign(&mallory.key))), Code::LeaseUnknown);
    refused(by_alice.ask(&ask(stolen, stolen.sign(&alice.key))), Code::LeaseUnknown);

    // The receiver: the wrong one, the wrong key, the wrong text.
    let grant = offer(&alice, &leased, &bob, Rights::READ);
    refused(mallory.client.share_show(grant.id), Code::GrantUnknown);
    let proposal = bob.client.share_show(grant.id).unwrap();
    let accept =
        |signature| Request::ShareAccept { grant: grant.id, signature, lifetime: Lifetime::Detached };
    let by_bob = proposal.contract.sign(&bob.key);
    refused(by_mallory.ask(&accept(by_bob)), Code::GrantUnknown);
    refused(by_alice.ask(&accept(by_bob)), Code::Denied);
    let mut bobs = raw(&world, &bob);
    refused(bobs.ask(&accept(proposal.contract.sign(&mallory.key))), Code::ContractSignature);
    refused(bobs.ask(&accept(proposal.contract.sign(&alice.key))), Code::ContractSignature);
    let other = ShareContract { rights: Rights::READ_WRITE, ..proposal.contract };
    refused(bobs.ask(&accept(other.sign(&bob.key))), Code::ContractSignature);
    // All of which changed nothing: the right signature is still accepted.
    assert!(matches!(bobs.ask(&accept(by_bob)), Ok(Reply::Accepted { .. })));

    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, mallory, by_alice, by_mallory, bobs));
    world.balances();
    world.finish();
}

#[test]
fn a_share_is_never_wider_than_what_the_owner_has() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let honest = contract(&alice, &leased, &bob);
    let mut hand = raw(&world, &alice);
    let mut ask = |contract: ShareContract| {
        hand.ask(&Request::ShareOffer { contract, signature: contract.sign(&alice.key) }).map(drop)
    };
    let range = |start, end| ByteRange::new(start, end).unwrap();
    for wide in [range(0, SMALL + 1), range(SMALL - 1, SMALL + 1), range(SMALL, SMALL + 1), range(0, 1 << 40)]
    {
        refused(ask(ShareContract { range: wide, ..honest }), Code::Range);
    }
    refused(ask(ShareContract { rights: Rights::NONE, ..honest }), Code::Range);
    refused(ask(ShareContract { receiver: alice.key.public(), ..honest }), Code::Range);
    refused(ask(ShareContract { max_hops: 255, ..honest }), Code::Range);
    refused(ask(ShareContract { ttl: caps::time::Micros(0), ..honest }), Code::Range);
    let nobody = libmem::SigningKey::generate().public();
    refused(ask(ShareContract { receiver: nobody, ..honest }), Code::PrincipalUnknown);
    let region = caps::id::RegionId([7; 16]);
    refused(ask(ShareContract { region, ..honest }), Code::LeaseUnknown);
    let cluster = caps::id::ClusterEpoch([7; 16]);
    refused(ask(ShareContract { cluster, ..honest }), Code::Epoch);

    // A longer time than the lease has is cut to the lease's.
    let long = ShareContract { ttl: caps::time::Micros(24 * 3600 * 1_000_000), ..honest };
    ask(long).unwrap();
    let row = bob.client.share_show(long.grant).unwrap().grant;
    assert!(row.expires_in.0 <= MINUTE.as_micros() as u64, "{row:?}");

    // What bob gets is a page to read, and he gets nothing else out of it.
    let options = ShareOptions::new(bob.key.public(), Rights::READ).range(range(4096, 8192));
    let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
    let proposal = bob.client.share_show(grant.id).unwrap();
    let token = bob.client.share_accept(&proposal.contract, Lifetime::Detached, &bob.key).unwrap().token;
    refused(bob.client.open_mapped(&token, Rights::READ), Code::MediatedOnly);
    refused(bob.client.open_mediated(&token, Rights::READ_WRITE), Code::Denied);
    refused(bob.client.open_mediated(&token, Rights::WRITE), Code::Denied);
    let memory = bob.client.open(&token, Rights::READ).unwrap();
    let mut page = vec![0; 4096];
    memory.read_at(4096, &mut page).unwrap();
    for (offset, length) in [(4095, 1), (4095, 2), (8191, 2), (8192, 1), (0, 4096), (u64::MAX, 1)] {
        refused(memory.read_at(offset, &mut page[..length]), Code::Range);
    }
    refused(memory.write_at(4096, &page), Code::Denied);
    // A receiver has no lease to share onwards.
    let onwards = ShareOptions::new(alice.key.public(), Rights::READ);
    refused(bob.client.share_offer(&leased.lease, &onwards, &bob.key), Code::LeaseUnknown);

    drop(memory);
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob, hand));
    world.balances();
    world.finish();
}

#[test]
fn a_share_ends_with_its_receivers_session_if_it_was_accepted_so() {
    let world = World::new();
    let (alice, bob) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let grant = offer(&alice, &leased, &bob, Rights::READ).id;
    let session = world.connect(&bob.key);
    let proposal = session.share_show(grant).unwrap();
    let token = session.share_accept(&proposal.contract, Lifetime::Process, &bob.key).unwrap().token;
    drop(session);
    let state = |id: GrantId| {
        let rows: Vec<_> = alice.client.shares().map(Result::unwrap).collect();
        rows.iter().find(|row| row.id == id).map(|row| row.cause)
    };
    until("the grant ends with the session", || state(grant).flatten());
    refused(bob.client.open_mediated(&token, Rights::READ), Code::TokenRevoked);
    // The owner's lease is as it was.
    let region = alice.client.open_mapped(&leased.token, Rights::READ).unwrap();
    region.read_at(0, &mut [0; 8]).unwrap();
    drop(region);
    let options = LeaseOptions::new(SMALL, MINUTE);
    alice.client.lease(options).unwrap();
    alice.client.release(leased.lease.id).unwrap();
    drop((alice, bob));
    world.balances();
    world.finish();
}

/// A contract's file, changed at one place.
fn changed(file: &Path, change: impl FnOnce(&mut serde_json::Value)) -> PathBuf {
    let mut document = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut document);
    let path = file.with_extension("changed");
    fs::write(&path, document.to_string()).unwrap();
    path
}

#[test]
fn the_pair_is_kept_and_checked_without_a_node() {
    let mut world = World::new();
    let shell = Shell::new(world.node.path());
    for name in ["ann", "ben"] {
        shell.json(&["id", "new", name]);
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let lease =
        shell.json(&["lease", "create", "--as", "ann", "--size", "64KiB", "--ttl", "1m", "--name", "desk"]);
    let offer = ["share", "offer", "desk", "--as", "ann", "--to", "ben", "--rights", "rw"];
    let grant = text(&shell.json(&offer)["share"]["id"]);
    let (audit, dir) = (world.node.audit(), world.node.path().to_owned());
    let (audit_text, vkeys) = (audit.to_str().unwrap(), audit.join("vkeys"));
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let in_log = |path: &str, verify: &dyn Fn(&[&str])| {
        verify(&["share", "verify", path, "--log", audit_text, "--vkey", vkeys.to_str().unwrap()]);
    };

    // An offer is one signature, and no agreement.
    let shown = shell.json(&["share", "show", &grant, "--as", "ben", "-o", &file("offer")]);
    assert_eq!((&shown["complete"], &shown["signed"]["by_receiver"]), (&json!(false), &json!(null)));
    let digest = text(&shown["digest"]);
    shell.fails(&["share", "verify", &file("offer")], 1, "E_SHARE_ORDER");
    shell.fails(&["share", "show", &grant, "--as", "ben", "-o", &file("offer")], 1, "E_EXISTS");

    // What was seen is bound to what is signed, and what a narrowing left is shown beside it.
    shell.json(&["share", "narrow", &grant, "--as", "ann", "--rights", "r"]);
    let dry = shell.json(&["share", "accept", "--as", "ben", "--dry-run"]);
    assert_eq!((&dry["digest"], &dry["contract"]["rights"]), (&json!(digest), &json!("rw")));
    assert_eq!(dry["left"]["rights"], "r");
    let printed = String::from_utf8(shell.bytes(&["share", "accept", "--as", "ben", "--dry-run"])).unwrap();
    assert!(printed.contains(&digest) && printed.contains("left of it"), "{printed}");
    let other = digest.replace(char::is_numeric, "a");
    shell.fails(&["share", "accept", "--as", "ben", "--if", &other], 5, "E_CONTRACT_SIG");
    shell.fails(&["share", "accept", "--as", "ben", "--if", "12"], 2, "E_USAGE");
    assert_eq!(
        shell.json(&["share", "list", "--as", "ben"])["shares"][0]["state"],
        "issued",
        "nothing was signed"
    );
    let accepted = shell.json(&["share", "accept", "--as", "ben", "--if", &digest]);
    assert_eq!((&accepted["accepted"], &accepted["digest"]), (&json!(true), &json!(digest)));

    // Both see the same pair, and the receiver has it from the acceptance itself.
    let pair = file("pair");
    let shown = shell.json(&["share", "show", &grant, "--as", "ann", "-o", &pair]);
    assert_eq!((&shown["complete"], &shown["signed"]), (&json!(true), &accepted["signed"]));
    shell.fails(&["share", "show", &grant, "--as", "nobody"], 1, "E_CONFIG_IO");
    let stranger = world.person();
    refused(stranger.client.share_show(GrantId::parse(&grant).unwrap()), Code::GrantUnknown);
    drop(stranger);

    shell.json(&["lease", "release", lease["lease"]["id"].as_str().unwrap(), "--as", "ann"]);
    world.balances();
    world.node.stop();
    let verified = shell.json(&["share", "verify", &pair]);
    assert_eq!((&verified["ok"], &verified["in_log"]), (&json!(true), &json!(false)));
    assert_eq!((&verified["contract"], &verified["digest"]), (&dry["contract"], &json!(digest)));
    in_log(&pair, &|args| {
        let verified = shell.json(args);
        let log = log::read(&audit);
        for (at, event) in ["share.offer", "share.accept"].into_iter().enumerate() {
            let index = verified["entries"][at].as_u64().unwrap();
            let entry = &log.broker[usize::try_from(index).unwrap()];
            assert_eq!((&entry["event"], &entry["grant"]), (&json!(event), &json!(grant)));
        }
    });
    // Whatever is changed in the file is found out, without the log.
    let swap = |document: &mut serde_json::Value| {
        let by_owner = document["by_owner"].clone();
        document["by_owner"] = document["by_receiver"].clone();
        document["by_receiver"] = by_owner;
    };
    let forged = [
        changed(Path::new(&pair), swap),
        changed(Path::new(&pair), |document| document["contract"]["rights"] = json!("rws")),
        changed(Path::new(&pair), |document| document["contract"]["max_hops"] = json!(3)),
    ];
    for forged in forged {
        shell.fails(&["share", "verify", forged.to_str().unwrap()], 5, "E_CONTRACT_SIG");
    }
    let broken = changed(Path::new(&pair), |document| document["contract"]["grant"] = json!("12"));
    shell.fails(&["share", "verify", broken.to_str().unwrap()], 1, "E_CONFIG_SYNTAX");
    // An agreement that these two never made here has no entry, however well it is signed.
    let (ann, ben) = (world.node.key("ann"), world.node.key("ben"));
    let mut signed =
        Signed::try_from(&serde_json::from_slice::<ShareFile>(&fs::read(&pair).unwrap()).unwrap()).unwrap();
    let mut sign = |path: &str, grant: GrantId, max_hops: u8| {
        signed.contract = ShareContract { grant, max_hops, ..signed.contract };
        signed.by_owner = signed.contract.sign(&ann);
        signed.by_receiver = Some(signed.contract.sign(&ben));
        fs::write(path, serde_json::to_string(&ShareFile::from(&signed)).unwrap()).unwrap();
        shell.json(&["share", "verify", path]);
        in_log(path, &|args| shell.fails(args, 5, "E_PROOF"));
    };
    sign(&file("backdated"), GrantId([9; 16]), 0);
    sign(&file("other-text"), GrantId::parse(&grant).unwrap(), 1);
    in_log(&file("offer"), &|args| shell.fails(args, 1, "E_SHARE_ORDER"));
}
