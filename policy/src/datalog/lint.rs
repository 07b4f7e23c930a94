//! What parses and is almost certainly not meant.
//!
//! An error stops the start; a warning does not. What is an error would give somebody a right, or fail to take one
//! away, that its author did not see.

use std::collections::{BTreeMap, BTreeSet};

use biscuit_parser::builder::{Binary, Op, PolicyKind, Predicate, Rule, Term};
use caps::Code;
use caps::id::PrincipalKey;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::Name;

use super::program::{Program, flat, variable};
use super::vocabulary::{self, Argument};
use super::{Facts, Kind, Policy, builder, run};
use crate::diagnostic::{Collector, Diagnostic, Severity, quote};
use crate::limits::POLICY_LINT_PAIRS_MAX;

/// Facts that every request has, and those that every request of a registered principal has.
const ALWAYS: &[&str] = &["request", "uid"];
const REGISTERED: &[&str] = &["request", "uid", "principal"];

pub(super) fn lint(policy: &Policy, allow_all: bool) -> Vec<Diagnostic> {
    let mut lint = Lint { found: Collector::new(&policy.file, &policy.text), program: &policy.program };
    lint.predicates();
    lint.words();
    lint.unused();
    lint.shadowed();
    lint.strangers(policy, allow_all);
    lint.failing(policy);
    lint.last(&policy.text);
    lint.found.finish()
}

struct Lint<'a> {
    found: Collector<'a>,
    program: &'a Program,
}

impl Lint<'_> {
    fn error(&mut self, at: usize, message: impl Into<String>, help: impl Into<String>) {
        self.found.add(Severity::Error, Code::PolicyLint, at, message, help);
    }

    fn warn(&mut self, at: usize, message: impl Into<String>, help: impl Into<String>) {
        self.found.add(Severity::Warning, Code::PolicyLint, at, message, help);
    }

    /// Predicates that nothing states, and constants that never match.
    fn predicates(&mut self) {
        let own = self.program.own();
        for (at, rule) in self.program.bodies() {
            for predicate in &rule.body {
                if let Some(arguments) = vocabulary::arguments(&predicate.name) {
                    for (argument, term) in arguments.iter().zip(&predicate.terms) {
                        if let Err(what) = argument.admits(term) {
                            let message = format!("this argument of `{}` never matches", predicate.name);
                            self.error(at, message, what);
                        }
                    }
                } else if !own.contains_key(&*predicate.name) {
                    let mut known: Vec<_> = vocabulary::names().collect();
                    known.extend(own.keys());
                    let message = format!("nothing states `{}`", quote(&predicate.name));
                    self.error(at, message, format!("the predicates here are {}", known.join(", ")));
                }
            }
        }
    }

    /// Words that are compared with a kind or a right and are none: `$kind == "lease.creat"`.
    fn words(&mut self) {
        for (at, rule) in self.program.bodies() {
            let mut closed: BTreeMap<&str, Argument> = BTreeMap::new();
            for predicate in &rule.body {
                let arguments = vocabulary::arguments(&predicate.name).unwrap_or_default();
                for (argument, term) in arguments.iter().zip(&predicate.terms) {
                    if let (Argument::Kind | Argument::Right, Some(name)) = (argument, variable(term)) {
                        closed.insert(name, *argument);
                    }
                }
            }
            for expression in &rule.expressions {
                let ops = flat(expression);
                if ops.iter().any(|op| matches!(op, Op::Binary(Binary::Prefix | Binary::Suffix))) {
                    continue;
                }
                let values =
                    || ops.iter().filter_map(|op| if let Op::Value(term) = op { Some(term) } else { None });
                let names: BTreeSet<_> = values().filter_map(variable).collect();
                // With two variables it cannot be told which of them a word belongs to.
                let Some(argument) =
                    names.first().filter(|_| names.len() == 1).and_then(|name| closed.get(name))
                else {
                    continue;
                };
                let constants = values().flat_map(|term| match term {
                    Term::Set(members) => members.iter().collect(),
                    Term::Bool(_) | Term::Integer(_) => Vec::new(),
                    term => vec![term],
                });
                if let Some(what) = constants.filter_map(|term| argument.admits(term).err()).next() {
                    self.error(at, "a word here never matches", what);
                }
            }
        }
    }

    /// Facts and rules that no body uses.
    fn unused(&mut self) {
        let used: BTreeSet<&str> = self
            .program
            .bodies()
            .flat_map(|(_, rule)| rule.body.iter().map(|predicate| &*predicate.name))
            .collect();
        let facts = self.program.facts.iter().map(|item| (item.place.start, &item.node.predicate));
        let rules = self.program.rules.iter().map(|item| (item.place.start, &item.node.head));
        let mut named = BTreeSet::new();
        for (at, predicate) in facts.chain(rules) {
            if !used.contains(&*predicate.name) && named.insert(&predicate.name) {
                self.warn(at, format!("nothing uses `{}`", quote(&predicate.name)), "use it, or remove it");
            }
        }
    }

    /// Statements that an earlier one of the other kind always wins over.
    fn shadowed(&mut self) {
        let mut pairs = 0;
        let policies = &self.program.policies;
        for (index, later) in policies.iter().enumerate() {
            let at = later.place.start;
            for query in &later.node.queries {
                for earlier in policies[..index].iter().filter(|earlier| earlier.node.kind != later.node.kind)
                {
                    pairs += earlier.node.queries.len();
                    if pairs > POLICY_LINT_PAIRS_MAX {
                        self.warn(
                            at,
                            "from here on, statements were not compared",
                            "the policy is too large for that",
                        );
                        return;
                    }
                    let wins = |given| earlier.node.queries.iter().any(|first| covers(first, query, given));
                    let (always, registered) = (wins(ALWAYS), wins(REGISTERED) && narrows(query));
                    if !always && !registered {
                        continue;
                    }
                    let line = self.found.place(earlier.place.start).0;
                    let (kind, help) = match later.node.kind {
                        PolicyKind::Deny => ("deny", "move it above that line: the first match decides"),
                        PolicyKind::Allow => ("allow", "move it above that line, or remove it"),
                    };
                    if always && later.node.kind == PolicyKind::Deny {
                        self.error(at, format!("this {kind} never decides: line {line} matches first"), help);
                    } else {
                        let who = if always { "" } else { " for a registered principal" };
                        self.warn(
                            at,
                            format!("this {kind} never decides{who}: line {line} matches first"),
                            help,
                        );
                    }
                    break;
                }
            }
        }
    }

    /// A policy that lets strangers in. It is tried rather than read, so that it does not matter how it is written.
    fn strangers(&mut self, policy: &Policy, allow_all: bool) {
        if allow_all {
            return;
        }
        let mut named = BTreeSet::new();
        for kind in Kind::ALL {
            let answer = run(policy.builder.clone(), &probe(kind, None));
            if let Ok((true, Some(index))) = answer
                && named.insert(index)
            {
                let message = format!("this allows everybody, registered or not, to {}", kind.name());
                let help = "add `principal($key, $name)`, or state `allow_all = true` under [policy] in leasehold.toml";
                self.error(self.program.policies[index].place.start, message, help);
            }
        }
    }

    /// Statements that cannot be evaluated: a name compared with a number, a length of a number.
    fn failing(&mut self, policy: &Policy) {
        let limited = |kind| {
            run(policy.builder.clone(), &probe(kind, Some("alice")))
                .is_err_and(|e| e.code() == Code::TokenLimit)
        };
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| limited(*kind)) {
            let at = self.program.rules.first().map_or(0, |item| item.place.start);
            let message = format!("a request of {} reaches the bounds of a decision", kind.name());
            self.error(at, message, "derive fewer facts: every such request ends in an error");
            return;
        }
        let fails = |builder, kind| {
            run(builder, &probe(kind, Some("alice"))).is_err_and(|e| e.code() == Code::PolicyLint)
        };
        let broken: Vec<_> =
            Kind::ALL.into_iter().filter(|kind| fails(policy.builder.clone(), *kind)).collect();
        if broken.is_empty() {
            return;
        }
        let help = "compare numbers with numbers and texts with texts";
        let mut named = false;
        for (index, item) in self.program.policies.iter().enumerate() {
            let Ok(alone) = builder(self.program, |other| other == index) else { continue };
            let kind = broken.iter().find(|kind| fails(alone.clone(), **kind));
            if let Some(kind) = kind {
                named = true;
                let message = format!("this cannot be evaluated on a request of {}", kind.name());
                self.found.add(Severity::Error, Code::PolicyLint, item.place.start, message, help);
            }
        }
        if !named {
            let at = self.program.rules.first().map_or(0, |item| item.place.start);
            self.error(at, "a rule cannot be evaluated", help);
        }
    }

    /// A policy says what happens to the rest.
    fn last(&mut self, text: &str) {
        let end = text.trim_end().len();
        let last = self.program.policies.last();
        let closed = last.is_some_and(|item| {
            let all =
                |query: &Rule| query.body.is_empty() && query.expressions.iter().all(|e| is_true(&e.ops));
            item.node.queries.iter().any(all)
        });
        if last.is_none() {
            self.warn(end, "the policy allows nothing", "write `allow if` what may be");
        } else if !closed {
            let help = "end with `deny if true;`, so that a reader sees it";
            self.warn(end, "what no statement matches is denied, and the policy does not say so", help);
        }
    }
}

/// Facts of an ordinary request.
fn probe(kind: Kind, name: Option<&str>) -> Facts {
    const NOBODY: u32 = 65_534;
    let mut facts =
        Facts::new(kind, PrincipalKey([0x5a; 32]), name.and_then(|name| Name::new(name).ok()), Some(NOBODY));
    facts.rights = Rights::READ_WRITE;
    facts.bytes = Some(4096);
    facts.ttl = Some(Micros::from_millis(1_000));
    facts.class = Name::new("probe").ok();
    facts.receiver =
        name.is_some().then(|| Name::new("bob").ok()).flatten().map(|bob| (PrincipalKey([0xa5; 32]), bob));
    facts.cosigner = name
        .is_some()
        .then(|| Name::new("carol").ok())
        .flatten()
        .map(|carol| (PrincipalKey([0xc3; 32]), carol));
    facts
}

/// Whether a query says more than which kind of request it means. `deny if request("revoke");` after an `allow` for
/// the registered is the usual way to end a kind, and no mistake.
fn narrows(query: &Rule) -> bool {
    query.body.iter().any(|predicate| predicate.name != "request")
}

fn is_true(ops: &[Op]) -> bool {
    matches!(ops, [Op::Value(Term::Bool(true))])
}

type Names<'a> = BTreeMap<&'a str, &'a Term>;

/// Whether `first` matches whenever `second` does, as far as can be told from their text: there is a way to read the
/// variables of `first` so that each of its conditions stands in `second`, or is about a fact in `given` and asks
/// nothing of it. A "no" may be wrong; a "yes" is not.
fn covers(first: &Rule, second: &Rule, given: &[&str]) -> bool {
    place(first, second, given, 0, &Names::new())
}

fn place<'a>(first: &'a Rule, second: &'a Rule, given: &[&str], at: usize, names: &Names<'a>) -> bool {
    let Some(predicate) = first.body.get(at) else {
        let stands =
            |ops: &[Op]| is_true(ops) || second.expressions.iter().any(|other| same(ops, &other.ops, names));
        return first.expressions.iter().all(|expression| stands(&expression.ops));
    };
    if given.contains(&&*predicate.name)
        && asks_nothing(first, predicate)
        && place(first, second, given, at + 1, names)
    {
        return true;
    }
    let candidates = second.body.iter().filter(|other| other.name == predicate.name);
    candidates
        .filter_map(|other| unify(predicate, other, names))
        .any(|names| place(first, second, given, at + 1, &names))
}

/// Whether every argument is a variable that stands nowhere else in the rule.
fn asks_nothing(rule: &Rule, predicate: &Predicate) -> bool {
    let uses = |name: &str| {
        let terms = rule.body.iter().flat_map(|predicate| &predicate.terms);
        let ops = rule.expressions.iter().flat_map(flat);
        let values = ops.filter_map(|op| if let Op::Value(term) = op { Some(term) } else { None });
        terms.chain(values).filter(|term| variable(term) == Some(name)).count()
    };
    predicate.terms.iter().all(|term| variable(term).is_some_and(|name| uses(name) == 1))
}

fn unify<'a>(predicate: &'a Predicate, other: &'a Predicate, names: &Names<'a>) -> Option<Names<'a>> {
    let mut names = names.clone();
    let fits = predicate.terms.len() == other.terms.len()
        && predicate.terms.iter().zip(&other.terms).all(|(term, other)| match variable(term) {
            Some(name) => *names.entry(name).or_insert(other) == other,
            None => term == other,
        });
    fits.then_some(names)
}

/// Whether two expressions are the same once the variables of the first are read as `names` says.
fn same(first: &[Op], second: &[Op], names: &Names<'_>) -> bool {
    first.len() == second.len()
        && first.iter().zip(second).all(|pair| match pair {
            (Op::Value(term), Op::Value(other)) => {
                variable(term).and_then(|name| names.get(name).copied()).unwrap_or(term) == other
            }
            (Op::Closure(_, first), Op::Closure(_, second)) => same(first, second, names),
            (first, second) => first == second,
        })
}
