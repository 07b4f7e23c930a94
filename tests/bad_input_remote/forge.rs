//! Certificates that are not what they should be, and clients that show them: by the node's own authority, which a test
//! may use, or by another.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use transport::rustls::client::ResolvesClientCert;
use transport::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use transport::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use transport::rustls::sign::CertifiedKey;
use transport::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::common::tls::{DOMAIN, Tls};

/// Somebody who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// How a certificate differs from a good one.
#[derive(Clone)]
pub struct Flaws {
    pub names: Vec<SanType>,
    pub usage: Vec<ExtendedKeyUsagePurpose>,
    pub is_ca: bool,
    pub is_over: bool,
    pub is_early: bool,
    pub serial: u64,
}

impl Default for Flaws {
    /// None: a principal's, called mallory.
    fn default() -> Self {
        Self {
            names: vec![uri(&format!("spiffe://{DOMAIN}/principal/mallory"))],
            usage: vec![ExtendedKeyUsagePurpose::ClientAuth],
            is_ca: false,
            is_over: false,
            is_early: false,
            serial: 77,
        }
    }
}

/// A certificate with its key.
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub pem: String,
    pub key: KeyPair,
}

/// A name that is a URI.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

impl Authority {
    /// The one of a node in this directory.
    pub fn of(directory: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(directory.join("pki").join(file)).unwrap();
        let (root, key) = (read("roots.pem"), KeyPair::from_pem(&read("ca.key")).unwrap());
        Self { issuer: Issuer::from_ca_cert_pem(&root, key).unwrap() }
    }

    /// Another, of the same name.
    pub fn other() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        let key = KeyPair::generate().unwrap();
        Self { issuer: Issuer::new(params, key) }
    }

    /// A certificate with these flaws.
    pub fn issue(&self, flaws: Flaws) -> Shown {
        let (params, key) = (params(flaws), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Shown { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// A list of what it has revoked.
    pub fn list(&self, revoked: &[u64], is_in_time: bool) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(if is_in_time { 2200 } else { 2021 }, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|&serial| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that nobody but itself vouches for.
pub fn self_signed() -> Shown {
    let (params, key) = (params(Flaws::default()), KeyPair::generate().unwrap());
    let certificate = params.self_signed(&key).unwrap();
    Shown { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
}

fn params(flaws: Flaws) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = flaws.names;
    params.serial_number = Some(SerialNumber::from(flaws.serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "mallory");
    params.extended_key_usages = flaws.usage;
    params.use_authority_key_identifier_extension = true;
    if flaws.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    if flaws.is_over {
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    }
    if flaws.is_early {
        params.not_before = date_time_ymd(2200, 1, 1);
    }
    params
}

/// A client that believes anybody and shows this, or nothing.
pub fn careless(shown: Option<&Shown>) -> ClientConfig {
    let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match shown {
        None => config.with_no_client_auth(),
        Some(Shown { chain, key, .. }) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            // Not looked at by its own side: what is wrong with it is for the other to find.
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            config.with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain.clone(), key)))))
        }
    };
    config.alpn_protocols = vec![transport::ALPN.to_vec()];
    config
}

/// A connection of such a client.
pub fn connect(address: std::net::SocketAddr, config: ClientConfig) -> Tls {
    Tls::over(TcpStream::connect(address).unwrap(), Arc::new(config))
}

/// Shows one certificate, whoever asks for whatever.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
