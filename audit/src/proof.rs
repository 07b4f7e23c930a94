//! Proofs that stand on their own: a file, an entry, a vkey.
//!
//! An inclusion proof is a C2SP `.tlog-proof`: the entry's index, the hashes from leaf to root, the checkpoint. A
//! consistency proof shows that an older checkpoint is of a prefix of the log: nothing it covers was changed.

use std::path::Path;

use caps::error::{Code, Error, Result};

use crate::entry::parse_counter;
use crate::hash::Hash;
use crate::journal::record;
use crate::key::Vkey;
use crate::log::unavailable;
use crate::merkle;
use crate::note::{Checkpoint, NOTE_BYTES_MAX, Note, Signed};
use crate::recover::read_tile;
use crate::store::disk::ReadDir;
use crate::store::{CHECKPOINT, Files};
use crate::tile::{HASH_BYTES, Kind, TILE_WIDTH, Tile};
use crate::tree::tile_hashes;

/// The first line of an inclusion proof.
pub const PROOF_HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Largest proof in bytes: the hashes, a few short lines, the checkpoint.
pub const PROOF_BYTES_MAX: usize = (merkle::PROOF_HASHES_MAX + 4) * 64 + NOTE_BYTES_MAX;

/// An entry and the proof that it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The entry's bytes, which travel beside the proof, without a newline.
    pub entry: Vec<u8>,
    /// The text of the `.tlog-proof` file.
    pub proof: String,
}

/// What a checked inclusion proof proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Included {
    /// The entry's index.
    pub index: u64,
    /// The checkpoint that covers it.
    pub signed: Signed,
}

const fn refused(detail: &'static str) -> Error {
    Error::new(Code::ProofMismatch, detail)
}

/// Makes the proof of entry `index` of the log in `dir`.
///
/// # Errors
/// `E_RANGE` if the last checkpoint does not cover it (yet); `E_CONFIG_IO` if there is no such directory;
/// `E_AUDIT_FILE`, `E_CP_BODY` or `E_PROOF` if the log is damaged where the proof needs it.
pub fn prove(dir: &Path, index: u64) -> Result<Inclusion> {
    prove_on(&ReadDir::open(dir)?, index)
}

/// As [`prove`], on any files.
///
/// # Errors
/// As [`prove`].
pub fn prove_on(files: &dyn Files, index: u64) -> Result<Inclusion> {
    let (note, Checkpoint { size, root, .. }) = checkpoint(files)?;
    let tile = Tile::of(Kind::Entries, index, size).ok_or_else(|| {
        let detail =
            format!("entry {index} is not among the {size} entries that the newest checkpoint covers");
        Error::with(Code::Range, detail)
    })?;
    let bundle = read(files, tile)?;
    let mut rest = &bundle[..];
    let mut found = None;
    for _ in 0..=index % TILE_WIDTH {
        let (entry, after) = record(rest).ok_or(Error::new(Code::AuditFile, "a bundle ends early"))?;
        (found, rest) = (Some(entry.to_vec()), after);
    }
    let entry = found.ok_or(Error::from(Code::Internal))?;
    let path = merkle::inclusion(index, size, &mut |level, i| perfect(files, size, level, i))?;
    // A proof that does not prove is worse than none: it would look like tampering of the entry.
    if merkle::inclusion_root(index, size, Hash::leaf(&entry), &path) != Some(root) {
        return Err(refused("the log's tiles do not lead from the entry to the checkpoint; verify the log"));
    }
    let hashes: String = path.iter().map(|hash| hash.base64() + "\n").collect();
    Ok(Inclusion { entry, proof: format!("{PROOF_HEADER}\nindex {index}\n{hashes}\n{note}") })
}

/// Makes the proof that the first `old` entries of the log in `dir` are those of its checkpoint of that time.
///
/// # Errors
/// As [`prove`]; `E_RANGE` also for `old == 0`, of which there is nothing to prove.
pub fn prove_consistency(dir: &Path, old: u64) -> Result<String> {
    let files = ReadDir::open(dir)?;
    let (note, Checkpoint { size, .. }) = checkpoint(&files)?;
    let path = merkle::consistency(old, size, &mut |level, i| perfect(&files, size, level, i))?;
    let hashes: String = path.iter().map(|hash| hash.base64() + "\n").collect();
    Ok(format!("old {old}\n{hashes}\n{note}"))
}

/// Checks an inclusion proof for `entry`.
///
/// # Errors
/// `E_PROOF` if it is no proof or leads elsewhere, `E_CP_BODY` or `E_CP_UNSIGNED` if its checkpoint is not good.
pub fn check(proof: &[u8], entry: &[u8], vkeys: &[Vkey]) -> Result<Included> {
    let (head, note) = halves(proof)?;
    let mut lines = head.lines();
    if lines.next() != Some(PROOF_HEADER) {
        return Err(refused("no inclusion proof"));
    }
    let mut line = lines.next();
    if line.is_some_and(|line| line.starts_with("extra ")) {
        // Not authenticated: skipped, whatever it says.
        line = lines.next();
    }
    let index = line.and_then(|line| line.strip_prefix("index ")).and_then(parse_counter);
    let index = index.ok_or(refused("no index"))?;
    let path = hashes(lines)?;
    let signed = Note::parse(note.as_bytes())?.verify(vkeys)?;
    let Checkpoint { size, root, .. } = *signed.checkpoint();
    match merkle::inclusion_root(index, size, Hash::leaf(entry), &path) {
        Some(found) if found == root => Ok(Included { index, signed }),
        _ => Err(refused("the proof does not lead from the entry to the checkpoint")),
    }
}

/// Checks that the log of `old`, a signed checkpoint, is a prefix of that of the proof's checkpoint, and returns
/// the latter.
///
/// # Errors
/// `E_FORK` if the proof is in form and the two do not agree; else as [`check`].
pub fn check_consistency(old: &[u8], proof: &[u8], vkeys: &[Vkey]) -> Result<Signed> {
    let old = Note::parse(old)?.verify(vkeys)?;
    let old = old.checkpoint();
    let (head, note) = halves(proof)?;
    let mut lines = head.lines();
    let size = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_counter);
    if size != Some(old.size) {
        return Err(refused("the proof is from another size"));
    }
    let path = hashes(lines)?;
    let signed = Note::parse(note.as_bytes())?.verify(vkeys)?;
    let new = signed.checkpoint();
    if new.origin != old.origin {
        return Err(refused("the checkpoints are of two logs"));
    }
    if !merkle::is_consistent(old.size, old.root, new.size, new.root, &path) {
        return Err(Error::new(Code::Fork, "the log is not an extension of the older checkpoint"));
    }
    Ok(signed)
}

/// The lines before the blank one, and the checkpoint after it.
fn halves(proof: &[u8]) -> Result<(&str, &str)> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(refused("larger than any proof"));
    }
    let text = std::str::from_utf8(proof).map_err(|_| refused("not UTF-8"))?;
    if text.contains('\r') {
        return Err(refused("a carriage return"));
    }
    text.split_once("\n\n").ok_or(refused("no checkpoint after the hashes"))
}

fn hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>> {
    let hashes: Option<Vec<_>> = lines.take(merkle::PROOF_HASHES_MAX + 1).map(Hash::from_base64).collect();
    hashes.filter(|hashes| hashes.len() <= merkle::PROOF_HASHES_MAX).ok_or(refused("a line that is no hash"))
}

fn checkpoint(files: &dyn Files) -> Result<(String, Checkpoint)> {
    let bytes = files.read(CHECKPOINT, NOTE_BYTES_MAX).map_err(unavailable("reading the checkpoint"))?;
    let bytes = bytes.ok_or(Error::new(Code::AuditFile, "`checkpoint` is missing"))?;
    let claimed = Note::parse(&bytes)?.claimed().clone();
    let text = String::from_utf8(bytes).map_err(|_| Error::from(Code::Internal))?; // a note is UTF-8
    Ok((text, claimed))
}

fn read(files: &dyn Files, tile: Tile) -> Result<Vec<u8>> {
    let bytes = read_tile(files, tile).map_err(unavailable("reading a tile"))?;
    bytes.ok_or_else(|| Error::with(Code::AuditFile, format!("`{}` is missing", tile.path())))
}

/// The root of leaves `[i << level, (i + 1) << level)`, from the tile that has it or its parts.
fn perfect(files: &dyn Files, size: u64, level: u32, i: u64) -> Result<Hash> {
    let (kind, span) = (Kind::Hashes((level / 8) as u8), 1_usize << (level % 8));
    let first = i * span as u64;
    let tile = Tile::of(kind, first, size).ok_or(Error::from(Code::Internal))?;
    let bytes = read(files, tile)?;
    let from = (first % TILE_WIDTH) as usize;
    let part = bytes.get(from * HASH_BYTES..(from + span) * HASH_BYTES);
    let hashes = part.and_then(|part| tile_hashes(part, span as u16));
    let hashes =
        hashes.ok_or_else(|| Error::with(Code::AuditFile, format!("`{}` ends early", tile.path())))?;
    Ok(Hash::perfect(&hashes))
}
