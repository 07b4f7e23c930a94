//! The root keys of a node, on disk: one file a key, and one that says which of them count.
//!
//! ```text
//! keys/root          the first key
//! keys/root-01234567 one that took its place, named by its id
//! keys/roots         leasehold-roots-v1
//!                    minting  PUBLIC SINCE
//!                    believed PUBLIC SINCE RETIRES      microseconds since 1970
//! ```
//! `roots` decides, and is replaced as one step. A key file that it does not name was made and never used, by a node that
//! stopped at that moment: the next start removes it.
//!
//! A node that is *given* its root key (`[node] root`) has a ring of that one alone. It is not on disk here, and does not turn:
//! the other nodes that were given it would not hear of another. What stands in `keys/` meanwhile counts again once none is
//! given.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;
use caps::token::{ROOT_KEYS_MAX, RootKey, RootKeys, RootPublic};
use caps::wire::row::{RootRow, RootState};

use super::state::Keys;
use crate::{files, identity};

/// The file that says which keys count, and its first line.
const INDEX: &str = "roots";
const HEADER: &str = "leasehold-roots-v1";
/// The file of the first key, and what the others' names begin with.
const FIRST: &str = "root";
const PREFIX: &str = "root-";
/// Most bytes of the index: a line is at most 9 + 65 + 2 × 21.
const INDEX_BYTES_MAX: usize = 64 + ROOT_KEYS_MAX * 128;

/// The keys that count, the one that mints first, then from the newest to the oldest.
pub(super) struct Ring {
    directory: PathBuf,
    rows: Vec<RootRow>,
    /// Whose file is that of the first key. Looked at when the ring is loaded: a node that serves may not ask who it is,
    /// and reads no secret any more.
    first: Option<RootPublic>,
    /// Whether the disk says something else than `rows`: a change of it failed.
    unsaved: bool,
    /// Whether the key is not the node's own.
    given: bool,
}

impl Keys {
    /// Mints by the key in `file` and believes that one alone.
    ///
    /// # Errors
    /// `E_CONFIG_PERMS` if the file has the wrong owner or mode; `E_CONFIG_SYNTAX` if it holds no key; `E_CONFIG_IO`.
    pub fn give_root(&mut self, file: &Path, now: UnixMicros) -> Result<()> {
        self.root = RootKey::from_seed(&*identity::load_seed(file)?);
        let row = minting(self.root.public(), written(file).unwrap_or(now));
        let directory = self.roots.directory.clone();
        self.roots = Ring { directory, rows: vec![row], first: None, unsaved: false, given: true };
        Ok(())
    }
}

impl Ring {
    /// Reads the keys, or makes the first. Those whose time is over at `now` are left out and removed.
    ///
    /// # Errors
    /// `E_CONFIG_PERMS` if a file has the wrong owner or mode; `E_CONFIG_SYNTAX`, `E_CONFIG_IO`.
    pub(super) fn load(directory: &Path, now: UnixMicros) -> Result<(Self, RootKey)> {
        let index = directory.join(INDEX);
        let known = index.try_exists().map_err(|error| files::failed(&index, &error))?;
        let mut ring = Self {
            directory: directory.to_owned(),
            rows: Vec::new(),
            first: None,
            unsaved: false,
            given: false,
        };
        let path = directory.join(FIRST);
        if known {
            ring.first = identity::load_seed(&path).ok().map(|seed| public(&seed));
            ring.rows = parse(&files::read_secret(&index, INDEX_BYTES_MAX)?, &index)?;
            ring.rows.retain(|row| row.retires.is_none_or(|retires| retires > now));
            ring.remove_others();
        } else {
            let public = public(&*identity::seed_or_new(&path)?);
            ring.first = Some(public);
            ring.rows.push(minting(public, written(&path).unwrap_or(now)));
        }
        // Also what was left out just now, and the entry of a file that was made just now.
        ring.save()?;
        let mut keys = ring.rows.iter().map(|row| ring.read(row)).collect::<Result<Vec<_>>>()?;
        Ok((ring, keys.swap_remove(0)))
    }

    /// The keys as a list shows them.
    pub(super) fn rows(&self) -> &[RootRow] {
        &self.rows
    }

    /// What is to be believed.
    ///
    /// # Errors
    /// `E_RANGE` if a key is none.
    pub(super) fn believed(&self) -> Result<RootKeys> {
        let mut keys = RootKeys::default();
        self.rows.iter().try_for_each(|row| keys.add(row.public))?;
        Ok(keys)
    }

    /// The same, as it is told to others.
    pub(super) fn publics(&self) -> Vec<RootPublic> {
        self.rows.iter().map(|row| row.public).collect()
    }

    /// For whoever verifies offline: a key a line.
    pub(super) fn published(&self) -> String {
        self.rows.iter().map(|row| format!("{}\n", row.public)).collect()
    }

    /// A ring in which `key` mints and the one before is believed until `retires`, and the new key's file, which is on
    /// disk when this returns. The disk says nothing of it yet: see [`Self::adopt`].
    ///
    /// # Errors
    /// `E_BUSY` if the ring is full; `E_DENIED` if its key was given; `E_CONFIG_IO`.
    pub(super) fn with(&self, key: &RootKey, now: UnixMicros, retires: UnixMicros) -> Result<Self> {
        if self.given {
            return Err(Error::new(
                Code::Denied,
                "this root key was given to the node by `[node] root`, and to others: put another key into that file at \
                 each of them, and start them again",
            ));
        }
        if self.rows.len() >= ROOT_KEYS_MAX {
            return Err(Error::new(
                Code::Busy,
                "8 root keys are believed already; retire one, or wait until the first retires by itself",
            ));
        }
        let mut rows = vec![minting(key.public(), now)];
        rows.extend(self.rows.iter().map(|row| match row.state {
            RootState::Minting => RootRow { state: RootState::Believed, retires: Some(retires), ..*row },
            RootState::Believed => *row,
        }));
        let with =
            Self { directory: self.directory.clone(), rows, first: self.first, unsaved: true, given: false };
        identity::create_with(&with.path(&with.rows[0]), &key.seed())?;
        with.sync()?;
        Ok(with)
    }

    /// Takes over a ring made by [`Self::with`], on disk as well.
    ///
    /// # Errors
    /// `E_CONFIG_IO`: then this ring is what it was, and the disk may say either until it is saved. The new key's file
    /// stays until then, since the disk may name it.
    pub(super) fn adopt(&mut self, mut with: Self) -> Result<()> {
        with.save().inspect_err(|_| self.unsaved = true)?;
        *self = with;
        Ok(())
    }

    /// Removes the file of a new key that is not to be used.
    pub(super) fn discard(&self, with: &Self) {
        if let Err(error) = fs::remove_file(with.path(&with.rows[0])) {
            tracing::warn!(%error, "the file of a root key that was never used is left behind until the next start");
        }
    }

    /// When a key retires, known better now.
    pub(super) fn set_retires(&mut self, public: RootPublic, retires: UnixMicros) {
        for row in self.rows.iter_mut().filter(|row| row.public == public && row.retires.is_some()) {
            self.unsaved |= row.retires != Some(retires);
            row.retires = Some(retires);
        }
    }

    /// Leaves a key out. It counts no more at once; `save` makes that so for the next start.
    pub(super) fn remove(&mut self, public: RootPublic) {
        self.rows.retain(|row| row.public != public);
        self.unsaved = true;
    }

    /// Brings the disk up to date, if it is not: the index first, then the files of keys that count no more.
    ///
    /// # Errors
    /// `E_CONFIG_IO`: what counts no more would count again after a restart. Worth trying again.
    pub(super) fn save_if_changed(&mut self) -> Result<()> {
        if self.unsaved { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<()> {
        if self.given {
            return Ok(()); // none of it is on disk here
        }
        self.unsaved = true;
        files::replace(&self.directory.join(INDEX), &text(&self.rows))?;
        self.sync()?;
        self.unsaved = false;
        self.remove_others();
        Ok(())
    }

    /// Removes the files of keys that do not count. One that stays does no harm: nobody reads it.
    fn remove_others(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let keep: Vec<_> = self.rows.iter().map(|row| self.path(row)).collect();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if (name == FIRST || name.starts_with(PREFIX)) && !keep.contains(&path) {
                let removed = fs::remove_file(&path);
                tracing::info!(file = name, ?removed, "a root key that does not count any more");
            }
        }
    }

    /// The file of a key: that of its id, but for the first key.
    fn path(&self, row: &RootRow) -> PathBuf {
        if self.first == Some(row.public) {
            return self.directory.join(FIRST);
        }
        self.directory.join(format!("{PREFIX}{:08x}", row.id))
    }

    fn read(&self, row: &RootRow) -> Result<RootKey> {
        let path = self.path(row);
        let key = RootKey::from_seed(&*identity::load_seed(&path)?);
        if key.public() == row.public {
            return Ok(key);
        }
        let message = format!("{} is not the key that `{INDEX}` names", files::show(&path));
        Err(Error::with(Code::ConfigSyntax, message))
    }

    /// Makes names in the directory durable.
    fn sync(&self) -> Result<()> {
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| files::failed(&self.directory, &error))
    }
}

fn public(seed: &[u8; 32]) -> RootPublic {
    RootKey::from_seed(seed).public()
}

fn minting(public: RootPublic, since: UnixMicros) -> RootRow {
    RootRow { id: public.id(), public, since, state: RootState::Minting, retires: None }
}

/// When a file was written last.
fn written(path: &Path) -> Option<UnixMicros> {
    let at = fs::metadata(path).ok()?.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(UnixMicros(u64::try_from(at.as_micros()).ok()?))
}

fn text(rows: &[RootRow]) -> String {
    let line = |row: &RootRow| match row.retires {
        None => format!("minting {} {}\n", row.public, row.since.0),
        Some(retires) => format!("believed {} {} {}\n", row.public, row.since.0, retires.0),
    };
    format!("{HEADER}\n{}", rows.iter().map(line).collect::<String>())
}

/// Strict: what does not read back as the same text was written by nobody here.
fn parse(index: &str, path: &Path) -> Result<Vec<RootRow>> {
    let row = |line: &str| -> Option<RootRow> {
        let mut words = line.split(' ');
        let (word, public) = (words.next()?, RootPublic::parse(words.next()?).ok()?);
        let since = UnixMicros(words.next()?.parse().ok()?);
        let retires = words.next().map(str::parse).transpose().ok()?.map(UnixMicros);
        let state = if retires.is_some() { RootState::Believed } else { RootState::Minting };
        let known = word == if retires.is_some() { "believed" } else { "minting" };
        known.then_some(RootRow { id: public.id(), public, since, state, retires })
    };
    let rows: Option<Vec<_>> = index.lines().skip(1).map(row).collect();
    let whole = |rows: &Vec<RootRow>| {
        let minting = rows.iter().map(|row| row.state == RootState::Minting);
        text(rows) == index && rows.len() <= ROOT_KEYS_MAX && minting.eq((0..rows.len()).map(|at| at == 0))
    };
    rows.filter(|rows| !rows.is_empty() && whole(rows)).ok_or_else(|| {
        Error::with(Code::ConfigSyntax, format!("{} is no list of root keys", files::show(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = UnixMicros(1_000);
    const LATER: UnixMicros = UnixMicros(2_000);

    fn load(directory: &Path, now: UnixMicros) -> (Ring, RootPublic) {
        let (ring, key) = Ring::load(directory, now).unwrap();
        assert_eq!(ring.rows()[0].public, key.public(), "the one that mints stands first");
        (ring, key.public())
    }

    fn files_in(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn keys_come_back_until_they_retire_and_leave_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let (mut ring, first) = load(directory, NOW);
        assert_eq!(load(directory, NOW).1, first);
        let second = RootKey::generate();
        let with = ring.with(&second, NOW, LATER).unwrap();
        ring.adopt(with).unwrap();
        let (again, minting) = load(directory, NOW);
        assert_eq!((minting, again.rows()), (second.public(), ring.rows()));
        assert_eq!(again.rows()[1].retires, Some(LATER));
        assert_eq!(again.published().lines().count(), 2);
        assert!(again.believed().unwrap().trusts(first.id()));
        let own = format!("root-{:08x}", second.id());
        assert_eq!(files_in(directory), ["root".to_owned(), own.clone(), "roots".to_owned()]);
        // Its time is over.
        let (late, minting) = load(directory, LATER);
        assert_eq!((minting, late.rows().len()), (second.public(), 1));
        assert_eq!(files_in(directory), [own, "roots".to_owned()]);
        assert_eq!(load(directory, LATER).1, second.public(), "and no new first key is made");
    }

    #[test]
    fn a_key_that_was_made_and_never_used_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let (ring, first) = load(directory, NOW);
        ring.with(&RootKey::generate(), NOW, LATER).unwrap();
        fs::write(directory.join("root-torn"), "leasehold-").unwrap();
        assert_eq!(files_in(directory).len(), 4);
        let (ring, minting) = load(directory, NOW);
        assert_eq!((minting, ring.rows().len()), (first, 1));
        assert_eq!(files_in(directory), ["root", "roots"]);
        let unused = ring.with(&RootKey::generate(), NOW, LATER).unwrap();
        ring.discard(&unused);
        assert_eq!(files_in(directory), ["root", "roots"]);
    }

    #[test]
    fn a_disk_that_does_not_take_the_list_is_written_when_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ring, first) = load(directory.path(), NOW);
        let index = directory.path().join(INDEX);
        fs::remove_file(&index).unwrap();
        fs::create_dir(&index).unwrap(); // no file takes the place of a directory
        let second = RootKey::generate();
        let with = ring.with(&second, NOW, LATER).unwrap();
        assert_eq!(ring.adopt(with).unwrap_err().code(), Code::ConfigIo);
        assert_eq!((ring.rows().len(), ring.rows()[0].public), (1, first));
        assert!(ring.save_if_changed().is_err());
        fs::remove_dir(&index).unwrap();
        ring.save_if_changed().unwrap();
        assert_eq!(files_in(directory.path()), ["root", "roots"]);
        assert_eq!(load(directory.path(), NOW).1, first);
    }

    #[test]
    fn a_ninth_key_is_refused_before_it_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let (mut ring, first) = load(directory.path(), NOW);
        for _ in 1..ROOT_KEYS_MAX {
            let with = ring.with(&RootKey::generate(), NOW, LATER).unwrap();
            ring.adopt(with).unwrap();
        }
        let before = files_in(directory.path());
        let refused = ring.with(&RootKey::generate(), NOW, LATER).err().unwrap();
        assert_eq!(refused.code(), Code::Busy);
        assert_eq!(files_in(directory.path()), before);
        ring.remove(first);
        ring.save_if_changed().unwrap();
        ring.with(&RootKey::generate(), NOW, LATER).unwrap();
        assert!(!ring.believed().unwrap().trusts(first.id()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (_, first) = load(directory.path(), NOW);
        let path = directory.path().join(INDEX);
        let good = fs::read_to_string(&path).unwrap();
        let other = RootKey::from_seed(&[9; 32]).public();
        for bad in [
            String::new(),
            format!("{HEADER}\n"),
            good.replace("v1", "v2"),
            good.replace("minting", "believed"),
            format!("{good}{}", good.lines().nth(1).unwrap()),
            format!("{good}minting {other} 5\n"),
            format!("{HEADER}\nbelieved {first} 5 {}\n", u64::MAX),
            format!("{good}believed {other} 05 {}\n", u64::MAX),
        ] {
            fs::write(&path, &bad).unwrap();
            let error = Ring::load(directory.path(), NOW).err().unwrap();
            assert_eq!(error.code(), Code::ConfigSyntax, "{bad:?}");
        }
        // A key that is named and not there.
        fs::write(&path, format!("{HEADER}\nminting {other} 5\n")).unwrap();
        assert_eq!(Ring::load(directory.path(), NOW).err().unwrap().code(), Code::ConfigIo);
    }
}
