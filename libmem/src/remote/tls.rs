//! One TLS connection: bytes in, bytes out, and the only places of it that wait.
//!
//! A small request costs one `sendmsg` and one `recv`. Records are taken off the socket many at a time and decrypted one by
//! one, straight towards where their bytes belong, so that no more than one lies decrypted in between.

use std::io::{BufRead, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use caps::error::{Code, Error};
use caps::pop::Nonce;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use transport::rustls::{self, AlertDescription, ClientConnection, InvalidMessage, pki_types::ServerName};
use transport::{Credentials, Eager, PeerId};

use super::failure::Failure;
use crate::local::Deadline;

/// Bytes that one system call takes off the socket: several records, of which one has at most 16 KiB and its framing.
const INCOMING_BYTES: usize = 128 * 1024;
/// Bytes before a record: its type, its version, its length.
const RECORD_HEADER_BYTES: usize = 5;
/// What a record can begin with: RFC 8446 section 5.1.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=23;
/// Longest record, framing included: RFC 8446 section 5.2.
const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + (1 << 14) + 256;
/// Bytes that may wait here to be sent. A frame more is put on top at most, so this bounds the memory and decides how
/// many small requests go out with one system call.
const PENDING_BYTES_MAX: usize = 64 * 1024;
/// A wait that begins with at least this part of the time left may be left to the socket's own time-out.
const FRESH_PART: u32 = 16;

/// What a port says that clients are not served at.
const NO_CLIENTS: &str =
    "what answers there does not speak leasehold/1; a broker has another port for providers than for clients";
const _: () =
    assert!(INCOMING_BYTES > 2 * RECORD_BYTES_MAX, "what is left of a record has room for the rest");

/// A connection.
pub(super) struct Tls {
    stream: TcpStream,
    connection: ClientConnection,
    /// What came and is not decrypted yet: `start..end`.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// Up to where the library has copied what came. It is given what fits, past the end of a record too: its buffer then
    /// keeps its size from one record to the next, where an empty one is shrunk, and grown and zeroed again.
    given: usize,
    /// Whether the stream ended: nothing comes behind what is here.
    ended: bool,
    /// What comes behind the bytes that are decrypted already, if that is the end of it.
    failed: Option<Failure>,
    /// Bytes put since the kernel had everything.
    pending: usize,
    /// The socket's own time-out.
    timeout: Duration,
    /// Looks for the answer before it sleeps.
    eager: Eager,
}

impl Tls {
    /// Connects, and waits for the end of the handshake.
    pub(super) fn connect(
        address: &str,
        credentials: &Credentials,
        deadline: Deadline,
    ) -> Result<(Self, PeerId), Failure> {
        let stream = dial(address, deadline)?;
        stream.set_nodelay(true).map_err(|error| broken(&error))?;
        // Who is wanted is an identity, which is asked for below; a name on the network says nothing and is not sent.
        let nobody = ServerName::try_from("node").map_err(|_| Failure::Own(Code::Internal.into()))?;
        let mut connection = ClientConnection::new(credentials.client(), nobody).map_err(judged)?;
        connection.set_buffer_limit(None); // `is_full` is the bound
        let incoming = vec![0; INCOMING_BYTES].into_boxed_slice();
        let mut tls = Self {
            stream,
            connection,
            incoming,
            start: 0,
            end: 0,
            given: 0,
            ended: false,
            failed: None,
            pending: 0,
            timeout: Duration::ZERO,
            eager: Eager::default(),
        };
        loop {
            let flushed = tls.flush()?;
            if !tls.connection.is_handshaking() {
                break;
            }
            if !tls.feed()? {
                if tls.ended {
                    return Err(Failure::lost("the node took the connection and ended it at once"));
                }
                tls.pending = usize::from(!flushed);
                tls.wait(deadline)?;
            }
        }
        let peer = credentials.peer(&tls.connection).map_err(Failure::Refused)?;
        Ok((tls, peer))
    }

    /// What this connection alone has.
    pub(super) fn binding(&self) -> Result<Nonce, Failure> {
        transport::binding(&self.connection).map_err(Failure::Own)
    }

    /// How long one wait takes at most, where that is all there is to know: the time of a request.
    pub(super) fn set_timeout(&mut self, timeout: Duration) -> Result<(), Failure> {
        // The kernel counts in ticks of a few milliseconds and has a largest number; beyond both `poll` does it.
        let fits = (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&timeout);
        self.timeout = if fits { timeout } else { Duration::ZERO };
        self.stream.set_read_timeout(fits.then_some(timeout)).map_err(|error| broken(&error))
    }

    /// Encrypts bytes, to go out with the next [`Self::flush`]. Never waits.
    pub(super) fn put(&mut self, parts: [&[u8]; 3]) -> Result<(), Failure> {
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        let slices = parts.map(IoSlice::new);
        let taken = self.connection.writer().write_vectored(&slices).map_err(|error| broken(&error))?;
        self.pending += taken;
        if taken == wanted {
            Ok(())
        } else {
            Err(Failure::Own(Error::new(Code::Internal, "TLS without a limit did not take all bytes")))
        }
    }

    /// Whether enough waits to be sent.
    pub(super) const fn is_full(&self) -> bool {
        self.pending >= PENDING_BYTES_MAX
    }

    /// Hands the kernel what it takes now; true once it has everything.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Sending(&self.stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // The other side's last words say more than that it is gone.
                    self.last_words()?;
                    return Err(broken(&error));
                }
            }
        }
        self.pending = 0;
        Ok(true)
    }

    /// Says that nothing more comes from here, if the kernel takes it now.
    pub(super) fn end(&mut self) {
        self.connection.send_close_notify();
        let _ = self.connection.write_tls(&mut Sending(&self.stream)); // who is gone need not be told
    }

    /// Decrypted bytes that are here. `Ok(None)`: none are, [`Self::wait`] for them.
    pub(super) fn read(&mut self, place: &mut [u8]) -> Result<Option<usize>, Failure> {
        loop {
            match self.connection.reader().read(place) {
                Ok(0) => return Err(Failure::Ended),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Failure::lost("the connection to the node was cut")),
            }
            if !self.feed()? {
                return Ok(None);
            }
        }
    }

    /// Waits until something came, or until there is room to send if something waits to be sent.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Result<(), Failure> {
        // With something to send it has to be told of room, too.
        if self.pending == 0 && self.come_at_once()? {
            return Ok(());
        }
        let left = deadline.remaining();
        // The usual wait, for the answer to a request just sent, is one system call.
        if self.pending == 0 && !self.timeout.is_zero() && left >= self.timeout - self.timeout / FRESH_PART {
            match self.receive(RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Failure::Late),
                outcome => return outcome.map_err(|errno| broken(&errno.into())),
            }
        }
        let mut ready = PollFlags::IN;
        if self.pending > 0 {
            ready |= PollFlags::OUT;
        }
        let revents = loop {
            let mut sockets = [PollFd::new(&self.stream, ready)];
            match poll(&mut sockets, Some(&deadline.left())) {
                Ok(0) => return Err(Failure::Late),
                Ok(_) => break sockets[0].revents(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(broken(&errno.into())),
            }
        };
        if !revents.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
        match self.receive(RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            outcome => outcome.map_err(|errno| broken(&errno.into())),
        }
    }

    /// Waits awake for a moment. `true` if something came.
    fn come_at_once(&mut self) -> Result<bool, Failure> {
        let mut eager = std::mem::replace(&mut self.eager, Eager::new(1));
        let came = eager.wait(|| match self.receive(RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            outcome => Some(outcome),
        });
        self.eager = eager;
        came.transpose().map(|came| came.is_some()).map_err(|errno| broken(&errno.into()))
    }

    /// Takes what is at the socket, without waiting.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        match self.receive(RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            outcome => outcome.map_err(|errno| broken(&errno.into())),
        }
    }

    /// One `recv`.
    fn receive(&mut self, flags: RecvFlags) -> Result<(), Errno> {
        if self.start == self.end {
            (self.start, self.end, self.given) = (0, 0, 0);
        } else if self.incoming.len() - self.end < RECORD_BYTES_MAX {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.end, self.given) = (self.end - self.start, self.given - self.start);
            self.start = 0;
        }
        let (count, _) = rustix::net::recv(&self.stream, &mut self.incoming[self.end..], flags)?;
        self.end += count;
        if count == 0 {
            self.ended = true;
            // Tells the library of the end of the stream, which it then tells apart from an end that was announced.
            let _ = self.connection.read_tls(&mut std::io::empty());
        }
        Ok(())
    }

    /// Decrypts the next record, and whole ones behind it that the library has already; false if it is not here whole.
    fn feed(&mut self) -> Result<bool, Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let Some(end) = self.record(self.start)? else { return Ok(false) };
        while self.given < end {
            let mut here = &self.incoming[self.given..self.end];
            let taken = self.connection.read_tls(&mut here).map_err(|error| broken(&error))?;
            if taken == 0 {
                self.farewell();
                return Ok(false);
            }
            self.given += taken;
        }
        self.start = end;
        match self.connection.process_new_packets() {
            Ok(state) if state.peer_has_closed() => self.farewell(),
            // It has decrypted all that it has whole. What is no record is told when what came before it was read.
            Ok(_) => {
                while let Ok(Some(end)) = self.record(self.start)
                    && end <= self.given
                {
                    self.start = end;
                }
            }
            Err(error) => {
                let _ = self.connection.write_tls(&mut Sending(&self.stream)); // the alert that says why
                let failure = self.told(error);
                // A record before the bad one may have been good.
                if !self.connection.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                    return Err(failure);
                }
                self.failed = Some(failure);
            }
        }
        Ok(true)
    }

    /// Behind its farewell the other side has nothing to say: RFC 8446 section 6.1.
    const fn farewell(&mut self) {
        (self.start, self.end, self.given, self.ended) = (0, 0, 0, true);
    }

    /// Where the record that begins at `start` ends; `None` if it is not here whole.
    fn record(&self, start: usize) -> Result<Option<usize>, Failure> {
        let here = &self.incoming[start..self.end];
        let Some(&[kind, major, _, high, low]) = here.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(None);
        };
        // What is no record is known as such before its supposed length is waited for.
        if !RECORD_KINDS.contains(&kind) || major != 3 {
            return Err(self.told(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)));
        }
        let length = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        if length > RECORD_BYTES_MAX {
            return Err(self.told(rustls::Error::PeerSentOversizedRecord));
        }
        Ok((length <= here.len()).then_some(start + length))
    }

    /// What an error of the library comes to.
    fn told(&self, error: rustls::Error) -> Failure {
        if !self.connection.is_handshaking() && !matches!(error, rustls::Error::AlertReceived(_)) {
            return Failure::lost("what came over the connection was damaged on the way");
        }
        judged(error)
    }

    /// Reads what the other side said before it went: an alert that refuses a certificate comes so.
    fn last_words(&mut self) -> Result<(), Failure> {
        while !self.ended && self.receive(RecvFlags::DONTWAIT).is_ok() {
            while self.feed()? {}
        }
        Ok(())
    }
}

/// A TCP connection to the first of the address' hosts that takes one.
fn dial(address: &str, deadline: Deadline) -> Result<TcpStream, Failure> {
    let hosts = address.to_socket_addrs().map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => {
            Failure::Refused(Error::new(Code::Range, "an address is HOST:PORT, as in node-1.example:7411"))
        }
        _ => Failure::lost("the system knows no address for this host"),
    })?;
    let mut failure = Failure::lost("the system knows no address for this host");
    for host in hosts {
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(Failure::lost("the node did not take the connection in time"));
        }
        match TcpStream::connect_timeout(&host, left) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                failure = Failure::lost("no node listens at this address");
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                failure = Failure::lost("the node did not take the connection in time");
            }
            Err(error) => failure = broken(&error),
        }
    }
    Err(failure)
}

/// A socket that failed.
fn broken(error: &std::io::Error) -> Failure {
    let detail = match error.raw_os_error() {
        Some(errno) => format!("the connection to the node failed with errno {errno}"),
        None => "the connection to the node failed".to_owned(),
    };
    Failure::Lost(Error::with(Code::Unreachable, detail))
}

/// A handshake that failed, or an alert.
fn judged(error: rustls::Error) -> Failure {
    use AlertDescription as Alert;
    let refused = |code, detail| Failure::Refused(Error::new(code, detail));
    match error {
        rustls::Error::InvalidCertificate(_)
        | rustls::Error::NoCertificatesPresented
        | rustls::Error::InvalidCertRevocationList(_) => {
            refused(Code::PeerIdentity, "the node's certificate is not believed")
        }
        rustls::Error::NoApplicationProtocol => refused(Code::PeerIdentity, NO_CLIENTS),
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::CertificateRequired,
        ) => refused(Code::PeerIdentity, "the node does not believe this client's certificate"),
        rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => refused(Code::PeerIdentity, NO_CLIENTS),
        rustls::Error::AlertReceived(_) => Failure::lost("the node ended the connection with an alert"),
        _ => refused(Code::Protocol, "what answers there does not speak TLS 1.3 as a node does"),
    }
}

/// The socket as something to write to: never waits, raises no signal.
struct Sending<'a>(&'a TcpStream);

const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SEND)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> std::io::Result<usize> {
        Ok(rustix::net::sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), SEND)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How long until `end`, for those who count in whole milliseconds; at least one, and at most what fits.
pub(super) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A deadline for a step that takes at most `most`, within one that is there already.
pub(super) fn sooner(deadline: Deadline, most: Duration) -> Deadline {
    Deadline::at(Instant::now(), deadline.remaining().min(most))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc;

    use transport::rustls::ServerConnection;

    use super::super::certificates::{ALICE, Authority, NODE};
    use super::*;

    /// A send fails because the node is gone, and what it said before that is looked at: its farewell, and bytes behind it,
    /// which the library takes none of.
    #[test]
    fn last_words_end_with_the_farewell() {
        let authority = Authority::new();
        let (alice, node) = (authority.issue(ALICE), authority.issue(NODE));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let far = std::thread::spawn(move || {
            let mut socket = listener.accept().unwrap().0;
            let mut connection = ServerConnection::new(node.server()).unwrap();
            while connection.is_handshaking() {
                connection.complete_io(&mut socket).unwrap();
            }
            connection.send_close_notify();
            while connection.wants_write() {
                connection.write_tls(&mut socket).unwrap();
            }
            socket.write_all(&[23, 3, 3, 0, 3, 1, 2, 3]).unwrap();
            socket
        });
        let deadline = Deadline::after(Duration::from_secs(30));
        let (mut tls, _) = Tls::connect(&address, &alice, deadline).unwrap();
        let socket = far.join().unwrap();
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            while !tls.ended {
                tls.last_words().unwrap();
            }
            done.send((tls.start, tls.end)).unwrap();
        });
        let left = is_done.recv_timeout(Duration::from_secs(30)).expect("it does not look for ever");
        assert_eq!(left, (0, 0), "what is behind the farewell is thrown away");
        drop(socket);
    }
}
