//! Where a node is, and how long to wait for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caps::error::Result;
use caps::wire::Name;
use transport::{Credentials, Role};

/// How long a request may take unless the endpoint says otherwise, in seconds. A revoke is acknowledged after the wipe,
/// which for the largest region of a host takes seconds; 30 leaves room for a loaded machine.
pub const REQUEST_SECONDS: u64 = 30;
/// How long connecting and each step of the handshake may take, in seconds: they are small whatever the node does.
pub const HANDSHAKE_SECONDS: u64 = 5;
/// The longest that a survivor of a rotation waits.
pub(crate) const ROTATION_WAIT_MAX: Duration = Duration::from_millis(caps::limits::ROTATION_WAIT_MS_MAX);

/// Where a node is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The socket of a node on this machine.
    Unix(PathBuf),
    /// `HOST:PORT`, and who is believed there.
    Tls { address: Box<str>, credentials: Arc<Credentials> },
}

/// A node: its socket on this machine, or its address.
#[derive(Clone, Debug)]
pub struct Endpoint {
    place: Place,
    timeout: Duration,
    rotation_wait: Duration,
    reconnect: Option<Duration>,
    node: Option<Name>,
    role: Option<Role>,
    checked: bool,
}

impl Endpoint {
    /// The Unix socket at `path`.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::at(Place::Unix(path.into()))
    }

    /// The node that listens at `address`, `HOST:PORT`, over mutual TLS. An IPv6 address stands in brackets. Names are
    /// resolved by the system at each connecting, for as long as that takes it.
    #[must_use]
    pub fn tls(address: &str, credentials: Arc<Credentials>) -> Self {
        Self::at(Place::Tls { address: address.into(), credentials })
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            timeout: Duration::from_secs(REQUEST_SECONDS),
            rotation_wait: ROTATION_WAIT_MAX,
            reconnect: None,
            node: None,
            role: None,
            checked: false,
        }
    }

    /// The name that the node's certificate must have. Without it any node of the credentials' domain is believed at first,
    /// and that one alone when a lost connection is made again. For TLS alone.
    #[must_use]
    pub fn node(mut self, name: Name) -> Self {
        self.node = Some(name);
        self
    }

    /// What the node's certificate must say that it is: [`Role::Provider`] or [`Role::Broker`]. Without it either is believed
    /// at first, and the same one when a lost connection is made again. A broker that providers come to has the role
    /// `broker`, a provider and a node of its own the role `provider`. For TLS alone.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Whether bytes of regions travel with checksums of their own over TLS. Not by default: TLS authenticates every record,
    /// so what would be found is a memory that flips bits between this library and the socket. At a node's own socket, where
    /// no TLS is between, they always do.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked;
        self
    }

    /// For how long a lost connection over TLS is made anew before a request fails with `E_UNREACHABLE`; the request's own
    /// time by default, and at most that. Zero: it is tried once.
    #[must_use]
    pub fn reconnect(mut self, bound: Duration) -> Self {
        self.reconnect = Some(bound);
        self
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

    /// The socket's path; `None` over TLS.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Unix(path) => Some(path),
            Place::Tls { .. } => None,
        }
    }

    /// Another node that is reached as this one: with the same times, and with the same credentials, or with `credentials`
    /// where this one is at a socket and needs none. It is known by its name: memory is with providers, and with brokers
    /// that have some themselves, and each name is one of them.
    pub(crate) fn elsewhere(
        &self,
        address: &str,
        node: Name,
        credentials: impl FnOnce() -> Result<Arc<Credentials>>,
    ) -> Result<Self> {
        let credentials = match &self.place {
            Place::Tls { credentials, .. } => credentials.clone(),
            Place::Unix(_) => credentials()?,
        };
        let place = Place::Tls { address: address.into(), credentials };
        Ok(Self { place, node: Some(node), role: None, ..self.clone() })
    }

    /// What a list calls it: its address, or its socket's path.
    pub(crate) fn label(&self) -> String {
        match &self.place {
            Place::Unix(path) => path.to_string_lossy().into_owned(),
            Place::Tls { address, .. } => address.to_string(),
        }
    }

    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) const fn expected_node(&self) -> Option<&Name> {
        self.node.as_ref()
    }

    pub(crate) const fn expected_role(&self) -> Option<Role> {
        self.role
    }

    pub(crate) const fn is_checked(&self) -> bool {
        self.checked
    }

    pub(crate) fn reconnect_bound(&self) -> Duration {
        self.reconnect.map_or(self.timeout, |bound| bound.min(self.timeout))
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
