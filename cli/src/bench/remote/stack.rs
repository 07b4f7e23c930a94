//! The client that all sides are spoken to with, but Leasehold, which has its own: TLS over a blocking socket.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use transport::Credentials;
use transport::rustls::pki_types::ServerName;
use transport::rustls::{ClientConnection, StreamOwned};

use super::papers::failed;

/// Nothing that is measured takes this long; what does is an error.
pub const WAIT: Duration = Duration::from_secs(30);

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects and shakes hands.
pub fn connect(address: SocketAddr, credentials: &Arc<Credentials>) -> Result<Stream> {
    let mut socket = dial(address)?;
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
