//! A node that does not keep to the protocol is not asked again: the first lie is what every later call is told.

use caps::error::Code;
use caps::id::{RequestId, SlotHandle};
use caps::range::ByteRange;
use caps::wire::remote::{Flags, Header, Piece, Verb};
use caps::wire::reply::Opened;
use caps::wire::{Reply, cbor};
use libmem::Mediated;
use zerocopy::IntoBytes;

use crate::node::{Frame, HANDLE, Peer, World, opened};

/// What a call comes to that the node answers with `lie`, and that it is the same from then on.
fn told(ask: impl Fn(&Mediated) -> Code, lie: impl FnOnce(&mut Peer, &Frame) + Send + 'static) -> Code {
    let world = World::new(move |door| {
        let mut peer = door.welcome();
        let range = ByteRange::new(0, LONG as u64).unwrap();
        peer.open_as(Opened { range, region_bytes: LONG as u64, ..opened(HANDLE) });
        let asked = peer.next();
        lie(&mut peer, &asked);
        // The client hangs up; there is no other connection, which the script would not be there for.
        while peer.try_next().is_some() {}
    });
    let (client, memory) = world.memory();
    let code = ask(&memory);
    assert_eq!(client.status().unwrap_err().code(), code, "the session is over");
    assert_eq!(memory.read_at(0, &mut [0]).unwrap_err().code(), code);
    drop((memory, client));
    world.finish();
    code
}

/// Asks for 100 bytes.
fn reading(memory: &Mediated) -> Code {
    memory.read_at(0, &mut [0; 100]).unwrap_err().code()
}

fn header(verb: Verb, flags: Flags, request: u64, body: usize) -> Header {
    Header::of(verb, flags, RequestId(request), body).unwrap()
}

#[test]
fn an_answer_that_is_not_the_next_in_line() {
    let wrong: [fn(&Frame) -> Header; 4] = [
        |asked| header(Verb::Read, Flags::ANSWER, asked.header.request.0 + 1, 100),
        |asked| header(Verb::Read, Flags::ANSWER, asked.header.request.0 - 1, 100),
        |_| header(Verb::Read, Flags::ANSWER, 0, 100),
        |asked| header(Verb::Write, Flags::ANSWER, asked.header.request.0, 100),
    ];
    for (at, wrong) in wrong.into_iter().enumerate() {
        let lie = move |peer: &mut Peer, asked: &Frame| {
            peer.bytes(&[&wrong(asked).encode()[..], &[0; 100]].concat());
        };
        assert_eq!(told(reading, lie), Code::Protocol, "case {at}");
    }
}

#[test]
fn a_frame_that_is_none() {
    let request = |peer: &mut Peer, asked: &Frame| {
        let header = header(Verb::Read, Flags::NONE, asked.header.request.0, 100);
        peer.bytes(&[&header.encode()[..], &[0; 100]].concat());
    };
    assert_eq!(told(reading, request), Code::Protocol, "a node sends answers");
    assert_eq!(told(reading, |peer, _| peer.bytes(&[0xff; 32])), Code::FrameType);
    let version = |peer: &mut Peer, asked: &Frame| {
        let mut bytes = header(Verb::Read, Flags::ANSWER, asked.header.request.0, 0).encode();
        bytes[4] = 9;
        peer.bytes(&bytes);
    };
    assert_eq!(told(reading, version), Code::FrameVersion);
    let nobodys = |peer: &mut Peer, asked: &Frame| {
        let mut header = header(Verb::Read, Flags::ANSWER, asked.header.request.0, 0);
        header.deadline_or_code = 65_535;
        peer.bytes(&header.encode());
    };
    assert_eq!(told(reading, nobodys), Code::FrameType, "a code that nobody knows");
}

#[test]
fn other_bytes_than_were_asked_for() {
    let more = |peer: &mut Peer, asked: &Frame| peer.answer(asked, &[0; 101]);
    assert_eq!(told(reading, more), Code::Protocol);
    let more_later = |peer: &mut Peer, asked: &Frame| {
        peer.frame(asked, Flags::MORE, 0, &[0; 60]);
        peer.answer(asked, &[0; 60]);
    };
    assert_eq!(told(reading, more_later), Code::Protocol);
    assert_eq!(told(reading, |peer, asked| peer.answer(asked, &[0; 99])), Code::Protocol);
    let chunk = |memory: &Mediated| memory.read_at(0, &mut vec![0; 70_000]).unwrap_err().code();
    let large = |peer: &mut Peer, asked: &Frame| peer.answer(asked, &[0; 70_000]);
    assert_eq!(told(chunk, large), Code::FrameSize, "a frame carries 64 KiB");
}

#[test]
fn more_for_ever() {
    let nothing = |peer: &mut Peer, asked: &Frame| {
        for _ in 0..1_000 {
            peer.frame(asked, Flags::MORE, 0, &[]);
        }
    };
    assert_eq!(told(reading, nothing), Code::Protocol);
    let after_all = |peer: &mut Peer, asked: &Frame| {
        peer.frame(asked, Flags::MORE, 0, &[0; 100]);
        peer.frame(asked, Flags::MORE, 0, &[0; 1]);
    };
    assert_eq!(told(reading, after_all), Code::Protocol);
    let gathering = |memory: &Mediated| memory.gather(&mut [(0, &mut [0; 8])]).unwrap_err().code();
    let pieces = |peer: &mut Peer, asked: &Frame| {
        for _ in 0..1_000 {
            peer.frame(asked, Flags::MORE, 1, Piece::new(0, None, 0).as_bytes());
        }
    };
    assert_eq!(told(gathering, pieces), Code::Protocol);
}

#[test]
fn pieces_of_other_items() {
    let gathering =
        |memory: &Mediated| memory.gather(&mut [(0, &mut [0; 8]), (8, &mut [0; 8])]).unwrap_err().code();
    let lies: [&'static [(u32, Option<Code>, u64)]; 6] = [
        &[(1, None, 8), (0, None, 8)],
        &[(0, None, 8)],
        &[(0, None, 9), (1, None, 8)],
        &[(0, None, 8), (1, None, 8), (2, None, 8)],
        &[(0, Some(Code::Range), 0), (0, None, 1), (1, None, 8)],
        &[(0, None, 4), (0, None, 5), (1, None, 8)],
    ];
    for lie in lies {
        let send = move |peer: &mut Peer, asked: &Frame| {
            let pieces: Vec<Piece> =
                lie.iter().map(|&(index, code, length)| Piece::new(index, code, length)).collect();
            let bytes = vec![0; lie.iter().map(|piece| piece.2 as usize).sum()];
            peer.frame(asked, Flags::NONE, lie.len() as u32, &[pieces.as_bytes(), &bytes].concat());
        };
        assert_eq!(told(gathering, send), Code::Protocol, "{lie:?}");
    }
    let scattering = |memory: &Mediated| memory.scatter(&[(0, b"ab"), (8, b"cd")]).unwrap_err().code();
    let lies: [&'static [(u32, u64)]; 4] =
        [&[(0, 2)], &[(1, 2), (0, 2)], &[(0, 3), (1, 2)], &[(0, 2), (1, 2), (2, 0)]];
    for lie in lies {
        let send = move |peer: &mut Peer, asked: &Frame| {
            let pieces: Vec<Piece> =
                lie.iter().map(|&(index, length)| Piece::new(index, None, length)).collect();
            peer.frame(asked, Flags::NONE, lie.len() as u32, pieces.as_bytes());
        };
        assert_eq!(told(scattering, send), Code::Protocol, "{lie:?}");
    }
}

#[test]
fn a_write_that_was_another() {
    let writing = |memory: &Mediated| memory.write_at(0, b"abc").unwrap_err().code();
    assert_eq!(told(writing, |peer, asked| peer.answer(asked, &2_u64.to_le_bytes())), Code::Protocol);
    assert_eq!(told(writing, |peer, asked| peer.answer(asked, &[0; 7])), Code::FrameType);
    // Many frames, and the answer after the first: nothing is read any more, so that the others are still to come.
    let (over, wait) = std::sync::mpsc::channel();
    let long = move |memory: &Mediated| {
        let code = memory.write_at(0, &vec![0; LONG]).unwrap_err().code();
        over.send(()).unwrap();
        code
    };
    let early = move |peer: &mut Peer, asked: &Frame| {
        peer.answer(asked, &(LONG as u64).to_le_bytes());
        wait.recv().unwrap();
    };
    assert_eq!(told(long, early), Code::Protocol);
}

/// Bytes of a write that no socket's buffers hold.
const LONG: usize = 64 << 20;

#[test]
fn an_end_in_the_middle_of_a_frame() {
    for cut in [1, 31, 32, 131] {
        let world = World::new(move |door| {
            let mut peer = door.welcome();
            peer.open(HANDLE);
            let asked = peer.next();
            let header = header(Verb::Read, Flags::ANSWER, asked.header.request.0, 100);
            peer.bytes(&[&header.encode()[..], &[0; 100]].concat()[..cut]);
            peer.end();
        });
        let (client, memory) = world.memory();
        assert_eq!(reading(&memory), Code::Protocol, "cut at {cut}");
        assert_eq!(client.status().unwrap_err().code(), Code::Protocol);
        world.finish();
    }
}

#[test]
fn a_right_that_nobody_asked_for() {
    let status = |peer: &mut Peer, reply: Reply| {
        let (frame, _) = peer.control();
        let mut body = vec![];
        cbor::append(&reply, &mut body).unwrap();
        peer.answer(&frame, &body);
    };
    let mapped = Opened { mapped: true, ..opened(SlotHandle { slot: 9, epoch: 9 }) };
    for reply in [Reply::Opened(opened(HANDLE)), Reply::Opened(mapped), Reply::Channel] {
        let world = World::with(move |peer| status(peer, reply));
        let client = world.client();
        assert_eq!(client.status().unwrap_err().code(), Code::Protocol);
        assert_eq!(client.roots().unwrap_err().code(), Code::Protocol, "the session is over");
        world.finish();
    }
}
