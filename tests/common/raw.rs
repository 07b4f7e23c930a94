//! A session spoken by hand: what libmem would refuse to say, and descriptors that it would not hand out.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use caps::limits::FRAME_BYTES_MAX;
use caps::pop::{Nonce, Transcript};
use caps::wire::frame::{self, Frame, FrameKind};
use caps::wire::request::Path as By;
use caps::wire::{Reply, Request};
use libmem::{Error, Result, Rights, SigningKey, Token};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sockopt,
};

use super::PATIENCE;
use super::attack::Bare;

/// A session that says whatever it is told to say.
pub struct Raw {
    socket: OwnedFd,
    next: u64,
    /// What the node said of itself.
    pub cluster: caps::id::ClusterEpoch,
}

impl Raw {
    /// Connects and proves a key.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn connect(path: &Path, key: &SigningKey) -> Result<Self> {
        let mut raw = Self::silent(path);
        let transcript = raw.hello(key)?;
        let Reply::Welcome(welcome) = raw.ask(&Request::Prove { signature: transcript.sign(key) })? else {
            panic!("a proof is answered with a welcome")
        };
        raw.cluster = welcome.cluster;
        Ok(raw)
    }

    /// Connects and says nothing.
    pub fn silent(path: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self { socket, next: 1, cluster: caps::id::ClusterEpoch([0; 16]) }
    }

    /// Says hello; what is to be signed.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn hello(&mut self, key: &SigningKey) -> Result<Transcript> {
        let client = Nonce::random();
        match self.ask(&Request::Hello { holder: key.public(), nonce: client })? {
            Reply::Challenge { node, nonce } => {
                Ok(Transcript { node, server: nonce, client, holder: key.public() })
            }
            _ => panic!("hello is answered with a challenge"),
        }
    }

    /// Sends a request and waits for nothing.
    ///
    /// # Errors
    /// What the socket says.
    pub fn post(&mut self, request: &Request) -> rustix::io::Result<()> {
        let packet = self.packet(request);
        rustix::net::send(&self.socket, &packet, SendFlags::NOSIGNAL).map(drop)
    }

    /// The next request's packet.
    pub fn packet(&mut self, request: &Request) -> Vec<u8> {
        let id = caps::id::RequestId(self.next);
        self.next += 1;
        frame::encode(FrameKind::Request, id, request).unwrap()
    }

    /// The socket, for what is not even a request.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.ask_for_more(request).map(|(reply, _)| reply)
    }

    /// As [`Raw::ask`], with the descriptor that came beside the answer.
    fn ask_for_more(&mut self, request: &Request) -> Result<(Reply, Option<OwnedFd>)> {
        // A node that hung up says so by what it answers, not by whether it still listens.
        let _ = self.post(request);
        self.receive()
    }

    /// Waits for an answer, with the descriptor that came beside it.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn receive(&self) -> Result<(Reply, Option<OwnedFd>)> {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let into = &mut [IoSliceMut::new(&mut buffer)];
        let got = rustix::net::recvmsg(&self.socket, into, &mut control, RecvFlags::CMSG_CLOEXEC);
        let bytes = got.map(|got| got.bytes).unwrap_or(0);
        if bytes == 0 {
            return Err(Error::new(libmem::Code::Unreachable, "the node hung up"));
        }
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let frame = Frame::decode(&buffer[..bytes]).unwrap();
        match frame.kind {
            FrameKind::Reply => Ok((frame.body().unwrap(), descriptor)),
            FrameKind::Error => Err(frame.body::<Error>().unwrap()),
            FrameKind::Request => panic!("a node does not ask"),
        }
    }

    /// Opens a token for a mapping and keeps the bare descriptor.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn open_mapped(&mut self, token: &Token, rights: Rights) -> Result<Bare> {
        let open = Request::Open { token: token.clone(), rights, path: By::Mapped };
        match self.ask_for_more(&open)? {
            (Reply::Opened(opened), Some(descriptor)) => {
                Ok(Bare { descriptor, bytes: opened.region_bytes as usize, handle: opened.handle })
            }
            _ => panic!("a mapping comes with its descriptor"),
        }
    }
}
