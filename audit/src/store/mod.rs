//! What a device must promise, and nothing more.
//!
//! Two traits: [`Files`] for those who read, [`Store`] for the one who writes. Paths are relative, with `/`, and
//! made by this crate.
//!
//! # Durability
//!
//! *Durable* means: still there, whole, after a crash of the process, the system or the power. Exactly three calls
//! make something durable when they return `Ok`: [`Store::put`], [`Store::journal_sync`], [`Store::journal_replace`].
//! A call that returns `Err` may have done all, some or none of its work. After an `Err` of any writing call the
//! caller must drop the store and open another one: a kernel reports a failed write-back once, and then calls the
//! lost pages clean.
//!
//! # Concurrency
//!
//! One [`crate::Log`] owns the journal's calls. `put`, `remove` and reading may run on another thread at the same time.

use std::io;

use crate::journal::MARK_BYTES;

pub mod disk;
pub mod memory;

/// The name of a directory's checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The name of its write-ahead file.
pub const JOURNAL: &str = "journal";
/// The name of its mark of what was acknowledged.
pub const ACKED: &str = "acked";
/// The name of the directory of files on their way to their names.
pub const TMP: &str = "tmp";
/// The name of the directory of tiles.
pub const TILE: &str = "tile";

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The name: bytes, since a stranger may have put it there.
    pub name: Vec<u8>,
    /// Whether it is a directory. What is neither that nor a regular file counts as a file and cannot be read.
    pub is_dir: bool,
}

/// Reading.
pub trait Files {
    /// The whole file, or `None` if there is none.
    ///
    /// # Errors
    /// If it is larger than `max` bytes, no regular file, or cannot be read.
    fn read(&self, path: &str, max: usize) -> io::Result<Option<Vec<u8>>>;

    /// What stands in a directory, sorted; nothing if there is none. The root is the empty path.
    ///
    /// # Errors
    /// If it cannot be read.
    fn list(&self, path: &str) -> io::Result<Vec<Listed>>;
}

/// Writing.
pub trait Store: Files + Send + Sync {
    /// Makes each file whole under its name, replacing what was there, and all of them durable. Makes directories.
    /// A reader sees, under each name, the old file or the new one. There is no order among the files.
    ///
    /// # Errors
    /// Those of the device.
    fn put(&self, files: &[(String, Vec<u8>)]) -> io::Result<()>;

    /// Removes a file or an empty directory, some time. Not durable: a crash may bring it back.
    ///
    /// # Errors
    /// Those of the device. Nothing depends on it, so callers may ignore them.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Writes at the end of the journal, which must be at `at`. Not durable.
    ///
    /// # Errors
    /// If the journal's end is elsewhere (somebody else wrote), and those of the device.
    fn journal_append(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the journal's `length` bytes durable, and checks that the journal is still the one that stands under
    /// its name in the directory that was opened.
    ///
    /// # Errors
    /// If it is not, or has another length, and those of the device.
    fn journal_sync(&self, length: u64) -> io::Result<()>;

    /// Puts a journal of these bytes in place of the old one, durably; later appends go to it.
    ///
    /// # Errors
    /// Those of the device.
    fn journal_replace(&self, bytes: &[u8]) -> io::Result<()>;

    /// Overwrites the mark, which [`Self::put`] put in place. Not durable: after a crash an older one may be there,
    /// but never a mixture.
    ///
    /// # Errors
    /// Those of the device.
    fn mark(&self, mark: &[u8; MARK_BYTES]) -> io::Result<()>;
}
