//! The transport of `docs/protocol.md`, section 1, with the TLS library alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, StreamOwned, version,
};

const ALPN: &[u8] = b"leasehold/1";
const EXPORTER: &[u8] = b"EXPORTER-leasehold-session-v1";

/// A certificate and its key.
pub(crate) struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Own {
    /// As PEM files hold them.
    pub(crate) fn of_files(chain: &std::path::Path, key: &std::path::Path) -> Self {
        let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
        Self { chain, key: PrivateKeyDer::from_pem_file(key).unwrap() }
    }
}

/// Those who are believed, from a PEM file.
pub(crate) fn roots_of_file(path: &std::path::Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(path).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    roots
}

/// Judges the chain, and no host name.
#[derive(Debug)]
struct Chain {
    roots: RootCertStore,
    crypto: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = self.crypto.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, between, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Connects: the stream, what the exporter gives, and whom the node's certificate names.
pub(crate) fn connect(
    address: &str,
    own: Own,
    roots: RootCertStore,
) -> std::io::Result<(Stream, [u8; 32], String)> {
    let crypto = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Chain { roots, crypto }))
        .with_client_auth_cert(own.chain, own.key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from("node.invalid").unwrap(); // means nothing
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    assert_eq!(connection.alpn_protocol(), Some(ALPN));
    let exporter = connection.export_keying_material([0; 32], EXPORTER, None).unwrap();
    let leaf = connection.peer_certificates().unwrap()[0].clone();
    let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let names: Vec<_> = leaf.valid_uri_names().map(str::to_owned).collect();
    let [name] = &names[..] else { panic!("one identity, not {names:?}") };
    let name = name.clone();
    Ok((StreamOwned::new(connection, socket), exporter, name))
}

/// Issues certificates for a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    pub(crate) fn issue(&self, path: &str, node: bool) -> Own {
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://mem.example/{path}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if node {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &self.0).unwrap().der().clone()];
        Own { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }
}

/// The other end of the transport.
pub(crate) struct Listener {
    socket: TcpListener,
    config: Arc<ServerConfig>,
}

impl Listener {
    pub(crate) fn new(own: Own, roots: RootCertStore) -> Self {
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.into(), crypto.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(own.chain, own.key)
            .unwrap();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Self { socket: TcpListener::bind("127.0.0.1:0").unwrap(), config: Arc::new(config) }
    }

    pub(crate) fn address(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    /// One connection, and what its exporter gives.
    pub(crate) fn accept(self) -> (StreamOwned<ServerConnection, TcpStream>, [u8; 32]) {
        let (mut socket, _) = self.socket.accept().unwrap();
        let mut connection = ServerConnection::new(self.config).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        // An empty context: in TLS 1.3 it is the same as none.
        let exporter = connection.export_keying_material([0; 32], EXPORTER, Some(b"")).unwrap();
        (StreamOwned::new(connection, socket), exporter)
    }
}

/// The body of the next frame.
pub(crate) fn body(stream: &mut (impl Read + Write)) -> Vec<u8> {
    let mut header = [0; 32];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header[16..20].try_into().unwrap()) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}
