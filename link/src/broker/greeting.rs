//! Who comes, and what it is told, until it says that it is ready.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::limits::{LINK_FRAME_BYTES_MAX, LINK_HELLO_BYTES_MAX};
use caps::wire::cluster::{Hello, PROTOCOL, ToBroker, ToProvider, Welcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use transport::rustls::pki_types::CertificateDer;
use transport::{PeerId, Reload, Role};

use super::FactsSource;
use crate::Timings;
use crate::line::{failed, linger, read, write};

/// A connection after its handshake, and who is at the other end.
pub(super) struct Met {
    pub(super) stream: TlsStream<TcpStream>,
    /// `E_PEER_IDENTITY` if it is no provider: it is told so, over the connection.
    pub(super) peer: Result<PeerId>,
    /// What it showed, to be judged again.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// The handshake. Who is refused in it has heard so, if it listens, before this returns.
///
/// # Errors
/// `E_PEER_IDENTITY` if one end does not believe the other; `E_UNREACHABLE` if it goes away.
pub(super) async fn meet(stream: TcpStream, credentials: &Reload, timings: &Timings) -> Result<Met> {
    let credentials = credentials.now();
    let acceptor = TlsAcceptor::from(credentials.link_server());
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, mut stream)) => {
            // The alert is on its way, and so may be what the other end says behind its certificate.
            let _ = stream.shutdown().await;
            linger(&mut stream, timings.bye).await;
            return Err(failed(&error));
        }
    };
    let tls = stream.get_ref().1;
    let peer = credentials.link_peer(tls, Role::Provider);
    let chain = tls.peer_certificates().unwrap_or_default().to_vec();
    Ok(Met { stream, peer, chain })
}

/// Hears who comes.
///
/// # Errors
/// `E_PEER_IDENTITY` if it names another provider than its certificate; `E_FRAME_VERSION`; `E_EPOCH` if it has memory of
/// another life of the cluster; what [`read`] says.
pub(super) async fn hear(
    from: &mut (impl AsyncRead + Unpin),
    peer: &PeerId,
    source: &FactsSource,
    timings: &Timings,
) -> Result<Hello> {
    let ToBroker::Hello(hello) = read(from, LINK_HELLO_BYTES_MAX, None, timings.frame).await? else {
        return Err(Error::new(Code::Protocol, "a link begins with Hello"));
    };
    if hello.protocol != PROTOCOL {
        return Err(Error::new(Code::FrameVersion, "the broker speaks another version of the link"));
    }
    if hello.registration.name != peer.name {
        let detail = "the certificate is of another name than the provider that it is to register";
        return Err(Error::new(Code::PeerIdentity, detail));
    }
    if hello.cluster.is_some_and(|cluster| cluster != source.cluster().0) {
        let detail = "the broker began another life, and knows none of the memory of this provider";
        return Err(Error::new(Code::Epoch, detail));
    }
    Ok(*hello)
}

/// Tells it everything, and waits until it is ready. Answers up to which change it knows.
///
/// # Errors
/// What [`read`] and [`write`] say; `E_PROTOCOL` for anything else than `Ready`.
pub(super) async fn tell(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    source: &Arc<FactsSource>,
    timings: &Timings,
) -> Result<u64> {
    let (cluster, admin) = source.cluster();
    write(to, &ToProvider::Welcome(Welcome { protocol: PROTOCOL, cluster, admin }), timings.send).await?;
    let (known, facts) = source.whole();
    for fact in facts {
        write(to, &ToProvider::Fact(fact), timings.send).await?;
    }
    write(to, &ToProvider::Told, timings.send).await?;
    match read(from, LINK_FRAME_BYTES_MAX, Some(timings.ready), timings.frame).await? {
        ToBroker::Ready => Ok(known),
        ToBroker::Bye(refusal) => Err(refusal.into()),
        _ => Err(Error::new(Code::Protocol, "a provider that was told everything is ready, or goes")),
    }
}
