//! The other end of a request: sinks, and what they were given put together again.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::limits::CHUNK_BYTES_MAX;
use caps::wire::remote::{Answer, Flags, Header, Next, Span, Verb, next};
use provider::gate::remote::trial::{Guest, Request, Sink, Step};
use provider::runtime::Outgoing;
use zerocopy::IntoBytes;

use crate::world::World;

/// Longer than anything here may take.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOUND, "it never came to hold: {what}");
        std::thread::yield_now();
    }
}

/// Remembers every frame.
pub(crate) struct Recording {
    pub(crate) frames: Vec<(Header, Vec<u8>)>,
    /// Frames that still fit.
    pub(crate) room: usize,
}

impl Default for Recording {
    fn default() -> Self {
        Self { frames: Vec::new(), room: usize::MAX }
    }
}

impl Sink for Recording {
    fn has_room(&self) -> bool {
        self.room > 0
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
        assert!(self.room > 0, "a frame was given where there was no room");
        let body = parts.concat();
        header.verify(&body).unwrap();
        assert_eq!(header.body as usize, body.len());
        let bytes = match Answer::decode(&header, &body).unwrap() {
            Answer::Read(data) | Answer::Pieces { data, .. } => data.len(),
            _ => 0,
        };
        assert!(bytes <= CHUNK_BYTES_MAX);
        assert_eq!(bytes == 0, rights.is_empty(), "whose bytes they are is known");
        self.room -= 1;
        self.frames.push((header, body));
        Ok(())
    }
}

/// What became of an item: its bytes, how many, and why no more.
pub(crate) type Item = (Vec<u8>, u64, Option<Code>);

/// What a request was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Bytes(Vec<u8>),
    Written(u64),
    Failed(Code),
    Items(Vec<Item>),
    Standing(u64, (u64, u64)),
}

impl Recording {
    /// Puts an answer together; a failure is the last word.
    pub(crate) fn told(&self) -> Told {
        let (mut bytes, mut items) = (Vec::new(), Vec::<Item>::new());
        for (at, (header, body)) in self.frames.iter().enumerate() {
            assert_eq!(header.has_more(), at + 1 < self.frames.len(), "the last frame is known as the last");
            match Answer::decode(header, body).unwrap() {
                Answer::Failed(error) => return Told::Failed(error.code()),
                Answer::Read(data) => bytes.extend_from_slice(data),
                Answer::Written(written) => return Told::Written(written),
                Answer::Standing(standing) => {
                    return Told::Standing(standing.region_bytes(), standing.range());
                }
                Answer::Pieces { pieces, mut data } => {
                    for piece in pieces {
                        let index = piece.index() as usize;
                        assert!(index == items.len() || index + 1 == items.len(), "items come in order");
                        items.resize(index + 1, Default::default());
                        let (into, sum, code) = &mut items[index];
                        assert_eq!(*code, None, "a code ends an item");
                        if header.verb == Verb::Gather {
                            let (own, rest) = data.split_at(piece.length() as usize);
                            into.extend_from_slice(own);
                            data = rest;
                        }
                        (*sum, *code) = (*sum + piece.length(), piece.code().unwrap());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        match self.frames.first().map(|(header, _)| header.verb) {
            Some(Verb::Read) => Told::Bytes(bytes),
            Some(_) => Told::Items(items),
            None => panic!("nothing was told"),
        }
    }
}

pub(crate) fn header(verb: Verb, more: bool, items: usize, body: &[u8]) -> Header {
    let flags = if more { Flags::MORE } else { Flags::NONE };
    Header { items: items as u32, ..Header::of(verb, flags, RequestId(9), body.len()).unwrap() }
}

/// One request of one frame, run to its end with room for everything.
pub(crate) fn ask(world: &World, guest: &mut Guest, header: &Header, body: &[u8]) -> Told {
    ask_all(world, guest, VecDeque::from([(*header, body.to_vec())])).told()
}

/// A request of many frames.
pub(crate) fn ask_all(
    world: &World,
    guest: &mut Guest,
    mut frames: VecDeque<(Header, Vec<u8>)>,
) -> Recording {
    let mut out = Recording::default();
    let (first, body) = frames.pop_front().unwrap();
    let mut request = Request::begin(&first, &body, world.provider.clock().boot()).unwrap();
    loop {
        match request.run(guest, &mut out) {
            Step::Done => {
                let failed = || matches!(out.told(), Told::Failed(_));
                assert!(frames.is_empty() || failed(), "it was done before it was all there");
                return out;
            }
            Step::Turn => {}
            Step::Full => panic!("there is room"),
            Step::Rotating(rotating) => world.wait(rotating.over()),
            Step::Wants => {
                let (header, body) = frames.pop_front().expect("it wants more than there is");
                request.feed(&header, &body).unwrap();
            }
        }
    }
}

pub(crate) fn read(world: &World, guest: &mut Guest, handle: SlotHandle, offset: u64, length: u64) -> Told {
    let span = Span::new(handle, offset, length);
    ask(world, guest, &header(Verb::Read, false, 0, span.as_bytes()), span.as_bytes())
}

/// A write in frames of `step` bytes.
pub(crate) fn write(
    world: &World,
    guest: &mut Guest,
    handle: SlotHandle,
    offset: u64,
    bytes: &[u8],
    step: usize,
) -> Told {
    ask_all(world, guest, write_frames(handle, offset, bytes, step)).told()
}

pub(crate) fn write_frames(
    handle: SlotHandle,
    offset: u64,
    bytes: &[u8],
    step: usize,
) -> VecDeque<(Header, Vec<u8>)> {
    let (first, rest) = bytes.split_at(step.min(bytes.len()));
    let body = [Span::new(handle, offset, bytes.len() as u64).as_bytes(), first].concat();
    let mut frames = VecDeque::from([(header(Verb::Write, !rest.is_empty(), 0, &body), body)]);
    let chunks = rest.chunks(step);
    let last = chunks.len();
    for (at, chunk) in chunks.enumerate() {
        frames.push_back((header(Verb::Write, at + 1 < last, 0, chunk), chunk.to_vec()));
    }
    frames
}

pub(crate) fn scatter_frame(more: bool, items: &[(SlotHandle, u64, &[u8])]) -> (Header, Vec<u8>) {
    let spans: Vec<Span> =
        items.iter().map(|(handle, at, bytes)| Span::new(*handle, *at, bytes.len() as u64)).collect();
    let mut body = spans.as_bytes().to_vec();
    items.iter().for_each(|(.., bytes)| body.extend_from_slice(bytes));
    (header(Verb::Scatter, more, items.len(), &body), body)
}

pub(crate) fn gather_frame(items: &[(SlotHandle, u64, u64)]) -> (Header, Vec<u8>) {
    let spans: Vec<Span> = items.iter().map(|&(handle, at, length)| Span::new(handle, at, length)).collect();
    let body = spans.as_bytes().to_vec();
    (header(Verb::Gather, false, items.len(), &body), body)
}

/// Recognizable bytes.
pub(crate) fn pattern(bytes: usize, salt: u64) -> Vec<u8> {
    (0..bytes as u64).map(|at| ((at + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// A connection without its TLS: frames go into a TCP socket as they are, and what it does not take is kept.
pub(crate) struct Plain {
    socket: TcpStream,
    outgoing: Arc<Outgoing>,
    unsent: Vec<u8>,
}

/// Such a connection, its books, and its peer.
pub(crate) fn connection() -> (Plain, Arc<Outgoing>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.set_nodelay(true).unwrap();
    let outgoing = Arc::new(Outgoing::new(socket.try_clone().unwrap().into()));
    (Plain { socket, outgoing: outgoing.clone(), unsent: Vec::new() }, outgoing, peer)
}

impl Plain {
    /// Offers what waits to the socket.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(taken) => {
                    self.outgoing.handed(taken);
                    self.unsent.drain(..taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(Error::with(Code::Unreachable, error.to_string())),
            }
        }
        Ok(())
    }

    pub(crate) fn is_stuck(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl Sink for Plain {
    fn has_room(&self) -> bool {
        self.unsent.is_empty()
    }

    fn frame(&mut self, header: Header, parts: &[&[u8]], rights: &[SlotHandle]) -> Result<()> {
        let frame = [&header.encode()[..], &parts.concat()].concat();
        self.outgoing.produced(frame.len());
        self.outgoing.carries(rights);
        self.unsent.extend_from_slice(&frame);
        self.flush()
    }
}

/// The bytes of reads among what came over a connection, cut wherever it broke off.
pub(crate) fn data_of(mut stream: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Next::Frame { header, body, rest } = next(stream).unwrap() {
        if let Answer::Read(bytes) = Answer::decode(&header, body).unwrap() {
            data.extend_from_slice(bytes);
        }
        stream = rest;
    }
    data
}
