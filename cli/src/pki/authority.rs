//! The authority: begin, issue, revoke, renew itself.
//!
//! Its keys are P-256: what every TLS has. It is given no power over leases by them: a certificate says who connects,
//! and what somebody may do is in tokens, which other keys sign.

use std::path::PathBuf;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::time::{Micros, UnixMicros};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use time::OffsetDateTime;
use transport::{Domain, PeerId, Role};

use super::issued::{Book, Issued};
use crate::files;

/// How long an authority is good. It is renewed by `pki rotate --ca`.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);
/// How long a list of revoked certificates counts. `pki revoke` and `pki issue` make a new one; a list that nobody has
/// renewed for so long lets nobody in.
const LIST_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How far back a certificate begins: the clocks of two machines differ.
const SKEW: Duration = Duration::from_secs(300);
/// Longest file of ours that is read.
const FILE_BYTES_MAX: usize = 64 * 1024;

/// An authority on disk.
#[derive(Debug)]
pub(crate) struct Authority {
    directory: PathBuf,
}

/// What was made.
pub(crate) struct Issue {
    pub(crate) id: PeerId,
    pub(crate) serial: u64,
    pub(crate) until: UnixMicros,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The file of those who are believed.
    pub(crate) fn roots(&self) -> PathBuf {
        self.path("roots.pem")
    }

    /// The file of those who are believed no longer.
    pub(crate) fn lists(&self) -> PathBuf {
        self.path("lists.pem")
    }

    /// Begins an authority for a trust domain.
    ///
    /// # Errors
    /// `E_EXISTS` if there is one: nothing of it is touched.
    pub(crate) fn begin(&self, domain: &Domain, now: UnixMicros) -> Result<()> {
        files::make_directory(&self.directory)?;
        files::check_directory(&self.directory)?;
        let key = pair()?;
        // First, since it says whether there is one already.
        files::create(&self.path("ca.key"), &key.serialize_pem())?;
        files::create(&self.path("domain"), &format!("{domain}\n"))?;
        let root = root(domain, now)?.self_signed(&key).map_err(failed)?;
        files::create(&self.roots(), &root.pem())?;
        Book::default().write(&self.path("issued.json"))?;
        self.list(&Book::default(), now)
    }

    /// Whose certificates it issues.
    ///
    /// # Errors
    /// `E_CONFIG_IO` if there is no authority here.
    pub(crate) fn domain(&self) -> Result<Domain> {
        files::check_directory(&self.directory)?;
        let text = files::read_secret(&self.path("domain"), FILE_BYTES_MAX)?;
        Domain::new(text.trim_end_matches('\n'))
    }

    /// Issues a certificate with a key of its own, in place of an earlier one for the same name.
    ///
    /// # Errors
    /// `E_RANGE` for a span that is none; `E_QUOTA` if too many are in use; those of files.
    pub(crate) fn issue(&self, id: &PeerId, life: Duration, now: UnixMicros) -> Result<Issue> {
        let mut book = Book::read(&self.path("issued.json"))?;
        let serial = serial();
        let until = after(now, life);
        book.add(serial, Issued { id: id.to_string(), until, revoked: None }, now)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(id.name.as_str());
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
        params.serial_number = Some(SerialNumber::from(serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match id.role {
            Role::Principal => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Provider | Role::Broker => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (moment(before(now))?, moment(until)?);
        let (key, issuer) = (pair()?, self.issuer()?);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        // On record before it exists: what is not known cannot be revoked.
        book.write(&self.path("issued.json"))?;
        let (chain, key_file) =
            (self.path(&format!("{}.pem", id.name)), self.path(&format!("{}.key", id.name)));
        files::replace(&key_file, &key.serialize_pem())?;
        files::replace(&chain, &certificate.pem())?;
        self.list(&book, now)?;
        Ok(Issue { id: id.clone(), serial, until, chain, key: key_file })
    }

    /// Revokes every certificate of an identity, and makes a new list.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if there is none that is good; those of files.
    pub(crate) fn revoke(&self, id: &PeerId, now: UnixMicros) -> Result<usize> {
        let mut book = Book::read(&self.path("issued.json"))?;
        let revoked = book.revoke(id, now);
        if revoked == 0 {
            return Err(Error::with(Code::ConfigValue, format!("no certificate of {id} is in use")));
        }
        book.write(&self.path("issued.json"))?;
        self.list(&book, now)?;
        Ok(revoked)
    }

    /// What is in use.
    ///
    /// # Errors
    /// Those of files.
    pub(crate) fn issued(&self, now: UnixMicros) -> Result<Vec<(u64, Issued)>> {
        let book = Book::read(&self.path("issued.json"))?;
        Ok(book.in_use(now).map(|(serial, issued)| (serial, issued.clone())).collect())
    }

    /// The authority as it is.
    fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        // The newest root stands first.
        self.signer("ca.key", &files::read_text(&self.roots(), FILE_BYTES_MAX)?)
    }

    /// The authority as it was before it was renewed.
    fn issuer_before(&self) -> Result<Option<Issuer<'static, KeyPair>>> {
        let roots = files::read_text(&self.roots(), FILE_BYTES_MAX)?;
        let before = roots.find(END).map_or("", |at| &roots[at + END.len()..]);
        if before.trim().is_empty() {
            return Ok(None);
        }
        self.signer("ca-before.key", before).map(Some)
    }

    fn signer(&self, key: &str, certificate: &str) -> Result<Issuer<'static, KeyPair>> {
        let key = files::read_secret(&self.path(key), FILE_BYTES_MAX)?;
        let key = KeyPair::from_pem(&key).map_err(failed)?;
        Issuer::from_ca_cert_pem(certificate, key).map_err(failed)
    }

    /// Writes the lists of the revoked anew: one of each authority that is believed, since each speaks only of its own.
    fn list(&self, book: &Book, now: UnixMicros) -> Result<()> {
        let revoked = book.in_use(now).filter_map(|(serial, issued)| Some((serial, issued.revoked?)));
        let revoked_certs = revoked
            .map(|(serial, since)| {
                Ok(RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: moment(since)?,
                    reason_code: Some(RevocationReason::Unspecified),
                    invalidity_date: None,
                })
            })
            .collect::<Result<_>>()?;
        let params = CertificateRevocationListParams {
            this_update: moment(before(now))?,
            next_update: moment(after(now, LIST_LIFE))?,
            // Counted by the clock: higher each time, which is all that a number of a list must be.
            crl_number: SerialNumber::from(now.0),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let mut lists = String::new();
        for issuer in [Some(self.issuer()?), self.issuer_before()?].into_iter().flatten() {
            lists += &params.signed_by(&issuer).and_then(|list| list.pem()).map_err(failed)?;
        }
        files::replace(&self.lists(), &lists)
    }
}

impl Authority {
    /// Renews the authority itself: a new key signs from now on, and both are believed until the old one's last
    /// certificate is over. What was issued stays good; what is issued now is believed by those who have the new roots.
    ///
    /// # Errors
    /// Those of files.
    pub(crate) fn renew(&self, now: UnixMicros) -> Result<()> {
        let book = Book::read(&self.path("issued.json"))?;
        let domain = self.domain()?;
        let before = files::read_text(&self.roots(), FILE_BYTES_MAX)?;
        // The one before the one before is over by now, or is let go: a bundle has two.
        let before = before.find(END).map_or(&before[..], |at| &before[..at + END.len()]);
        let (key, key_before) = (pair()?, files::read_secret(&self.path("ca.key"), FILE_BYTES_MAX)?);
        let root = root(&domain, now)?.self_signed(&key).map_err(failed)?;
        files::replace(&self.path("ca-before.key"), &key_before)?;
        files::replace(&self.roots(), &format!("{}{before}\n", root.pem()))?;
        files::replace(&self.path("ca.key"), &key.serialize_pem())?;
        self.list(&book, now)
    }
}

/// How a certificate ends in a file.
const END: &str = "-----END CERTIFICATE-----";

/// The certificate of an authority, to be signed by its own key.
fn root(domain: &Domain, now: UnixMicros) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&format!("Leasehold {domain} {:016x}", serial()));
    params.serial_number = Some(SerialNumber::from(serial()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment(before(now))?;
    params.not_after = moment(after(now, AUTHORITY_LIFE))?;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn pair() -> Result<KeyPair> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)
}

/// 63 random bits: never negative as DER has it, and none twice.
fn serial() -> u64 {
    let bytes = caps::pop::Nonce::random().0;
    u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]) >> 1
}

fn after(now: UnixMicros, span: Duration) -> UnixMicros {
    now.plus(Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
}

fn before(now: UnixMicros) -> UnixMicros {
    UnixMicros(now.0.saturating_sub(SKEW.as_micros() as u64))
}

/// A moment as certificates write it: in whole seconds, before the year 10,000.
fn moment(at: UnixMicros) -> Result<OffsetDateTime> {
    let seconds = i64::try_from(at.0 / 1_000_000).ok();
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(Error::new(Code::Range, "a certificate ends before the year 10,000"))
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::with(Code::ConfigValue, format!("the authority's files do not serve: {error}"))
}

#[cfg(test)]
mod tests {
    use caps::wire::Name;
    use transport::{Credentials, Files};

    use super::*;

    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn now() -> UnixMicros {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        UnixMicros(now.as_micros() as u64)
    }

    fn id(role: Role, name: &str) -> PeerId {
        let domain = Domain::new("mem.example").unwrap();
        PeerId { domain, role, name: Name::new(name).unwrap(), key: None }
    }

    fn begun() -> (tempfile::TempDir, Authority) {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path().join("pki"));
        authority.begin(&Domain::new("mem.example").unwrap(), now()).unwrap();
        (directory, authority)
    }

    fn load(authority: &Authority, issue: &Issue) -> Result<Credentials> {
        let files = Files {
            chain: issue.chain.clone(),
            key: issue.key.clone(),
            roots: authority.roots(),
            lists: Some(authority.lists()),
        };
        Credentials::load(&authority.domain().unwrap(), &files)
    }

    #[test]
    fn what_it_issues_is_believed_until_it_is_revoked_or_over() {
        let (_directory, authority) = begun();
        let node = authority.issue(&id(Role::Provider, "node-1"), MONTH, now()).unwrap();
        let alice = authority.issue(&id(Role::Principal, "alice"), MONTH, now()).unwrap();
        for issue in [&node, &alice] {
            assert_eq!(load(&authority, issue).unwrap().id(), &issue.id);
        }
        assert_eq!(authority.revoke(&alice.id, now()).unwrap(), 1);
        assert_eq!(load(&authority, &alice).unwrap_err().code(), Code::ConfigTls);
        load(&authority, &node).unwrap();
        assert_eq!(authority.revoke(&alice.id, now()).unwrap_err().code(), Code::ConfigValue);

        let over = authority.issue(
            &id(Role::Principal, "bob"),
            Duration::from_secs(1),
            UnixMicros(now().0 - 9_000_000),
        );
        assert_eq!(load(&authority, &over.unwrap()).unwrap_err().code(), Code::ConfigTls);
    }

    #[test]
    fn a_renewed_authority_and_the_one_before_are_both_believed() {
        let (_directory, authority) = begun();
        let old = authority.issue(&id(Role::Provider, "old"), MONTH, now()).unwrap();
        authority.renew(now()).unwrap();
        let new = authority.issue(&id(Role::Provider, "new"), MONTH, now()).unwrap();
        for issue in [&old, &new] {
            load(&authority, issue).unwrap();
        }
        assert_eq!(authority.revoke(&old.id, now()).unwrap(), 1);
        assert_eq!(load(&authority, &old).unwrap_err().code(), Code::ConfigTls, "also after the renewal");
        let later = authority.issue(&id(Role::Provider, "later"), MONTH, now()).unwrap();
        authority.renew(now()).unwrap();
        load(&authority, &later).unwrap();
        authority.renew(now()).unwrap();
        assert_eq!(load(&authority, &later).unwrap_err().code(), Code::ConfigTls, "a bundle has two");
    }

    #[test]
    fn nothing_is_begun_twice_and_no_key_is_for_others_to_read() {
        use std::os::unix::fs::MetadataExt;
        let (_directory, authority) = begun();
        let roots = std::fs::read(authority.roots()).unwrap();
        let again = authority.begin(&Domain::new("other.example").unwrap(), now()).unwrap_err();
        assert_eq!(again.code(), Code::Exists);
        assert_eq!(std::fs::read(authority.roots()).unwrap(), roots);
        authority.issue(&id(Role::Broker, "b"), MONTH, now()).unwrap();
        for entry in std::fs::read_dir(authority.roots().parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }
}
