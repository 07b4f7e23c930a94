//! The policy: one Datalog file that says who may ask for what.
//!
//! ```text
//! bytes ─▶ text.rs ─────▶ program.rs ──────▶ Policy ─┬─ lint.rs ──▶ Vec<Diagnostic>   is it meant?
//!          small, shallow, the language, no          │
//!          plain text      recursion, bounded work   └─ decide(Facts) ──▶ Decision    yes or no, by which rule
//! ```
//!
//! The engine is biscuit-auth's, the one that tokens are judged by. It is given a policy only after two looks at it,
//! because its own limits do not stop a deep text from overflowing its parser's stack, nor a join from running for
//! half a minute: it looks at the clock between queries only. What bounds a decision here is the policy's shape.
//!
//! A decision is a function of the policy and of [`Facts`], a closed list of typed values. It happens before the
//! broker orders the command, and goes into the command with the policy's hash: replicas do not decide again.
//!
//! | file | holds |
//! |---|---|
//! | `text.rs` | measures a text before any parser sees it; finds its statements |
//! | `program.rs` | parses statements, holds them to the language, bounds what a decision can cost |
//! | `vocabulary.rs` | the predicates that the node states |
//! | `facts.rs` | a request as facts |
//! | `lint.rs` | what parses and is almost certainly wrong |
//! | `memo.rs` | decisions remembered |
//! | `default.dl` | the policy of a node that has no other |
//!
//! ```
//! use caps::id::PrincipalKey;
//! use caps::wire::Name;
//! use policy::datalog::{Facts, Kind, Policy};
//!
//! let policy = Policy::parse(
//!     r#"
//!     deny if request("lease.create"), size($bytes), $bytes > 1048576;
//!     allow if request("lease.create"), principal($key, $name);
//!     "#,
//!     "policy.dl",
//! )
//! .unwrap();
//! let mut facts = Facts::new(Kind::LeaseCreate, PrincipalKey([7; 32]), Some(Name::new("alice").unwrap()), Some(1000));
//! facts.bytes = Some(65_536);
//! assert!(policy.decide(&facts).unwrap().allowed);
//! facts.bytes = Some(2 << 20);
//! let no = policy.decide(&facts).unwrap();
//! assert!(!no.allowed);
//! assert_eq!(no.rule.unwrap().line, 2);
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use biscuit_auth::AuthorizerLimits;
use biscuit_auth::builder::AuthorizerBuilder;
use biscuit_auth::error::{Logic, MatchedPolicy, Token};
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::wire::Name;
use caps::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::diagnostic::{Collector, Diagnostic};
use crate::limits::*;
use program::Program;

mod facts;
mod lint;
mod memo;
mod program;
mod text;
mod vocabulary;

pub use facts::{Facts, Kind};

/// The policy of a node that has no other; a first start writes it. Registered principals may lease within their
/// quota, share what they own, and take back what is theirs.
pub const DEFAULT: &str = include_str!("default.dl");

/// SHA-256 of the policy's bytes: what `sha256sum policy.dl` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Display for PolicyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PolicyHash({self})")
    }
}

/// An `allow` or `deny` of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its place among the `allow` and `deny` statements, from 0.
    pub index: u32,
    /// Its first line, from 1.
    pub line: u32,
    /// Its text on one line, comments left out.
    pub text: Arc<str>,
}

/// What a policy says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The answer.
    pub allowed: bool,
    /// The statement that matched; `None` if none did, which is a no.
    pub rule: Option<Rule>,
    /// Which policy says so.
    pub policy: PolicyHash,
}

impl Decision {
    /// `Ok` if allowed.
    ///
    /// # Errors
    /// `E_POLICY_DENIED` with the line of the rule. The rule's text is the operator's and not for every client.
    pub fn into_result(self) -> Result<()> {
        match self.rule {
            _ if self.allowed => Ok(()),
            Some(rule) => {
                Err(Error::with(Code::PolicyDenied, format!("denied by the policy, line {}", rule.line)))
            }
            None => Err(Error::new(Code::PolicyDenied, "no rule of the policy allows it")),
        }
    }
}

/// A policy that was measured, parsed and bounded. Not yet one that is meant: see [`Policy::lint`].
pub struct Policy {
    file: String,
    text: String,
    program: Program,
    /// Whether the text has the pragma.
    allow_all: bool,
    rules: Vec<Rule>,
    builder: AuthorizerBuilder,
    hash: PolicyHash,
    memo: memo::Memo,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("file", &self.file).field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Policy {
    /// Parses a policy. `file` is the name that mistakes carry.
    ///
    /// # Errors
    /// `E_POLICY_SYNTAX`, every mistake in the order of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut found = Collector::new(file, text);
        let scan = text::scan(text, &mut found);
        let program = Program::read(&scan, &mut found);
        if !found.is_clean() {
            return Err(found.finish());
        }
        let rules = program.policies.iter().zip(0..).map(|(item, index)| Rule {
            index,
            line: found.place(item.place.start).0,
            text: scan.clean[item.place.clone()].split_whitespace().collect::<Vec<_>>().join(" ").into(),
        });
        let rules = rules.collect();
        let builder = builder(&program, |_| true).map_err(|error| {
            // What the program's checks let through, the engine takes; if not, no policy rather than half of one.
            vec![Diagnostic::of_file(Code::PolicySyntax, file, error.detail(), "please report this policy")]
        })?;
        Ok(Self {
            file: file.into(),
            text: text.into(),
            program,
            allow_all: scan.allow_all,
            rules,
            builder,
            hash: PolicyHash(Sha256::digest(text).into()),
            memo: memo::Memo::default(),
        })
    }

    /// [`Policy::parse`] of bytes that need not be UTF-8.
    ///
    /// # Errors
    /// `E_POLICY_SYNTAX`.
    pub fn parse_bytes(bytes: &[u8], file: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::parse(&crate::file::decode(bytes.to_vec(), file, Code::PolicySyntax)?, file)
    }

    /// Reads and parses a policy file.
    ///
    /// # Errors
    /// `E_CONFIG_IO` if there is no regular, non-empty file of at most [`POLICY_FILE_BYTES_MAX`] bytes;
    /// `E_POLICY_SYNTAX` if it is no policy.
    pub fn load(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        let text = crate::file::read(path, POLICY_FILE_BYTES_MAX, Code::PolicySyntax)?;
        Self::parse(&text, &crate::file::shown(path))
    }

    /// What parses and is almost certainly not meant, in the order of the text. A node refuses to start on those of
    /// [`crate::Severity::Error`]. `allow_all` is the operator's statement in the configuration that a policy which
    /// allows everything is meant; a comment `// leasehold: allow_all = true` in the policy is the same.
    #[must_use]
    pub fn lint(&self, allow_all: bool) -> Vec<Diagnostic> {
        lint::lint(self, allow_all || self.allow_all)
    }

    /// Decides a request, from memory if it was decided lately.
    ///
    /// # Errors
    /// `E_TOKEN_LIMIT` if a bound of the run was reached, `E_RANGE` if a number of the facts does not fit,
    /// `E_POLICY_LINT` if a rule cannot be evaluated on these facts (as when it compares a name with a number). None
    /// is a no, and none may be treated as a yes.
    pub fn decide(&self, facts: &Facts) -> Result<Decision> {
        if let Some(decision) = self.memo.get(facts) {
            return Ok(decision);
        }
        let decision = self.decide_uncached(facts)?;
        self.memo.put(facts.clone(), decision.clone());
        Ok(decision)
    }

    /// [`Policy::decide`] without its memory.
    ///
    /// # Errors
    /// Those of [`Policy::decide`].
    pub fn decide_uncached(&self, facts: &Facts) -> Result<Decision> {
        let (allowed, index) = run(self.builder.clone(), facts)?;
        let rule = index.and_then(|index| self.rules.get(index).cloned());
        Ok(Decision { allowed, rule, policy: self.hash })
    }

    /// Which policy this is.
    #[must_use]
    pub const fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// The `allow` and `deny` statements, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The text that was parsed, byte for byte: what [`Self::hash`] is of.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a principal may open a right to `bytes` bytes by a token that was delegated `hops` times. `name` is what it
    /// is registered under, `uid` its process' if that is one of the machine's.
    ///
    /// # Errors
    /// `E_POLICY_DENIED`; those of [`Policy::decide`].
    pub fn may_open(
        &self,
        (key, name): (PrincipalKey, Option<Name>),
        uid: Option<u32>,
        bytes: u64,
        rights: Rights,
        hops: u8,
    ) -> Result<()> {
        let facts = Facts {
            bytes: Some(bytes),
            rights,
            hops: Some(hops),
            ..Facts::new(Kind::LeaseOpen, key, name, uid)
        };
        if self.decide(&facts)?.allowed {
            Ok(())
        } else {
            Err(Error::new(Code::PolicyDenied, "the policy does not let this principal open this right"))
        }
    }
}

/// The engine's form of those statements of a program whose index `take` accepts, with all facts and rules.
fn builder(program: &Program, take: impl Fn(usize) -> bool) -> Result<AuthorizerBuilder> {
    let refused = |_| Error::new(Code::PolicySyntax, "the engine does not take a statement");
    // On the builder: limits given to `authorize` do not apply to rules in this release of the engine.
    let mut builder = AuthorizerBuilder::new().set_limits(AuthorizerLimits {
        max_facts: POLICY_DECISION_FACTS_MAX,
        max_iterations: POLICY_DECISION_ROUNDS_MAX,
        max_time: Duration::from_millis(POLICY_DECISION_MS_MAX),
    });
    for item in &program.facts {
        builder = builder.fact(biscuit_auth::builder::Fact::from(item.node.clone())).map_err(refused)?;
    }
    for item in &program.rules {
        builder = builder.rule(biscuit_auth::builder::Rule::from(item.node.clone())).map_err(refused)?;
    }
    for (_, item) in program.policies.iter().enumerate().filter(|(index, _)| take(*index)) {
        builder = builder.policy(biscuit_auth::builder::Policy::from(item.node.clone())).map_err(refused)?;
    }
    Ok(builder)
}

/// One run of the engine: the answer, and the index of the statement that gave it.
#[expect(clippy::disallowed_methods, reason = "a policy judges facts of the broker's own, not a token")]
fn run(mut builder: AuthorizerBuilder, facts: &Facts) -> Result<(bool, Option<usize>)> {
    for fact in facts.terms()? {
        builder =
            builder.fact(fact).map_err(|_| Error::new(Code::Internal, "a fact of ours has a parameter"))?;
    }
    let answer = builder.build_unauthenticated().and_then(|mut authorizer| authorizer.authorize());
    match answer {
        Ok(index) => Ok((true, Some(index))),
        Err(Token::FailedLogic(Logic::Unauthorized { policy: MatchedPolicy::Deny(index), .. })) => {
            Ok((false, Some(index)))
        }
        Err(Token::FailedLogic(Logic::NoMatchingPolicy { .. })) => Ok((false, None)),
        Err(Token::RunLimit(_)) => Err(Error::new(Code::TokenLimit, "the policy took more than its bound")),
        Err(Token::Execution(_)) => Err(Error::new(
            Code::PolicyLint,
            "a rule cannot be evaluated on this request; see `leasehold policy check`",
        )),
        Err(_) => Err(Error::new(Code::Internal, "the policy engine failed")),
    }
}

#[cfg(test)]
mod tests;
