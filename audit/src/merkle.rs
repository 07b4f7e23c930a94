//! Inclusion and consistency proofs after RFC 9162, sections 2.1.3 and 2.1.4.

use caps::error::{Code, Error, Result};

use crate::hash::Hash;

/// Longest proof: one hash for each level of a tree of 2^63 leaves, twice for consistency.
pub const PROOF_HASHES_MAX: usize = 63;

/// The largest power of two below `n`, for `n >= 2`.
const fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The root over leaves `[lo, hi)`, made of what `perfect` knows: `perfect(level, i)` is the root of leaves
/// `[i << level, (i + 1) << level)`.
///
/// # Errors
/// Those of `perfect`.
pub fn subtree<E>(
    lo: u64,
    hi: u64,
    perfect: &mut impl FnMut(u32, u64) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let size = hi - lo;
    if size.is_power_of_two() && lo.is_multiple_of(size) {
        let level = size.trailing_zeros();
        return perfect(level, lo >> level);
    }
    let middle = lo + split(size);
    let left = subtree(lo, middle, perfect)?;
    Ok(Hash::node(left, subtree(middle, hi, perfect)?))
}

/// The proof that leaf `index` is in the tree of `size` leaves: sibling of the leaf first.
///
/// # Errors
/// `E_RANGE` if there is no such leaf, and those of `perfect`.
pub fn inclusion(
    index: u64,
    size: u64,
    perfect: &mut impl FnMut(u32, u64) -> Result<Hash>,
) -> Result<Vec<Hash>> {
    if index >= size {
        return Err(Error::new(Code::Range, "the tree has no leaf of this index"));
    }
    let (mut lo, mut hi) = (0, size);
    let mut path = Vec::new();
    while hi - lo > 1 {
        let middle = lo + split(hi - lo);
        if index < middle {
            path.push(subtree(middle, hi, perfect)?);
            hi = middle;
        } else {
            path.push(subtree(lo, middle, perfect)?);
            lo = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The root to which an inclusion proof leads. `None` if the proof has the wrong length for `index` and `size`.
#[must_use]
pub fn inclusion_root(index: u64, size: u64, leaf: Hash, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node % 2 == 1 || node == last {
            hash = Hash::node(*sibling, hash);
            while node.is_multiple_of(2) && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = Hash::node(hash, *sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// The proof that the tree of `old` leaves is a prefix of the tree of `new`.
///
/// # Errors
/// `E_RANGE` unless `1 <= old <= new`, and those of `perfect`.
pub fn consistency(
    old: u64,
    new: u64,
    perfect: &mut impl FnMut(u32, u64) -> Result<Hash>,
) -> Result<Vec<Hash>> {
    if old == 0 || old > new {
        return Err(Error::new(
            Code::Range,
            "a consistency proof leads from size 1 or more to that size or more",
        ));
    }
    let (mut lo, mut hi) = (0, new);
    let mut path = Vec::new();
    while hi != old {
        let middle = lo + split(hi - lo);
        if old <= middle {
            path.push(subtree(middle, hi, perfect)?);
            hi = middle;
        } else {
            path.push(subtree(lo, middle, perfect)?);
            lo = middle;
        }
    }
    // With `lo == 0` the subtree is the whole old tree, whose root the verifier has.
    if lo != 0 {
        path.push(subtree(lo, hi, perfect)?);
    }
    path.reverse();
    Ok(path)
}

/// Whether `path` proves that the tree `(old, old_root)` is a prefix of `(new, new_root)`.
#[must_use]
pub fn is_consistent(old: u64, old_root: Hash, new: u64, new_root: Hash, path: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return path.is_empty() && old_root == new_root;
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node % 2 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut hashes = path.iter().copied();
    // A power of two is a subtree of the new tree, and its root is not sent.
    let seed = if old.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(seed) = seed else { return false };
    let (mut old_hash, mut new_hash) = (seed, seed);
    for sibling in hashes {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = Hash::node(sibling, old_hash);
            new_hash = Hash::node(sibling, new_hash);
            while node.is_multiple_of(2) && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = Hash::node(new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == old_root && new_hash == new_root
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Leaves of the trees of which every proof is tried: past a power of two. Hashes are slow in an interpreter.
    const LEAVES: u64 = if cfg!(miri) { 9 } else { 130 };
    /// Leaves of the trees of which one is drawn.
    const LEAVES_DRAWN: u64 = if cfg!(miri) { 20 } else { 600 };

    /// The definition of the format, word for word.
    pub(crate) fn mth(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::empty(),
            [one] => *one,
            _ => {
                let k = split(leaves.len() as u64) as usize;
                Hash::node(mth(&leaves[..k]), mth(&leaves[k..]))
            }
        }
    }

    fn leaves(n: u64) -> Vec<Hash> {
        (0..n).map(|i| Hash::leaf(&i.to_be_bytes())).collect()
    }

    fn from(leaves: &[Hash]) -> impl FnMut(u32, u64) -> Result<Hash> + '_ {
        move |level, i| Ok(mth(&leaves[(i << level) as usize..((i + 1) << level) as usize]))
    }

    #[test]
    fn split_is_the_largest_power_below() {
        for (n, k) in [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (u64::MAX, 1 << 63)] {
            assert_eq!(split(n), k, "{n}");
        }
    }

    #[test]
    fn every_inclusion_of_small_trees() {
        let all = leaves(LEAVES);
        for size in 1..=LEAVES {
            let root = mth(&all[..size as usize]);
            for index in 0..size {
                let path = inclusion(index, size, &mut from(&all)).unwrap();
                assert_eq!(
                    inclusion_root(index, size, all[index as usize], &path),
                    Some(root),
                    "{index} of {size}"
                );
                if let Some((_, shorter)) = path.split_last() {
                    assert_ne!(inclusion_root(index, size, all[index as usize], shorter), Some(root));
                }
            }
            assert!(inclusion(size, size, &mut from(&all)).is_err());
        }
    }

    #[test]
    fn every_consistency_of_small_trees() {
        let all = leaves(LEAVES);
        for new in 1..=LEAVES {
            for old in 1..=new {
                let path = consistency(old, new, &mut from(&all)).unwrap();
                let (old_root, new_root) = (mth(&all[..old as usize]), mth(&all[..new as usize]));
                assert!(is_consistent(old, old_root, new, new_root, &path), "{old} to {new}");
                if old < new {
                    assert!(!is_consistent(old, Hash::ZERO, new, new_root, &path), "{old} to {new}");
                    assert!(!is_consistent(old, old_root, new, Hash::ZERO, &path), "{old} to {new}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn larger_trees_and_changed_proofs(size in 1..LEAVES_DRAWN, a in any::<u64>(), b in any::<u64>(), flip in any::<usize>()) {
            let all = leaves(size);
            let root = mth(&all);
            let index = a % size;
            let mut path = inclusion(index, size, &mut from(&all)).unwrap();
            prop_assert!(path.len() <= PROOF_HASHES_MAX);
            prop_assert_eq!(inclusion_root(index, size, all[index as usize], &path), Some(root));
            let old = b % size + 1;
            let mut proof = consistency(old, size, &mut from(&all)).unwrap();
            let old_root = mth(&all[..old as usize]);
            prop_assert!(is_consistent(old, old_root, size, root, &proof));
            if !path.is_empty() {
                let at = flip % path.len();
                path[at].0[flip % 32] ^= 1;
                prop_assert_ne!(inclusion_root(index, size, all[index as usize], &path), Some(root));
            }
            if !proof.is_empty() {
                let at = flip % proof.len();
                proof[at].0[flip % 32] ^= 1;
                prop_assert!(!is_consistent(old, old_root, size, root, &proof));
            }
        }

        #[test]
        fn no_numbers_panic(index in any::<u64>(), size in any::<u64>(), n in 0usize..70) {
            let path = vec![Hash::ZERO; n];
            let _ = inclusion_root(index, size, Hash::ZERO, &path);
            let _ = is_consistent(index, Hash::ZERO, size, Hash::ZERO, &path);
        }
    }
}
