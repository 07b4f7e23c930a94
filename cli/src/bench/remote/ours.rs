//! Leasehold's side: a node that listens for TLS, and the client library.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::Name;
use libmem::{Client, Endpoint, LeaseOptions, Lifetime, Mediated};
use transport::Credentials;

use super::child::Guest;
use super::papers::{DOMAIN, NODE, Paper, Papers};
use super::side::{FILL, GATHER_ITEM_BYTES, GATHER_ITEMS, Side, VALUE_BYTES_MAX, judge};
use crate::bench::crew::LEASE_TTL;
use crate::node::Spawned;

/// The pool: the leases of two clients, and room.
const POOL_BYTES: u64 = 16 * VALUE_BYTES_MAX as u64;

/// The node.
pub struct Node {
    node: Spawned,
    pub address: SocketAddr,
    /// Who reads and writes what is measured.
    pub honest: Visitor,
    /// Who is slow: somebody else, as it would be.
    pub slow: Visitor,
}

/// A client of it, with a lease.
pub struct Visitor {
    key: SigningKey,
    paper: Paper,
    credentials: Arc<Credentials>,
    token: Token,
}

impl Node {
    /// Starts it, with two clients that have a lease each.
    pub fn start(scratch: &Path, papers: &Papers) -> Result<Self> {
        let (node, address) = listening(scratch, &papers.node())?;
        let honest = Visitor::join(&node, papers, "bench-client")?;
        let slow = Visitor::join(&node, papers, "bench-slow")?;
        Ok(Self { node, address, honest, slow })
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32> {
        self.node.pid().ok_or(Error::new(Code::Unreachable, "the node was stopped"))
    }
}

/// A node that listens for TLS on a free port of the loopback.
fn listening(scratch: &Path, paper: &Paper) -> Result<(Spawned, SocketAddr)> {
    let config = format!(
        "[remote]\ndomain = {DOMAIN:?}\ncertificate = {:?}\nkey = {:?}\nroots = {:?}\nlists = {:?}\n",
        paper.chain, paper.key, paper.roots, paper.lists
    );
    let arguments = ["--listen", "127.0.0.1:0"].map(OsStr::new);
    let node = Spawned::start_with(scratch, "bench", POOL_BYTES, Some(&config), &arguments)?;
    let address = node.ready()?["ready"]["address"].as_str().and_then(|address| address.parse().ok());
    let address = address.ok_or(Error::new(Code::Unreachable, "the node does not say where it listens"))?;
    Ok((node, address))
}

impl Visitor {
    fn join(node: &Spawned, papers: &Papers, name: &str) -> Result<Self> {
        let (key, paper) = (SigningKey::generate(), papers.client(name)?);
        node.admin()?.principal_add(Name::new(name)?, key.public())?;
        let client = Client::connect(&node.endpoint(), &key)?;
        let options = LeaseOptions::new(VALUE_BYTES_MAX as u64, LEASE_TTL).lifetime(Lifetime::Detached);
        let leased = client.lease(options)?;
        let region = client.open_mediated(&leased.token, Rights::READ_WRITE)?;
        region.write_at(0, &vec![FILL; VALUE_BYTES_MAX])?;
        let credentials = paper.load()?;
        Ok(Self { key, paper, credentials, token: leased.token })
    }

    /// What a process of the benchmark needs to be this client at `address`.
    pub fn guest(&self, address: SocketAddr) -> Guest {
        let seed = data_encoding::HEXLOWER.encode(&*self.key.seed());
        Guest { address, paper: self.paper.clone(), seed, token: self.token.to_text().to_string() }
    }

    /// A session over TLS.
    pub fn connect(&self, address: SocketAddr) -> Result<Ours> {
        let endpoint = Endpoint::tls(&address.to_string(), self.credentials.clone()).node(Name::new(NODE)?);
        let client = Client::connect(&endpoint, &self.key)?;
        let right = client.open_mediated(&self.token, Rights::READ_WRITE)?;
        Ok(Ours { right, _client: client, value: vec![FILL; VALUE_BYTES_MAX] })
    }
}

/// One session.
pub struct Ours {
    right: Mediated,
    /// Longer than its right.
    _client: Client,
    value: Vec<u8>,
}

fn short() -> Error {
    Error::new(Code::Protocol, "the node answered with fewer bytes than are there")
}

impl Side for Ours {
    fn read(&mut self, bytes: usize) -> Result<()> {
        let value = &mut self.value[..bytes];
        if self.right.read_into(0, value)? != bytes {
            return Err(short());
        }
        judge(value)
    }

    fn write(&mut self, bytes: usize) -> Result<()> {
        self.right.write_at(0, &self.value[..bytes])
    }

    fn gather(&mut self) -> Result<()> {
        let spans = self.value.chunks_exact_mut(GATHER_ITEM_BYTES).enumerate();
        // Not in the order in which they lie: that would be one long read.
        let mut items: Vec<_> =
            spans.map(|(n, span)| ((n * 37 % GATHER_ITEMS * GATHER_ITEM_BYTES) as u64, span)).collect();
        for came in self.right.gather(&mut items)? {
            if came? != GATHER_ITEM_BYTES {
                return Err(short());
            }
        }
        judge(&self.value)
    }
}
