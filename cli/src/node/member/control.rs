//! The gate's questions at a provider, answered from what the broker said.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::token::Cut;
use caps::wire::provider::Address;
use caps::wire::{Name, Reason, Reply, Request};
use link::provider::Asker;
use provider::gate::{BoxFuture, Caller, ControlPlane};

use super::Known;

/// The control plane of a provider.
pub(in crate::node) struct Control {
    /// What the broker said.
    pub known: Arc<Known>,
    /// How it is asked.
    pub asker: Asker,
    /// Where it is.
    pub broker: Address,
}

impl ControlPlane for Control {
    fn request(&self, _: Caller, _: Request) -> BoxFuture<'_, Result<Reply>> {
        // Not handed on: who asks has proved its key here, and the broker believes only what is proved to itself.
        let detail = format!("this is a provider, of the broker that providers find at {}", self.broker);
        Box::pin(std::future::ready(Err(Error::with(Code::WrongNode, detail))))
    }

    fn principal(&self, key: PrincipalKey) -> BoxFuture<'_, (Option<Name>, bool)> {
        Box::pin(std::future::ready(self.known.who(key)))
    }

    fn may_open(&self, caller: Caller, bytes: u64, rights: Rights, hops: u8) -> Result<()> {
        let who = (caller.holder, self.known.who(caller.holder).0);
        self.known.policy().may_open(who, caller.uid, bytes, rights, hops)
    }

    fn quota(&self, principal: PrincipalKey) -> policy::Quota {
        self.known.quota(principal)
    }

    fn revoke_holder(&self, holder: PrincipalKey) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.asker.revoke_holder(holder))
    }

    fn revoke_token(&self, caller: Caller, cut: Cut, reason: Reason) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.asker.revoke_token(caller.holder, cut, reason))
    }

    fn session_ended(&self, _: u64) {
        // Leases that end with a process end with its session at the broker; rights opened here, the provider ends.
    }
}
