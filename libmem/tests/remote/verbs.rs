//! What each call sends, and what it makes of true answers.

use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::LeaseId;
use caps::limits::{CHUNK_BYTES_MAX, REMOTE_BATCH_ITEMS_MAX, REMOTE_WINDOW_MAX};
use caps::rights::Rights;
use caps::wire::remote::ask::Further;
use caps::wire::remote::leases::{Create, Created, Creations, Delete, Deletions};
use caps::wire::remote::{Ask, Flags, Header, Piece, Span, Standing, Verb};
use caps::wire::{Request, cbor};
use libmem::{LeaseOptions, Stat};
use zerocopy::IntoBytes;

use crate::node::{Frame, HANDLE, REGION_BYTES, World, token};

const CHUNK: usize = CHUNK_BYTES_MAX;

/// Bytes that differ from place to place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// A node that serves memory as it should be, and what it was asked, once the client is gone.
fn served(script: impl FnOnce(libmem::Mediated)) -> (Vec<u8>, Vec<Frame>) {
    let (send, receive) = std::sync::mpsc::channel();
    let world = World::with(move |peer| {
        let mut memory = bytes(REGION_BYTES as usize);
        let asked = peer.serve(&mut memory);
        send.send((memory, asked)).unwrap();
    });
    let (client, memory) = world.memory();
    script(memory);
    drop(client);
    world.finish();
    receive.recv().unwrap()
}

/// The verbs of the first frames after the open.
fn verbs(asked: &[Frame]) -> Vec<(Verb, bool)> {
    asked[1..].iter().map(|frame| (frame.header.verb, frame.header.has_more())).collect()
}

#[test]
fn bytes_are_read_with_one_request_and_land_where_they_belong() {
    let (_, asked) = served(|memory| {
        for (offset, length) in [(0, 64), (5, 1), (3, CHUNK), (7, CHUNK + 1), (11, 3 * CHUNK + 5)] {
            let mut buffer = vec![0xee; length];
            memory.read_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, bytes(REGION_BYTES as usize)[offset as usize..][..length], "{length}");
        }
        memory.read_at(0, &mut []).unwrap();
        assert_eq!(memory.read_at(REGION_BYTES, &mut [0]).unwrap_err().code(), Code::Range);
    });
    assert_eq!(verbs(&asked)[..5], [(Verb::Read, false); 5]);
    assert_eq!(
        asked.iter().filter(|frame| frame.header.verb == Verb::Read).count(),
        5,
        "nothing is asked for nothing"
    );
    let Ask::Read(span) = Ask::decode(&asked[1].header, &asked[1].body).unwrap() else { panic!() };
    assert_eq!(*span, Span::new(HANDLE, 0, 64));
}

#[test]
fn a_read_ends_where_the_region_does_and_says_so() {
    served(|memory| {
        let mut buffer = vec![0xee; 100];
        assert_eq!(memory.read_into(REGION_BYTES - 40, &mut buffer).unwrap(), 40);
        assert!(buffer[40..].iter().all(|&byte| byte == 0xee), "what did not come was not touched");
        assert_eq!(memory.read_into(REGION_BYTES, &mut buffer).unwrap(), 0);
        assert_eq!(memory.read_into(u64::MAX, &mut buffer).unwrap_err().code(), Code::Range);
    });
}

#[test]
fn bytes_are_written_in_frames_of_64_kib() {
    let content = vec![0xaa; 3 * CHUNK + 5];
    let (memory, asked) = served(|memory| {
        memory.write_at(9, &content).unwrap();
        memory.write_at(1 << 20, b"x").unwrap();
        memory.write_at(0, b"").unwrap();
    });
    assert_eq!(memory[9..9 + content.len()], content);
    assert_eq!((memory[8], memory[9 + content.len()]), (8, ((9 + content.len()) % 251) as u8));
    assert_eq!(memory[1 << 20], b'x');
    let more = (Verb::Write, true);
    assert_eq!(verbs(&asked)[..5], [more, more, more, (Verb::Write, false), (Verb::Write, false)]);
    assert!(asked[1..5].iter().all(|frame| frame.header.request == asked[1].header.request));
}

#[test]
fn many_places_are_read_and_written_by_one_request_with_an_outcome_each() {
    let long = vec![0xbb; 2 * CHUNK + 1];
    let end = REGION_BYTES - 4;
    let (memory, asked) = served(|memory| {
        let outcomes = memory
            .scatter(&[
                (100, b"abc"),
                (end, b"truncated"),
                (REGION_BYTES + 1, b"x"),
                (1 << 20, &long),
                (5, b""),
            ])
            .unwrap();
        assert_eq!(outcomes.len(), 5);
        assert_eq!((&outcomes[0], &outcomes[1]), (&Ok(3), &Ok(4)));
        assert_eq!(outcomes[2].as_ref().unwrap_err().code(), Code::Range);
        assert_eq!((&outcomes[3], &outcomes[4]), (&Ok(long.len()), &Ok(0)));

        let (mut a, mut b, mut c, mut d) = ([0; 3], [0xee; 9], [0; 1], vec![0; long.len()]);
        let outcomes = memory
            .gather(&mut [
                (100, &mut a),
                (end, &mut b),
                (REGION_BYTES + 1, &mut c),
                (1 << 20, &mut d),
                (0, &mut []),
            ])
            .unwrap();
        assert_eq!((&outcomes[0], &outcomes[1]), (&Ok(3), &Ok(4)));
        assert_eq!(outcomes[2].as_ref().unwrap_err().code(), Code::Range);
        assert_eq!((&outcomes[3], &outcomes[4]), (&Ok(long.len()), &Ok(0)));
        assert_eq!((&a, &b), (b"abc", b"trun\xee\xee\xee\xee\xee"));
        assert!(d == long);
        assert_eq!(memory.gather(&mut []).unwrap(), []);
    });
    assert_eq!(memory[100..103], *b"abc");
    let frames = asked.iter().filter(|frame| frame.header.verb == Verb::Gather).count();
    assert_eq!(frames, 1);
}

#[test]
fn a_batch_of_thousands_is_several_requests_within_the_window() {
    let items = REMOTE_BATCH_ITEMS_MAX * (REMOTE_WINDOW_MAX + 2);
    let world = World::with(move |peer| {
        peer.open(HANDLE);
        let mut asked: std::collections::VecDeque<Frame> =
            (0..REMOTE_WINDOW_MAX).map(|_| peer.next()).collect();
        let mut seen = asked.len();
        while let Some(frame) = asked.pop_front() {
            let pieces: Vec<Piece> =
                (0..frame.header.items).map(|index| Piece::new(index, None, 8)).collect();
            let Ask::Gather(spans) = Ask::decode(&frame.header, &frame.body).unwrap() else { panic!() };
            let words: Vec<u8> = spans.iter().flat_map(|span| span.offset().to_le_bytes()).collect();
            peer.frame(&frame, Flags::NONE, frame.header.items, &[pieces.as_bytes(), &words].concat());
            if seen * REMOTE_BATCH_ITEMS_MAX < items {
                asked.push_back(peer.next());
                seen += 1;
            }
        }
    });
    let (_client, memory) = world.memory();
    let mut words = vec![[0_u8; 8]; items];
    let mut places: Vec<(u64, &mut [u8])> =
        words.iter_mut().enumerate().map(|(at, word)| (8 * at as u64, &mut word[..])).collect();
    let outcomes = memory.gather(&mut places).unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(8)));
    assert!(words.iter().enumerate().all(|(at, word)| u64::from_le_bytes(*word) == 8 * at as u64));
    world.finish();
}

#[test]
fn a_batch_that_comes_in_crumbs_is_put_together() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let asked = peer.next();
        // The second item goes on in the next frame, and ends there with nothing more.
        let first = [Piece::new(0, None, 3), Piece::new(1, None, 2)];
        let second = [Piece::new(1, Some(Code::Range), 1), Piece::new(2, None, 0), Piece::new(3, None, 4)];
        let frames = [
            (Flags::MORE, 2, [first.as_bytes(), b"abcde"].concat()),
            (Flags::NONE, 3, [second.as_bytes(), b"fghij"].concat()),
        ];
        for (flags, items, body) in frames {
            let flags = flags.and(Flags::ANSWER);
            let mut header = Header::of(Verb::Gather, flags, asked.header.request, body.len()).unwrap();
            header.items = items;
            // A record for each byte.
            [&header.encode()[..], &body].concat().iter().for_each(|byte| peer.bytes(&[*byte]));
        }
        peer.try_next();
    });
    let (client, memory) = world.memory();
    let (mut a, mut b, mut d) = ([0; 3], [0; 9], [0; 4]);
    let outcomes = memory.gather(&mut [(0, &mut a), (8, &mut b), (20, &mut []), (24, &mut d)]).unwrap();
    assert_eq!((&outcomes[0], &outcomes[2], &outcomes[3]), (&Ok(3), &Ok(0), &Ok(4)));
    assert_eq!(outcomes[1].as_ref().unwrap_err().code(), Code::Range);
    assert_eq!((&a, &b, &d), (b"abc", b"def\0\0\0\0\0\0", b"ghij"));
    drop((memory, client));
    world.finish();
}

#[test]
fn words_are_changed_in_one_step() {
    let (memory, asked) = served(|memory| {
        memory.write_at(64, &7_u64.to_le_bytes()).unwrap();
        assert_eq!(memory.compare_exchange_u64(64, 7, 9).unwrap(), 7);
        assert_eq!(memory.compare_exchange_u64(64, 7, 11).unwrap(), 9);
        assert_eq!(memory.fetch_add_u64(64, u64::MAX).unwrap(), 9);
        assert_eq!(memory.fetch_add_u64(65, 1).unwrap_err().code(), Code::Range);
        assert_eq!(memory.compare_exchange_u64(REGION_BYTES, 0, 1).unwrap_err().code(), Code::Range);
    });
    assert_eq!(memory[64..72], 8_u64.to_le_bytes());
    let (cas, add) = ((Verb::Cas, false), (Verb::FetchAdd, false));
    assert_eq!(verbs(&asked)[1..4], [cas, cas, add]);
}

#[test]
fn a_right_is_asked_what_it_reaches_now() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let asked = peer.next();
        assert_eq!(asked.header.verb, Verb::Stat);
        peer.answer(&asked, Standing::new(REGION_BYTES, (4096, 8192), Rights::READ, 1_500_000).as_bytes());
        let asked = peer.next();
        peer.answer(&asked, Standing::new(REGION_BYTES, (4096, 4096), Rights::READ, 0).as_bytes());
    });
    let (_client, memory) = world.memory();
    let stat = memory.stat().unwrap();
    let expected = Stat {
        region_bytes: REGION_BYTES,
        range: libmem::ByteRange::new(4096, 8192).unwrap(),
        rights: Rights::READ,
        expires_in: Duration::from_micros(1_500_000),
    };
    assert_eq!(stat, expected);
    assert_eq!(memory.stat().unwrap_err().code(), Code::Protocol, "a right that reaches nothing is no right");
    world.finish();
}

#[test]
fn leases_are_made_with_their_first_bytes_and_given_back() {
    let world = World::with(|peer| {
        let asked = peer.next();
        let Ask::Create(body) = Ask::decode(&asked.header, &asked.body).unwrap() else { panic!() };
        let create: Create = cbor::decode(body).unwrap();
        let sizes: Vec<u64> = create.leases.iter().map(|spec| spec.bytes).collect();
        assert_eq!(sizes, [65_536, 1 << 20, 200_000]);
        let mut here = vec![vec![]; 3];
        let mut more = asked.header.has_more();
        while more {
            let next = peer.next();
            assert_eq!(next.header.request, asked.header.request);
            let Further::Create { pieces, mut data } = Further::decode(&next.header, &next.body).unwrap()
            else {
                panic!()
            };
            for piece in pieces {
                let (bytes, rest) = data.split_at(piece.length() as usize);
                here[piece.index() as usize].extend_from_slice(bytes);
                data = rest;
            }
            more = next.header.has_more();
        }
        assert_eq!(here, [b"abc".to_vec(), vec![], bytes(150_000)]);
        let lease = crate::node::lease(LeaseId([3; 16]));
        let created = Created { lease, token: token(), written: 3 };
        let creations: Creations =
            vec![Ok(created), Err(Error::new(Code::Quota, "no\n")), Err(Code::NoMemory.into())];
        let mut body = vec![];
        cbor::append(&creations, &mut body).unwrap();
        peer.answer(&asked, &body);

        let asked = peer.next();
        let Ask::Delete(body) = Ask::decode(&asked.header, &asked.body).unwrap() else { panic!() };
        assert_eq!(cbor::decode::<Delete>(body).unwrap().leases, [LeaseId([3; 16]), LeaseId([4; 16])]);
        let deletions: Deletions = vec![Ok(()), Err(Code::LeaseUnknown.into())];
        let mut body = vec![];
        cbor::append(&deletions, &mut body).unwrap();
        peer.answer(&asked, &body);
    });
    let client = world.client();
    let options = |bytes| LeaseOptions::new(bytes, Duration::from_secs(60));
    let long = bytes(150_000);
    let outcomes = client
        .create(&[(options(65_536), b"abc"), (options(1 << 20), b""), (options(200_000), &long)])
        .unwrap();
    let created = outcomes[0].as_ref().unwrap();
    assert_eq!((created.lease.id, created.written), (LeaseId([3; 16]), 3));
    let refused = outcomes[1].as_ref().unwrap_err();
    assert_eq!(refused.code(), Code::Quota);
    assert!(!refused.detail().contains('\n'), "a node's text is not printed as it comes");
    assert_eq!(outcomes[2].as_ref().unwrap_err().code(), Code::NoMemory);
    let deleted = client.delete(&[LeaseId([3; 16]), LeaseId([4; 16])]).unwrap();
    assert_eq!(deleted[0], Ok(()));
    assert_eq!(deleted[1].as_ref().unwrap_err().code(), Code::LeaseUnknown);
    assert_eq!(client.delete(&[]).unwrap_err().code(), Code::Range);
    world.finish();
}

#[test]
fn o10_checksums_travel_where_they_are_asked_for() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let asked = peer.next();
        assert!(asked.header.flags.contains(Flags::CRC), "it was verified when it came");
        peer.answer(&asked, &3_u64.to_le_bytes());
        let asked = peer.next();
        assert!(asked.header.flags.contains(Flags::CRC), "and asked for");
        peer.answer(&asked, b"abc");
        let asked = peer.next();
        let mut header = caps::wire::remote::Header::of(Verb::Read, Flags::ANSWER, asked.header.request, 3)
            .unwrap()
            .checked(b"abc");
        header.crc ^= 1;
        peer.bytes(&[&header.encode()[..], b"abc"].concat());
    });
    let client = libmem::Client::connect(&world.endpoint().checked(true), &crate::node::key()).unwrap();
    let memory = client.open_mediated(&token(), Rights::READ_WRITE).unwrap();
    memory.write_at(0, b"abc").unwrap();
    let mut buffer = [0; 3];
    memory.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abc");
    assert_eq!(memory.read_at(0, &mut buffer).unwrap_err().code(), Code::Checksum);
    world.finish();
}

#[test]
fn a_refusal_is_the_calls_alone_and_ends_a_write_in_the_middle() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let first = peer.next();
        assert!(first.header.has_more());
        peer.refuse(&first, Code::Revoked);
        while peer.next().header.has_more() {} // what is left of it comes and is nobody's
        let asked = peer.next();
        assert_eq!(asked.header.verb, Verb::Read);
        peer.frame(&asked, Flags::MORE, 0, b"ab");
        peer.refuse(&asked, Code::Revoked);
        let asked = peer.next();
        peer.answer(&asked, b"abcd");
    });
    let (_client, memory) = world.memory();
    assert_eq!(memory.write_at(0, &bytes(5 * CHUNK)).unwrap_err().code(), Code::Revoked);
    let mut buffer = [0; 4];
    assert_eq!(memory.read_at(0, &mut buffer).unwrap_err().code(), Code::Revoked);
    memory.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"abcd");
    world.finish();
}

#[test]
fn a_dropped_right_is_closed_and_nobody_waits_for_it() {
    let world = World::with(|peer| {
        peer.open(HANDLE);
        let (close, request) = peer.control();
        assert_eq!(request, Request::Close { handle: HANDLE });
        let (asked, request) = peer.control();
        assert_eq!(request, Request::Status, "it was asked before the close was answered");
        peer.reply(&close, &caps::wire::Reply::Done);
        peer.refuse(&asked, Code::NotAdmin);
    });
    let (client, memory) = world.memory();
    drop(memory);
    assert_eq!(client.status().unwrap_err().code(), Code::NotAdmin);
    world.finish();
}

#[test]
fn threads_that_share_a_session_take_turns() {
    let (memory, _) = served(|memory| {
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let memory = &memory;
                scope.spawn(move || {
                    for round in 0..50 {
                        memory.fetch_add_u64(0, 1).unwrap();
                        let mut word = [0; 8];
                        let at = 4096 * (thread + 1);
                        memory.write_at(at, &(round + thread).to_le_bytes()).unwrap();
                        memory.read_at(at, &mut word).unwrap();
                        assert_eq!(u64::from_le_bytes(word), round + thread);
                    }
                });
            }
        });
    });
    let before = u64::from_le_bytes(bytes(8).try_into().unwrap());
    assert_eq!(memory[..8], (before + 200).to_le_bytes());
}
