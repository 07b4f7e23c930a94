//! Several providers beside a naive table of them, in lockstep: they come, restart, drain, fall silent and are lost while
//! leases are made and end. Who gets a lease, what is refused and with which code, and what of each provider is taken are
//! said beforehand by a list that is searched from end to end; the state's own books are checked after every step.

mod common;

use broker::state::{
    Actor, Answer, Bounds, Broker, Capacity, Command, Genesis, Kind, PolicyVerdict, Query, View,
};
use caps::Code;
use caps::id::{LeaseId, ProviderId};
use caps::time::{Micros, UnixMicros};
use caps::wire::provider::{Load, ProviderState, Registration, Verdict};
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime};
use common::{PAGE, START, genesis, name, public};
use policy::Quota;
use policy::limits::SESSIONS_MAX;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

const NAMES: [&str; 4] = ["north", "east", "south", "west"];
const LABELS: [&str; 2] = ["one", "two"];
/// Rows of the table of providers: fewer than there are names.
const ROWS: usize = 3;
const LEASES: usize = 12;
const SILENT_AFTER: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Op {
    Register { at: usize, pages: u64, regions: u32, class: Option<usize>, label: Option<usize>, again: bool },
    Heartbeat { at: usize, sessions: u32 },
    Lost(usize),
    Drain { at: usize, drain: bool, by: u8 },
    Reserve { pages: u64, class: Option<usize>, near: Option<usize> },
    Commit(usize),
    Abandon(usize),
    Release(usize),
    Taken(usize),
    Pass(u64),
    Restore,
}

fn ops() -> impl Strategy<Value = Op> {
    let label = || proptest::option::weighted(0.4, 0..LABELS.len());
    let at = || 0..NAMES.len();
    prop_oneof![
        3 => (at(), 1..9_u64, 1..6_u32, label(), label(), prop::bool::weighted(0.1)).prop_map(
            |(at, pages, regions, class, label, again)| Op::Register { at, pages, regions, class, label, again }
        ),
        4 => (at(), 0..20_u32).prop_map(|(at, n)| Op::Heartbeat { at, sessions: n * 300 }),
        1 => at().prop_map(Op::Lost),
        1 => (at(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(at, drain, other)| Op::Drain { at, drain, by: other.into() }
        ),
        12 => (1..4_u64, label(), label()).prop_map(|(pages, class, near)| Op::Reserve { pages, class, near }),
        8 => (0..6_usize).prop_map(Op::Commit),
        1 => (0..6_usize).prop_map(Op::Abandon),
        3 => (0..6_usize).prop_map(Op::Release),
        4 => (0..6_usize).prop_map(Op::Taken),
        3 => (1..30_u64).prop_map(Op::Pass),
        1 => Just(Op::Restore),
    ]
}

#[derive(Clone, Debug)]
struct Node {
    said: Registration,
    draining: bool,
    lost: Option<u64>,
    heard: u64,
    sessions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Reserved,
    Live,
    /// And whether it lived.
    Ending(bool),
}

#[derive(Clone, Copy, Debug)]
struct Held {
    id: LeaseId,
    at: ProviderId,
    bytes: u64,
    stage: Stage,
}

struct Pair {
    broker: Broker,
    now: u64,
    draws: u16,
    nodes: Vec<Node>,
    /// Lives that are over.
    over: Vec<ProviderId>,
    held: Vec<Held>,
    placed: usize,
}

impl Pair {
    fn new() -> Self {
        let genesis = Genesis {
            provider: None,
            capacity: Capacity { leases: LEASES as u32, providers: ROWS as u32, ..genesis().capacity },
            bounds: Bounds {
                pool_bytes: 1 << 30,
                ttl_max: Micros(1 << 40),
                claim_within: Micros(1 << 40),
                take_again: Micros(1 << 40),
                silent_after: Micros(SILENT_AFTER),
                ..genesis().bounds
            },
            quota: Quota::UNLIMITED,
            ..genesis()
        };
        let broker = Broker::new(genesis).unwrap();
        Self {
            broker,
            now: START,
            draws: 0,
            nodes: Vec::new(),
            over: Vec::new(),
            held: Vec::new(),
            placed: 0,
        }
    }

    fn apply(&mut self, by: Actor, kind: Kind) -> Result<Answer, Code> {
        self.draws += 1;
        let mut random = [0; 32];
        random[..2].copy_from_slice(&self.draws.to_be_bytes());
        random[16..18].copy_from_slice(&self.draws.to_be_bytes());
        let policy = Some(PolicyVerdict { allowed: true, rule: Some(0), hash: genesis().policy });
        let command = Command { at: UnixMicros(self.now), by, random, policy, kind };
        let applied = self.broker.apply(&command);
        self.broker.check_invariants().unwrap_or_else(|rule| panic!("{rule}: {command:?}"));
        applied.answer.map_err(|error| error.code())
    }

    fn node(&self, at: usize) -> Option<&Node> {
        self.nodes.iter().find(|node| node.said.name.as_str() == NAMES[at])
    }

    /// Bytes, regions and reservations of a provider.
    fn taken(&self, id: ProviderId) -> (u64, u32, u32) {
        let there = self.held.iter().filter(|held| held.at == id);
        let waits = |held: &&Held| matches!(held.stage, Stage::Reserved | Stage::Ending(false));
        let claims = there.clone().filter(waits).count() as u32;
        there.fold((0, 0, claims), |(bytes, regions, claims), held| (bytes + held.bytes, regions + 1, claims))
    }

    /// Who must get the lease, or with which code it must be refused.
    fn place(&self, bytes: u64, class: Option<&str>, near: Option<&str>) -> Result<ProviderId, Code> {
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.lost.is_none()).collect();
        if alive.is_empty() {
            return Err(Code::ProviderLost);
        }
        if self.held.len() >= LEASES {
            return Err(Code::Busy);
        }
        let open: Vec<&Node> = alive
            .into_iter()
            .filter(|node| !node.draining && self.now - node.heard <= SILENT_AFTER)
            .collect();
        if open.is_empty() {
            return Err(Code::Busy);
        }
        let names =
            |node: &Node| class.is_some_and(|class| node.said.classes.iter().any(|c| c.as_str() == class));
        let mut fit = Vec::new();
        for node in open {
            let (taken, regions, claims) = self.taken(node.said.id);
            let room = node.said.bytes >= taken + bytes && node.said.regions > regions;
            if !room || !(node.said.classes.is_empty() || names(node)) {
                continue;
            }
            let mut score = 1_000 * (node.said.bytes - taken - bytes) / node.said.bytes * 2;
            score += (1_000 - (u64::from(claims) * 1_000 / 32).min(1_000)) * 2;
            score += 1_000 - (u64::from(node.sessions) * 1_000 / SESSIONS_MAX as u64).min(1_000);
            if near.is_some() && near == node.said.locality.as_ref().map(|label| label.as_str()) {
                score += 6_000;
            }
            if names(node) {
                score += 12_000;
            }
            fit.push((std::cmp::Reverse(score), node.said.name.clone(), node.said.id));
        }
        fit.into_iter().min().map(|(_, _, id)| id).ok_or(Code::NoMemory)
    }

    fn lose(&mut self, at: usize) {
        let now = self.now;
        let node = self.nodes.iter_mut().find(|node| node.said.name.as_str() == NAMES[at]).unwrap();
        node.lost = Some(now);
        let id = node.said.id;
        self.held.retain(|held| held.at != id);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Register { at, pages, regions, class, label, again } => {
                let known = self.node(at).cloned();
                let id = match &known {
                    Some(node) if again => node.said.id,
                    _ if again && !self.over.is_empty() => {
                        self.over[usize::from(self.draws) % self.over.len()]
                    }
                    _ => ProviderId(
                        [self.draws.to_be_bytes(), [0xaa; 2]].concat().repeat(4).try_into().unwrap(),
                    ),
                };
                let said = Registration {
                    id,
                    name: name(NAMES[at]),
                    address: None,
                    bytes: pages * PAGE,
                    regions,
                    classes: class.map(|class| name(LABELS[class])).into_iter().collect(),
                    locality: label.map(|label| name(LABELS[label])),
                };
                let here = self.nodes.iter().find(|node| node.said.id == id);
                let expected = match here {
                    Some(node) if node.lost.is_none() => Err(Code::Exists),
                    Some(_) => Err(Code::Epoch),
                    None if self.over.contains(&id) => Err(Code::Epoch),
                    None if known.is_none()
                        && self.nodes.len() == ROWS
                        && self.nodes.iter().all(|node| node.lost.is_none()) =>
                    {
                        Err(Code::Busy)
                    }
                    None => Ok(()),
                };
                let kind = Kind::ProviderRegister { provider: said.clone(), attached: false };
                assert_eq!(self.apply(Actor::System, kind).map(drop), expected);
                if expected.is_ok() {
                    let draining = known.as_ref().is_some_and(|node| node.draining);
                    if known.is_some() {
                        self.lose(at);
                        self.nodes.retain(|node| node.said.name != said.name);
                    } else if self.nodes.len() == ROWS {
                        let first = self.nodes.iter().filter(|node| node.lost.is_some());
                        let first =
                            first.min_by_key(|node| (node.lost, node.said.name.clone())).unwrap().said.id;
                        self.nodes.retain(|node| node.said.id != first);
                        self.over.push(first);
                    }
                    self.over.extend(known.map(|node| node.said.id));
                    self.nodes.push(Node { said, draining, lost: None, heard: self.now, sessions: 0 });
                }
            }
            Op::Heartbeat { at, sessions } => {
                let Some(node) = self.node(at).cloned() else { return };
                let load = Load { sessions, committed_bytes: 7 };
                let answer =
                    self.apply(Actor::System, Kind::ProviderHeartbeat { provider: node.said.id, load });
                assert_eq!(answer.is_ok(), node.lost.is_none());
                let now = self.now;
                if answer.is_ok() {
                    let node = self.nodes.iter_mut().find(|other| other.said.id == node.said.id).unwrap();
                    (node.heard, node.sessions) = (now, sessions);
                }
            }
            Op::Lost(at) => {
                let Some(node) = self.node(at).cloned() else { return };
                let answer = self.apply(Actor::System, Kind::ProviderLost { provider: node.said.id });
                let expected = if node.lost.is_some() { Err(Code::Exists) } else { Ok(()) };
                assert_eq!(answer.map(drop), expected);
                if expected.is_ok() {
                    self.lose(at);
                }
            }
            Op::Drain { at, drain, by } => {
                let kind = Kind::ProviderDrain { name: name(NAMES[at]), drain };
                let expected = match (by, self.node(at)) {
                    (1.., _) => Err(Code::PrincipalUnknown),
                    (0, None) => Err(Code::Range),
                    (0, Some(_)) => Ok(()),
                };
                assert_eq!(self.apply(Actor::Principal(public(by)), kind).map(drop), expected);
                if let (Ok(()), Some(node)) =
                    (expected, self.nodes.iter_mut().find(|node| node.said.name.as_str() == NAMES[at]))
                {
                    node.draining = drain;
                }
            }
            Op::Reserve { pages, class, near } => {
                let bytes = pages * PAGE;
                let (class, near) = (class.map(|n| LABELS[n]), near.map(|n| LABELS[n]));
                let expected = self.place(bytes, class, near);
                let spec = LeaseSpec {
                    bytes,
                    ttl: Micros(1 << 39),
                    name: None,
                    class: class.map(name),
                    lifetime: Lifetime::Detached,
                    segment_bytes: None,
                    max_hops: 0,
                    near: near.map(name),
                };
                let answer = self.apply(Actor::Principal(public(0)), Kind::Reserve { spec, session: 1 });
                let placed = answer.map(|answer| match answer {
                    Answer::Reserved(ticket, provider) => (ticket.lease, provider),
                    other => panic!("{other:?}"),
                });
                assert_eq!(placed.map(|(_, provider)| provider), expected, "{:?}", self.nodes);
                if let Ok((id, at)) = placed {
                    self.placed += 1;
                    self.held.push(Held { id, at, bytes, stage: Stage::Reserved });
                    self.explained(id, at);
                }
            }
            Op::Commit(back) => {
                if let Some(held) = self.nth(back, |stage| stage == Stage::Reserved) {
                    let kind = Kind::Commit { lease: held.id, bytes: held.bytes };
                    self.apply(Actor::System, kind).unwrap();
                    self.set(held.id, Stage::Live);
                }
            }
            Op::Abandon(back) => {
                if let Some(held) = self.nth(back, |stage| stage == Stage::Reserved) {
                    self.apply(Actor::System, Kind::Abandon { lease: held.id }).unwrap();
                    self.set(held.id, Stage::Ending(false));
                }
            }
            Op::Release(back) => {
                if let Some(held) = self.nth(back, |stage| stage == Stage::Live) {
                    let by = Actor::Principal(public(0));
                    self.apply(by, Kind::Release { lease: held.id }).unwrap();
                    self.set(held.id, Stage::Ending(true));
                }
            }
            Op::Taken(back) => {
                if let Some(held) = self.nth(back, |stage| matches!(stage, Stage::Ending(_))) {
                    self.apply(Actor::System, Kind::Taken { lease: held.id }).unwrap();
                    self.held.retain(|other| other.id != held.id);
                }
            }
            Op::Pass(time) => self.now += time,
            Op::Restore => {
                let restored = Broker::restore(&self.broker.snapshot()).unwrap();
                assert_eq!(restored, self.broker);
                self.broker = restored;
            }
        }
        self.compare();
    }

    fn nth(&self, back: usize, suits: impl Fn(Stage) -> bool) -> Option<Held> {
        self.held.iter().rev().filter(|held| suits(held.stage)).nth(back).copied()
    }

    fn set(&mut self, id: LeaseId, stage: Stage) {
        self.held.iter_mut().find(|held| held.id == id).unwrap().stage = stage;
    }

    fn view(&self, query: Query) -> View {
        self.broker.query(public(0), &query, UnixMicros(self.now)).unwrap()
    }

    /// What a lease says of its place names every provider that there was, the one that has it first.
    fn explained(&self, id: LeaseId, at: ProviderId) {
        let View::Lease(row) = self.view(Query::Lease(id)) else { panic!() };
        let placement = row.placement.unwrap();
        let node = self.nodes.iter().find(|node| node.said.id == at).unwrap();
        assert_eq!((row.provider, &placement.node), (at, &node.said.name));
        assert_eq!((placement.considered.len(), placement.others), (self.nodes.len(), 0));
        let first = &placement.considered[0];
        assert_eq!((&first.node, first.verdict), (&placement.node, Verdict::Chosen));
        let chosen = placement.considered.iter().filter(|one| one.verdict == Verdict::Chosen);
        assert_eq!(chosen.count(), 1);
    }

    /// Every provider's row, and that every lease that has not ended lives at one that is there.
    fn compare(&self) {
        let View::Status(status) = self.view(Query::Status) else { panic!() };
        assert_eq!(status.providers.len(), self.nodes.len());
        for row in &status.providers {
            let node = self.nodes.iter().find(|node| node.said.id == row.id).unwrap();
            let state = match (node.lost, node.draining) {
                (Some(_), _) => ProviderState::Lost,
                (None, true) => ProviderState::Draining,
                (None, false) => ProviderState::Up,
            };
            let (bytes, regions, _) = self.taken(row.id);
            assert_eq!((row.state, row.load.sessions), (state, node.sessions));
            assert_eq!((row.reserved_bytes + row.committed_bytes, row.taken_regions), (bytes, regions));
            assert!(bytes <= row.bytes && regions <= row.regions, "oversold");
            assert_eq!(row.silent_for, Micros(self.now - node.heard));
        }
        for held in &self.held {
            let View::Lease(row) = self.view(Query::Lease(held.id)) else { panic!() };
            let node = self.nodes.iter().find(|node| node.said.id == row.provider).unwrap();
            assert!(
                row.provider == held.at && node.lost.is_none() && row.cause != Some(EndCause::ProviderLost)
            );
        }
        assert_eq!(status.leases as usize, self.held.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn placements_are_those_of_a_naive_table_and_never_oversell(
        ops in proptest::collection::vec(ops(), 1..120)
    ) {
        let mut pair = Pair::new();
        for op in ops {
            pair.step(op);
        }
    }
}

#[test]
fn the_stories_place_leases() {
    // Or the lockstep would hold of nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut placed = 0;
    for _ in 0..64 {
        let ops = proptest::collection::vec(ops(), 60).new_tree(&mut runner).unwrap();
        let mut pair = Pair::new();
        for op in ops.current() {
            pair.step(op);
        }
        placed += pair.placed;
    }
    assert!(placed > 64 * 3, "{placed}");
}
