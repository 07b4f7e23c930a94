//! The state machine and a naive one in lockstep: the same answers, the same rows, the same books, whatever is asked
//! in whatever order. And replicas: the same commands give the same bytes.

mod common;
mod naive;

use broker::state::{Acceptance, Actor, Broker, Command, Kind, Narrowing, PolicyVerdict, Query, Undo, View};
use caps::Code;
use caps::id::{GrantId, LeaseId, RegionId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::{Micros, UnixMicros};
use caps::wire::Reason;
use caps::wire::link::Notice;
use caps::wire::provider::Registration;
use caps::wire::request::LeaseSpec;
use caps::wire::row::{EndCause, Lifetime, Revocation, Target};
use common::{PAGE, START, code, genesis, marked, name, own, public, takes};
use naive::{Left, Life, NAMES, Naive};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// A step, with rows named by small numbers: leases by how many reservations ago, grants by how many offers ago.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add(u8),
    Reserve { bytes: u64, ttl: u64, named: bool, tied: bool },
    Commit { back: usize, wrong: bool },
    Abandon(usize),
    Renew { back: usize, ttl: u64 },
    Release(usize),
    Offer { back: usize, again: bool, receiver: u8, bytes: u64, ttl: u64, signed: bool },
    Issue(usize),
    Accept { grant: usize, signed: bool, tied: bool },
    RevokeLease(usize),
    RevokeRegion(usize),
    RevokeGrant(usize),
    RevokeSubtree { lease: bool, back: usize },
    RevokeHolder(u8),
    Tick,
    Ended(usize, EndCause),
    Opened(usize),
    GrantEnded(usize, EndCause),
    Taken(usize),
    Exit(u8),
    Lost,
    Up,
    UndoLease(usize),
    UndoOffer(usize),
    UndoAccept(usize),
    UndoAdd(u8),
    Narrow { grant: usize, named: Left },
    Propose { back: usize, receiver: u8, cosigner: u8, bytes: u64, ttl: u64, signed: bool },
    Cosign { grant: usize, signed: bool },
}

#[derive(Clone, Copy, Debug)]
struct Step {
    by: u8,
    /// Whether the one asks instead who may: owner or receiver.
    right: bool,
    allowed: bool,
    /// Microseconds from the time of the step before; may go back.
    after: i64,
    op: Op,
}

fn op() -> impl Strategy<Value = Op> {
    let back = || prop_oneof![3 => Just(0usize), 2 => 1..4usize];
    let grant = || prop_oneof![3 => Just(0usize), 2 => 1..4usize];
    let ttl = || prop_oneof![6 => Just(2_000u64), 4 => Just(9_000u64), 1 => prop::sample::select(vec![0u64, 9, 10, 60, 50_000])];
    let bytes = || prop_oneof![6 => Just(PAGE), 4 => 1..4 * PAGE, 1 => prop::sample::select(vec![0, 16 * PAGE, 17 * PAGE])];
    let cause = || prop::sample::select(vec![EndCause::Expired, EndCause::HolderExit, EndCause::Released]);
    prop_oneof![
        10 => (0..5u8).prop_map(Op::Add),
        40 => (bytes(), ttl(), prop::bool::weighted(0.3), any::<bool>())
            .prop_map(|(bytes, ttl, named, tied)| Op::Reserve { bytes, ttl, named, tied }),
        50 => (back(), prop::bool::weighted(0.05)).prop_map(|(back, wrong)| Op::Commit { back, wrong }),
        3 => back().prop_map(Op::Abandon),
        12 => (back(), ttl()).prop_map(|(back, ttl)| Op::Renew { back, ttl }),
        6 => back().prop_map(Op::Release),
        50 => (back(), prop::bool::weighted(0.1), 0..5u8, 1..2 * PAGE, ttl(), prop::bool::weighted(0.9)).prop_map(
            |(back, again, receiver, bytes, ttl, signed)| Op::Offer { back, again, receiver, bytes, ttl, signed }
        ),
        50 => grant().prop_map(Op::Issue),
        50 => (grant(), prop::bool::weighted(0.9), any::<bool>())
            .prop_map(|(grant, signed, tied)| Op::Accept { grant, signed, tied }),
        5 => back().prop_map(Op::RevokeLease),
        3 => back().prop_map(Op::RevokeRegion),
        6 => grant().prop_map(Op::RevokeGrant),
        5 => (any::<bool>(), back()).prop_map(|(lease, back)| Op::RevokeSubtree { lease, back }),
        3 => (0..5u8).prop_map(Op::RevokeHolder),
        16 => Just(Op::Tick),
        6 => (back(), cause()).prop_map(|(back, cause)| Op::Ended(back, cause)),
        30 => grant().prop_map(Op::Opened),
        6 => (grant(), cause()).prop_map(|(grant, cause)| Op::GrantEnded(grant, cause)),
        24 => back().prop_map(Op::Taken),
        3 => (0..5u8).prop_map(Op::Exit),
        1 => Just(Op::Lost),
        24 => Just(Op::Up),
        3 => back().prop_map(Op::UndoLease),
        3 => grant().prop_map(Op::UndoOffer),
        5 => grant().prop_map(Op::UndoAccept),
        2 => prop::sample::select(vec![0u8, 1, 2, 3, 3, 3, 3, 4, 4, 4]).prop_map(Op::UndoAdd),
        14 => (grant(), named()).prop_map(|(grant, named)| Op::Narrow { grant, named }),
        20 => (back(), 0..5u8, 0..5u8, 1..2 * PAGE, ttl(), prop::bool::weighted(0.9)).prop_map(
            |(back, receiver, cosigner, bytes, ttl, signed)| Op::Propose { back, receiver, cosigner, bytes, ttl, signed }
        ),
        20 => (grant(), prop::bool::weighted(0.9)).prop_map(|(grant, signed)| Op::Cosign { grant, signed }),
    ]
}

/// What a narrowing names; `until` as a span.
fn named() -> impl Strategy<Value = Left> {
    let rights = prop::option::of(prop::bool::weighted(0.7));
    let bytes = prop::option::of(prop_oneof![3 => 1..PAGE, 1 => 1..2 * PAGE]);
    let span = prop::sample::select(vec![0u64, 5, 60, 60, 500, 500, 1_900, 9_000]);
    (rights, bytes, prop::option::of(span)).prop_map(|(read_only, bytes, until)| Left {
        read_only,
        bytes,
        until,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![150 => 0..6i64, 10 => 0..120i64, 8 => -50..0i64, 1 => 0..20_000i64];
    // Alice asks most, so that steps meet each other.
    let by = prop_oneof![1 => Just(0u8), 5 => Just(1u8), 3 => Just(2u8), 1 => Just(3u8), 1 => Just(4u8)];
    let step = (by, prop::bool::weighted(0.85), prop::bool::weighted(0.95), after, op());
    let step = step.prop_map(|(by, right, allowed, after, op)| Step { by, right, allowed, after, op });
    prop::collection::vec(step, 1..160)
}

/// Keys are drawn once: deriving them is the slowest part of a step.
fn signing(n: u8) -> &'static SigningKey {
    static KEYS: OnceLock<Vec<SigningKey>> = OnceLock::new();
    &KEYS.get_or_init(|| (0..5).map(common::key).collect())[usize::from(n)]
}

struct Lockstep {
    broker: Broker,
    naive: Naive,
    clock: i64,
    draws: u8,
    ids: Vec<(LeaseId, RegionId)>,
    contracts: Vec<ShareContract>,
    commands: Vec<Command>,
    yes: BTreeSet<&'static str>,
    /// The provider as it came last.
    provider: Registration,
}

impl Lockstep {
    fn new() -> Self {
        let mut new = Self {
            broker: Broker::new(genesis()).unwrap(),
            naive: Naive::new(),
            clock: START as i64,
            draws: 0,
            ids: Vec::new(),
            contracts: Vec::new(),
            commands: Vec::new(),
            yes: BTreeSet::new(),
            provider: own(),
        };
        for n in 1..4 {
            new.step(Step { by: 0, right: false, allowed: true, after: 0, op: Op::Add(n) });
        }
        new
    }

    /// The lease that was reserved so many reservations ago; one that never was if there is none. A step that is to
    /// succeed counts those only to which `op` can be done.
    fn id(&self, back: usize, op: Option<&Op>) -> (LeaseId, RegionId) {
        let suits = |id: &LeaseId| match (self.naive.lease(*id).map(|lease| lease.life), op) {
            (_, None) => true,
            (Some(Life::Reserved { .. }), Some(Op::Commit { .. } | Op::Abandon(_))) => true,
            (
                Some(Life::Live { expires }),
                Some(Op::Renew { .. } | Op::Offer { .. } | Op::Propose { .. }),
            ) => self.naive.now < expires,
            (Some(Life::Ending { .. }), Some(Op::Taken(_))) => true,
            (Some(_), Some(op)) => !matches!(
                op,
                Op::Commit { .. }
                    | Op::Abandon(_)
                    | Op::Renew { .. }
                    | Op::Offer { .. }
                    | Op::Propose { .. }
                    | Op::Taken(_)
            ),
            (None, Some(_)) => false,
        };
        let suited: Vec<_> = self.ids.iter().rev().filter(|(id, _)| suits(id)).collect();
        match suited.len() {
            0 => (common::NO_LEASE, common::NO_REGION),
            n if op.is_some() => *suited[back % n],
            n if back < n => *suited[back],
            _ => (common::NO_LEASE, common::NO_REGION),
        }
    }

    /// The grant that was offered so many offers ago, as [`Self::id`].
    fn grant_id(&self, back: usize, op: Option<&Op>) -> GrantId {
        let suits = |id: GrantId| match (self.naive.grant(id).map(|grant| grant.step), op) {
            (_, None) => true,
            (Some(naive::Step::Offered { .. }), Some(Op::Issue(_))) => true,
            (Some(naive::Step::Offered { .. }), Some(Op::Cosign { .. })) => {
                self.naive.grant(id).is_some_and(|grant| grant.cosigner.is_some() && !grant.cosigned)
            }
            (Some(naive::Step::Issued { .. }), Some(Op::Accept { .. })) => true,
            (Some(naive::Step::Accepted { open, .. }), Some(Op::Opened(_) | Op::UndoAccept(_))) => !open,
            (Some(step), Some(Op::Narrow { .. })) => {
                matches!(step, naive::Step::Issued { .. } | naive::Step::Accepted { .. })
            }
            (Some(_), Some(op)) => !matches!(
                op,
                Op::Issue(_) | Op::Accept { .. } | Op::Opened(_) | Op::UndoAccept(_) | Op::Cosign { .. }
            ),
            (None, Some(_)) => false,
        };
        let ids = self.contracts.iter().rev().map(|contract| contract.grant);
        let suited: Vec<_> = ids.filter(|id| suits(*id)).collect();
        match suited.len() {
            0 => common::NO_GRANT,
            n if op.is_some() => suited[back % n],
            n if back < n => suited[back],
            _ => common::NO_GRANT,
        }
    }

    fn contract(&self, grant: GrantId) -> ShareContract {
        let known = self.contracts.iter().rev().find(|contract| contract.grant == grant);
        known
            .copied()
            .unwrap_or_else(|| self.draft((common::NO_LEASE, common::NO_REGION), 1, grant, 2, 1, 10))
    }

    fn draft(
        &self,
        (lease, region): (LeaseId, RegionId),
        by: u8,
        grant: GrantId,
        receiver: u8,
        bytes: u64,
        ttl: u64,
    ) -> ShareContract {
        ShareContract {
            cluster: genesis().cluster,
            grant,
            lease,
            region,
            owner: public_of(by),
            receiver: public_of(receiver),
            rights: Rights::READ_WRITE,
            range: ByteRange::new(0, bytes).unwrap(),
            ttl: Micros(ttl),
            max_hops: 0,
            cosigner: None,
        }
    }

    /// Who may do `op`, as far as somebody in particular may.
    fn rightful(&self, op: &Op) -> Option<u8> {
        let grant = |back| self.naive.grant(self.grant_id(back, Some(op)));
        let owner = |back| self.naive.lease(self.id(back, Some(op)).0).map(|lease| lease.owner);
        match *op {
            Op::Add(_) => Some(0),
            Op::Renew { back, .. }
            | Op::Release(back)
            | Op::Offer { back, .. }
            | Op::Propose { back, .. } => owner(back),
            Op::RevokeLease(back) | Op::RevokeRegion(back) => owner(back),
            Op::Issue(n) | Op::RevokeGrant(n) | Op::Narrow { grant: n, .. } => {
                grant(n).map(|grant| grant.owner)
            }
            Op::Accept { grant: n, .. } => grant(n).map(|grant| grant.receiver),
            Op::Cosign { grant: n, .. } => grant(n).and_then(|grant| grant.cosigner),
            _ => None,
        }
    }

    /// The command of a step, and what the naive broker says to it.
    fn translate(&mut self, step: Step, random: [u8; 32]) -> (Kind, Result<(), Code>) {
        let Step { by, allowed, op, .. } = step;
        let aim = step.right.then_some(&op);
        let revoke = |target| Kind::Revoke(Revocation { target, reason: Reason::default() });
        match op {
            Op::Add(n) => {
                let kind = Kind::PrincipalAdd { name: name(NAMES[usize::from(n)]), key: public_of(n) };
                (kind, self.naive.add(by, n))
            }
            Op::Reserve { bytes, ttl, named, tied } => {
                let ids =
                    (LeaseId(random[..16].try_into().unwrap()), RegionId(random[16..].try_into().unwrap()));
                let spec = LeaseSpec {
                    bytes,
                    ttl: Micros(ttl),
                    name: named.then(|| name("scratch")),
                    class: None,
                    lifetime: if tied { Lifetime::Process } else { Lifetime::Detached },
                    segment_bytes: None,
                    max_hops: 0,
                    near: None,
                };
                let said = self.naive.reserve(by, ids, bytes, ttl, named, tied, allowed);
                if said.is_ok() {
                    self.ids.push(ids);
                }
                (Kind::Reserve { spec, session: by.into() }, said)
            }
            Op::Commit { back, wrong } => {
                let lease = self.id(back, aim).0;
                let bytes = self.naive.lease(lease).map_or(PAGE, |lease| lease.bytes) + u64::from(wrong);
                (Kind::Commit { lease, bytes }, self.naive.commit(lease, bytes))
            }
            Op::Abandon(back) => {
                let lease = self.id(back, aim).0;
                (Kind::Abandon { lease }, self.naive.abandon(lease))
            }
            Op::Renew { back, ttl } => {
                let lease = self.id(back, aim).0;
                (Kind::Renew { lease, ttl: Micros(ttl) }, self.naive.renew(by, lease, ttl, allowed))
            }
            Op::Release(back) => {
                let lease = self.id(back, aim).0;
                (Kind::Release { lease }, self.naive.release(by, lease))
            }
            Op::Offer { back, again, receiver, bytes, ttl, signed } => {
                let fresh = GrantId([self.draws; 16]);
                let id = if again { self.grant_id(0, None) } else { fresh };
                let contract = self.draft(self.id(back, aim), by, id, receiver, bytes, ttl);
                let signer = if signed { by } else { (by + 1) % 5 };
                let signature = contract.sign(signing(signer));
                let said = self.naive.offer(by, contract.lease, contract.grant, receiver, bytes, ttl, signed);
                if said.is_ok() {
                    self.contracts.push(contract);
                }
                (Kind::Offer { contract, signature }, said)
            }
            Op::Issue(grant) => {
                let grant = self.grant_id(grant, aim);
                (Kind::Issue { grant }, self.naive.issue(by, grant, allowed))
            }
            Op::Accept { grant, signed, tied } => {
                let contract = self.contract(self.grant_id(grant, aim));
                let signer = if signed { by } else { (by + 1) % 5 };
                let acceptance = Acceptance {
                    grant: contract.grant,
                    signature: contract.sign(signing(signer)),
                    lifetime: if tied { Lifetime::Process } else { Lifetime::Detached },
                    session: by.into(),
                };
                (Kind::Accept(acceptance), self.naive.accept(by, contract.grant, signed, tied, allowed))
            }
            Op::RevokeLease(back) => {
                let lease = self.id(back, aim).0;
                (revoke(Target::Lease(lease)), self.naive.revoke_lease(by, lease, allowed))
            }
            Op::RevokeRegion(back) => {
                let region = self.id(back, aim).1;
                (revoke(Target::Region(region)), self.naive.revoke_region(by, region, allowed))
            }
            Op::RevokeGrant(grant) => {
                let grant = self.grant_id(grant, aim);
                (revoke(Target::Grant(grant)), self.naive.revoke_grant(by, grant, allowed))
            }
            Op::RevokeSubtree { lease, back } => {
                let root = if lease { GrantId(self.id(back, aim).0.0) } else { self.grant_id(back, aim) };
                (revoke(Target::Subtree(root)), self.naive.revoke_subtree(by, root, allowed))
            }
            Op::RevokeHolder(n) => {
                (revoke(Target::Holder(public_of(n))), self.naive.revoke_holder(by, n, allowed))
            }
            Op::Tick => {
                self.naive.tick();
                (Kind::Tick, Ok(()))
            }
            Op::Ended(back, cause) => {
                let lease = self.id(back, aim).0;
                (
                    Kind::Notice { provider: self.provider.id, notice: Notice::LeaseEnded { lease, cause } },
                    self.naive.ended(lease, cause),
                )
            }
            Op::Opened(grant) => {
                let grant = self.grant_id(grant, aim);
                (
                    Kind::Notice { provider: self.provider.id, notice: Notice::GrantOpened { grant } },
                    self.naive.opened(grant),
                )
            }
            Op::GrantEnded(grant, cause) => {
                let grant = self.grant_id(grant, aim);
                (
                    Kind::Notice { provider: self.provider.id, notice: Notice::GrantEnded { grant, cause } },
                    self.naive.grant_ended(grant, cause),
                )
            }
            Op::Taken(back) => {
                let lease = self.id(back, aim).0;
                (Kind::Taken { lease }, self.naive.taken(lease))
            }
            Op::Exit(session) => {
                self.naive.exit(session);
                (Kind::HolderExit { session: session.into() }, Ok(()))
            }
            Op::Lost => {
                (Kind::ProviderLost { provider: self.provider.id, proved: true }, self.naive.provider_lost())
            }
            Op::Up => {
                self.provider.id.0[0] = self.provider.id.0[0].wrapping_add(1); // a story has fewer steps
                self.naive.provider_comes();
                (Kind::ProviderRegister { provider: self.provider.clone(), attached: true }, Ok(()))
            }
            Op::UndoLease(back) => {
                let lease = self.id(back, aim).0;
                self.naive.end(lease, EndCause::NotRecorded);
                (Kind::Undo(Undo::Lease { lease }), Ok(()))
            }
            Op::UndoOffer(grant) => {
                let grant = self.grant_id(grant, aim);
                self.naive.take_grant(grant, EndCause::NotRecorded);
                (Kind::Undo(Undo::Offer { grant }), Ok(()))
            }
            Op::UndoAccept(grant) => {
                let grant = self.grant_id(grant, aim);
                self.naive.unaccept(grant);
                (Kind::Undo(Undo::Accept { grant }), Ok(()))
            }
            Op::Narrow { grant, named } => {
                let grant = self.grant_id(grant, aim);
                let kind = Kind::Narrow(Narrowing {
                    grant,
                    rights: named.read_only.map(rights_of),
                    range: named.bytes.map(|bytes| ByteRange::new(0, bytes).unwrap()),
                    ttl: named.until.map(Micros),
                });
                (kind, self.naive.narrow(by, grant, named, allowed))
            }
            Op::Propose { back, receiver, cosigner, bytes, ttl, signed } => {
                let id = GrantId([self.draws; 16]);
                let drawn = self.draft(self.id(back, aim), by, id, receiver, bytes, ttl);
                let contract = ShareContract { cosigner: Some(public_of(cosigner)), ..drawn };
                let signature = contract.sign(signing(if signed { by } else { (by + 1) % 5 }));
                let said = self.naive.propose(
                    by,
                    contract.lease,
                    id,
                    (receiver, cosigner),
                    bytes,
                    ttl,
                    signed,
                    allowed,
                );
                if said.is_ok() {
                    self.contracts.push(contract);
                }
                (Kind::OfferToCosign { contract, signature, uid: Some(by.into()) }, said)
            }
            Op::Cosign { grant, signed } => {
                let contract = self.contract(self.grant_id(grant, aim));
                let signature = contract.sign(signing(if signed { by } else { (by + 1) % 5 }));
                let said = self.naive.cosign(by, contract.grant, signed);
                (Kind::Cosign { grant: contract.grant, signature }, said)
            }
            Op::UndoAdd(n) => {
                let said = self.naive.unregister(n);
                (Kind::Undo(Undo::PrincipalAdd { key: public_of(n) }), said)
            }
        }
    }

    fn step(&mut self, mut step: Step) {
        if step.right {
            step.by = self.rightful(&step.op).unwrap_or(step.by);
        }
        self.clock = (self.clock + step.after).max(0);
        self.draws = self.draws.wrapping_add(1);
        let mut random = [self.draws; 32];
        random[..16].fill(self.draws ^ 0xff);
        // Never the id that stands for none.
        random[7] = 1;
        let at = self.clock as u64;
        self.naive.at(at);
        let (kind, said) = self.translate(step, random);
        let asked = matches!(
            kind,
            Kind::PrincipalAdd { .. }
                | Kind::Reserve { .. }
                | Kind::Renew { .. }
                | Kind::Release { .. }
                | Kind::Offer { .. }
                | Kind::Issue { .. }
                | Kind::Accept(_)
                | Kind::Revoke(_)
                | Kind::Narrow(_)
                | Kind::OfferToCosign { .. }
                | Kind::Cosign { .. }
        );
        let by = if asked { Actor::Principal(public_of(step.by)) } else { Actor::System };
        let policy = Some(PolicyVerdict { allowed: step.allowed, rule: None, hash: genesis().policy });
        let command = Command { at: UnixMicros(at), by, random, policy, kind };
        let applied = self.broker.apply(&command);
        let detail = applied.answer.as_ref().err().map(ToString::to_string);
        assert_eq!(code(applied.answer), said.err(), "{step:?}: {detail:?}");
        let told = takes(&applied.effects) + marked(&applied.effects).len();
        assert_eq!(told, self.naive.takes, "{step:?}");
        if said.is_ok() {
            self.yes.insert(variant(&step.op));
        }
        self.commands.push(command);
        self.broker.check_invariants().unwrap_or_else(|rule| panic!("{rule}: {step:?}"));
        self.compare();
    }

    fn compare(&self) {
        let look = |query| self.broker.query(public_of(0), &query, UnixMicros(0)).unwrap();
        let View::Leases(leases) = look(Query::Leases(None)) else { panic!() };
        assert_eq!(leases.rows.len(), self.naive.leases.len());
        for row in leases.rows {
            let lease = self.naive.lease(row.id).unwrap();
            let shown = (row.state, row.cause, row.expires_in.0);
            assert_eq!(shown, self.naive.lease_state(lease), "{row:?}");
            assert_eq!((row.epoch, row.grants as usize), (lease.epoch, self.naive.grants_of(row.id)));
            assert_eq!((row.range.len(), row.owner), (lease.bytes, public_of(lease.owner)));
        }
        let View::Grants(grants) = look(Query::Grants(None)) else { panic!() };
        assert_eq!(grants.rows.len(), self.naive.grants.len());
        for row in grants.rows {
            let grant = self.naive.grant(row.id).unwrap();
            assert_eq!((row.state, row.cause), self.naive.grant_state(grant), "{row:?}");
            let cosigner = row.cosigner.map(|third| (third.key, third.signed));
            assert_eq!(cosigner, grant.cosigner.map(|n| (public_of(n), grant.cosigned)));
            let left = rights_of(grant.left.read_only == Some(true));
            assert_eq!((row.rights, row.agreed.rights), (left, Rights::READ_WRITE));
            let left = grant.left.bytes.unwrap_or(grant.bytes);
            assert_eq!((row.range.len(), row.agreed.range.len()), (left, grant.bytes));
        }
        let View::Principals(principals) = look(Query::Principals(None)) else { panic!() };
        assert_eq!(principals.rows.len(), self.naive.registered.len());
        for row in principals.rows {
            let n = (0..5).find(|n| public_of(*n) == row.key).unwrap();
            let live = |life| matches!(life, naive::Life::Live { .. });
            assert_eq!((row.leases, row.leased_bytes), self.naive.sum(Some(n), live));
        }
        let View::Status(status) = look(Query::Status) else { panic!() };
        let active = self.naive.sum(None, |life| !matches!(life, naive::Life::Ended { .. }));
        assert_eq!((status.leases, status.grants as usize), (active.0, self.naive.active_grants()));
        // What one principal sees is its own part of what all see.
        for n in 1..5 {
            if let Ok(View::Leases(mine)) =
                self.broker.query(public_of(n), &Query::Leases(None), UnixMicros(0))
            {
                let owned = self.naive.leases.iter().filter(|lease| lease.owner == n).count();
                assert_eq!(mine.rows.len(), owned);
            }
        }
    }
}

fn rights_of(read_only: bool) -> Rights {
    if read_only { Rights::READ } else { Rights::READ_WRITE }
}

fn public_of(n: u8) -> caps::id::PrincipalKey {
    static KEYS: OnceLock<Vec<caps::id::PrincipalKey>> = OnceLock::new();
    KEYS.get_or_init(|| (0..5).map(public).collect())[usize::from(n)]
}

/// The name of an operation.
fn variant(op: &Op) -> &'static str {
    match op {
        Op::Add(_) => "add",
        Op::Reserve { .. } => "reserve",
        Op::Commit { .. } => "commit",
        Op::Abandon(_) => "abandon",
        Op::Renew { .. } => "renew",
        Op::Release(_) => "release",
        Op::Offer { .. } => "offer",
        Op::Issue(_) => "issue",
        Op::Accept { .. } => "accept",
        Op::RevokeLease(_) => "revoke lease",
        Op::RevokeRegion(_) => "revoke region",
        Op::RevokeGrant(_) => "revoke grant",
        Op::RevokeSubtree { .. } => "revoke subtree",
        Op::RevokeHolder(_) => "revoke holder",
        Op::Tick => "tick",
        Op::Ended(..) => "ended",
        Op::Opened(_) => "opened",
        Op::GrantEnded(..) => "grant ended",
        Op::Taken(_) => "taken",
        Op::Exit(_) => "exit",
        Op::Lost => "lost",
        Op::Up => "up",
        Op::UndoLease(_) => "undo lease",
        Op::UndoOffer(_) => "undo offer",
        Op::UndoAccept(_) => "undo accept",
        Op::UndoAdd(_) => "undo add",
        Op::Narrow { .. } => "narrow",
        Op::Propose { .. } => "propose",
        Op::Cosign { .. } => "cosign",
    }
}

/// How many different operations must have been answered with a yes somewhere in a run, or the model tests nothing.
const KINDS: usize = 29;

#[test]
fn a_naive_broker_says_the_same() {
    let mut reached = BTreeSet::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let seen = std::cell::RefCell::new(&mut reached);
    runner
        .run(&steps(), |steps| {
            let mut lockstep = Lockstep::new();
            for step in steps {
                lockstep.step(step);
            }
            seen.borrow_mut().extend(lockstep.yes);
            Ok(())
        })
        .unwrap();
    assert_eq!(reached.len(), KINDS, "{reached:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, failure_persistence: None, ..ProptestConfig::default() })]

    /// Replicas that are fed the same commands, one of them restored from a snapshot half way, end in the same bytes
    /// and have said and recorded the same.
    #[test]
    fn replicas_agree(steps in steps(), half in any::<prop::sample::Index>()) {
        let mut lockstep = Lockstep::new();
        for step in steps {
            lockstep.step(step);
        }
        let commands = lockstep.commands;
        let half = half.index(commands.len());
        let (mut one, mut two) = (Broker::new(genesis()).unwrap(), Broker::new(genesis()).unwrap());
        for (at, command) in commands.iter().enumerate() {
            if at == half {
                two = Broker::restore(&two.snapshot()).unwrap();
                prop_assert_eq!(&two, &one);
            }
            let bytes = broker::fuzzing::encode(command);
            let travelled: Command = ciborium::from_reader(&bytes[..]).unwrap();
            prop_assert_eq!(&travelled, command);
            let (first, second) = (one.apply(command), two.apply(&travelled));
            prop_assert_eq!(first, second);
        }
        prop_assert_eq!(one.snapshot(), two.snapshot());
        prop_assert_eq!(one.snapshot(), lockstep.broker.snapshot());
        let stream: Vec<u8> = commands.iter().flat_map(broker::fuzzing::encode).collect();
        broker::fuzzing::command_any(&stream);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        broker::fuzzing::command_any(&bytes);
    }
}
