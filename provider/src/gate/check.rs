//! Answering what a token is worth now, to those whom it concerns.

use caps::error::{Error, Result};
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::token::{Limit, Token, VerifiedToken};
use caps::wire::{Reply, Request};

use super::visitor::Visitor;

impl Visitor {
    /// Judges a token without opening it. A stranger is told what it would be told on opening, and the log is.
    pub(super) async fn token_check(&mut self, token: &Token) -> Result<Reply> {
        let verified = self.verified(token).await?;
        if !self.concerns(&verified).await {
            let error = Error::from(Limit::Holder);
            self.denied(token, Some(&verified), &error);
            return Err(error);
        }
        let mut state = self.shared.provider.check(token, &verified)?;
        if state.code.is_none() && verified.chain().holder == self.opener.proven.holder() {
            // The policy judges who opens, so it has an answer for the holder alone.
            let bytes = verified.effective().range.map_or(0, |range| range.len());
            let rights = verified.effective().rights.intersect(Rights::READ_WRITE);
            let hops = verified.effective().hops;
            let allowed = self.shared.control.may_open(self.caller(), bytes, rights, hops);
            state.code = allowed.err().map(|error| error.code());
        }
        Ok(Reply::Token(state))
    }

    /// Whether this client has held the token, owns its lease, or is the administrator.
    async fn concerns(&self, verified: &VerifiedToken) -> bool {
        let me = self.opener.proven.holder();
        if has_held(verified, me) {
            return true;
        }
        let control = &self.shared.control;
        if control.principal(me).await.1 {
            return true;
        }
        // What has the memory knows whose it is. A provider of a broker cannot ask that one on the client's behalf.
        if self.shared.provider.owner(verified.terms().lease) == Some(me) {
            return true;
        }
        // Leases that are over have owners too, whom the control plane remembers for a while.
        let lease = Request::LeaseShow { lease: verified.terms().lease };
        let shown = control.request(self.caller(), lease).await;
        matches!(shown, Ok(Reply::Lease { lease, .. }) if lease.owner == me)
    }
}

/// Whether this key is one of the token's holders, from the first to the present one. Each is vouched for by the one
/// before, and the first by the broker.
pub(super) fn has_held(verified: &VerifiedToken, key: PrincipalKey) -> bool {
    let chain = verified.chain();
    chain.first_holder == key || chain.hops.iter().any(|hop| hop.to == key)
}
