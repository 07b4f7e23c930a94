//! Publishing: tiles, then the checkpoint.
//!
//! A publication is made on the log's thread and holds all its bytes, so it can run on another one. It is a function
//! of the entries alone: run again after a crash, it writes the same bytes.

use caps::error::{Code, Error, Result};

use crate::log::{Log, unavailable};
use crate::note::NOTE_BYTES_MAX;
use crate::store::{CHECKPOINT, Store};
use crate::tile::{Kind, TILE_WIDTH, Tile};
use crate::tree::tile_bytes;

/// Committed entries on their way under a checkpoint.
#[must_use]
pub struct Publication {
    size: u64,
    tiles: Vec<(String, Vec<u8>)>,
    checkpoint: Vec<u8>,
    /// The checkpoint that this one replaces, and no other.
    replaces: Option<Vec<u8>>,
}

impl Publication {
    /// Entries under the new checkpoint.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn into_checkpoint(self) -> Vec<u8> {
        self.checkpoint
    }

    /// Writes it.
    ///
    /// # Errors
    /// `E_AUDIT_UNAVAILABLE` if the device fails, `E_FORK` if somebody else put a checkpoint in place.
    pub fn run(&self, store: &dyn Store) -> Result<()> {
        // 1. Tiles and bundles, whole and durable. A crash here leaves tiles ahead of the checkpoint; they have the
        //    bytes that the next publication will write, and readers do not look past the checkpoint.
        store.put(&self.tiles).map_err(unavailable("writing tiles"))?;
        // 2. Compare: the checkpoint must be the one this log left there. Another one means another writer, and a
        //    log must never have two heads.
        let present =
            store.read(CHECKPOINT, NOTE_BYTES_MAX).map_err(unavailable("reading the checkpoint"))?;
        if present != self.replaces {
            return Err(Error::new(Code::Fork, "the checkpoint is not the one that this log wrote last"));
        }
        // 3. Swap. Before the rename the old checkpoint stands, after it the new one; both are true.
        let checkpoint = (CHECKPOINT.to_owned(), self.checkpoint.clone());
        store.put(&[checkpoint]).map_err(unavailable("writing the checkpoint"))
        // 4. The journal is shortened, in `Log::finish`.
    }
}

impl Log {
    /// Begins a publication of all committed entries. `None` if there is nothing to publish, something is staged
    /// and not committed, or another publication is under way.
    pub fn prepare(&mut self) -> Option<Publication> {
        if !self.wants_publishing() || self.durable != self.size() {
            return None;
        }
        self.publishing = true;
        let size = self.durable;
        let mut tiles: Vec<_> = std::mem::take(&mut self.finished)
            .iter()
            .map(|full| (full.tile.path(), tile_bytes(&full.hashes)))
            .collect();
        for tile in Tile::partials(size) {
            if let Kind::Hashes(level) = tile.kind {
                tiles.push((tile.path(), tile_bytes(self.tree.edge(usize::from(level)))));
            }
        }
        let mut start = Self::bundle_start(self.published);
        while start < size {
            let end = size.min(start + TILE_WIDTH);
            let tile = Tile { kind: Kind::Entries, number: start / TILE_WIDTH, width: (end - start) as u16 };
            tiles.push((tile.path(), self.stream[self.offset(start)..self.offset(end)].to_vec()));
            start = end;
        }
        let checkpoint = self.identity.sign(size, self.tree.root()).into_bytes();
        Some(Publication { size, tiles, checkpoint, replaces: self.checkpoint.clone() })
    }

    /// Removes the partial tiles of the checkpoint before the last one, of `size` entries. Those of the last one
    /// stay, for readers that fetched it a moment ago. Best effort: what stays is true and in nobody's way.
    pub(crate) fn remove_old_partials(&self, size: u64) {
        let kept: Vec<_> =
            [self.published_before, self.published].into_iter().flat_map(Tile::partials).collect();
        for tile in Tile::partials(size).filter(|tile| !kept.contains(tile)) {
            let _ = self.store.remove(&tile.path());
            if !kept.iter().any(|other| (other.kind, other.number) == (tile.kind, tile.number)) {
                let _ = self.store.remove(&tile.partial_dir());
            }
        }
    }
}
