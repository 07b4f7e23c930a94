//! Segments: the pieces of a region that are mapped and cut as one.
//!
//! Each is a file of its own. The file of one *generation* is handed to holders as descriptors and never taken from
//! some of them only: whoever received one may have mapped it, forked, or passed it on. So ending one right among
//! several means a new generation: the old file is cut for all, and those who keep their rights get a fresh file with
//! the same bytes.
//!
//! ```text
//!            HandedOut: exposed to one more             Fresh: bytes for the fresh file
//!                 ┌──┐                                       ┌──┐
//!                 │  ▼        a right that it was            │  ▼
//!   Created ───▶ Settled ───── exposed to ends ──────────▶ Rotating
//!                    ▲              Effect::Rotate            │
//!                    │                                        │
//!                    └────────────────────────────────────────┘
//!                       Rotated: generation + 1, exposed to nobody; the survivors are handed the
//!                       fresh file by HandedOut again.  Spent: the old file's bytes are free
//! ```
//!
//! A segment that is rotating hands nothing out. It keeps the list of those it was exposed to until the rotation is
//! over, so that a later revoke knows that it has to wait for this one.

use caps::id::GrantId;
use caps::time::BootNanos;

use super::event::RotationId;

/// The generation of a segment's first file. 0 is none.
pub const FIRST_GENERATION: u32 = 1;

/// Where a segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Its file is there to be handed out.
    Settled,
    /// Its file is being cut and copied into a fresh one.
    Rotating(RotationId),
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentRow {
    /// Counts its files, from 1.
    pub generation: u32,
    /// Where it is.
    pub state: SegmentState,
    /// Whether the bytes of a rotating segment's fresh file are in the books.
    pub(super) fresh: bool,
    /// Whether survivors of the last rotation whose rights can end before the region were promised the file of this
    /// generation. Until they fetched it, this alone keeps room for the next rotation.
    pub(super) promised: bool,
    pub(super) exposed: Exposed,
}

impl SegmentRow {
    pub(super) const fn new() -> Self {
        Self {
            generation: FIRST_GENERATION,
            state: SegmentState::Settled,
            fresh: false,
            promised: false,
            exposed: Exposed { rows: Vec::new(), due: None },
        }
    }

    /// Whether a rotation may be needed whose fresh file is not in the books yet.
    pub(super) fn needs_room(&self) -> bool {
        match self.state {
            SegmentState::Settled => self.promised || self.exposed.rows.iter().any(Exposure::can_end),
            SegmentState::Rotating(_) => !self.fresh,
        }
    }
}

/// Who received a descriptor of the present file. Closing a right does not take its exposure away, because a mapping
/// may outlive it; only the next generation does.
///
/// The holder is no part of it: nothing is ever ended by holder, and one row for all who came by the same grant is
/// what bounds the list, whatever number of keys a grant is delegated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Under which grant; `None` for the owner and those to whom it delegated.
    pub grant: Option<GrantId>,
    /// Whether the descriptor can be mapped writable.
    pub write: bool,
    /// When the first of these rights ends; `None` if all live as long as the region.
    pub until: Option<BootNanos>,
    /// Descriptors.
    pub count: u32,
}

impl Exposure {
    /// Whether it can end while the region lives on.
    pub(super) const fn can_end(&self) -> bool {
        self.grant.is_some() || self.until.is_some()
    }
}

/// The exposures of one file, ordered by grant and access, one row for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Exposed {
    rows: Vec<Exposure>,
    /// The earliest end of any row.
    due: Option<BootNanos>,
}

impl Exposed {
    pub(super) fn rows(&self) -> &[Exposure] {
        &self.rows
    }

    /// When the first of them ends.
    pub(super) const fn due(&self) -> Option<BootNanos> {
        self.due
    }

    /// Adds one descriptor. Rights that came by the same grant share a row, which ends with the first of them: too
    /// early for the others, who then survive, and never too late. `false` if there is no room for one more row.
    #[must_use]
    pub(super) fn add(
        &mut self,
        grant: Option<GrantId>,
        write: bool,
        until: Option<BootNanos>,
        capacity: usize,
    ) -> bool {
        match self.rows.binary_search_by_key(&(grant, write), |row| (row.grant, row.write)) {
            Ok(at) => {
                let row = &mut self.rows[at];
                row.until = earlier(row.until, until);
                row.count = row.count.saturating_add(1);
            }
            Err(_) if self.rows.len() >= capacity => return false,
            Err(at) => {
                // Nearly every lease has one holder: no room for others in advance.
                self.rows.reserve_exact(1);
                self.rows.insert(at, Exposure { grant, write, until, count: 1 });
            }
        }
        self.due = earlier(self.due, until);
        true
    }

    /// Moves the ends of all rows to `until`, if that is earlier: nobody's lives as long as the region any more.
    pub(super) fn end(&mut self, until: BootNanos) {
        for row in &mut self.rows {
            row.until = earlier(row.until, Some(until));
            self.due = earlier(self.due, Some(until));
        }
    }

    /// Moves the ends of a grant's rows to `until`, if that is earlier.
    pub(super) fn shorten(&mut self, grant: GrantId, until: BootNanos) {
        for row in self.rows.iter_mut().filter(|row| row.grant == Some(grant)) {
            row.until = earlier(row.until, Some(until));
            self.due = earlier(self.due, Some(until));
        }
    }
}

/// The earlier of two ends, where `None` never comes.
pub(super) fn earlier(a: Option<BootNanos>, b: Option<BootNanos>) -> Option<BootNanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (some, None) | (None, some) => some,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Option<GrantId> = Some(GrantId([1; 16]));

    #[test]
    fn one_row_for_each_grant_and_access_that_ends_with_the_first() {
        let mut exposed = Exposed::default();
        assert!(exposed.add(None, true, None, 2) && exposed.add(GRANT, false, Some(BootNanos(9)), 2));
        assert!(!exposed.add(GRANT, true, Some(BootNanos(3)), 2), "full");
        assert!(exposed.add(GRANT, false, Some(BootNanos(5)), 2), "a known one needs no room");
        assert_eq!(exposed.due(), Some(BootNanos(5)), "what was refused left nothing behind");
        assert_eq!(exposed.rows().iter().map(|row| row.count).collect::<Vec<_>>(), [1, 2]);
        exposed.shorten(GrantId([1; 16]), BootNanos(7));
        assert_eq!(exposed.due(), Some(BootNanos(5)), "never moved away");
        exposed.shorten(GrantId([1; 16]), BootNanos(4));
        assert_eq!((exposed.due(), exposed.rows()[0].until), (Some(BootNanos(4)), None));
    }
}
