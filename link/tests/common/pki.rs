//! A CA, and certificates of any role.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use transport::{Domain, Files, Reload};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, directory: TempDir::new().unwrap() }
    }

    /// Credentials of a role and a name, as in `provider/east`.
    pub fn issue(&self, who: &str) -> Arc<Reload> {
        self.issue_to_believe(who, self)
    }

    /// The same for one that believes another CA, too.
    pub fn issue_to_believe(&self, who: &str, believed: &Self) -> Arc<Reload> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://mem.example/{who}");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params.distinguished_name = DistinguishedName::new();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.directory.path().join(format!("{}.{ending}", who.replace('/', "-")));
        let files = Files {
            chain: path("pem"),
            key: path("key"),
            roots: self.directory.path().join("roots.pem"),
            lists: None,
        };
        put(&files.chain, &certificate.pem());
        put(&files.key, &key.serialize_pem());
        put(&files.roots, &(self.issuer.pem() + &believed.issuer.pem()));
        Arc::new(Reload::load(Domain::new("mem.example").unwrap(), files).unwrap())
    }
}

fn put(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
