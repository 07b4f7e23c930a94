//! Keys of encrypted leases on disk: one file a lease.
//!
//! `<state>/lease-keys/<identity>/<lease>.key` holds the line that `libmem::sealed::DataKey` makes. The file is its owner's
//! alone. Nobody can draw such a key again: where the last copy of it is gone, so are the lease's bytes. `<lease>.destroyed` says
//! that one was here, so that nothing is read or written past it: without the key `put` would store plain bytes.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caps::error::{Code, Error};
use caps::id::LeaseId;
use caps::wire::Name;
use libmem::sealed::{DataKey, KEY_TEXT_BYTES};

use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;

/// Most bytes of a file that are looked at: enough to say of a longer one that it holds no key.
const FILE_BYTES_MAX: usize = 4 * KEY_TEXT_BYTES;
/// The name of the directory below that of the state.
const DIRECTORY: &str = "lease-keys";

/// The lease keys of one identity.
#[derive(Debug)]
pub(crate) struct LeaseKeys {
    directory: PathBuf,
}

impl Context {
    /// The lease keys of who I am.
    pub(crate) fn lease_keys(&self) -> Result<LeaseKeys> {
        Ok(LeaseKeys::new(&self.dirs.state, &self.identity()?))
    }
}

impl LeaseKeys {
    fn new(state: &Path, identity: &Name) -> Self {
        Self { directory: state.join(DIRECTORY).join(identity.as_str()) }
    }

    /// The file of a lease's key, whether it is there or not.
    pub(crate) fn path(&self, lease: LeaseId) -> PathBuf {
        self.directory.join(format!("{lease}.key"))
    }

    /// Keeps a key. `false` if it was here already.
    ///
    /// Fails with `E_EXISTS` if another key of the lease is here, and changes nothing then: with it something may have been
    /// written that nothing else reads.
    pub(crate) fn keep(&self, key: &DataKey) -> Result<bool> {
        files::make_directory(&self.directory)?;
        files::check_directory(&self.directory)?;
        match files::create_whole(&self.path(key.lease()), &key.to_text()) {
            Err(error) if error.code() == Code::Exists => match self.find(key.lease())? {
                Some(known) if known.is(key) => Ok(false),
                _ => {
                    let message = format!("another key of lease {} is here already", key.lease());
                    Err(Failure::of(Code::Exists, message).help(
                        "ask who gave it to you; `leasehold lease key destroy` makes room, and shreds what only that key reads",
                    ))
                }
            },
            made => {
                made?;
                let _ = std::fs::remove_file(self.destroyed_path(key.lease())); // a key that is here counts for more
                Ok(true)
            }
        }
    }

    /// Keeps the key of a lease that was just made.
    ///
    /// Fails with `E_EXISTS` if a key of that lease is here or was destroyed here, and changes nothing then: ids of leases are
    /// a node's word, and one that comes twice is another lease's.
    pub(crate) fn keep_new(&self, key: &DataKey) -> Result<()> {
        let lease = key.lease();
        let known = || {
            let message = format!(
                "the node gave a new lease the id {lease}, and a key of a lease {lease} is, or was, here"
            );
            Failure::of(Code::Exists, message)
                .help("that key is as it was, and nothing was written; do not trust that node, or another one that gives the same ids")
        };
        // Whatever is there, a link that leads nowhere too.
        if self.destroyed_path(lease).symlink_metadata().is_ok() {
            return Err(known());
        }
        files::make_directory(&self.directory)?;
        files::check_directory(&self.directory)?;
        match files::create_whole(&self.path(lease), &key.to_text()) {
            Err(error) if error.code() == Code::Exists => Err(known()),
            made => Ok(made?),
        }
    }

    /// What says that a lease's key was destroyed here.
    fn destroyed_path(&self, lease: LeaseId) -> PathBuf {
        self.directory.join(format!("{lease}.destroyed"))
    }

    /// The key of a lease, if there is one here; an error if it was destroyed.
    pub(crate) fn find(&self, lease: LeaseId) -> Result<Option<DataKey>> {
        let path = self.path(lease);
        if !path.try_exists().unwrap_or(true) {
            return if self.destroyed_path(lease).exists() { Err(destroyed(lease)) } else { Ok(None) };
        }
        files::check_directory(&self.directory)?;
        let damaged =
            || Error::with(Code::ConfigSyntax, format!("{} holds no key of that lease", files::show(&path)));
        let text = files::read_secret(&path, FILE_BYTES_MAX)?;
        let key = DataKey::parse_text(&text).map_err(|_| damaged())?;
        if key.lease() == lease { Ok(Some(key)) } else { Err(damaged().into()) }
    }

    /// The key of a lease, which must be here.
    pub(crate) fn get(&self, lease: LeaseId) -> Result<DataKey> {
        self.find(lease)?.ok_or_else(|| missing(lease))
    }

    /// Overwrites a key's file, and removes it. A damaged one, too. `false` if it could not be opened for writing, and was
    /// removed as it was: its blocks may show what it held.
    pub(crate) fn destroy(&self, lease: LeaseId) -> Result<bool> {
        let path = self.path(lease);
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(lease),
            _ => files::failed(&path, &error).into(),
        };
        // One that was made read-only is its owner's to make writable; nobody else can put a link here meanwhile.
        if path.symlink_metadata().map_err(failed)?.is_file() {
            files::check_directory(&self.directory)?;
            let _ = std::fs::set_permissions(&path, Permissions::from_mode(0o600)); // opening it says whether it served
        }
        // Its blocks are written over where the file system writes in place; through a link nothing is.
        let open =
            || OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
        let overwritten = match open() {
            Ok(mut file) => {
                let bytes = file.metadata().map_or(0, |about| about.len()).min(FILE_BYTES_MAX as u64);
                let zeros = vec![0; bytes as usize]; // at most FILE_BYTES_MAX
                file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(failed)?;
                true
            }
            Err(_) => false,
        };
        files::replace(&self.destroyed_path(lease), "")?;
        std::fs::remove_file(&path).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(overwritten)
    }

    /// Destroys the key of a lease that was made and came to nothing: nothing was ever to be read with it, so nothing says
    /// that it was here.
    pub(crate) fn undo(&self, lease: LeaseId) -> Result<()> {
        self.destroy(lease)?;
        let mark = self.destroyed_path(lease);
        std::fs::remove_file(&mark).map_err(|error| files::failed(&mark, &error).into())
    }
}

fn destroyed(lease: LeaseId) -> Failure {
    Failure::of(Code::ConfigIo, format!("the key of lease {lease} was destroyed here")).help(
        "what was written with it is shredded, unless somebody has another copy and makes one for you with `leasehold lease \
         key export`",
    )
}

fn missing(lease: LeaseId) -> Failure {
    Failure::of(Code::ConfigIo, format!("no key of lease {lease} is kept here for this identity")).help(
        "leases have one if they are made with --encrypt; whoever has it makes a copy for you with `leasehold lease key \
         export`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: LeaseId = LeaseId([5; 16]);

    fn keys() -> (tempfile::TempDir, LeaseKeys) {
        let directory = tempfile::tempdir().unwrap();
        let keys = LeaseKeys::new(directory.path(), &Name::new("alice").unwrap());
        (directory, keys)
    }

    #[test]
    fn a_key_comes_back_and_no_other_takes_its_place() {
        let (_directory, keys) = keys();
        assert!(keys.find(LEASE).unwrap().is_none());
        assert_eq!(keys.get(LEASE).err().unwrap().code, "E_CONFIG_IO");
        let key = DataKey::generate(LEASE);
        assert!(keys.keep(&key).unwrap());
        assert!(!keys.keep(&key).unwrap());
        assert!(keys.get(LEASE).unwrap().is(&key));
        assert_eq!(keys.keep(&DataKey::generate(LEASE)).unwrap_err().code, "E_EXISTS");
        assert!(keys.get(LEASE).unwrap().is(&key));
        let mode = std::fs::metadata(keys.path(LEASE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }

    #[test]
    fn what_is_damaged_elsewheres_or_open_to_others_is_no_key() {
        let (_directory, keys) = keys();
        keys.keep(&DataKey::generate(LEASE)).unwrap();
        let path = keys.path(LEASE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(keys.get(LEASE).err().unwrap().code, "E_CONFIG_PERMS");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let other = DataKey::generate(LeaseId([6; 16])).to_text();
        for wrong in ["", "rubbish\n", &other] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(keys.get(LEASE).err().unwrap().code, "E_CONFIG_SYNTAX");
            assert!(keys.keep(&DataKey::generate(LEASE)).is_err());
        }
        keys.destroy(LEASE).unwrap();
        assert!(keys.find(LEASE).is_err(), "and nothing is read or written past it");
        // Unless somebody gives it back.
        keys.keep(&DataKey::generate(LEASE)).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(keys.find(LEASE).unwrap().is_none());
    }

    #[test]
    fn a_destroyed_key_is_overwritten_and_gone() {
        let (directory, keys) = keys();
        keys.keep(&DataKey::generate(LEASE)).unwrap();
        // A second name of the same file shows what its blocks hold after.
        let witness = directory.path().join("witness");
        std::fs::hard_link(keys.path(LEASE), &witness).unwrap();
        assert!(keys.destroy(LEASE).unwrap());
        assert!(!keys.path(LEASE).exists());
        assert_eq!(std::fs::read(&witness).unwrap(), vec![0; KEY_TEXT_BYTES]);
        assert_eq!(keys.destroy(LEASE).unwrap_err().code, "E_CONFIG_IO");
        // Through a link nothing is overwritten.
        let victim = directory.path().join("victim");
        std::fs::write(&victim, b"somebody else's").unwrap();
        std::os::unix::fs::symlink(&victim, keys.path(LEASE)).unwrap();
        assert!(!keys.destroy(LEASE).unwrap(), "and it is said");
        assert_eq!(std::fs::read(&victim).unwrap(), b"somebody else's");
    }

    #[test]
    fn a_key_that_was_made_read_only_is_overwritten_too() {
        let (directory, keys) = keys();
        keys.keep(&DataKey::generate(LEASE)).unwrap();
        let witness = directory.path().join("witness");
        std::fs::hard_link(keys.path(LEASE), &witness).unwrap();
        std::fs::set_permissions(&witness, std::fs::Permissions::from_mode(0o400)).unwrap();
        assert!(keys.destroy(LEASE).unwrap());
        assert_eq!(std::fs::metadata(&witness).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(&witness).unwrap(), vec![0; KEY_TEXT_BYTES]);
    }

    #[test]
    fn a_new_lease_takes_no_other_leases_key_away() {
        let (_directory, keys) = keys();
        let first = DataKey::generate(LEASE);
        keys.keep_new(&first).unwrap();
        // Not even with the same key: who drew it now did not draw it before.
        for again in [&first, &DataKey::generate(LEASE)] {
            assert_eq!(keys.keep_new(again).unwrap_err().code, "E_EXISTS");
            assert!(keys.get(LEASE).unwrap().is(&first));
        }
        keys.destroy(LEASE).unwrap();
        assert_eq!(keys.keep_new(&first).unwrap_err().code, "E_EXISTS", "its bytes may be there");
        let other = LeaseId([6; 16]);
        keys.keep_new(&DataKey::generate(other)).unwrap();
        keys.undo(other).unwrap();
        assert!(keys.find(other).unwrap().is_none(), "as if it had never been");
    }
}
