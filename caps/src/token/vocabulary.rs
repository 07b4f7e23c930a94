//! The vocabulary of leases, in the direction of writing: terms and narrowings become facts and checks.
//!
//! ```text
//! authority block (schema 3), in this order
//!   lease($lease, $region); grant($grant)?; node($cluster, $provider); range($start, $end); right($operation)+;
//!   holder($key); not_before($time); expires($time); max_hops($n);
//!   check if time($time), NOT_BEFORE <= $time, $time < EXPIRES;
//!   check if pop($pop), effective_holder($pop);
//!   check if resource($lease, $region), lease($lease, $region);
//!   check if at($cluster, $provider), node($cluster, $provider);
//!   check if hops($hops), $hops <= MAX_HOPS;
//!   check if operation($operation), {RIGHTS}.contains($operation);
//!   check if req($start, $end), START <= $start, $end <= END;
//! narrowing, in any later block, each at most once
//!   check if operation($operation), {RIGHTS}.contains($operation);
//!   check if req($start, $end), START <= $start, $end <= END;
//!   check if time($time), NOT_BEFORE <= $time, $time < EXPIRES;
//!   check if hops($hops), $hops <= N;
//!   check if opens($opens), $opens <= N;
//!   check if rate($rate), $rate <= N;
//!   check if budget($budget), $budget <= N;
//! delegation block (schema 5), signed by the holder: one fact, then narrowing
//!   delegate($key);
//! ```
//! The facts are for lookups; the checks are what makes a token fail closed at a verifier that forgets something,
//! because a check without a matching fact fails. Ids are byte strings: nothing to quote, no symbol for each. Times
//! are integers of microseconds. Variables are named after their predicate where that saves a symbol.

use std::collections::BTreeSet;

use biscuit_auth::builder::{
    Binary, BiscuitBuilder, BlockBuilder, Check, CheckKind, Expression, Fact, Op, Predicate, Rule, Term,
};

use super::terms::{Narrowing, Terms};
use crate::error::{Code, Error, Result};
use crate::id::PrincipalKey;
use crate::rights::Rights;

/// A defect of ours: a block that our own code builds is always well formed.
pub(super) fn built<T>(result: std::result::Result<T, biscuit_auth::error::Token>) -> Result<T> {
    result.map_err(|_| Error::new(Code::Internal, "the token library refused a block that we built"))
}

/// The authority block of `terms`.
pub(super) fn authority(terms: &Terms) -> Result<BiscuitBuilder> {
    let mut facts = vec![
        fact("lease", [bytes(&terms.lease.0), bytes(&terms.region.0)]),
        fact("node", [bytes(&terms.cluster.0), bytes(&terms.provider.0)]),
        fact("range", [integer(terms.range.start()), integer(terms.range.end())]),
    ];
    if let Some(grant) = terms.grant {
        facts.insert(1, fact("grant", [bytes(&grant.0)]));
    }
    facts.extend(terms.rights.iter().map(|operation| fact("right", [string(operation.name())])));
    facts.extend([
        fact("holder", [bytes(&terms.holder.0)]),
        fact("not_before", [integer(terms.not_before.0)]),
        fact("expires", [integer(terms.expires.0)]),
        fact("max_hops", [integer(u64::from(terms.max_hops))]),
    ]);
    let checks = [
        time(Some(terms.not_before.0), Some(terms.expires.0)),
        joined("pop", "effective_holder", &["pop"]),
        joined("resource", "lease", &["lease", "region"]),
        joined("at", "node", &["cluster", "provider"]),
        at_most("hops", u64::from(terms.max_hops)),
        rights(terms.rights),
        range(Some(terms.range.start()), Some(terms.range.end())),
    ];
    let builder = facts.into_iter().try_fold(BiscuitBuilder::new(), BiscuitBuilder::fact);
    built(builder.and_then(|builder| checks.into_iter().try_fold(builder, BiscuitBuilder::check)))
}

/// The checks of `narrowing`.
pub(super) fn narrowing(narrowing: &Narrowing) -> Result<BlockBuilder> {
    let mut checks = Vec::new();
    checks.extend(narrowing.rights.map(rights));
    if narrowing.start.is_some() || narrowing.end.is_some() {
        checks.push(range(narrowing.start, narrowing.end));
    }
    if narrowing.not_before.is_some() || narrowing.expires.is_some() {
        checks.push(time(narrowing.not_before, narrowing.expires));
    }
    checks.extend(narrowing.hops.map(|most| at_most("hops", most)));
    checks.extend(narrowing.opens.map(|most| at_most("opens", most)));
    checks.extend(narrowing.bytes_per_second.map(|most| at_most("rate", most)));
    checks.extend(narrowing.bytes_total.map(|most| at_most("budget", most)));
    built(checks.into_iter().try_fold(BlockBuilder::new(), BlockBuilder::check))
}

/// The block by which a holder names the next one.
pub(super) fn delegation(to: PrincipalKey, limits: &Narrowing) -> Result<BlockBuilder> {
    built(narrowing(limits)?.fact(fact("delegate", [bytes(&to.0)])))
}

/// A fact: a name and constants.
pub(super) fn fact<const N: usize>(name: &str, terms: [Term; N]) -> Fact {
    Fact::new(name.to_owned(), terms)
}

/// A byte string.
pub(super) fn bytes(bytes: &[u8]) -> Term {
    Term::Bytes(bytes.to_vec())
}

/// A string out of the vocabulary.
pub(super) fn string(text: &str) -> Term {
    Term::Str(text.to_owned())
}

/// A number. Every caller's number is at most `i64::MAX`, by [`Terms::check`], `ByteRange` or [`Narrowing`]; a larger
/// one would be capped there, which only ever makes a bound tighter than it was meant.
pub(super) fn integer(value: u64) -> Term {
    Term::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn variable(name: &str) -> Term {
    Term::Variable(name.to_owned())
}

fn predicate(name: &str, variables: &[&str]) -> Predicate {
    Predicate::new(name.to_owned(), variables.iter().map(|name| variable(name)).collect::<Vec<_>>())
}

fn compare(left: Term, right: Term, operator: Binary) -> Expression {
    Expression { ops: vec![Op::Value(left), Op::Value(right), Op::Binary(operator)] }
}

fn check(body: Vec<Predicate>, expressions: Vec<Expression>) -> Check {
    let head = Predicate::new("query".to_owned(), Vec::new());
    Check { queries: vec![Rule::new(head, body, expressions, Vec::new())], kind: CheckKind::One }
}

fn joined(request: &str, authority: &str, variables: &[&str]) -> Check {
    check(vec![predicate(request, variables), predicate(authority, variables)], Vec::new())
}

fn at_most(name: &str, most: u64) -> Check {
    let bound = compare(variable(name), integer(most), Binary::LessOrEqual);
    check(vec![predicate(name, &[name])], vec![bound])
}

fn rights(rights: Rights) -> Check {
    let set = rights.iter().map(|operation| string(operation.name())).collect::<BTreeSet<_>>();
    let allowed = compare(Term::Set(set), variable("operation"), Binary::Contains);
    check(vec![predicate("operation", &["operation"])], vec![allowed])
}

fn range(start: Option<u64>, end: Option<u64>) -> Check {
    let start = start.map(|start| compare(integer(start), variable("start"), Binary::LessOrEqual));
    let end = end.map(|end| compare(variable("end"), integer(end), Binary::LessOrEqual));
    check(vec![predicate("req", &["start", "end"])], start.into_iter().chain(end).collect())
}

fn time(not_before: Option<u64>, expires: Option<u64>) -> Check {
    let begin = not_before.map(|begin| compare(integer(begin), variable("time"), Binary::LessOrEqual));
    let end = expires.map(|end| compare(variable("time"), integer(end), Binary::LessThan));
    check(vec![predicate("time", &["time"])], begin.into_iter().chain(end).collect())
}
