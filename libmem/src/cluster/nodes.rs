//! A plain list of nodes: each is whole by itself, none knows of the others, and the client chooses.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::limits::PROVIDERS_MAX;
use caps::rights::Rights;
use caps::token::Token;

use super::provider_of;
use super::rendezvous::weight;
use super::slot::Slot;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::lease::{LeaseOptions, Leased};
use crate::mediated::{Mediated, Memory};

/// Most nodes of a list: as many as a broker's cluster has.
pub const NODES_MAX: usize = PROVIDERS_MAX;

/// A list of nodes, and a session with each of them that was needed. Threads can share it.
///
/// A lease goes to the node with the most free bytes; among those that have the same, or do not say, to the one that the
/// lease's name, or chance where it has none, and the nodes' addresses elect. What cannot be had there is asked of the next.
///
/// ```no_run
/// # use std::time::Duration;
/// # use libmem::{Endpoint, LeaseOptions, Nodes, Rights, SigningKey};
/// # fn example(credentials: std::sync::Arc<libmem::remote::Credentials>, key: &SigningKey) -> libmem::Result<()> {
/// let endpoint = |address| Endpoint::tls(address, credentials.clone());
/// let nodes = Nodes::list(&[endpoint("east.example:7171"), endpoint("west.example:7171")], key)?;
/// let (leased, at) = nodes.lease(&LeaseOptions::new(1 << 20, Duration::from_secs(60)))?;
/// nodes.open(&leased.token, Rights::READ_WRITE)?.write_at(0, b"on either")?;
/// at.release(leased.lease.id)?;
/// # Ok(())
/// # }
/// ```
pub struct Nodes {
    nodes: Vec<Node>,
    key: SigningKey,
}

struct Node {
    endpoint: Endpoint,
    slot: Slot,
}

impl Nodes {
    /// The list. Nobody is called yet.
    ///
    /// # Errors
    /// `E_RANGE` if it has none, more than [`NODES_MAX`], or one twice.
    pub fn list(endpoints: &[Endpoint], key: &SigningKey) -> Result<Self> {
        if !(1..=NODES_MAX).contains(&endpoints.len()) {
            return Err(Error::new(Code::Range, "a list has 1 to 64 nodes"));
        }
        let mut labels: Vec<_> = endpoints.iter().map(Endpoint::label).collect();
        labels.sort();
        if labels.windows(2).any(|two| two[0] == two[1]) {
            return Err(Error::new(Code::Range, "a list names each node once"));
        }
        let node = |endpoint: &Endpoint| Node { endpoint: endpoint.clone(), slot: Slot::default() };
        let nodes = endpoints.iter().map(node).collect();
        Ok(Self { nodes, key: SigningKey::from_seed(&key.seed()) })
    }

    /// How many nodes the list has.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it has at least one")]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The key that every session proves.
    #[must_use]
    pub fn holder(&self) -> PrincipalKey {
        self.key.public()
    }

    /// The session with a node, by its place in the list.
    ///
    /// # Errors
    /// As [`Client::connect`]; `E_RANGE` if there is no such node. Who could not be reached is not tried again for
    /// [`super::DOWN`].
    pub fn session(&self, at: usize) -> Result<Arc<Client>> {
        let node = self.nodes.get(at).ok_or(Error::new(Code::Range, "the list has no such node"))?;
        node.slot.get(|| {
            Client::connect(&node.endpoint, &self.key).map_err(|error| {
                Error::with(error.code(), format!("{}: {}", node.endpoint.label(), error.detail()))
            })
        })
    }

    /// The sessions with those that can be reached, and why the others cannot. All are called at once.
    pub fn sessions(&self) -> Vec<Result<Arc<Client>>> {
        std::thread::scope(|scope| {
            let calls: Vec<_> =
                (0..self.nodes.len()).map(|at| scope.spawn(move || self.session(at))).collect();
            let broken = |_| Err(Error::new(Code::Internal, "a thread that connects panicked"));
            calls.into_iter().map(|call| call.join().unwrap_or_else(broken)).collect()
        })
    }

    /// Leases memory where most is free. Also says at which node: its lease is asked about there and nowhere else.
    ///
    /// A node that has no room, or cannot be reached, is passed over. One that may have made the lease, and did not say, ends
    /// it: nobody leases twice.
    ///
    /// # Errors
    /// As [`Client::lease`], of the last node that was asked; `E_UNREACHABLE` if none can be.
    pub fn lease(&self, options: &LeaseOptions) -> Result<(Leased, Arc<Client>)> {
        let mut last = Error::new(Code::Unreachable, "no node of the list can be reached");
        for choice in self.choices(options) {
            match choice.and_then(|client| Ok((client.lease(options.clone())?, client))) {
                Ok(leased) => return Ok(leased),
                // Another one may have it, or be there.
                Err(error) if matches!(error.code(), Code::NoMemory | Code::Busy) => last = error,
                Err(error) if matches!(error.code(), Code::Unreachable | Code::Timeout) => {
                    // That there is no room says more than that somebody was not there.
                    if last.code() == Code::Unreachable {
                        last = error;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The nodes in the order in which a lease is asked of them; those last that cannot be.
    fn choices(&self, options: &LeaseOptions) -> Vec<Result<Arc<Client>>> {
        // A name is the same for every client and every attempt; without one each lease has an order of its own.
        let chance = RegionId::random();
        let key = options.lease_name().map_or(&chance.0[..], |name| name.as_str().as_bytes());
        let ask = |at| {
            let client = self.session(at)?;
            // Some nodes show it to their administrator alone.
            let status = client.status().ok();
            let free = status.map(|status| status.pool_bytes.saturating_sub(status.leased_bytes));
            Ok((free, client))
        };
        let ask = &ask;
        let mut choices: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..self.nodes.len()).map(|at| scope.spawn(move || ask(at))).collect();
            let broken = |_| Err(Error::new(Code::Internal, "a thread that asks panicked"));
            asked.into_iter().map(|one| one.join().unwrap_or_else(broken)).zip(&self.nodes).collect()
        });
        choices.sort_by_cached_key(|(choice, node)| {
            let free = choice.as_ref().ok().map(|(free, _)| *free);
            std::cmp::Reverse((free, weight(key, &node.endpoint.label())))
        });
        choices.into_iter().map(|(choice, _): (Result<_>, _)| choice.map(|(_, client)| client)).collect()
    }

    /// The session with the node that has a token's memory. The token names a life, and nodes are asked which they are, in the
    /// order of the list, those that are connected already first.
    ///
    /// # Errors
    /// `E_TOKEN_*` if it is no token; `E_EPOCH` if it is of none of those that can be reached, and all can be; else
    /// `E_UNREACHABLE`.
    pub fn at(&self, token: &Token) -> Result<Arc<Client>> {
        self.of(provider_of(token)?.0)
    }

    /// As [`Self::at`], for a provider.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn of(&self, provider: ProviderId) -> Result<Arc<Client>> {
        let is_it = |client: &Arc<Client>| client.welcome().provider == provider;
        if let Some(client) = self.nodes.iter().filter_map(|node| node.slot.there()).find(is_it) {
            return Ok(client);
        }
        let mut missing = None;
        for at in 0..self.nodes.len() {
            match self.session(at) {
                Ok(client) if is_it(&client) => return Ok(client),
                Ok(_) => {}
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        Err(missing.unwrap_or(Error::new(
            Code::Epoch,
            "no node of the list has the memory of this token: it began anew, or is not in the list",
        )))
    }

    /// The session with the node that knows a lease, for whoever has no token of it.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if none does; `E_UNREACHABLE` if one that could not be reached may.
    pub fn knowing(&self, lease: LeaseId) -> Result<Arc<Client>> {
        self.asking(|client| client.lease_show(lease).map(drop), Code::LeaseUnknown)
    }

    /// The first node that has an answer to `ask`. `unknown` is what those say that know nothing of it.
    ///
    /// # Errors
    /// `unknown` if all say that; otherwise what another one says.
    pub fn asking(&self, ask: impl Fn(&Client) -> Result<()>, unknown: Code) -> Result<Arc<Client>> {
        let mut last: Option<Error> = None;
        for at in 0..self.nodes.len() {
            match self.session(at).and_then(|client| ask(&client).map(|()| client)) {
                Ok(client) => return Ok(client),
                // What one says that cannot tell counts for more than what those say that know nothing.
                Err(error) if error.code() == unknown => last = last.or(Some(error)),
                Err(error) => last = last.filter(|last| last.code() != unknown).or(Some(error)),
            }
        }
        Err(last.unwrap_or(Code::Internal.into()))
    }

    /// As [`Client::open`], at the node that has the memory.
    ///
    /// # Errors
    /// As [`Self::at`] and [`Client::open`].
    pub fn open(&self, token: &Token, rights: Rights) -> Result<Memory> {
        self.at(token)?.open(token, rights)
    }

    /// As [`Client::open_mediated`], at the node that has the memory.
    ///
    /// # Errors
    /// As [`Self::at`] and [`Client::open_mediated`].
    pub fn open_mediated(&self, token: &Token, rights: Rights) -> Result<Mediated> {
        self.at(token)?.open_mediated(token, rights)
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<_> = self.nodes.iter().map(|node| node.endpoint.label()).collect();
        f.debug_struct("Nodes").field("nodes", &labels).finish_non_exhaustive()
    }
}
