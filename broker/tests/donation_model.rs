//! Donations and a naive model of them in lockstep, whatever is given, leased, ended and undone in whatever order. The
//! model has lists that are searched from end to end, and gives quota back bit by bit, as long as that fits.

mod common;

use broker::state::{Actor, Answer, Broker, Kind, Query, Undo, View};
use caps::Code;
use caps::id::{DonationId, LeaseId};
use caps::time::Micros;
use caps::wire::row::{DonationRow, DonationState, QuotaRow, Target};
use common::{PAGE, START, World, code, genesis, name, public, spec};
use policy::Quota;
use proptest::prelude::*;

/// All amounts are multiples of it, and what is over goes back in steps of it.
const BIT: u64 = 512;
const NAMES: [&str; 4] = ["admin", "alice", "bob", "small"];
const ALL: std::ops::Range<u8> = 0..4;

#[derive(Clone, Copy, Debug)]
enum Op {
    Give {
        by: u8,
        to: u8,
        bits: u64,
        ttl: u64,
        reused: Option<usize>,
    },
    TakeBack {
        by: u8,
        back: usize,
    },
    /// With `all`, whoever was given quota last leases as much as fits.
    Lease {
        by: u8,
        pages: u64,
        all: bool,
        /// Stays a reservation.
        left: bool,
    },
    Commit(usize),
    Abandon(usize),
    Renew(usize),
    Revoke(usize),
    /// Another one comes at once.
    ProviderLost,
    Release(usize),
    Taken(usize),
    Tick,
    UndoGive(usize),
    Leave(u8),
    Add(u8),
}

fn op() -> impl Strategy<Value = (u64, Op)> {
    let who = || 0..4u8;
    // Up to half of what one has, for the most part.
    let bits = prop_oneof![6 => 8..33u64, 2 => 33..90u64, 1 => Just(0), 1 => Just(u64::MAX / BIT)];
    let ttl = prop_oneof![8 => 20..800u64, 1 => Just(9), 1 => Just(10_001)];
    let back = || 0..4usize;
    let op = prop_oneof![
        30 => (who(), who(), bits, ttl, prop::option::weighted(0.1, back()))
            .prop_map(|(by, to, bits, ttl, reused)| Op::Give { by, to, bits, ttl, reused }),
        8 => (who(), back()).prop_map(|(by, back)| Op::TakeBack { by, back }),
        40 => (who(), 1..11u64, any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(by, pages, all, left)| Op::Lease { by, pages, all, left }),
        6 => back().prop_map(Op::Commit),
        8 => back().prop_map(Op::Abandon),
        4 => back().prop_map(Op::Renew),
        6 => back().prop_map(Op::Revoke),
        1 => Just(Op::ProviderLost),
        30 => back().prop_map(Op::Release),
        40 => back().prop_map(Op::Taken),
        20 => Just(Op::Tick),
        3 => back().prop_map(Op::UndoGive),
        1 => (1..4u8).prop_map(Op::Leave),
        2 => (1..4u8).prop_map(Op::Add),
    ];
    (0..30u64, op)
}

#[derive(Clone, Copy)]
struct Held {
    id: LeaseId,
    owner: u8,
    bytes: u64,
    /// Until when a reservation may be committed.
    claim_by: Option<u64>,
    ending: bool,
}

impl Held {
    /// A reservation counts until it is gone, a lease until it begins to end.
    fn is_leased(&self) -> bool {
        self.claim_by.is_some() || !self.ending
    }
}

#[derive(Clone, Copy)]
struct Lent {
    id: DonationId,
    giver: u8,
    receiver: u8,
    bytes: u64,
    ttl: u64,
    expires: u64,
    /// Since when it is over.
    over: Option<u64>,
    lent: u64,
}

#[derive(Default)]
struct Naive {
    now: u64,
    registered: Vec<u8>,
    leaving: Vec<u8>,
    held: Vec<Held>,
    lent: Vec<Lent>,
}

impl Naive {
    fn own(n: u8) -> Quota {
        genesis().quota_of(&name(NAMES[usize::from(n)]))
    }

    fn may(&self, n: u8) -> Result<(), Code> {
        let may = self.registered.contains(&n) && !self.leaving.contains(&n);
        if may { Ok(()) } else { Err(Code::PrincipalUnknown) }
    }

    fn leased(&self, n: u8) -> u64 {
        self.held.iter().filter(|held| held.owner == n && held.is_leased()).map(|held| held.bytes).sum()
    }

    fn resident(&self, n: u8) -> u64 {
        self.held.iter().filter(|held| held.owner == n).map(|held| held.bytes).sum()
    }

    fn given(&self, n: u8) -> u64 {
        self.lent.iter().filter(|lent| lent.giver == n).map(|lent| lent.lent).sum()
    }

    fn received(&self, n: u8, late: bool) -> u64 {
        let mine = self.lent.iter().filter(|lent| lent.receiver == n);
        mine.filter(|lent| late || lent.over.is_some() || self.now < lent.expires).map(|lent| lent.lent).sum()
    }

    /// What fits beside what `n` uses; negative if that does not fit itself.
    fn room(&self, n: u8, late: bool) -> i64 {
        let (own, given) = (Self::own(n), self.given(n));
        let more = if given > 0 { -(given as i64) } else { self.received(n, late) as i64 };
        let leased = own.leased_bytes as i64 + more - self.leased(n) as i64;
        leased.min(own.resident_bytes as i64 + more - self.resident(n) as i64)
    }

    fn giveable(&self, n: u8) -> u64 {
        let own = Self::own(n);
        let leased = own.leased_bytes.saturating_sub(self.leased(n));
        let left = leased.min(own.resident_bytes.saturating_sub(self.resident(n)));
        left.saturating_sub(self.given(n))
    }

    fn give(&mut self, by: u8, to: u8, id: DonationId, bytes: u64, ttl: u64) -> Result<(), Code> {
        self.may(by)?;
        if bytes == 0 || !(10..=10_000).contains(&ttl) || to == by {
            return Err(Code::Range);
        }
        self.may(to)?;
        if let Some(lent) = self.lent.iter().find(|lent| lent.id == id) {
            let same = (lent.giver, lent.receiver, lent.bytes, lent.ttl) == (by, to, bytes, ttl);
            let over = lent.over.is_some() || lent.expires <= self.now;
            return if same && !over { Ok(()) } else { Err(Code::Exists) };
        }
        if self.lent.iter().filter(|lent| lent.giver == by).count() >= 3 || bytes > self.giveable(by) {
            return Err(Code::Quota);
        }
        if self.lent.len() >= 4 {
            return Err(Code::Busy);
        }
        let (expires, lent) = (self.now + ttl, bytes);
        self.lent.push(Lent { id, giver: by, receiver: to, bytes, ttl, expires, over: None, lent });
        Ok(())
    }

    fn take_back(&mut self, by: u8, id: DonationId) -> Result<(), Code> {
        self.may(by)?;
        if !self.lent.iter().any(|lent| lent.id == id && (lent.giver == by || by == 0)) {
            return Err(Code::DonationUnknown);
        }
        self.end(|lent| lent.id == id, false);
        Ok(())
    }

    /// Ends those that `which` picks, in the order of their times: each finds the ones after it still given.
    fn end(&mut self, which: impl Fn(&Lent) -> bool, in_time: bool) {
        let mut due: Vec<_> =
            self.lent.iter().filter(|lent| which(lent) && lent.over.is_none()).copied().collect();
        due.sort_by_key(|lent| (if in_time { lent.expires } else { 0 }, lent.id));
        for due in due {
            let lent = self.lent.iter_mut().find(|lent| lent.id == due.id).unwrap();
            lent.over = Some(self.now);
            self.settle();
        }
    }

    fn lease(&self, by: u8, bytes: u64) -> Result<(), Code> {
        self.may(by)?;
        if self.held.len() >= 6 {
            return Err(Code::Busy);
        }
        let count = self.held.iter().filter(|held| held.owner == by && held.is_leased()).count();
        if count >= Self::own(by).leases as usize || self.room(by, false) < bytes as i64 {
            return Err(Code::Quota);
        }
        let taken: u64 = self.held.iter().map(|held| held.bytes).sum();
        if taken + bytes > genesis().bounds.pool_bytes { Err(Code::NoMemory) } else { Ok(()) }
    }

    /// A bit at a time, the oldest first, as long as its receiver fits without it.
    fn settle(&mut self) {
        loop {
            let mut over: Vec<_> = self.lent.iter().filter(|lent| lent.over.is_some()).copied().collect();
            over.sort_by_key(|lent| (lent.over, lent.id));
            let next = over.into_iter().find(|lent| {
                self.room(lent.receiver, true) >= BIT as i64 || {
                    // Who has given draws on nothing.
                    self.given(lent.receiver) > 0
                }
            });
            let Some(next) = next else { break };
            let at = self.lent.iter().position(|lent| lent.id == next.id).unwrap();
            self.lent[at].lent -= BIT;
            if self.lent[at].lent == 0 {
                self.lent.remove(at);
            }
        }
        let (held, lent) = (&self.held, &self.lent);
        let gone = |n: &u8| {
            !held.iter().any(|held| held.owner == *n)
                && !lent.iter().any(|lent| lent.giver == *n || lent.receiver == *n)
        };
        let gone: Vec<u8> = self.leaving.iter().copied().filter(|n| gone(n)).collect();
        self.leaving.retain(|n| !gone.contains(n));
        self.registered.retain(|n| !gone.contains(n));
    }
}

struct Lockstep {
    world: World,
    naive: Naive,
    drawn: Vec<DonationId>,
    tally: std::collections::BTreeMap<&'static str, u32>,
}

impl Lockstep {
    fn new() -> Self {
        let naive = Naive { now: START, registered: vec![0, 1, 2, 3], ..Naive::default() };
        Self { world: World::new(), naive, drawn: Vec::new(), tally: std::collections::BTreeMap::new() }
    }

    fn id(&self, back: usize) -> DonationId {
        let at = self.drawn.len().checked_sub(back + 1);
        at.map_or(DonationId([0xee; 16]), |at| self.drawn[at])
    }

    fn step(&mut self, after: u64, op: Op) {
        let (world, naive) = (&mut self.world, &mut self.naive);
        world.now += after;
        naive.now = world.now;
        let held = |back: usize, ending: bool, naive: &Naive| {
            let of = naive.held.iter().rev().filter(|held| held.ending == ending);
            of.map(|held| held.id).nth(back)
        };
        match op {
            Op::Give { by, to, bits, ttl, reused } => {
                let id = match reused {
                    Some(back) => self.id(back),
                    None => DonationId((self.drawn.len() as u128 + 1).to_le_bytes()),
                };
                self.drawn.push(id);
                let (world, naive) = (&mut self.world, &mut self.naive);
                let bytes = bits * BIT;
                let kind = Kind::QuotaGive { id, to: public(to), bytes, ttl: Micros(ttl) };
                let answer = world.by(by, kind).answer;
                let expected = naive.give(by, to, id, bytes, ttl);
                assert_eq!(code(answer), expected.err());
                self.count("given", expected.is_ok());
            }
            Op::TakeBack { by, back } => {
                let id = self.id(back);
                let answer = self.world.by(by, Kind::QuotaTakeBack { id }).answer;
                assert_eq!(code(answer), self.naive.take_back(by, id).err());
            }
            Op::Lease { mut by, mut pages, all, left } => {
                if let (true, Some(lent)) = (all, naive.lent.last()) {
                    by = lent.receiver;
                    pages = (naive.room(by, false).max(0) as u64 / PAGE).clamp(1, 16);
                }
                let bytes = pages * PAGE;
                let expected = naive.lease(by, bytes);
                let drawn = expected.is_ok() && naive.leased(by) + bytes > Naive::own(by).leased_bytes;
                let kind = Kind::Reserve { spec: spec(bytes, 10_000), session: 1 };
                match world.by(by, kind).answer {
                    Ok(Answer::Reserved(ticket, _)) => {
                        assert_eq!(expected, Ok(()), "{by} was let lease {bytes}");
                        let claim_by = left.then_some(ticket.claim_by.0);
                        if !left {
                            world.system(Kind::Commit { lease: ticket.lease, bytes }).answer.unwrap();
                        }
                        naive.held.push(Held { id: ticket.lease, owner: by, bytes, claim_by, ending: false });
                    }
                    other => assert_eq!(code(other), expected.err()),
                }
                self.count("leased with a gift", drawn);
            }
            Op::Commit(back) => {
                let waits = |held: &&mut Held| held.claim_by.is_some() && !held.ending;
                let waiting = naive.held.iter_mut().filter(waits).count().max(1);
                if let Some(held) = naive.held.iter_mut().filter(waits).nth(back % waiting) {
                    let (lease, bytes) = (held.id, held.bytes);
                    let late = held.claim_by.is_some_and(|claim_by| claim_by <= naive.now);
                    let answer = world.system(Kind::Commit { lease, bytes }).answer;
                    assert_eq!(code(answer), late.then_some(Code::LeaseExpired));
                    if !late {
                        held.claim_by = None;
                    }
                }
            }
            Op::Abandon(back) => {
                let waits = |held: &&mut Held| held.claim_by.is_some() && !held.ending;
                let waiting = naive.held.iter_mut().filter(waits).count().max(1);
                if let Some(held) = naive.held.iter_mut().filter(waits).nth(back % waiting) {
                    world.system(Kind::Abandon { lease: held.id }).answer.unwrap();
                    held.ending = true;
                    self.count("abandoned", true);
                }
            }
            Op::Renew(back) => {
                let live = |held: &&Held| held.claim_by.is_none() && !held.ending;
                if let Some(held) = naive.held.iter().rev().filter(live).nth(back) {
                    let kind = Kind::Renew { lease: held.id, ttl: Micros(10_000) };
                    world.by(held.owner, kind).answer.unwrap();
                }
            }
            Op::Revoke(back) => {
                if let Some(id) = held(back, false, naive) {
                    world.revoke(0, Target::Lease(id)).answer.unwrap();
                    naive.held.iter_mut().find(|held| held.id == id).unwrap().ending = true;
                }
            }
            Op::ProviderLost => {
                // Its next life comes before anybody noticed.
                world.restart().answer.unwrap();
                naive.held.clear();
            }
            Op::Release(back) => {
                if let Some(id) = held(back, false, naive) {
                    let held = naive.held.iter_mut().find(|held| held.id == id).unwrap();
                    held.ending = true;
                    let by = Actor::Principal(public(held.owner));
                    // A leaving owner may not ask; then the provider ends it.
                    let command = world.command(by, Kind::Release { lease: id });
                    world.apply(&command).answer.unwrap();
                }
            }
            Op::Taken(back) => {
                if let Some(id) = held(back, true, naive) {
                    world.system(Kind::Taken { lease: id }).answer.unwrap();
                    naive.held.retain(|held| held.id != id);
                }
            }
            Op::Tick => {
                world.system(Kind::Tick).answer.unwrap();
                let now = naive.now;
                let late = |held: &&mut Held| held.claim_by.is_some_and(|claim_by| claim_by <= now);
                naive.held.iter_mut().filter(late).for_each(|held| held.ending = true);
                naive.end(|lent| lent.expires <= now, true);
            }
            Op::UndoGive(back) => {
                let id = self.id(back);
                self.world.system(Kind::Undo(Undo::QuotaGive { id })).answer.unwrap();
                self.naive.end(|lent| lent.id == id, false);
            }
            Op::Leave(n) => {
                let answer = world.system(Kind::Undo(Undo::PrincipalAdd { key: public(n) })).answer;
                let expected = naive.may(n);
                assert_eq!(code(answer), expected.err());
                if expected.is_ok() {
                    for held in naive.held.iter_mut().filter(|held| held.owner == n) {
                        held.ending = true;
                    }
                    naive.end(|lent| lent.giver == n, false);
                    naive.end(|lent| lent.receiver == n, false);
                    naive.leaving.push(n);
                }
            }
            Op::Add(n) => {
                let kind = Kind::PrincipalAdd { name: name(NAMES[usize::from(n)]), key: public(n) };
                let known = naive.registered.contains(&n);
                assert_eq!(code(world.by(0, kind).answer), known.then_some(Code::Exists));
                if !known {
                    naive.registered.push(n);
                }
            }
        }
        self.naive.settle();
        self.compare();
    }

    fn count(&mut self, what: &'static str, happened: bool) {
        *self.tally.entry(what).or_default() += u32::from(happened);
    }

    fn compare(&mut self) {
        let naive = &self.naive;
        let (mut configured, mut moved) = (0, 0);
        for n in ALL {
            let view = self.world.view(n, Query::Quota(None));
            if naive.may(n).is_err() {
                assert_eq!(code(view), Some(Code::PrincipalUnknown));
                continue;
            }
            let Ok(View::Quota(quota, page)) = view else { panic!("{view:?}") };
            let expected = QuotaRow {
                limit_bytes: Naive::own(n).leased_bytes,
                given_bytes: naive.given(n),
                received_bytes: naive.received(n, true),
                used_bytes: naive.leased(n),
                free_bytes: naive.room(n, false).max(0) as u64,
                giveable_bytes: naive.giveable(n),
            };
            assert_eq!(quota, expected, "of {n}");
            assert!(naive.room(n, true) >= 0, "{n} holds more than it may");
            let mut rows: Vec<_> =
                naive.lent.iter().filter(|lent| n == 0 || lent.giver == n || lent.receiver == n).collect();
            rows.sort_by_key(|lent| lent.id);
            let shown = |row: &DonationRow| (row.id, row.bytes, row.lent, row.state);
            let state = |lent: &Lent| match lent.over {
                None if naive.now < lent.expires => DonationState::Given,
                _ => DonationState::Returning,
            };
            let rows: Vec<_> =
                rows.iter().map(|lent| (lent.id, lent.bytes, lent.lent, state(lent))).collect();
            assert_eq!(page.rows.iter().map(shown).collect::<Vec<_>>(), rows);
        }
        for n in naive.registered.iter().copied() {
            configured += Naive::own(n).leased_bytes;
            moved += Naive::own(n).leased_bytes - naive.given(n) + naive.received(n, true);
        }
        assert_eq!(configured, moved, "quota is moved, never made");
        let returning = self.naive.lent.iter().any(|lent| lent.over.is_some());
        self.count("lent past its end", returning);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn whatever_is_given_and_ended_nothing_is_made_or_lost(steps in prop::collection::vec(op(), 1..120)) {
        let mut lockstep = Lockstep::new();
        for (after, op) in steps {
            lockstep.step(after, op);
        }
        let snapshot = lockstep.world.broker.snapshot();
        assert_eq!(Broker::restore(&snapshot).unwrap(), lockstep.world.broker);
    }
}

/// The strategy reaches what it is about.
#[test]
fn the_steps_give_draw_and_owe() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut tally = std::collections::BTreeMap::new();
    for _ in 0..12 {
        let steps = prop::collection::vec(op(), 120).new_tree(&mut runner).unwrap().current();
        let mut lockstep = Lockstep::new();
        for (after, op) in steps {
            lockstep.step(after, op);
        }
        for (what, count) in lockstep.tally {
            *tally.entry(what).or_insert(0) += count;
        }
    }
    assert!(tally["abandoned"] > 0, "{tally:?}");
    for what in ["given", "leased with a gift", "lent past its end"] {
        assert!(tally[what] >= 10, "{tally:?}");
    }
}
