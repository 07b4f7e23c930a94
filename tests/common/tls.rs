//! A session over TLS spoken by hand: frames as they are, bytes that are none, and nothing that a library would see to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use caps::error::{Code, Error};
use caps::id::{RequestId, SlotHandle};
use caps::pop::{Nonce, Transcript};
use caps::wire::remote::header::HEADER_BYTES;
use caps::wire::remote::{Answer, Flags, Header, Next, Span, Verb, next};
use caps::wire::request::Path as By;
use caps::wire::{Reply, Request, cbor};
use libmem::{Rights, SigningKey, Token};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use transport::rustls::pki_types::ServerName;
use transport::rustls::{ClientConnection, StreamOwned};
use transport::{Credentials, Domain, Files};
use zerocopy::IntoBytes;

use super::PATIENCE;
use super::node::Node;
use super::shell::Shell;

/// The trust domain of a node of [`Node::start_with_tls`].
pub const DOMAIN: &str = "test.example";

/// The certificate of a name with its key: issued now, for a principal, by the node's own authority.
pub fn credentials(node: &Node, name: &str) -> Arc<Credentials> {
    issued(node, name, "principal")
}

/// As [`credentials`], for somebody with another role.
pub fn issued(node: &Node, name: &str, role: &str) -> Arc<Credentials> {
    Shell::new(node.path()).bytes(&["pki", "issue", name, "--role", role]);
    let file = |file: &str| node.path().join("pki").join(file);
    let files = Files {
        chain: file(&format!("{name}.pem")),
        key: file(&format!("{name}.key")),
        roots: file("roots.pem"),
        lists: Some(file("lists.pem")),
    };
    Arc::new(Credentials::load(&Domain::new(DOMAIN).unwrap(), &files).unwrap())
}

/// One frame of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// What is behind it.
    pub body: Vec<u8>,
}

impl Frame {
    /// Why the request failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        match Answer::decode(&self.header, &self.body).unwrap() {
            Answer::Failed(error) => Some(error),
            _ => None,
        }
    }
}

/// A connection that says whatever it is told to say.
pub struct Tls {
    stream: StreamOwned<ClientConnection, TcpStream>,
    input: Vec<u8>,
    next: u64,
}

impl Tls {
    /// Connects, and does nothing that TLS does not do.
    pub fn silent(address: SocketAddr, credentials: &Credentials) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), credentials.client())
    }

    /// Connects and proves a key.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn connect(address: SocketAddr, credentials: &Credentials, key: &SigningKey) -> Result<Self, Error> {
        let mut tls = Self::silent(address, credentials);
        tls.begin(key).map(|()| tls)
    }

    /// The same from this address of the machine's own: a node reckons by where somebody comes from.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn connect_from(
        from: Ipv4Addr,
        address: SocketAddr,
        credentials: &Credentials,
        key: &SigningKey,
    ) -> Result<Self, Error> {
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap();
        net::bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        net::connect(&socket, &address).unwrap();
        let mut tls = Self::over(TcpStream::from(socket), credentials.client());
        tls.begin(key).map(|()| tls)
    }

    /// Says hello; what is to be signed.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn hello(&mut self, key: &SigningKey) -> Result<Transcript, Error> {
        let client = Nonce::random();
        match self.control(&Request::Hello { holder: key.public(), nonce: client })? {
            Reply::Challenge { node, nonce } => {
                Ok(Transcript { node, server: nonce, client, holder: key.public() })
            }
            other => panic!("hello is answered with a challenge, not {other:?}"),
        }
    }

    /// The number of the next request.
    pub fn number(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next - 1)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// What the socket says.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends bytes as they are, without TLS.
    ///
    /// # Errors
    /// What the socket says.
    pub fn write_plain(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.sock.write_all(bytes)
    }

    /// Says in TLS that nothing more will be said. The socket stays open.
    pub fn say_goodbye(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }

    /// A request's only frame.
    pub fn frame(&mut self, verb: Verb, body: &[u8]) -> Vec<u8> {
        let header = Header::of(verb, Flags::NONE, self.number(), body.len()).unwrap();
        [&header.encode()[..], body].concat()
    }

    /// Waits for a frame; `None` once the node has closed the connection.
    #[track_caller]
    pub fn hear(&mut self) -> Option<Frame> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Next::Frame { header, body, rest } =
                next(&self.input).expect("the node speaks the protocol")
            {
                let (frame, rest) = (Frame { header, body: body.to_vec() }, rest.to_vec());
                self.input = rest;
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the node did not answer within {PATIENCE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// Sends a request's only frame and hears the first of its answer.
    #[track_caller]
    pub fn ask(&mut self, verb: Verb, body: &[u8]) -> Frame {
        let frame = self.frame(verb, body);
        self.write(&frame).unwrap();
        self.hear().expect("an answer")
    }

    /// Asks what the local socket is asked.
    ///
    /// # Errors
    /// What the node refuses with; `E_UNREACHABLE` if it hangs up.
    pub fn control(&mut self, request: &Request) -> Result<Reply, Error> {
        let gone = || Error::new(Code::Unreachable, "the node hung up");
        let mut body = Vec::new();
        cbor::append(request, &mut body).unwrap();
        let frame = self.frame(Verb::Control, &body);
        self.write(&frame).map_err(|_| gone())?;
        let frame = self.hear().ok_or_else(gone)?;
        frame.failure().map_or_else(|| Ok(cbor::decode(&frame.body).unwrap()), Err)
    }

    /// Opens a token.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn open(&mut self, token: &Token, rights: Rights) -> Result<SlotHandle, Error> {
        match self.control(&Request::Open { token: token.clone(), rights, path: By::Mediated })? {
            Reply::Opened(opened) => Ok(opened.handle),
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Reads bytes of a region.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn read_at(&mut self, handle: SlotHandle, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let mut frame = self.ask(Verb::Read, Span::new(handle, offset, length).as_bytes());
        let mut bytes = Vec::new();
        loop {
            match Answer::decode(&frame.header, &frame.body).unwrap() {
                Answer::Read(data) => bytes.extend_from_slice(data),
                Answer::Failed(error) => return Err(error),
                other => panic!("{other:?}"),
            }
            if !frame.header.has_more() {
                return Ok(bytes);
            }
            frame = self.hear().expect("the rest of an answer");
        }
    }

    /// Writes at most a chunk into a region.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn write_at(&mut self, handle: SlotHandle, offset: u64, data: &[u8]) -> Result<u64, Error> {
        let span = Span::new(handle, offset, data.len() as u64);
        let frame = self.ask(Verb::Write, &[span.as_bytes(), data].concat());
        match Answer::decode(&frame.header, &frame.body).unwrap() {
            Answer::Written(bytes) => Ok(bytes),
            Answer::Failed(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the node has closed the connection; the last failure that it told before.
    #[track_caller]
    pub fn closed(mut self) -> Option<Code> {
        let mut last = None;
        while let Some(frame) = self.hear() {
            last = frame.failure().map(|error| error.code());
        }
        last
    }
}

/// Bytes before a frame's body.
pub const HEADER: usize = HEADER_BYTES;

/// The certificate of a name that was issued before, as another process of the same test finds it.
pub fn found(directory: &std::path::Path, name: &str) -> Arc<Credentials> {
    let file = |file: &str| directory.join("pki").join(file);
    let files = Files {
        chain: file(&format!("{name}.pem")),
        key: file(&format!("{name}.key")),
        roots: file("roots.pem"),
        lists: Some(file("lists.pem")),
    };
    Arc::new(Credentials::load(&Domain::new(DOMAIN).unwrap(), &files).unwrap())
}

// For those who do not mean well.
impl Tls {
    /// Connects with a configuration of any kind, from a socket that is connected.
    pub fn over(socket: TcpStream, config: Arc<transport::rustls::ClientConfig>) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        // Whom a client wants to reach is not said: the node's name is in its certificate.
        let tls = ClientConnection::new(config, ServerName::try_from("node").unwrap()).unwrap();
        Self { stream: StreamOwned::new(tls, socket), input: Vec::new(), next: 1 }
    }

    /// Proves a key after the handshake.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn begin(&mut self, key: &SigningKey) -> Result<(), Error> {
        let transcript = self.hello(key)?;
        let channel = transport::binding(&self.stream.conn)?;
        match self.control(&Request::Prove { signature: transcript.sign_over(&channel, key) })? {
            Reply::Welcome(_) => Ok(()),
            other => panic!("a proof is answered with a welcome, not {other:?}"),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// TLS itself.
    pub fn tls(&mut self) -> &mut ClientConnection {
        &mut self.stream.conn
    }

    /// Sends what TLS has to send.
    ///
    /// # Errors
    /// What the socket says.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }

    /// Says no more, in TLS and in TCP. What comes can still be heard.
    pub fn shut(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush(); // the node may have hung up
        let _ = self.stream.sock.shutdown(std::net::Shutdown::Write);
    }

    /// The number of the next request is this one.
    pub fn count_from(&mut self, number: u64) {
        self.next = number;
    }

    /// Reads a byte, of a node that may have hung up.
    ///
    /// # Errors
    /// What the node refuses with; `E_UNREACHABLE` if it is gone.
    pub fn read_at_or_gone(&mut self, handle: SlotHandle) -> Result<Vec<u8>, Code> {
        let frame = self.frame(Verb::Read, Span::new(handle, 0, 1).as_bytes());
        if self.write(&frame).is_err() {
            return Err(Code::Unreachable);
        }
        let Some(frame) = self.hear() else { return Err(Code::Unreachable) };
        frame.failure().map_or(Ok(frame.body), |error| Err(error.code()))
    }

    /// Cuts the connection off without a word: the node's kernel is told of a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream.sock, Some(std::time::Duration::ZERO)).unwrap();
    }
}
