//! One reading of a log, from its first entry to its last file.

use std::collections::BTreeMap;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;

use super::{Damage, Options, Summary};
use crate::entry::Entry;
use crate::hash::Hash;
use crate::journal::{JOURNAL_BYTES_MAX, Journal, MARK_BYTES, Mark, Rest, record};
use crate::note::{NOTE_BYTES_MAX, Note, Signed};
use crate::recover::read_tile;
use crate::store::{ACKED, CHECKPOINT, Files, JOURNAL, TILE};
use crate::text::printable;
use crate::tile::{HASH_BYTES, Kind, LEVELS_MAX, TILE_WIDTH, Tile};
use crate::tree::{FullTile, Tree, tile_bytes};

/// The files that change. Read in an order that works while the log is written: whatever a later file is newer by,
/// the earlier one has or had.
#[derive(PartialEq, Eq)]
pub(super) struct Heads {
    mark: Option<Vec<u8>>,
    journal: Option<Vec<u8>>,
    checkpoint: Vec<u8>,
}

impl Heads {
    pub(super) fn read(files: &dyn Files) -> Result<Self, Damage> {
        let mark = files.read(ACKED, MARK_BYTES).map_err(Damage::io(ACKED))?;
        let journal = files.read(JOURNAL, JOURNAL_BYTES_MAX).map_err(Damage::io(JOURNAL))?;
        let checkpoint = files.read(CHECKPOINT, NOTE_BYTES_MAX).map_err(Damage::io(CHECKPOINT))?;
        let checkpoint =
            checkpoint.ok_or_else(|| Damage::new(Code::AuditFile, CHECKPOINT, None, "is missing"))?;
        Ok(Self { mark, journal, checkpoint })
    }
}

fn note_damage(error: &Error) -> Damage {
    let detail = match error.code() {
        Code::CheckpointBody => "is no checkpoint",
        _ => "no given key of this log signed it, or a signature does not verify",
    };
    Damage::new(error.code(), CHECKPOINT, None, detail)
}

/// One reading of a log from its first entry to its last.
pub(super) struct Walk<'a> {
    files: &'a dyn Files,
    signed: Signed,
    journal: Journal<'a>,
    mark: Option<Mark>,
    /// Partial tiles and bundle of the checkpoint, read before a newer checkpoint could make them go.
    edge: BTreeMap<Tile, Vec<u8>>,
    /// Roots that earlier checkpoints signed, by size.
    against: BTreeMap<u64, Hash>,
    tree: Tree,
    last: Hash,
    times: Option<(UnixMicros, UnixMicros)>,
    /// The entries of the current bundle, with their lengths.
    bundle: Vec<u8>,
    /// The first entry that is not as it must be. Reported if the hashes do not report something first.
    suspect: Option<Damage>,
    /// A file with more than is known: fine while the log is written, damage otherwise.
    pub(super) ahead: Option<Damage>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(files: &'a dyn Files, options: &Options, heads: &'a Heads) -> Result<Self, Damage> {
        let note = Note::parse(&heads.checkpoint).and_then(|note| note.verify(&options.vkeys));
        let signed = note.map_err(|error| note_damage(&error))?;
        let mark = match &heads.mark {
            None => None,
            Some(bytes) => Some(
                Mark::parse(bytes)
                    .ok_or_else(|| Damage::new(Code::AuditFile, ACKED, None, "its check sum is wrong"))?,
            ),
        };
        // A copy of the standard's files alone has neither.
        if mark.is_some() && heads.journal.is_none() {
            return Err(Damage::new(Code::AuditFile, JOURNAL, None, "is missing"));
        }
        let mut edge = BTreeMap::new();
        for tile in Tile::partials(signed.checkpoint().size) {
            if let Some(bytes) = read_edge(files, tile).map_err(Damage::io(&tile.path()))? {
                edge.insert(tile, bytes);
            }
        }
        let mut against = BTreeMap::new();
        for bytes in &options.against {
            let earlier = Note::parse(bytes).and_then(|note| note.verify(&options.vkeys));
            let earlier = earlier
                .map_err(|error| Damage { file: "the earlier checkpoint".into(), ..note_damage(&error) })?;
            let earlier = earlier.checkpoint();
            if earlier.origin != signed.checkpoint().origin {
                continue;
            }
            if against.insert(earlier.size, earlier.root).is_some_and(|other| other != earlier.root) {
                return Err(Damage::new(Code::Fork, CHECKPOINT, None, "two earlier checkpoints disagree"));
            }
        }
        Ok(Self {
            files,
            signed,
            journal: Journal::parse(heads.journal.as_deref().unwrap_or_default()),
            mark,
            edge,
            against,
            tree: Tree::new(),
            last: Hash::ZERO,
            times: None,
            bundle: Vec::new(),
            suspect: None,
            ahead: None,
        })
    }

    pub(super) fn run(&mut self) -> Result<Summary, Damage> {
        let (size, root) = (self.signed.checkpoint().size, self.signed.checkpoint().root);
        self.compare_earlier()?;
        for number in 0..size.div_ceil(TILE_WIDTH) {
            self.signed_bundle(number, size)?;
        }
        self.signed_edge()?;
        if self.tree.root() != root {
            let at = self.suspect.take();
            let (file, index) = at.map_or((CHECKPOINT.to_owned(), None), |at| (at.file, at.index));
            return Err(Damage::new(
                Code::RootMismatch,
                file,
                index,
                "the entries are not those that were signed",
            ));
        }
        // Signed, and still not what an entry must be: a defect of whoever signed.
        if let Some(damage) = self.suspect.take() {
            return Err(damage);
        }
        self.unsigned_tail(size)?;
        self.other_files()?;
        if let Some((&size, _)) = self.against.range(self.tree.size() + 1..).next() {
            return Err(Damage::new(
                Code::AuditRollback,
                CHECKPOINT,
                Some(size),
                "an earlier checkpoint is of more entries",
            ));
        }
        let torn_bytes = match self.journal.rest {
            Rest::Torn { bytes } => bytes,
            Rest::Clean | Rest::Damaged(_) => 0,
        };
        Ok(Summary {
            signed: self.signed.clone(),
            unsigned: self.tree.size() - size,
            torn_bytes,
            times: self.times,
        })
    }

    /// The entries and leaf hashes of one bundle under the checkpoint.
    fn signed_bundle(&mut self, number: u64, size: u64) -> Result<(), Damage> {
        let first = number * TILE_WIDTH;
        let width = (size - first).min(TILE_WIDTH) as u16;
        let entries = Tile { kind: Kind::Entries, number, width };
        let hashes = Tile { kind: Kind::Hashes(0), number, width };
        let (bundle, leaves) = (self.tile(entries, first)?, self.tile(hashes, first)?);
        if leaves.len() < usize::from(width) * HASH_BYTES {
            return Err(Damage::new(Code::AuditFile, hashes.path(), Some(first), "has the wrong length"));
        }
        let mut rest = &bundle[..];
        for (i, known) in leaves.as_chunks::<HASH_BYTES>().0.iter().take(width.into()).enumerate() {
            let index = first + i as u64;
            let (entry, after) = record(rest)
                .ok_or_else(|| Damage::new(Code::AuditFile, entries.path(), Some(index), "ends early"))?;
            let leaf = Hash::leaf(entry);
            let fits = self.look_at(entry, index, &entries.path());
            if leaf.0 != *known {
                // Either the entry or the tile was changed: the next entry's `prev` knows which.
                let next = record(after).and_then(|(next, _)| Entry::parse(next).ok());
                let chained = next.is_none_or(|next| next.prev() == leaf);
                return Err(if fits && chained {
                    Damage::new(
                        Code::TileMismatch,
                        hashes.path(),
                        Some(index),
                        "is not the hash of the entry",
                    )
                } else {
                    Damage::new(
                        Code::AuditEntry,
                        entries.path(),
                        Some(index),
                        "is not the entry that was recorded",
                    )
                });
            }
            if self.journal.get(index).is_some_and(|(_, other)| other != leaf) {
                return Err(Damage::new(
                    Code::AuditEntry,
                    JOURNAL,
                    Some(index),
                    "is another entry than in the bundle",
                ));
            }
            self.push(entry, leaf)?;
            rest = after;
        }
        // A bundle that is larger than the checkpoint needs is explained later, by the journal.
        if entries.is_full() && !rest.is_empty() {
            return Err(Damage::new(
                Code::AuditFile,
                entries.path(),
                Some(first),
                "has more than 256 entries",
            ));
        }
        Ok(())
    }

    /// Whether an entry is canonical and fits its place. If not, it is remembered as the first suspect.
    fn look_at(&mut self, bytes: &[u8], index: u64, file: &str) -> bool {
        let detail = match Entry::parse(bytes) {
            Err(detail) => detail,
            Ok(entry) if entry.seq() != index => "an entry out of sequence",
            Ok(entry) if entry.prev() != self.last => "an entry that is not chained to the one before",
            Ok(entry) => {
                self.times = Some((self.times.map_or(entry.time(), |(first, _)| first), entry.time()));
                return true;
            }
        };
        self.suspect.get_or_insert_with(|| Damage::new(Code::AuditEntry, file, Some(index), detail));
        false
    }

    /// Takes an entry into the tree and checks what became known by it.
    fn push(&mut self, entry: &[u8], leaf: Hash) -> Result<(), Damage> {
        self.bundle.extend_from_slice(&(entry.len() as u16).to_be_bytes());
        self.bundle.extend_from_slice(entry);
        self.last = leaf;
        let mut finished = Vec::new();
        self.tree.push(leaf, |tile| finished.push(tile));
        for FullTile { tile, hashes } in finished {
            self.finished_tile(tile, &tile_bytes(&hashes))?;
            if tile.kind == Kind::Hashes(0) {
                let bundle = std::mem::take(&mut self.bundle);
                self.same_start(Tile { kind: Kind::Entries, ..tile }, &bundle)?;
            }
        }
        if self.mark.is_some_and(|mark| mark.size == self.tree.size() && mark.last != leaf) {
            let index = Some(self.tree.size() - 1);
            return Err(Damage::new(
                Code::AuditRollback,
                ACKED,
                index,
                "names another entry as acknowledged",
            ));
        }
        self.compare_earlier()
    }

    fn compare_earlier(&self) -> Result<(), Damage> {
        match self.against.get(&self.tree.size()) {
            Some(root) if *root != self.tree.root() => Err(Damage::new(
                Code::Fork,
                CHECKPOINT,
                self.tree.size().checked_sub(1),
                "an earlier checkpoint signed other entries up to here",
            )),
            _ => Ok(()),
        }
    }

    /// A tile of which every hash is known now. Under the checkpoint it must be there.
    fn finished_tile(&mut self, tile: Tile, expected: &[u8]) -> Result<(), Damage> {
        let Kind::Hashes(level) = tile.kind else { return Ok(()) };
        let first = (tile.number * TILE_WIDTH) << (8 * u32::from(level));
        let under =
            Kind::Hashes(level).count(self.signed.checkpoint().size) >= (tile.number + 1) * TILE_WIDTH;
        if under && self.read(&tile.path(), tile.kind)?.is_none() {
            return Err(Damage::new(Code::AuditFile, tile.path(), Some(first), "is missing"));
        }
        self.same_start(tile, expected)
    }

    /// Checks every file that there is of a tile, full or partial, against what its beginning must be.
    fn same_start(&mut self, tile: Tile, expected: &[u8]) -> Result<(), Damage> {
        let mut paths = vec![tile.full_path()];
        let dir = tile.partial_dir();
        for listed in self.files.list(&dir).map_err(Damage::io(&dir))? {
            paths.push(format!("{dir}/{}", String::from_utf8_lossy(&listed.name)));
        }
        for path in paths {
            // Names that are none are reported by the last walk.
            let Some(named) = Tile::parse(&path) else { continue };
            let Some(bytes) = self.read(&path, tile.kind)? else { continue };
            let units = split(named.kind, &bytes);
            let known = split(named.kind, expected);
            let (Some(units), Some(known)) = (units, known) else {
                return Err(Damage::new(
                    Code::AuditFile,
                    path,
                    Some(first_leaf(named, 0)),
                    "has the wrong length",
                ));
            };
            if units.len() != usize::from(named.width) {
                return Err(Damage::new(
                    Code::AuditFile,
                    path,
                    Some(first_leaf(named, 0)),
                    "has the wrong length",
                ));
            }
            if let Some(at) = units.iter().zip(&known).position(|(a, b)| a != b) {
                let index = Some(first_leaf(named, at as u64));
                return Err(match named.kind {
                    Kind::Entries => {
                        Damage::new(Code::AuditEntry, path, index, "is not the entry that was recorded")
                    }
                    Kind::Hashes(_) => {
                        Damage::new(Code::TileMismatch, path, index, "is not the hash of the entries")
                    }
                });
            }
            if units.len() > known.len() {
                let index = Some(first_leaf(named, known.len() as u64));
                self.ahead.get_or_insert_with(|| {
                    Damage::new(
                        Code::AuditFile,
                        path,
                        index,
                        "has entries that are neither signed nor in the journal",
                    )
                });
            }
        }
        Ok(())
    }

    /// The partial tiles that the checkpoint needs are there.
    fn signed_edge(&mut self) -> Result<(), Damage> {
        for tile in Tile::partials(self.signed.checkpoint().size) {
            let Kind::Hashes(level) = tile.kind else { continue };
            let expected = tile_bytes(self.tree.edge(usize::from(level)));
            let bytes = self.tile(tile, first_leaf(tile, 0))?;
            if bytes.len() < expected.len() {
                return Err(Damage::new(
                    Code::AuditFile,
                    tile.path(),
                    Some(first_leaf(tile, 0)),
                    "has the wrong length",
                ));
            }
            if let Some(at) = bytes.iter().zip(&expected).position(|(a, b)| a != b) {
                let index = Some(first_leaf(tile, (at / HASH_BYTES) as u64));
                return Err(Damage::new(
                    Code::TileMismatch,
                    tile.path(),
                    index,
                    "is not the hash of the entries",
                ));
            }
        }
        Ok(())
    }

    /// The journal's entries after the checkpoint.
    fn unsigned_tail(&mut self, size: u64) -> Result<(), Damage> {
        let damage = |code, index, detail| Err(Damage::new(code, JOURNAL, Some(index), detail));
        if !self.journal.entries.is_empty() && self.journal.first > size {
            return damage(Code::AuditRollback, size, "begins after the checkpoint ends");
        }
        for index in size..self.journal.end() {
            let Some((entry, leaf)) = self.journal.get(index) else { break };
            if !self.look_at(entry, index, JOURNAL) {
                return damage(Code::AuditEntry, index, "is not chained to the entry before");
            }
            self.push(entry, leaf)?;
        }
        if let Rest::Damaged(detail) = self.journal.rest {
            return damage(Code::AuditEntry, self.journal.end().max(size), detail);
        }
        if self.mark.is_some_and(|mark| mark.size > self.tree.size()) {
            return damage(
                Code::AuditRollback,
                self.tree.size(),
                "entries are missing that were acknowledged",
            );
        }
        Ok(())
    }

    /// Files that neither the checkpoint nor a finished tile made us look at.
    fn other_files(&mut self) -> Result<(), Damage> {
        let bundle = std::mem::take(&mut self.bundle);
        let number = self.tree.size() / TILE_WIDTH;
        self.same_start(Tile { kind: Kind::Entries, number, width: 1 }, &bundle)?;
        for level in 0..LEVELS_MAX {
            let kind = Kind::Hashes(level as u8);
            let number = kind.count(self.tree.size()) / TILE_WIDTH;
            let expected = tile_bytes(self.tree.edge(level));
            self.same_start(Tile { kind, number, width: 1 }, &expected)?;
        }
        self.names(TILE)
    }

    /// Every name below `tile` must be a tile's, of a number that was looked at.
    fn names(&mut self, dir: &str) -> Result<(), Damage> {
        for listed in self.files.list(dir).map_err(Damage::io(dir))? {
            let path = format!("{dir}/{}", printable(&listed.name));
            if listed.is_dir {
                // Deeper than any tile: a name that is none.
                if path.matches('/').count() > 12 {
                    return Err(Damage::new(Code::AuditFile, path, None, "is no tile"));
                }
                self.names(&path)?;
                continue;
            }
            let Some(tile) = Tile::parse(&path) else {
                return Err(Damage::new(Code::AuditFile, path, None, "is no tile"));
            };
            if tile.number > tile.kind.count(self.tree.size()) / TILE_WIDTH {
                let index = Some(first_leaf(tile, 0));
                self.ahead.get_or_insert_with(|| {
                    Damage::new(
                        Code::AuditFile,
                        path,
                        index,
                        "has entries that are neither signed nor in the journal",
                    )
                });
            }
        }
        Ok(())
    }

    fn read(&self, path: &str, kind: Kind) -> Result<Option<Vec<u8>>, Damage> {
        self.files.read(path, kind.bytes_max()).map_err(Damage::io(path))
    }

    /// A tile that must be there.
    fn tile(&self, tile: Tile, first: u64) -> Result<Vec<u8>, Damage> {
        let bytes = match self.edge.get(&tile) {
            Some(bytes) => Some(bytes.clone()),
            None => self.read(&tile.path(), tile.kind)?,
        };
        bytes.ok_or_else(|| Damage::new(Code::AuditFile, tile.path(), Some(first), "is missing"))
    }
}

/// A partial tile, or one that holds more: the standard lets partial tiles go when the full one is there, and a
/// node that published meanwhile has a wider one.
fn read_edge(files: &dyn Files, tile: Tile) -> std::io::Result<Option<Vec<u8>>> {
    if let Some(bytes) = read_tile(files, tile)? {
        return Ok(Some(bytes));
    }
    let dir = tile.partial_dir();
    let listed = files.list(&dir)?;
    let wider = listed
        .iter()
        .filter_map(|listed| Tile::parse(&format!("{dir}/{}", std::str::from_utf8(&listed.name).ok()?)));
    match wider.filter(|other| other.width > tile.width).min_by_key(|other| other.width) {
        Some(other) => files.read(&other.path(), other.kind.bytes_max()),
        None => Ok(None),
    }
}

/// The index of the first entry under hash or entry `at` of a tile.
pub(super) fn first_leaf(tile: Tile, at: u64) -> u64 {
    let index = tile.number.saturating_mul(TILE_WIDTH).saturating_add(at);
    match tile.kind {
        Kind::Entries => index,
        Kind::Hashes(level) => index.checked_shl(8 * u32::from(level)).unwrap_or(u64::MAX),
    }
}

/// A tile's bytes as its hashes or entries. `None` if they do not come out even.
fn split(kind: Kind, bytes: &[u8]) -> Option<Vec<&[u8]>> {
    match kind {
        Kind::Hashes(_) => {
            let chunks = bytes.chunks_exact(HASH_BYTES);
            chunks.remainder().is_empty().then(|| bytes.chunks_exact(HASH_BYTES).collect())
        }
        Kind::Entries => {
            let (mut rest, mut units) = (bytes, Vec::new());
            while !rest.is_empty() {
                let (entry, after) = record(rest)?;
                units.push(entry);
                rest = after;
            }
            Some(units)
        }
    }
}
