//! The five-part outcome that every row owes, checked by one function.
//!
//! 1. exactly the code, within a second;
//! 2. a bystander with a lease of its own reads and writes on, and every byte of it is as it was;
//! 3. the code is in the log, as an entry or counted in one;
//! 4. after a thousand repetitions the node lives, with as many descriptors as before, no more threads than its pools
//!    may have, and no more than a MiB of memory;
//! 5. the logs verify (when the node is stopped).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::SlotHandle;
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::reply::Welcome;
use caps::wire::row::LeaseRow;
use caps::wire::{Name, Reply, Request};

use super::node::{Node, until};
use super::wire::Raw;

/// How often a row is repeated.
const REPEATS: usize = 1_000;
/// Repetitions before memory is measured: pools of threads and of memory grow to their size.
const WARM_UP: usize = 250;
/// How long an answer may take.
const ON_TIME: Duration = Duration::from_secs(1);
/// Growth that is allowed, in KiB.
const GROWTH_KIB_MAX: u64 = 1024;
/// Threads that pools may add: readers of executables, cutters, wipers.
const POOL_THREADS_MAX: usize = 24;
/// Bytes of the bystander's lease.
const BYSTANDER_BYTES: usize = 256 * 1024;

/// How a refusal comes into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// As an entry while the node runs, or counted in the next.
    Entry,
    /// Gathered: at the latest when the node stops.
    Gathered,
}

/// A node, its people, and a bystander.
pub struct Bed {
    pub node: Node,
    /// A registered principal, who is the attacker.
    pub mallory: SigningKey,
    /// Mallory's own lease, its token, and the life it belongs to.
    pub lease: LeaseRow,
    pub token: Token,
    pub welcome: Welcome,
    bystander: Bystander,
    expected: BTreeSet<Code>,
}

struct Bystander {
    raw: Raw,
    handle: SlotHandle,
    data: Vec<u8>,
    round: u64,
}

impl Bystander {
    fn new(node: &Node, key: &SigningKey) -> Self {
        let (mut raw, _) = Raw::session(&node.socket(), key).unwrap();
        let (_, token) = raw.lease(BYSTANDER_BYTES as u64);
        let handle = raw.open(&token, Rights::READ_WRITE).unwrap().handle;
        let data: Vec<u8> = (0..BYSTANDER_BYTES).map(|n| (n % 251) as u8).collect();
        for (n, chunk) in data.chunks(64 * 1024).enumerate() {
            raw.write(handle, n as u64 * 64 * 1024, chunk).unwrap();
        }
        Self { raw, handle, data, round: 0 }
    }

    /// Reads all, compares, and writes something new.
    fn check(&mut self) {
        for (n, chunk) in self.data.chunks(64 * 1024).enumerate() {
            let read = self.raw.read(self.handle, n as u64 * 64 * 1024, 64 * 1024).unwrap();
            assert!(read == chunk, "the bystander's bytes are its own");
        }
        self.round += 1;
        let at = (self.round as usize * 4096) % BYSTANDER_BYTES;
        self.data[at..at + 8].copy_from_slice(&self.round.to_le_bytes());
        self.raw.write(self.handle, at as u64, &self.round.to_le_bytes()).unwrap();
    }
}

/// Whether an entry tells of a refusal with this code.
fn tells(entry: &str, code: Code) -> bool {
    entry.contains(&format!("\"code\":\"{}\"", code.text()))
}

impl Bed {
    /// A node with the default configuration and `more` of it.
    pub fn new(more: &str) -> Self {
        let node = Node::start(more);
        let (mut admin, _) = Raw::session(&node.socket(), &node.admin()).unwrap();
        let (mallory, alice) = (SigningKey::generate(), SigningKey::generate());
        for (name, key) in [("mallory", &mallory), ("alice", &alice)] {
            let name = Name::new(name).unwrap();
            assert!(matches!(admin.ask(&Request::PrincipalAdd { name, key: key.public() }), Ok(Reply::Done)));
        }
        let bystander = Bystander::new(&node, &alice);
        let (mut raw, welcome) = Raw::session(&node.socket(), &mallory).unwrap();
        let (lease, token) = raw.lease(64 * 1024);
        Self { node, mallory, lease, token, welcome, bystander, expected: BTreeSet::new() }
    }

    /// A session of mallory's.
    pub fn session(&self) -> Raw {
        Raw::session(&self.node.socket(), &self.mallory).unwrap().0
    }

    /// Does something wrong by an open right, in a fresh session whenever the node's patience with one has ended.
    pub fn wrong(
        &self,
        held: &mut (Raw, SlotHandle),
        token: &Token,
        rights: Rights,
        mut act: impl FnMut(&mut Raw, SlotHandle) -> Code,
    ) -> Code {
        match act(&mut held.0, held.1) {
            Code::Unreachable => {
                let mut raw = self.session();
                let handle = raw.open(token, rights).unwrap().handle;
                *held = (raw, handle);
                act(&mut held.0, held.1)
            }
            code => code,
        }
    }

    /// A row whose attack needs nothing that lasts.
    pub fn row(&mut self, row: &str, code: Code, logged: Logged, mut attack: impl FnMut(&Self) -> Code) {
        self.row_with(row, code, logged, REPEATS, &mut attack);
    }

    /// A row that is tried in one session, which must go on.
    pub fn row_in_session(&mut self, row: &str, code: Code, mut attack: impl FnMut(&mut Raw) -> Code) {
        let mut raw = self.session();
        self.row_with(row, code, Logged::Entry, REPEATS, &mut |_| attack(&mut raw));
        assert!(raw.ask(&Request::Status).is_ok(), "{row}: the session goes on");
    }

    /// Parts 1 to 4.
    pub fn row_with(
        &mut self,
        row: &str,
        code: Code,
        logged: Logged,
        repeats: usize,
        attack: &mut dyn FnMut(&Self) -> Code,
    ) {
        let seen = self.node.entries().iter().filter(|entry| tells(entry, code)).count();
        let began = Instant::now();
        assert_eq!(attack(self), code, "{row}");
        assert!(began.elapsed() < ON_TIME, "{row}: answered after {:?}", began.elapsed());
        self.bystander.check();
        self.expected.insert(code);
        if logged == Logged::Entry {
            // Refusals are limited for each user: one may be counted in the next instead, which is a moment away.
            until(&format!("{row}: {code} in the log"), || {
                let now = self.node.entries().iter().filter(|entry| tells(entry, code)).count();
                (now > seen).then_some(()).or_else(|| {
                    std::thread::sleep(Duration::from_millis(50));
                    assert_eq!(attack(self), code, "{row}");
                    None
                })
            });
        }
        for _ in 0..WARM_UP.min(repeats) {
            assert_eq!(attack(self), code, "{row}");
        }
        let mut before = self.settled(None);
        let mut repeat = |bed: &mut Self, descriptors| {
            for n in 0..repeats {
                assert_eq!(attack(bed), code, "{row}: repetition {n}");
            }
            bed.settled(Some(descriptors))
        };
        let mut after = repeat(self, before.descriptors);
        if after.resident_kib > before.resident_kib + GROWTH_KIB_MAX {
            // Perhaps more of them were under way at one time than ever before. What leaks grows again.
            before = after;
            after = repeat(self, before.descriptors);
        }
        assert!(after.threads <= before.threads + POOL_THREADS_MAX, "{row}: {before:?} {after:?}");
        assert!(after.resident_kib <= before.resident_kib + GROWTH_KIB_MAX, "{row}: {before:?} {after:?}");
        assert!(self.node.is_alive(), "{row}");
        self.bystander.check();
    }

    /// What the node holds once sessions that ended are settled.
    fn settled(&self, descriptors: Option<usize>) -> super::node::Held {
        match descriptors {
            Some(before) => until("descriptors come back", || {
                let held = self.node.held();
                (held.descriptors <= before).then_some(held)
            }),
            None => {
                let mut last = self.node.held();
                until("sessions settle", || {
                    std::thread::sleep(Duration::from_millis(120));
                    let held = self.node.held();
                    let same = held.descriptors == last.descriptors;
                    last = held;
                    same.then_some(held)
                })
            }
        }
    }

    pub fn check_bystander(&mut self) {
        self.bystander.check();
    }

    /// Part 5, and part 3 of what is gathered. Returns every entry.
    pub fn finish(self) -> Vec<String> {
        let Self { node, mut bystander, expected, token, mallory, .. } = self;
        bystander.check();
        drop(bystander);
        let entries = node.stop();
        for code in expected {
            assert!(entries.iter().any(|entry| tells(entry, code)), "{code} is in the log");
        }
        // No secret is in any entry: neither a token's bytes nor a key's.
        let secrets = [token.to_text()[token.to_text().len() - 40..].to_owned(), hex(&*mallory.seed())];
        for entry in &entries {
            assert!(!secrets.iter().any(|secret| entry.contains(secret)), "{entry}");
        }
        entries
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
