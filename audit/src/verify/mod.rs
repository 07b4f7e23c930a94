//! Verifying a log from its files and a public key.
//!
//! Every entry is hashed again, every tile is compared with what the entries make it, the root with what the key
//! signed. Then every other file of the directory must be explained: tiles that are older or newer than the
//! checkpoint, the journal's entries by their `prev` chain, the mark. Nothing of the node is needed, and nothing is
//! written. A log that is being written meanwhile can be verified: what changed under the reader is read again.
//!
//! The first damage is named with its file and, where there is one, the entry's index.

use std::path::Path;

use caps::error::{Code, Error, Result};
use caps::time::UnixMicros;

use crate::key::{Role, Vkey};
use crate::note::Signed;
use crate::store::disk::ReadDir;
use crate::store::{ACKED, CHECKPOINT, Files, JOURNAL, TILE};
use crate::tile::Tile;

mod walk;

use walk::{Heads, Walk, first_leaf};

/// How often a log that changes under the reader is read from the start.
pub const ATTEMPTS_MAX: u32 = 4;
/// How deep below the given directory logs are looked for: `<dir>/audit/<log>`.
pub const SEARCH_DEPTH_MAX: u32 = 3;
/// Most logs below one directory. More is not a node's directory.
pub const LOGS_MAX: usize = 1_024;

/// What to verify against.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keys of logs and of witnesses.
    pub vkeys: Vec<Vkey>,
    /// Checkpoints that were kept from earlier, in full: the log must still contain each one of its origin.
    pub against: Vec<Vec<u8>>,
}

/// The first thing that is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What kind.
    pub code: Code,
    /// In which file, relative to the log's directory.
    pub file: String,
    /// The index of the first entry that it concerns.
    pub index: Option<u64>,
    /// What, in words of ours.
    pub detail: &'static str,
}

impl Damage {
    fn new(code: Code, file: impl Into<String>, index: Option<u64>, detail: &'static str) -> Self {
        Self { code, file: file.into(), index, detail }
    }

    fn io(file: &str) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.to_owned();
        move |_| {
            let index = Tile::parse(&file).map(|tile| first_leaf(tile, 0));
            Self::new(Code::AuditFile, file, index, "cannot be read, or is larger than it can be")
        }
    }

    /// The damage as an error.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::with(self.code, self.to_string())
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.file)?;
        if let Some(index) = self.index {
            write!(f, ", entry {index}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What a log that verifies has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The checkpoint and who signed it.
    pub signed: Signed,
    /// Entries after the checkpoint that hang together by `prev`, but are not signed.
    pub unsigned: u64,
    /// Bytes at the journal's end that are no entry: a write that was under way, or was interrupted, and that
    /// nobody was told of.
    pub torn_bytes: u64,
    /// Time of the first and the last entry, unsigned ones included.
    pub times: Option<(UnixMicros, UnixMicros)>,
}

/// One log below the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// Its directory, relative to the one that was given; empty if it is that one.
    pub path: String,
    /// What it has, or what is wrong.
    pub outcome: Result<Summary, Damage>,
}

/// All logs below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each log, by path.
    pub logs: Vec<LogReport>,
}

impl Report {
    /// The first damage, with the log's path.
    #[must_use]
    pub fn damage(&self) -> Option<(&str, &Damage)> {
        self.logs.iter().find_map(|log| Some((&log.path[..], log.outcome.as_ref().err()?)))
    }
}

/// Verifies every log in or below `dir`. Where `dir` holds several, each log key among `vkeys` must have its log.
///
/// # Errors
/// `E_CONFIG_IO` if the directory cannot be read, `E_AUDIT_FILE` if no log is there. Damage is in the report.
pub fn verify_dir(dir: &Path, vkeys: &[Vkey]) -> Result<Report> {
    verify_dir_with(dir, &Options { vkeys: vkeys.to_vec(), against: Vec::new() })
}

/// As [`verify_dir`], with all options.
///
/// # Errors
/// As [`verify_dir`].
pub fn verify_dir_with(dir: &Path, options: &Options) -> Result<Report> {
    let mut paths = Vec::new();
    find_logs(dir, "", 0, &mut paths)?;
    if paths.is_empty() {
        return Err(Error::new(Code::AuditFile, "there is no log in or below the directory"));
    }
    let mut logs = Vec::new();
    for path in paths {
        let files = ReadDir::open(&dir.join(&path))?;
        logs.push(LogReport { outcome: log(&files, options), path });
    }
    if logs.iter().any(|log| !log.path.is_empty()) {
        let found = |vkey: &&Vkey| {
            vkey.role() == Role::Witness
                || logs.iter().any(|log| match &log.outcome {
                    Ok(summary) => summary.signed.checkpoint().origin == *vkey.name(),
                    Err(_) => false,
                })
        };
        // With a damaged log around, its key may be the one without a log: one damage is enough.
        if logs.iter().all(|log| log.outcome.is_ok())
            && let Some(vkey) = options.vkeys.iter().find(|vkey| !found(vkey))
        {
            let damage = Damage::new(Code::AuditFile, CHECKPOINT, None, "there is no log of this key's name");
            logs.push(LogReport { path: vkey.name().to_string(), outcome: Err(damage) });
        }
    }
    Ok(Report { logs })
}

fn find_logs(dir: &Path, path: &str, depth: u32, found: &mut Vec<String>) -> Result<()> {
    let listed = ReadDir::open(&dir.join(path))?.list("");
    let listed = listed.map_err(|_| Error::new(Code::ConfigIo, "a directory cannot be listed"))?;
    if listed
        .iter()
        .any(|entry| [CHECKPOINT, JOURNAL, ACKED, TILE].iter().any(|n| n.as_bytes() == entry.name))
    {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth == SEARCH_DEPTH_MAX {
        return Ok(());
    }
    for entry in listed.iter().filter(|entry| entry.is_dir) {
        if let Ok(name) = std::str::from_utf8(&entry.name)
            && found.len() < LOGS_MAX
        {
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            // Directories that are not ours to read hold no log of ours.
            let _ = find_logs(dir, &below, depth + 1, found);
        }
    }
    Ok(())
}

/// Verifies one log.
///
/// # Errors
/// The first damage.
pub fn log(files: &dyn Files, options: &Options) -> Result<Summary, Damage> {
    let mut attempt = 1;
    loop {
        let heads = Heads::read(files)?;
        let mut walk = Walk::new(files, options, &heads)?;
        let outcome = walk.run();
        let settled = attempt >= ATTEMPTS_MAX || Heads::read(files).is_ok_and(|now| now == heads);
        match outcome {
            Ok(_) if walk.ahead.is_some() && settled => return Err(walk.ahead.take().expect("just checked")),
            Ok(summary) => return Ok(summary),
            Err(damage) if settled => return Err(damage),
            Err(_) => attempt += 1,
        }
    }
}
