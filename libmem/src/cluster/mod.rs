//! Memory of many machines: a broker decides, and providers have the bytes.
//!
//! A [`Client`] is one session with one node. A [`Cluster`] is as many as it takes: one with the broker, and one with each
//! provider that has something of the caller's, made when it is wanted.
//!
//! ```text
//!                        ┌── one session ──▶ broker      lease, renew, release, share, revoke, lists
//! Cluster ── at(token) ──┤
//!               │        ├── one session ──▶ provider    open, read and write, what tokens are worth
//!               │        ├── one session ──▶ provider
//!               ▼        └── socket ───────▶ provider of this host, if there is one: mappings
//!    which provider? its id stands in the token
//!    where is it?    remembered, or asked of the broker (`ProviderShow`)
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use libmem::{Cluster, Endpoint, LeaseOptions, Rights, SigningKey};
//!
//! # fn main() -> libmem::Result<()> {
//! # let (credentials, key): (Arc<libmem::remote::Credentials>, SigningKey) = todo!();
//! let broker = Endpoint::tls("broker.example:7171", credentials);
//! let cluster = Cluster::connect(&broker, &key)?.with_local("/run/leasehold/node.sock");
//! let leased = cluster.lease(LeaseOptions::new(1 << 20, Duration::from_secs(60)))?;
//! let memory = cluster.open(&leased.token, Rights::READ_WRITE)?; // mapped, if the provider is this host's
//! memory.write_at(0, b"wherever that is")?;
//! cluster.broker()?.release(leased.lease.id)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Who is believed
//!
//! The broker says what a provider is called and where it is. Who answers there must have a certificate of that name, and
//! be the very life of it that stands in the token. A node that was asked wrongly (`E_WRONG_NODE`) may say whom to ask
//! instead: that is followed once, with the same checks, and never to a provider of another name than the broker's. So
//! whoever lies can send nobody to somebody else, but only into the void.
//!
//! Over TLS that is the word of a certificate of the role `broker`. What has a provider's is a node of its own and no more:
//! where it names another provider that is `E_PEER_IDENTITY`. Who knows that a broker answers at an address says so
//! ([`Endpoint::role`], [`Endpoint::node`]), and believes nobody else there from the first request on.
//!
//! # When somebody is not there
//!
//! | | what is open | opening | new leases |
//! |---|---|---|---|
//! | the broker is not | goes on | goes on, at providers whose places are remembered ([`Cluster::remember`]) | `E_UNREACHABLE`; `E_UNCERTAIN` for what was under way |
//! | a provider is not | `E_UNREACHABLE`, of its own leases | `E_UNREACHABLE` of its own; `E_PROVIDER_LOST` once the broker knows | elsewhere |
//! | a provider began anew | `E_EPOCH`, of its own leases | the same | |
//!
//! Somebody who could not be reached is not tried again for [`DOWN`]: so long everybody is told the same, at once.
//!
//! # Without a broker
//!
//! [`Nodes`] is a plain list of nodes, each of which is whole by itself (`leasehold up --listen`). The client chooses where
//! a lease goes.
//!
//! # Limits
//!
//! [`SESSIONS_MAX`] sessions with providers are kept, each for [`SESSION_IDLE`] after its last use, and [`PLACES_MAX`] places are
//! remembered. A list has at most [`NODES_MAX`] nodes.
//!
//! | file | idea |
//! |---|---|
//! | `slot` | one session that is made when it is wanted, and made anew when it is over |
//! | `sessions` | those with providers, so many and no more |
//! | `places` | where providers are, as far as anybody said |
//! | `opening` | what belongs to the provider of a token |
//! | `word` | whose word about others is followed |
//! | `values` | leases made with their first bytes, and given back |
//! | `nodes`, `rendezvous` | a plain list of whole nodes, and which of them is taken |

use std::path::PathBuf;
use std::sync::Arc;

use caps::error::Result;
use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::key::SigningKey;
use caps::token::{Token, inspect};
use caps::wire::place::Place;
use transport::Credentials;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::lease::{LeaseOptions, Leased};

mod nodes;
mod opening;
mod places;
mod rendezvous;
mod sessions;
mod slot;
mod values;
mod word;

use places::Places;
use sessions::Sessions;
use slot::Slot;

pub use nodes::{NODES_MAX, Nodes};
pub use places::PLACES_MAX;
pub use sessions::{SESSION_IDLE, SESSIONS_MAX};
pub use slot::DOWN;

/// A broker and the providers that it places leases on. Threads can share it.
pub struct Cluster {
    endpoint: Endpoint,
    key: SigningKey,
    broker: Slot,
    /// The socket of a provider of this host.
    local: Option<(Endpoint, Slot)>,
    sessions: Sessions,
    places: Places,
}

impl Cluster {
    /// Connects to the broker and proves possession of `key`. Over TLS providers are reached with the same credentials; at
    /// a socket there are none: see [`Self::with_credentials`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(broker: &Endpoint, key: &SigningKey) -> Result<Self> {
        let cluster = Self::new(broker, key);
        cluster.broker()?;
        Ok(cluster)
    }

    /// As [`Self::connect`], but that the broker is called only when something is asked of it: whoever knows where the
    /// providers are opens tokens without one.
    #[must_use]
    pub fn new(broker: &Endpoint, key: &SigningKey) -> Self {
        Self {
            endpoint: broker.clone(),
            key: SigningKey::from_seed(&key.seed()),
            broker: Slot::default(),
            local: None,
            sessions: Sessions::new(broker.clone(), key),
            places: Places::default(),
        }
    }

    /// Uses the socket of this host's provider for what that provider has, so that it can be mapped. Nothing is asked there
    /// until then, and a socket that nobody listens at does no harm.
    #[must_use]
    pub fn with_local(self, path: impl Into<PathBuf>) -> Self {
        Self { local: Some((Endpoint::unix(path), Slot::default())), ..self }
    }

    /// Reaches providers of other machines with the credentials that `source` has, where the broker is at a socket and needs
    /// none. It is asked when there is somebody to be reached.
    #[must_use]
    pub fn with_credentials(
        mut self,
        source: impl Fn() -> Result<Arc<Credentials>> + Send + Sync + 'static,
    ) -> Self {
        self.sessions.credentials(Box::new(source));
        self
    }

    /// The session with the broker: every request that decides about leases, grants and principals is asked there.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn broker(&self) -> Result<Arc<Client>> {
        self.broker.get(|| Client::connect(&self.endpoint, &self.key))
    }

    /// The key that every session proves.
    #[must_use]
    pub fn holder(&self) -> PrincipalKey {
        self.key.public()
    }

    /// As [`Client::lease`], wherever the broker places it.
    ///
    /// # Errors
    /// As [`Client::lease`]; `E_UNREACHABLE` if there is no broker; `E_PEER_IDENTITY` if what answers there has a provider's
    /// certificate and names another provider: the lease is given back then.
    pub fn lease(&self, options: LeaseOptions) -> Result<Leased> {
        self.leased(&*self.broker()?, options)
    }

    /// Leases, and remembers what the row says of the provider's place, if it says anything.
    fn leased(&self, broker: &Client, options: LeaseOptions) -> Result<Leased> {
        let leased = broker.lease(options)?;
        let row = &leased.lease;
        let node =
            row.node.clone().or_else(|| row.placement.as_ref().map(|placement| placement.node.clone()));
        if let (Some(node), Some(address)) = (node, &row.address) {
            let place = Place { node, address: Some(address.clone()) };
            word::may_name(broker, &place).map_err(|error| values::given_back(broker, row.id, error))?;
            self.remember(row.provider, place);
        }
        Ok(leased)
    }

    /// Remembers where a provider is. What is remembered is not asked of the broker.
    pub fn remember(&self, provider: ProviderId, place: Place) {
        self.places.put(provider, place);
    }

    /// Where a provider is, if that is remembered.
    #[must_use]
    pub fn place(&self, provider: ProviderId) -> Option<Place> {
        self.places.get(provider)
    }

    /// Where the provider of a token is, so that somebody can remember it: whoever has it opens the token without the
    /// broker. `None`: it is the broker itself.
    ///
    /// # Errors
    /// `E_TOKEN_*` if it is no token; as [`Client::provider_show`]; `E_UNREACHABLE` if nobody remembers it and there is no
    /// broker; `E_PEER_IDENTITY` if what answers in its place has a provider's certificate and names another provider.
    pub fn locate(&self, token: &Token) -> Result<Option<Place>> {
        let provider = provider_of(token)?.0;
        if let Some(place) = self.places.get(provider) {
            return Ok(Some(place));
        }
        let broker = self.broker()?;
        if word::has(&broker, provider, None) {
            return Ok(None);
        }
        let place = broker.provider_show(provider)?;
        if place.address.is_some() {
            word::may_name(&broker, &place)?;
            self.remember(provider, place.clone());
        }
        Ok(Some(place))
    }

    /// How many sessions with providers there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// The provider that a token names, and its lease.
fn provider_of(token: &Token) -> Result<(ProviderId, LeaseId)> {
    let inspection = inspect(token, None)?;
    Ok((ProviderId::parse(&inspection.provider)?, LeaseId::parse(&inspection.lease)?))
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("holder", &self.holder()).finish_non_exhaustive()
    }
}
