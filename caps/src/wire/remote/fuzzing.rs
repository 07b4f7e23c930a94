//! What must hold of any bytes, from either side.

use super::ask::{Ask, Further};
use super::header::{Flags, HEADER_BYTES, Header};
use super::{Answer, Next, next};
use crate::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};

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
