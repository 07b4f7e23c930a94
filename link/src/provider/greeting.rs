//! A connection, from the dial until the provider was told everything.

use caps::error::{Code, Error, Result};
use caps::limits::LINK_FRAME_BYTES_MAX;
use caps::wire::cluster::{Hello, PROTOCOL, ToBroker, ToProvider, Welcome};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use transport::Role;
use transport::rustls::pki_types::{CertificateDer, ServerName};

use super::Config;
use crate::Facts;
use crate::facts::Gathering;
use crate::line::{failed, read, write};

const LATE: Error = Error::new(Code::Timeout, "the broker did not answer in time");

/// A connection over which a provider was told everything, and has not joined.
pub(super) struct Contact {
    pub(super) from: ReadHalf<TlsStream<TcpStream>>,
    pub(super) to: WriteHalf<TlsStream<TcpStream>>,
    /// What the broker showed, to be judged again.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) facts: Facts,
}

/// Makes a connection.
///
/// # Errors
/// `E_UNREACHABLE`, `E_TIMEOUT`; `E_PEER_IDENTITY` if one end does not believe the other; what the broker says.
pub(super) async fn greet(config: &Config, hello: Hello) -> Result<Contact> {
    let timings = &config.timings;
    let unreachable = |_| Error::new(Code::Unreachable, "the broker cannot be reached");
    let connecting = TcpStream::connect(config.address.as_str());
    let stream = timeout(timings.connect, connecting).await.map_err(|_| LATE)?.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    timeout(timings.greeting, converse(config, stream, hello)).await.map_err(|_| LATE)?
}

async fn converse(config: &Config, stream: TcpStream, hello: Hello) -> Result<Contact> {
    let timings = &config.timings;
    let credentials = config.credentials.now();
    // No host name counts: whom it wants is said by the certificate, and asked for below.
    let anybody = ServerName::try_from("broker").expect("a literal that is a name");
    let connector = TlsConnector::from(credentials.link_client());
    let stream = connector.connect(anybody, stream).await.map_err(|error| failed(&error))?;
    let tls = stream.get_ref().1;
    let broker = credentials.link_peer(tls, Role::Broker)?;
    if config.broker_name.as_ref().is_some_and(|name| *name != broker.name) {
        return Err(Error::new(Code::PeerIdentity, "the certificate at the other end is another broker's"));
    }
    let chain = tls.peer_certificates().unwrap_or_default().to_vec();
    let (mut from, mut to) = tokio::io::split(stream);
    write(&mut to, &ToBroker::Hello(Box::new(hello)), timings.send).await?;
    let welcome = match read(&mut from, LINK_FRAME_BYTES_MAX, None, timings.frame).await? {
        ToProvider::Welcome(welcome) => welcome,
        ToProvider::Bye(refusal) => return Err(refusal.into()),
        _ => return Err(disorder()),
    };
    let Welcome { protocol, .. } = welcome;
    if protocol != PROTOCOL {
        return Err(Error::new(Code::FrameVersion, "the broker speaks another version of the link"));
    }
    let mut gathering = Gathering::default();
    loop {
        match read(&mut from, LINK_FRAME_BYTES_MAX, None, timings.frame).await? {
            ToProvider::Fact(fact) => gathering.add(&welcome, fact)?,
            ToProvider::Told => break,
            ToProvider::Bye(refusal) => return Err(refusal.into()),
            _ => return Err(disorder()),
        }
    }
    Ok(Contact { from, to, chain, facts: gathering.whole()? })
}

/// Something came that is not to come now.
pub(super) const fn disorder() -> Error {
    Error::new(Code::Protocol, "a message of the link came out of its order")
}
