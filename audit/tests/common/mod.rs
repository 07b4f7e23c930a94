//! What the tests of the log share.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::path::Path;
use std::sync::Arc;

use audit::key::{LogKey, Origin, Vkey};
use audit::log::{Identity, Log};
use audit::recover::Opening;
use audit::store::memory::Memory;
use audit::verify::{self, Options};
use audit::{Draft, Event};
use caps::error::{Code, Result};
use caps::id::LeaseId;
use caps::time::UnixMicros;

pub const NAME: &str = "test.example/audit/broker";

pub fn origin() -> Origin {
    Origin::parse(NAME).unwrap()
}

pub fn key() -> LogKey {
    LogKey::from_seed(&[7; 32])
}

pub fn vkeys() -> Vec<Vkey> {
    vec![key().vkey(&origin())]
}

pub fn options() -> Options {
    Options { vkeys: vkeys(), against: Vec::new() }
}

pub fn identity() -> Identity {
    Identity::new(origin(), key())
}

/// An entry that can be told from all others by `n`.
pub fn draft(n: u64) -> Draft {
    match n % 4 {
        0 => Draft::ok(Event::LeaseGrant).lease(LeaseId([n as u8; 16])).bytes(n),
        1 => Draft::ok(Event::LeaseOpen).name("a name").bytes(n),
        2 => Draft::deny(Event::TokenReject, Code::TokenSignature).peer_uid(n as u32),
        _ => Draft::ok(Event::LeaseRevoke).reason("\u{202e}because").mappings_closed(n),
    }
}

pub const fn time(n: u64) -> UnixMicros {
    UnixMicros(1_795_168_800_000_000 + n)
}

/// Opens a log on the device in memory, checking all of it.
pub fn open(store: &Memory) -> Result<Log> {
    let opening = Opening { verify_all: true, acknowledged: None };
    Log::open_on(Arc::new(store.reopen()), Arc::new(identity()), opening)
}

/// Appends and commits `n` entries.
pub fn grow(log: &mut Log, n: u64) -> Result<()> {
    for _ in 0..n {
        let seq = log.size();
        log.append(&draft(seq), time(seq))?;
    }
    log.sync()
}

/// The log on the device verifies and has `size` entries, signed or not.
pub fn verified(store: &Memory, size: u64) {
    let summary = verify::log(store, &options()).unwrap();
    assert_eq!(summary.signed.checkpoint().size + summary.unsigned, size);
}

/// Copies what the device in memory has to a directory.
pub fn export(store: &Memory, dir: &Path) {
    for (path, bytes) in store.contents() {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
