//! The audit log: an append-only Merkle tree of canonical JSON entries under signed checkpoints.
//!
//! The bytes are C2SP tlog-tiles, signed notes and tlog-proofs, so tools that we did not write can check them; what
//! is ours is the entry (RFC 8785 JSON with a `prev` hash) and two local files, `journal` and `acked`.
//!
//! # Data flow
//!
//! ```text
//! Draft ──Log::append──▶ entry bytes, leaf hash, tree        (memory)
//!                            │ Log::sync: journal + fdatasync = the commit point
//!                            ▼
//!                        Recorded ──▶ the reply may leave
//!                            │ publish: tiles, then checkpoint by rename, then a shorter journal
//!                            ▼
//!                        verify, prove, read: from files alone
//! ```
//!
//! A [`Recorder`] owns a [`Log`] on a thread of its own and syncs many submissions at once. It is where a failed
//! device turns into `E_AUDIT_UNAVAILABLE`, and where take-backs wait in memory until a device is back.
//!
//! # Where things are
//!
//! | module | holds |
//! |---|---|
//! | [`event`], [`draft`] | what can be recorded: a closed list of events and of fields |
//! | [`scan`], [`entry`] | the canonical form, and reading an entry back |
//! | [`text`] | peers' text made harmless for terminals; times |
//! | [`hash`], [`tree`], [`merkle`], [`tile`] | leaf and node hashes, the growing tree, proofs, tile paths |
//! | [`key`], [`note`], [`salt`] | log keys and vkeys, checkpoints, how tokens are named without being shown |
//! | [`store`] | what a device must promise; the real one and one in memory that loses what was not synced |
//! | [`journal`] | the write-ahead file and the mark of what was acknowledged |
//! | [`log`], [`publish`], [`recover`] | append, publish, open |
//! | [`recorder`] | the thread, the queue, the watchdog |
//! | [`rejects`] | bursts and rate limits whose counters add up |
//! | [`verify`], [`proof`], [`read`] | the auditor's side |
//!
//! # A directory
//!
//! ```text
//! checkpoint                    signed note, replaced by rename
//! tile/<L>/<N>[.p/<W>]          hashes
//! tile/entries/<N>[.p/<W>]      entries, each with a 16-bit length
//! journal                       entries since the checkpoint, the same form
//! acked                         how many entries were acknowledged: 48 bytes, overwritten in place
//! tmp/                          files on their way to their names
//! ```
//!
//! # What it does not promise
//!
//! Whoever may write the directory can cut the *unsigned* tail (at most [`recorder::CHECKPOINT_MS`] old) and rewrite
//! `acked` to match. Whoever has the log key can sign another history; only a checkpoint kept elsewhere, or a
//! witness, shows that ([`verify::Options::against`]).
#![forbid(unsafe_code)]

pub mod draft;
pub mod entry;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod hash;
pub mod journal;
pub mod key;
pub mod log;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod publish;
pub mod read;
pub mod recorder;
pub mod recover;
pub mod rejects;
pub mod salt;
pub mod scan;
pub mod store;
pub mod text;
pub mod tile;
pub mod tree;
pub mod verify;

#[cfg(test)]
mod vector;

pub use draft::Draft;
pub use event::{Event, Outcome};
pub use key::{LogKey, Origin, Vkey};
pub use log::{Identity, Log};
pub use recorder::{Recorded, Recorder};
pub use salt::Salt;
