//! The client's half of the protocol, without I/O: bytes out, packets in.
//!
//! A node answers in the order it was asked, so the only state is the queue of requests that were sent and not yet
//! answered. A caller that stops waiting (a time-out, a dropped future) leaves its request in the queue as
//! *abandoned*: the answer is taken off and thrown away when it comes, and a right that was opened for nobody is
//! closed again.
//!
//! Whatever a node does against the rules breaks the session for good: a peer that lies once is not asked again.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::wire::request::Effect as RequestEffect;
use caps::wire::request::Path;
use caps::wire::{Frame, FrameKind, Reply, Request, frame};

/// Most requests that may be unanswered at once, abandoned ones included. A caller that gives up again and again on
/// a stuck node is refused with `E_BUSY` instead of filling the queue.
pub(crate) const OUTSTANDING_MAX: usize = 32;
/// Longest detail taken over from a node's error, in bytes. Ours are below 160.
const DETAIL_BYTES_MAX: usize = 512;
/// The id in an error frame that concerns the session and no request: we number from 1.
const SESSION: RequestId = RequestId(0);

/// One packet as the socket delivered it.
pub(crate) struct Packet<'a> {
    /// The payload.
    pub(crate) bytes: &'a [u8],
    /// What came beside it.
    pub(crate) descriptor: Option<OwnedFd>,
    /// Whether the payload was longer than a frame may be.
    pub(crate) payload_cut: bool,
    /// Whether more descriptors came than there was room for. The kernel has closed those.
    pub(crate) descriptors_cut: bool,
}

/// A request ready to be sent.
pub(crate) struct Outgoing {
    id: RequestId,
    pub(crate) bytes: Vec<u8>,
    beside: Beside,
    changes: bool,
}

/// The answer to one request.
pub(crate) struct Answer {
    id: RequestId,
    pub(crate) result: Result<Reply>,
    pub(crate) descriptor: Option<OwnedFd>,
}

/// What may come beside the answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// No descriptor.
    Nothing,
    /// No descriptor either, but a right that is opened to be used by calls.
    Handle,
    /// The first segment of a right that is opened to be mapped.
    Right,
    /// One more segment.
    Segment,
    /// The rotation channel.
    Channel,
}

impl Beside {
    const fn of(request: &Request) -> Self {
        match request {
            Request::Open { path: Path::Mapped, .. } => Self::Right,
            Request::Open { path: Path::Mediated, .. } => Self::Handle,
            Request::Segment { .. } => Self::Segment,
            Request::Channel => Self::Channel,
            _ => Self::Nothing,
        }
    }
}

struct Sent {
    id: RequestId,
    beside: Beside,
    /// Whether the request changes something, so that not knowing its outcome is worth a code of its own.
    changes: bool,
    /// Whether a caller still waits.
    awaited: bool,
}

/// The state of a session's conversation.
pub(crate) struct Protocol {
    next: u64,
    sent: VecDeque<Sent>,
    broken: Option<Error>,
}

impl Protocol {
    pub(crate) fn new() -> Self {
        Self { next: SESSION.0 + 1, sent: VecDeque::new(), broken: None }
    }

    /// Numbers and encodes a request. It counts once [`Self::sent`] is called.
    ///
    /// # Errors
    /// What broke the session; `E_BUSY` if [`OUTSTANDING_MAX`] requests are unanswered; `E_FRAME_SIZE`.
    pub(crate) fn encode(&mut self, request: &Request) -> Result<Outgoing> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.sent.len() >= OUTSTANDING_MAX {
            return Err(Error::new(Code::Busy, "32 requests of this session are unanswered"));
        }
        let id = RequestId(self.next);
        self.next += 1; // 2^64 requests are not reached
        Ok(Outgoing {
            id,
            bytes: frame::encode(FrameKind::Request, id, request)?,
            beside: Beside::of(request),
            changes: request.effect() == RequestEffect::Lasting,
        })
    }

    /// The packet left: an answer is due.
    pub(crate) fn sent(&mut self, outgoing: &Outgoing, awaited: bool) -> RequestId {
        let Outgoing { id, beside, changes, .. } = *outgoing;
        self.sent.push_back(Sent { id, beside, changes, awaited });
        id
    }

    /// Nobody waits for this answer any more. Returns what to tell the caller: whether the request may have changed
    /// something decides between "not known" and `otherwise`.
    pub(crate) fn abandon(&mut self, id: RequestId, otherwise: Error) -> Error {
        let Some(sent) = self.sent.iter_mut().find(|sent| sent.id == id) else { return otherwise };
        sent.awaited = false;
        if sent.changes {
            Error::new(Code::Uncertain, "the request was sent and no answer came: it may have taken effect")
        } else {
            otherwise
        }
    }

    /// Whether the next packet may carry a descriptor.
    pub(crate) fn descriptor_may_come(&self) -> bool {
        self.sent.front().is_some_and(|sent| !matches!(sent.beside, Beside::Nothing | Beside::Handle))
    }

    /// How many answers are due.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent.len()
    }

    /// Whether a caller waits for one of the answers that are due.
    pub(crate) fn anybody_waits(&self) -> bool {
        self.sent.iter().any(|sent| sent.awaited)
    }

    /// The session is over, for this reason. The first reason stays.
    pub(crate) fn break_with(&mut self, error: Error) -> Error {
        self.broken.get_or_insert(error).clone()
    }

    /// Takes one packet.
    ///
    /// # Errors
    /// Any error means that the node broke a rule or ended the session; the session is broken from here on.
    pub(crate) fn receive(&mut self, packet: Packet<'_>) -> Result<Answer> {
        self.check(packet).map_err(|error| self.break_with(error))
    }

    fn check(&mut self, packet: Packet<'_>) -> Result<Answer> {
        if packet.payload_cut {
            return Err(Error::new(Code::FrameSize, "the node sent a packet larger than a frame"));
        }
        if packet.descriptors_cut {
            return Err(Error::new(
                Code::DescriptorType,
                "the node sent a descriptor that no answer announces",
            ));
        }
        let frame = Frame::decode(packet.bytes)?;
        let due = self.sent.front();
        let result = match frame.kind {
            FrameKind::Request => {
                return Err(Error::new(Code::FrameType, "the node sent a request"));
            }
            FrameKind::Error => {
                let error = readable(frame.body::<Error>()?);
                if frame.request == SESSION {
                    return Err(error);
                }
                Err(error)
            }
            FrameKind::Reply => Ok(frame.body::<Reply>()?),
        };
        let Some(due) = due.filter(|due| due.id == frame.request) else {
            return Err(Error::new(
                Code::Protocol,
                "the node answered a request that is not the next in line",
            ));
        };
        let announced = match &result {
            Ok(Reply::Opened(opened)) => {
                let asked = match due.beside {
                    Beside::Right => opened.mapped,
                    Beside::Handle => !opened.mapped,
                    _ => false,
                };
                if !asked {
                    return Err(Error::new(
                        Code::Protocol,
                        "a right was opened that was not asked for, or by another path",
                    ));
                }
                opened.mapped
            }
            Ok(Reply::Segment { .. }) => due.beside == Beside::Segment,
            Ok(Reply::Channel) => due.beside == Beside::Channel,
            _ => false,
        };
        if announced != packet.descriptor.is_some() {
            return Err(Error::new(
                Code::DescriptorType,
                "a descriptor came unannounced, or an announced one did not come",
            ));
        }
        let answer = Answer { id: due.id, result, descriptor: packet.descriptor };
        self.sent.pop_front();
        Ok(answer)
    }
}

impl Answer {
    /// Whether this answers request `id`.
    pub(crate) fn is_for(&self, id: RequestId) -> bool {
        self.id == id
    }

    /// The reply, once; the descriptor stays.
    ///
    /// # Errors
    /// The node's refusal.
    pub(crate) fn take_reply(&mut self) -> Result<Reply> {
        std::mem::replace(&mut self.result, Ok(Reply::Done))
    }

    /// The rotation channel, once, if this is the answer that brought it.
    pub(crate) fn take_channel(&mut self) -> Option<OwnedFd> {
        matches!(self.result, Ok(Reply::Channel)).then(|| self.descriptor.take()).flatten()
    }

    /// The right that was opened for a caller who no longer waits.
    pub(crate) fn orphan(&self) -> Option<SlotHandle> {
        match &self.result {
            Ok(Reply::Opened(opened)) => Some(opened.handle),
            _ => None,
        }
    }
}

/// A node's error with a detail that is safe to print: its text ends on a terminal or in a log of ours.
pub(crate) fn readable(error: Error) -> Error {
    let detail = error.detail();
    if detail.len() <= DETAIL_BYTES_MAX && detail.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        error
    } else {
        error.code().into()
    }
}

#[cfg(test)]
mod tests {
    use caps::range::ByteRange;
    use caps::rights::Rights;
    use caps::time::Micros;
    use caps::wire::reply::Opened;
    use caps::wire::row::Tier;

    use super::*;

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet { bytes, descriptor: None, payload_cut: false, descriptors_cut: false }
    }

    fn ask(protocol: &mut Protocol, request: &Request) -> RequestId {
        let outgoing = protocol.encode(request).unwrap();
        protocol.sent(&outgoing, true)
    }

    fn reply(id: RequestId, reply: &Reply) -> Vec<u8> {
        frame::encode(FrameKind::Reply, id, reply).unwrap()
    }

    fn open(path: Path) -> Request {
        // A token is opaque here: any byte string does.
        let mut bytes = Vec::new();
        ciborium::into_writer(serde_bytes::Bytes::new(b"token"), &mut bytes).unwrap();
        Request::Open { token: ciborium::from_reader(&bytes[..]).unwrap(), rights: Rights::READ, path }
    }

    fn opened(mapped: bool) -> Reply {
        Reply::Opened(Opened {
            handle: SlotHandle { slot: 3, epoch: 4 },
            rights: Rights::READ,
            range: ByteRange::new(0, 4096).unwrap(),
            region_bytes: 4096,
            segment_bytes: 4096,
            mapped,
            tier: Tier::Open,
            expires_in: Micros(1),
            audit: Micros(0),
        })
    }

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn answers_come_back_in_order() {
        let mut protocol = Protocol::new();
        let first = ask(&mut protocol, &Request::Status);
        let second = ask(&mut protocol, &Request::Status);
        assert!(protocol.receive(packet(&reply(first, &Reply::Done))).unwrap().is_for(first));
        assert!(protocol.receive(packet(&reply(second, &Reply::Done))).unwrap().is_for(second));
        assert_eq!(protocol.outstanding(), 0);
    }

    #[test]
    fn each_lie_has_its_code_and_ends_the_session() {
        let request = frame::encode(FrameKind::Request, RequestId(1), &Request::Status).unwrap();
        let wrong_id = reply(RequestId(9), &Reply::Done);
        let good = reply(RequestId(1), &Reply::Done);
        let mut long = good.clone();
        long.push(0);
        let cases: Vec<(Packet<'_>, Code)> = vec![
            (packet(&request), Code::FrameType),
            (packet(&wrong_id), Code::Protocol),
            (packet(&good[..10]), Code::FrameTruncated),
            (packet(&good[..good.len() - 1]), Code::FrameSize),
            (packet(&long), Code::FrameSize),
            (Packet { payload_cut: true, ..packet(&good) }, Code::FrameSize),
            (Packet { descriptors_cut: true, ..packet(&good) }, Code::DescriptorType),
            (Packet { descriptor: Some(descriptor()), ..packet(&good) }, Code::DescriptorType),
        ];
        for (at, (packet, code)) in cases.into_iter().enumerate() {
            let mut protocol = Protocol::new();
            ask(&mut protocol, &Request::Status);
            assert_eq!(protocol.receive(packet).err().unwrap().code(), code, "case {at}");
            assert_eq!(protocol.encode(&Request::Status).err().unwrap().code(), code, "case {at}: broken");
        }
    }

    #[test]
    fn an_answer_nobody_asked_for_is_refused() {
        let mut protocol = Protocol::new();
        let unasked = reply(RequestId(1), &Reply::Done);
        assert_eq!(protocol.receive(packet(&unasked)).err().unwrap().code(), Code::Protocol);
    }

    #[test]
    fn a_descriptor_comes_exactly_when_it_is_announced() {
        for (path, mapped, with, expected) in [
            (Path::Mapped, true, true, None),
            (Path::Mapped, true, false, Some(Code::DescriptorType)),
            (Path::Mapped, false, false, Some(Code::Protocol)),
            (Path::Mediated, true, true, Some(Code::Protocol)),
            (Path::Mediated, false, true, Some(Code::DescriptorType)),
            (Path::Mediated, false, false, None),
        ] {
            let mut protocol = Protocol::new();
            let id = ask(&mut protocol, &open(path));
            assert_eq!(protocol.descriptor_may_come(), path == Path::Mapped);
            let bytes = reply(id, &opened(mapped));
            let answer = protocol.receive(Packet { descriptor: with.then(descriptor), ..packet(&bytes) });
            assert_eq!(answer.as_ref().err().map(Error::code), expected, "{path:?} {mapped} {with}");
        }
    }

    #[test]
    fn a_right_comes_only_to_who_asked_for_one() {
        // Else a caller who gave up would have the right closed that another answer names.
        for request in
            [Request::Status, Request::Channel, Request::Close { handle: SlotHandle { slot: 3, epoch: 4 } }]
        {
            let mut protocol = Protocol::new();
            let id = ask(&mut protocol, &request);
            let answer = protocol.receive(packet(&reply(id, &opened(false))));
            assert_eq!(answer.err().unwrap().code(), Code::Protocol, "{request:?}");
        }
    }

    #[test]
    fn segments_and_channels_bring_a_descriptor_and_only_to_who_asked() {
        let segment = Request::Segment { handle: SlotHandle { slot: 3, epoch: 4 }, index: 1 };
        let index = Reply::Segment { index: 1 };
        for (request, answer, with, expected) in [
            (&Request::Channel, &Reply::Channel, true, None),
            (&Request::Channel, &Reply::Channel, false, Some(Code::DescriptorType)),
            (&Request::Channel, &index, true, Some(Code::DescriptorType)),
            (&segment, &index, true, None),
            (&segment, &index, false, Some(Code::DescriptorType)),
            (&segment, &Reply::Channel, true, Some(Code::DescriptorType)),
            (&Request::Status, &Reply::Channel, true, Some(Code::DescriptorType)),
        ] {
            let mut protocol = Protocol::new();
            let id = ask(&mut protocol, request);
            let bytes = reply(id, answer);
            let answer = protocol.receive(Packet { descriptor: with.then(descriptor), ..packet(&bytes) });
            assert_eq!(answer.as_ref().err().map(Error::code), expected, "{request:?} {with}");
        }
    }

    #[test]
    fn an_abandoned_answer_is_taken_off_and_its_right_is_named() {
        let mut protocol = Protocol::new();
        let left = ask(&mut protocol, &open(Path::Mediated));
        let timed_out = Error::new(Code::Timeout, "no answer in time");
        assert_eq!(protocol.abandon(left, timed_out.clone()).code(), Code::Timeout);
        let waited = ask(&mut protocol, &Request::Status);
        let answer = protocol.receive(packet(&reply(left, &opened(false)))).unwrap();
        assert!(!answer.is_for(waited));
        assert_eq!(answer.orphan(), Some(SlotHandle { slot: 3, epoch: 4 }));
        assert!(protocol.anybody_waits());
    }

    #[test]
    fn n7_giving_up_on_a_change_is_uncertain() {
        let mut protocol = Protocol::new();
        let id = ask(&mut protocol, &Request::LeaseRelease { lease: caps::id::LeaseId([1; 16]) });
        let timed_out = Error::new(Code::Timeout, "no answer in time");
        assert_eq!(protocol.abandon(id, timed_out).code(), Code::Uncertain);
        assert!(!protocol.anybody_waits());
    }

    #[test]
    fn unanswered_requests_are_bounded() {
        let mut protocol = Protocol::new();
        for _ in 0..OUTSTANDING_MAX {
            ask(&mut protocol, &Request::Status);
        }
        assert_eq!(protocol.encode(&Request::Status).err().unwrap().code(), Code::Busy);
    }

    #[test]
    fn an_error_for_the_session_ends_it_and_an_error_for_a_request_does_not() {
        let refusal = Error::new(Code::Quota, "over by 1 byte");
        let mut protocol = Protocol::new();
        let id = ask(&mut protocol, &Request::Status);
        let bytes = frame::encode(FrameKind::Error, id, &refusal).unwrap();
        assert_eq!(protocol.receive(packet(&bytes)).unwrap().result.unwrap_err(), refusal);
        assert!(protocol.encode(&Request::Status).is_ok());

        let refusal = Error::new(Code::PeerUid, "not on the list");
        let bytes = frame::encode(FrameKind::Error, SESSION, &refusal).unwrap();
        assert_eq!(protocol.receive(packet(&bytes)).err().unwrap(), refusal);
        assert_eq!(protocol.encode(&Request::Status).err().unwrap(), refusal);
    }

    #[test]
    fn a_nodes_text_is_printable_or_replaced() {
        let evil = Error::with(Code::Quota, "\u{1b}[2J".into());
        assert_eq!(readable(evil).detail(), Code::Quota.help());
        let long = Error::with(Code::Quota, "x".repeat(DETAIL_BYTES_MAX + 1));
        assert_eq!(readable(long).detail(), Code::Quota.help());
    }
}
