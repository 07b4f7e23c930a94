//! Files that are read again when they change. Bad ones change nothing: what was loaded before stays, and the caller
//! is told once what is wrong.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use caps::Error;
use caps::error::Result;
use std::os::unix::fs::MetadataExt;

use crate::config::Credentials;
use crate::files::{Files, wrong};
use crate::identity::{Domain, PeerId};

/// What a file looked like: enough to see that another one stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look(Option<Seen>);

/// The file that it is, its length, when its bytes were written and when anything of it was changed, and who may read it:
/// a key that others may read is refused, and one whose mode was put right is to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    file: (u64, u64),
    length: u64,
    written: Option<SystemTime>,
    changed: (i64, i64),
    mode: u32,
}

impl Look {
    fn at(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|file| Seen {
            file: (file.dev(), file.ino()),
            length: file.len(),
            written: file.modified().ok(),
            changed: (file.ctime(), file.ctime_nsec()),
            mode: file.mode(),
        }))
    }
}

/// Credentials that follow their files.
#[derive(Debug)]
pub struct Reload {
    domain: Domain,
    files: Files,
    /// Read at each connection, written when the files changed.
    now: RwLock<Arc<Credentials>>,
    seen: Mutex<Vec<Look>>,
}

/// What looking at the files came to.
#[derive(Debug)]
pub enum Reloaded {
    /// They are as they were.
    Same,
    /// New connections use them. Those that are open are the caller's to judge again, with
    /// [`Credentials::judge_again`].
    New(Arc<Credentials>),
    /// They changed and are not good: the ones before stay in use.
    Kept(Error),
}

impl Reload {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// `E_CONFIG_TLS`.
    pub fn load(domain: Domain, files: Files) -> Result<Self> {
        // Before they are read: a change in between is then seen at the next look.
        let seen = Mutex::new(files.paths().map(Look::at).collect());
        let now = RwLock::new(Arc::new(Credentials::load(&domain, &files)?));
        Ok(Self { domain, files, now, seen })
    }

    /// What new connections use.
    #[must_use]
    pub fn now(&self) -> Arc<Credentials> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files, and reads them if they changed. Whoever they name has to stay who it was: a running node does
    /// not become another.
    pub fn look(&self) -> Reloaded {
        let looks: Vec<_> = self.files.paths().map(Look::at).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == looks {
            return Reloaded::Same;
        }
        *seen = looks;
        match self.read_again(self.now().id()) {
            Ok(fresh) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
                Reloaded::New(fresh)
            }
            Err(error) => Reloaded::Kept(error),
        }
    }

    fn read_again(&self, is: &PeerId) -> Result<Arc<Credentials>> {
        let fresh = Credentials::load(&self.domain, &self.files)?;
        if fresh.id() != is {
            return Err(wrong(&self.files.chain, "it names somebody else"));
        }
        Ok(Arc::new(fresh))
    }
}
