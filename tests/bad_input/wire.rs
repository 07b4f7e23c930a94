//! A client that follows no rule: raw packets on the node's socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path as FilePath;

use caps::error::{Code, Error, Result};
use caps::id::{PrincipalKey, ProviderId, RequestId, SlotHandle};
use caps::key::SigningKey;
use caps::limits::FRAME_BYTES_MAX;
use caps::pop::{Nonce, Transcript};
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::reply::{Opened, Welcome};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{LeaseRow, Lifetime};
use caps::wire::{Frame, FrameKind, Reply, Request, frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::node::PATIENCE;

/// One end of a session.
pub struct Raw {
    pub socket: OwnedFd,
    next: u64,
}

/// What comes out of the socket.
#[derive(Debug)]
pub enum Got {
    /// A whole packet.
    Packet(Vec<u8>),
    /// The node hung up.
    End,
}

impl Raw {
    /// Connects and says nothing.
    pub fn connect(path: &FilePath) -> rustix::io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket, next: 1 })
    }

    /// Connects and proves `key`.
    pub fn session(path: &FilePath, key: &SigningKey) -> Result<(Self, Welcome)> {
        let mut raw = Self::connect(path).expect("the node listens");
        let welcome = raw.begin(key)?;
        Ok((raw, welcome))
    }

    /// Hello, proof, welcome.
    pub fn begin(&mut self, key: &SigningKey) -> Result<Welcome> {
        let transcript = self.hello(key.public())?;
        match self.ask(&Request::Prove { signature: transcript.sign(key) })? {
            Reply::Welcome(welcome) => Ok(welcome),
            other => panic!("{other:?}"),
        }
    }

    /// Says hello as `holder`, and returns what is to be signed.
    pub fn hello(&mut self, holder: PrincipalKey) -> Result<Transcript> {
        let client = Nonce::random();
        match self.ask(&Request::Hello { holder, nonce: client })? {
            Reply::Challenge { node, nonce } => Ok(Transcript { node, server: nonce, client, holder }),
            other => panic!("{other:?}"),
        }
    }

    /// Sends one packet, waiting for room.
    pub fn send(&self, packet: &[u8]) -> rustix::io::Result<()> {
        rustix::net::send(&self.socket, packet, SendFlags::NOSIGNAL).map(drop)
    }

    /// Sends one packet with descriptors beside it.
    pub fn send_with(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let bytes = [IoSlice::new(packet)];
        rustix::net::sendmsg(&self.socket, &bytes, &mut control, SendFlags::NOSIGNAL).map(drop)
    }

    /// Sends a request and returns its number.
    pub fn post(&mut self, request: &Request) -> rustix::io::Result<u64> {
        let id = self.next;
        self.next += 1;
        self.send(&frame::encode(FrameKind::Request, RequestId(id), request).unwrap())?;
        Ok(id)
    }

    /// Receives one packet.
    pub fn receive(&self) -> Got {
        self.receive_with(0).0
    }

    /// Receives one packet with room for `room` descriptors.
    pub fn receive_with(&self, room: usize) -> (Got, Vec<OwnedFd>) {
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&limit)).unwrap();
        assert!(ready > 0, "the node answers within {PATIENCE:?}");
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut space =
            vec![MaybeUninit::uninit(); if room > 0 { rustix::cmsg_space!(ScmRights(4)) } else { 0 }];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            let room = &mut [IoSliceMut::new(&mut buffer)];
            rustix::net::recvmsg(&self.socket, room, &mut control, RecvFlags::CMSG_CLOEXEC)
        };
        // A node that hung up on what it had not read resets the connection. Its last words are behind that error.
        let received = match receive() {
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        let descriptors = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
                _ => Vec::new(),
            })
            .collect();
        match received {
            Ok(received) if received.bytes > 0 => {
                buffer.truncate(received.bytes);
                (Got::Packet(buffer), descriptors)
            }
            Ok(_) | Err(Errno::CONNRESET | Errno::PIPE) => (Got::End, descriptors),
            Err(error) => panic!("{error}"),
        }
    }

    /// The answer to anything: a reply, an error, or `E_UNREACHABLE` if the node hung up without a word.
    pub fn answer(&self) -> Result<Reply> {
        decoded(self.receive()).map(|(_, reply)| reply)?
    }

    /// Asks and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        // If it hung up already, it may have said why.
        let _ = self.post(request);
        self.answer()
    }

    /// Sends any bytes and returns the code that the node answers them with.
    pub fn code_of(&self, packet: &[u8]) -> Code {
        let _ = self.send(packet); // if it hung up already, it may have said why
        self.answer().map(|reply| panic!("{reply:?}")).unwrap_err().code()
    }

    /// The code that a request is refused with.
    pub fn refusal(&mut self, request: &Request) -> Code {
        match self.ask(request) {
            Ok(reply) => panic!("answered with {reply:?}"),
            Err(error) => error.code(),
        }
    }

    /// Whether the node hung up.
    pub fn is_ended(&self) -> bool {
        matches!(self.receive(), Got::End)
    }

    /// Leases memory.
    pub fn lease(&mut self, bytes: u64) -> (LeaseRow, Token) {
        match self.ask(&Request::LeaseCreate(spec(bytes))).unwrap() {
            Reply::Leased { lease, token } => (lease, token),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a right for reads and writes through the node.
    pub fn open(&mut self, token: &Token, rights: Rights) -> Result<Opened> {
        self.open_by(token, rights, Path::Mediated)
    }

    pub fn open_by(&mut self, token: &Token, rights: Rights, path: Path) -> Result<Opened> {
        match self.ask(&Request::Open { token: token.clone(), rights, path })? {
            Reply::Opened(opened) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a right and takes what comes beside the answer.
    pub fn open_mapped(&mut self, token: &Token, rights: Rights) -> Result<(Opened, Vec<OwnedFd>)> {
        self.post(&Request::Open { token: token.clone(), rights, path: Path::Mapped }).unwrap();
        let (got, descriptors) = self.receive_with(4);
        match decoded(got)?.1? {
            Reply::Opened(opened) => Ok((opened, descriptors)),
            other => panic!("{other:?}"),
        }
    }

    pub fn read(&mut self, handle: SlotHandle, offset: u64, length: u32) -> Result<Vec<u8>> {
        match self.ask(&Request::Read { handle, offset, length })? {
            Reply::Data { bytes, crc } => {
                assert_eq!(crc32c::crc32c(&bytes), crc);
                Ok(bytes)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn write(&mut self, handle: SlotHandle, offset: u64, bytes: &[u8]) -> Result<()> {
        let (data, crc) = (bytes.to_vec(), crc32c::crc32c(bytes));
        self.ask(&Request::Write { handle, offset, data, crc }).map(drop)
    }

    /// Lets nothing more be read from it, and nothing written.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn decoded(got: Got) -> Result<(RequestId, Result<Reply>)> {
    match got {
        Got::End => Err(Error::new(Code::Unreachable, "the node hung up")),
        Got::Packet(packet) => {
            let frame = Frame::decode(&packet).expect("the node sends frames");
            match frame.kind {
                FrameKind::Reply => Ok((frame.request, Ok(frame.body().unwrap()))),
                FrameKind::Error => Ok((frame.request, Err(frame.body().unwrap()))),
                FrameKind::Request => panic!("the node asks nothing"),
            }
        }
    }
}

/// A lease of ten minutes that outlives the session.
pub fn spec(bytes: u64) -> LeaseSpec {
    LeaseSpec {
        bytes,
        ttl: Micros::from_millis(600_000),
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

/// A transcript for a node that was never asked.
pub fn invented(holder: PrincipalKey) -> Transcript {
    Transcript { node: ProviderId([0; 16]), server: Nonce([0; 32]), client: Nonce([0; 32]), holder }
}

/// A frame with any kind and any body.
pub fn frame_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = frame::encode(FrameKind::Request, RequestId(1), &Request::Status).unwrap();
    packet.truncate(frame::HEADER_BYTES);
    packet[5] = kind;
    packet[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
    packet.extend_from_slice(body);
    packet
}
