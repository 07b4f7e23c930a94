//! Random chains of blocks against a naive model, and the native decision against the Datalog one.
//!
//! The model keeps every bound of every block and asks each of them; it folds nothing together. A few thousand
//! decisions run by default; `LEASEHOLD_TOKEN_CASES=100000` runs that many chains.

#![expect(
    clippy::disallowed_methods,
    reason = "hostile tokens are made by the library's own means, out of text of ours"
)]

mod support;

use std::cell::Cell;

use caps::error::Code;
use caps::id::{ClusterEpoch, PrincipalKey};
use caps::rights::{Operation, Rights};
use caps::time::UnixMicros;
use caps::token::{
    Effective, Limit, Narrow, Narrowing, Question, Request, Token, Usage, attenuate, delegate, forge, gate,
    inspect, seal,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::*;

const PAGE: u64 = 4_096;
const PEOPLE: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// By our own API, which refuses what is wider.
    Narrow(Narrow),
    /// By another tool, which does not.
    Anything(Narrowing),
    /// To this person, by our own API, or by another tool if that refuses.
    Delegate(u8, Narrowing),
    /// No block after this one.
    Seal,
}

/// The naive model: every bound there is.
#[derive(Clone)]
struct Model {
    bounds: Vec<Narrowing>,
    holders: Vec<u8>,
}

impl Model {
    fn allows(&self, request: &Request, prover: u8) -> bool {
        let hops = self.holders.len() as u64 - 1;
        let usage = |most: Option<u64>, count: fn(&Usage) -> u64| match (most, &request.usage) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(most), Some(usage)) => count(usage) <= most,
        };
        let within = |bound: &Narrowing| {
            bound.rights.is_none_or(|rights| rights.iter().any(|right| right == request.operation))
                && bound.start.is_none_or(|start| start <= request.range.start())
                && bound.end.is_none_or(|end| request.range.end() <= end)
                && bound.not_before.is_none_or(|begin| begin <= request.now.0)
                && bound.expires.is_none_or(|end| request.now.0 < end)
                && bound.hops.is_none_or(|most| hops <= most)
                && usage(bound.opens, |usage| usage.opens)
                && usage(bound.bytes_per_second, |usage| usage.bytes_per_second)
                && usage(bound.bytes_total, |usage| usage.bytes_total)
        };
        prover == *self.holders.last().unwrap()
            && request.cluster == terms().cluster
            && self.bounds.iter().all(within)
    }
}

fn start() -> Model {
    let terms = terms();
    let authority = Narrowing {
        rights: Some(terms.rights),
        start: Some(terms.range.start()),
        end: Some(terms.range.end()),
        not_before: Some(terms.not_before.0),
        expires: Some(terms.expires.0),
        hops: Some(u64::from(terms.max_hops)),
        ..Narrowing::default()
    };
    Model { bounds: vec![authority], holders: vec![0] }
}

fn maybe<T: std::fmt::Debug + Clone>(strategy: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.2, strategy)
}

fn rights() -> impl Strategy<Value = Rights> {
    (1..=7u8).prop_map(|bits| Rights::try_from(bits).unwrap())
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..8u64, Just(END - BEGIN), Just(END - BEGIN - 1), Just(END)]
        .prop_map(|time| BEGIN + time - 2)
}

fn narrowing() -> impl Strategy<Value = Narrowing> {
    let page = || prop_oneof![(0..20u64).prop_map(|page| page * PAGE), Just(i64::MAX as u64)];
    let limits = (maybe(0..5u64), maybe(0..4u64), maybe(0..4u64), maybe(0..4u64));
    (maybe(rights()), maybe(page()), maybe(page()), maybe(time()), maybe(time()), limits).prop_map(
        |(rights, start, end, not_before, expires, (hops, opens, bytes_per_second, bytes_total))| Narrowing {
            rights,
            start,
            end,
            not_before,
            expires,
            hops,
            opens,
            bytes_per_second,
            bytes_total,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let limits = (maybe(0..3u8), maybe(0..4u64), maybe(0..4u64), maybe(0..4u64));
    let narrow = (maybe(rights()), maybe((0..20u64, 1..16u64)), maybe(time()), maybe(time()), limits)
        .prop_map(
            |(rights, pages, not_before, expires, (max_hops, opens, bytes_per_second, bytes_total))| {
                Step::Narrow(Narrow {
                    rights,
                    range: pages.map(|(start, count)| range(start * PAGE, (start + count) * PAGE)),
                    expires: expires.map(UnixMicros),
                    not_before: not_before.map(UnixMicros),
                    max_hops,
                    opens,
                    bytes_per_second,
                    bytes_total,
                })
            },
        );
    prop_oneof![
        3 => narrow,
        3 => narrowing().prop_map(Step::Anything),
        3 => (0..PEOPLE, narrowing()).prop_map(|(to, by)| Step::Delegate(to, by)),
        1 => Just(Step::Seal),
    ]
}

/// A request, and who asks; `None` is the holder, whoever that is by then.
fn question() -> impl Strategy<Value = (Request, Option<u8>)> {
    let usage = proptest::option::weighted(
        0.8,
        prop_oneof![
            3 => (0..4u64, 0..4u64, prop_oneof![0..4u64, Just(u64::MAX)]).prop_map(
                |(opens, bytes_per_second, bytes_total)| Usage { opens, bytes_per_second, bytes_total },
            ),
            1 => Just(Usage::judged_by_meters()),
        ],
    );
    let operation =
        prop_oneof![3 => Just(Operation::Read), 1 => Just(Operation::Write), 1 => Just(Operation::Share)];
    let bytes =
        (prop_oneof![0..20 * PAGE, 4 * PAGE..8 * PAGE], prop_oneof![Just(1), Just(PAGE), 1..8 * PAGE]);
    let now = prop_oneof![9 => time(), 1 => Just(u64::MAX)];
    (operation, bytes, now, proptest::option::weighted(0.2, 0..PEOPLE), usage, proptest::bool::weighted(0.05))
        .prop_map(|(operation, (start, length), now, prover, usage, elsewhere)| {
            let cluster = if elsewhere { ClusterEpoch([9; 16]) } else { terms().cluster };
            let range = range(start, start + length);
            let request = Request { operation, range, now: UnixMicros(now), usage, cluster, ..request() };
            (request, prover)
        })
}

/// Takes one step on the token and on the model; `None` if the token cannot take it.
fn take(token: &Token, model: &Model, step: &Step) -> Option<(Token, Model)> {
    let mut next = model.clone();
    let hops = model.holders.len() as u64 - 1;
    let child = match step {
        Step::Seal => seal(token).unwrap(),
        Step::Narrow(narrow) => {
            next.bounds.push(Narrowing {
                rights: narrow.rights,
                start: narrow.range.map(|range| range.start()),
                end: narrow.range.map(|range| range.end()),
                not_before: narrow.not_before.map(|time| time.0),
                expires: narrow.expires.map(|time| time.0),
                hops: narrow.max_hops.map(|more| hops + u64::from(more)),
                opens: narrow.opens,
                bytes_per_second: narrow.bytes_per_second,
                bytes_total: narrow.bytes_total,
            });
            match attenuate(token, narrow) {
                Ok(child) => child,
                // Refused because empty, wider, sealed or full: the token stays what it was.
                Err(error) => {
                    assert!(
                        matches!(error.code(), Code::Range | Code::Denied | Code::TokenTooBig),
                        "{error}"
                    );
                    return None;
                }
            }
        }
        Step::Anything(by) => {
            next.bounds.push(*by);
            forge::narrow_anyhow(token, by).ok()?
        }
        Step::Delegate(to, by) => {
            next.bounds.push(*by);
            next.holders.push(*to);
            let from = *model.holders.last().unwrap();
            let plain = (*by == Narrowing::default())
                .then(|| delegate(token, &person(from), public(*to), &Narrow::default()).ok())
                .flatten();
            match plain {
                Some(child) => child,
                None => forced_delegation(token, from, public(*to), by)?,
            }
        }
    };
    gate(child.as_bytes()).is_ok().then_some((child, next))
}

/// A delegation that our API might refuse: beyond the hops, or wider.
fn forced_delegation(token: &Token, from: u8, to: PrincipalKey, by: &Narrowing) -> Option<Token> {
    let narrowed = forge::narrow_anyhow(token, by).ok()?;
    let datalog = biscuit_auth::UnverifiedBiscuit::from(narrowed.as_bytes()).unwrap();
    let last = datalog.block_count() - 1;
    let datalog = format!("delegate(hex:{to}); {}", datalog.print_block_source(last).unwrap());
    Token::from_bytes(append_signed_datalog(token.as_bytes(), from, &datalog)).ok()
}

fn cases() -> u32 {
    std::env::var("LEASEHOLD_TOKEN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000)
}

/// B7's property and the differential test in one: no chain ever widens, and model, native decision and Datalog agree
/// on every question. At least a twentieth of the answers must be yes, and a twentieth of the chains delegated, or
/// the test could not fail for the right reason.
#[test]
fn b7_random_chains_never_widen_and_both_decisions_equal_the_model() {
    let keys = keys();
    let (yes, delegated) = (Cell::new(0), Cell::new(0));
    let chains = (proptest::collection::vec(step(), 0..7), proptest::collection::vec(question(), 4));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&chains, |(steps, questions)| {
        let (mut token, mut model) = (token(), start());
        for step in &steps {
            let Some((child, next)) = take(&token, &model, step) else { continue };
            let parent_left: Effective = *verify(token.as_bytes()).unwrap().effective();
            let child_left = *verify(child.as_bytes()).unwrap().effective();
            prop_assert!(
                parent_left.contains(&child_left),
                "{:?} widened {:?} to {:?}",
                step,
                parent_left,
                child_left
            );
            // What an inspection says was taken is the difference, to the byte.
            let taken = inspect(&child, None).unwrap().blocks.pop().unwrap().took;
            if child != token && !matches!(step, Step::Seal) {
                let left = Effective { hops: child_left.hops, ..taken.leaves(&parent_left) };
                prop_assert_eq!(left, child_left, "{:?} took {:?}", step, taken);
                prop_assert_eq!(taken.is_nothing(), left == Effective { hops: left.hops, ..parent_left });
            }
            (token, model) = (child, next);
        }
        let verified = verify(token.as_bytes()).unwrap();
        prop_assert_eq!(verified.chain().hops.len(), model.holders.len() - 1);
        delegated.set(delegated.get() + u32::from(model.holders.len() > 1));
        for (request, prover) in &questions {
            let prover = prover.unwrap_or(*model.holders.last().unwrap());
            let request = &Request { proven: proven(prover), ..*request };
            let expected = model.allows(request, prover);
            yes.set(yes.get() + u32::from(expected));
            let native = verified.authorize(request);
            prop_assert_eq!(native.is_ok(), expected, "native {:?} on {:?}", native, request);
            let asked = Question {
                rights: Rights::of(request.operation),
                range: Some(request.range),
                at: request.now,
            };
            // A question takes it that something is used; the requests here may have used nothing.
            let mut short = gate(token.as_bytes()).unwrap().shortfalls(&asked).unwrap();
            short.retain(|short| !matches!(short.limit, Limit::Opens | Limit::Rate | Limit::Budget));
            prop_assert!(short.is_empty() || !expected, "{:?} falls short of nothing", short);
            // Other limits are the session's, or of what is used: a question says nothing of those.
            if let Some(
                limit @ (Limit::Expires | Limit::NotBefore | Limit::Hops | Limit::Rights | Limit::Range),
            ) = verified.refusal(request)
            {
                prop_assert_eq!(short.first().map(|short| short.limit), Some(limit));
            }
            let datalog = verified.authorize_by_datalog(token.as_bytes(), &keys, request);
            prop_assert_eq!(datalog.is_ok(), expected, "Datalog {:?} on {:?}", datalog, request);
            if let Err(error) = datalog {
                prop_assert_eq!(error.code(), Code::Denied);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    println!(
        "{} chains, {} delegated, {} of {} answers yes",
        cases(),
        delegated.get(),
        yes.get(),
        4 * cases()
    );
    assert!(yes.get() >= 4 * cases() / 20 && delegated.get() >= cases() / 20);
}
