//! The vocabulary of leases, in the direction of reading: a block's tree becomes terms and narrowings, or is refused.
//!
//! What passes here is a conjunction of bounds on single request facts, nothing else. So the native decision can
//! equal the Datalog one, and the Datalog one costs a bounded number of steps. The names of variables are free: a
//! block made by another biscuit tool passes if it says the same.

use super::block::{Block, CONTAINS, Check, LESS, LESS_OR_EQUAL, Op, Predicate, Term, VERSION_MAX, outside};
use super::reader::malformed;
use super::symbols::Symbols;
use super::terms::{Narrowing, Terms};
use super::weak;
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, GrantId, LeaseId, PrincipalKey, ProviderId, RegionId};
use crate::limits::TOKEN_HOPS_MAX;
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

/// Reads the authority block: its terms, and what further checks narrow.
pub(super) fn authority<'a>(block: &Block<'a>, symbols: &mut Symbols<'a>) -> Result<(Terms, Narrowing)> {
    symbols.extend(&block.symbols)?;
    let terms = terms(&mut Facts { rest: &block.facts, symbols })?;
    let further = mandatory_checks(&block.checks, symbols, &terms)?;
    let narrowing = narrowings(further, symbols)?;
    symbols.all_used()?;
    Ok((terms, narrowing))
}

/// Reads a block without an external signature: checks alone.
pub(super) fn attenuation<'a>(block: &Block<'a>, symbols: &mut Symbols<'a>) -> Result<Narrowing> {
    symbols.extend(&block.symbols)?;
    if !block.facts.is_empty() {
        return Err(outside("a block without a holder's signature states a fact"));
    }
    if block.checks.is_empty() {
        return Err(outside("a block that says nothing"));
    }
    let narrowing = narrowings(&block.checks, symbols)?;
    symbols.all_used()?;
    Ok(narrowing)
}

/// Reads a block with an external signature: whom it names as the next holder, and how it narrows.
pub(super) fn delegation(block: &Block<'_>) -> Result<(PrincipalKey, Narrowing)> {
    if block.version != VERSION_MAX {
        return Err(Error::new(Code::TokenVersion, "a delegation block has schema version 5"));
    }
    // Such a block has a symbol table of its own, because its author need not know the token's.
    let symbols = &mut Symbols::default();
    symbols.extend(&block.symbols)?;
    let mut facts = Facts { rest: &block.facts, symbols };
    let to = facts.key("delegate")?;
    facts.end()?;
    let narrowing = narrowings(&block.checks, symbols)?;
    symbols.all_used()?;
    Ok((to, narrowing))
}

/// The facts of a block in their fixed order.
struct Facts<'f, 'a> {
    rest: &'f [Predicate<'a>],
    symbols: &'f mut Symbols<'a>,
}

impl<'f, 'a> Facts<'f, 'a> {
    /// The next fact, if it is a `name` with `N` terms.
    fn optional<const N: usize>(&mut self, name: &str) -> Result<Option<&'f [Term<'a>; N]>> {
        let Some((fact, rest)) = self.rest.split_first() else { return Ok(None) };
        if self.symbols.name(fact.name)? != name {
            return Ok(None);
        }
        self.rest = rest;
        let terms = fact.terms.as_slice().try_into();
        terms.map(Some).map_err(|_| outside("a fact has the wrong number of terms"))
    }

    fn next<const N: usize>(&mut self, name: &str) -> Result<&'f [Term<'a>; N]> {
        self.optional(name)?.ok_or(outside("a fact is missing or out of its place"))
    }

    fn number(&mut self, name: &str) -> Result<u64> {
        let [term] = self.next(name)?;
        number(term)
    }

    fn key(&mut self, name: &str) -> Result<PrincipalKey> {
        let [term] = self.next(name)?;
        let key = bytes(term)?;
        weak::refuse(&key)?;
        Ok(PrincipalKey(key))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(outside("a fact that the vocabulary does not have")) }
    }
}

fn terms(facts: &mut Facts<'_, '_>) -> Result<Terms> {
    let [lease, region] = facts.next("lease")?;
    let grant = facts.optional("grant")?.map(|[grant]| bytes(grant)).transpose()?;
    let [cluster, provider] = facts.next("node")?;
    let [start, end] = facts.next("range")?;
    let range = ByteRange::new(number(start)?, number(end)?).map_err(|_| outside("an empty range"))?;
    let mut rights = Rights::NONE;
    while let Some([right]) = facts.optional("right")? {
        let Term::String(right) = right else { return Err(outside("a right that is no string")) };
        let right = Rights::of(operation(facts.symbols.name(*right)?)?);
        if rights.bits() >= right.bits() {
            return Err(outside("rights are in the order read, write, share, each at most once"));
        }
        rights = rights.union(right);
    }
    if rights.is_empty() {
        return Err(outside("a token without a right"));
    }
    let terms = Terms {
        lease: LeaseId(bytes(lease)?),
        region: RegionId(bytes(region)?),
        grant: grant.map(GrantId),
        range,
        rights,
        cluster: ClusterEpoch(bytes(cluster)?),
        provider: ProviderId(bytes(provider)?),
        holder: facts.key("holder")?,
        not_before: UnixMicros(facts.number("not_before")?),
        expires: UnixMicros(facts.number("expires")?),
        max_hops: u8::try_from(facts.number("max_hops")?)
            .ok()
            .filter(|hops| *hops <= TOKEN_HOPS_MAX)
            .ok_or(outside("more delegations than a token has room for"))?,
    };
    if terms.not_before >= terms.expires {
        return Err(outside("a token that is valid at no time"));
    }
    facts.end()?;
    Ok(terms)
}

/// Demands the checks that every authority block must have, in their order and with the values of its facts;
/// returns the checks after them.
fn mandatory_checks<'c, 'a>(
    checks: &'c [Check<'a>],
    symbols: &mut Symbols<'a>,
    terms: &Terms,
) -> Result<&'c [Check<'a>]> {
    let Some(([time, pop, resource, at, hops, rights, range], further)) = checks.split_first_chunk() else {
        return Err(outside("the authority block lacks a check"));
    };
    let wanted = [
        (time, Narrowing { not_before: Some(terms.not_before.0), expires: Some(terms.expires.0), ..NOTHING }),
        (hops, Narrowing { hops: Some(u64::from(terms.max_hops)), ..NOTHING }),
        (rights, Narrowing { rights: Some(terms.rights), ..NOTHING }),
        (range, Narrowing { start: Some(terms.range.start()), end: Some(terms.range.end()), ..NOTHING }),
    ];
    for (check, wanted) in wanted {
        if restriction(check, symbols)? != wanted {
            return Err(outside("a check of the authority block does not say what its facts say"));
        }
    }
    joined(pop, symbols, "pop", "effective_holder", 1)?;
    joined(resource, symbols, "resource", "lease", 2)?;
    joined(at, symbols, "at", "node", 2)?;
    Ok(further)
}

const NOTHING: Narrowing = Narrowing {
    rights: None,
    start: None,
    end: None,
    not_before: None,
    expires: None,
    hops: None,
    opens: None,
    bytes_per_second: None,
    bytes_total: None,
};

/// `check if request($a, ..), authority($a, ..)` with distinct variables in the same order.
fn joined(
    check: &Check<'_>,
    symbols: &mut Symbols<'_>,
    request: &str,
    authority: &str,
    arity: usize,
) -> Result<()> {
    query_head(check, symbols)?;
    let refused = outside("a check of the authority block that the vocabulary does not have");
    let [first, second] = check.body.as_slice() else { return Err(refused) };
    let names_fit = symbols.name(first.name)? == request && symbols.name(second.name)? == authority;
    let variables = variables(first, symbols)?;
    let distinct = variables.len() < 2 || variables[0] != variables[1];
    if names_fit
        && first.terms == second.terms
        && variables.len() == arity
        && distinct
        && check.expressions.is_empty()
    {
        Ok(())
    } else {
        Err(refused)
    }
}

/// Every check is one of the narrowing templates; several on one dimension all hold.
fn narrowings(checks: &[Check<'_>], symbols: &mut Symbols<'_>) -> Result<Narrowing> {
    checks.iter().try_fold(NOTHING, |sum, check| Ok(sum.and(restriction(check, symbols)?)))
}

/// What one narrowing check says.
fn restriction(check: &Check<'_>, symbols: &mut Symbols<'_>) -> Result<Narrowing> {
    query_head(check, symbols)?;
    let [body] = check.body.as_slice() else {
        return Err(outside("a narrowing check is over exactly one predicate"));
    };
    let name = symbols.name(body.name)?;
    let variables = variables(body, symbols)?;
    let bounds = check.expressions.as_slice();
    match (name, variables.as_slice()) {
        ("time", &[time]) => {
            let not_before = |op: &[Op<'_>]| from(op, time);
            let (not_before, expires) = window(bounds, not_before, |op| upto(op, time, LESS))?;
            Ok(Narrowing { not_before, expires, ..NOTHING })
        }
        ("req", &[first, last]) if first != last => {
            let (start, end) = window(bounds, |op| from(op, first), |op| upto(op, last, LESS_OR_EQUAL))?;
            Ok(Narrowing { start, end, ..NOTHING })
        }
        ("operation", &[variable]) => {
            Ok(Narrowing { rights: Some(rights(bounds, variable, symbols)?), ..NOTHING })
        }
        ("hops", &[variable]) => Ok(Narrowing { hops: Some(most(bounds, variable)?), ..NOTHING }),
        ("opens", &[variable]) => Ok(Narrowing { opens: Some(most(bounds, variable)?), ..NOTHING }),
        ("rate", &[variable]) => Ok(Narrowing { bytes_per_second: Some(most(bounds, variable)?), ..NOTHING }),
        ("budget", &[variable]) => Ok(Narrowing { bytes_total: Some(most(bounds, variable)?), ..NOTHING }),
        _ => Err(outside("a check that the vocabulary does not have")),
    }
}

/// Every check's head is `query()`, as all biscuit tools write it. A variable there would make the library print.
fn query_head(check: &Check<'_>, symbols: &mut Symbols<'_>) -> Result<()> {
    if check.head.terms.is_empty() && symbols.name(check.head.name)? == "query" {
        Ok(())
    } else {
        Err(outside("a check with a head of its own"))
    }
}

/// The terms of a predicate, all of which must be variables.
fn variables(predicate: &Predicate<'_>, symbols: &mut Symbols<'_>) -> Result<Vec<u32>> {
    let variable = |term: &Term<'_>| match term {
        Term::Variable(variable) => {
            symbols.name(u64::from(*variable))?; // a variable's name is a symbol
            Ok(*variable)
        }
        Term::Integer(_) | Term::String(_) | Term::Bytes(_) | Term::Set(_) => {
            Err(outside("a check matches a constant, not a variable"))
        }
    };
    predicate.terms.iter().map(variable).collect()
}

/// One or two expressions: a lower bound, an upper bound, or both in this order.
fn window(
    bounds: &[Vec<Op<'_>>],
    low: impl Fn(&[Op<'_>]) -> Option<u64>,
    high: impl Fn(&[Op<'_>]) -> Option<u64>,
) -> Result<(Option<u64>, Option<u64>)> {
    let window = match bounds {
        [one] => (low(one), high(one)),
        [first, second] => (low(first), high(second)),
        _ => (None, None),
    };
    match (bounds.len(), window) {
        (1, (Some(_), None) | (None, Some(_))) | (2, (Some(_), Some(_))) => Ok(window),
        _ => Err(outside("a bound that the vocabulary does not have")),
    }
}

/// `N <= $variable`.
fn from(expression: &[Op<'_>], variable: u32) -> Option<u64> {
    match expression {
        [Op::Value(value), Op::Value(Term::Variable(named)), Op::Binary(LESS_OR_EQUAL)]
            if *named == variable =>
        {
            number(value).ok()
        }
        _ => None,
    }
}

/// `$variable < N` or `$variable <= N`.
fn upto(expression: &[Op<'_>], variable: u32, operator: u64) -> Option<u64> {
    match expression {
        [Op::Value(Term::Variable(named)), Op::Value(value), Op::Binary(found)]
            if *named == variable && *found == operator =>
        {
            number(value).ok()
        }
        _ => None,
    }
}

fn most(bounds: &[Vec<Op<'_>>], variable: u32) -> Result<u64> {
    let [bound] = bounds else { return Err(outside("a bound that the vocabulary does not have")) };
    upto(bound, variable, LESS_OR_EQUAL).ok_or(outside("a bound that the vocabulary does not have"))
}

/// `{"read", ..}.contains($variable)` with the set in the order of its symbols.
fn rights(bounds: &[Vec<Op<'_>>], variable: u32, symbols: &mut Symbols<'_>) -> Result<Rights> {
    let refused = outside("a set of operations that the vocabulary does not have");
    let [bound] = bounds else { return Err(refused) };
    let [Op::Value(Term::Set(set)), Op::Value(Term::Variable(named)), Op::Binary(CONTAINS)] =
        bound.as_slice()
    else {
        return Err(refused);
    };
    if *named != variable || set.is_empty() || !set.is_sorted_by(|a, b| a < b) {
        return Err(refused);
    }
    set.iter().try_fold(Rights::NONE, |rights, member| {
        Ok(rights.union(Rights::of(operation(symbols.name(*member)?)?)))
    })
}

fn operation(name: &str) -> Result<Operation> {
    let found = Operation::ALL.into_iter().find(|operation| operation.name() == name);
    found.ok_or(outside("an operation other than read, write and share"))
}

fn number(term: &Term<'_>) -> Result<u64> {
    match term {
        Term::Integer(integer) => u64::try_from(*integer).map_err(|_| outside("a negative number")),
        Term::Variable(_) | Term::String(_) | Term::Bytes(_) | Term::Set(_) => {
            Err(outside("a number was expected"))
        }
    }
}

fn bytes<const N: usize>(term: &Term<'_>) -> Result<[u8; N]> {
    match term {
        Term::Bytes(bytes) => (*bytes).try_into().map_err(|_| malformed("an id or key of the wrong length")),
        Term::Variable(_) | Term::Integer(_) | Term::String(_) | Term::Set(_) => {
            Err(outside("a byte string was expected"))
        }
    }
}
