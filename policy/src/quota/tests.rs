use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const SMALL: Quota = Quota {
    leases: 2,
    leased_bytes: 4,
    resident_bytes: 5,
    shared_bytes: 3,
    grants: 2,
    opens: 0,
    mappings: 0,
};

/// The quota whose every state is visited, and the most bytes of a step there. An interpreter gets a far smaller world.
const WALKED: (Quota, u64) = if cfg!(miri) {
    (Quota { leases: 1, leased_bytes: 2, resident_bytes: 2, shared_bytes: 1, grants: 1, ..SMALL }, 2)
} else {
    (SMALL, 4)
};

/// A world of one principal, with each item known: what the books must agree with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct World {
    reserved: Vec<u64>,
    leased: Vec<u64>,
    ending: Vec<u64>,
    shared: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(u64),
    Cancel(u64),
    Commit(u64),
    Release(u64),
    Returned(u64),
    Share(u64),
    Unshare(u64),
}

fn remove(from: &mut Vec<u64>, bytes: u64) -> bool {
    from.iter().position(|item| *item == bytes).map(|at| from.remove(at)).is_some()
}

fn add(to: &mut Vec<u64>, bytes: u64) -> bool {
    to.push(bytes);
    to.sort_unstable();
    true
}

impl World {
    /// The naive model: lists of items instead of sums. `None` if the step names an item that is not there.
    fn step(&mut self, quota: &Quota, step: Step) -> Option<bool> {
        let sum = |items: &[u64]| items.iter().sum::<u64>();
        match step {
            Step::Reserve(bytes) => {
                let leased = sum(&self.reserved) + sum(&self.leased) + bytes;
                let fits = self.reserved.len() + self.leased.len() < quota.leases as usize
                    && leased <= quota.leased_bytes
                    && leased + sum(&self.ending) <= quota.resident_bytes;
                Some(bytes > 0 && fits && add(&mut self.reserved, bytes))
            }
            Step::Cancel(bytes) => remove(&mut self.reserved, bytes).then_some(true),
            Step::Commit(bytes) => remove(&mut self.reserved, bytes).then(|| add(&mut self.leased, bytes)),
            Step::Release(bytes) => remove(&mut self.leased, bytes).then(|| add(&mut self.ending, bytes)),
            Step::Returned(bytes) => remove(&mut self.ending, bytes).then_some(true),
            Step::Share(bytes) => {
                let fits = self.shared.len() < quota.grants as usize
                    && sum(&self.shared) + bytes <= quota.shared_bytes;
                Some(bytes > 0 && fits && add(&mut self.shared, bytes))
            }
            Step::Unshare(bytes) => remove(&mut self.shared, bytes).then_some(true),
        }
    }

    fn books(&self) -> Usage {
        Usage {
            reservations: self.reserved.len() as u32,
            reserved_bytes: self.reserved.iter().sum(),
            leases: self.leased.len() as u32,
            leased_bytes: self.leased.iter().sum(),
            ending: self.ending.len() as u32,
            ending_bytes: self.ending.iter().sum(),
            grants: self.shared.len() as u32,
            shared_bytes: self.shared.iter().sum(),
        }
    }
}

fn apply(usage: &mut Usage, quota: &Quota, step: Step) -> Result<()> {
    match step {
        Step::Reserve(bytes) => usage.reserve(quota, bytes),
        Step::Cancel(bytes) => usage.cancel(bytes),
        Step::Commit(bytes) => usage.commit(bytes),
        Step::Release(bytes) => usage.release(bytes),
        Step::Returned(bytes) => usage.returned(bytes),
        Step::Share(bytes) => usage.share(quota, bytes),
        Step::Unshare(bytes) => usage.unshare(bytes),
    }
}

fn steps() -> Vec<Step> {
    let kinds: [fn(u64) -> Step; 7] = [
        Step::Reserve,
        Step::Cancel,
        Step::Commit,
        Step::Release,
        Step::Returned,
        Step::Share,
        Step::Unshare,
    ];
    kinds.iter().flat_map(|kind| (0..=WALKED.1).map(kind)).collect()
}

/// Every state that a small world can reach, by every step from each: the books say what the lists say.
#[test]
fn exhaustive_small_worlds_balance() {
    let (quota, _) = WALKED;
    let mut seen = BTreeSet::from([World::default()]);
    let mut queue = VecDeque::from([World::default()]);
    let mut refused = BTreeSet::new();
    while let Some(world) = queue.pop_front() {
        for step in steps() {
            let mut next = world.clone();
            let mut books = world.books();
            let before = books;
            let answer = apply(&mut books, &quota, step);
            match next.step(&quota, step) {
                // The books keep sums, not items: they may let an item of another size go, if the caller errs.
                None => {
                    books.invariant().unwrap();
                    continue;
                }
                Some(true) => answer.unwrap(),
                Some(false) => {
                    refused.insert(answer.unwrap_err().code());
                    assert_eq!(books, before, "a refusal changes nothing");
                }
            }
            assert_eq!(books, next.books(), "{step:?}");
            books.invariant().unwrap();
            assert!(books.fits(&quota));
            balance([&books], &books).unwrap();
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    assert!(seen.len() >= if cfg!(miri) { 20 } else { 100 }, "{} states", seen.len());
    assert_eq!(refused, BTreeSet::from([Code::Range, Code::Quota]));
}

#[test]
fn e5_two_that_fit_alone_but_not_together() {
    let mut usage = Usage::default();
    usage.reserve(&SMALL, 3).unwrap();
    assert_eq!(usage.reserve(&SMALL, 3).unwrap_err().code(), Code::Quota);
    usage.reserve(&SMALL, 1).unwrap();
    assert_eq!(usage.reserve(&SMALL, 1).unwrap_err().code(), Code::Quota, "the count");
}

#[test]
fn memory_that_is_not_back_yet_counts() {
    let mut usage = Usage::default();
    usage.reserve(&SMALL, 4).unwrap();
    usage.commit(4).unwrap();
    usage.release(4).unwrap();
    assert_eq!((usage.leased_bytes(), usage.resident_bytes()), (0, 4));
    assert_eq!(usage.reserve(&SMALL, 2).unwrap_err().code(), Code::Quota);
    usage.returned(4).unwrap();
    usage.reserve(&SMALL, 2).unwrap();
}

#[test]
fn e2_sums_beyond_64_bits_are_a_quota_error() {
    let mut usage = Usage::default();
    usage.reserve(&Quota::UNLIMITED, u64::MAX).unwrap();
    assert_eq!(usage.reserve(&Quota::UNLIMITED, 1).unwrap_err().code(), Code::Quota);
    usage.share(&Quota::UNLIMITED, u64::MAX).unwrap();
    assert_eq!(usage.share(&Quota::UNLIMITED, 1).unwrap_err().code(), Code::Quota);
    usage.invariant().unwrap();
}

#[test]
fn books_that_do_not_balance_are_found() {
    let mut total = Usage::default();
    let mut part = Usage::default();
    total.reserve(&Quota::UNLIMITED, 7).unwrap();
    assert!(balance([&part], &total).is_err());
    part.reserve(&Quota::UNLIMITED, 7).unwrap();
    balance([&part, &Usage::default()], &total).unwrap();
    assert!(balance([&part, &part], &total).is_err());
    let broken = Usage { leases: 1, ..Usage::default() };
    assert!(broken.invariant().is_err());
    assert!(Usage { shared_bytes: 1, ..Usage::default() }.invariant().is_err());
    assert!(balance([&broken], &broken).is_err());
}

proptest! {
    /// Several principals and the node's own books, in lockstep: they always balance.
    #[test]
    fn the_node_balances(moves in proptest::collection::vec((0_usize..3, 0_usize..7, 0_u64..6), 0..200)) {
        let mut parts = [Usage::default(); 3];
        let mut total = Usage::default();
        let kinds: [fn(u64) -> Step; 7] =
            [Step::Reserve, Step::Cancel, Step::Commit, Step::Release, Step::Returned, Step::Share, Step::Unshare];
        for (who, kind, bytes) in moves {
            let step = kinds[kind](bytes);
            if apply(&mut parts[who], &SMALL, step).is_ok() {
                apply(&mut total, &Quota::UNLIMITED, step).unwrap();
            }
            balance(&parts, &total).map_err(TestCaseError::fail)?;
        }
    }
}
