//! What a hostile node can answer: a conversation written by a fuzzer, and what must hold of the client's half of it.
//!
//! The books here are kept apart from those of the protocol and by other means: a list of what was asked, and for each packet
//! what its author meant by it.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;

use caps::error::{Code, Error};
use caps::id::{RequestId, SlotHandle};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::reply::Opened;
use caps::wire::request::Path;
use caps::wire::row::Tier;
use caps::wire::{Frame, FrameKind, Reply, Request, frame};

use super::protocol::{OUTSTANDING_MAX, Packet, Protocol};

const HANDLE: SlotHandle = SlotHandle { slot: 3, epoch: 4 };
/// Steps of one conversation: enough to fill the queue and to empty it.
const STEPS_MAX: usize = 4 * OUTSTANDING_MAX;

/// The fuzz target: bytes become requests, packets and callers who give up.
pub fn conversation(bytes: &[u8]) {
    let mut talk = Talk { protocol: Protocol::new(), asked: VecDeque::new(), broken: None };
    let mut bytes = bytes;
    for _ in 0..STEPS_MAX {
        let Some((&step, rest)) = bytes.split_first() else { break };
        bytes = rest;
        match step % 8 {
            0..=2 => talk.ask(step / 8),
            3 => talk.give_up(step / 8),
            4 => {
                // Whatever comes: a length, and as many bytes.
                let length = usize::from(step / 8) * 8;
                let (packet, rest) = bytes.split_at(length.min(bytes.len()));
                bytes = rest;
                talk.hear(packet, false, false, false);
            }
            _ => {
                let Some((&how, rest)) = bytes.split_first() else { break };
                bytes = rest;
                talk.answer(step / 8, how);
            }
        }
    }
}

/// What the conversation was written with.
struct Asked {
    id: RequestId,
    what: u8,
    awaited: bool,
}

struct Talk {
    protocol: Protocol,
    asked: VecDeque<Asked>,
    broken: Option<Code>,
}

/// Requests, by the descriptor that may come beside their answer.
fn request(what: u8) -> Request {
    // A token is opaque here: any bytes do.
    let token = || Token::from_bytes(b"token".to_vec()).expect("short enough");
    match what % 6 {
        0 => Request::Open { token: token(), rights: Rights::READ, path: Path::Mapped },
        1 => Request::Open { token: token(), rights: Rights::READ, path: Path::Mediated },
        2 => Request::Segment { handle: HANDLE, index: 1 },
        3 => Request::Channel,
        4 => Request::Close { handle: HANDLE },
        _ => Request::Write { handle: HANDLE, offset: 0, data: vec![7; 8], crc: 0 },
    }
}

fn reply(what: u8) -> Result<Reply, Error> {
    let opened = |mapped| {
        Reply::Opened(Opened {
            handle: HANDLE,
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).expect("in order"),
            region_bytes: 4096,
            segment_bytes: 4096,
            mapped,
            tier: Tier::Open,
            expires_in: Micros(1),
            audit: Micros(0),
        })
    };
    Ok(match what % 6 {
        0 => opened(true),
        1 => opened(false),
        2 => Reply::Segment { index: 1 },
        3 => Reply::Channel,
        4 => Reply::Done,
        _ => return Err(Error::with(Code::Denied, "no \u{1b}[31mred\n".to_owned())),
    })
}

impl Talk {
    fn ask(&mut self, what: u8) {
        let outgoing = match self.protocol.encode(&request(what)) {
            Ok(outgoing) => outgoing,
            Err(error) => {
                let full = (self.asked.len() == OUTSTANDING_MAX).then_some(Code::Busy);
                assert_eq!(Some(error.code()), self.broken.or(full), "it refuses for a reason");
                return;
            }
        };
        assert!(self.broken.is_none() && self.asked.len() < OUTSTANDING_MAX);
        let awaited = what.is_multiple_of(2);
        let id = self.protocol.sent(&outgoing, awaited);
        assert!(self.asked.iter().all(|asked| asked.id.0 < id.0) && id.0 > 0, "a number names one request");
        self.asked.push_back(Asked { id, what, awaited });
    }

    fn give_up(&mut self, which: u8) {
        let count = self.asked.len().max(1);
        let Some(asked) = self.asked.get_mut(usize::from(which) % count) else { return };
        let told = self.protocol.abandon(asked.id, Error::new(Code::Timeout, "late"));
        // A write may have happened; of the others it is known that nothing outlives the session.
        assert_eq!(told.code(), if asked.what % 6 == 5 { Code::Uncertain } else { Code::Timeout });
        asked.awaited = false;
    }

    /// An answer as a node would make it, or nearly: to the right request or another, with a descriptor or without.
    fn answer(&mut self, what: u8, how: u8) {
        let next = self.asked.front().map_or(1, |asked| asked.id.0);
        let id = RequestId(match how % 8 {
            0 => next + 1,
            1 => next.wrapping_sub(1),
            _ => next,
        });
        let packet = match reply(what) {
            Ok(reply) => frame::encode(FrameKind::Reply, id, &reply),
            Err(error) => frame::encode(FrameKind::Error, id, &error),
        };
        self.hear(&packet.expect("small"), how & 0x10 != 0, how >> 5 == 6, how >> 5 == 7);
    }

    fn hear(&mut self, bytes: &[u8], descriptor: bool, payload_cut: bool, descriptors_cut: bool) {
        let expected = !payload_cut && !descriptors_cut && self.is_honest(bytes, descriptor);
        assert_eq!(self.protocol.outstanding(), self.asked.len());
        assert_eq!(self.protocol.anybody_waits(), self.asked.iter().any(|asked| asked.awaited));
        let may_come = self.asked.front().is_some_and(|asked| matches!(asked.what % 6, 0 | 2 | 3));
        assert_eq!(self.protocol.descriptor_may_come(), may_come);
        let descriptor = descriptor.then(|| OwnedFd::from(File::open("/dev/null").expect("it is there")));
        let had = descriptor.is_some();
        match self.protocol.receive(Packet { bytes, descriptor, payload_cut, descriptors_cut }) {
            Ok(mut answer) => {
                assert!(expected, "only what the rules allow is taken");
                let asked = self.asked.pop_front().expect("an answer to something");
                assert!(answer.is_for(asked.id) && answer.descriptor.is_some() == had);
                let opened = matches!(answer.result, Ok(Reply::Opened(_)));
                assert_eq!(answer.orphan().is_some(), opened, "what is closed for who gave up");
                assert!(!opened || matches!(asked.what % 6, 0 | 1), "is what was to be opened");
                let channel = answer.take_channel();
                assert_eq!(channel.is_some(), asked.what % 6 == 3 && had);
                if let Err(error) = answer.take_reply() {
                    assert!(
                        error.detail().bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                        "safe to print"
                    );
                }
            }
            Err(error) => {
                assert!(!expected, "what the rules allow is taken: {error}");
                // The first reason stays.
                self.broken.get_or_insert(error.code());
            }
        }
    }

    /// Whether a packet keeps every rule, as the requests so far have it.
    fn is_honest(&self, bytes: &[u8], descriptor: bool) -> bool {
        let (Some(asked), Ok(frame)) = (self.asked.front(), Frame::decode(bytes)) else { return false };
        if frame.request != asked.id {
            return false;
        }
        match frame.kind {
            FrameKind::Request => false,
            FrameKind::Error => frame.body::<Error>().is_ok() && !descriptor,
            FrameKind::Reply => match frame.body::<Reply>() {
                Err(_) => false,
                Ok(Reply::Opened(opened)) => {
                    let path = if opened.mapped { 0 } else { 1 };
                    asked.what % 6 == path && descriptor == opened.mapped
                }
                Ok(Reply::Segment { .. }) => descriptor == (asked.what % 6 == 2),
                Ok(Reply::Channel) => descriptor == (asked.what % 6 == 3),
                Ok(_) => !descriptor,
            },
        }
    }
}

/// Where a fuzzer starts from: conversations that go on, and one of each lie.
#[must_use]
pub fn conversation_seeds() -> Vec<Vec<u8>> {
    let ask = |what: u8| what * 8;
    let answer = |what: u8, how: u8| [what * 8 + 5, how];
    let honest = (0..6).flat_map(|what| {
        let with = if matches!(what, 0 | 2 | 3) { 0x12 } else { 0x02 };
        [&[ask(what)][..], &answer(what, with)].concat()
    });
    let mut seeds = vec![honest.collect(), vec![0; 40]];
    for (what, how) in [(4, 0x00), (4, 0x01), (4, 0x12), (0, 0x02), (4, 0xc2), (4, 0xe2), (5, 0x02)] {
        seeds.push([&[ask(4), 3][..], &answer(what, how), &[ask(4)]].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seeds_hold() {
        conversation_seeds().iter().for_each(|seed| conversation(seed));
    }

    proptest! {
        #[test]
        fn any_conversation_holds(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            conversation(&bytes);
        }
    }
}
