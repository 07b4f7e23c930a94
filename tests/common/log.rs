//! The node's logs, as an auditor reads them.

use std::fs;
use std::path::Path;

use audit::key::Vkey;
use serde_json::Value;

use super::until;

/// Both logs, verified.
pub struct Log {
    /// The broker's entries.
    pub broker: Vec<Value>,
    /// The provider's entries.
    pub provider: Vec<Value>,
}

/// Verifies both logs from their files and the published keys, and reads them.
///
/// # Panics
/// If either is damaged.
#[track_caller]
pub fn verify(dir: &Path) -> Log {
    let vkeys = fs::read_to_string(dir.join("vkeys")).unwrap();
    let vkeys: Vec<_> = vkeys.lines().map(|line| Vkey::parse(line).unwrap()).collect();
    assert_eq!(vkeys.len(), 2, "two logs, each with its key");
    let report = audit::verify::verify_dir(dir, &vkeys).unwrap();
    assert_eq!(report.damage(), None);
    assert_eq!(report.logs.len(), 2);
    read(dir)
}

/// Reads both logs as they are now.
pub fn read(dir: &Path) -> Log {
    Log { broker: entries(&dir.join("broker")), provider: entries(&dir.join("provider-1")) }
}

fn entries(dir: &Path) -> Vec<Value> {
    let parse = |stored: caps::Result<audit::read::Stored>| serde_json::from_slice(&stored.unwrap().bytes);
    audit::read::entries(dir, 0).unwrap().map(|stored| parse(stored).unwrap()).collect()
}

/// Waits for an entry of the provider's log.
#[track_caller]
pub fn await_provider(dir: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(what, || read(dir).provider.into_iter().find(|entry| is(entry)))
}

/// The entries of one kind.
pub fn of<'a>(entries: &'a [Value], event: &str) -> Vec<&'a Value> {
    entries.iter().filter(|entry| entry["event"] == event).collect()
}

/// The entries of one kind about one lease or grant.
pub fn about<'a>(entries: &'a [Value], event: &str, id: impl std::fmt::Display) -> Vec<&'a Value> {
    let id = id.to_string();
    let names = |entry: &&Value| [&entry["lease"], &entry["grant"]].into_iter().any(|named| *named == id[..]);
    entries.iter().filter(|entry| entry["event"] == event).filter(names).collect()
}
