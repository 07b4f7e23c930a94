//! Where a node is, and how long to wait for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a request may take unless the endpoint says otherwise, in seconds. A revoke is acknowledged after the wipe,
/// which for the largest region of a host takes seconds; 30 leaves room for a loaded machine.
pub const REQUEST_SECONDS: u64 = 30;
/// How long connecting and each step of the handshake may take, in seconds: they are small whatever the node does.
pub const HANDSHAKE_SECONDS: u64 = 5;
/// The longest that a survivor of a rotation waits.
pub(crate) const ROTATION_WAIT_MAX: Duration = Duration::from_millis(caps::limits::ROTATION_WAIT_MS_MAX);

/// A node's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    path: PathBuf,
    timeout: Duration,
    rotation_wait: Duration,
}

impl Endpoint {
    /// The Unix socket at `path`.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            timeout: Duration::from_secs(REQUEST_SECONDS),
            rotation_wait: ROTATION_WAIT_MAX,
        }
    }

    /// How long one request may take. After it the request fails with `E_TIMEOUT`, or with `E_UNCERTAIN` if it would
    /// change something and may still do so.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an access to mapped memory that met a rotation waits for the fresh segment, at most and by default
    /// `caps::limits::ROTATION_WAIT_MS_MAX`. After it the memory counts as taken back.
    #[must_use]
    pub fn rotation_wait(mut self, wait: Duration) -> Self {
        self.rotation_wait = wait.min(ROTATION_WAIT_MAX);
        self
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn request_timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) const fn rotation_bound(&self) -> Duration {
        self.rotation_wait
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.timeout.min(Duration::from_secs(HANDSHAKE_SECONDS))
    }
}
