//! The node.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use caps::error::Code;
use caps::id::{ClientId, ClusterEpoch, LeaseId, ProviderId, RegionId, RequestId, SlotHandle};
use caps::limits::CHUNK_BYTES_MAX;
use caps::pop::{Nonce, Transcript};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::remote::ask::Further;
use caps::wire::remote::header::HEADER_BYTES;
use caps::wire::remote::{Ask, Flags, Header, Piece, Verb};
use caps::wire::reply::{Opened, Welcome};
use caps::wire::request::Path;
use caps::wire::row::{LeaseRow, LeaseState, Tier};
use caps::wire::{Reply, Request, cbor};
use libmem::remote::Credentials;
use libmem::{Client, Endpoint, Mediated, SigningKey};
use transport::rustls::{ServerConnection, StreamOwned};
use zerocopy::IntoBytes;

use crate::certificates::{ALICE, Authority, NODE};

pub const LIFE: (ClusterEpoch, ProviderId) = (ClusterEpoch([8; 16]), ProviderId([7; 16]));
pub const HANDLE: SlotHandle = SlotHandle { slot: 1, epoch: 2 };
pub const REGION_BYTES: u64 = 4 << 20;

/// A node that runs a script, and the client's half of what belongs to it.
pub struct World {
    pub alice: Arc<Credentials>,
    /// Holds the files of the certificates.
    _authority: Authority,
    address: String,
    thread: Option<JoinHandle<()>>,
}

/// Where the node takes connections.
pub struct Door {
    listener: TcpListener,
    credentials: Arc<Credentials>,
    known: Known,
}

/// The clients that it remembers.
type Known = Arc<Mutex<HashSet<ClientId>>>;

/// The node's end of one connection.
pub struct Peer {
    stream: StreamOwned<ServerConnection, TcpStream>,
    /// What the client said it is, once it did.
    pub client: Option<ClientId>,
    /// Whether it has no room to remember that.
    full: bool,
    /// Whether it is gone by then.
    lost: bool,
    known: Known,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Vec<u8>,
}

impl World {
    /// A node that runs `script`.
    pub fn new(script: impl FnOnce(&Door) + Send + 'static) -> Self {
        Self::of(NODE, script)
    }

    /// One whose script is given the credentials of another provider.
    pub fn beside(uri: &str, script: impl FnOnce(&mut Door, Arc<Credentials>) + Send + 'static) -> Self {
        let uri = uri.to_owned();
        Self::made(NODE, move |authority| {
            let other = authority.issue(&uri);
            move |door: &mut Door| script(door, other)
        })
    }

    /// The same with the certificate of somebody.
    pub fn of(uri: &str, script: impl FnOnce(&Door) + Send + 'static) -> Self {
        Self::made(uri, |_| move |door: &mut Door| script(door))
    }

    fn made<F>(uri: &str, script: impl FnOnce(&Authority) -> F) -> Self
    where
        F: FnOnce(&mut Door) + Send + 'static,
    {
        let authority = Authority::new();
        let (alice, credentials) = (authority.issue(ALICE), authority.issue(uri));
        let script = script(&authority);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            script(&mut Door { listener, credentials, known: Known::default() });
        });
        Self { alice, _authority: authority, address, thread: Some(thread) }
    }

    /// A node with one session, which is begun as it should be.
    pub fn with(script: impl FnOnce(&mut Peer) + Send + 'static) -> Self {
        Self::new(move |door| script(&mut door.welcome()))
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::tls(&self.address, self.alice.clone()).timeout(Duration::from_secs(20))
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint(), &key()).unwrap()
    }

    /// A client and what it opened: the first thing that the node is asked.
    pub fn memory(&self) -> (Client, Mediated) {
        let client = self.client();
        let memory = client.open_mediated(&token(), Rights::READ_WRITE).unwrap();
        (client, memory)
    }

    /// Comes and goes.
    pub fn knock(&self) {
        drop(TcpStream::connect(&self.address).unwrap());
    }

    /// Waits for the script's end: its assertions count.
    pub fn finish(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// Bytes that are a token to everyone who does not look inside.
pub fn token() -> Token {
    Token::from_bytes(vec![1, 2, 3]).unwrap()
}

pub fn opened(handle: SlotHandle) -> Opened {
    Opened {
        handle,
        rights: Rights::READ_WRITE,
        range: ByteRange::new(0, REGION_BYTES).unwrap(),
        region_bytes: REGION_BYTES,
        segment_bytes: REGION_BYTES,
        mapped: false,
        tier: Tier::Open,
        expires_in: Micros(1_000_000),
        audit: Micros(0),
    }
}

impl Door {
    /// A door of somebody with these credentials, and its address.
    #[allow(dead_code, reason = "for the tests of several nodes")]
    pub fn open(credentials: Arc<Credentials>) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (Self { listener, credentials, known: Known::default() }, address)
    }

    /// The next connection, before anything was said.
    pub fn tcp(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    /// The next connection, after the handshake of TLS.
    pub fn accept(&self) -> Peer {
        let mut stream = self.tcp();
        stream.set_nodelay(true).unwrap();
        let mut connection = ServerConnection::new(self.credentials.server()).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).unwrap();
        }
        let known = self.known.clone();
        Peer { stream: StreamOwned::new(connection, stream), client: None, full: false, lost: false, known }
    }

    /// Whether somebody has come whom nobody let in.
    #[allow(dead_code, reason = "for the tests of several nodes")]
    pub fn is_called(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        self.listener.accept().is_ok()
    }

    /// Forgets all clients.
    pub fn forget(&self) {
        self.known.lock().unwrap().clear();
    }

    /// From now on it is another provider of the domain.
    pub fn turn_into(&mut self, credentials: Arc<Credentials>) {
        self.credentials = credentials;
    }

    /// The next connection, once it is a session.
    pub fn welcome(&self) -> Peer {
        self.welcome_of(LIFE)
    }

    /// The same of a node that cannot remember one client more.
    pub fn welcome_without_room(&self) -> Peer {
        let mut peer = self.accept();
        peer.full = true;
        peer.greet(LIFE);
        peer
    }

    /// The same, but that the connection is lost when the client has said which it is, which is remembered.
    pub fn welcome_and_cut_at_resume(&self) {
        let mut peer = self.accept();
        peer.lost = true;
        peer.greet(LIFE);
        peer.cut();
    }

    /// The same of another life of the node.
    pub fn welcome_of(&self, life: (ClusterEpoch, ProviderId)) -> Peer {
        let mut peer = self.accept();
        peer.greet(life);
        peer
    }
}

impl Peer {
    fn greet(&mut self, life: (ClusterEpoch, ProviderId)) {
        self.greet_until(life, |_| None);
    }

    /// Begins a session as it should be, until `wrong` has something else to say to a request.
    pub fn greet_until(
        &mut self,
        (cluster, provider): (ClusterEpoch, ProviderId),
        wrong: impl Fn(&Request) -> Option<Reply>,
    ) {
        let channel = transport::binding(&self.stream.conn).unwrap();
        let server = Nonce::random();
        let mut hello = None;
        while self.client.is_none() {
            let (frame, request) = self.control();
            if let Some(reply) = wrong(&request) {
                return self.reply(&frame, &reply);
            }
            let reply = match request {
                Request::Hello { holder, nonce } if hello.is_none() => {
                    hello = Some((holder, nonce));
                    Reply::Challenge { node: provider, nonce: server }
                }
                Request::Prove { signature } => {
                    let (holder, client) = hello.expect("hello comes first");
                    let transcript = Transcript { node: provider, server, client, holder };
                    let proven = transcript.verify_over(&channel, &signature).unwrap();
                    assert_eq!(proven.holder(), key().public());
                    Reply::Welcome(Welcome { cluster, provider, name: None, admin: false, tier: Tier::Open })
                }
                Request::Resume { client } => {
                    self.client = Some(client);
                    if self.full {
                        return self.refuse(&frame, Code::Busy);
                    }
                    let known = !self.known.lock().unwrap().insert(client);
                    if self.lost {
                        return;
                    }
                    Reply::Resumed { known }
                }
                other => panic!("{other:?} before the session"),
            };
            self.reply(&frame, &reply);
        }
    }

    /// The next frame; `None` once the client is gone.
    pub fn try_next(&mut self) -> Option<Frame> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head).ok()?;
        let header = Header::decode(&head).unwrap();
        let mut body = vec![0; header.body as usize];
        self.stream.read_exact(&mut body).ok()?;
        header.verify(&body).unwrap();
        Some(Frame { header, body })
    }

    pub fn next(&mut self) -> Frame {
        self.try_next().expect("the client asks")
    }

    /// The next frame, which is a request of the socket's protocol.
    pub fn control(&mut self) -> (Frame, Request) {
        let frame = self.next();
        assert_eq!(frame.header.verb, Verb::Control);
        let request = cbor::decode(&frame.body).unwrap();
        (frame, request)
    }

    /// Bytes as they are. Nobody may be there any more to read them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
    }

    /// A frame of the answer to `asked`.
    pub fn frame(&mut self, asked: &Frame, flags: Flags, items: u32, body: &[u8]) {
        let flags = flags.and(Flags::ANSWER);
        let mut header = Header::of(asked.header.verb, flags, asked.header.request, body.len()).unwrap();
        header.items = items;
        if asked.header.flags.contains(Flags::CRC) {
            header = header.checked(body);
        }
        self.bytes(&[&header.encode()[..], body].concat());
    }

    /// The one frame of an answer.
    pub fn answer(&mut self, asked: &Frame, body: &[u8]) {
        self.frame(asked, Flags::NONE, 0, body);
    }

    pub fn reply(&mut self, asked: &Frame, reply: &Reply) {
        let mut body = vec![];
        cbor::append(reply, &mut body).unwrap();
        self.answer(asked, &body);
    }

    pub fn refuse(&mut self, asked: &Frame, code: Code) {
        self.fail(asked.header.verb, asked.header.request, code);
    }

    pub fn fail(&mut self, verb: Verb, request: RequestId, code: Code) {
        let detail = b"said by the test";
        let mut header = Header::of(verb, Flags::ANSWER, request, detail.len()).unwrap();
        header.deadline_or_code = u32::from(code as u16);
        self.bytes(&[&header.encode()[..], detail].concat());
    }

    /// Answers an open, as it should be.
    pub fn open(&mut self, handle: SlotHandle) {
        self.open_as(opened(handle));
    }

    /// Answers an open by something in particular.
    pub fn open_as(&mut self, opened: Opened) {
        let (frame, request) = self.control();
        let Request::Open { path: Path::Mediated, .. } = request else { panic!("{request:?}") };
        self.reply(&frame, &Reply::Opened(opened));
    }

    /// Cuts the connection without a word.
    pub fn cut(self) {
        self.stream.sock.shutdown(Shutdown::Both).unwrap();
    }

    /// Ends the connection in good order.
    pub fn end(mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }

    /// Ends the connection in good order, and says something all the same.
    pub fn end_and_go_on(mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
        self.stream.sock.write_all(&[23, 3, 3, 0, 3, 1, 2, 3]).unwrap();
    }

    /// Serves `memory` as it should be, until the client is gone; says which verbs were asked.
    pub fn serve(&mut self, memory: &mut [u8]) -> Vec<Frame> {
        let mut asked = vec![];
        while let Some(frame) = self.try_next() {
            asked.push(frame.clone());
            self.serve_one(&frame, memory, &mut asked);
        }
        asked
    }

    fn serve_one(&mut self, frame: &Frame, memory: &mut [u8], asked: &mut Vec<Frame>) {
        let header = frame.header;
        match Ask::decode(&header, &frame.body).unwrap() {
            Ask::Control(body) => match cbor::decode(body).unwrap() {
                Request::Open { .. } => self.reply(frame, &Reply::Opened(opened(HANDLE))),
                _ => self.reply(frame, &Reply::Done),
            },
            Ask::Read(span) => {
                let (start, end) = clip(memory, span.offset(), span.length());
                let mut chunks = memory[start..end].chunks(CHUNK_BYTES_MAX).peekable();
                while let Some(chunk) = chunks.next() {
                    let flags = if chunks.peek().is_some() { Flags::MORE } else { Flags::NONE };
                    self.frame(frame, flags, 0, chunk);
                }
                if start == end {
                    self.answer(frame, &[]);
                }
            }
            Ask::Write { span, data } => {
                let mut at = span.offset() as usize;
                memory[at..at + data.len()].copy_from_slice(data);
                at += data.len();
                let mut more = header.has_more();
                while more {
                    let next = self.next();
                    let Further::Write(data) = Further::decode(&next.header, &next.body).unwrap() else {
                        panic!("{next:?}")
                    };
                    assert_eq!(next.header.request, header.request);
                    memory[at..at + data.len()].copy_from_slice(data);
                    at += data.len();
                    more = next.header.has_more();
                    asked.push(next);
                }
                self.answer(frame, &(at as u64 - span.offset()).to_le_bytes());
            }
            Ask::Gather(spans) => {
                for (index, span) in spans.iter().enumerate() {
                    let last = index + 1 == spans.len();
                    if span.offset() > memory.len() as u64 {
                        let piece = Piece::new(index as u32, Some(Code::Range), 0);
                        let flags = if last { Flags::NONE } else { Flags::MORE };
                        self.frame(frame, flags, 1, piece.as_bytes());
                        continue;
                    }
                    let (start, end) = clip(memory, span.offset(), span.length());
                    let mut at = start;
                    loop {
                        let bytes = &memory[at..end.min(at + CHUNK_BYTES_MAX)];
                        at += bytes.len();
                        let piece = Piece::new(index as u32, None, bytes.len() as u64);
                        let flags = if last && at == end { Flags::NONE } else { Flags::MORE };
                        let body = [piece.as_bytes(), bytes].concat();
                        self.frame(frame, flags, 1, &body);
                        if at == end {
                            break;
                        }
                    }
                }
            }
            Ask::Scatter { spans, data } => {
                let mut pieces = vec![];
                scatter(memory, spans, data, &mut pieces);
                let mut more = header.has_more();
                while more {
                    let next = self.next();
                    let Further::Scatter { spans, data } = Further::decode(&next.header, &next.body).unwrap()
                    else {
                        panic!("{next:?}")
                    };
                    scatter(memory, spans, data, &mut pieces);
                    more = next.header.has_more();
                    asked.push(next);
                }
                let pieces: Vec<Piece> = pieces
                    .iter()
                    .enumerate()
                    .map(|(index, &(code, length))| Piece::new(index as u32, code, length))
                    .collect();
                self.frame(frame, Flags::NONE, pieces.len() as u32, pieces.as_bytes());
            }
            Ask::Cas(swap) => {
                let at = swap.word.offset() as usize;
                let before = u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
                if before == swap.expected() {
                    memory[at..at + 8].copy_from_slice(&swap.desired().to_le_bytes());
                }
                self.answer(frame, &before.to_le_bytes());
            }
            Ask::FetchAdd(add) => {
                let at = add.word.offset() as usize;
                let before = u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
                memory[at..at + 8].copy_from_slice(&before.wrapping_add(add.addend()).to_le_bytes());
                self.answer(frame, &before.to_le_bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn clip(memory: &[u8], offset: u64, length: u64) -> (usize, usize) {
    let end = (memory.len() as u64).min(offset + length);
    (offset as usize, end as usize)
}

fn scatter(
    memory: &mut [u8],
    spans: &[caps::wire::remote::Span],
    mut data: &[u8],
    pieces: &mut Vec<(Option<Code>, u64)>,
) {
    for span in spans {
        let (bytes, rest) = data.split_at(span.length() as usize);
        data = rest;
        if span.offset() > memory.len() as u64 {
            pieces.push((Some(Code::Range), 0));
            continue;
        }
        let (start, end) = clip(memory, span.offset(), span.length());
        memory[start..end].copy_from_slice(&bytes[..end - start]);
        pieces.push((None, (end - start) as u64));
    }
}

/// A lease as a list shows it.
pub fn lease(id: LeaseId) -> LeaseRow {
    LeaseRow {
        id,
        region: RegionId([1; 16]),
        name: None,
        owner: key().public(),
        owner_name: None,
        rights: Rights::ALL,
        range: ByteRange::new(0, 65_536).unwrap(),
        segment_bytes: 65_536,
        expires_in: Micros(1_000_000),
        state: LeaseState::Live,
        cause: None,
        epoch: 1,
        provider: LIFE.1,
        grants: 0,
        node: None,
        placement: None,
        address: None,
    }
}
