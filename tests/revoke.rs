//! The one sentence: after a revoke is acknowledged, no byte of the lease can be read or written on the revoked right by
//! any path. Each test here is a path.

#[path = "common/mod.rs"]
mod common;

use common::raw::Raw;
use common::{Ask, SMALL, Said, USERS, World, log, refused};
use libmem::{Code, GrantId, LeaseId, Reason, Rights, Target, Token};

#[test]
#[ignore = "a client process of the other tests"]
fn client_process() {
    common::player::play();
}

fn reason() -> Reason {
    Reason::new("a test ends it").unwrap()
}

#[test]
fn readers_and_writers_in_other_processes_end_as_they_chose() {
    let world = World::new();
    let (alice_key, bob_key) = (world.register(), world.register());
    let mut alice = world.actor(&alice_key, USERS[0]);
    let (lease, token) = alice.lease(1 << 20, 60_000, true);
    let writable = world.node.is_sealed() || !common::is_root();

    // Of each kind one, as the owner and as the receiver of a share: guarded, raw and mediated.
    let mut bob = world.actor(&bob_key, USERS[1]);
    let shared = alice.share(&lease, &mut bob, &bob_key, Rights::READ);
    let mut users = Vec::new();
    for (mapped, raw) in [(true, false), (true, true), (false, false)] {
        for (key, uid, token, writing) in
            [(&bob_key, USERS[1], &shared, false), (&alice_key, USERS[0], &token, true)]
        {
            if mapped && writing && !writable {
                continue; // this tier gives another user no writable mapping
            }
            let rights = if writing { Rights::READ_WRITE } else { Rights::READ };
            let mut user = world.actor(key, uid);
            let memory = user.open(token, rights, mapped);
            user.start_using(memory, writing, raw);
            users.push((user, raw));
        }
    }
    let before = users.len();
    let client = world.connect(&alice_key);
    let held = client.lease_show(lease.id).unwrap().memory.unwrap();
    assert_eq!(held.opens as usize, before);

    let receipt = client.revoke(Target::Lease(lease.id), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    assert_eq!(receipt.body.target, Target::Lease(lease.id));
    assert_eq!(receipt.body.leases, [lease.id]);
    assert_eq!(receipt.body.mappings_closed, held.mappings);
    assert_eq!(receipt.body.wiped_bytes, if held.pinned { 1 << 20 } else { receipt.body.wiped_bytes });
    assert!(receipt.body.log_index.is_some());
    let mut died = 0;
    for (user, raw) in &mut users {
        if *raw {
            assert_eq!(user.wait_for_signal(), libc::SIGBUS);
            died += 1;
        } else {
            assert_eq!(user.hear_stopped(), "E_REVOKED");
        }
    }
    for pid in users.iter().filter(|(_, raw)| *raw).map(|(user, _)| user.pid()) {
        let fault = log::await_provider(&world.node.audit(), "the fault of a raw access", |entry| {
            entry["event"] == "fault.access" && entry["method"] == "mapped" && entry["peer_pid"] == pid
        });
        assert_eq!((&fault["code"], &fault["signal"]), (&"E_REVOKED".into(), &libc::SIGBUS.into()));
    }
    drop((alice, bob, users, client));
    world.balances();
    let log = world.finish();
    let entry = &log.broker[receipt.body.log_index.unwrap() as usize];
    assert_eq!(entry["event"], "lease.revoke", "{entry}");
    let faults = log::of(&log.provider, "fault.access");
    let of = |method: &str| faults.iter().filter(|entry| entry["method"] == method).count();
    // Whoever asked the node after the revoke is in the log as well.
    assert_eq!((of("mapped"), of("mediated")), (died, 2));
}

#[test]
fn revoking_again_is_done_and_revoking_nothing_is_refused() {
    let world = World::new();
    let (alice, mallory) = (world.person(), world.person());
    let leased = alice.lease(SMALL);
    let id = leased.lease.id;
    let stranger = |target| refused(mallory.client.revoke(target, reason()), Code::LeaseUnknown);
    stranger(Target::Lease(id));
    stranger(Target::Region(leased.lease.region));
    refused(mallory.client.revoke(Target::Subtree(GrantId(id.0)), reason()), Code::GrantUnknown);
    refused(world.admin.revoke(Target::Lease(LeaseId([9; 16])), reason()), Code::LeaseUnknown);
    refused(world.admin.revoke(Target::Grant(GrantId([9; 16])), reason()), Code::GrantUnknown);
    let nobody = libmem::SigningKey::generate().public();
    // It may be somebody's delegate, so the administrator and who has a lease may say it of any key.
    world.admin.revoke(Target::Holder(nobody), reason()).unwrap();
    refused(mallory.client.revoke(Target::Holder(nobody), reason()), Code::PrincipalUnknown);
    // What a stranger may aim at is what he himself gave, which is nothing.
    refused(mallory.client.revoke(Target::Holder(alice.key.public()), reason()), Code::GrantUnknown);
    assert_eq!(
        alice.client.lease_show(id).unwrap().memory.unwrap().bytes,
        SMALL,
        "all of which changed nothing"
    );

    let first = alice.client.revoke(Target::Lease(id), reason()).unwrap();
    let second = alice.client.revoke(Target::Lease(id), reason()).unwrap();
    let third = world.admin.revoke(Target::Region(leased.lease.region), reason()).unwrap();
    for receipt in [&first, &second, &third] {
        receipt.verify(world.node.issuer()).unwrap();
        assert!(receipt.body.log_index.is_some());
    }
    assert_eq!(first, second, "who asks again gets the receipt it had");
    assert_ne!(first.body.id, third.body.id, "somebody else gets one of its own");
    assert!(first.body.log_index < third.body.log_index);
    drop((alice, mallory));
    world.balances();
    world.finish();
}

#[test]
fn a_cached_token_a_copy_and_a_narrowed_copy_are_dead_in_every_session() {
    let world = World::new();
    let alice = world.person();
    let leased = alice.lease(SMALL);
    let narrow = caps::token::Narrow { rights: Some(Rights::READ), ..Default::default() };
    let narrowed = caps::token::attenuate(&leased.token, &narrow).unwrap();
    let sealed = caps::token::seal(&leased.token).unwrap();
    let tokens = [&leased.token, &narrowed, &sealed];
    let other = world.connect(&alice.key);
    for client in [&alice.client, &other] {
        for token in tokens {
            drop(client.open_mediated(token, Rights::READ).unwrap()); // from now on the session knows it
        }
    }
    alice.client.revoke(Target::Lease(leased.lease.id), reason()).unwrap();
    let fresh = world.connect(&alice.key);
    for client in [&alice.client, &other, &fresh] {
        for token in tokens {
            refused(client.open_mediated(token, Rights::READ), Code::TokenRevoked);
            refused(client.open_mapped(token, Rights::READ), Code::TokenRevoked);
        }
    }
    drop((alice, other, fresh));
    world.balances();
    world.finish();
}

#[test]
fn a_leaked_descriptor_and_a_forked_child_die_with_the_right() {
    let world = World::new();
    let key = world.register();
    let alice = world.connect(&key);
    let options = libmem::LeaseOptions::new(SMALL, common::MINUTE).lifetime(libmem::Lifetime::Detached);
    let leased = alice.lease(options).unwrap();

    // The holder passes its bare descriptor to a process that has neither key, token nor session.
    let mut holder = Raw::connect(world.node.endpoint().path().expect("a socket"), &key).unwrap();
    let bare = holder.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let stranger = libmem::SigningKey::generate();
    let mut third = world.actor(&stranger, USERS[2]);
    let said = third.ask(&Ask::TakeDescriptor { bytes: SMALL as usize });
    assert!(matches!(said, Said::Ready), "{said:?}");
    third.give(std::os::fd::AsFd::as_fd(&bare.descriptor));
    assert!(matches!(third.hear(), Some(Said::Started)));

    // Another holder forks while it has a mapping.
    let mut parent = world.actor(&key, USERS[0]);
    let memory = parent.open(&leased.token.to_text(), Rights::READ, true);
    let said = parent.ask(&Ask::UseInFork { memory });
    assert!(matches!(said, Said::Started), "{said:?}");

    alice.revoke(Target::Lease(leased.lease.id), reason()).unwrap();
    assert_eq!(third.wait_for_signal(), libc::SIGBUS);
    let said = parent.hear();
    assert!(matches!(said, Some(Said::Forked { signal: libc::SIGBUS })), "{said:?}");
    // Whoever is given the descriptor only now has nothing of it either.
    let mut late = world.actor(&stranger, USERS[3]);
    let said = late.ask(&Ask::TakeDescriptor { bytes: SMALL as usize });
    assert!(matches!(said, Said::Ready), "{said:?}");
    late.give(std::os::fd::AsFd::as_fd(&bare.descriptor));
    match late.hear() {
        Some(Said::Started) => assert_eq!(late.wait_for_signal(), libc::SIGBUS),
        other => assert!(matches!(other, Some(Said::Refused { .. })), "{other:?}"),
    }

    drop((bare, holder, third, late, parent, alice));
    world.balances();
    world.finish();
}

#[test]
fn a_revoked_grant_ends_the_receiver_whatever_it_holds() {
    let world = World::new();
    let (alice, bob, carol) = (world.person(), world.person(), world.person());
    let leased = alice.lease(SMALL);
    let page = libmem::ByteRange::new(0, 4096).unwrap();
    let give = |to: &common::world::Person| {
        let options = libmem::ShareOptions::new(to.key.public(), Rights::READ_WRITE).range(page);
        let grant = alice.client.share_offer(&leased.lease, &options, &alice.key).unwrap();
        let contract = to.client.share_show(grant.id).unwrap().contract;
        to.client.share_accept(&contract, libmem::Lifetime::Detached, &to.key).unwrap()
    };
    let (to_bob, to_carol) = (give(&bob), give(&carol));
    let bobs = bob.client.open_mediated(&to_bob.token, Rights::READ_WRITE).unwrap();
    let carols = carol.client.open_mediated(&to_carol.token, Rights::READ_WRITE).unwrap();
    let mine = alice.client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    bobs.write_at(0, b"from bob").unwrap();

    let receipt = alice.client.revoke(Target::Grant(to_bob.grant.id), reason()).unwrap();
    receipt.verify(world.node.issuer()).unwrap();
    assert!(receipt.body.leases.is_empty(), "a right that was never mapped is revoked by the fence alone");
    let mut bytes = [0; 8];
    refused(bobs.read_at(0, &mut bytes), Code::Revoked);
    refused(bobs.write_at(0, &bytes), Code::Revoked);
    refused(bob.client.open_mediated(&to_bob.token, Rights::READ), Code::TokenRevoked);
    // The others are as they were, with what bob wrote before.
    carols.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from bob");
    carols.write_at(0, b"by carol").unwrap();
    mine.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"by carol");

    // By holder: all that carol was given.
    alice.client.revoke(Target::Holder(carol.key.public()), reason()).unwrap();
    refused(carols.read_at(0, &mut bytes), Code::Revoked);
    mine.read_at(0, &mut bytes).unwrap();
    // By subtree, named by the lease: all of it.
    alice.client.revoke(Target::Subtree(GrantId(leased.lease.id.0)), reason()).unwrap();
    refused(mine.read_at(0, &mut bytes), Code::Revoked);
    drop((mine, bobs, carols, alice, bob, carol));
    world.balances();
    world.finish();
}

#[test]
fn a_token_of_text_is_not_needed_to_be_kept_secret_from_the_log() {
    let world = World::new();
    let alice = world.person();
    let leased = alice.lease(SMALL);
    let text = leased.token.to_text().to_string();
    drop(alice.client.open_mediated(&Token::parse_text(&text).unwrap(), Rights::READ).unwrap());
    alice.client.revoke(Target::Lease(leased.lease.id), reason()).unwrap();
    let seed = data_encoding::HEXLOWER.encode(&*alice.key.seed());
    drop(alice);
    let log = world.finish();
    let secret = text.rsplit_once(':').map_or(&text[..], |(_, secret)| secret);
    for entry in log.broker.iter().chain(&log.provider) {
        let entry = entry.to_string();
        assert!(!entry.contains(&secret[..32]) && !entry.contains(&seed), "a secret is in {entry}");
    }
}
