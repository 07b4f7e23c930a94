//! A small node for tests: it speaks real frames over a real socket, and says whatever the test has it say, true or not.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use caps::error::Error;
use caps::id::{ClusterEpoch, PrincipalKey, ProviderId, RequestId, SlotHandle};
use caps::limits::FRAME_BYTES_MAX;
use caps::pop::{Nonce, Transcript};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::channel::{MESSAGE_BYTES, Message};
use caps::wire::reply::{Opened, Welcome};
use caps::wire::row::Tier;
use caps::wire::{Frame, FrameKind, Reply, Request, frame};
use libmem::Endpoint;
use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use tempfile::TempDir;

pub const NODE: ProviderId = ProviderId([7; 16]);
pub const CLUSTER: ClusterEpoch = ClusterEpoch([8; 16]);
pub const HANDLE: SlotHandle = SlotHandle { slot: 1, epoch: 2 };
pub const REGION_BYTES: u64 = 256 * 1024;

/// A node that serves one session by running a script.
pub struct Node {
    directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

/// The node's end of the session.
pub struct Peer {
    socket: OwnedFd,
    /// The node's end of the rotation channel, once the client asked for it.
    pub channel: Option<Channel>,
    /// What the client proved.
    pub holder: PrincipalKey,
}

impl Node {
    /// Listens, does the handshake as it should be, and then runs `script`.
    pub fn with(script: impl FnOnce(&mut Peer) + Send + 'static) -> Self {
        Self::raw(|mut peer| {
            peer.shake_hands();
            script(&mut peer);
        })
    }

    /// Listens and runs `script` from the first byte on.
    pub fn raw(script: impl FnOnce(Peer) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let address = SocketAddrUnix::new(directory.path().join("node.sock")).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let thread = std::thread::spawn(move || {
            let socket = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
            drop(listener);
            script(Peer { socket, channel: None, holder: PrincipalKey([0; 32]) });
        });
        Self { directory, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.directory.path().join("node.sock"))
    }

    /// Waits for the script's end: its assertions count.
    pub fn finish(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Peer {
    pub fn shake_hands(&mut self) {
        let (id, request) = self.next();
        let Request::Hello { holder, nonce: client } = request else { panic!("{request:?} before hello") };
        let server = Nonce::random();
        self.reply(id, &Reply::Challenge { node: NODE, nonce: server });
        let (id, request) = self.next();
        let Request::Prove { signature } = request else { panic!("{request:?} before the proof") };
        Transcript { node: NODE, server, client, holder }.verify(&signature).unwrap();
        self.holder = holder;
        self.reply(id, &Reply::Welcome(welcome()));
    }

    /// The next request; `None` once the client hung up.
    pub fn try_next(&mut self) -> Option<(RequestId, Request)> {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let (bytes, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()).ok()?;
        if bytes == 0 {
            return None;
        }
        let frame = Frame::decode(&buffer[..bytes]).unwrap();
        assert_eq!(frame.kind, FrameKind::Request);
        Some((frame.request, frame.body().unwrap()))
    }

    pub fn next(&mut self) -> (RequestId, Request) {
        self.try_next().expect("the client asks")
    }

    /// The next request; one for the rotation channel is answered first, as it should be.
    pub fn next_open(&mut self) -> (RequestId, Request) {
        let (id, request) = self.next();
        if request != Request::Channel {
            return (id, request);
        }
        self.give_channel(id);
        self.next()
    }

    pub fn give_channel(&mut self, id: RequestId) {
        let (near, far) = Channel::pair();
        self.reply_with(id, &Reply::Channel, &[far.as_fd()]);
        self.channel = Some(near);
    }

    /// One packet. Nobody may be there any more to read it: a client does not wait for the answer to a close.
    pub fn bytes(&self, packet: &[u8]) {
        let _ = rustix::net::send(&self.socket, packet, SendFlags::NOSIGNAL);
    }

    pub fn reply(&self, id: RequestId, reply: &Reply) {
        self.bytes(&frame::encode(FrameKind::Reply, id, reply).unwrap());
    }

    pub fn refuse(&self, id: RequestId, error: &Error) {
        self.bytes(&frame::encode(FrameKind::Error, id, error).unwrap());
    }

    /// A reply with descriptors beside it, as many as are given.
    pub fn reply_with(&self, id: RequestId, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let bytes = frame::encode(FrameKind::Reply, id, reply).unwrap();
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .unwrap();
    }

    /// Waits until the client hung up or has nothing more to ask; answers what still comes with `Done`.
    pub fn drain(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        while let Some((id, request)) = self.try_next() {
            self.reply(id, &Reply::Done);
            requests.push(request);
        }
        requests
    }
}

/// The node's end of a rotation channel.
pub struct Channel(pub OwnedFd);

impl Channel {
    pub fn pair() -> (Self, OwnedFd) {
        let (near, far) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        (Self(near), far)
    }

    /// The next message; `None` once the client hung up.
    pub fn try_next(&self) -> Option<Message> {
        let mut bytes = [0; MESSAGE_BYTES];
        let (count, _) = rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::empty()).ok()?;
        (count > 0).then(|| Message::decode(&bytes[..count]).unwrap())
    }

    pub fn bytes(&self, packet: &[u8]) {
        let _ = rustix::net::send(&self.0, packet, SendFlags::NOSIGNAL);
    }

    /// A message, and what comes beside it.
    pub fn send(&self, message: Message, descriptors: &[BorrowedFd<'_>]) {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let bytes = message.encode();
        let _ = rustix::net::sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
    }

    /// A message, and the wait for its answer.
    pub fn tell(&self, message: Message, descriptors: &[BorrowedFd<'_>]) {
        self.send(message, descriptors);
        let (handle, index) = match message {
            Message::Segment { handle, index, .. } | Message::Withdrawn { handle, index } => (handle, index),
            Message::Ended { handle } | Message::Ready { handle } | Message::Taken { handle, .. } => {
                (handle, 0)
            }
        };
        assert_eq!(self.try_next(), Some(Message::Taken { handle, index }));
    }
}

pub fn welcome() -> Welcome {
    Welcome { cluster: CLUSTER, provider: NODE, name: None, admin: false, tier: Tier::Open }
}

pub fn opened(mapped: bool) -> Opened {
    Opened {
        handle: HANDLE,
        rights: Rights::READ_WRITE,
        range: ByteRange::new(0, REGION_BYTES).unwrap(),
        region_bytes: REGION_BYTES,
        segment_bytes: REGION_BYTES,
        mapped,
        tier: Tier::Open,
        expires_in: Micros(1_000_000),
        audit: Micros(0),
    }
}

/// A region's file.
pub fn memory() -> OwnedFd {
    let memory = rustix::fs::memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memory, REGION_BYTES).unwrap();
    memory
}

/// Answers an open by a mapping, as it should be, and returns the region's file.
pub fn serve_mapping(peer: &mut Peer) -> OwnedFd {
    let (id, request) = peer.next_open();
    assert!(matches!(request, Request::Open { .. }), "{request:?}");
    let memory = memory();
    peer.reply_with(id, &Reply::Opened(opened(true)), &[memory.as_fd()]);
    let ready = peer.channel.as_ref().unwrap().try_next();
    assert_eq!(ready, Some(Message::Ready { handle: HANDLE }));
    memory
}

/// Bytes that are a token to everyone who does not look inside.
pub fn token() -> Token {
    Token::from_bytes(vec![1, 2, 3]).unwrap()
}
