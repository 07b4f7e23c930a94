//! A naive broker beside the real one: rows in two lists, searched from end to end, no books, no indices, no timers. It
//! says beforehand which code a command is answered with, and which row is in which step afterwards.
//!
//! Two things are not its own. Whether a table or a quota is full it does not know: where it could be, both answers are
//! admitted and the real one is followed. And how long an ended row is still listed it sees from the broker.

use caps::Code;
use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::{Rest, ShareContract};
use caps::time::{Micros, UnixMicros};
use caps::wire::row::{GrantState, LeaseState, Target};

use super::story::public;
use crate::state::{Bounds, Broker, Genesis, Narrowing, Query, TokenCut, Undo, View};

/// What a command is answered with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Yes,
    No(Code),
}

/// The same, and whether a table or a quota may say no instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) said: Said,
    full: bool,
}

impl Verdict {
    pub(super) const fn yes() -> Self {
        Self { said: Said::Yes, full: false }
    }

    pub(super) const fn no(code: Code) -> Self {
        Self { said: Said::No(code), full: false }
    }

    const fn unless_full(self) -> Self {
        Self { full: true, ..self }
    }

    pub(super) fn admits(&self, code: Option<Code>) -> bool {
        let full = self.full && matches!(code, Some(Code::Quota | Code::Busy | Code::NoMemory));
        full || match self.said {
            Said::Yes => code.is_none(),
            Said::No(no) => code == Some(no),
        }
    }
}

impl From<Result<(), Code>> for Verdict {
    fn from(said: Result<(), Code>) -> Self {
        said.map_or_else(Self::no, |()| Self::yes())
    }
}

/// Where a row is in its life, for choosing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Reserved,
    Live,
    Ending,
    Offered,
    Issued,
    Out,
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Reserved {
        by: u64,
    },
    Live {
        expires: u64,
    },
    Ending,
    /// With a provider that may still serve it, until then.
    Lost {
        until: u64,
    },
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: LeaseId,
    region: RegionId,
    owner: u8,
    bytes: u64,
    ttl: u64,
    tied: bool,
    life: Life,
    /// When it was committed, 0 before.
    since: u64,
    /// Whether a revoke ended it.
    revoked: bool,
    /// Whether the loss of its provider did.
    lost: bool,
    /// Whether only its time says that it is over.
    unproved: bool,
    /// Which life of the provider has it.
    at: u32,
    /// The latest end that the provider may have been told.
    latest: u64,
    /// No longer listed.
    gone: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Offered { by: u64 },
    Issued { by: u64, expires: u64 },
    Out { by: u64, expires: u64, session: Option<u64>, open: bool },
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    contract: ShareContract,
    owner: u8,
    step: Step,
    left: Option<Rest>,
    /// Whether its receiver signed, which is kept for as long as the row is.
    accepted: bool,
    gone: bool,
}

impl Lease {
    /// Whether a tick at `now` ends it.
    const fn is_over_at(&self, now: u64) -> bool {
        matches!(self.life, Life::Live { expires } if expires <= now)
    }

    const fn stage(&self) -> Stage {
        match self.life {
            Life::Reserved { .. } => Stage::Reserved,
            Life::Live { .. } => Stage::Live,
            Life::Ending | Life::Lost { .. } => Stage::Ending,
            Life::Ended => Stage::Over,
        }
    }
}

impl Grant {
    const fn stage(&self) -> Stage {
        match self.step {
            Step::Offered { .. } => Stage::Offered,
            Step::Issued { .. } => Stage::Issued,
            Step::Out { .. } => Stage::Out,
            Step::Over => Stage::Over,
        }
    }

    fn rest(&self) -> Option<Rest> {
        let (Step::Issued { expires, .. } | Step::Out { expires, .. }) = self.step else { return None };
        let ShareContract { rights, range, .. } = self.contract;
        Some(self.left.unwrap_or(Rest { rights, range, expires: UnixMicros(expires) }))
    }

    fn deadline(&self) -> Option<u64> {
        let own = match self.step {
            Step::Offered { by } | Step::Issued { by, .. } => by,
            Step::Out { expires, .. } => expires,
            Step::Over => return None,
        };
        Some(self.left.map_or(own, |left| own.min(left.expires.0)))
    }
}

/// What a command changes.
#[derive(Clone, Debug)]
struct Rows {
    registered: Vec<u8>,
    leases: Vec<Lease>,
    grants: Vec<Grant>,
    up: bool,
    /// The present life of the provider, or the last one.
    life: u32,
    /// Whether it is known to be gone.
    proved: bool,
}

impl Rows {
    fn end_grants(&mut self, which: impl Fn(&Grant) -> bool) {
        self.grants.iter_mut().filter(|grant| which(grant)).for_each(|grant| grant.step = Step::Over);
    }

    fn end_leases(&mut self, which: impl Fn(&Lease) -> bool) {
        for lease in self.leases.iter_mut().filter(|lease| which(lease)) {
            if let Life::Reserved { .. } | Life::Live { .. } = lease.life {
                lease.life = Life::Ending;
                let id = lease.id;
                self.grants.iter_mut().filter(|g| g.contract.lease == id).for_each(|g| g.step = Step::Over);
            }
        }
    }

    fn revoke_leases(&mut self, which: impl Fn(&Lease) -> bool) {
        let lives = |lease: &Lease| matches!(lease.life, Life::Reserved { .. } | Life::Live { .. });
        self.leases
            .iter_mut()
            .filter(|lease| which(lease) && lives(lease))
            .for_each(|lease| lease.revoked = true);
        self.end_leases(which);
    }

    /// What the provider has is lost with it; `proved`: and gone.
    fn lose(&mut self, proved: bool, skew: u64) {
        for lease in &mut self.leases {
            lease.lost |= matches!(lease.life, Life::Reserved { .. } | Life::Live { .. });
            if let Life::Reserved { .. } | Life::Live { .. } | Life::Ending = lease.life {
                lease.life = Life::Lost { until: lease.latest + skew };
            }
        }
        self.grants.iter_mut().for_each(|grant| grant.step = Step::Over);
        if proved {
            self.close_leases(|_| true);
        }
        (self.up, self.proved) = (false, proved);
    }

    fn close_leases(&mut self, which: impl Fn(&Lease) -> bool) {
        for lease in self.leases.iter_mut().filter(|lease| which(lease) && !matches!(lease.life, Life::Ended))
        {
            lease.life = Life::Ended;
            let id = lease.id;
            self.grants.iter_mut().filter(|g| g.contract.lease == id).for_each(|g| g.step = Step::Over);
        }
    }
}

/// The naive broker.
#[derive(Debug)]
pub(super) struct Model {
    /// SHA-256 of the policy in force.
    pub(super) policy: [u8; 32],
    /// What the next command says that the time is.
    pub(super) clock: u64,
    bounds: Bounds,
    people: u8,
    now: u64,
    rows: Rows,
    /// The rows after a yes, and after a no.
    after: [Option<Rows>; 2],
}

type Outcome = Result<(), Code>;

impl Model {
    pub(super) fn new(genesis: &Genesis, people: u8) -> Self {
        Self {
            policy: genesis.policy,
            clock: genesis.at.0,
            bounds: genesis.bounds,
            people,
            now: genesis.at.0,
            rows: Rows {
                registered: vec![0],
                leases: Vec::new(),
                grants: Vec::new(),
                up: true,
                life: 0,
                proved: false,
            },
            after: [None, None],
        }
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// The next command comes at `clock`, and time never goes back.
    pub(super) fn proceed(&mut self, clock: u64) {
        self.clock = clock;
        self.now = self.now.max(clock);
    }

    /// The command was answered.
    pub(super) fn settle(&mut self, yes: bool) {
        let [after_yes, after_no] = std::mem::take(&mut self.after);
        if let Some(rows) = if yes { after_yes } else { after_no } {
            self.rows = rows;
        }
    }

    /// What a yes changes.
    fn then(&mut self, change: impl FnOnce(&mut Rows)) {
        let mut rows = self.rows.clone();
        change(&mut rows);
        self.after[0] = Some(rows);
    }

    fn may(&self, by: u8) -> Outcome {
        if self.rows.registered.contains(&by) { Ok(()) } else { Err(Code::PrincipalUnknown) }
    }

    fn lease(&self, id: LeaseId) -> Result<Lease, Code> {
        let listed = self.rows.leases.iter().find(|lease| lease.id == id && !lease.gone);
        listed.copied().ok_or(Code::LeaseUnknown)
    }

    fn grant(&self, id: GrantId) -> Result<Grant, Code> {
        let listed = self.rows.grants.iter().find(|grant| grant.contract.grant == id && !grant.gone);
        listed.copied().ok_or(Code::GrantUnknown)
    }

    fn party(&self, by: u8, id: GrantId) -> Result<Grant, Code> {
        let grant = self.grant(id)?;
        let concerned = by == 0 || grant.owner == by || grant.contract.receiver == public(by);
        if concerned { Ok(grant) } else { Err(Code::GrantUnknown) }
    }

    fn live(&self, by: u8, id: LeaseId) -> Result<u64, Code> {
        let lease = self.lease(id).ok().filter(|lease| lease.owner == by).ok_or(Code::LeaseUnknown)?;
        match lease.life {
            Life::Reserved { .. } => Err(Code::Busy),
            Life::Live { expires } if self.now < expires => Ok(expires),
            _ if lease.revoked => Err(Code::TokenRevoked),
            _ if lease.lost => Err(Code::ProviderLost),
            Life::Live { .. } | Life::Ending | Life::Lost { .. } | Life::Ended => Err(Code::LeaseExpired),
        }
    }

    fn ttl(&self, ttl: u64) -> Outcome {
        let bounds = self.bounds.ttl_min.0..=self.bounds.ttl_max.0;
        if bounds.contains(&ttl) { Ok(()) } else { Err(Code::Range) }
    }

    /// A lease so many reservations ago, among those that suit if any does.
    pub(super) fn pick_lease(&self, back: usize, suits: fn(Stage) -> bool) -> Option<usize> {
        let suited: Vec<_> =
            (0..self.rows.leases.len()).filter(|at| suits(self.rows.leases[*at].stage())).collect();
        let all: Vec<_> = (0..self.rows.leases.len()).collect();
        pick(if suited.is_empty() { &all } else { &suited }, back)
    }

    pub(super) fn pick_grant(&self, back: usize, suits: fn(Stage) -> bool) -> Option<GrantId> {
        let ids = |suits: fn(Stage) -> bool| {
            let suited = self.rows.grants.iter().filter(|grant| suits(grant.stage()));
            suited.map(|grant| grant.contract.grant).collect::<Vec<_>>()
        };
        pick(&ids(suits), back).or_else(|| pick(&ids(|_| true), back))
    }

    /// The step that leads on, as a story numbers them: what the newest row waits for.
    pub(super) fn onward(&self) -> u8 {
        let grants = |stage| self.rows.grants.iter().filter(|grant| grant.stage() == stage).count();
        let leases = |stage| self.rows.leases.iter().filter(|lease| lease.stage() == stage).count();
        match () {
            () if grants(Stage::Issued) > 0 => 13,
            () if grants(Stage::Offered) > 0 => 11,
            () if leases(Stage::Reserved) > 0 => 3,
            () if leases(Stage::Live) == 0 => 0,
            () if grants(Stage::Out) < 2 => 8,
            () => 20,
        }
    }

    pub(super) fn lease_names(&self, at: usize) -> (LeaseId, RegionId, Option<u8>) {
        let lease = &self.rows.leases[at];
        (lease.id, lease.region, Some(lease.owner))
    }

    pub(super) fn bytes(&self, id: LeaseId) -> Option<u64> {
        self.lease(id).ok().map(|lease| lease.bytes)
    }

    pub(super) fn since(&self, id: LeaseId) -> UnixMicros {
        UnixMicros(self.lease(id).map_or(0, |lease| lease.since))
    }

    pub(super) fn contract(&self, id: GrantId) -> Option<ShareContract> {
        self.grant(id).ok().map(|grant| grant.contract)
    }

    pub(super) fn left(&self, id: GrantId) -> Option<Rest> {
        self.grant(id).ok().and_then(|grant| grant.rest())
    }

    /// Whether its receiver has a token of it that some clock may take for one.
    pub(super) fn is_out(&self, id: GrantId) -> bool {
        let ends = |expires: u64| expires.saturating_add(self.bounds.skew.0);
        self.grant(id)
            .is_ok_and(|grant| matches!(grant.step, Step::Out { expires, .. } if self.now < ends(expires)))
    }

    pub(super) fn add(&mut self, by: u8, n: u8) -> Verdict {
        let said = self.may(by).and_then(|()| match by {
            0 if self.rows.registered.contains(&n) => Err(Code::Exists),
            0 if self.rows.registered.len() >= 4 => Err(Code::Busy),
            0 => Ok(()),
            _ => Err(Code::NotAdmin),
        });
        self.then(|rows| rows.registered.push(n));
        said.into()
    }

    pub(super) fn reserve(
        &mut self,
        by: u8,
        (id, region): (LeaseId, RegionId),
        bytes: u64,
        ttl: u64,
        tied: bool,
        permitted: Outcome,
    ) -> Verdict {
        let sized = self.bounds.lease_bytes_min..=self.bounds.lease_bytes_max;
        let said = self.may(by).and_then(|()| {
            if !sized.contains(&bytes) {
                return Err(Code::Range);
            }
            self.ttl(ttl)?;
            if !self.rows.up {
                return Err(Code::ProviderLost);
            }
            permitted
        });
        let by_then = self.now + self.bounds.claim_within.0;
        let life = Life::Reserved { by: by_then };
        let bytes = bytes.next_multiple_of(self.bounds.page_bytes);
        self.then(|rows| {
            rows.leases.push(Lease {
                id,
                region,
                owner: by,
                bytes,
                ttl,
                tied,
                life,
                since: 0,
                revoked: false,
                lost: false,
                unproved: false,
                at: rows.life,
                latest: by_then.saturating_add(ttl),
                gone: false,
            });
        });
        let verdict = Verdict::from(said);
        if said.is_ok() { verdict.unless_full() } else { verdict }
    }

    pub(super) fn commit(&mut self, id: LeaseId, bytes: u64) -> Verdict {
        let said = self.lease(id).and_then(|lease| match lease.life {
            Life::Live { .. } => Err(Code::Exists),
            Life::Lost { .. } => Err(Code::ProviderLost),
            Life::Ending | Life::Ended => Err(Code::LeaseExpired),
            Life::Reserved { by } if by <= self.now => Err(Code::LeaseExpired),
            Life::Reserved { .. } if bytes != lease.bytes => Err(Code::Internal),
            Life::Reserved { .. } => Ok(()),
        });
        let now = self.now;
        self.then(|rows| {
            let lease = rows.leases.iter_mut().filter(|lease| lease.id == id);
            lease.for_each(|lease| {
                (lease.life, lease.since) = (Life::Live { expires: now + lease.ttl }, now);
            });
        });
        said.into()
    }

    fn expire(&mut self, id: LeaseId, at: u64) {
        let told = at.saturating_add(self.bounds.claim_within.0);
        self.then(|rows| {
            for lease in rows.leases.iter_mut().filter(|lease| lease.id == id) {
                if let Life::Live { expires } = &mut lease.life {
                    lease.latest = lease.latest.max(told);
                    *expires = at;
                }
            }
        });
    }

    pub(super) fn renew(&mut self, by: u8, id: LeaseId, ttl: u64, permitted: Outcome) -> Verdict {
        let said = self.may(by).and_then(|()| self.ttl(ttl)).and_then(|()| self.live(by, id).map(drop));
        self.expire(id, self.now.saturating_add(ttl));
        said.and(permitted).into()
    }

    pub(super) fn release(&mut self, by: u8, id: LeaseId) -> Verdict {
        let own = self.lease(id).ok().filter(|lease| lease.owner == by).map(drop).ok_or(Code::LeaseUnknown);
        self.then(|rows| rows.end_leases(|lease| lease.id == id));
        self.may(by).and(own).into()
    }

    pub(super) fn offer(
        &mut self,
        by: u8,
        genesis: &Genesis,
        contract: &ShareContract,
        signed: bool,
    ) -> Verdict {
        let said = self.may(by).and_then(|()| {
            if contract.cluster != genesis.cluster {
                return Err(Code::Epoch);
            }
            self.live(by, contract.lease)?;
            let lease = self.lease(contract.lease)?;
            if contract.owner != public(by) || contract.region != lease.region {
                return Err(Code::LeaseUnknown);
            }
            if !self.rows.registered.iter().any(|n| public(*n) == contract.receiver) {
                return Err(Code::PrincipalUnknown);
            }
            let sound = contract.receiver != public(by)
                && !contract.rights.is_empty()
                && contract.range.end() <= lease.bytes
                && (1..=UnixMicros::MAX.0).contains(&contract.ttl.0)
                && contract.max_hops <= 7;
            if !sound {
                return Err(Code::Range);
            }
            if self.grant(contract.grant).is_ok() { Err(Code::Exists) } else { Ok(()) }
        });
        let step = Step::Offered { by: self.now + self.bounds.claim_within.0 };
        self.then(|rows| {
            rows.grants.retain(|grant| grant.contract.grant != contract.grant);
            rows.grants.push(Grant {
                contract: *contract,
                owner: by,
                step,
                left: None,
                accepted: false,
                gone: false,
            });
        });
        match said {
            Ok(()) if signed => Verdict::yes().unless_full(),
            Ok(()) => Verdict::no(Code::ContractSignature).unless_full(),
            Err(code) => Verdict::no(code),
        }
    }

    fn set(&mut self, id: GrantId, change: impl Fn(&mut Grant)) {
        self.then(|rows| rows.grants.iter_mut().filter(|grant| grant.contract.grant == id).for_each(change));
    }

    pub(super) fn issue(&mut self, by: u8, id: GrantId, permitted: Outcome) -> Verdict {
        let offered = self.may(by).and_then(|()| self.party(by, id)).and_then(|grant| match grant.step {
            _ if grant.owner != by => Err(Code::Denied),
            Step::Offered { by: until } => Ok((grant.contract, until)),
            _ => Err(Code::ShareOrder),
        });
        let (contract, until) = match offered {
            Ok(offered) => offered,
            Err(code) => return Verdict::no(code),
        };
        // Refused for good from here on.
        let mut rows = self.rows.clone();
        rows.end_grants(|grant| grant.contract.grant == id);
        self.after[1] = Some(rows);
        if until <= self.now {
            return Verdict::no(Code::LeaseExpired);
        }
        let expires = match self.live(by, contract.lease) {
            Ok(expires) => expires.min(self.now.saturating_add(contract.ttl.0)),
            Err(code) => return Verdict::no(code),
        };
        let by = expires.min(self.now + self.bounds.accept_within.0);
        self.set(id, |grant| grant.step = Step::Issued { by, expires });
        match permitted {
            Ok(()) => Verdict::yes().unless_full(),
            Err(code) => Verdict::no(code),
        }
    }

    pub(super) fn accept(
        &mut self,
        by: u8,
        id: GrantId,
        signed: bool,
        tied: bool,
        permitted: Outcome,
    ) -> Verdict {
        let said = self.may(by).and_then(|()| self.party(by, id)).and_then(|grant| {
            if grant.contract.receiver != public(by) {
                return Err(Code::Denied);
            }
            let Step::Issued { .. } = grant.step else { return Err(Code::ShareOrder) };
            let over = grant.deadline().is_none_or(|deadline| deadline <= self.now);
            if over || self.live(grant.owner, grant.contract.lease).is_err() {
                return Err(Code::LeaseExpired);
            }
            permitted?;
            if signed { Ok(()) } else { Err(Code::ContractSignature) }
        });
        let session = tied.then_some(u64::from(by));
        self.set(id, |grant| {
            if let Step::Issued { by, expires } = grant.step {
                grant.step = Step::Out { by, expires, session, open: false };
                grant.accepted = true;
            }
        });
        said.into()
    }

    /// Whether the provider is there, and has the lease.
    fn has(&self, id: LeaseId, ours: bool) -> Outcome {
        if !self.rows.up || !ours {
            return Err(Code::Epoch);
        }
        let there = self.lease(id).is_ok_and(|lease| lease.at == self.rows.life);
        if there { Ok(()) } else { Err(Code::LeaseUnknown) }
    }

    /// The same of a grant.
    fn has_grant(&self, id: GrantId, ours: bool) -> Result<Grant, Code> {
        let grant = self.grant(id);
        let lease = grant.map_or(LeaseId([0; 16]), |grant| grant.contract.lease);
        match self.has(lease, ours) {
            Err(Code::LeaseUnknown) => Err(Code::GrantUnknown),
            Err(code) => Err(code),
            Ok(()) => grant,
        }
    }

    pub(super) fn opened(&mut self, id: GrantId) -> Verdict {
        let said = self.has_grant(id, true).and_then(|grant| match grant.step {
            Step::Out { open: false, .. } => Ok(()),
            _ => Err(Code::ShareOrder),
        });
        self.set(id, |grant| {
            if let Step::Out { open, .. } = &mut grant.step {
                *open = true;
            }
        });
        said.into()
    }

    fn permitted(by: u8, permitted: Outcome) -> Outcome {
        if by == 0 { Ok(()) } else { permitted }
    }

    pub(super) fn narrow(&mut self, by: u8, narrowing: &Narrowing, permitted: Outcome) -> Verdict {
        let said = self.may(by).and(Self::permitted(by, permitted)).and_then(|()| {
            let grant = self.party(by, narrowing.grant)?;
            if grant.owner != by && by != 0 {
                return Err(Code::Denied);
            }
            let before = grant.rest().ok_or(Code::ShareOrder)?;
            if grant.deadline().is_none_or(|deadline| deadline <= self.now) {
                return Err(Code::ShareOrder);
            }
            self.narrower(before, narrowing)
        });
        if let Ok(left) = said {
            self.set(narrowing.grant, |grant| grant.left = Some(left));
        }
        said.map(drop).into()
    }

    fn narrower(&self, before: Rest, narrowing: &Narrowing) -> Result<Rest, Code> {
        let Narrowing { rights, range, ttl, .. } = *narrowing;
        let expires = ttl.map_or(before.expires.0, |Micros(ttl)| self.now + ttl);
        let (rights, bytes): (Rights, ByteRange) =
            (rights.unwrap_or(before.rights), range.unwrap_or(before.range));
        let nothing = narrowing.rights.is_none() && range.is_none() && ttl.is_none();
        if nothing || rights.is_empty() || expires <= self.now {
            return Err(Code::Range);
        }
        if rights.bits() & !before.rights.bits() != 0 {
            return Err(Code::Denied);
        }
        let within = before.range.start() <= bytes.start() && bytes.end() <= before.range.end();
        if !within || expires > before.expires.0 {
            return Err(Code::Range);
        }
        Ok(Rest { rights, range: bytes, expires: UnixMicros(expires) })
    }

    fn concerned(&self, by: u8, id: LeaseId) -> Result<LeaseId, Code> {
        let lease = self.lease(id)?;
        if by == 0 || lease.owner == by { Ok(id) } else { Err(Code::LeaseUnknown) }
    }

    pub(super) fn revoke(&mut self, by: u8, target: &Target, permitted: Outcome) -> Verdict {
        if let Err(code) = self.may(by).and(Self::permitted(by, permitted)) {
            return Verdict::no(code);
        }
        let said = match target {
            Target::Lease(id) => self.revoke_lease(by, *id),
            Target::Region(region) => {
                let of = self.rows.leases.iter().find(|lease| lease.region == *region && !lease.gone);
                of.map(|lease| lease.id).ok_or(Code::LeaseUnknown).and_then(|id| self.revoke_lease(by, id))
            }
            Target::Grant(id) => self.revoke_grant(by, *id),
            Target::Subtree(root) if self.party(by, *root).is_ok() => self.revoke_grant(by, *root),
            Target::Subtree(root) => match self.revoke_lease(by, LeaseId(root.0)) {
                Err(Code::LeaseUnknown) => Err(Code::GrantUnknown),
                said => said,
            },
            Target::Holder(holder) => self.revoke_holder(by, *holder),
            Target::Block { lease, .. } => self.revoke_block(by, *lease),
        };
        said.into()
    }

    /// There is a receipt of it.
    fn provable(&self, id: LeaseId) -> Outcome {
        let unproved = self.lease(id).is_ok_and(|lease| lease.unproved);
        if unproved { Err(Code::ProviderLost) } else { Ok(()) }
    }

    fn revoke_lease(&mut self, by: u8, id: LeaseId) -> Outcome {
        self.concerned(by, id)?;
        self.provable(id)?;
        self.then(|rows| rows.revoke_leases(|lease| lease.id == id));
        Ok(())
    }

    fn revoke_grant(&mut self, by: u8, id: GrantId) -> Outcome {
        let grant = self.party(by, id)?;
        self.provable(grant.contract.lease)?;
        self.then(|rows| rows.end_grants(|grant| grant.contract.grant == id));
        Ok(())
    }

    fn revoke_holder(&mut self, by: u8, holder: PrincipalKey) -> Outcome {
        let all = by == 0 || public(by) == holder;
        let mine = |lease: &Lease| {
            let given_out = match lease.life {
                Life::Live { .. } | Life::Lost { .. } => true,
                Life::Ending => lease.since > 0,
                Life::Reserved { .. } | Life::Ended => false,
            };
            given_out && (by == 0 || lease.owner == by)
        };
        let known = self.rows.registered.iter().any(|n| public(*n) == holder);
        if !known && !self.rows.leases.iter().any(mine) {
            return Err(Code::PrincipalUnknown);
        }
        let given = |grant: &Grant| grant.contract.receiver == holder && (all || grant.owner == by);
        let gave = self.rows.grants.iter().any(|grant| !grant.gone && given(grant));
        if !all && !gave && !self.rows.leases.iter().any(mine) {
            return Err(Code::GrantUnknown);
        }
        let now = self.now;
        self.then(|rows| {
            rows.end_grants(given);
            rows.revoke_leases(|lease| all && public(lease.owner) == holder);
            // Whoever may be a delegate on a lease is taken off it, and a lease whose time is over is found to be that.
            rows.end_leases(|lease| mine(lease) && lease.is_over_at(now));
        });
        Ok(())
    }

    fn revoke_block(&mut self, by: u8, id: LeaseId) -> Outcome {
        self.concerned(by, id)?;
        self.provable(id)?;
        self.tick_one(id);
        Ok(())
    }

    pub(super) fn revoke_token(&mut self, by: u8, cut: &TokenCut, permitted: Outcome) -> Verdict {
        let may = if cut.held { Ok(()) } else { self.may(by) };
        let said = may.and(Self::permitted(by, permitted)).and_then(|()| {
            let owner = self.lease(cut.lease)?.owner;
            if let Some(grant) = cut.grant
                && self.grant(grant)?.contract.lease != cut.lease
            {
                return Err(Code::GrantUnknown);
            }
            let party = cut.grant.is_some_and(|grant| self.party(by, grant).is_ok());
            if by == 0 || by == owner || party || cut.held { Ok(()) } else { Err(Code::Denied) }
        });
        let said = said.and_then(|()| self.provable(cut.lease));
        if said.is_ok() {
            self.tick_one(cut.lease);
        }
        said.into()
    }

    /// Ends a lease whose time is over and whose tick is still to come.
    fn tick_one(&mut self, id: LeaseId) {
        let now = self.now;
        self.then(|rows| rows.end_leases(|lease| lease.id == id && lease.is_over_at(now)));
    }

    pub(super) fn tick(&mut self) -> Verdict {
        let now = self.now;
        self.then(|rows| {
            rows.end_leases(|lease| match lease.life {
                Life::Reserved { by: at } | Life::Live { expires: at } => at <= now,
                Life::Ending | Life::Lost { .. } | Life::Ended => false,
            });
            for lease in &mut rows.leases {
                if matches!(lease.life, Life::Lost { until } if until <= now) {
                    (lease.life, lease.unproved) = (Life::Ended, true);
                }
            }
            rows.end_grants(|grant| grant.deadline().is_some_and(|at| at <= now));
        });
        Verdict::yes()
    }

    pub(super) fn taken(&mut self, id: LeaseId) -> Verdict {
        let said = self.lease(id).and_then(|lease| match lease.life {
            Life::Reserved { .. } | Life::Live { .. } => Err(Code::Protocol),
            Life::Ending | Life::Lost { .. } | Life::Ended => Ok(()),
        });
        self.then(|rows| rows.close_leases(|lease| lease.id == id));
        said.into()
    }

    pub(super) fn lease_ended(&mut self, id: LeaseId, ours: bool) -> Verdict {
        self.then(|rows| rows.close_leases(|lease| lease.id == id));
        self.has(id, ours).into()
    }

    pub(super) fn grant_ended(&mut self, id: GrantId, ours: bool) -> Verdict {
        self.set(id, |grant| grant.step = Step::Over);
        self.has_grant(id, ours).map(drop).into()
    }

    pub(super) fn exit(&mut self, session: u64) -> Verdict {
        self.then(|rows| {
            rows.end_leases(|lease| lease.tied && u64::from(lease.owner) == session);
            rows.end_grants(
                |grant| matches!(grant.step, Step::Out { session: Some(of), .. } if of == session),
            );
        });
        Verdict::yes()
    }

    pub(super) fn lost(&mut self, proved: bool) -> Verdict {
        let skew = self.bounds.skew.0;
        self.then(|rows| rows.lose(proved, skew));
        let new = self.rows.up || (proved && !self.rows.proved);
        if new { Verdict::yes() } else { Verdict::no(Code::Exists) }
    }

    pub(super) fn up(&mut self) -> Verdict {
        self.then(|rows| {
            rows.lose(true, 0);
            rows.up = true;
            rows.life += 1;
        });
        Verdict::yes()
    }

    pub(super) const fn is_up(&self) -> bool {
        self.rows.up
    }

    /// The same life of the provider comes again.
    pub(super) fn again(&mut self) -> Verdict {
        if self.rows.up { Verdict::no(Code::Exists) } else { Verdict::no(Code::Epoch) }
    }

    pub(super) fn undo(&mut self, undo: &Undo) -> Verdict {
        match *undo {
            Undo::Lease { lease: id } => self.then(|rows| rows.end_leases(|lease| lease.id == id)),
            Undo::Renew { lease, expires, .. } => self.expire(lease, expires.0),
            Undo::Offer { grant: id } => self.set(id, |grant| grant.step = Step::Over),
            Undo::Accept { grant: id } => self.set(id, |grant| {
                grant.step = match grant.step {
                    Step::Out { by, expires, open: false, .. } => {
                        grant.accepted = false;
                        Step::Issued { by, expires }
                    }
                    _ => Step::Over,
                };
            }),
            Undo::PrincipalAdd { .. }
            | Undo::QuotaGive { .. }
            | Undo::TransferOffer { .. }
            | Undo::TransferAccept { .. } => unreachable!("no story has one"),
        }
        Verdict::yes()
    }

    /// Every row is in the step that it is said to be in, and shows to everybody whom it concerns and nobody else.
    ///
    /// # Panics
    /// If not.
    pub(super) fn compare(&mut self, broker: &Broker) {
        let look = |n: u8, query: Query| broker.query(public(n), &query, UnixMicros(0));
        assert_eq!(broker.now().0, self.now);
        let now = self.now;
        for lease in self.rows.leases.iter_mut().filter(|lease| !lease.gone) {
            let expected = match lease.life {
                Life::Reserved { .. } => LeaseState::Reserved,
                Life::Live { expires } if now < expires => LeaseState::Live,
                Life::Live { .. } | Life::Ending | Life::Lost { .. } => LeaseState::Ending,
                Life::Ended => LeaseState::Ended,
            };
            match look(0, Query::Lease(lease.id)) {
                Ok(View::Lease(row)) => assert_eq!(row.state, expected, "{lease:?}"),
                _ => {
                    assert_eq!(expected, LeaseState::Ended, "{lease:?} is no longer listed");
                    lease.gone = true;
                }
            }
        }
        for grant in self.rows.grants.iter_mut().filter(|grant| !grant.gone) {
            let expected = match grant.step {
                _ if grant.deadline().is_none_or(|deadline| deadline <= now) => GrantState::Ended,
                Step::Offered { .. } => GrantState::Offered,
                Step::Issued { .. } => GrantState::Issued,
                Step::Out { open: false, .. } => GrantState::Accepted,
                Step::Out { .. } => GrantState::Open,
                Step::Over => GrantState::Ended,
            };
            let id = grant.contract.grant;
            let Ok(View::Grant(row, signed)) = look(0, Query::Grant(id)) else {
                assert_eq!(grant.stage(), Stage::Over, "{grant:?} is no longer listed");
                grant.gone = true;
                continue;
            };
            assert_eq!(row.state, expected, "{grant:?}");
            let left = grant
                .left
                .map_or((grant.contract.rights, grant.contract.range), |left| (left.rights, left.range));
            assert_eq!((row.rights, row.range), left, "{grant:?}");
            assert_eq!(signed.contract, grant.contract);
            // Two signatures that verify stand where a receiver may have a token, or had one, and nowhere else.
            assert_eq!(signed.pair().is_some(), grant.accepted, "{grant:?}");
            assert!(signed.pair().is_none_or(|pair| pair.verify().is_ok()), "{grant:?}");
            for n in 1..self.people {
                let concerned = grant.owner == n || grant.contract.receiver == public(n);
                let shown = look(n, Query::Grant(id)).is_ok();
                assert_eq!(shown, concerned && self.rows.registered.contains(&n), "{n} and {grant:?}");
            }
        }
    }
}

/// So many from the end, round and round.
fn pick<T: Copy>(rows: &[T], back: usize) -> Option<T> {
    rows.len().checked_sub(1).map(|last| rows[last - back % rows.len()])
}
