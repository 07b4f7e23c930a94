//! The growing tree: only its right edge is in memory.
//!
//! Each level keeps the hashes of its last, unfinished tile. A leaf costs one hash, and one node hash on average:
//! when 256 have come together, the tile is finished, and its root goes one level up. So appending never looks at
//! what is older, and the root of any moment is computed from at most 8 x 255 hashes.

use crate::hash::Hash;
use crate::tile::{HASH_BYTES, Kind, LEVELS_MAX, TILE_WIDTH, Tile};

/// A tile that is full, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullTile {
    /// Its place.
    pub tile: Tile,
    /// 256 hashes.
    pub hashes: Vec<Hash>,
}

/// The right edge of a tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    size: u64,
    levels: [Vec<Hash>; LEVELS_MAX],
}

impl Tree {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves whose unfinished tiles hold `levels`.
    ///
    /// `None` if the numbers of hashes are not those of such a tree. Whether they are the right hashes, only the root
    /// can tell.
    #[must_use]
    pub fn from_edge(size: u64, levels: [Vec<Hash>; LEVELS_MAX]) -> Option<Self> {
        let fits = levels
            .iter()
            .enumerate()
            .all(|(level, hashes)| hashes.len() as u64 == Kind::Hashes(level as u8).count(size) % TILE_WIDTH);
        fits.then_some(Self { size, levels })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the unfinished tile of a level.
    #[must_use]
    pub fn edge(&self, level: usize) -> &[Hash] {
        &self.levels[level]
    }

    /// Appends a leaf and hands out the tiles that it finished, lowest level first.
    pub fn push(&mut self, leaf: Hash, mut finished: impl FnMut(FullTile)) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0..LEVELS_MAX {
            self.levels[level].push(hash);
            if (self.levels[level].len() as u64) < TILE_WIDTH {
                return;
            }
            let hashes = std::mem::take(&mut self.levels[level]);
            hash = Hash::perfect(&hashes);
            let kind = Kind::Hashes(level as u8);
            let number = kind.count(self.size) / TILE_WIDTH - 1;
            finished(FullTile { tile: Tile { kind, number, width: TILE_WIDTH as u16 }, hashes });
        }
    }

    /// The root: MTH of all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        // From the smallest perfect subtree, at the right end of the lowest level, to the largest.
        let mut root = None;
        for hashes in &self.levels {
            let mut end = hashes.len();
            while end > 0 {
                let span = 1 << end.trailing_zeros();
                let subtree = Hash::perfect(&hashes[end - span..end]);
                root = Some(root.map_or(subtree, |right| Hash::node(subtree, right)));
                end -= span;
            }
        }
        root.unwrap_or_else(Hash::empty)
    }
}

/// The bytes of a tile of hashes.
#[must_use]
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile's bytes, if their number is `width`.
#[must_use]
pub fn tile_hashes(bytes: &[u8], width: u16) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    (hashes.len() == usize::from(width) && rest.is_empty())
        .then(|| hashes.iter().copied().map(Hash).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle;

    #[test]
    fn the_root_is_the_definition_s_at_every_size() {
        let leaves: Vec<_> = (0_u32..700).map(|i| Hash::leaf(&i.to_be_bytes())).collect();
        let mut tree = Tree::new();
        let mut tiles = 0;
        assert_eq!(tree.root(), Hash::empty());
        for (i, leaf) in leaves.iter().enumerate() {
            tree.push(*leaf, |tile| {
                assert_eq!(tile.hashes.len(), 256);
                tiles += 1;
            });
            assert_eq!(tree.root(), merkle::tests::mth(&leaves[..=i]), "size {}", i + 1);
        }
        assert_eq!(tiles, 2);
        assert_eq!(Tree::from_edge(700, tree.levels.clone()).unwrap().root(), tree.root());
        assert!(Tree::from_edge(701, tree.levels.clone()).is_none());
    }

    #[test]
    fn levels_carry() {
        // 256^2 leaves finish 256 tiles of level 0 and one of level 1.
        let mut tree = Tree::new();
        let mut last = Vec::new();
        for i in 0_u32..65_536 {
            last.clear();
            tree.push(Hash::leaf(&i.to_be_bytes()), |tile| last.push(tile.tile.path()));
        }
        assert_eq!(last, ["tile/0/255", "tile/1/000"]);
        assert_eq!(tree.edge(2).len(), 1);
        assert_eq!(tree.root(), tree.edge(2)[0]);
    }
}
