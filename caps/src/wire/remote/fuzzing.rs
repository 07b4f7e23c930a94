//! What must hold of any bytes, from either side.

use zerocopy::IntoBytes;

use super::ask::{Ask, Further};
use super::body::{Add, Piece, Span, Standing, Swap};
use super::header::{Flags, HEADER_BYTES, Header, Verb};
use super::{Answer, Next, next};
use crate::error::Code;
use crate::id::{RequestId, SlotHandle};
use crate::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::rights::Rights;

/// One conversation: a request of each verb, and what it may be answered, each a seed and all of them in a row another.
///
/// # Panics
/// Never: the bodies are short.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    const AT: SlotHandle = SlotHandle { slot: 3, epoch: 4 };
    let span = |length| Span::new(AT, 64, length);
    let spans = [span(2), span(3)];
    let pieces = [Piece::new(0, None, 2), Piece::new(1, Some(Code::Range), 3)];
    let written = [Piece::new(0, None, 5)];
    let with = |fixed: &[u8], bytes: &[u8]| [fixed, bytes].concat();
    let (ask, more, answer) = (Flags::NONE, Flags::MORE, Flags::ANSWER);
    let failed = Header { deadline_or_code: Code::Revoked as u32, ..frame(Verb::Read, answer, 0, b"gone").0 };
    let frames = [
        frame(Verb::Control, ask, 0, b"\xf6"),
        frame(Verb::Read, ask, 0, span(5).as_bytes()),
        frame(Verb::Write, more, 0, &with(span(5).as_bytes(), b"he")),
        frame(Verb::Write, ask, 0, b"llo"),
        frame(Verb::Gather, ask, 2, spans.as_bytes()),
        frame(Verb::Scatter, ask, 2, &with(spans.as_bytes(), b"hello")),
        frame(Verb::Cas, ask, 0, Swap::new(AT, 8, 1, 2).as_bytes()),
        frame(Verb::FetchAdd, ask, 0, Add::new(AT, 8, 1).as_bytes()),
        frame(Verb::Stat, ask, 0, span(0).as_bytes()),
        frame(Verb::Create, more, 0, b"\xa0"),
        frame(Verb::Create, ask, 1, &with(written.as_bytes(), b"hello")),
        frame(Verb::Delete, ask, 0, b"\xa0"),
        frame(Verb::Control, answer, 0, b"\xf6"),
        frame(Verb::Read, answer.and(more), 0, b"he"),
        frame(Verb::Read, answer, 0, b"llo"),
        frame(Verb::Write, answer, 0, &5_u64.to_le_bytes()),
        frame(Verb::Gather, answer, 2, &with(pieces.as_bytes(), b"hello")),
        frame(Verb::Scatter, answer, 1, written.as_bytes()),
        frame(Verb::Cas, answer, 0, &1_u64.to_le_bytes()),
        frame(Verb::Stat, answer, 0, Standing::new(99, (64, 99), Rights::READ, 7).as_bytes()),
        (failed, b"gone".to_vec()),
    ];
    let mut seeds: Vec<_> = frames.iter().map(|(header, body)| with(&header.encode(), body)).collect();
    seeds.push(seeds.concat());
    seeds
}

fn frame(verb: Verb, flags: Flags, items: u32, body: &[u8]) -> (Header, Vec<u8>) {
    let header = Header::of(verb, flags, RequestId(7), body.len()).expect("a short body");
    (Header { items, ..header }.checked(body), body.to_vec())
}

/// A stream is taken apart into frames that put together are its beginning; what is announced is within bounds; what is
/// read of a frame lies within it.
///
/// # Panics
/// If it does not hold.
pub fn stream(bytes: &[u8]) {
    let mut left = bytes;
    loop {
        match next(left) {
            Err(_) => return,
            Ok(Next::Wants(more)) => {
                assert!(more > 0 && more < FRAME_BYTES_MAX, "{more}");
                return;
            }
            Ok(Next::Frame { header, body, rest }) => {
                let spelled = [&header.encode()[..], body].concat();
                assert_eq!(&left[..left.len() - rest.len()], spelled, "a frame has one spelling");
                assert!(spelled.len() <= FRAME_BYTES_MAX && spelled.len() >= HEADER_BYTES);
                meanings(&header, body);
                left = rest;
            }
        }
    }
}

fn meanings(header: &Header, body: &[u8]) {
    let answer = header.flags.contains(Flags::ANSWER);
    let within = |data: &[u8]| assert!(data.len() <= CHUNK_BYTES_MAX);
    match Ask::decode(header, body) {
        Ok(Ask::Write { data, span }) => {
            within(data);
            assert!(data.len() as u64 <= span.length());
        }
        Ok(Ask::Scatter { spans, data }) => {
            within(data);
            assert_eq!(spans.iter().map(|span| span.length()).sum::<u64>(), data.len() as u64);
        }
        Ok(Ask::Cas(swap)) => assert_eq!(swap.word.offset() % 8, 0),
        Ok(Ask::FetchAdd(add)) => assert_eq!(add.word.offset() % 8, 0),
        Ok(_) | Err(_) => {}
    }
    match Further::decode(header, body) {
        Ok(Further::Write(data) | Further::Scatter { data, .. } | Further::Create { data, .. }) => {
            within(data)
        }
        Err(_) => {}
    }
    let asked = Ask::decode(header, body).is_ok() || Further::decode(header, body).is_ok();
    let answered = Answer::decode(header, body);
    assert!(!asked || !answer, "a node asks nothing");
    assert!(answered.is_err() || answer, "a client answers nothing");
    if let Ok(Answer::Read(data) | Answer::Pieces { data, .. }) = answered {
        within(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_frames_and_what_must_hold_of_it_does() {
        let seeds = seeds();
        for seed in &seeds {
            let mut left = &seed[..];
            while let Ok(Next::Frame { header, body, rest }) = next(left) {
                let asked = Ask::decode(&header, body).is_ok() || Further::decode(&header, body).is_ok();
                assert!(asked || Answer::decode(&header, body).is_ok(), "{header:?}");
                left = rest;
            }
            assert!(left.is_empty(), "a seed is whole frames");
            stream(seed);
        }
    }
}
