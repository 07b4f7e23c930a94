//! What the operator says of the remote gate.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::limits::{REMOTE_SESSIONS_MAX, REMOTE_SESSIONS_PER_NETWORK_MAX, REMOTE_SHARDS_MAX};
use transport::Reload;

/// Where the remote gate listens, who it is, and how much it serves.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// Address and port; the kernel chooses for port 0.
    pub listen: SocketAddr,
    /// The node's certificate with its key, and whom it believes. Looked at again while the gate is open.
    pub credentials: Arc<Reload>,
    /// Threads.
    pub shards: usize,
    /// Most connections.
    pub sessions_max: usize,
    /// Most connections of one network.
    pub sessions_per_network_max: usize,
}

impl RemoteConfig {
    /// As many threads as this machine has cores for, and at most `sessions_max` connections.
    #[must_use]
    pub fn for_this_machine(listen: SocketAddr, credentials: Arc<Reload>, sessions_max: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let sessions_max = sessions_max.clamp(1, REMOTE_SESSIONS_MAX);
        Self {
            listen,
            credentials,
            shards: cores.min(REMOTE_SHARDS_MAX),
            sessions_max,
            sessions_per_network_max: (sessions_max / 4 * 3).clamp(1, REMOTE_SESSIONS_PER_NETWORK_MAX),
        }
    }
}
