//! The decision by Datalog: the reference that the native one must equal.
//!
//! It costs a thousand times more, so it is for explanations, tests and doubt. One authorizer per request, one
//! operation in it. The gate has bounded the work; the limits here only end a machine that is stuck, and that is an
//! error of its own, never a policy's no.

use std::sync::LazyLock;
use std::time::Duration;

use biscuit_auth::builder::Fact;
use biscuit_auth::error::Token as LibraryError;
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits, Biscuit};

use super::authorize::{Authorized, Request};
use super::chain::RevocationId;
use super::keys::RootKeys;
use super::terms::INTEGER_MAX;
use super::verify::{VerifiedToken, refused};
use super::vocabulary::{built, bytes, fact, integer, string};
use crate::error::{Code, Error, Result};
use crate::limits::TOKEN_DECISION_MS_MAX;

/// Most facts of one decision. A token has at most 16 in its authority block and one in each other; a request adds
/// ten.
const FACTS_MAX: u64 = 256;
/// Most rounds of rules. Neither tokens nor the policy have rules.
const ITERATIONS_MAX: u64 = 8;

/// What every token is asked again by the verifier, whatever its own checks say.
const POLICY: &str = "
    check if time($time), not_before($begin), expires($end), $begin <= $time, $time < $end;
    check if pop($key), effective_holder($key);
    check if hops($hops), max_hops($most), $hops <= $most;
    check if resource($lease, $region), lease($lease, $region);
    check if at($cluster, $provider), node($cluster, $provider);
    allow if operation($operation), right($operation), req($a, $b), range($start, $end),
        $start <= $a, $a < $b, $b <= $end;
    deny if true;
";

/// Parsed once; cloned per request. The text is ours: text from a peer is never parsed.
#[expect(clippy::disallowed_methods, reason = "the text is a constant of ours")]
pub(super) static AUTHORIZER: LazyLock<AuthorizerBuilder> = LazyLock::new(|| {
    let limits = AuthorizerLimits {
        max_facts: FACTS_MAX,
        max_iterations: ITERATIONS_MAX,
        max_time: Duration::from_millis(TOKEN_DECISION_MS_MAX),
    };
    // On the builder: given to the authorizer, they would not hold for the first phase.
    AuthorizerBuilder::new().code(POLICY).expect("the policy above parses").set_limits(limits)
});

impl VerifiedToken {
    /// Decides one request by the token's own Datalog and the verifier's policy. `bytes` are the bytes that this
    /// token was verified from, which it does not keep.
    ///
    /// # Errors
    /// `E_DENIED` if a check or the policy says no; `E_TOKEN_LIMIT` if the decision took more than
    /// [`TOKEN_DECISION_MS_MAX`]; as the gate and [`verify`](super::Gated::verify) for bytes that are another token.
    #[expect(clippy::disallowed_methods, reason = "the gate has seen these bytes")]
    pub fn authorize_by_datalog(
        &self,
        bytes: &[u8],
        keys: &RootKeys,
        request: &Request,
    ) -> Result<Authorized> {
        let gated = super::gate(bytes)?;
        let last = |ids: &[RevocationId]| ids.last().copied();
        if last(&gated.revocation_ids()) != last(&self.revocation_ids) {
            return Err(Error::new(Code::TokenSignature, "the bytes are those of another token"));
        }
        let (_, root) = keys.choose(gated.root_key_id)?;
        let biscuit = Biscuit::from(bytes, root).map_err(|error| undecided(&error))?;
        let authorizer =
            built(self.facts(request).into_iter().try_fold(AUTHORIZER.clone(), AuthorizerBuilder::fact))?;
        let mut authorizer = authorizer.build(&biscuit).map_err(|error| undecided(&error))?;
        authorizer.authorize().map_err(|error| undecided(&error))?;
        Ok(self.evidence(request))
    }

    /// The request as facts. The chain of holders and its length come from the walk: Datalog cannot follow it.
    pub(super) fn facts(&self, request: &Request) -> Vec<Fact> {
        let mut facts = vec![
            fact("operation", [string(request.operation.name())]),
            fact("resource", [bytes(&request.lease.0), bytes(&request.region.0)]),
            fact("req", [integer(request.range.start()), integer(request.range.end())]),
            fact("pop", [bytes(&request.proven.holder().0)]),
            fact("effective_holder", [bytes(&self.chain.holder.0)]),
            fact("hops", [integer(u64::from(self.effective.hops))]),
            fact("at", [bytes(&request.cluster.0), bytes(&request.provider.0)]),
        ];
        // A count or time that Datalog cannot hold is left out, so that a check on it fails.
        let countable = |name: &str, value: u64| (value <= INTEGER_MAX).then(|| fact(name, [integer(value)]));
        facts.extend(countable("time", request.now.0));
        if let Some(usage) = &request.usage {
            facts.extend(countable("opens", usage.opens));
            facts.extend(countable("rate", usage.bytes_per_second));
            facts.extend(countable("budget", usage.bytes_total));
        }
        facts
    }
}

/// The code of a decision that is no yes.
pub(super) fn undecided(error: &LibraryError) -> Error {
    match error {
        LibraryError::FailedLogic(_) | LibraryError::Execution(_) => {
            Error::new(Code::Denied, "a check of the token or the verifier's policy says no")
        }
        LibraryError::RunLimit(_) => Error::new(Code::TokenLimit, "the decision took longer than its bound"),
        LibraryError::Format(format) => refused(format),
        LibraryError::InternalError
        | LibraryError::AppendOnSealed
        | LibraryError::AlreadySealed
        | LibraryError::Language(_)
        | LibraryError::ConversionError(_)
        | LibraryError::Base64(_) => Error::new(Code::Internal, "the token library failed on a gated token"),
    }
}
