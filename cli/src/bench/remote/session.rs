//! A session with a node over TLS, as small as can be: for crowds of them in one process.
//!
//! The client library keeps a window, a retry table and threads for each session; ten thousand of those would be measured
//! instead of the node. This one sends what it is told to and takes frames apart, and can be let go down to its socket:
//! a session that does nothing needs no more.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::{RequestId, SlotHandle};
use caps::key::SigningKey;
use caps::pop::{Nonce, Transcript};
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::remote::{Answer, Flags, Header, Next, Span, Verb, next};
use caps::wire::{Reply, Request, cbor};
use transport::{Credentials, binding};
use zerocopy::IntoBytes;

use super::papers::failed;
use super::stack::{self, Stream};

/// A proven session.
pub struct Session {
    stream: Stream,
    /// Plain bytes that are no whole frame yet.
    held: Vec<u8>,
    requests: u64,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// So many bytes of an answer that goes on.
    Part(usize),
    /// So many bytes, the last ones of an answer.
    Whole(usize),
    /// A failure.
    Refused(Code),
}

fn gone(error: std::io::Error) -> Error {
    Error::with(Code::Unreachable, format!("the node is gone: {error}"))
}

impl Session {
    /// Connects, shakes hands and proves the key.
    pub fn open(address: SocketAddr, credentials: &Arc<Credentials>, key: &SigningKey) -> Result<Self> {
        let stream = stack::connect(address, credentials)?;
        let channel = binding(&stream.conn)?;
        let mut session = Self { stream, held: Vec::new(), requests: 0 };
        let (holder, client) = (key.public(), Nonce::random());
        let Reply::Challenge { node, nonce } = session.control(&Request::Hello { holder, nonce: client })?
        else {
            return Err(Error::new(Code::Protocol, "the node answered hello with no challenge"));
        };
        let transcript = Transcript { node, server: nonce, client, holder };
        match session.control(&Request::Prove { signature: transcript.sign_over(&channel, key) })? {
            Reply::Welcome(_) => Ok(session),
            _ => Err(Error::new(Code::Protocol, "the node answered the proof with no welcome")),
        }
    }

    /// Opens a right for reading and writing by messages.
    pub fn open_right(&mut self, token: &Token) -> Result<SlotHandle> {
        let (path, rights) = (caps::wire::request::Path::Mediated, Rights::READ_WRITE);
        match self.control(&Request::Open { token: token.clone(), rights, path })? {
            Reply::Opened(opened) => Ok(opened.handle),
            _ => Err(Error::new(Code::Protocol, "the node answered with no right")),
        }
    }

    /// Asks the control plane.
    fn control(&mut self, request: &Request) -> Result<Reply> {
        let mut body = Vec::new();
        cbor::append(request, &mut body)?;
        let message = [&self.header(Verb::Control, body.len())?.encode()[..], &body].concat();
        self.stream.write_all(&message).map_err(gone)?;
        loop {
            if let Some(reply) = self.take(|answer| match answer {
                Answer::Control(body) => cbor::decode(body),
                Answer::Failed(error) => Err(error),
                _ => Err(Error::new(Code::Protocol, "the node answered another question")),
            })? {
                return reply;
            }
            self.wait()?;
        }
    }

    fn header(&mut self, verb: Verb, body: usize) -> Result<Header> {
        self.requests += 1;
        Header::of(verb, Flags::NONE, RequestId(self.requests), body)
    }

    /// Asks for bytes so many times, in one piece, without waiting for any.
    pub fn ask(&mut self, right: SlotHandle, bytes: u64, times: usize) -> Result<()> {
        let mut messages = Vec::new();
        for _ in 0..times {
            messages.extend_from_slice(&self.header(Verb::Read, Span::BYTES)?.encode());
            messages.extend_from_slice(Span::new(right, 0, bytes).as_bytes());
        }
        self.stream.write_all(&messages).map_err(gone)
    }

    /// The next frame of an answer to a read, if a whole one is there.
    pub fn came(&mut self) -> Result<Option<Came>> {
        let Next::Frame { header, .. } = next(&self.held)? else { return Ok(None) };
        let came = self.take(|answer| match answer {
            Answer::Read(bytes) if header.has_more() => Ok(Came::Part(bytes.len())),
            Answer::Read(bytes) => Ok(Came::Whole(bytes.len())),
            Answer::Failed(error) => Ok(Came::Refused(error.code())),
            _ => Err(Error::new(Code::Protocol, "the node answered another question")),
        })?;
        came.transpose()
    }

    /// Takes what has come from the socket, and waits for something if there is nothing.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if the node hung up.
    pub fn wait(&mut self) -> Result<()> {
        let Stream { conn, sock } = &mut self.stream;
        if conn.read_tls(sock).map_err(gone)? == 0 {
            return Err(Error::new(Code::Unreachable, "the node hung up"));
        }
        let state = conn.process_new_packets();
        state.map_err(|error| Error::with(Code::Unreachable, format!("no TLS any more: {error}")))?;
        match conn.reader().read_to_end(&mut self.held) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()), // all that there is
            Err(error) => Err(gone(error)),
            Ok(0) => Err(Error::new(Code::Unreachable, "the node hung up")),
            Ok(_) => Ok(()), // its last words
        }
    }

    /// Takes a frame off what is held. `None` if there is no whole one.
    fn take<T>(&mut self, read: impl FnOnce(Answer<'_>) -> T) -> Result<Option<T>> {
        match next(&self.held)? {
            Next::Wants(_) => Ok(None),
            Next::Frame { header, body, rest } => {
                let (read, rest) = (read(Answer::decode(&header, body)?), rest.len());
                self.held.drain(..self.held.len() - rest);
                Ok(Some(read))
            }
        }
    }

    /// Sends bytes as they are, through TLS: the beginning of a frame, say.
    pub fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(gone)
    }

    /// The socket, to wait for it.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.sock.as_fd()
    }

    /// The bytes of a read's frame, as somebody would begin to send it.
    pub fn frame(&mut self, right: SlotHandle) -> Result<Vec<u8>> {
        let header = self.header(Verb::Read, Span::BYTES)?;
        Ok([&header.encode()[..], Span::new(right, 0, 1).as_bytes()].concat())
    }

    /// Lets everything go but the connection.
    pub fn into_socket(self) -> TcpStream {
        self.stream.sock
    }

    /// Does not wait in reads and writes any more.
    pub fn set_nonblocking(&self) -> Result<()> {
        self.stream.sock.set_nonblocking(true).map_err(failed("cannot set up a socket"))
    }
}
