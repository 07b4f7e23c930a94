//! A directory of a file system.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use caps::error::{Code, Error, Result};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{ACKED, Files, JOURNAL, Listed, Store, TMP};
use crate::journal::MARK_BYTES;

/// Files are the node's alone; who may read the log is for the operator to say, by ACL or copy.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;

/// A directory that is only read. No lock: a running node may be writing.
#[derive(Debug)]
pub struct ReadDir {
    dir: OwnedFd,
}

/// A directory that one log writes. Holds an exclusive lock on it.
#[derive(Debug)]
pub struct Disk {
    reader: ReadDir,
    path: PathBuf,
    /// The directory as it was opened: device, inode, mode and owner.
    identity: [u64; 4],
    /// The journal and its length. Guards the pair while a call runs; the log is the only caller, so nobody waits.
    journal: Mutex<Option<(File, u64)>>,
    acked: Mutex<Option<File>>,
    /// Numbers for names in `tmp`.
    next: AtomicU64,
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn identity(stat: &Stat) -> [u64; 4] {
    [stat.st_dev, stat.st_ino, u64::from(stat.st_mode), u64::from(stat.st_uid)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A holder that panicked left a value that the next check of lengths and identities judges anyway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadDir {
    /// Opens a directory for reading.
    ///
    /// # Errors
    /// `E_CONFIG_IO` if it is missing, a link, no directory, or not readable.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = open_dir(path).map_err(|errno| {
            Error::with(Code::ConfigIo, format!("the log's directory cannot be opened: {errno}"))
        })?;
        Ok(Self { dir })
    }

    /// Opens a file for reading without following a link or waiting on a FIFO.
    pub(crate) fn open_file(&self, path: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match fs::openat(&self.dir, path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        Ok(Some(file.into()))
    }
}

impl AsFd for ReadDir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Files for ReadDir {
    fn read(&self, path: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than this file can be"));
        }
        Ok(Some(bytes))
    }

    fn list(&self, path: &str) -> io::Result<Vec<Listed>> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match fs::openat(&self.dir, path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut found = Vec::new();
        for entry in fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Unknown => {
                    let stat = fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                kind => kind == FileType::Directory,
            };
            found.push(Listed { name: name.to_vec(), is_dir });
        }
        found.sort();
        Ok(found)
    }
}

impl Disk {
    /// Makes a log's directory if it is missing, and opens it for writing. Its parent must be there.
    ///
    /// # Errors
    /// As [`Self::open`], and `E_CONFIG_IO` if it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        match fs::mkdir(path, DIR_MODE) {
            Ok(()) => sync_parent(path).map_err(failed)?,
            Err(Errno::EXIST) => (),
            Err(errno) => return Err(failed(errno)),
        }
        Self::open(path)
    }

    /// Opens a log's directory for writing.
    ///
    /// # Errors
    /// `E_LOCKED` if another process has it open, `E_CONFIG_IO` if it cannot be opened or its mode says read-only.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = open_dir(path).map_err(failed)?;
        match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(Code::Locked, "another process writes this log"));
            }
            Err(errno) => return Err(failed(errno)),
        }
        let stat = fs::fstat(&dir).map_err(failed)?;
        if !Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR) {
            // The superuser could write all the same; whoever took the bit away meant otherwise.
            return Err(Error::new(Code::ConfigIo, "the log's directory is read-only"));
        }
        let identity = identity(&stat);
        let disk = Self {
            reader: ReadDir { dir },
            path: path.to_owned(),
            identity,
            journal: Mutex::new(None),
            acked: Mutex::new(None),
            next: AtomicU64::new(0),
        };
        // What a crash left on its way to its name was never acknowledged.
        for left in disk.list(TMP).unwrap_or_default() {
            if let Ok(name) = std::str::from_utf8(&left.name) {
                let _ = disk.remove(&format!("{TMP}/{name}"));
            }
        }
        Ok(disk)
    }

    fn dir(&self) -> &OwnedFd {
        &self.reader.dir
    }

    /// Makes the directories of `path` and collects each one whose own entry, or whose new child, must be synced.
    fn make_dirs(&self, path: &str, dirty: &mut Vec<String>) -> io::Result<()> {
        let mut note = |dir: &str| {
            if !dirty.iter().any(|known| known == dir) {
                dirty.push(dir.to_owned());
            }
        };
        let mut parent = "";
        for (at, _) in path.match_indices('/') {
            let dir = &path[..at];
            match fs::mkdirat(self.dir(), dir, DIR_MODE) {
                Ok(()) => note(parent),
                Err(Errno::EXIST) => (),
                Err(errno) => return Err(errno.into()),
            }
            parent = dir;
        }
        note(parent);
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        let path = if path.is_empty() { "." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(self.dir(), path, flags, Mode::empty())?;
        Ok(fs::fsync(&dir)?)
    }

    /// Writes a synced file under a name in `tmp`.
    fn write_tmp(&self, bytes: &[u8]) -> io::Result<(String, File)> {
        let name = format!("{TMP}/{}", self.next.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(self.dir(), &name, flags, FILE_MODE)?);
        file.write_all(bytes)?;
        file.sync_data()?;
        Ok((name, file))
    }

    /// Whether the path still leads to the directory that was opened, unchanged.
    fn check_place(&self) -> io::Result<()> {
        let now = fs::stat(&self.path).map(|stat| identity(&stat))?;
        if now == self.identity { Ok(()) } else { Err(moved("the log's directory was replaced or changed")) }
    }
}

fn failed(errno: Errno) -> Error {
    Error::with(Code::ConfigIo, format!("the log's directory cannot be opened for writing: {errno}"))
}

fn sync_parent(path: &Path) -> rustix::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::fsync(fs::open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn moved(detail: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, detail)
}

impl Files for Disk {
    fn read(&self, path: &str, max: usize) -> io::Result<Option<Vec<u8>>> {
        self.reader.read(path, max)
    }

    fn list(&self, path: &str) -> io::Result<Vec<Listed>> {
        self.reader.list(path)
    }
}

impl Store for Disk {
    fn put(&self, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        let mut dirty = Vec::new();
        self.make_dirs(&format!("{TMP}/0"), &mut dirty)?;
        let mut ready = Vec::with_capacity(files.len());
        for (path, bytes) in files {
            ready.push((self.write_tmp(bytes)?.0, path));
        }
        for (tmp, path) in ready {
            self.make_dirs(path, &mut dirty)?;
            fs::renameat(self.dir(), &tmp, self.dir(), path)?;
        }
        // The deepest first, so that no name is durable before what it leads to.
        dirty.sort_by_key(|dir| std::cmp::Reverse(dir.len()));
        dirty.iter().try_for_each(|dir| self.sync_dir(dir))?;
        self.check_place()
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::unlinkat(self.dir(), path, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(fs::unlinkat(self.dir(), path, AtFlags::REMOVEDIR)?),
            done => Ok(done?),
        }
    }

    fn journal_append(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        let (file, length) = journal.as_mut().ok_or_else(|| moved("no journal was put in place"))?;
        if *length != at {
            return Err(moved("the journal ends elsewhere"));
        }
        // Looked at before the write, not only at the sync: after somebody shortened the file, a positioned write
        // would bring the length right again, with a hole of zeros where acknowledged entries were.
        if fs::fstat(&*file)?.st_size as u64 != at {
            return Err(moved("somebody else changed the journal"));
        }
        file.write_all_at(bytes, at)?;
        *length += bytes.len() as u64;
        Ok(())
    }

    fn journal_sync(&self, expected: u64) -> io::Result<()> {
        let journal = lock(&self.journal);
        let (file, length) = journal.as_ref().ok_or_else(|| moved("no journal was put in place"))?;
        file.sync_data()?;
        let (ours, named) = (fs::fstat(file)?, fs::statat(self.dir(), JOURNAL, AtFlags::SYMLINK_NOFOLLOW)?);
        let same = ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
        if !same || *length != expected || ours.st_size as u64 != expected {
            return Err(moved("the journal was replaced or changed"));
        }
        self.check_place()
    }

    fn journal_replace(&self, bytes: &[u8]) -> io::Result<()> {
        let mut dirty = Vec::new();
        self.make_dirs(&format!("{TMP}/0"), &mut dirty)?;
        let (tmp, file) = self.write_tmp(bytes)?;
        fs::renameat(self.dir(), &tmp, self.dir(), JOURNAL)?;
        *lock(&self.journal) = Some((file, bytes.len() as u64));
        self.sync_dir("")?;
        self.check_place()
    }

    fn mark(&self, mark: &[u8; MARK_BYTES]) -> io::Result<()> {
        let mut acked = lock(&self.acked);
        let file = match &mut *acked {
            Some(file) => file,
            none => {
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                none.insert(fs::openat(self.dir(), ACKED, flags, Mode::empty())?.into())
            }
        };
        file.write_all_at(mark, 0)
    }
}
