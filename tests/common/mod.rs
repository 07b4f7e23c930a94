//! What the end-to-end tests share: a node in a temporary directory, client processes, and what must hold afterwards.
//!
//! ```text
//!  test ──┬── Node     `leasehold up`, the built binary, in a directory of its own
//!         ├── World    a node with an administrator and a bystander; `finish` checks that nothing of theirs was lost
//!         ├── Actor    a client process: this test binary once more, perhaps as another user, told what to do in lines
//!         └── Raw      a session spoken by hand, for what libmem would never do
//! ```
//!
//! | file | what |
//! |---|---|
//! | `node` | starts, stops and kills `leasehold up` |
//! | `world` | the five-part outcome: node alive, bystander unharmed, nothing leaked, logs in order |
//! | `script`, `actor`, `player` | client processes: the lines, the side that tells, the side that does |
//! | `stripes`, `writer` | writes of which none can be lost or torn unnoticed: the benchmark's, and a thread of them |
//! | `together` | two processes that wait for one another |
//! | `race`, `board` | accesses on every path while the right is taken back; when that was called and acknowledged |
//! | `attack` | what a holder of a descriptor may try with it |
//! | `raw` | frames by hand |
//! | `tls` | the same over TLS |
//! | `pass` | a descriptor from process to process |
//! | `shell` | commands of a second terminal |
//! | `named` | whether a test that a document names exists |
//! | `log` | entries of the node's logs, and their verification |
//! | `netns` | hosts with networks of their own on this machine, and cables that can be pulled |
//! | `faults`, `packet` | a wire that delays, loses, reorders, doubles and cuts as it is told |
//!
//! Every wait is for a condition and has a deadline; nothing sleeps and hopes.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

pub mod actor;
pub mod attack;
pub mod board;
pub mod faults;
pub mod log;
pub mod named;
pub mod netns;
pub mod node;
pub mod packet;
pub mod pass;
pub mod player;
pub mod race;
pub mod raw;
pub mod script;
pub mod shell;
#[path = "../../cli/src/bench/revoke/stripes.rs"]
pub mod stripes;
pub mod tls;
pub mod together;
pub mod world;
pub mod writer;

use std::time::{Duration, Instant};

use libmem::{Code, Error};

pub use actor::Actor;
pub use node::Node;
pub use script::{Ask, Said};
pub use world::World;

/// How long a test waits for something that must happen. Far above what anything takes, so that only a defect or a
/// machine that stands still reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long between two looks at a condition that nothing announces.
const LOOK: Duration = Duration::from_millis(5);

/// Bytes of a small lease: a few pages.
pub const SMALL: u64 = 64 << 10;
/// One minute, for leases that a test ends itself.
pub const MINUTE: Duration = Duration::from_secs(60);

/// A user that owns nothing and that no test otherwise runs as.
pub const NOBODY: u32 = 65_534;
/// Users of clients, when the tests run as root. Nothing on the machine needs to know them.
pub const USERS: [u32; 4] = [61_184, 61_185, 61_186, 61_187];

/// Waits until `condition` gives something.
///
/// # Panics
/// With `what`, if it does not within [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within_patience(condition).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// As [`until`], for those who have more to say than one line.
pub fn within_patience<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            None if Instant::now() < deadline => std::thread::sleep(LOOK),
            found => return found,
        }
    }
}

/// Whether the tests run as root, who alone can be several users.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The code of a refusal, or `OK`.
pub fn code<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(|error| error.code().text(), |_| "OK")
}

/// Checks that a request was refused with exactly this code.
#[track_caller]
pub fn refused<T>(result: Result<T, Error>, expected: Code) {
    match result {
        Ok(_) => panic!("must be refused with {expected}, and was done"),
        Err(error) => assert_eq!(error.code(), expected, "{error}"),
    }
}

/// Bytes that look like nothing else and differ with `seed`.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// `oom_kill` of /proc/vmstat: how often the machine killed for lack of memory since it started.
pub fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.expect("the kernel counts its kills").trim().parse().unwrap()
}
