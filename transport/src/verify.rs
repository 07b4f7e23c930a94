//! Whether a certificate is to be believed: by both ends in the same way.
//!
//! The chain is the library's to judge: dates, signatures, extended key usage, that a CA is no leaf, and revocation
//! lists, which are asked about the whole chain where there are any. What is ours is the name: exactly one URI, an
//! identity of the own trust domain, and no host name counts. So a certificate that the same CA gave to a web server
//! opens nothing here.

use std::sync::Arc;

use caps::error::Result;
use caps::{Code, Error};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::identity::{Domain, PeerId};

/// Judges certificates.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) domain: Domain,
    pub(crate) roots: Arc<RootCertStore>,
    /// None: certificates are not asked whether they were revoked. With any, all are, and who is on no list that is in
    /// time is refused.
    pub(crate) lists: Vec<CertRevocationList<'static>>,
    pub(crate) crypto: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

/// Which end a certificate is for.
#[derive(Clone, Copy, Debug)]
enum End {
    Client,
    Server,
}

impl Judge {
    pub(crate) fn new(
        domain: Domain,
        roots: RootCertStore,
        lists: Vec<CertRevocationList<'static>>,
        crypto: Arc<CryptoProvider>,
    ) -> Self {
        let hints = roots.subjects();
        Self { domain, roots: Arc::new(roots), lists, crypto, hints }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
        end: End,
    ) -> Result<PeerId, rustls::Error> {
        let certificate = EndEntityCert::try_from(leaf).map_err(refused)?;
        let lists: Vec<_> = self.lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = match end {
            End::Client => KeyUsage::client_auth(),
            End::Server => KeyUsage::server_auth(),
        };
        let algorithms = self.crypto.signature_verification_algorithms.all;
        certificate
            .verify_for_usage(algorithms, &self.roots.roots, between, now, usage, revocation, None)
            .map_err(refused)?;
        self.name(&certificate).map_err(|error| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        })
    }

    /// The one identity of a certificate whose chain was judged.
    fn name(&self, certificate: &EndEntityCert<'_>) -> Result<PeerId> {
        let refused = |why| Err(Error::new(Code::PeerIdentity, why));
        let mut uris = certificate.valid_uri_names();
        let Some(uri) = uris.next() else {
            return refused("the certificate has no identity (a URI among its alternative names)");
        };
        if uris.next().is_some() {
            return refused("the certificate has more than one identity");
        }
        let id = PeerId::parse(uri)?;
        if id.domain != self.domain {
            return refused("the certificate is of another trust domain");
        }
        Ok(id)
    }

    /// Judges a chain anew that was believed before.
    pub(crate) fn again(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        server: bool,
    ) -> Result<()> {
        let end = if server { End::Server } else { End::Client };
        let judged = self.judge(leaf, between, UnixTime::now(), end);
        judged.map(drop).map_err(|error| Error::with(Code::PeerIdentity, error.to_string()))
    }

    /// Whom a chain of one's own names, which has to be good for one end at least.
    pub(crate) fn own(&self, chain: &[CertificateDer<'_>]) -> Result<PeerId> {
        let (leaf, between) =
            chain.split_first().ok_or(Error::new(Code::ConfigTls, "it holds no certificate"))?;
        let id = self.identity(leaf)?;
        let now = UnixTime::now();
        let as_client = self.judge(leaf, between, now, End::Client);
        as_client.or_else(|_| self.judge(leaf, between, now, End::Server)).map_err(|error| {
            Error::with(Code::ConfigTls, format!("it would not be believed by its own roots: {error}"))
        })?;
        Ok(id)
    }

    /// Who a certificate of a finished handshake names.
    pub(crate) fn identity(&self, leaf: &CertificateDer<'_>) -> Result<PeerId> {
        let unread = |_| Error::new(Code::PeerIdentity, "the certificate cannot be read");
        self.name(&EndEntityCert::try_from(leaf).map_err(unread)?)
    }
}

/// Why a chain is not believed, as the library says it to the other side.
fn refused(error: webpki::Error) -> rustls::Error {
    use webpki::Error as Why;
    rustls::Error::InvalidCertificate(match error {
        Why::BadDer | Why::BadDerTime | Why::TrailingData(_) => CertificateError::BadEncoding,
        Why::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        Why::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        Why::CertRevoked => CertificateError::Revoked,
        Why::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Why::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        Why::UnknownIssuer => CertificateError::UnknownIssuer,
        Why::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

/// TLS 1.3 is the only version that is offered, so this is never asked.
fn never() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        // Whom a client wants to reach is an identity, and it asks for it after the handshake.
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, between, now, End::Server).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, between, now, End::Client).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
