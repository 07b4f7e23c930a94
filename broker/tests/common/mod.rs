//! A small cluster with known keys, whose state is checked after every step.
#![allow(dead_code, unreachable_pub)] // each test target uses a part

use audit::{Draft, Event, Outcome};
use broker::state::{
    Acceptance, Actor, Answer, Applied, Broker, Command, Effect, Genesis, Kind, PolicyVerdict, Query, View,
};
use caps::id::{GrantId, LeaseId, PrincipalKey, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::{Micros, UnixMicros};
use caps::wire::link::{ClaimTicket, Notice, Take};
use caps::wire::provider::Registration;
use caps::wire::request::LeaseSpec;
use caps::wire::row::{Lifetime, Revocation, Target};
use caps::wire::{Name, Reason};
use caps::{Code, Result};

pub const PAGE: u64 = 4096;
pub const START: u64 = 1_000_000;

/// The key of actor `n`. 0 is the administrator.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub fn public(n: u8) -> PrincipalKey {
    key(n).public()
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn genesis() -> Genesis {
    Genesis { admin: public(0), ..broker::fuzzing::small_genesis() }
}

/// The provider that the cluster begins with.
pub fn own() -> Registration {
    genesis().provider.unwrap()
}

/// Its `n`th life comes.
pub fn comes(n: u8) -> Kind {
    Kind::ProviderRegister { provider: Registration { id: ProviderId([n; 16]), ..own() }, attached: true }
}

/// What it says unasked.
pub fn notice(notice: Notice) -> Kind {
    Kind::Notice { provider: own().id, notice }
}

pub fn allowed() -> PolicyVerdict {
    PolicyVerdict { allowed: true, rule: Some(0), hash: genesis().policy }
}

pub fn spec(bytes: u64, ttl: u64) -> LeaseSpec {
    LeaseSpec {
        bytes,
        ttl: Micros(ttl),
        name: None,
        class: None,
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    }
}

pub struct World {
    pub broker: Broker,
    pub now: u64,
    draws: u8,
    lives: u16,
}

impl World {
    /// Actors 1, 2 and 3 are registered; actor 3 is called `small`, which has a small quota; actor 4 is a stranger.
    pub fn new() -> Self {
        let mut world = Self { broker: Broker::new(genesis()).unwrap(), now: START, draws: 0, lives: 0 };
        for (n, text) in [(1, "alice"), (2, "bob"), (3, "small")] {
            let kind = Kind::PrincipalAdd { name: name(text), key: public(n) };
            world.by(0, kind).answer.unwrap();
        }
        world
    }

    pub fn command(&mut self, by: Actor, kind: Kind) -> Command {
        self.draws = self.draws.wrapping_add(1); // few commands of a test draw ids
        let mut random = [self.draws; 32];
        random[16..].fill(self.draws ^ 0x80);
        Command { at: UnixMicros(self.now), by, random, policy: Some(allowed()), kind }
    }

    pub fn apply(&mut self, command: &Command) -> Applied {
        let before = self.broker.clone();
        let applied = self.broker.apply(command);
        self.broker.check_invariants().unwrap_or_else(|rule| panic!("{rule}: {command:?}"));
        if let (Err(error), false) = (&applied.answer, matches!(command.kind, Kind::Issue { .. })) {
            assert!(applied.effects.is_empty(), "a refusal has no effect: {error}");
            assert_eq!(before.query(public(0), &Query::Status, UnixMicros(self.now)), {
                self.broker.query(public(0), &Query::Status, UnixMicros(self.now))
            });
        }
        applied
    }

    pub fn by(&mut self, n: u8, kind: Kind) -> Applied {
        let command = self.command(Actor::Principal(public(n)), kind);
        self.apply(&command)
    }

    pub fn system(&mut self, kind: Kind) -> Applied {
        let command = self.command(Actor::System, kind);
        self.apply(&command)
    }

    /// The provider that the cluster began with is lost.
    pub fn lose(&mut self) -> Applied {
        self.system(Kind::ProviderLost { provider: own().id, proved: true })
    }

    /// Another life of it comes, which no other one had.
    pub fn restart(&mut self) -> Applied {
        self.lives += 1;
        let mut id = [0x77; 16];
        id[..2].copy_from_slice(&self.lives.to_be_bytes());
        let provider = Registration { id: ProviderId(id), ..own() };
        self.system(Kind::ProviderRegister { provider, attached: true })
    }

    pub fn tick_at(&mut self, now: u64) -> Applied {
        self.now = now;
        self.system(Kind::Tick)
    }

    pub fn reserve(&mut self, n: u8, spec: LeaseSpec) -> Result<ClaimTicket> {
        match self.by(n, Kind::Reserve { spec, session: u64::from(n) }).answer? {
            Answer::Reserved(ticket, _) => Ok(ticket),
            other => panic!("{other:?}"),
        }
    }

    /// A live lease.
    pub fn lease(&mut self, n: u8, bytes: u64, ttl: u64) -> ClaimTicket {
        self.lease_as(n, spec(bytes, ttl))
    }

    pub fn lease_as(&mut self, n: u8, spec: LeaseSpec) -> ClaimTicket {
        let ticket = self.reserve(n, spec).unwrap();
        self.system(Kind::Commit { lease: ticket.lease, bytes: ticket.bytes }).answer.unwrap();
        ticket
    }

    pub fn contract(&self, ticket: &ClaimTicket, grant: u8, receiver: u8) -> ShareContract {
        ShareContract {
            cluster: genesis().cluster,
            grant: GrantId([grant; 16]),
            lease: ticket.lease,
            region: ticket.region,
            owner: ticket.owner,
            receiver: public(receiver),
            rights: Rights::READ,
            range: ByteRange::new(0, PAGE).unwrap(),
            ttl: Micros(500),
            max_hops: 1,
            cosigner: None,
        }
    }

    pub fn offer(&mut self, n: u8, contract: ShareContract) -> Applied {
        self.by(n, Kind::Offer { contract, signature: contract.sign(&key(n)) })
    }

    pub fn issue(&mut self, n: u8, grant: u8) -> Applied {
        self.by(n, Kind::Issue { grant: GrantId([grant; 16]) })
    }

    pub fn accept(&mut self, n: u8, contract: &ShareContract, lifetime: Lifetime) -> Applied {
        let signature = contract.sign(&key(n));
        let session = 70 + u64::from(n);
        self.by(n, Kind::Accept(Acceptance { grant: contract.grant, signature, lifetime, session }))
    }

    /// An accepted grant of a lease of actor 1's to actor 2.
    pub fn accepted(&mut self, ticket: &ClaimTicket, grant: u8) -> ShareContract {
        let contract = self.contract(ticket, grant, 2);
        self.offer(1, contract).answer.unwrap();
        self.issue(1, grant).answer.unwrap();
        self.accept(2, &contract, Lifetime::Detached).answer.unwrap();
        contract
    }

    pub fn revoke(&mut self, n: u8, target: Target) -> Applied {
        self.by(n, Kind::Revoke(Revocation { target, reason: Reason::new("why").unwrap() }))
    }

    pub fn view(&self, n: u8, query: Query) -> Result<View> {
        self.broker.query(public(n), &query, UnixMicros(self.now))
    }

    /// Leases and leased bytes of an actor, as the administrator sees them.
    pub fn used(&self, n: u8) -> (u32, u64) {
        let View::Principals(page) = self.view(0, Query::Principals(None)).unwrap() else { panic!() };
        let row = page.rows.into_iter().find(|row| row.key == public(n)).unwrap();
        (row.leases, row.leased_bytes)
    }

    pub fn status(&self) -> broker::state::StatusView {
        match self.view(0, Query::Status).unwrap() {
            View::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

pub fn code<T>(answer: Result<T>) -> Option<Code> {
    answer.err().map(|error| error.code())
}

/// The events of entries, refusals marked with their code.
pub fn events(entries: &[Draft]) -> Vec<(Event, Option<Code>)> {
    entries
        .iter()
        .map(|draft| {
            assert_eq!(draft.outcome() == Outcome::Ok, draft.code().is_none());
            (draft.event(), draft.code())
        })
        .collect()
}

/// Leases and grants that the provider is to take.
pub fn takes(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Take(..))).count() - marked(effects).len()
}

/// What it is to take below grants.
pub fn marked(effects: &[Effect]) -> Vec<Take> {
    let marks = effects.iter().filter_map(|effect| match effect {
        Effect::Take(take @ Take::Marks { .. }, _) => Some(*take),
        _ => None,
    });
    marks.collect()
}

pub const NO_LEASE: LeaseId = LeaseId([0xee; 16]);
pub const NO_GRANT: GrantId = GrantId([0xee; 16]);
pub const NO_REGION: RegionId = RegionId([0xee; 16]);
