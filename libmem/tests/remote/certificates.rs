//! A CA, and who has which certificate.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use libmem::remote::{Credentials, Domain, Files};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

pub const ALICE: &str = "spiffe://mem.example/principal/alice";
pub const NODE: &str = "spiffe://mem.example/provider/node-1";

/// A CA with a directory for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "a CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, directory: TempDir::new().unwrap() }
    }

    /// Credentials of whoever `uri` names.
    pub fn issue(&self, uri: &str) -> Arc<Credentials> {
        self.issue_for(uri, &[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// The same for some uses only.
    pub fn issue_for(&self, uri: &str, uses: &[ExtendedKeyUsagePurpose]) -> Arc<Credentials> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages = uses.to_vec();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            chain: self.put("chain.pem", &certificate.pem()),
            key: self.put("key.pem", &key.serialize_pem()),
            roots: self.put("roots.pem", &self.issuer.pem()),
            lists: None,
        };
        Arc::new(Credentials::load(&Domain::new("mem.example").unwrap(), &files).unwrap())
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        path
    }
}
