//! The serialized form, byte for byte: a state and commands that are stored here must be what this release writes, and
//! must be read by it. A change is a new version, not a new file.
//!
//! To write the files of a new version: `LEASEHOLD_WRITE_GOLDEN=1 cargo test -p broker --test golden`.

mod common;

use std::path::PathBuf;

use broker::state::{
    Acceptance, Actor, Broker, Command, Kind, Narrowing, SNAPSHOT_VERSION, TokenCut, TransferAcceptance, Undo,
};
use caps::Code;
use caps::id::{DonationId, GrantId, ProviderId, Seat, TransferId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::TransferContract;
use caps::time::{Micros, UnixMicros};
use caps::token::{Mark, RevocationId};
use caps::wire::Reason;
use caps::wire::link::{Notice, Take};
use caps::wire::provider::{Address, Load, Registration};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime, Revocation, Target};
use ciborium::Value;
use common::*;

/// One command of every kind, over a life in which every state of leases and grants occurs.
fn commands() -> Vec<Command> {
    let mut world = World::new();
    let mut commands = Vec::new();
    let mut at = START;
    let mut push = |world: &mut World, by: Actor, kind: Kind| {
        at += 7;
        let mut command = world.command(by, kind);
        command.at = UnixMicros(at);
        let answer = world.apply(&command).answer.unwrap();
        commands.push(command);
        answer
    };
    let by = |n| Actor::Principal(public(n));
    let system = Actor::System;
    let revoke = |target| Kind::Revoke(Revocation { target, reason: Reason::new("golden").unwrap() });

    push(&mut world, system, Kind::Undo(Undo::PrincipalAdd { key: public(3) }));
    push(&mut world, by(0), Kind::PrincipalAdd { name: name("eve"), key: public(4) });
    let spec = LeaseSpec {
        bytes: 5_000,
        ttl: Micros(9_000),
        name: Some(name("scratch")),
        class: Some(name("training")),
        lifetime: Lifetime::Process,
        segment_bytes: None,
        max_hops: 2,
        near: None,
    };
    let mut tickets = Vec::new();
    for spec in [spec.clone(), LeaseSpec { name: None, lifetime: Lifetime::Detached, ..spec }] {
        push(&mut world, by(1), Kind::Reserve { spec, session: 11 });
        let broker::state::View::Leases(page) = world.view(1, broker::state::Query::Leases(None)).unwrap()
        else {
            panic!()
        };
        let row = page.rows.iter().find(|row| tickets.iter().all(|(id, _)| *id != row.id)).unwrap();
        tickets.push((row.id, row.region));
        push(&mut world, system, Kind::Commit { lease: row.id, bytes: 2 * PAGE });
    }
    let [(first, region), (second, other)] = tickets[..] else { panic!() };
    let renewed = push(&mut world, by(1), Kind::Renew { lease: first, ttl: Micros(8_000) });
    let broker::state::Answer::Leased { terms, .. } = renewed else { panic!() };
    let since = terms.not_before;
    let before = UnixMicros(START + 5_000);
    push(&mut world, system, Kind::Undo(Undo::Renew { lease: first, expires: before, since }));
    let ticket = |lease, region| caps::wire::link::ClaimTicket {
        lease,
        region,
        owner: public(1),
        bytes: 2 * PAGE,
        segment_bytes: 2 * PAGE,
        ttl: Micros(9_000),
        lifetime: Lifetime::Process,
        claim_by: UnixMicros(0),
    };
    for grant in [5, 6, 7] {
        let contract = world.contract(&ticket(first, region), grant, 2);
        let signature = contract.sign(&key(1));
        push(&mut world, by(1), Kind::Offer { contract, signature });
        if grant == 7 {
            continue;
        }
        push(&mut world, by(1), Kind::Issue { grant: contract.grant });
        let signature = contract.sign(&key(2));
        let accept =
            Acceptance { grant: contract.grant, signature, lifetime: Lifetime::Process, session: 12 };
        push(&mut world, by(2), Kind::Accept(accept));
        if grant == 5 {
            push(&mut world, system, notice(Notice::GrantOpened { grant: contract.grant }));
        } else {
            push(&mut world, system, Kind::Undo(Undo::Accept { grant: contract.grant }));
        }
    }
    let fourth = world.contract(&ticket(second, other), 8, 2);
    push(&mut world, by(1), Kind::Offer { contract: fourth, signature: fourth.sign(&key(1)) });
    push(&mut world, system, Kind::Undo(Undo::Offer { grant: fourth.grant }));
    let spec = LeaseSpec {
        bytes: 1,
        ttl: Micros(50),
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    };
    for step in 0..4 {
        push(&mut world, by(2), Kind::Reserve { spec: spec.clone(), session: 12 });
        let broker::state::View::Leases(page) = world.view(2, broker::state::Query::Leases(None)).unwrap()
        else {
            panic!()
        };
        let reserved = caps::wire::row::LeaseState::Reserved;
        let lease = page.rows.iter().find(|row| row.state == reserved).unwrap().id;
        match step {
            0 => drop(push(&mut world, system, Kind::Abandon { lease })),
            1 => drop(push(&mut world, by(2), Kind::Release { lease })),
            2 => drop(push(&mut world, by(2), revoke(Target::Lease(lease)))),
            // Stays reserved.
            _ => continue,
        }
        if step < 2 {
            push(&mut world, system, Kind::Taken { lease });
        }
    }
    for target in [
        Target::Region(other),
        Target::Grant(fourth.grant),
        Target::Holder(public(4)),
        Target::Subtree(fourth.grant),
    ] {
        push(&mut world, by(0), revoke(target));
    }
    let cause = EndCause::HolderExit;
    push(&mut world, system, notice(Notice::LeaseEnded { lease: second, cause }));
    push(&mut world, system, Kind::Refused { who: public(4), code: Code::Denied, about: None });
    push(&mut world, system, Kind::HolderExit { session: 99 });
    // Below a grant: a block of a token, by somebody who held it, and one by its id alone.
    let ids = [RevocationId([3; 64]), RevocationId([4; 64])];
    let cut = TokenCut {
        lease: first,
        grant: Some(GrantId([5; 16])),
        id: ids[1],
        marks: ids.map(|id| Some(Mark::signature(&id))),
        range: Some(ByteRange::new(0, 50).unwrap()),
        not_before: UnixMicros(START + 3_000),
        until: UnixMicros(START + 4_000),
        held: true,
        reason: Reason::new("golden").unwrap(),
    };
    push(&mut world, by(2), Kind::RevokeToken(cut));
    push(&mut world, by(1), revoke(Target::Block { lease: first, id: ids[0] }));
    // Offers of a lease: withdrawn, undone, accepted in vain, and done; and one of the new owner's that is accepted.
    push(
        &mut world,
        by(4),
        Kind::Reserve { spec: LeaseSpec { ttl: Micros(9_000), ..spec.clone() }, session: 13 },
    );
    let broker::state::View::Leases(page) = world.view(4, broker::state::Query::Leases(None)).unwrap() else {
        panic!()
    };
    let (lease, moved) = (page.rows[0].id, page.rows[0].region);
    push(&mut world, system, Kind::Commit { lease, bytes: PAGE });
    let contract = |n: u8, from, to| TransferContract {
        cluster: genesis().cluster,
        transfer: TransferId([n; 16]),
        lease,
        region: moved,
        from: public(from),
        to: public(to),
        ttl: Micros(900),
    };
    let offer = |n, from, to| {
        let contract = contract(n, from, to);
        Kind::TransferOffer { contract, signature: contract.sign(&key(from)) }
    };
    let accept = |n, from, to| {
        let signature = contract(n, from, to).sign(&key(to));
        let (transfer, lifetime) = (TransferId([n; 16]), Lifetime::Process);
        Kind::TransferAccept(TransferAcceptance { transfer, signature, lifetime, session: 12 })
    };
    let transfer = TransferId([1; 16]);
    push(&mut world, by(4), offer(1, 4, 2));
    push(&mut world, by(2), Kind::TransferWithdraw { transfer });
    let transfer = TransferId([2; 16]);
    push(&mut world, by(4), offer(2, 4, 2));
    push(&mut world, system, Kind::Undo(Undo::TransferOffer { transfer }));
    let transfer = TransferId([3; 16]);
    push(&mut world, by(4), offer(3, 4, 2));
    let attempt = |accepted| match accepted {
        broker::state::Answer::HandingOver { give: Take::Owner { since, .. }, .. } => since,
        other => panic!("{other:?}"),
    };
    let since = attempt(push(&mut world, by(2), accept(3, 4, 2)));
    push(&mut world, system, Kind::TransferBack { transfer, since });
    let since = attempt(push(&mut world, by(2), accept(3, 4, 2)));
    push(&mut world, system, Kind::Undo(Undo::TransferAccept { transfer, since }));
    let since = attempt(push(&mut world, by(2), accept(3, 4, 2)));
    push(&mut world, system, Kind::TransferDone { transfer, since });
    push(&mut world, by(2), offer(4, 2, 1));
    push(&mut world, by(1), accept(4, 2, 1));
    // Donations: one that was undone, one that was taken back, one that is given, and one that is over and used.
    for id in [20, 21, 22, 23].map(|id| DonationId([id; 16])) {
        push(&mut world, by(0), Kind::QuotaGive { id, to: public(2), bytes: PAGE, ttl: Micros(9_000) });
        match id.0[0] {
            20 => drop(push(&mut world, system, Kind::Undo(Undo::QuotaGive { id }))),
            21 => drop(push(&mut world, by(0), Kind::QuotaTakeBack { id })),
            _ => {}
        }
    }
    push(
        &mut world,
        by(2),
        Kind::Reserve { spec: LeaseSpec { bytes: 7 * PAGE, ..spec.clone() }, session: 12 },
    );
    push(&mut world, by(0), Kind::QuotaTakeBack { id: DonationId([23; 16]) });
    push(&mut world, system, Kind::PolicyLoad { hash: [7; 32] });
    push(&mut world, system, Kind::Tick);
    // One of a grant that is open, and one of what that left.
    let narrowing = Narrowing {
        grant: GrantId([5; 16]),
        rights: Some(Rights::READ),
        range: Some(ByteRange::new(0, 100).unwrap()),
        ttl: None,
    };
    push(&mut world, by(0), Kind::Narrow(narrowing));
    let narrowing = Narrowing { rights: None, range: None, ttl: Some(Micros(90)), ..narrowing };
    push(&mut world, by(0), Kind::Narrow(narrowing));
    // Two with a co-signer: one that waits for it, and one that was issued by its signature. A lease has room for three.
    push(&mut world, system, Kind::PolicyLoad { hash: genesis().policy });
    push(&mut world, by(1), revoke(Target::Grant(GrantId([6; 16]))));
    for grant in [9, 10] {
        let contract = caps::share::ShareContract {
            cosigner: Some(public(0)),
            ..world.contract(&ticket(first, region), grant, 2)
        };
        let (grant, signature) = (contract.grant, contract.sign(&key(1)));
        push(&mut world, by(1), Kind::OfferToCosign { contract, signature, uid: Some(1000) });
        if grant == GrantId([10; 16]) {
            push(&mut world, by(0), Kind::Cosign { grant, signature: contract.sign(&key(0)) });
            push(&mut world, by(0), Kind::Issue { grant });
        }
    }
    // Providers: one more, which is heard, drains and takes leases again; one that is lost; and a name's second life.
    for (n, text) in [(1, "east"), (2, "west")] {
        let provider = Registration {
            id: ProviderId([n; 16]),
            name: name(text),
            address: (n == 1).then(|| Address::new("east.example:7443").unwrap()),
            bytes: 4 * PAGE,
            regions: 2,
            classes: if n == 1 { vec![name("training")] } else { Vec::new() },
            locality: (n == 1).then(|| name("zone-1")),
            seat: (n == 1).then_some(Seat([0x5e; 16])),
        };
        push(&mut world, system, Kind::ProviderRegister { provider, attached: false });
    }
    let load = Load { sessions: 3, committed_bytes: 2 * PAGE };
    push(&mut world, system, Kind::ProviderHeartbeat { provider: ProviderId([1; 16]), load });
    let spec = LeaseSpec { bytes: PAGE, near: Some(name("zone-1")), class: Some(name("training")), ..spec };
    let reserved = push(&mut world, by(4), Kind::Reserve { spec: spec.clone(), session: 14 });
    let broker::state::Answer::Reserved(at_east, _) = reserved else { panic!() };
    push(&mut world, by(0), Kind::ProviderDrain { name: name("east"), drain: true });
    push(&mut world, by(0), Kind::ProviderDrain { name: name("own"), drain: true });
    push(&mut world, by(0), Kind::ProviderDrain { name: name("own"), drain: false });
    push(&mut world, system, Kind::ProviderLost { provider: ProviderId([2; 16]), proved: true });
    let provider = Registration { id: ProviderId([3; 16]), name: name("west"), ..own() };
    push(&mut world, system, Kind::ProviderRegister { provider, attached: false });
    // What was not told to one, some of it late; and a lease that is lost with another, which refused one before.
    let (provider, lease) = (ProviderId([1; 16]), at_east.lease);
    push(&mut world, system, Kind::Commit { lease, bytes: PAGE });
    for grant in [1, 2] {
        let take = Take::Grant { lease, grant: GrantId([grant; 16]), expires: UnixMicros(START + 9_000) };
        push(&mut world, system, Kind::Untold { provider, take, cause: EndCause::Revoked });
        if grant == 1 {
            push(&mut world, system, Kind::Told { provider, take });
        }
    }
    push(&mut world, system, Kind::ProviderHeartbeat { provider, load });
    push(&mut world, by(0), Kind::ProviderDrain { name: name("own"), drain: true });
    // The table is full: one that is going back makes room.
    let broker::state::View::Leases(page) = world.view(0, broker::state::Query::Leases(None)).unwrap() else {
        panic!()
    };
    let ending = page.rows.iter().find(|row| row.state == caps::wire::row::LeaseState::Ending).unwrap();
    push(&mut world, system, Kind::Taken { lease: ending.id });
    let spec = LeaseSpec { name: None, class: None, near: None, ..spec };
    let last_spec = spec.clone();
    push(&mut world, by(4), Kind::Reserve { spec, session: 14 });
    let provider = ProviderId([3; 16]);
    push(&mut world, system, Kind::ProviderRefused { provider });
    push(&mut world, by(0), Kind::ProviderGiveUp { name: name("west") });
    let again = Registration { id: ProviderId([4; 16]), name: name("west"), ..own() };
    push(&mut world, system, Kind::ProviderRegister { provider: again, attached: false });
    let spec = LeaseSpec { bytes: 1, ttl: Micros(900), ..last_spec };
    push(&mut world, by(4), Kind::Reserve { spec, session: 14 });
    push(&mut world, system, Kind::ProviderLost { provider: ProviderId([4; 16]), proved: false });
    commands
}

fn compare(file: &str, bytes: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("LEASEHOLD_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let stored = std::fs::read(&path).unwrap();
    assert!(
        stored == bytes,
        "{file}: the serialized form changed ({} bytes, {} stored)",
        bytes.len(),
        stored.len()
    );
}

#[test]
fn the_form_has_not_drifted() {
    let commands = commands();
    let stream: Vec<u8> = commands.iter().flat_map(broker::fuzzing::encode).collect();
    compare(&format!("commands-v{SNAPSHOT_VERSION}.cbor"), &stream);

    let mut broker = Broker::new(genesis()).unwrap();
    for (n, text) in [(1, "alice"), (2, "bob"), (3, "small")] {
        let kind = Kind::PrincipalAdd { name: name(text), key: public(n) };
        let (at, by) = (UnixMicros(START), Actor::Principal(public(0)));
        broker.apply(&Command { at, by, random: [0; 32], policy: None, kind }).answer.unwrap();
    }
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let command: Command = ciborium::from_reader(&mut rest).unwrap();
        broker.apply(&command).answer.unwrap();
    }
    compare(&format!("state-v{SNAPSHOT_VERSION}.cbor"), &broker.snapshot());
    assert_eq!(Broker::restore(&broker.snapshot()).unwrap(), broker);
}

#[test]
fn a_snapshot_that_cannot_be_is_refused() {
    let mut world = World::new();
    world.lease(1, PAGE, 1_000);
    let good = world.broker.snapshot();
    assert_eq!(Broker::restore(&good).unwrap(), world.broker);
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(code(Broker::restore(&longer)), Some(Code::Internal));
    assert_eq!(code(Broker::restore(&good[..good.len() - 1])), Some(Code::Internal));
    // A version of the future.
    let at = good.windows(7).position(|bytes| bytes == b"version").unwrap() + 7;
    let mut future = good.clone();
    future[at] = u8::try_from(SNAPSHOT_VERSION).unwrap() + 1;
    assert_eq!(code(Broker::restore(&future)), Some(Code::Internal));
    // A lease of 60 KiB, where its owner's quota has 32.
    let range = [0x82, 0x00, 0x19, 0x10, 0x00];
    let at = good.windows(5).position(|bytes| bytes == range).unwrap();
    let mut sold = good.clone();
    sold[at + 3] = 0xf0;
    assert_eq!(code(Broker::restore(&sold)), Some(Code::Internal));
}

#[test]
fn a_snapshot_with_donations_that_cannot_be_is_refused() {
    // Two of one giver, one of them over and used.
    let mut world = World::new();
    for n in [0x31, 0x32] {
        let (id, ttl) = (DonationId([n; 16]), Micros(9_000));
        world.by(1, Kind::QuotaGive { id, to: public(2), bytes: 2 * PAGE, ttl }).answer.unwrap();
    }
    world.lease(2, 11 * PAGE, 8_000);
    world.by(1, Kind::QuotaTakeBack { id: DonationId([0x32; 16]) }).answer.unwrap();
    let good = world.broker.snapshot();
    assert_eq!(Broker::restore(&good).unwrap(), world.broker);
    let good: Value = ciborium::from_reader(&good[..]).unwrap();
    let refused = |what: &str, tamper: &dyn Fn(&mut Vec<Value>)| {
        let mut tampered = good.clone();
        let Value::Array(rows) = member(&mut tampered, "donations") else { panic!("{good:?}") };
        tamper(rows);
        assert_ne!(tampered, good, "{what}");
        let mut bytes = Vec::new();
        ciborium::into_writer(&tampered, &mut bytes).unwrap();
        assert_eq!(code(Broker::restore(&bytes)), Some(Code::Internal), "{what}");
    };
    refused("a row twice", &|rows| rows.push(rows[0].clone()));
    refused("no row for what is used", &|rows| drop(rows.pop()));
    refused("more than 64 bits lent by one", &|rows| {
        *member(&mut rows[0], "bytes") = u64::MAX.into();
        *member(member(member(&mut rows[1], "life"), "Returning"), "lent") = u64::MAX.into();
        *member(&mut rows[1], "bytes") = u64::MAX.into();
    });
    refused("more than the giver has", &|rows| *member(&mut rows[0], "bytes") = (7 * PAGE).into());
    refused("more lent than given", &|rows| *member(&mut rows[1], "bytes") = 1.into());
    for lent in [0, PAGE - 1, PAGE + 1] {
        refused("not what is used", &|rows| {
            *member(member(member(&mut rows[1], "life"), "Returning"), "lent") = lent.into();
        });
    }
    refused("to oneself", &|rows| *member(&mut rows[0], "receiver") = member(&mut rows[0], "giver").clone());
    refused("by a stranger", &|rows| match member(&mut rows[0], "giver") {
        Value::Bytes(key) => key[0] ^= 1,
        other => panic!("{other:?}"),
    });
}

/// What a map has under a name.
fn member<'a>(of: &'a mut Value, name: &str) -> &'a mut Value {
    let Value::Map(entries) = of else { panic!("{of:?} has no {name}") };
    let found = entries.iter_mut().find(|(key, _)| key.as_text() == Some(name));
    &mut found.unwrap_or_else(|| panic!("no {name}")).1
}
