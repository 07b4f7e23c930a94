//! A node that serves TLS, an attacker with a good certificate, and a bystander whom nothing of it may touch.
//!
//! What every group owes, checked by [`Bed::unharmed`] and [`Bed::finish`]: the bystander's bytes are what he wrote, by
//! his mapping and over the network; he goes on being served within [`SERVED_WITHIN`]; the node lives and holds no more
//! descriptors and threads than before, and not much more memory; its logs verify and no secret is in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::SlotHandle;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::Name;
use caps::wire::row::LeaseRow;
use libmem::{Client, Error, LeaseOptions, Leased, Lifetime, Region, SigningKey};
use transport::Credentials;

use super::common::log::{self, Log};
use super::common::tls::{Tls, credentials};
use super::common::{MINUTE, Node, pattern, until};

/// Bytes of a lease of the bystander's or the attacker's.
pub const BYTES: u64 = 256 << 10;
/// How long the bystander may have to wait for a round of his, on a machine that does other things as well.
pub const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// How long the first answer of a row may take.
pub const ON_TIME: Duration = Duration::from_secs(1);
/// Between two rounds of the bystander's beside something.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(200);
/// Memory that a group may leave behind, in KiB: allocators keep some of what was used at one time.
pub const GROWTH_KIB_MAX: u64 = 8 << 10;
/// Threads that pools may have added.
const POOL_THREADS_MAX: usize = 24;

/// Somebody with a certificate and a key.
pub struct Person {
    pub key: SigningKey,
    pub credentials: Arc<Credentials>,
    pub lease: LeaseRow,
    pub token: Token,
}

/// The bystander: one mapping and one connection to the same bytes.
struct Bystander {
    region: Region,
    tls: Tls,
    handle: SlotHandle,
    bytes: Vec<u8>,
    round: u64,
}

/// See above.
pub struct Bed {
    pub node: Node,
    pub mallory: Person,
    bystander: Option<Bystander>,
    before: Held,
    secrets: Vec<Vec<u8>>,
}

/// What the node holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub descriptors: Option<usize>,
    pub threads: usize,
    pub resident_kib: u64,
}

impl Bystander {
    fn new(node: &Node, person: &Person) -> Self {
        let client = Client::connect(&node.endpoint(), &person.key).unwrap();
        let region = client.open_mapped(&person.token, Rights::READ_WRITE).unwrap();
        let bytes = pattern(7, BYTES as usize);
        region.write_at(0, &bytes).unwrap();
        let mut tls = Tls::connect(node.address(), &person.credentials, &person.key).unwrap();
        let handle = tls.open(&person.token, Rights::READ_WRITE).unwrap();
        Self { region, tls, handle, bytes, round: 0 }
    }

    /// All bytes are there on both ways, and what is written on one is read on the other. Returns how long it took.
    #[track_caller]
    fn round(&mut self, what: &str) -> Duration {
        let began = Instant::now();
        let mut mapped = vec![0; self.bytes.len()];
        self.region.read_at(0, &mut mapped).unwrap();
        assert!(mapped == self.bytes, "{what}: the bystander's bytes changed");
        let remote = patient(|| self.tls.read_at(self.handle, 0, BYTES));
        assert!(remote == self.bytes, "{what}: the bystander is told other bytes over the network");
        self.round += 1;
        let at = (self.round * 4_096 % BYTES) as usize;
        let word = (self.round << 1).to_le_bytes();
        let written = patient(|| self.tls.write_at(self.handle, at as u64, &word));
        assert_eq!(written, 8, "{what}");
        let mut seen = [0; 8];
        self.region.read_at(at as u64, &mut seen).unwrap();
        assert_eq!(seen, word, "{what}: what he writes over the network is in his mapping");
        self.region.write_at(at as u64 + 8, &word).unwrap();
        self.bytes[at..at + 8].copy_from_slice(&word);
        self.bytes[at + 8..at + 16].copy_from_slice(&word);
        let took = began.elapsed();
        assert!(took < SERVED_WITHIN, "{what}: the bystander waited {took:?}");
        took
    }
}

/// Asks again as long as the node has more to do than it can, which is an honest answer.
#[track_caller]
fn patient<T>(mut ask: impl FnMut() -> Result<T, Error>) -> T {
    let until = Instant::now() + SERVED_WITHIN;
    loop {
        match ask() {
            Ok(done) => return done,
            Err(error) if error.code() == Code::Busy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("the bystander is refused: {error}"),
        }
    }
}

impl Bed {
    /// A node with `config` more, and its people.
    pub fn new(config: &str) -> Self {
        Self::of(Node::start_with_tls(config))
    }

    /// With a node that runs.
    pub fn of(node: Node) -> Self {
        let [mallory, alice] = ["mallory", "alice"].map(|name| Self::person(&node, name));
        let secrets = [&mallory, &alice].into_iter().flat_map(Person::secrets).collect();
        let mut bystander = Bystander::new(&node, &alice);
        bystander.round("at the beginning");
        drop(mallory.opened(&node)); // what is made at the first use and kept is there before it is measured
        let before = held(&node);
        Self { node, mallory, bystander: Some(bystander), before, secrets }
    }

    /// Somebody else with a lease, who is not there.
    pub fn stranger(&self, name: &'static str) -> (SigningKey, Leased) {
        let key = SigningKey::generate();
        self.node.admin().principal_add(Name::new(name).unwrap(), key.public()).unwrap();
        let client = Client::connect(&self.node.endpoint(), &key).unwrap();
        let leased =
            client.lease(LeaseOptions::new(BYTES, 30 * MINUTE).lifetime(Lifetime::Detached)).unwrap();
        (key, leased)
    }

    /// What the node held before.
    pub const fn before(&self) -> Held {
        self.before
    }

    fn person(node: &Node, name: &'static str) -> Person {
        let key = SigningKey::generate();
        node.admin().principal_add(Name::new(name).unwrap(), key.public()).unwrap();
        let client = Client::connect(&node.endpoint(), &key).unwrap();
        let options =
            LeaseOptions::new(BYTES, 30 * MINUTE).lifetime(Lifetime::Detached).name("taken").unwrap();
        let leased = client.lease(options).unwrap();
        let credentials = credentials(node, name);
        Person { key, credentials, lease: leased.lease, token: leased.token }
    }

    /// A session of the attacker's.
    pub fn session(&self) -> Tls {
        self.mallory.session(&self.node)
    }

    /// One with an open right to the attacker's own lease.
    pub fn opened(&self) -> (Tls, SlotHandle) {
        self.mallory.opened(&self.node)
    }

    /// What must not be told to anybody.
    pub fn secrets(&self) -> &[Vec<u8>] {
        &self.secrets
    }

    /// One row of the catalogue, so often: each time exactly this code, the first time within [`ON_TIME`].
    #[track_caller]
    pub fn row(
        &self,
        row: &str,
        times: usize,
        code: Option<Code>,
        mut attack: impl FnMut(&Self) -> Option<Code>,
    ) {
        for time in 0..times {
            let began = Instant::now();
            assert_eq!(attack(self), code, "{row}, time {time}");
            assert!(time > 0 || began.elapsed() < ON_TIME, "{row}: answered after {:?}", began.elapsed());
        }
    }

    /// A row whose code is for the caller to judge.
    pub fn row_of(&self, row: &str, mut attack: impl FnMut(&Self) -> Option<Code>) -> Option<Code> {
        let code = attack(self);
        self.row(row, 10, code, attack);
        code
    }

    /// The bystander goes, for a node that is to be stopped.
    pub fn leave(&mut self) {
        self.unharmed("at the end");
        self.bystander = None;
    }

    /// That the log of the running node has this code by now, as an entry or gathered in one.
    #[track_caller]
    pub fn on_record(&self, code: Code) {
        until(&format!("{code} is on record"), || {
            let Log { broker, provider } = log::read(&self.node.audit());
            broker.iter().chain(&provider).any(|entry| entry["code"] == code.text()).then_some(())
        });
    }

    /// One round of the bystander's. Returns how long it took.
    #[track_caller]
    pub fn unharmed(&mut self, group: &str) -> Duration {
        assert!(self.node.is_alive(), "{group}: the node died: {}", self.node.said());
        self.bystander.as_mut().expect("the bystander is here").round(group)
    }

    /// Rounds of the bystander's beside `work`, again and again; the longest that one took.
    #[track_caller]
    pub fn beside<T: Send>(&mut self, group: &str, work: impl FnOnce(&Self) -> T + Send) -> (T, Duration) {
        let mut bystander = self.bystander.take().expect("the bystander is here");
        let bed = &*self;
        let (done, longest, bystander) = std::thread::scope(|scope| {
            let working = scope.spawn(move || work(bed));
            let mut longest = Duration::ZERO;
            while !working.is_finished() {
                longest = longest.max(bystander.round(group));
                std::thread::sleep(BETWEEN_ROUNDS);
            }
            let done = working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (done, longest, bystander)
        });
        self.bystander = Some(bystander);
        self.unharmed(group);
        (done, longest)
    }

    /// Processor time of the node so far, and of this process.
    pub fn worked(&self) -> [Duration; 2] {
        /// `USER_HZ` of /proc, everywhere.
        const TICKS_PER_S: u64 = 100;
        let node = self.node.pid().as_raw_nonzero().to_string();
        [&node[..], "self"].map(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
            let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
            Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
        })
    }

    /// What the node holds now.
    pub fn held(&self) -> Held {
        held(&self.node)
    }

    /// The memory measured before a group starts from here: what a first round made grow has grown.
    pub fn warmed(&mut self) {
        self.before.resident_kib = self.settled().resident_kib;
    }

    /// Waits until the node holds as much as before, and returns it.
    #[track_caller]
    pub fn settled(&self) -> Held {
        let before = self.before;
        until(&format!("the node holds what it held before, {before:?}"), || {
            let now = held(&self.node);
            let even =
                now.descriptors <= before.descriptors && now.threads <= before.threads + POOL_THREADS_MAX;
            even.then_some(now)
        })
    }

    /// The end, at which everything must hold. Returns the logs.
    #[track_caller]
    pub fn finish(mut self, group: &str) -> Log {
        self.unharmed(group);
        let (before, after) = (self.before, self.settled());
        let most = before.resident_kib + GROWTH_KIB_MAX;
        assert!(after.resident_kib <= most, "{group}: memory grew: {before:?} {after:?}");
        self.bystander = None;
        self.node.stop();
        let log = log::verify(&self.node.audit());
        for entry in log.broker.iter().chain(&log.provider) {
            let text = entry.to_string();
            for secret in &self.secrets {
                let told = text.as_bytes().windows(secret.len()).any(|window| window == secret);
                assert!(!told, "{group}: a secret is in the log: {text}");
            }
        }
        log
    }
}

impl Person {
    /// A session over TLS.
    pub fn session(&self, node: &Node) -> Tls {
        Tls::connect(node.address(), &self.credentials, &self.key).unwrap()
    }

    /// One with an open right to its own lease.
    pub fn opened(&self, node: &Node) -> (Tls, SlotHandle) {
        let mut tls = self.session(node);
        let handle = tls.open(&self.token, Rights::READ_WRITE).unwrap();
        (tls, handle)
    }

    /// Its key and what makes its token one, as bytes and as people write them.
    fn secrets(&self) -> Vec<Vec<u8>> {
        let token = self.token.as_bytes();
        let tail = &token[token.len() - 32..];
        let seed = self.key.seed();
        let text = self.token.to_text();
        let mut secrets = vec![text.as_bytes()[text.len() - 24..].to_vec()];
        for bytes in [tail, &seed[..]] {
            secrets.push(bytes.to_vec());
            secrets.push(data_encoding::HEXLOWER.encode(bytes).into_bytes());
            secrets.push(data_encoding::BASE64URL_NOPAD.encode(&bytes[..30]).into_bytes());
        }
        secrets
    }
}

/// A number in an entry, where it is a text; 0 where there is none.
pub fn counter(value: &serde_json::Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

/// What a node holds now.
fn held(node: &Node) -> Held {
    let super::common::node::Held { descriptors, threads } = node.held();
    let path = format!("/proc/{}/status", node.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    Held { descriptors, threads, resident_kib }
}
