//! Rights to memory: opened, closed, and refused, whichever way the client speaks.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use audit::{Draft, Event as Entry};
use caps::error::{Blame, Code, Error, Result};
use caps::id::SlotHandle;
use caps::token::{Token, VerifiedToken};
use caps::wire::place::Place;
use caps::wire::request::Path;
use caps::wire::{Reply, Request};
use policy::fault::Reaction;

use super::fault::{Access, Fault};
use super::visitor::Visitor;
use crate::runtime::{Misuse, Refused, Violation};

/// What a request came to.
pub(super) enum Answer {
    /// Send this.
    Reply(Reply),
    /// Send this with a descriptor beside it.
    WithDescriptor(Reply, OwnedFd),
    /// The answer has left already.
    Sent,
}

impl Visitor {
    pub(super) async fn open(
        &mut self,
        token: &Token,
        rights: caps::rights::Rights,
        path: Path,
    ) -> Result<Answer> {
        let verified = self.verified(token).await?;
        self.is_here(&verified).await.inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let terms = verified.terms();
        let made = verified.revocation_ids().get(1..).and_then(|made| made.last().copied());
        let known = (terms.lease, terms.grant, rights, path, made);
        let recorded = self.rights.is_recorded(&known);
        // The token before the policy: whoever is not its holder learns that and nothing else.
        self.shared
            .provider
            .authorize(&verified, rights, self.opener.proven)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let bytes = verified.effective().range.map_or(0, |range| range.len());
        self.shared
            .control
            .may_open(self.caller(), bytes, rights, verified.effective().hops)
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        let quota = self.shared.control.quota(verified.chain().first_holder);
        let opened = self
            .shared
            .provider
            .open(&self.opener, token, &verified, rights, path, &quota, recorded)
            .await
            .inspect_err(|error| self.denied(token, Some(&verified), error))?;
        if !recorded {
            self.rights.record(known);
        }
        self.rights.give(opened.reply.handle, opened.descriptor.is_some(), known.0);
        let reply = Reply::Opened(opened.reply);
        Ok(match opened.descriptor {
            Some(descriptor) => Answer::WithDescriptor(reply, descriptor),
            None => Answer::Reply(reply),
        })
    }

    /// Whether a token's memory is this node's to open. One of the same cluster that is another provider's is refused with
    /// where that is, if it is known; a node that knows of no other goes on, and refuses it as it does any other's.
    ///
    /// # Errors
    /// `E_WRONG_NODE` with the address; `E_PROVIDER_LOST`.
    async fn is_here(&self, verified: &VerifiedToken) -> Result<()> {
        let (config, terms) = (self.shared.provider.config(), verified.terms());
        if terms.cluster != config.cluster || terms.provider == config.provider {
            return Ok(());
        }
        let asked = Request::ProviderShow { provider: terms.provider };
        match self.shared.control.request(self.caller(), asked).await {
            Ok(Reply::Provider { name, address }) => Err(Place { node: name, address }.error()),
            Err(error) if matches!(error.code(), Code::WrongNode | Code::ProviderLost) => Err(error),
            _ => Ok(()),
        }
    }

    /// Verifies a token, or finds it among those this session has had verified.
    pub(super) async fn verified(&mut self, token: &Token) -> Result<Arc<VerifiedToken>> {
        // Read before the token is verified: what is verified by a later set is merely verified once more.
        let roots = self.shared.provider.roots().number();
        if let Some(verified) = self.rights.verified.find(token, roots) {
            return Ok(verified);
        }
        let verified = Arc::new(self.verified_in_turn(token).await?);
        self.rights.verified.keep(&self.shared.tokens, self.opener.origin.source(), token, roots, &verified);
        Ok(verified)
    }

    /// Verifies a token when it is this user's turn, and remembers nothing. Whatever has signatures checked comes here:
    /// it is what keeps a worker busy.
    pub(super) async fn verified_in_turn(&self, token: &Token) -> Result<VerifiedToken> {
        let _turn = self.shared.verifying.turn(self.opener.origin.source()).await;
        self.shared.provider.verify(token).inspect_err(|error| self.denied(token, None, error))
    }

    pub(super) fn close(&mut self, handle: SlotHandle) -> Result<Answer> {
        self.shared
            .provider
            .close(self.opener.session, handle)
            .map_err(|error| self.no_such_handle(handle, error))?;
        Ok(Answer::Reply(Reply::Done))
    }

    /// Records a token that was refused: before its signatures verified as a reject, after that as a denial with the
    /// chain of its holders.
    pub(super) fn denied(&self, token: &Token, verified: Option<&VerifiedToken>, error: &Error) {
        let event = if verified.is_some() { Entry::LeaseDeny } else { Entry::TokenReject };
        let mut entry = self
            .opener
            .identified(Draft::deny(event, error.code()))
            .token_hmac(self.shared.provider.salt().token(token.as_bytes()));
        if let Some(verified) = verified {
            let chain: Vec<_> = std::iter::once(verified.chain().first_holder)
                .chain(verified.chain().hops.iter().map(|hop| hop.to))
                .collect();
            entry =
                entry.lease(verified.terms().lease).maybe(verified.terms().grant, Draft::grant).chain(&chain);
        }
        self.shared.rejects.deny(self.opener.origin.source(), entry);
    }

    /// Records a violation and gives back what the client is told.
    pub(super) fn refused(&mut self, handle: SlotHandle, asked: Access, refused: Refused) -> Error {
        let Refused { error, violation } = refused;
        let fault = match violation {
            Some(violation) => {
                Fault::access(self.settled(violation, handle), error.code(), handle, Some(asked))
            }
            // Too long, or with a wrong checksum: what no client of ours sends.
            None if error.code().blame() == Blame::Client => Fault::malformed(&error, handle),
            None => return error,
        };
        self.fault(&fault, Reaction::Log);
        error
    }

    /// Records that a handle never was this session's. One that was may be closed, or asked for more, after its right
    /// has ended: nobody touches memory by that.
    pub(super) fn no_such_handle(&mut self, handle: SlotHandle, error: Error) -> Error {
        if error.code() == Code::Revoked {
            let violation = self.shared.provider.misuse(self.opener.session, handle);
            let violation = self.settled(violation, handle);
            if violation.misuse != Misuse::AfterEnd {
                self.fault(&Fault::access(violation, error.code(), handle, None), Reaction::Log);
            }
        }
        error
    }

    /// What the session remembers of a handle that the provider has forgotten.
    fn settled(&self, violation: Violation, handle: SlotHandle) -> Violation {
        let own = violation.misuse == Misuse::Stale && self.rights.was_given(handle);
        Violation { misuse: if own { Misuse::AfterEnd } else { violation.misuse }, ..violation }
    }
}
