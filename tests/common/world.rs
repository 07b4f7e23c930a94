//! A node with people in it, and the five-part outcome that every test ends with.

use std::sync::atomic::{AtomicU64, Ordering};

use libmem::{Client, LeaseOptions, LeaseRow, Leased, Lifetime, Region, Rights, SigningKey};

use super::actor::Actor;
use super::log::{self, Log};
use super::node::{Held, Node};
use super::{MINUTE, SMALL, pattern, within_patience};

/// Bytes of the bystander's lease.
const BYSTANDER: u64 = 256 << 10;

/// A node, its administrator, and somebody who minds his own business.
pub struct World {
    /// The node.
    pub node: Node,
    /// A session of the administrator's.
    pub admin: Client,
    bystander: Bystander,
    before: Held,
    names: AtomicU64,
}

/// A client of this process with a lease of its own, whose bytes must be there when all is over.
struct Bystander {
    client: Client,
    leased: Leased,
    region: Region,
    bytes: Vec<u8>,
}

/// A registered principal with a session.
pub struct Person {
    /// Its key.
    pub key: SigningKey,
    /// Its session.
    pub client: Client,
}

impl Person {
    /// Leases `bytes` for a minute, until it is told otherwise.
    pub fn lease(&self, bytes: u64) -> Leased {
        self.client.lease(LeaseOptions::new(bytes, MINUTE).lifetime(Lifetime::Detached)).unwrap()
    }

    /// Offers `rights` to all of a lease, and has it accepted by `to`.
    pub fn share(&self, lease: &LeaseRow, to: &Self, rights: Rights) -> libmem::Accepted {
        let options = libmem::ShareOptions::new(to.key.public(), rights);
        let grant = self.client.share_offer(lease, &options, &self.key).unwrap();
        let proposal = to.client.share_show(grant.id).unwrap();
        to.client.share_accept(&proposal.contract, Lifetime::Detached, &to.key).unwrap()
    }
}

impl World {
    /// A node with the default configuration.
    pub fn new() -> Self {
        Self::with("")
    }

    /// A node with more lines in its configuration.
    pub fn with(config: &str) -> Self {
        Self::of(Node::start(config))
    }

    /// With a node that runs.
    pub fn of(node: Node) -> Self {
        let admin = node.admin();
        let key = SigningKey::generate();
        admin.principal_add(libmem::Name::new("bystander").unwrap(), key.public()).unwrap();
        let client = Client::connect(&node.endpoint(), &key).unwrap();
        let options = LeaseOptions::new(BYSTANDER, 10 * MINUTE).lifetime(Lifetime::Detached);
        let leased = client.lease(options).unwrap();
        let region = client.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
        let bytes = pattern(99, BYSTANDER as usize);
        region.write_at(0, &bytes).unwrap();
        // What a node makes at the first use and keeps is there before it is measured.
        let warm = client.lease(LeaseOptions::new(SMALL, MINUTE)).unwrap();
        drop(client.open_mapped(&warm.token, Rights::READ).unwrap());
        client.release(warm.lease.id).unwrap();
        let before = node.held();
        let bystander = Bystander { client, leased, region, bytes };
        Self { node, admin, bystander, before, names: AtomicU64::new(0) }
    }

    /// A fresh key, registered.
    pub fn register(&self) -> SigningKey {
        let key = SigningKey::generate();
        let name = format!("p{}", self.names.fetch_add(1, Ordering::Relaxed));
        self.admin.principal_add(libmem::Name::new(&name).unwrap(), key.public()).unwrap();
        key
    }

    /// A session of this process.
    pub fn connect(&self, key: &SigningKey) -> Client {
        Client::connect(&self.node.endpoint(), key).unwrap()
    }

    /// A registered principal with a session of this process.
    pub fn person(&self) -> Person {
        let key = self.register();
        let client = self.connect(&key);
        Person { key, client }
    }

    /// A client process; as root, of the user `uid`.
    pub fn actor(&self, key: &SigningKey, uid: u32) -> Actor {
        Actor::enter(&self.node, key, uid)
    }

    /// Waits until nothing is leased but what the bystander has.
    #[track_caller]
    pub fn balances(&self) {
        let mut last = None;
        let even = || {
            let status = self.admin.status().unwrap();
            let even = (status.leases, status.leased_bytes, status.committed_bytes, status.grants)
                == (1, BYSTANDER, BYSTANDER, 0);
            last = Some(status);
            even.then_some(())
        };
        assert!(within_patience(even).is_some(), "the books do not balance: {last:?}");
    }

    /// What must hold whatever happened: the node lives and holds no more than before, the bystander has his bytes and
    /// can go on, the node ends well, and its logs verify. Everybody else has left by now.
    #[track_caller]
    pub fn finish(mut self) -> Log {
        assert!(self.node.is_alive(), "the node died: {}", self.node.said());
        let Bystander { client, leased, region, mut bytes } = self.bystander;
        let mut found = vec![0; bytes.len()];
        region.read_at(0, &mut found).unwrap();
        assert!(found == bytes, "the bystander's bytes changed");
        bytes.reverse();
        region.write_at(0, &bytes).unwrap();
        region.read_at(0, &mut found).unwrap();
        assert!(found == bytes, "the bystander's bytes are not what he wrote");
        let row = client.lease_show(leased.lease.id).unwrap();
        assert_eq!(row.memory.unwrap().mappings, 1);
        let (node, before) = (&self.node, self.before);
        let mut now = before;
        let back = || {
            now = node.held();
            (now.descriptors <= before.descriptors && now.threads <= before.threads).then_some(())
        };
        assert!(
            within_patience(back).is_some(),
            "the node held {before:?} and now holds {now:?}; its threads: {:?}",
            node.threads()
        );
        drop((region, client, self.admin));
        self.node.stop();
        log::verify(&self.node.audit())
    }
}
