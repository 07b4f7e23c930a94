//! A plain list of nodes: each is whole by itself, none knows of the others, and the client chooses.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::limits::PROVIDERS_MAX;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::place::Place;
use caps::wire::provider::Address;

use super::places::Places;
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
    /// Which node has a life.
    places: Places,
}

struct Node {
    endpoint: Endpoint,
    slot: Slot,
}

impl Node {
    fn is_at(&self, place: &Place) -> bool {
        place.address.as_ref().is_some_and(|address| address.as_str() == self.endpoint.label())
    }
}

const NO_NODE: Error = Error::new(
    Code::Epoch,
    "no node of the list has the memory of this token: it began anew, or is not in the list",
);
const TWICE: Error = Error::new(
    Code::PeerIdentity,
    "more than one node of the list says that it has the memory of this token: at most one of them says the truth",
);

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
        Ok(Self { nodes, key: SigningKey::from_seed(&key.seed()), places: Places::default() })
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
            match choice.and_then(|(at, client)| self.lease_at(at, client, options)) {
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

    /// Leases at a node, and remembers that what this life of it has is there and nowhere else.
    fn lease_at(
        &self,
        at: usize,
        client: Arc<Client>,
        options: &LeaseOptions,
    ) -> Result<(Leased, Arc<Client>)> {
        let leased = client.lease(options.clone())?;
        let provider = client.provider();
        // What one says of another's life is not remembered.
        if leased.lease.provider == provider {
            let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != at);
            let twice =
                others.filter_map(|(_, node)| node.slot.there()).any(|one| one.provider() == provider);
            let elsewhere = self.place(provider).is_some_and(|place| !self.nodes[at].is_at(&place));
            if twice || elsewhere {
                return Err(TWICE);
            }
            self.pin(at, &client);
        }
        Ok((leased, client))
    }

    /// The nodes in the order in which a lease is asked of them; those last that cannot be.
    fn choices(&self, options: &LeaseOptions) -> Vec<Result<(usize, Arc<Client>)>> {
        // A name is the same for every client and every attempt; without one each lease has an order of its own.
        let chance = RegionId::random();
        let key = options.lease_name().map_or(&chance.0[..], |name| name.as_str().as_bytes());
        let ask = |at| {
            let client = self.session(at)?;
            // Some nodes show it to their administrator alone.
            let status = client.status().ok();
            let free = status.map(|status| status.pool_bytes.saturating_sub(status.leased_bytes));
            Ok((free, (at, client)))
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
        choices.into_iter().map(|(choice, _): (Result<_>, _)| choice.map(|(_, chosen)| chosen)).collect()
    }

    /// The session with the node that has a token's memory. The token names a life: that of the node that it is remembered of, and
    /// no other's; where nothing is remembered, all nodes are asked which they are.
    ///
    /// # Errors
    /// `E_TOKEN_*` if it is no token; `E_PEER_IDENTITY` if more than one says that it is that life, or the one that does has
    /// another name than the one where the memory was leased; `E_EPOCH` if it is of none of those that can be reached, and all can be; else
    /// `E_UNREACHABLE`.
    pub fn at(&self, token: &Token) -> Result<Arc<Client>> {
        self.of(provider_of(token)?.0)
    }

    /// As [`Self::at`], for a provider.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub fn of(&self, provider: ProviderId) -> Result<Arc<Client>> {
        let pinned = self.places.get(provider);
        if let Some(place) = &pinned
            && let Some(at) = self.nodes.iter().position(|node| node.is_at(place))
        {
            return self.pinned(at, provider, place);
        }
        let there: Vec<_> = self.nodes.iter().map(|node| node.slot.there().is_some()).collect();
        let sessions = self.sessions();
        let mut found = Self::with_life(&sessions, provider);
        if found.is_empty() {
            // One that was started again since it was asked last has another life, and the session finds out with a request.
            std::thread::scope(|scope| {
                for (client, _) in sessions.iter().zip(there).filter(|(_, there)| *there) {
                    if let Ok(client) = client {
                        scope.spawn(move || drop(client.status()));
                    }
                }
            });
            found = Self::with_life(&sessions, provider);
        }
        let missing = sessions.iter().find_map(|session| session.as_ref().err());
        match &found[..] {
            [] => Err(missing.cloned().unwrap_or(NO_NODE)),
            [(at, client)] => {
                if let Some(place) = &pinned {
                    Self::is_named(client, place)?;
                }
                // Where one is missing, this one's claim is not all there is to be heard.
                if missing.is_none() {
                    self.pin(*at, client);
                }
                Ok(client.clone())
            }
            _ => Err(TWICE),
        }
    }

    /// The nodes that say they are a life.
    fn with_life(sessions: &[Result<Arc<Client>>], provider: ProviderId) -> Vec<(usize, Arc<Client>)> {
        let there =
            sessions.iter().enumerate().filter_map(|(at, session)| Some((at, session.as_ref().ok()?)));
        there.filter(|(_, client)| client.provider() == provider).map(|(at, one)| (at, one.clone())).collect()
    }

    /// The session with the node of a life that is known to be at this place.
    fn pinned(&self, at: usize, provider: ProviderId, place: &Place) -> Result<Arc<Client>> {
        let there = self.nodes[at].slot.there().is_some();
        let client = self.session(at)?;
        Self::is_named(&client, place)?;
        if client.provider() != provider && there {
            client.status().map(Some).or_else(|error| match error.code() {
                // It answered, and so this is its life.
                Code::Unreachable | Code::Timeout => Err(error),
                _ => Ok(None),
            })?;
        }
        if client.provider() == provider { Ok(client) } else { Err(NO_NODE) }
    }

    fn is_named(client: &Client, place: &Place) -> Result<()> {
        if client.node() == Some(&place.node) {
            return Ok(());
        }
        let message =
            format!("the memory of this token was leased at a node that is called `{}`", place.node);
        Err(Error::with(Code::PeerIdentity, message))
    }

    /// Remembers which node has the life that its session is with. Of one at a socket nothing is remembered: it shows no name.
    fn pin(&self, at: usize, client: &Client) {
        let address = Address::new(&self.nodes[at].endpoint.label());
        if let (Some(node), Ok(address)) = (client.node(), address) {
            self.remember(client.provider(), Place { node: node.clone(), address: Some(address) });
        }
    }

    /// Remembers which node has a life: tokens of it are shown to that one alone. [`Self::lease`] remembers it by itself, for as
    /// long as this list is there.
    pub fn remember(&self, provider: ProviderId, place: Place) {
        self.places.put(provider, place);
    }

    /// Which node has a life, if that is remembered.
    #[must_use]
    pub fn place(&self, provider: ProviderId) -> Option<Place> {
        self.places.get(provider)
    }

    /// The session with the node that knows a lease, for whoever has no token of it.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` if none does; `E_WRONG_NODE` if more than one says so; `E_UNREACHABLE` if one that could not be reached may.
    pub fn knowing(&self, lease: LeaseId) -> Result<Arc<Client>> {
        self.asking(|client| client.lease_show(lease).map(drop), Code::LeaseUnknown)
    }

    /// The node that has an answer to `ask`. All are asked. `unknown` is what those say that know nothing of it.
    ///
    /// # Errors
    /// `E_WRONG_NODE` if more than one has; `unknown` if all say that; otherwise what another one says.
    pub fn asking(&self, ask: impl Fn(&Client) -> Result<()>, unknown: Code) -> Result<Arc<Client>> {
        let (mut found, mut last): (Option<Arc<Client>>, Option<Error>) = (None, None);
        for session in self.sessions() {
            match session.and_then(|client| ask(&client).map(|()| client)) {
                Ok(_) if found.is_some() => {
                    let message = "more than one node of the list says that it knows this, and which is meant was not said";
                    return Err(Error::new(Code::WrongNode, message));
                }
                Ok(client) => found = Some(client),
                // What one says that cannot tell counts for more than what those say that know nothing.
                Err(error) if error.code() == unknown => last = last.or(Some(error)),
                Err(error) => last = last.filter(|last| last.code() != unknown).or(Some(error)),
            }
        }
        found.ok_or_else(|| last.unwrap_or(Code::Internal.into()))
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
