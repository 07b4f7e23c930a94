//! Reading entries in order, and following a log that grows.
//!
//! Reading is not verifying: what is shown is what the files say. Only entries that were acknowledged are shown, as
//! far as the mark tells; so nobody sees an entry that a crash could take back.
//!
//! Following waits on inotify: the node overwrites the mark after each sync, which wakes every follower. There is no
//! polling.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::entry::Entry;
use crate::journal::{JOURNAL_BYTES_MAX, Journal, MARK_BYTES, Mark, record};
use crate::log::unavailable;
use crate::note::{NOTE_BYTES_MAX, Note};
use crate::recover::read_tile;
use crate::store::disk::ReadDir;
use crate::store::{ACKED, CHECKPOINT, Files, JOURNAL};
use crate::tile::{Kind, TILE_WIDTH, Tile};

/// How often a batch is looked for in files that a publication is changing.
const RACES_MAX: u32 = 8;

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its index.
    pub index: u64,
    /// Its bytes. From a log that was not verified they may be anything: [`crate::text::printable`] before printing.
    pub bytes: Vec<u8>,
}

impl Stored {
    /// The entry, if it is one and claims this index.
    ///
    /// # Errors
    /// `E_AUDIT_ENTRY`.
    pub fn entry(&self) -> Result<Entry<'_>> {
        match Entry::parse(&self.bytes) {
            Ok(entry) if entry.seq() == self.index => Ok(entry),
            _ => Err(Error::with(
                Code::AuditEntry,
                format!("entry {} is not canonical or out of place", self.index),
            )),
        }
    }
}

/// Reads a log from some index on.
#[derive(Debug)]
pub struct Reader {
    dir: ReadDir,
    next: u64,
    watch: Option<OwnedFd>,
    path: std::path::PathBuf,
}

impl Reader {
    /// Opens the log in `dir` to read from entry `from` on.
    ///
    /// # Errors
    /// `E_CONFIG_IO` if the directory cannot be opened.
    pub fn open(dir: &Path, from: u64) -> Result<Self> {
        Ok(Self { dir: ReadDir::open(dir)?, next: from, watch: None, path: dir.to_owned() })
    }

    /// The index of the entry that comes next.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.next
    }

    /// How many entries there are now, acknowledged ones after the checkpoint included.
    ///
    /// # Errors
    /// `E_AUDIT_FILE`, `E_CP_BODY` if there is no readable checkpoint.
    pub fn size(&self) -> Result<u64> {
        let mark = self.mark()?;
        let journal = self.journal()?;
        let end = Journal::parse(&journal).end();
        Ok(self.signed_size()?.max(end.min(mark)))
    }

    /// The entries that follow, at most some hundreds; none if there are no more now.
    ///
    /// # Errors
    /// `E_AUDIT_FILE`, `E_CP_BODY` if the files are damaged, `E_AUDIT_UNAVAILABLE` if they cannot be read.
    pub fn batch(&mut self) -> Result<Vec<Stored>> {
        for _ in 0..RACES_MAX {
            let (mark, journal) = (self.mark()?, self.journal()?);
            let signed = self.signed_size()?;
            if self.next < signed {
                // Two newer checkpoints may have taken the partial bundle away meanwhile: then look again.
                let Some(found) = self.bundle(signed)? else { continue };
                return Ok(found);
            }
            let journal = Journal::parse(&journal);
            let end = journal.end().min(mark);
            let entries = (self.next..end).map_while(|index| {
                let (bytes, _) = journal.get(index)?;
                Some(Stored { index, bytes: bytes.to_vec() })
            });
            let found: Vec<_> = entries.collect();
            self.next += found.len() as u64;
            return Ok(found);
        }
        Err(Error::new(Code::AuditFile, "a bundle is missing"))
    }

    fn bundle(&mut self, size: u64) -> Result<Option<Vec<Stored>>> {
        let tile = Tile::of(Kind::Entries, self.next, size).ok_or(Error::from(Code::Internal))?;
        let Some(bytes) = read_tile(&self.dir, tile).map_err(unavailable("reading a bundle"))? else {
            return Ok(None);
        };
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        for index in (tile.number * TILE_WIDTH..).take(tile.width.into()) {
            let (entry, after) = record(rest)
                .ok_or_else(|| Error::with(Code::AuditFile, format!("`{}` ends early", tile.path())))?;
            if index >= self.next {
                found.push(Stored { index, bytes: entry.to_vec() });
            }
            rest = after;
        }
        self.next += found.len() as u64;
        Ok(Some(found))
    }

    fn signed_size(&self) -> Result<u64> {
        let note =
            self.dir.read(CHECKPOINT, NOTE_BYTES_MAX).map_err(unavailable("reading the checkpoint"))?;
        let note = note.ok_or(Error::new(Code::AuditFile, "`checkpoint` is missing"))?;
        Ok(Note::parse(&note)?.claimed().size)
    }

    /// How far entries of the journal may be shown. A copy without a mark shows what it has.
    fn mark(&self) -> Result<u64> {
        let mark = self.dir.read(ACKED, MARK_BYTES).map_err(unavailable("reading the mark"))?;
        Ok(mark.and_then(|bytes| Mark::parse(&bytes)).map_or(u64::MAX, |mark| mark.size))
    }

    fn journal(&self) -> Result<Vec<u8>> {
        let bytes = self.dir.read(JOURNAL, JOURNAL_BYTES_MAX).map_err(unavailable("reading the journal"))?;
        Ok(bytes.unwrap_or_default())
    }

    /// Waits until the log may have more than the last [`Self::batch`] showed, or `timeout` has passed. The first
    /// call returns at once, because nobody watched before it.
    ///
    /// # Errors
    /// `E_SYSTEM` if the kernel does not watch directories for us.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let failed = |errno: Errno| Error::with(Code::System, format!("the log cannot be watched: {errno}"));
        let Some(watch) = &self.watch else {
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
            let events =
                WatchFlags::MODIFY | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
            inotify::add_watch(&watch, &self.path, events).map_err(failed)?;
            self.watch = Some(watch);
            return Ok(());
        };
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(errno) => return Err(failed(errno)),
        }
        // What happened is of no interest, only that something did: drain it, then look at the files.
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::IGNORED) {
                return Err(Error::new(Code::AuditFile, "the log's directory was removed"));
            }
        }
        Ok(())
    }
}

/// Every entry from `from` on that there is now.
///
/// # Errors
/// As [`Reader::open`]; each item as [`Reader::batch`].
pub fn entries(dir: &Path, from: u64) -> Result<impl Iterator<Item = Result<Stored>>> {
    let mut reader = Reader::open(dir, from)?;
    let mut failed = false;
    let batches = std::iter::from_fn(move || {
        if failed {
            return None;
        }
        match reader.batch() {
            Ok(batch) if batch.is_empty() => None,
            Ok(batch) => Some(batch.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => {
                failed = true;
                Some(vec![Err(error)])
            }
        }
    });
    Ok(batches.flatten())
}
