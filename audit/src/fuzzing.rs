//! One call per fuzz target. Each takes any bytes, must not panic on good parsers, and panics on a broken promise.

use std::sync::LazyLock;

use crate::entry::Entry;
use crate::hash::Hash;
use crate::journal::{Journal, Mark};
use crate::key::{LogKey, Origin, Vkey};
use crate::note::Note;
use crate::store::memory::Memory;
use crate::tile::Tile;
use crate::{merkle, proof, scan, verify};

/// Most leaves of a tree of [`path`].
const LEAVES_MAX: u64 = 300;

/// The roots of all perfect subtrees of those leaves, by level.
static TREE: LazyLock<Vec<Vec<Hash>>> = LazyLock::new(|| {
    let mut levels = vec![(0..LEAVES_MAX).map(leaf).collect::<Vec<_>>()];
    while let Some(below) = levels.last().filter(|below| below.len() > 1) {
        levels.push(below.as_chunks::<2>().0.iter().map(|&[left, right]| Hash::node(left, right)).collect());
    }
    levels
});

fn leaf(i: u64) -> Hash {
    Hash::leaf(&i.to_be_bytes())
}

/// A log that only these targets know, and its key.
static LOG: LazyLock<(Origin, LogKey, Vec<Vkey>)> = LazyLock::new(|| {
    let origin = Origin::parse("fuzz.example/audit").expect("a good name");
    let key = LogKey::from_seed(&[0x5a; 32]);
    let vkeys = vec![key.vkey(&origin)];
    (origin, key, vkeys)
});

/// A checkpoint: what was read prints as it was read; no forged signature holds.
pub fn note(bytes: &[u8]) {
    let Ok(note) = Note::parse(bytes) else { return };
    assert!(bytes.starts_with(note.claimed().body().as_bytes()), "a checkpoint has one form");
    let key = LogKey::from_seed(&[0x5a; 32]).vkey(&note.claimed().origin);
    assert!(note.verify(&[key]).is_err(), "nobody has this key");
}

/// A vkey: what was read prints as it was read.
pub fn vkey(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(vkey) = Vkey::parse(text)
    {
        assert_eq!(vkey.to_string(), text);
    }
}

/// An entry: canonical form is unique, so an accepted entry is rebuilt byte for byte from its members.
pub fn entry(bytes: &[u8]) {
    let Ok(entry) = Entry::parse(bytes) else { return };
    assert_eq!(entry.text().as_bytes(), bytes);
    let mut rebuilt = String::new();
    let mut last = String::new();
    scan::object(entry.text(), |(key, value)| {
        assert!(*key > *last, "keys ascend");
        key.clone_into(&mut last);
        rebuilt.push_str(if rebuilt.is_empty() { "{" } else { "," });
        rebuilt.push_str(&format!("\"{key}\":{value}"));
        assert_eq!(scan::unquote(value).is_some(), value.starts_with('"'));
    })
    .expect("it was parsed before");
    rebuilt.push('}');
    assert_eq!(rebuilt.as_bytes(), bytes);
    assert_eq!(entry.string("seq"), Some(entry.seq().to_string()));
}

/// A proof, after the entry it is for: nothing is proved without the key.
pub fn inclusion(bytes: &[u8]) {
    let (entry, proof) = bytes.split_at(bytes.len().min(16));
    let (_, _, vkeys) = &*LOG;
    assert!(proof::check(proof, entry, vkeys).is_err());
    assert!(proof::check_consistency(proof, proof, vkeys).is_err());
}

/// Proof paths without a signature in the way: the first bytes choose a tree, an old size and a leaf; the others edit
/// the honest proofs, with hashes of the same tree or of nothing. Only the honest proof proves, and only its claim.
pub fn path(bytes: &[u8]) {
    let Some((&[a, b, c, d, e, f, g], edits)) = bytes.split_first_chunk::<7>() else { return };
    let number = |high, low| u64::from(u16::from_be_bytes([high, low]));
    let size = 1 + number(a, b) % LEAVES_MAX;
    let (index, old, claimed) = (number(c, d) % size, 1 + number(e, f) % size, i64::from(g as i8));
    let mut perfect = |level: u32, i: u64| caps::Result::Ok(TREE[level as usize][i as usize]);
    let root = merkle::subtree(0, size, &mut perfect).expect("every leaf is known");
    let old_root = merkle::subtree(0, old, &mut perfect).expect("every leaf is known");
    let included = merkle::inclusion(index, size, &mut perfect).expect("there is such a leaf");
    let consistent = merkle::consistency(old, size, &mut perfect).expect("there is such a prefix");

    let edit = |honest: &[Hash]| {
        let mut path = honest.to_vec();
        for edit in edits.chunks_exact(3) {
            let at = usize::from(edit[1]) % (path.len() + 1);
            let hash = match edit[2] {
                0 => root,
                1 => old_root,
                2 => Hash::ZERO,
                n => honest.get(usize::from(n) % 8).copied().unwrap_or_else(|| leaf(n.into())),
            };
            match edit[0] % 4 {
                0 => path.insert(at, hash),
                1 if at < path.len() => drop(path.remove(at)),
                2 if at < path.len() => path[at] = hash,
                _ => path.truncate(at),
            }
        }
        path
    };
    let path = edit(&included);
    let shifted = index.wrapping_add_signed(claimed);
    let proved = merkle::inclusion_root(shifted, size, leaf(index), &path) == Some(root);
    assert_eq!(
        proved,
        shifted == index && path == included,
        "only the honest proof leads from a leaf to its root"
    );
    let path = edit(&consistent);
    let shifted = old.wrapping_add_signed(claimed);
    let proved = merkle::is_consistent(shifted, old_root, size, root, &path);
    assert_eq!(
        proved,
        shifted == old && path == consistent,
        "only the honest proof leads from a tree to its prefix"
    );
}

/// A journal: the good part reads again to the same, and is never longer than what was given.
pub fn journal(bytes: &[u8]) {
    let journal = Journal::parse(bytes);
    let again = Journal::parse(&bytes[..journal.good_bytes]);
    assert_eq!(again.entries, journal.entries);
    assert_eq!(again.rest, crate::journal::Rest::Clean);
    for (bytes, leaf) in journal.entries.iter().zip(&journal.leaves) {
        assert_eq!(Hash::leaf(bytes), *leaf);
    }
    if let Some(mark) = Mark::parse(bytes) {
        assert_eq!(mark.encode(), bytes);
    }
    if let Ok(path) = std::str::from_utf8(bytes)
        && let Some(tile) = Tile::parse(path)
    {
        assert_eq!(tile.path(), path);
    }
}

/// A whole directory of files cut out of `bytes`, under a checkpoint of a good key: the verifier does not panic, and
/// accepts no files that are not the log's.
pub fn directory(bytes: &[u8]) {
    let store = Memory::new();
    let (origin, key, vkeys) = &*LOG;
    let Some((&[size_high, size_low, cut_a, cut_b], rest)) = bytes.split_first_chunk::<4>() else { return };
    let size = u64::from(u16::from_be_bytes([size_high, size_low])) % 1_024;
    let at = |cut: u8| rest.len() * usize::from(cut) / 256;
    let (first, last) = (at(cut_a.min(cut_b)), at(cut_a.max(cut_b)));
    let checkpoint =
        crate::note::Checkpoint { origin: origin.clone(), size, root: Hash::leaf(bytes) }.sign([key]);
    store.tamper("checkpoint", Some(checkpoint.into_bytes()));
    store.tamper("journal", Some(rest[..first].to_vec()));
    for tile in Tile::partials(size).chain(Tile::partials(256)) {
        let part = if tile.kind == crate::tile::Kind::Entries { &rest[first..last] } else { &rest[last..] };
        store.tamper(&tile.path(), Some(part.to_vec()));
    }
    let options = verify::Options { vkeys: vkeys.clone(), against: Vec::new() };
    assert!(verify::log(&store, &options).is_err(), "no tree has the hash of its own files as its root");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Found by the target `audit_note`: a root hash with padding in its middle decoded to 32 bytes, so that a checkpoint
    /// had two spellings.
    #[test]
    fn a_root_with_padding_in_its_middle_is_no_checkpoint() {
        let line = "\u{2014} fuzz.example/audit rICnFWivqoYkjZgF6NKLujvsttfb+w9kYfVHn0cvGSQoTAo=\n";
        let found =
            format!("fuzz.mxample/audit\n4294967295\nPAb5plclr2BSYfY2ZyyWINQJcx2JpFHXRV/pxK4=kCW2\n\n{line}");
        note(found.as_bytes());
        assert!(Note::parse(found.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for target in [note, vkey, entry, inclusion, path, journal, directory] {
                target(&bytes);
            }
        }
    }
}
