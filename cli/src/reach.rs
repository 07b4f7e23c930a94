//! Which node a command asks: the one of this machine, a broker and the providers that it places leases on, or those of a
//! plain list.
//!
//! | asked of | what |
//! |---|---|
//! | the broker, or the node of the list that has the lease | leases, grants, principals |
//! | the provider that a token names | its bytes, and what it is worth |

use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::{PrincipalKey, ProviderId};
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::token::{Token, inspect};
use caps::wire::Reason;
use caps::wire::reply::TokenState;
use libmem::snapshot::Progress;
use libmem::{Client, Cluster, Leased, Memory, Nodes, Place, SnapshotOptions, Wrapped};

use crate::places::Places;

/// The way to memory.
pub(crate) enum Reach {
    /// By a broker, or a node that is its own.
    Cluster(Box<Cluster>, Places),
    /// By a list of nodes, each its own.
    Nodes(Arc<Nodes>, Places),
}

impl Reach {
    pub(crate) fn open(&self, token: &Token, rights: Rights) -> caps::Result<Memory> {
        match self {
            Self::Cluster(cluster, places) => {
                kept(cluster, places, token, |cluster| cluster.open(token, rights))
            }
            Self::Nodes(nodes, places) => at(nodes, places, token)?.open(token, rights),
        }
    }

    pub(crate) fn token_check(&self, token: &Token) -> caps::Result<TokenState> {
        match self {
            Self::Cluster(cluster, places) => {
                kept(cluster, places, token, |cluster| cluster.token_check(token))
            }
            Self::Nodes(nodes, places) => at(nodes, places, token)?.token_check(token),
        }
    }

    pub(crate) fn revoke_token(&self, token: &Token, block: u8, reason: &Reason) -> caps::Result<Receipt> {
        match self {
            Self::Cluster(cluster, places) => {
                kept(cluster, places, token, |cluster| cluster.revoke_token(token, block, reason))
            }
            Self::Nodes(nodes, places) => {
                at(nodes, places, token)?.revoke_token(token, block, reason.clone())
            }
        }
    }

    pub(crate) fn wrap(
        &self,
        token: &Token,
        to: Option<PrincipalKey>,
        ttl: Duration,
    ) -> caps::Result<Wrapped> {
        match self {
            Self::Cluster(cluster, places) => {
                kept(cluster, places, token, |cluster| cluster.wrap(token, to, ttl))
            }
            Self::Nodes(nodes, places) => at(nodes, places, token)?.wrap(token, to, ttl),
        }
    }

    /// A copy, at a node of the broker's choice; where there is none, at that of the original.
    pub(crate) fn snapshot(
        &self,
        token: &Token,
        options: SnapshotOptions,
        progress: impl Progress,
    ) -> caps::Result<Option<Leased>> {
        match self {
            Self::Cluster(cluster, places) => {
                remembered(cluster, places, token);
                cluster.snapshot(token, options, progress)
            }
            Self::Nodes(nodes, places) => at(nodes, places, token)?.snapshot(token, options, progress),
        }
    }

    /// The session with whoever decides about a token's lease.
    pub(crate) fn deciding(&self, token: &Token) -> caps::Result<Arc<Client>> {
        match self {
            Self::Cluster(cluster, _) => cluster.broker(),
            Self::Nodes(nodes, places) => at(nodes, places, token),
        }
    }

    /// Where the provider of a token is; `None` if it is whom everything is asked of anyway.
    pub(crate) fn place(&self, token: &Token) -> Option<Place> {
        match self {
            Self::Cluster(cluster, _) => cluster.place(provider_of(token)?),
            Self::Nodes(..) => None,
        }
    }

    /// Remembers where the provider of a new token is, as far as it can be known: that it is opened while the broker is away
    /// is worth a question, and no failure.
    pub(crate) fn remember(&self, token: &Token) {
        if let (Self::Cluster(cluster, places), Some(provider)) = (self, provider_of(token))
            && places.find(provider).is_none()
            && let Ok(Some(place)) = cluster.locate(token)
        {
            let _ = places.keep(provider, &place); // it is asked again the next time
        }
    }
}

/// The session with the node of a list that has a token's memory: with the one where it was leased, if that is on disk. What is
/// found out by asking all of them is kept there.
pub(crate) fn at(nodes: &Nodes, places: &Places, token: &Token) -> caps::Result<Arc<Client>> {
    let Some(provider) = provider_of(token) else { return nodes.at(token) };
    if let Some(place) = places.find(provider) {
        nodes.remember(provider, place);
    }
    let client = nodes.of(provider)?;
    keep(nodes, places, provider);
    Ok(client)
}

/// Keeps on disk which node of a list has a life, if that is known.
pub(crate) fn keep(nodes: &Nodes, places: &Places, provider: ProviderId) {
    if let Some(place) = nodes.place(provider) {
        let _ = places.keep(provider, &place); // all are asked the next time
    }
}

/// Does something with what is on disk of a token's provider, and brings that up to date.
fn kept<T>(
    cluster: &Cluster,
    places: &Places,
    token: &Token,
    act: impl Fn(&Cluster) -> caps::Result<T>,
) -> caps::Result<T> {
    remembered(cluster, places, token);
    let mut done = act(cluster);
    // Whether a provider that is not there is lost for good its broker knows, which may not have been called so far. The
    // provider itself is not tried again that soon.
    let silent = |error: &Error| matches!(error.code(), Code::Unreachable | Code::Timeout);
    if done.as_ref().err().is_some_and(silent) && cluster.broker().is_ok() {
        done = act(cluster);
    }
    if let Some(provider) = provider_of(token) {
        match (&done, cluster.place(provider)) {
            (Ok(_), Some(place)) => {
                let _ = places.keep(provider, &place); // it is asked again the next time
            }
            (Err(error), _) if matches!(error.code(), Code::Epoch | Code::ProviderLost) => {
                places.forget(provider);
            }
            _ => {}
        }
    }
    done
}

fn remembered(cluster: &Cluster, places: &Places, token: &Token) {
    if let Some((provider, place)) = provider_of(token).and_then(|id| Some((id, places.find(id)?))) {
        cluster.remember(provider, place);
    }
}

/// The provider that a token names; `None` if it is no token.
pub(crate) fn provider_of(token: &Token) -> Option<ProviderId> {
    ProviderId::parse(&inspect(token, None).ok()?.provider).ok()
}

/// What a plain list cannot say.
pub(crate) fn which_node() -> Error {
    Error::new(Code::WrongNode, "each node of a list is its own, and which one is meant was not said")
}
