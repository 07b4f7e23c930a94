//! Certificates, keys, roots and revocation lists as PEM: any CA's files.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use caps::error::Result;
use caps::{Code, Error};
use rustix::fs::OFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Largest file in bytes that is read. A chain, or a bundle of roots, has a few KiB; a revocation list of 10,000
/// certificates about 400 KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most certificates in a chain, its leaf included: what verifying costs goes up with them.
const CHAIN_MAX: usize = 8;
/// Most roots.
const ROOTS_MAX: usize = 64;
/// Most revocation lists.
const LISTS_MAX: usize = 16;
/// The bits of a mode that let anybody but the owner read a key.
const OTHERS: u32 = 0o077;

/// Where the parts of somebody's credentials lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and behind it those between it and a root.
    pub chain: PathBuf,
    /// Its private key, for its owner's eyes alone.
    pub key: PathBuf,
    /// Who is believed.
    pub roots: PathBuf,
    /// Who is not believed any more. With a file of lists every certificate must be on one that is in time.
    pub lists: Option<PathBuf>,
}

/// The same, read and taken apart. The certificates are not judged yet.
pub struct Pems {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
}

impl Files {
    /// Reads all of them.
    ///
    /// # Errors
    /// `E_CONFIG_TLS` with the file's name: it is not there, too large, no PEM of its kind, or a key that others may
    /// read.
    pub fn read(&self) -> Result<Pems> {
        let chain = several(&self.chain, CHAIN_MAX)?;
        let roots = several(&self.roots, ROOTS_MAX)?;
        let lists = match &self.lists {
            Some(path) => several(path, LISTS_MAX)?,
            None => Vec::new(),
        };
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key, true)?)
            .map_err(|_| wrong(&self.key, "it holds no private key as PEM"))?;
        Ok(Pems { chain, key, roots, lists })
    }

    /// Each of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.chain, &self.key, &self.roots].into_iter().chain(&self.lists).map(PathBuf::as_path)
    }
}

/// What is wrong with a file.
pub(crate) fn wrong(path: &Path, why: &str) -> Error {
    Error::with(Code::ConfigTls, format!("{}: {why}", path.display().to_string().escape_debug()))
}

fn read(path: &Path, secret: bool) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(path, "there is no such file"),
        kind => wrong(path, &kind.to_string()),
    };
    // Opening a pipe waits for somebody who writes to it; a file is not concerned.
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(wrong(path, "it is no file"));
    }
    if secret && about.mode() & OTHERS != 0 {
        return Err(wrong(path, "others may read this key; its mode has to be 0600"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len().min(FILE_BYTES_MAX) as usize + 1));
    file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(path, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// All parts of one kind in a file, of which there is at least one.
fn several<T: PemObject>(path: &Path, most: usize) -> Result<Vec<T>> {
    let bytes = read(path, false)?;
    let parts: Vec<T> = T::pem_slice_iter(&bytes)
        .take(most + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(path, "a part of it is damaged"))?;
    match parts.len() {
        0 => Err(wrong(path, "nothing of what belongs there is in it")),
        many if many > most => Err(wrong(path, &format!("it holds more than {most}"))),
        _ => Ok(parts),
    }
}
