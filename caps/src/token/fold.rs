//! A million random chains of narrowings, without signatures: the fold that a provider decides by against a model that
//! keeps every bound and asks each of them. `tests/token_model.rs` does the same with real tokens, and so with fewer.

use super::authorize::{Request, Usage};
use super::chain::Chain;
use super::sample;
use super::terms::{INTEGER_MAX, Narrowing};
use super::verify::VerifiedToken;
use crate::range::ByteRange;
use crate::rights::{Operation, Rights};
use crate::time::UnixMicros;

const CHAINS: u32 = 1_000_000;
/// Bounds and questions are small multiples of this, so that they meet.
const UNIT: u64 = 4_096;

/// Marsaglia's xorshift: the same chains each time, and no time for more.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// One in four times a number up to `most`, at times the largest there is.
    fn bound(&mut self, most: u64, unit: u64) -> Option<u64> {
        (self.below(4) == 0).then(|| if self.below(16) == 0 { INTEGER_MAX } else { self.below(most) * unit })
    }

    fn narrowing(&mut self) -> Narrowing {
        Narrowing {
            rights: (self.below(4) == 0).then(|| Rights::try_from(1 + self.below(7) as u8).expect("rights")),
            start: self.bound(8, UNIT),
            end: self.bound(16, UNIT),
            not_before: self.bound(8, 1),
            expires: self.bound(16, 1),
            hops: self.bound(9, 1),
            opens: self.bound(8, 1),
            bytes_per_second: self.bound(8, 1),
            bytes_total: self.bound(8, 1),
        }
    }

    fn request(&mut self, base: &Request) -> Request {
        let start = self.below(12) * UNIT;
        let range = ByteRange::new(start, start + (1 + self.below(2)) * UNIT).expect("a range");
        let operation = Operation::ALL[self.below(3) as usize];
        let mut count = || self.below(6);
        let usage = Usage { opens: count(), bytes_per_second: count(), bytes_total: count() };
        let (now, counted) = (UnixMicros(self.below(12)), self.below(8) > 0);
        Request { operation, range, now, usage: counted.then_some(usage), ..*base }
    }
}

/// Whether one block's checks hold.
fn holds(bound: &Narrowing, request: &Request, hops: u64) -> bool {
    let counted = |most: Option<u64>, count: fn(&Usage) -> u64| {
        most.is_none_or(|most| request.usage.is_some_and(|usage| count(&usage) <= most))
    };
    bound.rights.is_none_or(|rights| rights.iter().any(|right| right == request.operation))
        && bound.start.is_none_or(|start| start <= request.range.start())
        && bound.end.is_none_or(|end| request.range.end() <= end)
        && bound.not_before.is_none_or(|begin| begin <= request.now.0)
        && bound.expires.is_none_or(|end| request.now.0 < end)
        && bound.hops.is_none_or(|most| hops <= most)
        && counted(bound.opens, |usage| usage.opens)
        && counted(bound.bytes_per_second, |usage| usage.bytes_per_second)
        && counted(bound.bytes_total, |usage| usage.bytes_total)
}

#[test]
fn a_million_chains_fold_to_what_every_bound_says() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let terms = super::Terms {
        range: ByteRange::new(UNIT, 12 * UNIT).unwrap(),
        not_before: UnixMicros(1),
        expires: UnixMicros(11),
        max_hops: 5,
        ..sample::terms().unwrap()
    };
    let base = sample::request(0).unwrap();
    let authority = Narrowing {
        rights: Some(terms.rights),
        start: Some(UNIT),
        end: Some(12 * UNIT),
        not_before: Some(1),
        expires: Some(11),
        hops: Some(5),
        ..Narrowing::default()
    };
    let mut token = VerifiedToken {
        terms,
        effective: terms.effective(),
        chain: Chain { first_holder: terms.holder, holder: terms.holder, hops: Vec::new() },
        revocation_ids: Vec::new(),
        after: Box::default(),
        marks: Box::default(),
        meters: Box::default(),
        root_key_id: 0,
        sealed: false,
    };
    let (mut yes, mut delegated) = (0, 0);
    for chain in 0..CHAINS {
        token.effective = terms.effective();
        let mut bounds = vec![authority];
        for _ in 0..dice.below(8) {
            let before = token.effective;
            if dice.below(3) == 0 {
                token.effective.hops += 1;
                delegated += 1;
            }
            let by = dice.narrowing();
            token.effective = token.effective.narrowed(&by);
            bounds.push(by);
            assert!(before.contains(&token.effective), "chain {chain}: {by:?} widened {before:?}");
        }
        for _ in 0..2 {
            let request = dice.request(&base);
            let hops = u64::from(token.effective.hops);
            let expected = bounds.iter().all(|bound| holds(bound, &request, hops));
            let refusal = token.refusal(&request);
            assert_eq!(
                refusal.is_none(),
                expected,
                "chain {chain}: {refusal:?} on {request:?} by {bounds:?}"
            );
            yes += u32::from(expected);
        }
    }
    // Or it could not fail for the right reason.
    assert!(yes > CHAINS / 20 && delegated > CHAINS / 2, "{yes} yes, {delegated} delegations");
}
