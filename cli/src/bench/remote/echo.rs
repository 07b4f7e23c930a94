//! The bare baseline: what TLS alone costs between two processes.
//!
//! A server that answers a request with as many bytes as it asks for and does nothing else: rustls over blocking sockets,
//! a thread a connection. Both ends wait awake for a moment before they sleep, read and send as Leasehold's do. Its requests and answers are as long as Leasehold's for the same value, headers included, so
//! that what Leasehold takes longer is what it does, not what it sends.
//!
//! ```text
//! request: payload u64, answer u64, payload bytes        answer: so many bytes
//! ```

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::limits::CHUNK_BYTES_MAX;
use caps::wire::remote::body::Piece;
use caps::wire::remote::{Span, header::HEADER_BYTES};
use transport::Credentials;
use transport::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::papers::failed;
use super::side::{FILL, GATHER_ITEM_BYTES, GATHER_ITEMS, Side, VALUE_BYTES_MAX, judge};
use super::stack::{self, Awake, AwakeStream};

/// Both numbers.
const HEAD_BYTES: usize = 16;
/// Bytes of Leasehold's answer to a write: a header and a number.
const WRITTEN_BYTES: usize = HEADER_BYTES + 8;
/// Longest request or answer in bytes: what a value and the headers of its frames have.
const MESSAGE_BYTES_MAX: u64 = 2 * VALUE_BYTES_MAX as u64;

/// Listens on a free port of the loopback and serves whoever connects, as long as the process lives.
pub fn serve(credentials: &Credentials) -> Result<SocketAddr> {
    let no_socket = failed("cannot listen");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(&no_socket)?;
    let address = listener.local_addr().map_err(&no_socket)?;
    let config = credentials.server();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let config = config.clone();
            // A client that hangs up, or says nothing that is understood, ends its thread and nothing else.
            std::thread::spawn(move || answer(socket, config));
        }
    });
    Ok(address)
}

fn answer(socket: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut connection = ServerConnection::new(config).ok()?;
    connection.set_buffer_limit(None);
    let mut stream = StreamOwned::new(connection, Awake::over(socket));
    let chunk = vec![FILL; CHUNK_BYTES_MAX + HEADER_BYTES];
    let mut payload = vec![0; CHUNK_BYTES_MAX];
    loop {
        let mut head = [0; HEAD_BYTES];
        stream.read_exact(&mut head).ok()?;
        let (asked, wanted) = head.split_at(HEAD_BYTES / 2);
        let [mut asked, mut wanted] = [asked, wanted].map(|bytes| bytes.iter().rev().fold(0_u64, shift));
        if asked > MESSAGE_BYTES_MAX || wanted > MESSAGE_BYTES_MAX {
            return None;
        }
        while asked > 0 {
            let some = asked.min(payload.len() as u64) as usize;
            stream.read_exact(&mut payload[..some]).ok()?;
            asked -= some as u64;
        }
        while wanted > 0 {
            let some = wanted.min(chunk.len() as u64) as usize;
            stack::send(&mut stream, &chunk[..some]).ok()?;
            wanted -= some as u64;
        }
    }
}

/// The next byte of a number, the last one first.
fn shift(number: u64, &byte: &u8) -> u64 {
    number << 8 | u64::from(byte)
}

/// One connection to it.
pub struct Echo {
    stream: AwakeStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Echo {
    pub fn connect(address: SocketAddr, credentials: &Arc<Credentials>) -> Result<Self> {
        let stream = stack::connect_awake(address, credentials)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new() })
    }

    /// Sends so many bytes, at least [`HEAD_BYTES`], and takes so many.
    fn exchange(&mut self, request: usize, answer: usize) -> Result<()> {
        if (self.request.len(), self.answer.len()) != (request, answer) {
            // Once for each length: what is measured is the way, not the making of a message.
            self.request = vec![FILL; request];
            let payload = (request - HEAD_BYTES) as u64;
            self.request[..HEAD_BYTES / 2].copy_from_slice(&payload.to_le_bytes());
            self.request[HEAD_BYTES / 2..HEAD_BYTES].copy_from_slice(&(answer as u64).to_le_bytes());
            self.answer = vec![0; answer];
        }
        let gone = |error| Error::with(Code::Unreachable, format!("the bare TLS server is gone: {error}"));
        stack::send(&mut self.stream, &self.request).map_err(gone)?;
        self.stream.read_exact(&mut self.answer).map_err(gone)?;
        judge(&self.answer)
    }
}

/// Bytes of a value with the headers of its frames.
const fn framed(bytes: usize) -> usize {
    let frames = bytes.div_ceil(CHUNK_BYTES_MAX);
    bytes + if frames == 0 { 1 } else { frames } * HEADER_BYTES
}

impl Side for Echo {
    fn read(&mut self, bytes: usize) -> Result<()> {
        self.exchange(HEADER_BYTES + Span::BYTES, framed(bytes))
    }

    fn write(&mut self, bytes: usize) -> Result<()> {
        self.exchange(framed(bytes) + Span::BYTES, WRITTEN_BYTES)
    }

    fn gather(&mut self) -> Result<()> {
        let answer = framed(GATHER_ITEMS * GATHER_ITEM_BYTES) + GATHER_ITEMS * Piece::BYTES;
        self.exchange(HEADER_BYTES + GATHER_ITEMS * Span::BYTES, answer)
    }
}
