//! The write-ahead file, and the mark of what was acknowledged.
//!
//! `journal` has the entries since the last checkpoint, each with its length, as in a bundle. A crash in the middle
//! of a write leaves a *torn* tail: it ends early, or blocks that never reached the disk read as zeros. Nobody was
//! told of entries in a torn tail, so it may be cut; anything else that does not read is damage.
//!
//! Which of the two it is, [`Mark`] decides: it says how many entries were acknowledged. It is written after each
//! sync and not synced itself, so it may be behind after a power cut, never ahead.

use sha2::{Digest, Sha256};

use crate::entry::Entry;
use crate::hash::Hash;

/// Bytes of the mark: far below a sector, so that a device writes it whole or not at all.
pub const MARK_BYTES: usize = 48;
/// Largest journal that is read, in bytes. It is cut at every checkpoint; at [`crate::log::UNPUBLISHED_MAX`] entries
/// of a kilobyte each it has half of this.
pub const JOURNAL_BYTES_MAX: usize = 512 * 1024 * 1024;

/// How many entries were acknowledged, and the leaf hash of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Entries acknowledged since the log began.
    pub size: u64,
    /// Leaf hash of entry `size - 1`; zeros for none.
    pub last: Hash,
}

impl Mark {
    /// The mark's file.
    #[must_use]
    pub fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&self.size.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.last.0);
        let check: [u8; 32] = Sha256::digest(&bytes[..40]).into();
        bytes[40..].copy_from_slice(&check[..8]);
        bytes
    }

    /// Reads the mark's file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (last, _) = rest.split_first_chunk::<32>()?;
        let mark = Self { size: u64::from_be_bytes(*size), last: Hash(*last) };
        (mark.encode() == bytes).then_some(mark)
    }
}

/// What follows the last good entry of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Clean,
    /// A write that a crash interrupted.
    Torn {
        /// Bytes from the last good entry to the end.
        bytes: u64,
    },
    /// Bytes that no interrupted write explains.
    Damaged(&'static str),
}

/// A journal that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal<'a> {
    /// Sequence number of the first entry; 0 if there is none.
    pub first: u64,
    /// The `prev` of the first entry, which is for the caller to check.
    pub prev: Hash,
    /// The good entries: canonical, in sequence, each chained to the one before.
    pub entries: Vec<&'a [u8]>,
    /// Their leaf hashes.
    pub leaves: Vec<Hash>,
    /// Bytes of the good entries with their lengths.
    pub good_bytes: usize,
    /// What follows them.
    pub rest: Rest,
}

/// Splits off one record: a 16-bit length and as many bytes.
#[must_use]
pub fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

impl<'a> Journal<'a> {
    /// Reads entries until the end or until something is no entry that follows the one before.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Self {
        let mut journal = Self {
            first: 0,
            prev: Hash::ZERO,
            entries: Vec::new(),
            leaves: Vec::new(),
            good_bytes: 0,
            rest: Rest::Clean,
        };
        let mut at = bytes;
        while !at.is_empty() {
            let torn = Rest::Torn { bytes: at.len() as u64 };
            let Some((entry, after)) = record(at) else {
                journal.rest = torn;
                break;
            };
            if let Err(detail) = journal.push(entry) {
                // A canonical entry is never empty and has no NUL: these are blocks that were never written.
                let unwritten = entry.is_empty() || entry.contains(&0);
                journal.rest = if unwritten { torn } else { Rest::Damaged(detail) };
                break;
            }
            journal.good_bytes += 2 + entry.len();
            at = after;
        }
        journal
    }

    fn push(&mut self, bytes: &'a [u8]) -> Result<(), &'static str> {
        let entry = Entry::parse(bytes)?;
        match self.leaves.last() {
            None => (self.first, self.prev) = (entry.seq(), entry.prev()),
            Some(_) if entry.seq() != self.end() => return Err("an entry out of sequence"),
            Some(last) if entry.prev() != *last => {
                return Err("an entry that is not chained to the one before");
            }
            Some(_) => (),
        }
        self.entries.push(bytes);
        self.leaves.push(Hash::leaf(bytes));
        Ok(())
    }

    /// One past the last good entry's sequence number.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.entries.len() as u64)
    }

    /// The entry of this sequence number, with its leaf hash.
    #[must_use]
    pub fn get(&self, seq: u64) -> Option<(&'a [u8], Hash)> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        Some((self.entries.get(at)?, self.leaves[at]))
    }
}

#[cfg(test)]
mod tests {
    use caps::time::UnixMicros;

    use super::*;
    use crate::draft::Draft;
    use crate::event::Event;
    use crate::key::Origin;

    /// Every how manieth place is tried. Each costs hashes, which are slow in an interpreter.
    const EVERY: usize = if cfg!(miri) { 211 } else { 1 };

    /// A journal of `n` entries from `first`, and where each record ends.
    fn sample(first: u64, n: u64) -> (Vec<u8>, Vec<usize>) {
        let node = Origin::parse("n").unwrap();
        let (mut bytes, mut ends, mut prev) = (Vec::new(), vec![0], Hash([1; 32]));
        for seq in first..first + n {
            let mut entry = Vec::new();
            Draft::ok(Event::LeaseOpen).encode(&mut entry, seq, prev, UnixMicros(seq), &node);
            bytes.extend_from_slice(&(entry.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&entry);
            ends.push(bytes.len());
            prev = Hash::leaf(&entry);
        }
        (bytes, ends)
    }

    #[test]
    fn cut_at_every_byte_is_torn_and_keeps_what_is_whole() {
        let (bytes, ends) = sample(7, 5);
        for cut in (0..=bytes.len()).step_by(EVERY) {
            let journal = Journal::parse(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            assert_eq!(journal.entries.len(), whole, "cut at {cut}");
            let clean = ends.contains(&cut);
            assert_eq!(journal.rest == Rest::Clean, clean, "cut at {cut}");
            assert!(matches!(journal.rest, Rest::Clean | Rest::Torn { .. }));
            assert_eq!(journal.good_bytes, ends[whole]);
        }
        let journal = Journal::parse(&bytes);
        assert_eq!((journal.first, journal.end(), journal.prev), (7, 12, Hash([1; 32])));
        assert_eq!(journal.get(6), None);
        assert_eq!(journal.get(12), None);
        assert!(journal.get(11).is_some());
    }

    #[test]
    fn unwritten_blocks_are_torn_and_changed_bytes_are_damage() {
        let (bytes, ends) = sample(0, 4);
        let mut hole = bytes.clone();
        hole[ends[2]..ends[2] + 40].fill(0);
        assert!(matches!(Journal::parse(&hole).rest, Rest::Torn { .. }));
        hole[ends[2]..ends[2] + 40].copy_from_slice(&bytes[ends[2]..ends[2] + 40]);
        hole[ends[2] + 10..ends[2] + 30].fill(0);
        assert!(matches!(Journal::parse(&hole).rest, Rest::Torn { .. }));
        let mut flipped = bytes.clone();
        flipped[ends[2] + 20] ^= 1;
        let journal = Journal::parse(&flipped);
        assert!(matches!(journal.rest, Rest::Damaged(_)));
        assert_eq!(journal.entries.len(), 2);
        let repeated = [&bytes[..], &bytes[..ends[1]]].concat();
        assert_eq!(Journal::parse(&repeated).rest, Rest::Damaged("an entry out of sequence"));
    }

    #[test]
    fn a_mark_reads_back_and_no_changed_one_does() {
        let mark = Mark { size: 9, last: Hash([4; 32]) };
        let bytes = mark.encode();
        assert_eq!(Mark::parse(&bytes), Some(mark));
        for bit in (0..MARK_BYTES * 8).step_by(EVERY) {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::parse(&changed), None);
        }
        assert_eq!(Mark::parse(&bytes[..47]), None);
        assert_eq!(Mark::parse(&[]), None);
    }
}
