//! A policy's statements, parsed one by one and held to the language that this system speaks: a small part of
//! biscuit's Datalog, in which no decision can run long.
//!
//! | allowed | not allowed, and why |
//! |---|---|
//! | `allow if`, `deny if`, with `or` | `check`, `reject`: a second way to say `deny` |
//! | facts and rules of the policy's own, without recursion | the node's own predicates as a head: a policy could forge a request |
//! | integers, texts, `hex:` bytes, `true`, `false`, sets, variables | dates, null, lists, maps, parameters: no fact has any |
//! | comparisons, `&&`, `\|\|`, `!`, `contains`, `starts_with`, `ends_with`, `length` | arithmetic (overflows), `matches` (a regular expression can run long), closures, foreign functions |
//! | - | `trusting`: there are no blocks to trust |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use biscuit_parser::builder::{Binary, Expression, Fact, Op, Policy, Predicate, Rule, Term, Unary};
use biscuit_parser::parser::{self, parse_source};
use caps::Code;

use super::text::Scan;
use super::vocabulary;
use crate::diagnostic::{Collector, quote};
use crate::limits::*;

/// A part of a policy, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item<T> {
    pub(super) place: Range<usize>,
    pub(super) node: T,
}

/// A policy's statements by their kind, each in the order of the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Program {
    pub(super) facts: Vec<Item<Fact>>,
    pub(super) rules: Vec<Item<Rule>>,
    pub(super) policies: Vec<Item<Policy>>,
}

impl Program {
    /// Parses what was measured. What is wrong goes to `found`.
    pub(super) fn read(scan: &Scan, found: &mut Collector<'_>) -> Self {
        let mut program = Self::default();
        for place in &scan.statements {
            program.statement(&scan.clean[place.clone()], place.clone(), found);
        }
        if program.facts.len() > POLICY_FACTS_MAX {
            let at = program.facts[POLICY_FACTS_MAX].place.start;
            let help = format!("a policy states at most {POLICY_FACTS_MAX}");
            found.error(Code::PolicySyntax, at, "there are too many facts", help);
        }
        program.same_arity(found);
        program.bounded(found);
        program
    }

    #[expect(clippy::disallowed_methods, reason = "the nesting of the text was measured before it was split")]
    fn statement(&mut self, text: &str, place: Range<usize>, found: &mut Collector<'_>) {
        let Ok(parsed) = parse_source(text) else {
            let (offset, message) = why(text);
            let message = message.unwrap_or("this cannot be read".into());
            let help =
                "write `allow if ...;`, `deny if ...;`, a fact `f(\"a\");` or a rule `f($x) <- g($x);`";
            found.error(Code::PolicySyntax, place.start + offset, quote(&message), help);
            return;
        };
        if !parsed.checks.is_empty() {
            found.error(
                Code::PolicySyntax,
                place.start,
                "a policy has no checks",
                "write `deny if` what must not be",
            );
            return;
        }
        let mut refuse = |message: &str, help: &str| {
            found.error(Code::PolicySyntax, place.start, message, help);
        };
        for (_, node) in parsed.facts {
            if head(&node.predicate, &mut refuse) && terms(&node.predicate.terms, &mut refuse) {
                self.facts.push(Item { place: place.clone(), node });
            }
        }
        for (_, node) in parsed.rules {
            if head(&node.head, &mut refuse)
                && terms(&node.head.terms, &mut refuse)
                && body(&node, &mut refuse)
            {
                self.rules.push(Item { place: place.clone(), node });
            }
        }
        for (_, node) in parsed.policies {
            if node.queries.len() > POLICY_QUERIES_MAX {
                refuse(
                    "there are too many alternatives",
                    &format!("write at most {POLICY_QUERIES_MAX} in a statement"),
                );
            } else if node.queries.iter().all(|query| body(query, &mut refuse)) {
                self.policies.push(Item { place: place.clone(), node });
            }
        }
    }

    /// Everything that has a body, with its place.
    pub(super) fn bodies(&self) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = self.rules.iter().map(|item| (item.place.start, &item.node));
        let queries = |item: &'_ Item<Policy>| item.place.start;
        rules.chain(
            self.policies
                .iter()
                .flat_map(move |item| item.node.queries.iter().map(move |q| (queries(item), q))),
        )
    }

    /// The policy's own predicates: name and number of arguments.
    pub(super) fn own(&self) -> BTreeMap<&str, usize> {
        let facts = self.facts.iter().map(|item| &item.node.predicate);
        let heads = self.rules.iter().map(|item| &item.node.head);
        facts.chain(heads).map(|predicate| (&*predicate.name, predicate.terms.len())).collect()
    }

    /// A predicate with two numbers of arguments is two predicates, and surely not meant.
    fn same_arity(&self, found: &mut Collector<'_>) {
        let own = self.own();
        let facts = self.facts.iter().map(|item| (item.place.start, &item.node.predicate));
        let heads = self.rules.iter().map(|item| (item.place.start, &item.node.head));
        let uses =
            self.bodies().flat_map(|(at, rule)| rule.body.iter().map(move |predicate| (at, predicate)));
        for (at, predicate) in facts.chain(heads).chain(uses) {
            let arity =
                vocabulary::arguments(&predicate.name).map(<[_]>::len).or(own.get(&*predicate.name).copied());
            if let Some(arity) = arity.filter(|arity| *arity != predicate.terms.len()) {
                let message =
                    format!("`{}` has {} arguments here", quote(&predicate.name), predicate.terms.len());
                found.error(Code::PolicySyntax, at, message, format!("elsewhere it has {arity}"));
            }
        }
    }

    /// Refuses recursion, and bounds the combinations of facts that one decision may have to try: for each rule and
    /// query the product of how many facts each predicate of its body can have at most.
    fn bounded(&self, found: &mut Collector<'_>) {
        let mut known: BTreeMap<&str, Known> = BTreeMap::new();
        let (mut total, mut largest) = (0_u64, (0, 0));
        let mut count = |combinations: u64, at: usize| {
            total = total.saturating_add(combinations);
            largest = largest.max((combinations, at));
        };
        for item in &self.facts {
            known.entry(&item.node.predicate.name).or_default().facts += 1;
        }
        // Rules in an order in which each comes after those that it builds on. What remains goes in a circle.
        let mut waiting: Vec<_> = self.rules.iter().collect();
        while !waiting.is_empty() {
            let heads: BTreeSet<&str> = waiting.iter().map(|item| &*item.node.head.name).collect();
            let (ready, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|item| item.node.body.iter().all(|predicate| !heads.contains(&*predicate.name)));
            if ready.is_empty() {
                for item in rest {
                    let help = "a rule may build on other rules, in one direction only";
                    found.error(Code::PolicySyntax, item.place.start, "the rule leads back to itself", help);
                }
                return;
            }
            for item in ready {
                let product = product(&item.node, &known);
                let depth =
                    item.node.body.iter().map(|predicate| depth(&known, &predicate.name)).max().unwrap_or(0)
                        + 1;
                if depth > POLICY_RULE_DEPTH_MAX {
                    let help = format!("at most {POLICY_RULE_DEPTH_MAX} rules may build on one another");
                    found.error(Code::PolicySyntax, item.place.start, "the chain of rules is too long", help);
                    return;
                }
                // A rule is tried again in each round.
                count(product.saturating_mul(POLICY_DECISION_ROUNDS_MAX), item.place.start);
                let head = known.entry(&item.node.head.name).or_default();
                head.facts = head.facts.saturating_add(product);
                head.depth = head.depth.max(depth);
            }
            waiting = rest;
        }
        for item in &self.policies {
            for query in &item.node.queries {
                count(product(query, &known), item.place.start);
            }
        }
        if total > POLICY_COMBINATIONS_MAX {
            let message =
                format!("a decision may have to try {total} combinations of facts, most of them here");
            let help = format!(
                "at most {POLICY_COMBINATIONS_MAX}: use fewer facts, or fewer predicates in a statement"
            );
            found.error(Code::PolicySyntax, largest.1, message, help);
        }
    }
}

/// Where and why a statement does not parse. The whole-file parser tries every kind of statement and tells of the last
/// one; this asks the parser of the kind that was surely meant.
fn why(text: &str) -> (usize, Option<String>) {
    let starts = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut place = None;
    let mut note = |error: parser::Error<'_>| {
        // The parser's errors are slices of what it was given.
        let offset = (error.input.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        place = Some((offset.min(text.len()), error.message));
    };
    if starts("allow") || starts("deny") {
        let _ = parser::policy(text).map_err(|error| error.map(&mut note));
    } else if text.contains("<-") {
        let _ = parser::rule(text).map_err(|error| error.map(&mut note));
    } else {
        let _ = parser::fact(text).map_err(|error| error.map(&mut note));
    }
    place.unwrap_or((0, None))
}

/// What is known about a predicate: how many facts of it there can be, and on how many rules they build.
#[derive(Default)]
struct Known {
    facts: u64,
    depth: usize,
}

fn product(rule: &Rule, known: &BTreeMap<&str, Known>) -> u64 {
    let facts = |predicate: &Predicate| {
        vocabulary::facts_max(&predicate.name)
            .or(known.get(&*predicate.name).map(|known| known.facts))
            .unwrap_or(0)
            .max(1)
    };
    rule.body.iter().map(facts).fold(1, u64::saturating_mul)
}

fn depth(known: &BTreeMap<&str, Known>, name: &str) -> usize {
    known.get(name).map_or(0, |known| known.depth)
}

/// Whether this may be the head of a fact or rule.
fn head(predicate: &Predicate, refuse: &mut impl FnMut(&str, &str)) -> bool {
    let own = vocabulary::arguments(&predicate.name).is_none();
    if !own {
        let message = format!("`{}` is stated by the node alone", quote(&predicate.name));
        refuse(&message, "choose another name for a fact or rule of your own");
    }
    let arity = (1..=POLICY_ARITY_MAX).contains(&predicate.terms.len());
    if !arity {
        refuse("a fact has no arguments, or too many", &format!("write 1 to {POLICY_ARITY_MAX}"));
    }
    own && arity
}

/// Whether a body stays within the language.
fn body(rule: &Rule, refuse: &mut impl FnMut(&str, &str)) -> bool {
    if !rule.scopes.is_empty() {
        refuse("`trusting` has no meaning here", "remove it: a policy sees the node's facts and its own");
        return false;
    }
    if rule.body.len() > POLICY_BODY_MAX {
        refuse("there are too many predicates", &format!("write at most {POLICY_BODY_MAX} in a body"));
        return false;
    }
    let bound: BTreeSet<&str> =
        rule.body.iter().flat_map(|predicate| predicate.terms.iter().filter_map(variable)).collect();
    rule.body.iter().all(|predicate| {
        let few = predicate.terms.len() <= POLICY_ARITY_MAX;
        if !few {
            refuse("a predicate has too many arguments", &format!("write at most {POLICY_ARITY_MAX}"));
        }
        few && terms(&predicate.terms, refuse)
    }) && rule.expressions.iter().all(|expression| operators(&expression.ops, &bound, refuse))
}

/// The name of a variable.
pub(super) fn variable(term: &Term) -> Option<&str> {
    match term {
        Term::Variable(name) => Some(name),
        _ => None,
    }
}

fn terms(terms: &[Term], refuse: &mut impl FnMut(&str, &str)) -> bool {
    terms.iter().all(|each| term(each, refuse))
}

fn term(each: &Term, refuse: &mut impl FnMut(&str, &str)) -> bool {
    match each {
        Term::Variable(_) | Term::Integer(_) | Term::Str(_) | Term::Bytes(_) | Term::Bool(_) => true,
        // Sets hold no sets: the parser refuses them, so this goes one level down.
        Term::Set(members) => members.iter().all(|member| term(member, refuse)),
        Term::Date(_) | Term::Parameter(_) | Term::Null | Term::Array(_) | Term::Map(_) => {
            refuse(
                "a date, null, list, map or parameter, which no fact has",
                "use a number, \"text\", hex:bytes, true, false or a set {1, 2}",
            );
            false
        }
    }
}

fn operators(ops: &[Op], bound: &BTreeSet<&str>, refuse: &mut impl FnMut(&str, &str)) -> bool {
    ops.iter().all(|op| match op {
        Op::Value(value) => {
            let free = variable(value).filter(|name| !bound.contains(name));
            if let Some(name) = free {
                let message = format!("the variable ${} stands in no predicate of this body", quote(name));
                refuse(&message, "add the predicate that gives it a value");
            }
            free.is_none() && term(value, refuse)
        }
        Op::Unary(unary) => {
            let known = matches!(unary, Unary::Negate | Unary::Parens | Unary::Length);
            known || unknown_operator(refuse)
        }
        Op::Binary(binary) => {
            let known = matches!(
                binary,
                Binary::LessThan
                    | Binary::GreaterThan
                    | Binary::LessOrEqual
                    | Binary::GreaterOrEqual
                    | Binary::Equal
                    | Binary::NotEqual
                    | Binary::HeterogeneousEqual
                    | Binary::HeterogeneousNotEqual
                    | Binary::Contains
                    | Binary::Prefix
                    | Binary::Suffix
                    | Binary::LazyAnd
                    | Binary::LazyOr
            );
            known || unknown_operator(refuse)
        }
        // The right side of `&&` and `||`. A closure with parameters loops.
        Op::Closure(parameters, inner) => {
            if parameters.is_empty() {
                operators(inner, bound, refuse)
            } else {
                unknown_operator(refuse)
            }
        }
    })
}

fn unknown_operator(refuse: &mut impl FnMut(&str, &str)) -> bool {
    refuse(
        "an operator that policies do not have",
        "compare with < <= > >= == !=, join with && || !, or use contains, starts_with, ends_with, length",
    );
    false
}

/// Every value and operator of an expression, those behind `&&` and `||` included.
pub(super) fn flat(expression: &Expression) -> Vec<&Op> {
    let mut flat = Vec::new();
    let mut waiting: Vec<&Op> = expression.ops.iter().rev().collect();
    while let Some(op) = waiting.pop() {
        if let Op::Closure(_, inner) = op {
            waiting.extend(inner.iter().rev());
        } else {
            flat.push(op);
        }
    }
    flat
}
