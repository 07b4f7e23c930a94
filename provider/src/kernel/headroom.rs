//! The room that is kept free so that a rotation can always go on.
//!
//! Segments are cut at once and copied one after another, so room for one is enough: that of the largest segment which
//! may have to be rotated. It is not counted as committed, only never given away. Where `regions` is the sum of all
//! regions' bytes and of what is kept because it could not be wiped, `regions + headroom <= pool` holds after every
//! step; a rotation takes its fresh bytes out of that room and gives the old ones back.

use std::collections::BTreeMap;

/// How many segments of each length may need a rotation.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    lengths: BTreeMap<u64, u32>,
}

impl Headroom {
    /// Bytes to keep free.
    pub(super) fn bytes(&self) -> u64 {
        self.lengths.last_key_value().map_or(0, |(&length, _)| length)
    }

    /// One more segment of `length` may need a rotation.
    pub(super) fn add(&mut self, length: u64) {
        *self.lengths.entry(length).or_default() += 1;
    }

    /// One fewer.
    pub(super) fn remove(&mut self, length: u64) {
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
    }

    /// The counts, for a comparison with what they count.
    pub(super) const fn lengths(&self) -> &BTreeMap<u64, u32> {
        &self.lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_counts_until_the_last_of_its_length_is_gone() {
        let mut headroom = Headroom::default();
        for length in [2, 8, 8] {
            headroom.add(length);
        }
        headroom.remove(8);
        assert_eq!(headroom.bytes(), 8);
        headroom.remove(8);
        assert_eq!(headroom.bytes(), 2);
        headroom.remove(2);
        assert_eq!((headroom.bytes(), headroom.lengths().len()), (0, 0));
    }
}
