//! The two adapters between gate, broker and provider. They translate names and decide nothing.

use std::path::PathBuf;
use std::sync::Arc;

use broker::runtime::{Boxed, Caller as BrokerCaller, Claimed, Handle, ProviderLink, ProviderStatus};
use caps::error::Result;
use caps::id::{LeaseId, PrincipalKey};
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::Cut;
use caps::wire::link::{ClaimTicket, Take, Taken};
use caps::wire::row::{EndCause, MemoryRow, Revocation, Target};
use caps::wire::{Name, Reason, Reply, Request};
use provider::gate::{BoxFuture, Caller, ControlPlane};
use provider::runtime::Provider;

use super::custody::Custody;
use super::state::NodeDir;
use crate::canary::Health;

/// The provider, as the broker sees it.
pub struct LocalProvider(pub Provider);

impl ProviderLink for LocalProvider {
    fn claim(&self, ticket: ClaimTicket, session: u64) -> Boxed<'_, Result<Claimed>> {
        Box::pin(async move {
            let record = self.0.claim(ticket, Some(session)).await?;
            Ok(Claimed { bytes: ticket.bytes, recorded: Box::pin(record.durable()) })
        })
    }

    fn renew(&self, lease: LeaseId, ttl: Micros) -> Boxed<'_, Result<()>> {
        Box::pin(std::future::ready(self.0.renew(lease, ttl)))
    }

    fn take(&self, take: Take, cause: EndCause) -> Boxed<'_, Result<Taken>> {
        Box::pin(self.0.take(take, cause))
    }

    fn memory(&self, lease: LeaseId) -> Boxed<'_, Result<Option<MemoryRow>>> {
        Box::pin(std::future::ready(Ok(self.0.memory(lease))))
    }

    fn status(&self) -> Boxed<'_, Result<ProviderStatus>> {
        Box::pin(std::future::ready(Ok(status(&self.0))))
    }
}

/// A provider's numbers.
pub(super) fn status(provider: &Provider) -> ProviderStatus {
    ProviderStatus {
        committed_bytes: provider.committed_bytes(),
        sessions: u32::try_from(provider.sessions()).unwrap_or(u32::MAX),
        tier: provider.config().tier,
        entries: provider.log().0,
    }
}

/// The broker, as the gate sees it.
pub(super) struct LocalBroker {
    /// The broker.
    pub handle: Handle,
    /// Who keeps the root keys.
    pub custody: Arc<Custody>,
    /// Where registered principals are remembered for the next start.
    pub state: PathBuf,
    /// What is known of the node's canary, if it has one.
    pub canary: Option<Arc<Health>>,
    /// In whose name the node itself revokes.
    pub admin: PrincipalKey,
}

const fn broker_caller(caller: Caller) -> BrokerCaller {
    BrokerCaller { holder: caller.holder, uid: caller.uid, session: caller.session }
}

impl ControlPlane for LocalBroker {
    fn request(&self, caller: Caller, request: Request) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(async move {
            if let Some(answer) = self.custody.request(caller, &request).await {
                return answer;
            }
            let registered = match &request {
                Request::PrincipalAdd { name, key } => Some((name.clone(), *key)),
                _ => None,
            };
            let mut reply = self.handle.request(broker_caller(caller), request).await?;
            if let Reply::Status(status) = &mut reply {
                status.canary = self.canary.as_ref().map(|health| health.row());
            }
            if let Some((name, key)) = registered {
                NodeDir::remember(&self.state, &name, key)?;
            }
            Ok(reply)
        })
    }

    fn principal(&self, key: PrincipalKey) -> BoxFuture<'_, (Option<Name>, bool)> {
        // A broker that cannot say knows nobody: the session may still open tokens bound to its key.
        Box::pin(async move { self.handle.who(key).await.unwrap_or((None, false)) })
    }

    fn may_open(&self, caller: Caller, bytes: u64, rights: Rights, hops: u8) -> Result<()> {
        self.handle.may_open(broker_caller(caller), bytes, rights, hops)
    }

    fn quota(&self, principal: PrincipalKey) -> policy::Quota {
        self.handle.quota(principal)
    }

    fn revoke_holder(&self, holder: PrincipalKey) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let caller = BrokerCaller { holder: self.admin, uid: Some(0), session: 0 };
            let reason = Reason::new("the operator's reaction to a fault")?;
            let revocation = Revocation { target: Target::Holder(holder), reason };
            self.handle.request(caller, Request::Revoke(revocation)).await.map(drop)
        })
    }

    fn revoke_token(&self, caller: Caller, cut: Cut, reason: Reason) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.handle.revoke_token(broker_caller(caller), cut, reason))
    }

    fn session_ended(&self, session: u64) {
        if let Err(error) = self.handle.holder_exit(session) {
            tracing::warn!(%error, session, "the broker was not told of a session's end; its rights end with their time");
        }
    }
}
