//! What the baselines are spoken to with, and the bare one speaks with: TLS over a blocking socket, which waits, reads and
//! sends as Leasehold's client and node do, so that what is compared is not how somebody waits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use transport::rustls::pki_types::ServerName;
use transport::rustls::{ClientConnection, StreamOwned};
use transport::{Credentials, Eager};

use super::papers::failed;

/// Nothing that is measured takes this long; what does is an error.
pub const WAIT: Duration = Duration::from_secs(30);

/// Bytes of one read from a socket, as many as Leasehold takes at once.
const INCOMING_BYTES: usize = 128 << 10;
/// Bytes that are encrypted and sent before the rest is, as many as Leasehold's: two records.
const PIECE_BYTES: usize = 32 << 10;

pub type Stream = StreamOwned<ClientConnection, TcpStream>;
/// One that waits as Leasehold does.
pub type AwakeStream = StreamOwned<ClientConnection, Awake>;

/// Connects and shakes hands.
pub fn connect(address: SocketAddr, credentials: &Arc<Credentials>) -> Result<Stream> {
    shake(address, credentials, dial(address)?)
}

/// The same for somebody who waits awake for a moment before sleeping.
pub fn connect_awake(address: SocketAddr, credentials: &Arc<Credentials>) -> Result<AwakeStream> {
    shake(address, credentials, Awake::over(dial(address)?))
}

fn shake<S: Read + Write>(
    address: SocketAddr,
    credentials: &Arc<Credentials>,
    mut socket: S,
) -> Result<StreamOwned<ClientConnection, S>> {
    // The name in the certificate is an identity, and is judged as one; this one is not looked at.
    let name = ServerName::IpAddress(address.ip().into());
    let refused = |error| Error::with(Code::PeerIdentity, format!("no TLS connection: {error}"));
    let mut connection = ClientConnection::new(credentials.client(), name).map_err(refused)?;
    // A message goes to the kernel in one call, whatever its size.
    connection.set_buffer_limit(None);
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(failed("the TLS handshake failed"))?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// A socket that waits for nothing before it sends, and not for ever for what comes.
pub fn dial(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, WAIT).map_err(failed("cannot connect"))?;
    socket
        .set_nodelay(true)
        .and_then(|()| socket.set_read_timeout(Some(WAIT)))
        .and_then(|()| socket.set_write_timeout(Some(WAIT)))
        .map_err(failed("cannot set up a socket"))?;
    Ok(socket)
}

/// Sends bytes; of many the first before the rest is encrypted, by the same rule as Leasehold.
pub fn send(stream: &mut impl Write, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        // A small rest goes with those before it.
        let piece = if bytes.len() < PIECE_BYTES + PIECE_BYTES / 2 { bytes.len() } else { PIECE_BYTES };
        let (now, rest) = bytes.split_at(piece);
        stream.write_all(now)?;
        bytes = rest;
    }
    Ok(())
}

/// A socket whose reader looks for a moment before it sleeps, and takes much at once.
pub struct Awake {
    socket: TcpStream,
    eager: Eager,
    /// What came and was not asked for yet: `start..end`.
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Awake {
    pub fn over(socket: TcpStream) -> Self {
        let incoming = vec![0; INCOMING_BYTES].into_boxed_slice();
        Self { socket, eager: Eager::default(), incoming, start: 0, end: 0 }
    }
}

impl Read for Awake {
    fn read(&mut self, place: &mut [u8]) -> std::io::Result<usize> {
        if self.start == self.end {
            let came =
                self.eager.wait(|| match recv(&self.socket, &mut self.incoming[..], RecvFlags::DONTWAIT) {
                    Err(Errno::AGAIN | Errno::INTR) => None,
                    Err(errno) => Some(Err(errno.into())),
                    Ok((count, _)) => Some(Ok(count)),
                });
            (self.start, self.end) = (0, 0);
            self.end = came.unwrap_or_else(|| self.socket.read(&mut self.incoming))?;
        }
        let taken = (&self.incoming[self.start..self.end]).read(place)?;
        self.start += taken;
        Ok(taken)
    }
}

impl Write for Awake {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        self.socket.write_vectored(slices)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(()) // a socket holds nothing back
    }
}
