//! Identities on disk: one Ed25519 key a file.
//!
//! `<state>/ids/NAME.key` has one line, `leasehold-key-v1:` and the seed in URL-safe base64 without padding. The file
//! is its owner's alone; the public half is derived, never stored, so that the two cannot disagree.

use std::path::{Path, PathBuf};

use caps::error::{Code, Error};
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::wire::Name;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};
use crate::files;

/// What a key file begins with.
pub(crate) const PREFIX: &str = "leasehold-key-v1:";
/// Characters of a seed in base64.
const SEED_TEXT_BYTES: usize = 43;
/// Bytes of a key file: prefix, seed, line end.
const FILE_BYTES: usize = PREFIX.len() + SEED_TEXT_BYTES + 1;
/// Most bytes of a file that are looked at: enough to say of a longer one that it holds no key.
const FILE_BYTES_MAX: usize = 4 * FILE_BYTES;
/// The end of a key file's name.
const EXTENSION: &str = "key";
/// Most identities that are listed. A person has a few; a directory with more is not ours.
const IDENTITIES_MAX: usize = 4096;

/// The identities of this user.
#[derive(Debug)]
pub(crate) struct Identities {
    directory: PathBuf,
}

impl Identities {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The key file of an identity, whether it is there or not.
    pub(crate) fn path(&self, name: &Name) -> PathBuf {
        // A name has no slash and does not begin with a dot.
        self.directory.join(format!("{name}.{EXTENSION}"))
    }

    /// Draws a key and writes its file.
    pub(crate) fn create(&self, name: &Name) -> Result<SigningKey> {
        files::make_directory(&self.directory)?;
        files::check_directory(&self.directory)?;
        match create_seed(&self.path(name)) {
            Ok(seed) => Ok(SigningKey::from_seed(&seed)),
            Err(error) if error.code() == Code::Exists => {
                Err(Failure::of(Code::Exists, format!("there is an identity `{name}` here already")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the key of an identity.
    pub(crate) fn load(&self, name: &Name) -> Result<SigningKey> {
        let path = self.path(name);
        if !path.try_exists().unwrap_or(true) {
            let message = format!("there is no identity `{name}` in {}", files::show(&self.directory));
            return Err(Failure::of(Code::ConfigIo, message)
                .help(format!("make one with `leasehold id new {name}`, or name another with --as")));
        }
        files::check_directory(&self.directory)?;
        Ok(SigningKey::from_seed(&*load_seed(&path)?))
    }

    /// The names of the identities here, in order. What is no key file is passed over.
    pub(crate) fn names(&self) -> Result<Vec<Name>> {
        Ok(files::names(&self.directory, EXTENSION, IDENTITIES_MAX)?)
    }

    /// The public key of an identity here, if there is one and it can be read.
    pub(crate) fn public(&self, name: &Name) -> Option<PrincipalKey> {
        self.load(name).ok().map(|key| key.public())
    }
}

/// Reads the seed in a key file.
///
/// # Errors
/// `E_CONFIG_PERMS` if the file is a link, another user's, or one that others may read; `E_CONFIG_SYNTAX` if it holds
/// no key; `E_CONFIG_IO`.
pub(crate) fn load_seed(path: &Path) -> caps::Result<Zeroizing<[u8; 32]>> {
    decode(&files::read_secret(path, FILE_BYTES_MAX)?, path)
}

/// Reads the seed in a key file, or draws one and makes the file if there is none.
///
/// # Errors
/// As [`load_seed`].
pub(crate) fn seed_or_new(path: &Path) -> caps::Result<Zeroizing<[u8; 32]>> {
    match create_seed(path) {
        Err(error) if error.code() == Code::Exists => load_seed(path),
        made => made,
    }
}

/// Writes a new key file with this seed.
///
/// # Errors
/// `E_EXISTS` if there is a file of that name; `E_CONFIG_IO`.
pub(crate) fn create_with(path: &Path, seed: &[u8; 32]) -> caps::Result<()> {
    files::create(path, &encode(seed))
}

fn create_seed(path: &Path) -> caps::Result<Zeroizing<[u8; 32]>> {
    let seed = SigningKey::generate().seed();
    files::create(path, &encode(&seed))?;
    Ok(seed)
}

fn encode(seed: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES));
    text.push_str(PREFIX);
    BASE64URL_NOPAD.encode_append(seed, &mut text);
    text.push('\n');
    text
}

/// Strict: each key has one text.
fn decode(text: &str, path: &Path) -> caps::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    let base64 = text
        .strip_suffix('\n')
        .and_then(|line| line.strip_prefix(PREFIX))
        .filter(|base64| base64.len() == SEED_TEXT_BYTES);
    let decoded = base64.and_then(|base64| BASE64URL_NOPAD.decode_mut(base64.as_bytes(), &mut *seed).ok());
    decoded.map(|_| seed).ok_or_else(|| {
        let form = "one line of `leasehold-key-v1:` and 43 characters of base64url";
        Error::with(Code::ConfigSyntax, format!("{} holds no key, which is {form}", files::show(path)))
    })
}

/// The key of a seed in hexadecimal, as a process of ours is given one on its standard input.
///
/// # Errors
/// `E_PROTOCOL` if it is no seed.
pub(crate) fn key_of_seed(text: &str) -> caps::error::Result<SigningKey> {
    data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .ok()
        .and_then(|seed| <[u8; 32]>::try_from(seed).ok())
        .map(|seed| SigningKey::from_seed(&seed))
        .ok_or(Error::new(Code::Protocol, "not a seed"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn identities() -> (tempfile::TempDir, Identities) {
        let directory = tempfile::tempdir().unwrap();
        let identities = Identities::new(directory.path().join("ids"));
        (directory, identities)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_key_comes_back_and_is_made_once() {
        let (_directory, identities) = identities();
        assert!(identities.names().unwrap().is_empty());
        let key = identities.create(&name("alice")).unwrap();
        assert_eq!(identities.load(&name("alice")).unwrap().public(), key.public());
        assert_eq!(identities.create(&name("alice")).err().unwrap().code, "E_EXISTS");
        identities.create(&name("Bob")).unwrap();
        std::fs::write(identities.directory.join("notes.txt"), b"").unwrap();
        assert_eq!(identities.names().unwrap(), [name("Bob"), name("alice")]);
    }

    #[test]
    fn a_seed_is_drawn_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root");
        let seed = seed_or_new(&path).unwrap();
        assert_eq!(*seed_or_new(&path).unwrap(), *seed);
        assert_eq!(*load_seed(&path).unwrap(), *seed);
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let (_directory, identities) = identities();
        identities.create(&name("a")).unwrap();
        let path = identities.path(&name("a"));
        let good = std::fs::read_to_string(&path).unwrap();
        let line = good.trim_end();
        let changed = |text: String| {
            std::fs::write(&path, text).unwrap();
            identities.load(&name("a")).err().unwrap()
        };
        for text in [
            String::new(),
            line.to_owned(),
            format!(" {good}"),
            good.replace("v1", "v2"),
            format!("{}\n", &line[..line.len() - 1]),
            format!("{}=\n", &line[..line.len() - 1]),
        ] {
            let failure = changed(text.clone());
            assert_eq!(failure.code, "E_CONFIG_SYNTAX", "{text:?}");
            assert!(!failure.message.contains(&line[PREFIX.len()..PREFIX.len() + 8]));
        }
    }

    #[test]
    fn a_key_that_others_may_read_is_no_key() {
        let (_directory, identities) = identities();
        identities.create(&name("a")).unwrap();
        let path = identities.path(&name("a"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(identities.load(&name("a")).err().unwrap().code, "E_CONFIG_PERMS");
        assert_eq!(identities.load(&name("nobody")).err().unwrap().code, "E_CONFIG_IO");
    }
}
