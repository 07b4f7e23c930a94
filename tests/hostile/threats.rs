//! docs/threat-model.md names, for each threat, the test that tries it.

use std::path::Path;

use super::common::named;

/// What stands between backticks in the last column of the table's rows.
fn tests_of(row: &str) -> Vec<&str> {
    let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_threat_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with("| boundary |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() >= 30, "the table is there: {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let tests = tests_of(row);
        if tests.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        wrong.extend(tests.into_iter().filter_map(|test| named::exists(root, test).err()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_test_that_is_not_there_is_found_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert_eq!(named::exists(root, "tests/hostile/pin.rs::pages_pinned_by_vmsplice_read_zeros"), Ok(()));
    for missing in [
        "tests/hostile/pin.rs::pages_pinned_by_nobody",
        "tests/hostile/pin.rs::vmsplice",
        "tests/hostile/nowhere.rs::pages_pinned_by_vmsplice_read_zeros",
        "pages_pinned_by_vmsplice_read_zeros",
    ] {
        assert!(named::exists(root, missing).is_err(), "{missing}");
    }
}
