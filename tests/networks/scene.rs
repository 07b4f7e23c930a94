//! A node at the far end of a wire, and clients at the near one.

use std::sync::Arc;
use std::time::Duration;

use libmem::{Client, Code, Endpoint, LeaseOptions, Leased, Lifetime};
use transport::Credentials;

use crate::common::faults::{FAR, Wire};
use crate::common::netns::Space;
use crate::common::shell::Shell;
use crate::common::{MINUTE, Node, tls, until};

/// A node that alice reaches over a wire. The administrator has the node's socket, which no wire is in front of.
pub(crate) struct Scene {
    // Dropped in this order: the node ends before its network does.
    pub(crate) node: Node,
    pub(crate) wire: Wire,
    near: Space,
    alice: Arc<Credentials>,
}

impl Scene {
    /// Sets it. What the wire draws comes from `seed`.
    pub(crate) fn set(seed: u64) -> Self {
        let (near, far) = (Space::new(), Space::new());
        let wire = Wire::between(&near, &far, seed);
        let node = Node::start_in(&far, FAR, "");
        Shell::new(node.path()).bytes(&["id", "new", "alice"]);
        let alice = tls::credentials(&node, "alice");
        Self { node, wire, near, alice }
    }

    /// Does something at the near end. The sockets of a client are where the thread is that makes them, so clients that may
    /// have to connect again are used in here alone.
    pub(crate) fn near<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.near.enter(work)
    }

    /// Alice's session over the wire, whose calls may take so long.
    pub(crate) fn alice(&self, bound: Duration) -> Client {
        let endpoint = Endpoint::tls(&self.node.address().to_string(), self.alice.clone()).timeout(bound);
        let key = self.node.key("alice");
        // Beginning may take longer than a call may, where the machine is busy with other things.
        until("the node begins a session", || match Client::connect(&endpoint, &key) {
            Err(error) if error.code() == Code::Timeout => None,
            connected => Some(connected.unwrap()),
        })
    }

    /// Ends the node and looks at what it wrote.
    pub(crate) fn finish(mut self) -> crate::common::log::Log {
        assert!(self.node.is_alive(), "{}", self.node.said());
        self.node.stop();
        crate::common::log::verify(&self.node.audit())
    }
}

/// A lease of so many bytes that lives for a while and outlives the session.
pub(crate) fn lease(client: &Client, bytes: u64) -> Leased {
    client.lease(LeaseOptions::new(bytes, 10 * MINUTE).lifetime(Lifetime::Detached)).unwrap()
}
