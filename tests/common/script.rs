//! What a test and a client process say to each other, one line of JSON each.
//!
//! A token or a seed is in some of them: they pass through a socket pair between a test and its own child.

use std::path::PathBuf;

use libmem::{ByteRange, GrantId, LeaseId, LeaseRow, PrincipalKey, Rights};
use serde::{Deserialize, Serialize};

use super::attack::Attack;
use super::race::Trace;
use super::writer::{By, Wrote};

/// What a client process is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// First: connect as the holder of a key.
    Begin { socket: PathBuf, seed: [u8; 32] },
    /// Lease memory.
    Lease { bytes: u64, ttl_ms: u64, name: Option<String>, detached: bool },
    /// Move a lease's end.
    Renew { lease: LeaseId, ttl_ms: u64 },
    /// Give a lease back.
    Release { lease: LeaseId },
    /// Offer a lease, or a range of it.
    Offer { lease: LeaseRow, to: PrincipalKey, rights: Rights, range: Option<ByteRange> },
    /// Accept a grant.
    Accept { grant: GrantId, detached: bool },
    /// Open a token; the answer numbers the memory.
    Open { token: String, rights: Rights, mapped: bool },
    /// Drop opened memory.
    Close { memory: usize },
    /// Write through the safe calls.
    Write { memory: usize, offset: u64, bytes: Vec<u8> },
    /// Read through the safe calls.
    Read { memory: usize, offset: u64, length: usize },
    /// Read, or read and write, in a loop until it fails. `raw`: by plain loads and stores, which end the process.
    Use { memory: usize, writing: bool, raw: bool },
    /// Count in a word of each page, at `offset` in it, through the safe calls, until that fails or the test hangs up.
    /// A word that is not as it was left ends it with the code `LOST`.
    Count { memory: usize, offset: u64 },
    /// Write stripes of memory of so many bytes in a thread until told to stop, or until it fails.
    StartWriting { memory: usize, bytes: u64, writer: u8, writers: u8, by: By },
    /// Wait until that thread has written so much more, or has ended.
    Advance { more: u64 },
    /// Wait until it has written so much in all, or has ended.
    Reach { steps: u64 },
    /// Have it stop, and judge what it wrote.
    StopWriting,
    /// Wait until it ends by itself.
    WaitForEnd,
    /// Wait for another process and have it wait, by words in the memory.
    PlayTogether { memory: usize, first: bool, from: u64, rounds: u64 },
    /// Receive the board of races, which comes after this line's answer, and enter with sessions for them.
    TakeBoard,
    /// Open each token so often on every path and use all of that at once, until the board says that it is over.
    Race { tokens: Vec<String>, opens: usize },
    /// Fork; the child uses what it inherited by plain loads until it dies.
    UseInFork { memory: usize },
    /// Receive a descriptor that comes after this line's answer, and map it.
    TakeDescriptor { bytes: usize },
    /// Open a token by hand, for a bare descriptor.
    OpenBare { token: String, rights: Rights },
    /// Try things on the bare descriptor.
    Attack { attacks: Vec<Attack> },
    /// Break a rule in a session spoken by hand.
    Trespass(Trespass),
    /// Receive /dev/userfaultfd, which comes after this line's answer, and write to the bare descriptor from a page
    /// that never comes.
    HoldLock,
    /// Offer a lease whose contract names a third party.
    OfferCosigned { lease: LeaseRow, to: PrincipalKey, rights: Rights, cosigner: PrincipalKey },
    /// Sign, as that third party, what is shown.
    Cosign { grant: GrantId },
}

/// What is said by hand.
#[derive(Debug, Serialize, Deserialize)]
pub enum Trespass {
    /// Begin the session.
    Enter,
    /// Open a token for mediated access; the answer is a handle.
    Open { token: String, rights: Rights },
    /// Read one byte by any handle.
    Read { handle: Handle, offset: u64 },
    /// Write one byte by any handle.
    Write { handle: Handle, offset: u64 },
    /// Close any handle.
    Close { handle: Handle },
    /// Send what is no message.
    Junk,
    /// Ask for a lease so many times.
    Lease { bytes: u64, times: u32 },
}

/// A slot and its epoch.
pub type Handle = (u32, u32);

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    Ready,
    Leased {
        lease: LeaseRow,
        token: String,
    },
    Offered {
        grant: GrantId,
    },
    Accepted {
        token: String,
    },
    Opened {
        memory: usize,
    },
    /// By hand.
    Handle {
        handle: Handle,
    },
    Bytes {
        bytes: Vec<u8>,
    },
    /// It uses memory from now on; the next line, if any, says how that ended.
    Started,
    /// Guarded use ended with this code.
    Stopped {
        code: String,
    },
    /// The writing thread has written more, or has ended.
    Advanced {
        writing: bool,
    },
    /// What the writing thread did.
    Wrote(Wrote),
    /// All rounds were played.
    Played,
    /// What each way of a race lived through.
    Raced {
        traces: Vec<Trace>,
    },
    /// The forked child was ended by this signal.
    Forked {
        signal: i32,
    },
    /// What each attack came to: 0 for success, else the errno.
    Tried {
        errnos: Vec<i32>,
    },
    Done,
    Refused {
        code: String,
    },
}
