//! Opening a log.
//!
//! Recovery has no second half of its own: it reads the directory up to the checkpoint, takes the journal's entries
//! the way of an append, and publishes them as every publication does.

use std::path::Path;
use std::sync::Arc;

use caps::error::{Code, Error, Result};

use crate::hash::Hash;
use crate::journal::{JOURNAL_BYTES_MAX, Journal, MARK_BYTES, Mark, Rest, record};
use crate::key::{LogKey, Origin};
use crate::log::{Identity, Log, unavailable};
use crate::note::{Checkpoint, NOTE_BYTES_MAX, Note};
use crate::store::disk::Disk;
use crate::store::{ACKED, CHECKPOINT, Files, JOURNAL, Store, TILE};
use crate::tile::{Kind, LEVELS_MAX, TILE_WIDTH, Tile};
use crate::tree::{Tree, tile_hashes};
use crate::verify;

/// How an opening goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Check every entry and tile, not only the right edge and the journal. About 1 s for 300 MB.
    pub verify_all: bool,
    /// Entries that this process itself has acknowledged, when it opens a device again after a failure. It knows
    /// better than any mark: fewer is a rollback, and what is more was refused to whoever asked, so it is cut.
    pub acknowledged: Option<u64>,
}

/// What an opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Entries under the checkpoint that was found.
    pub checkpoint: u64,
    /// Entries that the journal had beyond it.
    pub recovered: u64,
    /// Bytes that were cut from the journal's end because nobody had been told of them.
    pub cut_bytes: u64,
}

fn rollback(detail: &'static str) -> Error {
    Error::new(Code::AuditRollback, detail)
}

fn read(store: &dyn Store, path: &str, max: usize) -> Result<Option<Vec<u8>>> {
    store.read(path, max).map_err(unavailable("reading the log"))
}

/// A tile that a tree of `size` leaves has: the partial one, or the full one if a publication was ahead.
pub(crate) fn read_tile<F: Files + ?Sized>(files: &F, tile: Tile) -> std::io::Result<Option<Vec<u8>>> {
    let max = tile.kind.bytes_max();
    match files.read(&tile.path(), max)? {
        None if !tile.is_full() => files.read(&tile.full_path(), max),
        found => Ok(found),
    }
}

impl Log {
    /// Opens the log in `dir`, making the directory if it is missing (its parent must be there), verifies all of
    /// it, recovers what was committed after the last checkpoint and publishes that.
    ///
    /// # Errors
    /// `E_LOCKED` if another process writes it; `E_CONFIG_IO` if it cannot be opened; the codes of tampering, with
    /// the file and index, if it does not verify; `E_AUDIT_UNAVAILABLE` if the device fails.
    pub fn open(dir: &Path, origin: Origin, key: LogKey) -> Result<Self> {
        let identity = Arc::new(Identity::new(origin, key));
        let opening = Opening { verify_all: true, acknowledged: None };
        Self::open_on(Arc::new(Disk::create(dir)?), identity, opening)
    }

    /// Opens the log on a device that was just opened itself.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(store: Arc<dyn Store>, identity: Arc<Identity>, opening: Opening) -> Result<Self> {
        let (mut log, journal, mark) = match read(&*store, CHECKPOINT, NOTE_BYTES_MAX)? {
            None => (Self::fresh(&store, identity)?, Vec::new(), None),
            Some(note) => {
                if opening.verify_all {
                    let options = verify::Options { vkeys: identity.vkeys(), against: Vec::new() };
                    verify::log(&*store, &options).map_err(|damage| damage.into_error())?;
                }
                let mark = match read(&*store, ACKED, MARK_BYTES)? {
                    None => None,
                    Some(bytes) => {
                        Some(Mark::parse(&bytes).ok_or(Error::new(Code::AuditFile, "`acked` is damaged"))?)
                    }
                };
                let journal = read(&*store, JOURNAL, JOURNAL_BYTES_MAX)?;
                let journal = journal.ok_or(Error::new(Code::AuditFile, "`journal` is missing"))?;
                (Self::at_checkpoint(&store, identity, note)?, journal, mark)
            }
        };
        log.replay(&journal, opening.acknowledged)?;
        log.compare(mark, opening.acknowledged)?;
        if opening.acknowledged.is_some() {
            // The mark may name entries that are about to be cut. It goes down before them: a crash in between
            // leaves a mark that is behind, never one that is ahead.
            log.write_mark()?;
        }
        // What was replayed becomes durable in a new file: a kernel that failed to write the old one may have kept
        // pages that read well and are on no disk.
        let rest = log.stream[log.offset(log.published)..].to_vec();
        log.store.journal_replace(&rest).map_err(unavailable("writing the journal"))?;
        log.journal = rest.len() as u64;
        log.durable = log.size();
        log.write_mark()?;
        log.publish()?;
        Ok(log)
    }

    /// Puts the mark in place durably.
    fn write_mark(&self) -> Result<()> {
        let mark = Mark { size: self.size(), last: self.last };
        let mark = (ACKED.to_owned(), mark.encode().to_vec());
        self.store.put(&[mark]).map_err(unavailable("writing the mark"))
    }

    /// A log of which nothing exists.
    fn fresh(store: &Arc<dyn Store>, identity: Arc<Identity>) -> Result<Self> {
        let tiles = store.list(TILE).map_err(unavailable("reading the log"))?;
        let journal = read(&**store, JOURNAL, JOURNAL_BYTES_MAX)?.unwrap_or_default();
        let mark = read(&**store, ACKED, MARK_BYTES)?.and_then(|bytes| Mark::parse(&bytes));
        // The first opening makes the journal and the mark before the checkpoint, and both say nothing then.
        if !tiles.is_empty() || !journal.is_empty() || mark.is_some_and(|mark| mark.size > 0) {
            return Err(rollback("the checkpoint is missing, and there are traces of one"));
        }
        Ok(Self::empty(store, identity))
    }

    fn empty(store: &Arc<dyn Store>, identity: Arc<Identity>) -> Self {
        Self {
            store: Arc::clone(store),
            identity,
            tree: Tree::new(),
            last: Hash::ZERO,
            finished: Vec::new(),
            stream: Vec::new(),
            starts: Vec::new(),
            base: 0,
            durable: 0,
            journal: 0,
            published: 0,
            published_before: 0,
            checkpoint: None,
            publishing: false,
            lost: None,
            recovery: Recovery::default(),
        }
    }

    /// The log as its checkpoint has it.
    fn at_checkpoint(store: &Arc<dyn Store>, identity: Arc<Identity>, note: Vec<u8>) -> Result<Self> {
        let signed = Note::parse(&note)?.verify(&identity.vkeys())?;
        let Checkpoint { origin, size, root } = signed.checkpoint().clone();
        if origin != *identity.origin() {
            return Err(Error::new(Code::CheckpointBody, "the checkpoint is another log's"));
        }
        let mut levels: [Vec<Hash>; LEVELS_MAX] = Default::default();
        for tile in Tile::partials(size) {
            if let Kind::Hashes(level) = tile.kind {
                levels[usize::from(level)] = edge_hashes(&**store, tile)?;
            }
        }
        let mut log = Self::empty(store, identity);
        log.tree = Tree::from_edge(size, levels).filter(|tree| tree.root() == root).ok_or(Error::new(
            Code::RootMismatch,
            "the tiles on the right edge do not hash to the checkpoint's root",
        ))?;
        log.base = Self::bundle_start(size);
        log.load_bundle(size)?;
        (log.durable, log.published, log.published_before) = (size, size, size);
        log.checkpoint = Some(note);
        log.recovery.checkpoint = size;
        Ok(log)
    }

    /// Loads the entries that share a bundle with the next one, and the last entry's hash.
    fn load_bundle(&mut self, size: u64) -> Result<()> {
        let Some(last) = size.checked_sub(1) else { return Ok(()) };
        let tile = Tile::of(Kind::Entries, last, size).ok_or(Error::from(Code::Internal))?;
        let bundle = read_tile(&*self.store, tile).map_err(unavailable("reading the log"))?;
        let bundle = bundle.ok_or_else(|| missing(tile))?;
        let known = self.last_leaves(tile)?;
        let mut rest = &bundle[..];
        for (index, known) in (tile.number * TILE_WIDTH..).zip(known) {
            let short = || Error::with(Code::AuditFile, format!("`{}` ends early", tile.path()));
            let (entry, after) = record(rest).ok_or_else(short)?;
            if Hash::leaf(entry) != known {
                return Err(Error::with(
                    Code::AuditEntry,
                    format!("entry {index} is not what its tile says"),
                ));
            }
            if !tile.is_full() {
                self.starts.push(self.stream.len());
                self.stream.extend_from_slice(&rest[..2 + entry.len()]);
            }
            self.last = known;
            rest = after;
        }
        Ok(())
    }

    /// The leaf hashes of the last bundle, under the root that was checked.
    fn last_leaves(&self, bundle: Tile) -> Result<Vec<Hash>> {
        if !bundle.is_full() {
            return Ok(self.tree.edge(0).to_vec());
        }
        // The tile of a full bundle is not on the edge: climb until its root is.
        let mut tile = Tile { kind: Kind::Hashes(0), ..bundle };
        let leaves = edge_hashes(&*self.store, tile)?;
        let mut root = Hash::perfect(&leaves);
        for level in 1..LEVELS_MAX {
            let edge = self.tree.edge(level);
            if let Some(known) = edge.last() {
                let same = *known == root;
                return same
                    .then_some(leaves)
                    .ok_or(Error::new(Code::TileMismatch, "the last tile is not the tree's"));
            }
            tile = Tile { kind: Kind::Hashes(level as u8), number: tile.number / TILE_WIDTH, ..tile };
            let above = edge_hashes(&*self.store, tile)?;
            if above.last() != Some(&root) {
                return Err(Error::new(Code::TileMismatch, "the last tile is not the tree's"));
            }
            root = Hash::perfect(&above);
        }
        Err(Error::from(Code::Internal))
    }

    /// Takes the journal's entries after the checkpoint as an append takes new ones.
    fn replay(&mut self, bytes: &[u8], acknowledged: Option<u64>) -> Result<()> {
        let journal = Journal::parse(bytes);
        let size = self.size();
        if !journal.entries.is_empty() && journal.first > size {
            return Err(rollback("the journal begins after the checkpoint ends"));
        }
        let end = acknowledged.map_or(journal.end(), |n| n.min(journal.end()));
        let mut kept = 0;
        for seq in journal.first..end {
            let Some((entry, leaf)) = journal.get(seq) else { break };
            kept += 2 + entry.len();
            if seq < size {
                // Below the base the tiles alone are trusted.
                let known = seq.checked_sub(self.base).and_then(|i| self.tree.edge(0).get(i as usize));
                if known.is_some_and(|known| *known != leaf) {
                    return Err(Error::with(Code::AuditEntry, format!("`journal` has another entry {seq}")));
                }
                continue;
            }
            let before = seq.checked_sub(1).and_then(|before| journal.get(before));
            let prev = before.map_or(journal.prev, |(_, leaf)| leaf);
            if prev != self.last {
                return Err(Error::with(Code::AuditEntry, format!("`journal`: entry {seq} is not chained")));
            }
            let start = self.stream.len();
            self.stream.extend_from_slice(&(entry.len() as u16).to_be_bytes());
            self.stream.extend_from_slice(entry);
            self.stage(start);
            self.recovery.recovered += 1;
        }
        // Bytes that do not read may go only if nobody was told of them: torn, or known by this very process.
        if let (Rest::Damaged(_), None) = (journal.rest, acknowledged) {
            return Err(Error::with(
                Code::AuditEntry,
                format!("`journal` is damaged at entry {}", journal.end()),
            ));
        }
        self.recovery.cut_bytes = (bytes.len() - kept) as u64;
        Ok(())
    }

    /// Refuses a log that is shorter than what was acknowledged.
    fn compare(&self, mark: Option<Mark>, acknowledged: Option<u64>) -> Result<()> {
        let size = self.size();
        let acknowledged = acknowledged.or(mark.map(|mark| mark.size));
        if acknowledged.is_some_and(|n| n > size) {
            return Err(rollback("entries are missing that were acknowledged"));
        }
        let Some(mark) = mark else { return Ok(()) };
        if mark.size == size && mark.last != self.last {
            return Err(rollback("the last entry is not the one that was acknowledged"));
        }
        Ok(())
    }
}

fn missing(tile: Tile) -> Error {
    Error::with(Code::AuditFile, format!("`{}` is missing", tile.path()))
}

fn edge_hashes(store: &dyn Store, tile: Tile) -> Result<Vec<Hash>> {
    let bytes =
        read_tile(store, tile).map_err(unavailable("reading the log"))?.ok_or_else(|| missing(tile))?;
    let wanted = usize::from(tile.width) * crate::tile::HASH_BYTES;
    let hashes = bytes.get(..wanted).and_then(|bytes| tile_hashes(bytes, tile.width));
    hashes.ok_or_else(|| Error::with(Code::AuditFile, format!("`{}` ends early", tile.path())))
}
