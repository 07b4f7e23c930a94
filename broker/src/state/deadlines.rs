//! Rows in the order in which something has to happen to them. There is no sweep: the first one is the next timer.

use std::collections::BTreeSet;

use caps::time::UnixMicros;

use super::command::RowId;

/// Each row that has a deadline, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines(BTreeSet<(UnixMicros, RowId)>);

impl Deadlines {
    /// A row's deadline is no longer `from` but `to`.
    pub(super) fn swap(&mut self, row: RowId, from: Option<UnixMicros>, to: Option<UnixMicros>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.0.remove(&(from, row));
        }
        if let Some(to) = to {
            self.0.insert((to, row));
        }
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<UnixMicros> {
        self.0.first().map(|(at, _)| *at)
    }

    /// At most `most` rows whose deadline is `now` or earlier, in the order of their deadlines.
    pub(super) fn due(&self, now: UnixMicros, most: usize) -> Vec<RowId> {
        self.0.iter().take_while(|(at, _)| *at <= now).take(most).map(|(_, row)| *row).collect()
    }
}
