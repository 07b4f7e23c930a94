//! Requests that are asked again on another connection, words, and leases by the batch.

use caps::error::{Code, Error};
use caps::id::{ClientId, LeaseId, RequestId, SlotHandle};
use caps::time::Micros;
use caps::wire::remote::leases::{Create, Creations, Delete, Deletions};
use caps::wire::remote::{Add, Answer, Flags, Header, Piece, Span, Swap, Verb};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{LeaseState, Lifetime};
use caps::wire::{Reply, Request, cbor};
use libmem::{Client, Rights};
use zerocopy::IntoBytes;

use super::Scene;
use super::common::tls::{Frame, Tls};
use super::common::{code, log, pattern, refused, until};

const CLIENT: ClientId = ClientId([7; 16]);
/// A number that no other request of these sessions has.
const NUMBER: RequestId = RequestId(1_000);

impl Scene {
    /// A connection of a program, with the lease open.
    fn resumed(&self, client: ClientId) -> (Tls, SlotHandle) {
        let (tls, handle, _) = self.resumed_as(client);
        (tls, handle)
    }

    /// The same, and whether the node knew the program before.
    fn resumed_as(&self, client: ClientId) -> (Tls, SlotHandle, bool) {
        let (mut tls, handle) = self.opened();
        let Ok(Reply::Resumed { known }) = tls.control(&Request::Resume { client }) else {
            panic!("resumes")
        };
        (tls, handle, known)
    }

    /// How many leases alice has.
    fn live(&self) -> usize {
        let client = Client::connect(&self.node.endpoint(), &self.node.key("alice")).unwrap();
        client.leases().filter(|lease| lease.as_ref().unwrap().state == LeaseState::Live).count()
    }
}

/// A request's only frame, under this number.
fn frame(verb: Verb, number: RequestId, body: &[u8]) -> Vec<u8> {
    [&Header::of(verb, Flags::NONE, number, body.len()).unwrap().encode()[..], body].concat()
}

fn say(tls: &mut Tls, frame: &[u8]) -> Frame {
    tls.write(frame).unwrap();
    tls.hear().expect("an answer")
}

fn word(answer: &Frame) -> Result<u64, Error> {
    match Answer::decode(&answer.header, &answer.body).unwrap() {
        Answer::Word(before) => Ok(before),
        Answer::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn add(handle: SlotHandle, addend: u64) -> Vec<u8> {
    frame(Verb::FetchAdd, NUMBER, Add::new(handle, 8, addend).as_bytes())
}

fn read_word(tls: &mut Tls, handle: SlotHandle) -> u64 {
    u64::from_le_bytes(tls.read_at(handle, 8, 8).unwrap().try_into().unwrap())
}

#[test]
fn a_word_is_added_to_once_however_often_it_is_asked() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.resumed(CLIENT);
    // It is cut before its answer has come; whether it was done does not matter.
    tls.write(&add(handle, 5)).unwrap();
    drop(tls);
    for _ in 0..3 {
        let (mut tls, handle, known) = scene.resumed_as(CLIENT);
        assert!(known, "what it was answered is known");
        let answer = until("the lost connection is not at it any more", || {
            let answer = word(&say(&mut tls, &add(handle, 5)));
            (code(&answer) != "E_BUSY").then_some(answer)
        });
        assert_eq!(answer, Ok(0));
        assert_eq!(read_word(&mut tls, handle), 5);
    }
    // The number is taken, for whatever else.
    let (mut tls, handle) = scene.resumed(CLIENT);
    refused(word(&say(&mut tls, &add(handle, 6))), Code::FrameDuplicate);
    let read = frame(Verb::Read, NUMBER, Span::new(handle, 8, 8).as_bytes());
    assert_eq!(say(&mut tls, &read).failure().map(|error| error.code()), Some(Code::FrameDuplicate));
    log::await_provider(&scene.node.audit(), "the other request is on record", |entry| {
        entry["code"] == "E_FRAME_DUP"
    });
    assert_eq!(read_word(&mut tls, handle), 5);
    // It is another program's to use, and that of a connection that does not say whose it is.
    let (mut other, theirs, known) = scene.resumed_as(ClientId([8; 16]));
    assert!(!known, "nothing is known of it");
    assert_eq!(word(&say(&mut other, &add(theirs, 5))), Ok(5));
    let (mut nobody, its) = scene.opened();
    assert_eq!(word(&say(&mut nobody, &add(its, 5))), Ok(10));
    assert_eq!(word(&say(&mut nobody, &add(its, 5))), Ok(10), "within one connection as well");
    assert_eq!(read_word(&mut tls, handle), 15);
    scene.is_well();
}

#[test]
fn a_lease_is_made_once_however_often_it_is_asked_for() {
    let mut scene = Scene::set();
    let mut body = Vec::new();
    cbor::append(&Request::LeaseCreate(spec(65_536)), &mut body).unwrap();
    let asked = frame(Verb::Control, NUMBER, &body);
    let mut made = None;
    let (mut tls, _) = scene.resumed(CLIENT);
    tls.write(&asked).unwrap();
    drop(tls);
    for _ in 0..2 {
        let (mut tls, _) = scene.resumed(CLIENT);
        let answer = until("the lost connection's request is done", || {
            let answer = say(&mut tls, &asked);
            (answer.failure().map(|error| error.code()) != Some(Code::Busy)).then_some(answer)
        });
        let Ok(Reply::Leased { lease, .. }) = cbor::decode(&answer.body) else { panic!("{answer:?}") };
        assert_eq!(*made.get_or_insert(lease.id), lease.id);
    }
    assert_eq!(scene.live(), 2, "the scene's, and this one");
    scene.is_well();
}

fn spec(bytes: u64) -> LeaseSpec {
    LeaseSpec {
        bytes,
        ttl: Micros::from_millis(600_000),
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

/// The frames of a request for leases with these first bytes, two values a frame at most.
fn create(values: &[Vec<u8>], piece: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let leases = values.iter().map(|value| spec(value.len() as u64)).collect();
    cbor::append(&Create { leases }, &mut body).unwrap();
    let mut frames = Header::of(Verb::Create, Flags::MORE, NUMBER, body.len()).unwrap().encode().to_vec();
    frames.extend(body);
    let pieces: Vec<_> = (0_u32..)
        .zip(values)
        .flat_map(|(index, value)| value.chunks(piece).map(move |piece| (index, piece)))
        .collect();
    for (at, (index, data)) in pieces.iter().enumerate() {
        let flags = if at + 1 < pieces.len() { Flags::MORE } else { Flags::NONE };
        let body = [Piece::new(*index, None, data.len() as u64).as_bytes(), data].concat();
        let header = Header { items: 1, ..Header::of(Verb::Create, flags, NUMBER, body.len()).unwrap() };
        frames.extend(header.encode());
        frames.extend(body);
    }
    frames
}

fn created(answer: &Frame) -> Creations {
    match Answer::decode(&answer.header, &answer.body).unwrap() {
        Answer::Leases(body) => cbor::decode(body).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn leases_come_with_their_first_bytes_and_go_together() {
    let mut scene = Scene::set();
    let values = [pattern(1, 100_000), pattern(2, 70_000), pattern(3, 65_536)];
    let (mut tls, _) = scene.resumed(CLIENT);
    let made = created(&say(&mut tls, &create(&values, 60_000)));
    drop(tls);
    // Once more on another connection, in other frames: the same leases.
    let (mut tls, _) = scene.resumed(CLIENT);
    let again = created(&say(&mut tls, &create(&values, 33_333)));
    let ids = |made: &Creations| -> Vec<LeaseId> {
        made.iter().map(|one| one.as_ref().unwrap().lease.id).collect()
    };
    assert_eq!(ids(&made), ids(&again));
    let mut other = values.clone();
    other[1][69_999] ^= 1;
    let answer = say(&mut tls, &create(&other, 60_000));
    assert_eq!(answer.failure().map(|error| error.code()), Some(Code::FrameDuplicate));

    let handles: Vec<_> =
        made.iter().map(|one| tls.open(&one.as_ref().unwrap().token, Rights::READ).unwrap()).collect();
    let spans: Vec<_> = handles
        .iter()
        .zip(&values)
        .map(|(&handle, value)| Span::new(handle, 0, value.len() as u64))
        .collect();
    assert_eq!(gather(&mut tls, &spans), values);

    let mut body = Vec::new();
    cbor::append(&Delete { leases: ids(&made) }, &mut body).unwrap();
    for number in [2_000, 2_000] {
        let answer = say(&mut tls, &frame(Verb::Delete, RequestId(number), &body));
        let Answer::Leases(body) = Answer::decode(&answer.header, &answer.body).unwrap() else {
            panic!("{answer:?}")
        };
        let gone: Deletions = cbor::decode(body).unwrap();
        assert_eq!(gone, vec![Ok(()); made.len()]);
    }
    assert_eq!(scene.live(), 1);
    refused(tls.read_at(handles[0], 0, 1), Code::Revoked);
    scene.is_well();
}

/// The bytes of every span.
fn gather(tls: &mut Tls, spans: &[Span]) -> Vec<Vec<u8>> {
    let body = spans.as_bytes();
    let header = Header::of(Verb::Gather, Flags::NONE, tls.number(), body.len()).unwrap();
    let header = Header { items: spans.len() as u32, ..header };
    let mut answer = say(tls, &[&header.encode()[..], body].concat());
    let mut values = vec![Vec::new(); spans.len()];
    loop {
        let Answer::Pieces { pieces, data } = Answer::decode(&answer.header, &answer.body).unwrap() else {
            panic!("{answer:?}")
        };
        let mut rest = data;
        for piece in pieces {
            let (own, after) = rest.split_at(piece.length() as usize);
            values[piece.index() as usize].extend_from_slice(own);
            rest = after;
        }
        if !answer.header.has_more() {
            return values;
        }
        answer = tls.hear().expect("the rest of an answer");
    }
}

#[test]
fn what_breaks_off_in_its_first_bytes_leaves_no_lease() {
    let mut scene = Scene::set();
    let values = [pattern(1, 100_000), pattern(2, 100_000)];
    let frames = create(&values, 50_000);
    let (mut tls, _) = scene.resumed(CLIENT);
    tls.write(&frames[..frames.len() - 1]).unwrap();
    drop(tls);
    // Asked again, it is done from the beginning, and there are its leases and no others.
    let (mut tls, _) = scene.resumed(CLIENT);
    let made = until("what broke off is undone", || {
        let answer = say(&mut tls, &frames);
        (answer.failure().map(|error| error.code()) != Some(Code::Busy)).then(|| created(&answer))
    });
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    assert_eq!(scene.live(), 3, "the scene's, and two");
    scene.is_well();
}

#[test]
fn a_word_that_is_swapped_over_tls_is_seen_where_it_is_mapped() {
    let mut scene = Scene::set();
    let client = Client::connect(&scene.node.endpoint(), &scene.node.key("alice")).unwrap();
    let region = client.open_mapped(&scene.token, Rights::READ_WRITE).unwrap();
    region.store_u64(8, 3).unwrap();
    let (mut tls, handle) = scene.opened();
    let mut swap =
        |expected, desired| word(&tls.ask(Verb::Cas, Swap::new(handle, 8, expected, desired).as_bytes()));
    assert_eq!(swap(4, 9), Ok(3));
    assert_eq!(region.load_u64(8).unwrap(), 3, "another word was expected");
    assert_eq!(swap(3, 9), Ok(3));
    assert_eq!(region.load_u64(8).unwrap(), 9);
    assert_eq!(region.fetch_add_u64(8, 1).unwrap(), 9);
    assert_eq!(swap(10, 11), Ok(10), "and the other way about");
    scene.is_well();
}

/// What a request of the socket leaves behind is known to who asks again, also when its time was over, and a lease that
/// ends with the session does so however late it was made.
#[test]
fn a_lease_that_is_made_too_late_is_told_when_asked_again_and_ends_with_its_session() {
    let mut scene = Scene::set();
    let before = scene.live();
    let spec = LeaseSpec {
        bytes: 1 << 20,
        ttl: Micros(600_000_000),
        name: None,
        class: None,
        lifetime: Lifetime::Process,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    };
    let mut body = Vec::new();
    cbor::append(&Request::LeaseCreate(spec), &mut body).unwrap();
    let (mut tls, _) = scene.resumed(CLIENT);
    // A millisecond is mostly not enough to record and sync it. It may be, so it is tried some times.
    let late = (0..200).any(|n| {
        let number = RequestId(NUMBER.0 + n);
        let header = Header::of(Verb::Control, Flags::NONE, number, body.len()).unwrap();
        let hurried = Header { deadline_or_code: 1, ..header };
        let first = say(&mut tls, &[&hurried.encode()[..], &body].concat()).failure();
        if first.as_ref().is_some_and(|error| error.code() != Code::Timeout) {
            panic!("{first:?}");
        }
        let again = say(&mut tls, &frame(Verb::Control, number, &body));
        let reply: Reply = cbor::decode(&again.body).unwrap_or_else(|_| panic!("{:?}", again.failure()));
        assert!(matches!(reply, Reply::Leased { .. }), "{reply:?}");
        first.is_some()
    });
    assert!(late, "no answer was ever late");
    assert!(scene.live() > before);
    drop(tls);
    until("what was made for the session has ended with it", || (scene.live() == before).then_some(()));
    scene.is_well();
}
