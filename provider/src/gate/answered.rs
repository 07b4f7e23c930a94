//! The changing requests that a session asked last, and what they were answered: who did not get the answer asks again
//! with the same number and gets it, without a second effect and without a second entry.
//!
//! | the number, asked again | is answered |
//! |---|---|
//! | with the same bytes | by the same bytes as the first time, a refusal as well |
//! | with other bytes | `E_FRAME_DUP` |
//! | with the same bytes, when the answer had a descriptor, or made room for later ones | `E_FRAME_DUP`; nothing is done |
//! | of a reading request | by doing it again |
//!
//! A descriptor is not kept for a second answer: it would keep a region's file open in the node for as long as nobody
//! asks. A client that lost one does not know its handle either, and begins a new session, which ends the right.
//!
//! An answer is kept until others have taken its place or the session is over, in clear: where it holds a token, that of
//! who asked. It is of no use to another session, and whoever lost a token that is fetched once (`unwrap`) with its
//! session has lost it.
//!
//! What is not among the last [`SESSION_ANSWERS_MAX`] is a new request. A client has no more requests than that without
//! an answer (`OUTSTANDING_MAX` in libmem), so the one that it has to ask again is among them.

use std::collections::VecDeque;

use caps::id::RequestId;
use caps::wire::Request;
use caps::wire::request::Effect;
use policy::limits::{SESSION_ANSWER_BYTES_MAX, SESSION_ANSWERS_MAX};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a changing request is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity([u8; 32]);

impl Identity {
    /// Of a request that is told apart by this digest.
    pub(super) const fn of_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Of a request that came with this body; `None` if doing it again is as good as answering it again.
    pub(super) fn of(request: &Request, body: &[u8]) -> Option<Self> {
        let bytes = match request {
            // Its data is up to 64 KiB, which a hash would look at for longer than the write does. The checksum stands
            // for it, and was compared with it when it was written. Who sends other data under the same number, place
            // and checksum deceives itself alone: nothing is written by it.
            Request::Write { handle, offset, data, crc } => {
                let mut hash = Sha256::new();
                hash.update(handle.slot.to_le_bytes());
                hash.update(handle.epoch.to_le_bytes());
                hash.update(offset.to_le_bytes());
                hash.update((data.len() as u64).to_le_bytes());
                hash.update(crc.to_le_bytes());
                hash.finalize()
            }
            request if request.effect() == Effect::None => return None,
            _ => Sha256::digest(body),
        };
        Some(Self(bytes.into()))
    }
}

/// The answer that went out.
#[derive(Debug)]
enum Kept {
    /// Its whole frame. It may hold a token.
    Frame(Zeroizing<Vec<u8>>),
    /// It had a descriptor beside it.
    Descriptor,
    /// There was no room to keep it any longer.
    Gone,
}

impl Kept {
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Descriptor | Self::Gone => 0,
        }
    }
}

/// What is known of a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// Nothing: it is a new request.
    New,
    /// It was answered by this frame.
    Answered(&'a [u8]),
    /// It was answered, and the answer cannot be given again.
    NotRepeatable,
    /// It is the number of another request.
    Other,
}

/// What one session remembers. Newest last.
#[derive(Debug)]
pub(super) struct Answered {
    last: VecDeque<(RequestId, Identity, Kept)>,
    /// Bytes of all frames in `last`.
    bytes: usize,
    /// Most answers, and most bytes of their frames.
    bounds: (usize, usize),
}

impl Default for Answered {
    /// Within the bounds of one session.
    fn default() -> Self {
        Self::bounded(SESSION_ANSWERS_MAX, SESSION_ANSWER_BYTES_MAX)
    }
}

impl Answered {
    /// At most so many answers, and so many bytes of them.
    pub(super) const fn bounded(answers: usize, bytes: usize) -> Self {
        Self { last: VecDeque::new(), bytes: 0, bounds: (answers, bytes) }
    }

    /// Bytes of all answers that it has.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a number is among the last.
    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.last.iter().any(|(known, ..)| *known == id)
    }

    /// What is known of a request's number. A reading request has no identity.
    pub(super) fn find(&self, id: RequestId, identity: Option<Identity>) -> Known<'_> {
        match self.last.iter().find(|(known, ..)| *known == id) {
            None => Known::New,
            Some((_, known, _)) if Some(*known) != identity => Known::Other,
            Some((.., Kept::Frame(frame))) => Known::Answered(frame),
            Some((.., Kept::Descriptor | Kept::Gone)) => Known::NotRepeatable,
        }
    }

    /// Remembers an answer; `None` if there is a descriptor beside it.
    pub(super) fn keep(&mut self, id: RequestId, identity: Identity, frame: Option<&[u8]>) {
        if self.last.len() == self.bounds.0 {
            self.bytes -= self.last.pop_front().map_or(0, |(.., kept)| kept.bytes());
        }
        let kept = match frame {
            None => Kept::Descriptor,
            Some(frame) if frame.len() > self.bounds.1 => Kept::Gone,
            Some(frame) => Kept::Frame(Zeroizing::new(frame.to_vec())),
        };
        // Its own bytes are counted when there is room for them.
        self.make_room(kept.bytes());
        self.bytes += kept.bytes();
        self.last.push_back((id, identity, kept));
    }

    /// Lets the oldest answers go until there is room for one of `bytes`, if there can be. Their numbers stay: what was
    /// done is not done twice because of its answer's size.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if bytes > self.bounds.1 {
            return;
        }
        for (.., kept) in &mut self.last {
            if self.bytes + bytes <= self.bounds.1 {
                break;
            }
            if let Kept::Frame(frame) = kept {
                self.bytes -= frame.len();
                *kept = Kept::Gone;
            }
        }
    }

    /// Forgets everything: a program that takes a session over numbers its requests from the beginning.
    pub(super) fn forget(&mut self) {
        *self = Self::bounded(self.bounds.0, self.bounds.1);
    }
}

#[cfg(test)]
mod tests {
    use caps::id::SlotHandle;

    use super::*;

    fn identity(n: u8) -> Identity {
        Identity([n; 32])
    }

    fn write(data: &[u8], crc: u32) -> Option<Identity> {
        let handle = SlotHandle { slot: 1, epoch: 1 };
        Identity::of(&Request::Write { handle, offset: 0, data: data.to_vec(), crc }, b"the body")
    }

    #[test]
    fn the_same_number_and_bytes_get_the_same_answer_and_others_do_not() {
        let mut answered = Answered::default();
        assert_eq!(answered.find(RequestId(7), Some(identity(1))), Known::New);
        answered.keep(RequestId(7), identity(1), Some(b"done"));
        assert_eq!(answered.find(RequestId(7), Some(identity(1))), Known::Answered(b"done"));
        assert_eq!(answered.find(RequestId(7), Some(identity(2))), Known::Other);
        assert_eq!(answered.find(RequestId(7), None), Known::Other, "nor is it a reading request");
        assert_eq!(
            answered.find(RequestId(8), Some(identity(1))),
            Known::New,
            "another number is another request"
        );
    }

    #[test]
    fn a_descriptor_is_not_handed_out_twice() {
        let mut answered = Answered::default();
        answered.keep(RequestId(7), identity(1), None);
        assert_eq!(answered.find(RequestId(7), Some(identity(1))), Known::NotRepeatable);
        assert_eq!(answered.find(RequestId(7), Some(identity(2))), Known::Other);
    }

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let mut answered = Answered::default();
        for n in 0..=SESSION_ANSWERS_MAX as u64 {
            answered.keep(RequestId(n), identity(1), Some(&[0; 10]));
        }
        assert_eq!(answered.find(RequestId(0), Some(identity(1))), Known::New);
        assert_eq!(answered.find(RequestId(1), Some(identity(1))), Known::Answered(&[0; 10]));
        assert_eq!((answered.last.len(), answered.bytes), (SESSION_ANSWERS_MAX, 10 * SESSION_ANSWERS_MAX));
        answered.forget();
        assert_eq!(answered.find(RequestId(1), Some(identity(1))), Known::New);
        assert_eq!(answered.bytes, 0);
    }

    #[test]
    fn large_answers_push_out_the_oldest_and_never_a_number() {
        let mut answered = Answered::default();
        let half = vec![0; SESSION_ANSWER_BYTES_MAX / 2];
        for n in 0..3 {
            answered.keep(RequestId(n), identity(1), Some(&half));
            assert!(answered.bytes <= SESSION_ANSWER_BYTES_MAX);
        }
        assert_eq!(answered.find(RequestId(0), Some(identity(1))), Known::NotRepeatable);
        for n in 1..3 {
            assert_eq!(answered.find(RequestId(n), Some(identity(1))), Known::Answered(&half));
        }
        answered.keep(RequestId(3), identity(1), Some(&vec![0; SESSION_ANSWER_BYTES_MAX + 1]));
        assert_eq!(answered.find(RequestId(3), Some(identity(1))), Known::NotRepeatable);
        assert_eq!(
            answered.find(RequestId(2), Some(identity(1))),
            Known::Answered(&half),
            "nobody made room for it"
        );
        // Whatever comes, the count of bytes is that of what is there.
        for n in 4..200 {
            answered.keep(
                RequestId(n),
                identity(1),
                Some(&vec![0; (n as usize * 977) % SESSION_ANSWER_BYTES_MAX]),
            );
            assert_eq!(answered.bytes, answered.last.iter().map(|(.., kept)| kept.bytes()).sum::<usize>());
            assert!(answered.bytes <= SESSION_ANSWER_BYTES_MAX);
        }
    }

    #[test]
    fn a_write_is_known_by_its_place_and_its_checksum() {
        let (one, other) = (crc32c::crc32c(b"one"), crc32c::crc32c(b"two"));
        assert_eq!(write(b"one", one), write(b"one", one));
        assert_ne!(write(b"one", one), write(b"two", other));
        assert_ne!(write(b"one", one), write(b"one", other));
        assert_ne!(write(b"one", one), write(b"on", one));
        assert_eq!(Identity::of(&Request::Status, b"the body"), None, "reading is done again");
        let lease = |body| Identity::of(&Request::RootRotate, body);
        assert!(lease(b"one").is_some() && lease(b"one") != lease(b"two"));
    }
}
