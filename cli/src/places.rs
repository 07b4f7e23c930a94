//! Where providers are, on disk: `<state>/tokens/<identity>/<provider>.node` beside the tokens of that provider, one line
//! `NAME HOST:PORT`. No secret, and nothing that has to be true: who answers there must have a certificate of that name, and
//! be the life of the provider that the token names. With it a token is opened while the broker is away, and shown to that
//! node alone of a list.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use caps::id::ProviderId;
use caps::wire::Name;
use caps::wire::provider::Address;
use libmem::Place;

use crate::files;

/// Most bytes of such a file: a name, an address, and what is between and behind.
const FILE_BYTES_MAX: usize = 64 + 1 + caps::limits::ADDRESS_BYTES_MAX + 1;
/// How long a place is kept: no token of a provider's lives longer.
const KEPT: Duration = Duration::from_millis(policy::limits::LEASE_TTL_MS_MAX);
/// Most files that are removed each time one is kept: what is left goes with the next ones.
const SWEPT_MAX: usize = 64;

/// The places that one identity remembers.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    directory: PathBuf,
}

impl Places {
    pub(crate) fn new(tokens: &Path, identity: &Name) -> Self {
        Self { directory: tokens.join(identity.as_str()) }
    }

    /// Where a provider is, if that is remembered. What cannot be read is as good as nothing: the broker is asked.
    pub(crate) fn find(&self, provider: ProviderId) -> Option<Place> {
        let text = files::read_secret(&self.path(provider), FILE_BYTES_MAX).ok()?;
        let (node, address) = text.trim_end().split_once(' ')?;
        Some(Place { node: Name::new(node).ok()?, address: Some(Address::new(address).ok()?) })
    }

    /// Remembers where a provider is. What is known already is not written again.
    ///
    /// # Errors
    /// `E_CONFIG_IO`.
    pub(crate) fn keep(&self, provider: ProviderId, place: &Place) -> caps::Result<()> {
        let Some(address) = &place.address else { return Ok(()) };
        if self.find(provider).as_ref() == Some(place) {
            return Ok(());
        }
        files::make_directory(&self.directory)?;
        self.sweep();
        files::replace(&self.path(provider), &format!("{} {address}\n", place.node))
    }

    /// Forgets a provider's place: that life of it is over.
    pub(crate) fn forget(&self, provider: ProviderId) {
        let _ = std::fs::remove_file(self.path(provider)); // it may not be there
    }

    fn sweep(&self) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let ours = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "node"));
        let is_old = |path: &PathBuf| {
            let written = std::fs::metadata(path).and_then(|about| about.modified()).ok()?;
            Some(SystemTime::now().duration_since(written).ok()? > KEPT)
        };
        // Every one is looked at: of a part of them, in the order of the directory, none might ever be old.
        for path in ours.filter(|path| is_old(path) == Some(true)).take(SWEPT_MAX) {
            let _ = std::fs::remove_file(path); // the next sweep tries again
        }
    }

    fn path(&self, provider: ProviderId) -> PathBuf {
        self.directory.join(format!("{provider}.node"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_until_it_is_forgotten_or_old() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::new(directory.path(), &Name::new("alice").unwrap());
        let (east, west) = (ProviderId([1; 16]), ProviderId([2; 16]));
        let place = |address| Place {
            node: Name::new("east").unwrap(),
            address: Some(Address::new(address).unwrap()),
        };
        assert_eq!(places.find(east), None);
        places.keep(east, &place("east.example:7171")).unwrap();
        assert_eq!(places.find(east), Some(place("east.example:7171")));
        places.keep(east, &place("[::1]:1")).unwrap();
        assert_eq!(places.find(east), Some(place("[::1]:1")));
        // At a socket of its own machine alone: nothing to remember.
        places.keep(west, &Place { address: None, ..place("a:1") }).unwrap();
        assert_eq!(places.find(west), None);

        let old = std::fs::File::options().write(true).open(places.path(east)).unwrap();
        old.set_modified(SystemTime::now() - 2 * KEPT).unwrap();
        places.keep(west, &place("a:1")).unwrap();
        assert_eq!((places.find(east), places.find(west)), (None, Some(place("a:1"))));
        places.forget(west);
        assert_eq!(places.find(west), None);
        // Those that stay, however many there are, keep none that is old from going.
        let many = 4 * SWEPT_MAX;
        for n in 0..many {
            let written = std::fs::File::create(places.directory.join(format!("{n}.node"))).unwrap();
            if n % 2 == 0 {
                written.set_modified(SystemTime::now() - 2 * KEPT).unwrap();
            }
        }
        let left = || std::fs::read_dir(&places.directory).unwrap().count();
        for sweep in 1..=many / 2 / SWEPT_MAX {
            places.sweep();
            assert_eq!(left(), many - sweep * SWEPT_MAX);
        }
        places.sweep();
        assert_eq!(left(), many / 2);
        for wrong in ["", "east", "east nowhere", "a/b a:1"] {
            files::replace(&places.path(east), wrong).unwrap();
            assert_eq!(places.find(east), None, "{wrong}");
        }
    }
}
