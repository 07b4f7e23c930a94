//! One log: stage, commit, publish.
//!
//! [`Log::append`] only changes memory. [`Log::sync`] is the commit point for everything that was staged.
//! [`Log::publish`] brings committed entries under a signed checkpoint; it can be cut in three
//! ([`Log::prepare`], [`crate::publish::Publication::run`], [`Log::finish`]) so that its slow middle runs elsewhere.
//!
//! After any failed write the log is *lost*: it refuses everything, since nobody knows what the device has. Drop it
//! and open the directory again.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;

use crate::draft::Draft;
use crate::hash::Hash;
use crate::journal::Mark;
use crate::key::{LogKey, Origin, Vkey};
use crate::note::Checkpoint;
use crate::publish::Publication;
use crate::recover::Recovery;
use crate::store::Store;
use crate::tile::TILE_WIDTH;
use crate::tree::{FullTile, Tree};

/// Most entries that may wait for a checkpoint. They are in memory (about 300 bytes each), and recovery replays
/// them; a device that cannot publish for so long has failed.
pub const UNPUBLISHED_MAX: u64 = 256 * 1024;

/// Who writes a log: its name, the name of the node in its entries, the keys that sign.
pub struct Identity {
    origin: Origin,
    node: Origin,
    keys: Vec<LogKey>,
}

impl Identity {
    /// A log of this name, signed with this key; the node has the log's name.
    #[must_use]
    pub fn new(origin: Origin, key: LogKey) -> Self {
        Self { node: origin.clone(), origin, keys: vec![key] }
    }

    /// Names the node differently.
    #[must_use]
    pub fn with_node(mut self, node: Origin) -> Self {
        self.node = node;
        self
    }

    /// Signs with another key as well: for the time of a rotation.
    #[must_use]
    pub fn with_key(mut self, key: LogKey) -> Self {
        self.keys.push(key);
        self
    }

    /// The log's name.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The public halves of the keys.
    #[must_use]
    pub fn vkeys(&self) -> Vec<Vkey> {
        self.keys.iter().map(|key| key.vkey(&self.origin)).collect()
    }

    pub(crate) fn sign(&self, size: u64, root: Hash) -> String {
        Checkpoint { origin: self.origin.clone(), size, root }.sign(&self.keys)
    }
}

/// An open log. One per directory.
pub struct Log {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) identity: Arc<Identity>,
    /// The right edge, staged entries included.
    pub(crate) tree: Tree,
    /// Leaf hash of the last entry, staged ones included.
    pub(crate) last: Hash,
    /// Tiles of hashes that were finished and are in no publication yet.
    pub(crate) finished: Vec<FullTile>,
    /// Entries with their lengths from number `base` on: first those that share a bundle with the last published
    /// one, then all unpublished ones. Bundles and journal are slices of it.
    pub(crate) stream: Vec<u8>,
    /// Where each entry of `stream` begins.
    pub(crate) starts: Vec<usize>,
    /// Number of the first entry in `stream`: a border of bundles.
    pub(crate) base: u64,
    /// Entries that are committed.
    pub(crate) durable: u64,
    /// Length of the journal.
    pub(crate) journal: u64,
    /// Entries under the last checkpoint.
    pub(crate) published: u64,
    /// Entries under the checkpoint before: its partial tiles are kept for readers that still hold it.
    pub(crate) published_before: u64,
    /// The checkpoint as it stands in the directory.
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) publishing: bool,
    pub(crate) lost: Option<Error>,
    pub(crate) recovery: Recovery,
}

/// What a failed write becomes. The system's number is for the operator; no path and no text of a peer is in it.
pub(crate) fn unavailable(step: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::with(Code::AuditUnavailable, format!("{step} failed: {error}"))
}

impl Log {
    /// Number of entries, staged ones included: the next entry's `seq`.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Number of committed entries.
    #[must_use]
    pub const fn durable(&self) -> u64 {
        self.durable
    }

    /// Number of entries under the last checkpoint.
    #[must_use]
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// The root over all entries, staged ones included.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// What opening the log found.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The checkpoint as it stands in the directory.
    #[must_use]
    pub fn checkpoint(&self) -> &[u8] {
        self.checkpoint.as_deref().unwrap_or_default()
    }

    /// The device, for publishing on another thread.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    pub(crate) fn usable(&self) -> Result<()> {
        match &self.lost {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Remembers that the device cannot be trusted any more.
    pub(crate) fn lose(&mut self, error: Error) -> Error {
        self.lost.get_or_insert(error).clone()
    }

    /// Stages an entry and returns its number. Nothing is recorded until [`Self::sync`] returns `Ok`.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if the log is lost or [`UNPUBLISHED_MAX`] entries wait for a checkpoint.
    pub fn append(&mut self, draft: &Draft, time: UnixMicros) -> Result<u64> {
        self.usable()?;
        if self.size() - self.published >= UNPUBLISHED_MAX {
            return Err(Error::new(Code::AuditUnavailable, "too many entries wait for a checkpoint"));
        }
        let seq = self.size();
        let start = self.stream.len();
        self.stream.extend_from_slice(&[0, 0]);
        draft.encode(&mut self.stream, seq, self.last, time, &self.identity.node);
        // A draft's entry fits 16 bits by construction.
        let length = (self.stream.len() - start - 2) as u16;
        self.stream[start..start + 2].copy_from_slice(&length.to_be_bytes());
        self.stage(start);
        Ok(seq)
    }

    /// Takes the entry that stands at `start`, the end of `stream`, into the tree. Recovery comes this way too.
    pub(crate) fn stage(&mut self, start: usize) {
        let leaf = Hash::leaf(&self.stream[start + 2..]);
        self.starts.push(start);
        self.last = leaf;
        let finished = &mut self.finished;
        self.tree.push(leaf, |tile| finished.push(tile));
    }

    /// Where entry `seq` begins in `stream`; its end for the next one's number.
    pub(crate) fn offset(&self, seq: u64) -> usize {
        self.starts.get((seq - self.base) as usize).copied().unwrap_or(self.stream.len())
    }

    /// Commits everything that was staged.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE`: nothing staged counts as recorded, and the log is lost.
    pub fn sync(&mut self) -> Result<()> {
        self.usable()?;
        if self.durable == self.size() {
            return Ok(());
        }
        let outcome = self.commit();
        outcome.map_err(|error| self.lose(error))
    }

    fn commit(&mut self) -> Result<()> {
        let bytes = &self.stream[self.offset(self.durable)..];
        // 1. The entries go to the end of the journal. A crash here leaves a torn tail of which nobody was told:
        //    recovery keeps what is whole and cuts the rest.
        self.store.journal_append(self.journal, bytes).map_err(unavailable("writing the journal"))?;
        let length = self.journal + bytes.len() as u64;
        // 2. COMMIT POINT. After this the entries are recorded, whatever happens. A crash right here leaves entries
        //    that nobody was told of: recovery keeps them.
        self.store.journal_sync(length).map_err(unavailable("syncing the journal"))?;
        // 3. The mark says so, for the case that somebody cuts the journal. A crash here leaves an older mark,
        //    which allows more than it should and forbids nothing that is right.
        let mark = Mark { size: self.size(), last: self.last };
        self.store.mark(&mark.encode()).map_err(unavailable("writing the mark"))?;
        self.journal = length;
        self.durable = self.size();
        Ok(())
    }

    /// Whether committed entries wait for a checkpoint and no publication is under way.
    #[must_use]
    pub const fn wants_publishing(&self) -> bool {
        self.lost.is_none()
            && !self.publishing
            && (self.checkpoint.is_none() || self.durable > self.published)
    }

    /// Publishes what is committed, here and now.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn publish(&mut self) -> Result<()> {
        self.sync()?;
        let Some(publication) = self.prepare() else { return Ok(()) };
        let store = self.store();
        let outcome = publication.run(&*store);
        self.finish(publication, outcome)
    }

    /// The number of the first entry of the bundle that holds entry `seq`.
    pub(crate) const fn bundle_start(seq: u64) -> u64 {
        seq - seq % TILE_WIDTH
    }

    /// Takes back the result of a publication, and shortens the journal.
    ///
    /// # Errors
    /// As [`Self::sync`]; also if the journal cannot be shortened.
    pub fn finish(&mut self, publication: Publication, outcome: Result<()>) -> Result<()> {
        self.publishing = false;
        outcome.map_err(|error| self.lose(error))?;
        self.usable()?;
        let before = std::mem::replace(&mut self.published_before, self.published);
        self.published = publication.size();
        self.checkpoint = Some(publication.into_checkpoint());
        // The journal keeps what was committed since. A crash before this leaves entries in it that the checkpoint
        // has too: recovery compares and skips them.
        let rest = &self.stream[self.offset(self.published)..self.offset(self.durable)];
        self.journal = rest.len() as u64;
        let outcome = self.store.journal_replace(rest).map_err(unavailable("shortening the journal"));
        outcome.map_err(|error| self.lose(error))?;
        self.forget_published();
        self.remove_old_partials(before);
        Ok(())
    }

    /// Drops from memory what neither a bundle nor the journal needs any more.
    fn forget_published(&mut self) {
        let base = Self::bundle_start(self.published);
        let cut = self.offset(base);
        self.stream.drain(..cut);
        self.starts.drain(..(base - self.base) as usize);
        self.starts.iter_mut().for_each(|start| *start -= cut);
        self.base = base;
    }
}
