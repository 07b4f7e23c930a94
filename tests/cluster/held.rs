//! A right that is open at a provider, from the client's host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libmem::{Client, Code, Endpoint, Mediated, Result, Rights, Token};

use crate::common::{pattern, until};
use crate::stage::Stage;

/// How long a call of it may take.
pub(crate) const BOUND: Duration = Duration::from_secs(3);
/// What a machine that is busy with other things may add.
pub(crate) const SLACK: Duration = Duration::from_secs(3);
/// Counts the names that were given.
static NAMES: AtomicU64 = AtomicU64::new(0);
/// Bytes that it minds.
const BYTES: usize = 256 << 10;

/// A lease of alice's with bytes in it.
pub(crate) struct Held {
    /// The lease's id.
    pub(crate) lease: String,
    /// The provider that has it.
    pub(crate) node: String,
    /// The capability.
    pub(crate) token: Token,
    client: Client,
    memory: Mediated,
    bytes: Vec<u8>,
}

impl Held {
    /// Leases memory, which is wherever the broker says, and opens it there.
    pub(crate) fn new(stage: &mut Stage, name: &str, ttl: &str) -> Self {
        let made = stage.lease(name, "1MiB", ttl);
        let lease = made["lease"]["id"].as_str().unwrap().to_owned();
        let node = stage.node_of(&lease);
        let file = std::fs::read_to_string(made["token_file"].as_str().unwrap()).unwrap();
        let token = Token::parse_text(file.trim_end()).unwrap();
        let (client, memory) = until("its provider opens it", || match open(stage, &node, &token) {
            Err(error) if error.code() == Code::Timeout => None, // a busy machine
            opened => Some(opened.unwrap()),
        });
        let bytes = pattern(u64::from(name.as_bytes()[0]), BYTES);
        stage.client.space.enter(|| memory.write_at(0, &bytes)).unwrap();
        Self { lease, node, token, client, memory, bytes }
    }

    /// One on each provider: on `node-a`, on `node-b`.
    pub(crate) fn on_both(stage: &mut Stage) -> [Self; 2] {
        let mut found: Vec<Self> = Vec::new();
        for _ in 0..16 {
            // A living lease's name cannot be had again.
            let number = NAMES.fetch_add(1, Ordering::Relaxed);
            let held =
                Self::new(stage, &format!("{}{number}", char::from(b'a' + (number % 26) as u8)), "10m");
            if found.iter().all(|other| other.node != held.node) {
                found.push(held);
            }
            if found.len() == 2 {
                break;
            }
        }
        found.sort_by(|one, other| one.node.cmp(&other.node));
        let both: [Self; 2] = found.try_into().map_err(|found: Vec<_>| found.len()).expect("one on each");
        assert_eq!([&both[0].node[..], &both[1].node], ["node-a", "node-b"]);
        both
    }

    /// That its bytes are there, and that others can be written.
    #[track_caller]
    pub(crate) fn is_whole(&mut self, stage: &Stage) {
        let found = self.read(stage);
        assert!(found.as_ref().is_ok_and(|found| *found == self.bytes), "{}: {:?}", self.node, found.err());
        self.bytes.reverse();
        stage.client.space.enter(|| self.memory.write_at(0, &self.bytes)).unwrap();
        assert!(self.read(stage).unwrap() == self.bytes, "what was written is read");
    }

    /// Its bytes, as they are.
    pub(crate) fn read(&self, stage: &Stage) -> Result<Vec<u8>> {
        let mut found = vec![0; BYTES];
        stage.client.space.enter(|| self.memory.read_at(0, &mut found)).map(|()| found)
    }

    /// That reading fails in time; with what.
    #[track_caller]
    pub(crate) fn fails(&self, stage: &Stage) -> Code {
        let began = Instant::now();
        let error = self.read(stage).unwrap_err();
        assert!(began.elapsed() <= BOUND + SLACK, "{error} after {:?}", began.elapsed());
        error.code()
    }

    /// Opens it once more over the session that it has.
    pub(crate) fn open_again(&self, stage: &Stage) -> Result<()> {
        stage.client.space.enter(|| self.client.open_mediated(&self.token, Rights::READ).map(drop))
    }
}

/// Opens a token at a provider, over a session of its own.
pub(crate) fn open(stage: &mut Stage, node: &str, token: &Token) -> Result<(Client, Mediated)> {
    let (address, port) = stage.provider(node).address();
    let (key, credentials) = (stage.key("alice"), stage.credentials("alice"));
    stage.client.space.enter(|| {
        let endpoint = Endpoint::tls(&format!("{address}:{port}"), credentials)
            .node(libmem::Name::new(node).unwrap())
            .timeout(BOUND);
        let client = Client::connect(&endpoint, &key)?;
        let memory = client.open_mediated(token, Rights::READ_WRITE)?;
        Ok((client, memory))
    })
}
