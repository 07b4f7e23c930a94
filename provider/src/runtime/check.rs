//! What opening with a token would find, asked without opening: nothing is changed, counted or recorded.
//!
//! The questions are those of `open.rs`, in its order, put for the token's holder whoever asks. Who may ask is the gate's
//! to know.

use caps::error::{Code, Result};
use caps::id::{LeaseId, PrincipalKey};
use caps::rights::Rights;
use caps::time::Micros;
use caps::token::{Limit, Question, Token, VerifiedToken, gate};
use caps::wire::reply::TokenState;
use policy::Quota;
use policy::quota::Openings;

use super::{Provider, lock};
use crate::kernel::{By, Kernel, OpenRequest, SessionId};

impl Provider {
    /// Whose a lease is that has memory here; of one that is over its provider knows no owner.
    #[must_use]
    pub fn owner(&self, lease: LeaseId) -> Option<PrincipalKey> {
        lock(&self.0.kernel).owned(lease).map(|(_, owner, _)| owner)
    }

    /// What its holder would be told on opening `token`, and which block that comes from. `verified` is of the same
    /// bytes.
    ///
    /// # Errors
    /// As [`gate`], for other bytes than those that were verified.
    pub fn check(&self, token: &Token, verified: &VerifiedToken) -> Result<TokenState> {
        let (terms, config) = (verified.terms(), self.config());
        let refused = |code, block| Ok(TokenState { code: Some(code), block, expires_in: Micros(0) });
        if terms.cluster != config.cluster {
            return refused(Limit::Cluster.code(), Some(0));
        }
        let effective = verified.effective();
        let rights = if effective.rights.contains(Rights::READ) { Rights::READ } else { Rights::WRITE };
        let now_unix = self.0.clock.unix();
        let question = Question { rights, range: None, at: now_unix };
        if let Some(short) = gate(token.as_bytes())?.shortfalls(&question)?.first() {
            return refused(short.limit.code(), Some(short.block));
        }
        if terms.provider != config.provider {
            return refused(Limit::Provider.code(), Some(0));
        }
        let Some(range) = effective.range else { return refused(Limit::Range.code(), None) };
        // How much its first holder has open at the moment says nothing of the token.
        let quota = Openings::default().ask(verified.chain().first_holder, &Quota::UNLIMITED, false)?;
        // Nobody's: a check opens nothing, and mediated access asks nothing of a process.
        let nobody = By { session: SessionId(0), uid: Some(config.uid), sandboxed: false };
        let request = OpenRequest::of_token(verified, rights, range, quota, nobody, now_unix);
        let now = self.0.clock.boot();
        let kernel = lock(&self.0.kernel);
        match kernel.judge(now, &request) {
            Ok(judged) => Ok(TokenState { code: None, block: None, expires_in: judged.deadline.since(now) }),
            Err(error) => {
                let block = match error.code() {
                    Code::TokenRevoked => Some(first_revoked(&kernel, now, request, verified)),
                    // The lease and what is left of its grant: the broker's block names both.
                    Code::LeaseExpired => Some(0),
                    Code::Denied => verified.meters().is_empty().then_some(0),
                    _ => None,
                };
                refused(error.code(), block)
            }
        }
    }
}

/// The first block with which the token was dead: its ancestors are asked one after the other, at most 8 of them.
fn first_revoked(
    kernel: &Kernel,
    now: caps::time::BootNanos,
    mut request: OpenRequest,
    verified: &VerifiedToken,
) -> u8 {
    let last = verified.blocks() - 1;
    let dead = (0..last).find(|&block| {
        request.marks = verified.marks_until(block).into();
        kernel.judge(now, &request).is_err_and(|error| error.code() == Code::TokenRevoked)
    });
    dead.unwrap_or(last)
}
