//! The authority: begin, issue, revoke, renew itself.
//!
//! Its keys are P-256: what every TLS has. It is given no power over leases by them: a certificate says who connects,
//! and what somebody may do is in tokens, which other keys sign.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::time::{Micros, UnixMicros};
use caps::wire::Name;
use data_encoding::{BASE64, HEXLOWER};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use rustix::fs::FlockOperation;
use time::OffsetDateTime;
use transport::{Domain, PeerId, Role};
use zeroize::Zeroizing;

use super::issued::{Book, Issued};
use crate::files;

/// How long an authority is good. It is renewed by `pki rotate --ca`.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3_650 * 86_400);
/// How long a list of revoked certificates counts. Whatever changes the authority makes a new one, and so does
/// `pki list --renew`; a list that nobody has renewed for so long lets nobody in.
const LIST_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Names whose files would be the authority's own, in this version or another.
const RESERVED: [&str; 7] = ["ca", "ca-before", "roots", "lists", "domain", "issued", "lock"];
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
        let _alone = self.alone()?;
        let key = pair()?;
        // First, since it says whether there is one already.
        files::create(&self.path("ca.key"), &key.serialize_pem())?;
        files::create(&self.path("domain"), &format!("{domain}\n"))?;
        let root = root(domain, now)?.self_signed(&key).map_err(failed)?;
        files::create(&self.roots(), &root.pem())?;
        Book::default().write(&self.path("issued.json"))?;
        self.list(&self.signers()?, &Book::default(), now)
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

    /// Issues the first certificate of a name, with a key of its own.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` for a name whose files would be the authority's own; `E_EXISTS` if the name has a certificate that
    /// is good; `E_RANGE` for a span that is none; `E_QUOTA` if too many are in use; those of files.
    pub(crate) fn issue(&self, id: &PeerId, life: Duration, now: UnixMicros) -> Result<Issue> {
        let _alone = self.alone()?;
        let book = Book::read(&self.path("issued.json"))?;
        if let Some((_, taken)) = book.good(&id.name, now) {
            return Err(Error::with(Code::Exists, format!("{} has a certificate", taken.id)));
        }
        self.sign(book, id, life, now)
    }

    /// Issues the certificate of a name again, under a new key.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if the name has none that is good; those of [`Self::issue`].
    pub(crate) fn reissue(&self, name: &Name, life: Duration, now: UnixMicros) -> Result<Issue> {
        let _alone = self.alone()?;
        let book = Book::read(&self.path("issued.json"))?;
        let id = PeerId::parse(&book.good(name, now).ok_or_else(|| none(name))?.1.id)?;
        self.sign(book, &id, life, now)
    }

    fn sign(&self, mut book: Book, id: &PeerId, life: Duration, now: UnixMicros) -> Result<Issue> {
        if RESERVED.contains(&id.name.as_str()) {
            let message =
                format!("`{}` is the name of a file of the authority's own: choose another", id.name);
            return Err(Error::with(Code::ConfigValue, message));
        }
        let serial = serial();
        let until = after(now, life);
        let signers = self.signers()?;
        let issuer = &signers[0];
        let by = Some(fingerprint(issuer.key()));
        book.add(serial, Issued { id: id.to_string(), until, revoked: None, by }, now)?;
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
        let key = pair()?;
        let certificate = params.signed_by(&key, issuer).map_err(failed)?;
        // On record before it exists: what is not known cannot be revoked.
        book.write(&self.path("issued.json"))?;
        let (chain, key_file) =
            (self.path(&format!("{}.pem", id.name)), self.path(&format!("{}.key", id.name)));
        files::replace(&key_file, &key.serialize_pem())?;
        files::replace(&chain, &certificate.pem())?;
        self.list(&signers, &book, now)?;
        Ok(Issue { id: id.clone(), serial, until, chain, key: key_file })
    }

    /// Revokes every certificate of a name's identity, and makes a new list. Returns the identity, and how many they were.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` if there is none that is good; those of files.
    pub(crate) fn revoke(&self, name: &Name, now: UnixMicros) -> Result<(PeerId, usize)> {
        let _alone = self.alone()?;
        let mut book = Book::read(&self.path("issued.json"))?;
        let id = PeerId::parse(&book.good(name, now).ok_or_else(|| none(name))?.1.id)?;
        let revoked = book.revoke(&id, now);
        book.write(&self.path("issued.json"))?;
        self.list(&self.signers()?, &book, now)?;
        Ok((id, revoked))
    }

    /// Makes the list of the revoked anew, as it is, for another span. Returns until when it counts.
    ///
    /// # Errors
    /// Those of files.
    pub(crate) fn renew_list(&self, now: UnixMicros) -> Result<UnixMicros> {
        let _alone = self.alone()?;
        self.list(&self.signers()?, &Book::read(&self.path("issued.json"))?, now)?;
        Ok(after(now, LIST_LIFE))
    }

    /// What is in use.
    ///
    /// # Errors
    /// Those of files.
    pub(crate) fn issued(&self, now: UnixMicros) -> Result<Vec<(u64, Issued)>> {
        let book = Book::read(&self.path("issued.json"))?;
        Ok(book.in_use(now).map(|(serial, issued)| (serial, issued.clone())).collect())
    }

    /// Keeps everybody else from changing the authority until what is returned is dropped: each change reads what was
    /// issued, and writes it back with more.
    fn alone(&self) -> Result<File> {
        files::check_directory(&self.directory)?;
        let path = self.path("lock");
        let file = files::lock_file(&path)?;
        // The kernel lets go of it when the process ends, however it ends.
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(|error| files::failed(&path, &error.into()))?;
        Ok(file)
    }

    /// The authority as it is, and the one before it if there was one. Each is a key with its certificate, whatever the
    /// order in the bundle: a renewal that was cut off may have left a certificate whose key was never written.
    fn signers(&self) -> Result<Vec<Signer>> {
        let roots = files::read_text(&self.roots(), FILE_BYTES_MAX)?;
        let first = self.key("ca.key")?;
        let newest = fingerprint(&first);
        let mut signers = vec![signer(first, &roots)?.ok_or_else(|| failed("no certificate of ca.key"))?];
        if self.path("ca-before.key").symlink_metadata().is_ok() {
            let before = self.key("ca-before.key")?;
            if fingerprint(&before) != newest {
                signers.extend(signer(before, &roots)?);
            }
        }
        Ok(signers)
    }

    fn key(&self, file: &str) -> Result<KeyPair> {
        KeyPair::from_pem(&files::read_secret(&self.path(file), FILE_BYTES_MAX)?).map_err(failed)
    }

    /// Writes the lists of the revoked anew: one of each authority that is believed, since each speaks only of its own.
    fn list(&self, signers: &[Signer], book: &Book, now: UnixMicros) -> Result<()> {
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
        for issuer in signers {
            lists += &params.signed_by(issuer).and_then(|list| list.pem()).map_err(failed)?;
        }
        files::replace(&self.lists(), &lists)
    }
}

impl Authority {
    /// Renews the authority itself: a new key signs from now on, and both are believed until the old one's last
    /// certificate is over. What was issued stays good; what is issued now is believed by those who have the new roots.
    ///
    /// # Errors
    /// `E_CONFIG_VALUE` while a certificate is good that the one before the present authority issued: a bundle has two, and
    /// who has that certificate would be locked out. Those of files.
    pub(crate) fn renew(&self, now: UnixMicros) -> Result<()> {
        let _alone = self.alone()?;
        let book = Book::read(&self.path("issued.json"))?;
        let domain = self.domain()?;
        let mut signers = self.signers()?;
        let present = signers.remove(0);
        if let Some(last) = book.not_by(&fingerprint(present.key()), now).filter(|_| !signers.is_empty()) {
            let until = crate::output::human::time(last.until);
            let message = format!(
                "the authority was renewed before, and a certificate of the one before that, {}, is good until {until}: \
                 wait, or revoke it and issue another",
                last.id
            );
            return Err(Error::with(Code::ConfigValue, message));
        }
        let roots = files::read_text(&self.roots(), FILE_BYTES_MAX)?;
        let before = of_key(present.key(), &roots).ok_or_else(|| failed("no certificate of ca.key"))?;
        let key_before = files::read_secret(&self.path("ca.key"), FILE_BYTES_MAX)?;
        let key = pair()?;
        let secret = Zeroizing::new(key.serialize_pem());
        let root = root(&domain, now)?.self_signed(&key).map_err(failed)?;
        let bundle = format!("{}{before}\n", root.pem());
        let new = signer(key, &bundle)?.ok_or_else(|| failed("the certificate that was just made"))?;
        // Until the last of these steps the present key signs, and its certificate is in the bundle after each. The roots go
        // first: were the list of the one before gone while it is believed, what it revoked would count again.
        files::replace(&self.roots(), &bundle)?;
        self.list(&[new, present], &book, now)?;
        files::replace(&self.path("ca-before.key"), &key_before)?;
        files::replace(&self.path("ca.key"), &secret)
    }
}

/// Who signs: a key and its certificate.
type Signer = Issuer<'static, KeyPair>;

/// A key with its certificate among these; `None` if it is not there.
fn signer(key: KeyPair, roots: &str) -> Result<Option<Signer>> {
    let Some(certificate) = of_key(&key, roots) else { return Ok(None) };
    Issuer::from_ca_cert_pem(certificate, key).map(Some).map_err(failed)
}

/// The certificate of a key, as text. It is one whose bytes have the public key: the authority's own certificates are signed by
/// their own keys, and no other key is in them.
fn of_key<'a>(key: &KeyPair, roots: &'a str) -> Option<&'a str> {
    roots.split_inclusive(END).find(|certificate| {
        let lines = certificate.lines().filter(|line| !line.starts_with("-----"));
        let base64: String = lines.map(str::trim).collect();
        let der = BASE64.decode(base64.as_bytes()).unwrap_or_default();
        der.windows(key.der_bytes().len()).any(|bytes| bytes == key.der_bytes())
    })
}

/// What the book calls an authority: the beginning of its public key.
fn fingerprint(key: &KeyPair) -> String {
    // The first byte says how the point is written.
    HEXLOWER.encode(&key.der_bytes()[1..17])
}

fn none(name: &Name) -> Error {
    Error::with(Code::ConfigValue, format!("`{name}` has no certificate that is good"))
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
        assert_eq!(authority.revoke(&alice.id.name, now()).unwrap(), (alice.id.clone(), 1));
        assert_eq!(load(&authority, &alice).unwrap_err().code(), Code::ConfigTls);
        load(&authority, &node).unwrap();
        assert_eq!(authority.revoke(&alice.id.name, now()).unwrap_err().code(), Code::ConfigValue);

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
        assert_eq!(authority.revoke(&old.id.name, now()).unwrap().1, 1);
        assert_eq!(load(&authority, &old).unwrap_err().code(), Code::ConfigTls, "also after the renewal");
        let later = authority.issue(&id(Role::Provider, "later"), MONTH, now()).unwrap();
        authority.renew(now()).unwrap();
        load(&authority, &later).unwrap();
        // A bundle has two: nobody is locked out by a third.
        let refused = authority.renew(now()).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigValue);
        assert!(refused.detail().contains("is good until"), "{refused:?}");
        load(&authority, &later).unwrap();
        for issue in [&new, &later] {
            let again = authority.reissue(&issue.id.name, MONTH, now()).unwrap();
            authority.revoke(&issue.id.name, now()).unwrap();
            assert_eq!(load(&authority, &again).unwrap_err().code(), Code::ConfigTls);
        }
        authority.renew(now()).unwrap();
    }

    #[test]
    fn a_renewal_that_is_cut_off_anywhere_leaves_an_authority_that_serves() {
        const FILES: [&str; 4] = ["roots.pem", "lists.pem", "ca-before.key", "ca.key"];
        for written in 0..FILES.len() {
            let (_directory, authority) = begun();
            let gone = authority.issue(&id(Role::Principal, "gone"), MONTH, now()).unwrap();
            authority.revoke(&gone.id.name, now()).unwrap();
            let old = authority.issue(&id(Role::Provider, "old"), MONTH, now()).unwrap();
            let before = FILES.map(|file| std::fs::read(authority.path(file)).ok());
            authority.renew(now()).unwrap();
            let written_at =
                FILES.map(|file| std::fs::metadata(authority.path(file)).unwrap().modified().unwrap());
            assert!(written_at.is_sorted(), "the steps are those: {written_at:?}");
            // As it is on disk after so many steps.
            for (file, before) in FILES.iter().zip(before).skip(written) {
                match before {
                    Some(bytes) => std::fs::write(authority.path(file), bytes).unwrap(),
                    None => std::fs::remove_file(authority.path(file)).unwrap(),
                }
            }
            load(&authority, &old).unwrap();
            let new = authority.issue(&id(Role::Provider, "new"), MONTH, now()).unwrap();
            load(&authority, &new).unwrap();
            load(&authority, &old).unwrap();
            assert_eq!(load(&authority, &gone).unwrap_err().code(), Code::ConfigTls, "after {written} steps");
            authority.renew(now()).unwrap();
            load(&authority, &old).unwrap();
            load(&authority, &new).unwrap();
            assert_eq!(load(&authority, &gone).unwrap_err().code(), Code::ConfigTls, "after {written} steps");
        }
    }

    #[test]
    fn no_name_takes_the_authoritys_own_files() {
        let (_directory, authority) = begun();
        let files = ["ca.key", "roots.pem", "lists.pem", "domain", "issued.json"];
        let before = files.map(|file| std::fs::read(authority.path(file)).unwrap());
        for name in RESERVED {
            let refused = authority.issue(&id(Role::Principal, name), MONTH, now()).err().unwrap();
            assert_eq!(refused.code(), Code::ConfigValue, "{name}");
        }
        assert_eq!(files.map(|file| std::fs::read(authority.path(file)).unwrap()), before);
        authority.issue(&id(Role::Principal, "alice"), MONTH, now()).unwrap();
    }

    #[test]
    fn many_at_once_are_all_on_record_and_one_name_is_issued_once() {
        const EACH: usize = 8;
        let (_directory, authority) = begun();
        let gate = std::sync::Barrier::new(2);
        let shared = std::thread::scope(|scope| {
            let work = |who: &'static str| {
                let (authority, gate) = (&authority, &gate);
                move || {
                    gate.wait();
                    let issue = |name: String| authority.issue(&id(Role::Principal, &name), MONTH, now());
                    (0..EACH)
                        .filter(|turn| {
                            issue(format!("{who}-{turn}")).unwrap();
                            issue(format!("both-{turn}")).is_ok()
                        })
                        .count()
                }
            };
            let workers = ["a", "b"].map(|who| scope.spawn(work(who)));
            workers.into_iter().map(|worker| worker.join().unwrap()).sum::<usize>()
        });
        assert_eq!(shared, EACH, "each name that both asked for once");
        assert_eq!(authority.issued(now()).unwrap().len(), 3 * EACH);
    }

    #[test]
    fn a_list_is_made_anew_for_its_span() {
        let (_directory, authority) = begun();
        let long_ago = UnixMicros(now().0 - 2 * LIST_LIFE.as_micros() as u64);
        let alice = authority.issue(&id(Role::Principal, "alice"), MONTH * 12, long_ago).unwrap();
        assert_eq!(load(&authority, &alice).unwrap_err().code(), Code::ConfigTls, "its list is over");
        assert!(authority.renew_list(now()).unwrap() > now());
        load(&authority, &alice).unwrap();
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
