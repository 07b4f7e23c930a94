//! TLS over a socket: bytes in, frames out.
//!
//! ```text
//!   socket ──▶ scratch of the shard ──▶ TLS ──▶ bytes of frames
//!   socket ◀── what it takes ◀────────┐
//!              what it does not take ◀┴─ TLS ◀── header and parts of a frame
//! ```
//! The TLS library keeps nothing that is to be sent: each frame is offered to the socket in the call that makes it, and
//! what the socket does not take is kept here, where it is counted to the byte.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};
use policy::limits;
use rustix::net::sockopt;
use transport::rustls::{self, ServerConnection};

use super::records::{self, Records};
use crate::runtime::Outgoing;

/// One connection's socket and its TLS.
pub(super) struct Line {
    socket: TcpStream,
    tls: ServerConnection,
    /// How far the client is with its records.
    records: Records,
    /// Whether the client has said in TLS that it says no more: its socket need not have.
    heard_all: bool,
    /// Whether this direction is to be closed once the socket has taken everything.
    closes: bool,
    unsent: Unsent,
}

/// Ciphertext that the socket did not take.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    /// Bytes of it that it took since.
    taken: usize,
    /// When it last took some, or was offered the first, or the peer's kernel was seen to have taken some of what the
    /// socket has.
    since: Option<Instant>,
    /// How far the peer's kernel was then.
    arrived: u64,
    /// The books of the session, once there is one.
    outgoing: Option<Arc<Outgoing>>,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Something. `more` if there may be more.
    Some {
        /// Whether the read was as long as it could be.
        more: bool,
        /// Bytes of ciphertext.
        bytes: usize,
    },
    /// Nothing is there.
    Nothing,
    /// The client has said its last.
    End,
}

/// Why a line is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// The socket is gone.
    Gone,
    /// What came is no TLS, or not of somebody who is believed. An alert has said so.
    Tls(rustls::Error),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Line {
    /// A line over a socket that was just accepted.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if it is gone already, `E_INTERNAL` if the configuration does not do.
    pub(super) fn new(socket: TcpStream, config: Arc<rustls::ServerConfig>) -> Result<Self> {
        let gone = |_: io::Error| Error::new(Code::Unreachable, "the client hung up");
        socket.set_nonblocking(true).map_err(gone)?;
        let options = || -> rustix::io::Result<()> {
            sockopt::set_tcp_nodelay(&socket, true)?;
            sockopt::set_socket_send_buffer_size(&socket, limits::REMOTE_SEND_BYTES_MAX)?;
            sockopt::set_tcp_keepidle(&socket, Duration::from_millis(limits::REMOTE_KEEPALIVE_MS))?;
            sockopt::set_tcp_keepintvl(&socket, Duration::from_millis(limits::REMOTE_KEEPALIVE_STEP_MS))?;
            sockopt::set_tcp_keepcnt(&socket, limits::REMOTE_KEEPALIVES_MAX)?;
            sockopt::set_socket_keepalive(&socket, true)
        };
        options().map_err(|errno| gone(errno.into()))?;
        let mut tls = ServerConnection::new(config)
            .map_err(|_| Error::new(Code::Internal, "the TLS configuration does not do"))?;
        // What is to be sent never stays in it: see `Tap`.
        tls.set_buffer_limit(None);
        Ok(Self {
            socket,
            tls,
            records: Records::default(),
            heard_all: false,
            closes: false,
            unsent: Unsent::default(),
        })
    }

    pub(super) fn tls(&self) -> &ServerConnection {
        &self.tls
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The books of what this connection is sent, from here on.
    ///
    /// # Errors
    /// `E_SYSTEM` if no descriptor is left.
    pub(super) fn keep_books(&mut self) -> Result<Arc<Outgoing>> {
        let socket = self.socket.as_fd().try_clone_to_owned();
        let socket = socket.map_err(|_| Error::new(Code::System, "no descriptor is left for a session"))?;
        let outgoing = Arc::new(Outgoing::new(socket));
        // What waits here is counted, since it will be counted when it is handed over.
        outgoing.produced(self.unsent.bytes.len() - self.unsent.taken);
        self.unsent.outgoing = Some(outgoing.clone());
        Ok(outgoing)
    }

    pub(super) fn outgoing(&self) -> Option<&Outgoing> {
        self.unsent.outgoing.as_deref()
    }

    /// Whether the socket took everything.
    pub(super) fn is_drained(&self) -> bool {
        self.unsent.bytes.is_empty()
    }

    /// Bytes that the client has sent of a record of TLS whose rest it has not.
    pub(super) const fn unfinished(&self) -> usize {
        self.records.unfinished()
    }

    /// Whether the client has sent enough for TLS to begin with. Looks without taking; nothing was read before. `None` if
    /// nothing more comes.
    ///
    /// # Errors
    /// If the socket is gone.
    pub(super) fn begins(&self, scratch: &mut [u8]) -> io::Result<Option<bool>> {
        loop {
            match self.socket.peek(scratch) {
                Ok(0) => return Ok(None),
                Ok(come) => return Ok(Some(records::begins(&scratch[..come]))),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Since when nothing of what waits has moved, as far as is known.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.unsent.since
    }

    /// Finds out whether something has moved that nobody told of: a socket asks for more only once a third of its room is
    /// free, and a peer that reads slowly may take longer for that.
    ///
    /// # Errors
    /// If the socket is gone.
    pub(super) fn look_again(&mut self) -> io::Result<()> {
        self.flush()?;
        let arrived = self.unsent.arrived();
        let unsent = &mut self.unsent;
        if !unsent.bytes.is_empty() && arrived > unsent.arrived {
            (unsent.since, unsent.arrived) = (Some(Instant::now()), arrived);
        }
        Ok(())
    }

    /// Reads once, at most what `scratch` holds, and puts what it means behind `plain`. Answers of TLS itself are sent.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) fn receive(&mut self, scratch: &mut [u8], plain: &mut Vec<u8>) -> Result<Received, Broken> {
        if self.heard_all {
            return Ok(Received::End);
        }
        let read = loop {
            match (&self.socket).read(scratch) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
            }
        };
        if read == 0 {
            return Ok(Received::End);
        }
        let more = read == scratch.len();
        self.records.came(&scratch[..read]);
        let mut rest = &scratch[..read];
        while !rest.is_empty() {
            // Nothing is taken once the client has said that it says no more.
            if self.tls.read_tls(&mut rest)? == 0 {
                return Ok(Received::End);
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    let _ = self.flush(); // the alert; it may be gone
                    return Err(Broken::Tls(error));
                }
            };
            let mut left = state.plaintext_bytes_to_read();
            let mut reader = self.tls.reader();
            while left > 0 {
                let bytes = reader.fill_buf()?;
                let length = bytes.len();
                plain.extend_from_slice(bytes);
                reader.consume(length);
                left = left.saturating_sub(length.max(1));
            }
            if self.tls.wants_write() {
                self.flush()?;
            }
            if state.peer_has_closed() {
                // What came before it counts; the next read finds the end, and asks the socket no more.
                self.heard_all = true;
                return Ok(Received::Some { more: true, bytes: read });
            }
        }
        Ok(Received::Some { more, bytes: read })
    }

    /// Encrypts the parts of one frame, one behind the other, and sends as much as the socket takes.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if the socket is gone.
    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Result<()> {
        let gone = |_: io::Error| Error::new(Code::Unreachable, "the client is gone");
        const PARTS: usize = 8;
        let mut writer = self.tls.writer();
        for parts in parts.chunks(PARTS) {
            let mut slices = [IoSlice::new(&[]); PARTS];
            for (slice, part) in slices.iter_mut().zip(parts) {
                *slice = IoSlice::new(part);
            }
            let length: usize = parts.iter().map(|part| part.len()).sum();
            // Without a bound on the buffer everything is taken.
            let taken = writer.write_vectored(&slices[..parts.len()]).map_err(gone)?;
            debug_assert_eq!(taken, length);
        }
        self.flush().map_err(gone)
    }

    /// Offers to the socket what waits, and what TLS has made since.
    ///
    /// # Errors
    /// If the socket is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.unsent.offer(&self.socket)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Tap { socket: &self.socket, unsent: &mut self.unsent })?;
        }
        if self.closes && self.is_drained() {
            self.closes = false;
            let _ = self.socket.shutdown(std::net::Shutdown::Write); // it may be gone
        }
        Ok(())
    }

    /// Closes this direction behind what still waits, and says so in TLS if nothing has yet.
    pub(super) fn say_goodbye(&mut self, notify: bool) {
        if notify {
            self.tls.send_close_notify();
        }
        self.closes = true;
        let _ = self.flush(); // it may be gone
    }

    /// Closes both directions at once.
    pub(super) fn hang_up(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both); // it may be gone
    }

    /// Throws away what comes, a turn's worth at most. The end is no more than that: the client may still read.
    ///
    /// # Errors
    /// If the socket is gone.
    pub(super) fn discard(&mut self, scratch: &mut [u8]) -> io::Result<Received> {
        let mut thrown = 0;
        for _ in 0..limits::REMOTE_READS_PER_TURN {
            match (&self.socket).read(scratch) {
                Ok(0) => return Ok(Received::End),
                Ok(bytes) => thrown += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error),
            }
        }
        Ok(Received::Some { more: true, bytes: thrown })
    }
}

impl Unsent {
    /// Gives the socket what waits.
    fn offer(&mut self, mut socket: &TcpStream) -> io::Result<()> {
        let mut moved = false;
        while self.taken < self.bytes.len() {
            if self.outgoing.as_ref().is_some_and(|outgoing| outgoing.is_cut_off()) {
                return Err(ErrorKind::NotConnected.into());
            }
            match socket.write(&self.bytes[self.taken..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.taken += taken;
                    moved = true;
                    self.handed(taken);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if moved {
                        (self.since, self.arrived) = (Some(Instant::now()), self.arrived());
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if !self.bytes.is_empty() {
            // Not only emptied: an idle connection has no buffer.
            self.bytes = Vec::new();
            (self.taken, self.since) = (0, None);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            if self.since.is_none() {
                (self.since, self.arrived) = (Some(Instant::now()), self.arrived());
            }
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// How far the peer's kernel is, where books are kept.
    fn arrived(&self) -> u64 {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.acknowledged())
    }

    fn handed(&self, bytes: usize) {
        if let Some(outgoing) = &self.outgoing {
            outgoing.handed(bytes);
        }
    }
}

/// Where TLS writes to: the socket, and what that does not take is kept. It takes everything.
struct Tap<'a> {
    socket: &'a TcpStream,
    unsent: &'a mut Unsent,
}

impl Write for Tap<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        // Before any of it can leave.
        if let Some(outgoing) = &self.unsent.outgoing {
            outgoing.produced(all);
            if outgoing.is_cut_off() {
                return Err(ErrorKind::NotConnected.into());
            }
        }
        let mut taken = 0;
        while self.unsent.bytes.is_empty() {
            match self.socket.write_vectored(slices) {
                Ok(0) if all > 0 => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    taken = bytes;
                    self.unsent.handed(bytes);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        for slice in slices {
            let skip = taken.min(slice.len());
            taken -= skip;
            self.unsent.keep(&slice[skip..]);
        }
        Ok(all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
