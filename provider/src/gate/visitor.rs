//! A client whose key is proven, whichever way it speaks: who it is, what it has open, how it has behaved, and the
//! requests that need nothing of the way it came.

use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use caps::error::{Code, Error, Result};
use caps::wire::reply::Welcome;
use caps::wire::{Reply, Request};
use policy::fault::Reaction;
use tokio::io::unix::AsyncFd;

use super::Caller;
use super::fault::{Conduct, Fault};
use super::listen::Shared;
use super::rights::Rights;
use crate::kernel::Config;
use crate::runtime::Opener;

/// A client with a proven key.
pub(super) struct Visitor {
    pub(super) shared: Arc<Shared>,
    pub(super) opener: Opener,
    pub(super) rights: Rights,
    /// Its process, if it is one of this machine's.
    pub(super) process: Option<Arc<AsyncFd<OwnedFd>>>,
    pub(super) conduct: Conduct,
}

impl Visitor {
    pub(super) fn new(shared: Arc<Shared>, opener: Opener, process: Option<Arc<AsyncFd<OwnedFd>>>) -> Self {
        Self { shared, opener, rights: Rights::default(), process, conduct: Conduct::default() }
    }

    /// Answers what is not about bytes and needs nothing of the way the client came.
    pub(super) async fn answer(&mut self, request: Request) -> Result<Reply> {
        match request {
            _ if self.opener.origin.is_sandboxed() => {
                Err(Error::new(Code::Denied, "a program in the sandbox opens, reads, writes and closes"))
            }
            Request::QuarantineAdd { lease, reason } => self.quarantine_add(lease, reason).await,
            Request::QuarantineList => self.quarantine_list().await,
            Request::QuarantineRead { id, offset, length } => self.quarantine_read(id, offset, length).await,
            Request::QuarantineRelease { id } => self.quarantine_release(id).await,
            Request::RevokeToken { token, block, reason } => self.revoke_token(&token, block, reason).await,
            Request::TokenCheck { token } => self.token_check(&token).await,
            request @ (Request::RootRotate | Request::RootRetire { .. } | Request::RootList) => {
                self.root_request(request).await
            }
            Request::Wrap { token, to, ttl } => self.wrap(token, to, ttl).await,
            Request::Unwrap { id } => self.unwrap(id).await,
            Request::WrapShow { id } => self.wrap_show(id).await,
            request @ (Request::PrincipalAdd { .. }
            | Request::PrincipalList { .. }
            | Request::LeaseCreate(_)
            | Request::LeaseRenew { .. }
            | Request::LeaseRelease { .. }
            | Request::LeaseList { .. }
            | Request::LeaseShow { .. }
            | Request::ShareOffer { .. }
            | Request::ShareAccept { .. }
            | Request::ShareShow { .. }
            | Request::ShareList { .. }
            | Request::Revoke(_)
            | Request::ShareNarrow { .. }
            | Request::Status
            | Request::QuotaGive { .. }
            | Request::QuotaTakeBack { .. }
            | Request::QuotaList { .. }
            | Request::ShareCosign { .. }
            | Request::TransferOffer { .. }
            | Request::TransferAccept { .. }
            | Request::TransferShow { .. }
            | Request::TransferList { .. }
            | Request::TransferWithdraw { .. }
            | Request::ProviderShow { .. }
            | Request::ProviderDrain { .. }
            | Request::ProviderLost { .. }) => self.shared.control.request(self.caller(), request).await,
            Request::Hello { .. }
            | Request::Prove { .. }
            | Request::Open { .. }
            | Request::Read { .. }
            | Request::Write { .. }
            | Request::Segment { .. }
            | Request::Channel
            | Request::Close { .. }
            | Request::Confine
            | Request::Resume { .. } => Err(Error::new(Code::Protocol, "this is not asked for here")),
        }
    }

    /// This session's client, as the control plane knows it.
    pub(super) const fn caller(&self) -> Caller {
        Caller {
            holder: self.opener.proven.holder(),
            uid: self.opener.origin.uid(),
            session: self.opener.session,
        }
    }

    /// What this client is here, and how strongly its mappings are held.
    pub(super) async fn standing(&self) -> Welcome {
        let (name, admin) = self.shared.control.principal(self.opener.proven.holder()).await;
        let Config { cluster, provider, .. } = *self.shared.provider.config();
        Welcome { cluster, provider, name, admin, tier: self.shared.provider.tier_of(&self.opener) }
    }

    /// Counts a refusal by quota.
    pub(super) fn refused_by_quota(&mut self) {
        let (who, now) = (self.opener.proven.holder(), self.shared.provider.clock().boot());
        let many = self.shared.refusals.lock().unwrap_or_else(PoisonError::into_inner).count(who, now);
        if let Some(many) = many {
            self.fault(&Fault::quota(many), Reaction::Log);
        }
    }
}
