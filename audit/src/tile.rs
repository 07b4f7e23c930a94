//! Tile coordinates and their paths.

/// Hashes in a full tile, entries in a full bundle: 2^8.
pub const TILE_WIDTH: u64 = 256;
/// Levels that a tree of 2^63 leaves can have.
pub const LEVELS_MAX: usize = 8;
/// Bytes of a hash in a tile.
pub const HASH_BYTES: usize = 32;
/// Largest bundle in bytes: 256 entries with their lengths.
pub const BUNDLE_BYTES_MAX: usize = TILE_WIDTH as usize * (2 + crate::draft::ENTRY_BYTES_MAX);
/// Largest tile of hashes in bytes.
pub const TILE_BYTES_MAX: usize = TILE_WIDTH as usize * HASH_BYTES;

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Hashes of this level: hash `i` of tile `n` covers `256^level` leaves from leaf `(256n + i) * 256^level`.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile's place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its number within the level.
    pub number: u64,
    /// How many hashes or entries it has: 1 to 256.
    pub width: u16,
}

/// How many hashes of level `level` a tree of `size` leaves has.
#[must_use]
pub const fn hashes_at(size: u64, level: u8) -> u64 {
    if level as usize >= LEVELS_MAX { 0 } else { size >> (8 * level as u32) }
}

impl Tile {
    /// The tile that holds hash or entry number `index` of its level in a tree of `size` leaves.
    ///
    /// `None` if the tree has no such hash.
    #[must_use]
    pub fn of(kind: Kind, index: u64, size: u64) -> Option<Self> {
        let count = kind.count(size);
        let number = index / TILE_WIDTH;
        let width = count.checked_sub(number * TILE_WIDTH)?.min(TILE_WIDTH);
        (index < count).then_some(Self { kind, number, width: width as u16 })
    }

    /// The tiles on the right edge of a tree of `size` leaves that are not full, entries first.
    pub fn partials(size: u64) -> impl Iterator<Item = Self> {
        let kinds = std::iter::once(Kind::Entries).chain((0..LEVELS_MAX as u8).map(Kind::Hashes));
        kinds.filter_map(move |kind| {
            let count = kind.count(size);
            let width = (count % TILE_WIDTH) as u16;
            (width > 0).then_some(Self { kind, number: count / TILE_WIDTH, width })
        })
    }

    /// Whether no later tree changes it.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.width as u64 == TILE_WIDTH
    }

    /// The path of the full tile of this number.
    #[must_use]
    pub fn full_path(self) -> String {
        let mut groups = vec![format!("{:03}", self.number % 1_000)];
        let mut rest = self.number / 1_000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1_000));
            rest /= 1_000;
        }
        groups.reverse();
        match self.kind {
            Kind::Entries => format!("tile/entries/{}", groups.join("/")),
            Kind::Hashes(level) => format!("tile/{level}/{}", groups.join("/")),
        }
    }

    /// The directory of the partial tiles of this number.
    #[must_use]
    pub fn partial_dir(self) -> String {
        self.full_path() + ".p"
    }

    /// The path: the full tile's, or one of the partial ones.
    #[must_use]
    pub fn path(self) -> String {
        if self.is_full() { self.full_path() } else { format!("{}/{}", self.partial_dir(), self.width) }
    }

    /// Reads a path. Only the path that [`Self::path`] makes is one.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|l| usize::from(*l) < LEVELS_MAX)?),
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, width.parse().ok().filter(|w| (1..256).contains(w))?),
            None => (rest, TILE_WIDTH as u16),
        };
        let mut number = 0_u64;
        for group in groups.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            let value = digits.parse::<u64>().ok().filter(|_| digits.len() == 3)?;
            number = number.checked_mul(1_000)?.checked_add(value)?;
        }
        let tile = Self { kind, number, width };
        (tile.path() == path).then_some(tile)
    }
}

impl Kind {
    /// How many hashes or entries of this kind a tree of `size` leaves has.
    #[must_use]
    pub const fn count(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => hashes_at(size, level),
        }
    }

    /// The largest file of this kind in bytes.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Entries => BUNDLE_BYTES_MAX,
            Self::Hashes(_) => TILE_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_format() {
        let path = |number, width| Tile { kind: Kind::Hashes(0), number, width }.path();
        assert_eq!(path(5, 256), "tile/0/005");
        assert_eq!(path(1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(1_000, 3), "tile/0/x001/000.p/3");
        let names: Vec<_> = Tile::partials(70_000).map(Tile::path).collect();
        assert_eq!(
            names,
            ["tile/entries/273.p/112", "tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"],
            "the example of the format"
        );
    }

    #[test]
    fn tiles_of_an_index() {
        assert_eq!(Tile::of(Kind::Hashes(0), 299, 300).map(|t| t.width), Some(44));
        assert_eq!(Tile::of(Kind::Hashes(0), 0, 300).map(|t| t.width), Some(256));
        assert_eq!(Tile::of(Kind::Hashes(0), 300, 300), None);
        assert_eq!(Tile::of(Kind::Hashes(1), 0, 255), None);
    }

    #[test]
    fn other_spellings_are_no_paths() {
        for bad in [
            "tile/0/5",
            "tile/0/0005",
            "tile/0/x000/005",
            "tile/00/005",
            "tile/0/005.p/0",
            "tile/0/005.p/256",
            "tile/0/005.p/01",
            "tile/9/005",
            "tile/entry/005",
            "tile/0/005/",
            "tile/0/x005",
            "tile/0/+05",
            "tile/0",
            "tile/0/005.p/1/2",
            "/tile/0/005",
            "tile/0/../0/005",
        ] {
            assert_eq!(Tile::parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn paths_parse_back(level in 0u8..9, number in 0u64..1 << 55, width in 1u16..=256) {
            let kind = if level == 8 { Kind::Entries } else { Kind::Hashes(level) };
            let tile = Tile { kind, number, width };
            proptest::prop_assert_eq!(Tile::parse(&tile.path()), Some(tile));
        }
    }
}
