//! Requests that look and change nothing.

use std::time::Duration;

use caps::Result;
use caps::id::{GrantId, LeaseId, PrincipalKey, ProviderId};
use caps::share::Signed;
use caps::wire::reply::Reply;
use caps::wire::row::{NodeStatus, Tier};

use super::{Caller, Handle, ProviderStatus, unexpected};
use crate::state::{Query, StatusView, View};

impl Handle {
    pub(super) async fn principals(&self, caller: Caller, after: Option<PrincipalKey>) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Principals(after)).await? {
            View::Principals(page) => Ok(Reply::Principals(page)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn leases(&self, caller: Caller, after: Option<LeaseId>) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Leases(after)).await? {
            View::Leases(page) => Ok(Reply::Leases(page)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn lease(&self, caller: Caller, lease: LeaseId) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Lease(lease)).await? {
            View::Lease(row) => {
                // Of one that does not answer nothing is known: the row says how the lease is.
                let memory = self.shared.links.memory(row.provider, lease).await.unwrap_or(None);
                Ok(Reply::Lease { lease: row, memory })
            }
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn grants(&self, caller: Caller, after: Option<GrantId>) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Grants(after)).await? {
            View::Grants(page) => Ok(Reply::Grants(page)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn contract(&self, caller: Caller, grant: GrantId) -> Result<Reply> {
        match self.shared.look(caller.holder, Query::Grant(grant)).await? {
            View::Grant(grant, Signed { contract, by_owner, by_receiver, by_cosigner }) => {
                Ok(Reply::Contract { grant, contract, by_owner, by_receiver, by_cosigner })
            }
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn status(&self, caller: Caller) -> Result<Reply> {
        let View::Status(books) = self.shared.look(caller.holder, Query::Status).await? else {
            return Err(unexpected());
        };
        let provider = self.numbers(&books).await;
        let audit = self.shared.recorder.status();
        Ok(Reply::Status(NodeStatus {
            cluster: self.shared.genesis.cluster,
            // Nothing is said of another one as if it were this node's.
            provider: if books.own { books.provider } else { ProviderId::NOBODY },
            uptime: books.uptime,
            pool_bytes: books.pool_bytes,
            leased_bytes: books.leased_bytes,
            committed_bytes: provider.committed_bytes,
            leases: books.leases,
            grants: books.grants,
            principals: books.principals,
            sessions: provider.sessions,
            tier: provider.tier,
            audit: audit.available,
            broker_entries: audit.durable,
            provider_entries: provider.entries,
            policy: data_encoding::HEXLOWER.encode(&books.policy),
            // The broker knows nothing of it: whoever runs one says how it is.
            canary: None,
            providers: books.providers,
        }))
    }

    /// The numbers of all providers together: of the first as it says now, of the others as they said last.
    async fn numbers(&self, books: &StatusView) -> ProviderStatus {
        let first = self.shared.links.status(books.provider, Duration::MAX).await.ok();
        // Of one that does not answer nothing may be said that would comfort anybody.
        let nothing = ProviderStatus { committed_bytes: 0, sessions: 0, tier: Tier::Open, entries: 0 };
        let mut sum = first.unwrap_or(nothing);
        sum.committed_bytes = sum.committed_bytes.saturating_add(books.load.committed_bytes);
        sum.sessions = sum.sessions.saturating_add(books.load.sessions);
        sum
    }
}
