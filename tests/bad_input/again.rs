//! Row H1: a request that was answered, whose answer did not arrive, and that is asked again with its number.

use caps::error::Code;
use caps::id::RequestId;
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::wire::request::Path;
use caps::wire::row::{Revocation, Target};
use caps::wire::{Frame, FrameKind, Name, Reason, Reply, Request, frame};
use libmem::ShareOptions;
use policy::limits;

use super::bed::{Bed, Logged};
use super::wire::{Got, Raw, spec};

/// A number that the session has not used.
const NUMBER: RequestId = RequestId(1 << 40);

fn packet(id: RequestId, request: &Request) -> Vec<u8> {
    frame::encode(FrameKind::Request, id, request).unwrap()
}

/// Sends a packet and returns the answer's bytes, header and all.
fn answer(raw: &Raw, packet: &[u8]) -> Vec<u8> {
    raw.send(packet).unwrap();
    match raw.receive() {
        Got::Packet(answer) => answer,
        Got::End => panic!("the node hung up"),
    }
}

fn reply(answer: &[u8]) -> Reply {
    let frame = Frame::decode(answer).unwrap();
    assert_eq!(frame.kind, FrameKind::Reply, "{:?}", frame.body::<caps::error::Error>());
    frame.body().unwrap()
}

fn code(answer: &[u8]) -> Code {
    let frame = Frame::decode(answer).unwrap();
    assert_eq!(frame.kind, FrameKind::Error);
    frame.body::<caps::error::Error>().unwrap().code()
}

/// What the broker holds and has recorded.
#[derive(Debug, PartialEq, Eq)]
struct Books {
    leases: u32,
    grants: u32,
    principals: u32,
    bytes: u64,
    entries: u64,
}

fn books(bed: &Bed) -> Books {
    match bed.session().ask(&Request::Status).unwrap() {
        Reply::Status(status) => Books {
            leases: status.leases,
            grants: status.grants,
            principals: status.principals,
            bytes: status.leased_bytes,
            entries: status.broker_entries,
        },
        other => panic!("{other:?}"),
    }
}

/// Entries of an event that name an id.
fn told(entries: &[String], event: &str, id: &str) -> usize {
    let event = format!("\"event\":\"{event}\"");
    entries.iter().filter(|entry| entry.contains(&event) && entry.contains(id)).count()
}

#[test]
fn h1_the_same_number_and_bytes_again_same_answer_one_effect_one_entry() {
    let mut bed = Bed::new("");
    let bob = SigningKey::generate();
    let (admin, _) = Raw::session(&bed.node.socket(), &bed.node.admin()).unwrap();
    let add = packet(NUMBER, &Request::PrincipalAdd { name: Name::new("bob").unwrap(), key: bob.public() });
    let added = answer(&admin, &add);
    assert_eq!(reply(&added), Reply::Done);
    let after = books(&bed);
    assert_eq!(answer(&admin, &add), added, "and not that the name is taken");
    assert_eq!(books(&bed), after);

    let raw = bed.session();
    let create = packet(NUMBER, &Request::LeaseCreate(spec(4096)));
    let created = answer(&raw, &create);
    let Reply::Leased { lease, token } = reply(&created) else { panic!("a lease") };
    let after = books(&bed);
    for _ in 0..3 {
        assert_eq!(answer(&raw, &create), created, "the same lease, by the same token");
        assert_eq!(books(&bed), after, "and no other");
    }

    let contract =
        ShareOptions::new(bob.public(), Rights::READ).contract(bed.welcome.cluster, &lease).unwrap();
    let offer = Request::ShareOffer { contract, signature: contract.sign(&bed.mallory) };
    let offer = packet(RequestId(NUMBER.0 + 1), &offer);
    let offered = answer(&raw, &offer);
    assert!(matches!(reply(&offered), Reply::Shared(_)));
    let after = books(&bed);
    assert_eq!(answer(&raw, &offer), offered, "and not that the grant is there");
    assert_eq!(books(&bed), after);

    let revocation = Revocation { target: Target::Lease(lease.id), reason: Reason::default() };
    let revoke = packet(RequestId(NUMBER.0 + 2), &Request::Revoke(revocation));
    let revoked = answer(&raw, &revoke);
    assert!(matches!(reply(&revoked), Reply::Receipt(_)));
    let after = books(&bed);
    assert_eq!(answer(&raw, &revoke), revoked, "the same receipt");
    assert_eq!(books(&bed), after);
    // The answers before it are as they were, although what they tell of is over.
    assert_eq!(answer(&raw, &create), created);
    assert_eq!(answer(&raw, &offer), offered);
    let mut other = bed.session();
    assert_eq!(other.open(&token, Rights::READ).unwrap_err().code(), Code::TokenRevoked);

    // A refusal is an answer as well.
    let unknown =
        Revocation { target: Target::Lease(caps::id::LeaseId::random()), reason: Reason::default() };
    let refused = packet(RequestId(NUMBER.0 + 3), &Request::Revoke(unknown));
    let first = answer(&raw, &refused);
    assert_eq!(code(&first), Code::LeaseUnknown);
    assert_eq!(answer(&raw, &refused), first);

    // In another session the number is another request.
    assert!(
        matches!(reply(&answer(&bed.session(), &create)), Reply::Leased { lease: new, .. } if new.id != lease.id)
    );
    bed.check_bystander();
    let entries = bed.finish();
    let (id, grant) = (lease.id.to_string(), contract.grant.to_string());
    for event in ["lease.offer", "lease.claim", "lease.grant"] {
        assert_eq!(told(&entries, event, &id), 1, "{event}");
    }
    assert_eq!(told(&entries, "share.offer", &grant), 1);
    assert_eq!(told(&entries, "lease.revoke", &id), 2, "one in each log");
}

#[test]
fn h1_a_right_that_is_opened_again_by_its_number_is_opened_once() {
    let mut bed = Bed::new("");
    let mut raw = bed.session();
    let (lease, token) = raw.lease(4096);
    let open = |path| Request::Open { token: token.clone(), rights: Rights::READ_WRITE, path };
    let opens = |raw: &mut Raw| match raw.ask(&Request::LeaseShow { lease: lease.id }).unwrap() {
        Reply::Lease { memory: Some(memory), .. } => (memory.opens, memory.mappings),
        other => panic!("{other:?}"),
    };
    // By calls: the same handle.
    let by_calls = packet(NUMBER, &open(Path::Mediated));
    let opened = answer(&raw, &by_calls);
    assert_eq!(answer(&raw, &by_calls), opened);
    assert_eq!(opens(&mut raw), (1, 0));
    // By a descriptor: it is not handed out twice, and nothing is opened for it.
    let mapped = packet(RequestId(NUMBER.0 + 1), &open(Path::Mapped));
    raw.send(&mapped).unwrap();
    let (Got::Packet(first), descriptors) = raw.receive_with(1) else { panic!("the node hung up") };
    assert!(matches!(reply(&first), Reply::Opened(_)) && descriptors.len() == 1);
    for _ in 0..2 * limits::FAULTS_PER_SESSION_MAX {
        raw.send(&mapped).unwrap();
        let (Got::Packet(again), descriptors) = raw.receive_with(1) else {
            panic!("who lost an answer goes on")
        };
        assert_eq!((code(&again), descriptors.len()), (Code::FrameDuplicate, 0));
    }
    assert_eq!(opens(&mut raw), (2, 1));
    // A write is made once, so that what was written since stays.
    let Reply::Opened(handle) = reply(&opened) else { panic!("a right") };
    let write = |id, data: &[u8]| {
        let (data, crc) = (data.to_vec(), crc32c::crc32c(data));
        packet(RequestId(id), &Request::Write { handle: handle.handle, offset: 0, data, crc })
    };
    let first = write(NUMBER.0 + 2, b"one");
    assert_eq!(reply(&answer(&raw, &first)), Reply::Done);
    assert_eq!(reply(&answer(&raw, &write(NUMBER.0 + 3, b"two"))), Reply::Done);
    assert_eq!(reply(&answer(&raw, &first)), Reply::Done);
    assert_eq!(raw.read(handle.handle, 0, 3).unwrap(), b"two");
    bed.check_bystander();
    bed.finish();
}

#[test]
fn c7_h1_the_number_of_another_request() {
    let mut bed = Bed::new("");
    let begin = |bed: &Bed| {
        let raw = bed.session();
        let add = packet(NUMBER, &Request::LeaseCreate(spec(4096)));
        assert!(matches!(reply(&answer(&raw, &add)), Reply::Leased { .. }));
        raw
    };
    for (row, request) in [
        ("other bytes", Request::LeaseCreate(spec(8192))),
        ("another request", Request::RootRotate),
        ("one that reads", Request::Status),
    ] {
        let packet = packet(NUMBER, &request);
        let raw = begin(&bed);
        bed.row_with(row, Code::FrameDuplicate, Logged::Entry, 1_000, &mut |_| code(&answer(&raw, &packet)));
        let mut raw = begin(&bed);
        let after = books(&bed);
        assert_eq!(code(&answer(&raw, &packet)), Code::FrameDuplicate);
        assert_eq!(books(&bed), after, "{row}: nothing is done");
        assert!(raw.ask(&Request::Status).is_ok(), "{row}: the session goes on");
    }
    bed.finish();
}

#[test]
fn h1_what_is_too_long_ago_is_a_new_request() {
    let mut bed = Bed::new("");
    let raw = bed.session();
    let create = packet(NUMBER, &Request::LeaseCreate(spec(4096)));
    let created = answer(&raw, &create);
    let again = |n: u64| {
        let unknown =
            Revocation { target: Target::Lease(caps::id::LeaseId::random()), reason: Reason::default() };
        assert_eq!(
            code(&answer(&raw, &packet(RequestId(NUMBER.0 + n), &Request::Revoke(unknown)))),
            Code::LeaseUnknown
        );
    };
    (1..limits::SESSION_ANSWERS_MAX as u64).for_each(again);
    assert_eq!(answer(&raw, &create), created, "the last of those that are remembered");
    again(limits::SESSION_ANSWERS_MAX as u64);
    assert_ne!(answer(&raw, &create), created);
    bed.check_bystander();
    bed.finish();
}
