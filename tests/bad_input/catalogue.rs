//! Every row of the catalogue is accounted for: by a test that exists, or by a reason.

use std::collections::BTreeSet;
use std::path::Path;

use toml::{Table, Value};

use super::named::exists;

/// The rows of the catalogue.
const ROWS: &[(char, &[u8])] = &[
    ('A', &[1, 2, 3, 4, 5, 6, 8, 10, 11, 12]),
    ('B', &[1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18]),
    ('C', &[1, 2, 3, 4, 5, 7, 8, 9, 10, 11]),
    ('D', &[1, 2, 3, 4, 6, 8, 9, 10, 11, 12]),
    ('E', &[1, 2, 3, 4, 5, 6, 7, 9]),
    ('F', &[1, 2, 3, 5, 6, 7, 9]),
    ('G', &[1, 2, 4, 5, 6]),
    ('H', &[1, 3, 4, 5, 6]),
    ('I', &[1, 2, 3, 4, 5, 7, 8, 9]),
    ('J', &[1, 2, 3, 5]),
    ('K', &[1, 2, 3, 5, 6, 7, 8, 9]),
    ('L', &[1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 14, 15, 16]),
    ('M', &[1, 2, 4, 5, 6, 7, 9, 10]),
    ('N', &[1, 2, 3, 4, 5, 7]),
];

#[test]
fn every_row_has_a_test_that_exists_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("tests/bad-input.toml")).unwrap();
    let table: Table = text.parse().unwrap();
    let wanted: BTreeSet<String> =
        ROWS.iter().flat_map(|(group, rows)| rows.iter().map(move |row| format!("{group}{row}"))).collect();
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(wanted.difference(&listed).map(|row| format!("{row} is missing")));
    wrong.extend(listed.difference(&wanted).map(|row| format!("{row} is no row of the catalogue")));
    for (row, value) in &table {
        let Value::Table(row_table) = value else {
            wrong.push(format!("{row} is no table"));
            continue;
        };
        let tests = row_table.get("tests").and_then(Value::as_array);
        let reason = row_table.get("na").and_then(Value::as_str);
        match (tests, reason) {
            (Some(tests), None) if !tests.is_empty() => {
                for test in tests {
                    let found = test.as_str().ok_or("no text".to_owned()).and_then(|test| exists(root, test));
                    wrong.extend(found.err().map(|why| format!("{row}: {why}")));
                }
            }
            (None, Some(reason)) if reason.len() > 20 => {
                if row_table.get("opens").and_then(Value::as_str).is_none_or(str::is_empty) {
                    wrong.push(format!("{row}: what opens this door?"));
                }
            }
            _ => wrong.push(format!("{row}: either tests or a reason")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
