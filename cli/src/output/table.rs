//! Aligned tables.

use super::bold;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Spaces between columns.
const GAP: &str = "  ";

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: impl Into<Vec<(&'static str, Align)>>) -> Self {
        Self { headings: headings.into(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The table, or `empty` on a line where it has no rows.
    pub(crate) fn render(&self, colour: bool, empty: &str) -> String {
        if self.rows.is_empty() {
            return format!("{empty}\n");
        }
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.headings[column].0.len())
        };
        let widths: Vec<_> = (0..self.headings.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&self.headings).zip(&widths);
            let padded: Vec<_> = cells
                .map(|((cell, (_, align)), &width)| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                })
                .collect();
            padded.join(GAP).trim_end().to_owned()
        };
        let heading = line(&mut self.headings.iter().map(|(heading, _)| *heading));
        let mut text = bold(colour, &heading) + "\n";
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
            text.push('\n');
        }
        text
    }
}

/// Names and values, one a line, the values in one column.
pub(crate) fn pairs(colour: bool, pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{}{GAP}{value}\n", bold(colour, &format!("{name:<width$}"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut table = Table::new([("NAME", Align::Left), ("BYTES", Align::Right), ("STATE", Align::Left)]);
        assert_eq!(table.render(false, "no leases"), "no leases\n");
        table.row(["a".into(), "1".into(), "live".into()]);
        table.row(["längster".into(), "1234567".into(), "x".into()]);
        assert_eq!(
            table.render(false, ""),
            "NAME        BYTES  STATE\na               1  live\nlängster  1234567  x\n"
        );
        assert!(table.render(true, "").starts_with("\u{1b}[1mNAME"));
    }

    #[test]
    fn values_stand_in_one_column() {
        assert_eq!(pairs(false, &[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
