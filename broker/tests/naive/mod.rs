//! A naive broker: two lists, searched from end to end, sums made when they are asked for. It knows the rules and has
//! no index, no book and no timer that could be wrong.

use std::collections::BTreeSet;

use caps::Code;
use caps::id::{GrantId, LeaseId, RegionId};
use caps::wire::row::{EndCause, GrantState, LeaseState};
use policy::Quota;

use crate::common::{PAGE, START, genesis, name};

pub const NAMES: [&str; 5] = ["admin", "alice", "bob", "small", "eve"];
pub type Outcome = Result<(), Code>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Life {
    Reserved { by: u64 },
    Live { expires: u64 },
    Ending { cause: EndCause, again: u64, committed: bool },
    Ended { cause: EndCause },
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub region: RegionId,
    pub owner: u8,
    pub bytes: u64,
    pub ttl: u64,
    pub named: bool,
    pub tied: bool,
    pub epoch: u32,
    pub life: Life,
    /// Which life of the provider has it.
    pub at: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Offered { by: u64 },
    Issued { by: u64, expires: u64 },
    Accepted { expires: u64, tied: bool, open: bool, issued_by: u64 },
    Ended { cause: EndCause },
}

#[derive(Clone, Debug)]
pub struct Grant {
    pub id: GrantId,
    pub lease: LeaseId,
    pub owner: u8,
    pub receiver: u8,
    pub bytes: u64,
    pub ttl: u64,
    pub step: Step,
    /// What narrowings left.
    pub left: Left,
    pub cosigner: Option<u8>,
    pub cosigned: bool,
    /// When the receiver's token ends, once the grant ended before it.
    pub out_until: Option<u64>,
}

/// What a narrowing names, and what one leaves: whether writing, the last byte, the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Left {
    pub read_only: Option<bool>,
    pub bytes: Option<u64>,
    pub until: Option<u64>,
}

#[derive(Default)]
pub struct Naive {
    pub now: u64,
    pub registered: BTreeSet<u8>,
    pub leaving: BTreeSet<u8>,
    pub leases: Vec<Lease>,
    pub grants: Vec<Grant>,
    pub ended_leases: Vec<LeaseId>,
    pub ended_grants: Vec<GrantId>,
    pub lost: bool,
    /// How many lives the provider has had.
    pub lives: u32,
    /// How many take-backs the last command ordered.
    pub takes: usize,
}

impl Naive {
    pub fn new() -> Self {
        Self { now: START, registered: BTreeSet::from([0]), ..Self::default() }
    }

    pub fn at(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.takes = 0;
    }

    fn may(&self, n: u8) -> Outcome {
        let may = self.registered.contains(&n) && !self.leaving.contains(&n);
        if may { Ok(()) } else { Err(Code::PrincipalUnknown) }
    }

    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.id == id)
    }

    pub fn grant(&self, id: GrantId) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.id == id)
    }

    fn quota(n: u8) -> Quota {
        genesis().quota_of(&name(NAMES[usize::from(n)]))
    }

    /// Leases of `n`, or of all, in a life that `which` picks: how many and how many bytes.
    pub fn sum(&self, n: Option<u8>, which: impl Fn(Life) -> bool) -> (u32, u64) {
        let picked = self.leases.iter().filter(|l| n.is_none_or(|n| l.owner == n) && which(l.life));
        picked.fold((0, 0), |(count, bytes), lease| (count + 1, bytes + lease.bytes))
    }

    pub fn active_grants(&self) -> usize {
        self.grants.iter().filter(|grant| !matches!(grant.step, Step::Ended { .. })).count()
    }

    pub fn grants_of(&self, lease: LeaseId) -> usize {
        let of = self.grants.iter().filter(|grant| grant.lease == lease);
        of.filter(|grant| !matches!(grant.step, Step::Ended { .. })).count()
    }

    pub fn add(&mut self, by: u8, n: u8) -> Outcome {
        self.may(by)?;
        if by != 0 {
            return Err(Code::NotAdmin);
        }
        if self.registered.contains(&n) {
            return Err(Code::Exists);
        }
        if self.registered.len() >= 4 {
            return Err(Code::Busy);
        }
        self.registered.insert(n);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    pub fn reserve(
        &mut self,
        n: u8,
        (id, region): (LeaseId, RegionId),
        bytes: u64,
        ttl: u64,
        named: bool,
        tied: bool,
        allowed: bool,
    ) -> Outcome {
        self.may(n)?;
        if bytes == 0 || bytes > 64 * 1024 || !(10..=10_000).contains(&ttl) {
            return Err(Code::Range);
        }
        let bytes = bytes.div_ceil(PAGE) * PAGE;
        if self.lost {
            return Err(Code::ProviderLost);
        }
        if !allowed {
            return Err(Code::PolicyDenied);
        }
        let holds = |life| matches!(life, Life::Reserved { .. } | Life::Live { .. });
        if named && self.leases.iter().any(|lease| lease.owner == n && lease.named && holds(lease.life)) {
            return Err(Code::Exists);
        }
        if self.sum(None, |life| !matches!(life, Life::Ended { .. })).0 >= 6 {
            return Err(Code::Busy);
        }
        let quota = Self::quota(n);
        // A lease that lived and is ending is no lease any more, but its memory is still there.
        let leased = self
            .sum(Some(n), |life| !matches!(life, Life::Ended { .. } | Life::Ending { committed: true, .. }));
        let resident = self.sum(Some(n), |life| !matches!(life, Life::Ended { .. }));
        if leased.0 + 1 > quota.leases
            || leased.1 + bytes > quota.leased_bytes
            || resident.1 + bytes > quota.resident_bytes
        {
            return Err(Code::Quota);
        }
        if self.sum(None, |life| !matches!(life, Life::Ended { .. })).1 + bytes > 64 * 1024 {
            return Err(Code::NoMemory);
        }
        let life = Life::Reserved { by: self.now + 100 };
        let at = self.lives;
        self.leases.push(Lease { id, region, owner: n, bytes, ttl, named, tied, epoch: 0, life, at });
        Ok(())
    }

    pub fn commit(&mut self, id: LeaseId, bytes: u64) -> Outcome {
        let now = self.now;
        let lease = self.leases.iter_mut().find(|lease| lease.id == id).ok_or(Code::LeaseUnknown)?;
        match lease.life {
            Life::Live { .. } => Err(Code::Exists),
            Life::Ending { .. } | Life::Ended { .. } => Err(Code::LeaseExpired),
            Life::Reserved { by } if by <= now => Err(Code::LeaseExpired),
            Life::Reserved { .. } if bytes != lease.bytes => Err(Code::Internal),
            Life::Reserved { .. } => {
                lease.life = Life::Live { expires: now + lease.ttl };
                Ok(())
            }
        }
    }

    pub fn abandon(&mut self, id: LeaseId) -> Outcome {
        match self.lease(id).map(|lease| lease.life) {
            None => Err(Code::LeaseUnknown),
            Some(Life::Live { .. }) => Err(Code::Exists),
            Some(Life::Reserved { .. }) => {
                self.end(id, EndCause::NotClaimed);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn live(&self, n: u8, id: LeaseId) -> Result<u64, Code> {
        match self.lease(id).filter(|lease| lease.owner == n).map(|lease| lease.life) {
            None => Err(Code::LeaseUnknown),
            Some(Life::Reserved { .. }) => Err(Code::Busy),
            Some(Life::Live { expires }) if self.now < expires => Ok(expires),
            Some(
                Life::Ending { cause: EndCause::Revoked, .. } | Life::Ended { cause: EndCause::Revoked },
            ) => Err(Code::TokenRevoked),
            Some(
                Life::Ending { cause: EndCause::ProviderLost, .. }
                | Life::Ended { cause: EndCause::ProviderLost },
            ) => Err(Code::ProviderLost),
            Some(_) => Err(Code::LeaseExpired),
        }
    }

    pub fn renew(&mut self, n: u8, id: LeaseId, ttl: u64, allowed: bool) -> Outcome {
        self.may(n)?;
        if !(10..=10_000).contains(&ttl) {
            return Err(Code::Range);
        }
        self.live(n, id)?;
        if !allowed {
            return Err(Code::PolicyDenied);
        }
        let expires = self.now + ttl;
        self.set_expiry(id, expires);
        Ok(())
    }

    pub fn set_expiry(&mut self, id: LeaseId, expires: u64) {
        for lease in self.leases.iter_mut().filter(|lease| lease.id == id) {
            if let Life::Live { .. } = lease.life {
                lease.life = Life::Live { expires };
            }
        }
    }

    pub fn release(&mut self, n: u8, id: LeaseId) -> Outcome {
        self.may(n)?;
        self.lease(id).filter(|lease| lease.owner == n).ok_or(Code::LeaseUnknown)?;
        self.take(id, EndCause::Released);
        Ok(())
    }

    /// Ends a lease, or has one that is ending taken again.
    fn take(&mut self, id: LeaseId, cause: EndCause) {
        match self.lease(id).map(|lease| lease.life) {
            Some(Life::Ending { .. }) => self.takes += 1,
            Some(Life::Reserved { .. } | Life::Live { .. }) => self.end(id, cause),
            Some(Life::Ended { .. }) | None => {}
        }
    }

    pub fn end(&mut self, id: LeaseId, cause: EndCause) {
        let again = self.now + 50;
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == id) else { return };
        let committed = match lease.life {
            Life::Reserved { .. } => false,
            Life::Live { .. } => true,
            _ => return,
        };
        lease.life = Life::Ending { cause, again, committed };
        self.takes += usize::from(cause != EndCause::Expired);
        self.end_grants(id);
    }

    fn end_grants(&mut self, lease: LeaseId) {
        // In the order of ids, as the ring of ended grants shows.
        let mut ids: Vec<GrantId> = self.grants.iter().filter(|g| g.lease == lease).map(|g| g.id).collect();
        ids.sort();
        for id in ids {
            self.end_grant(id, EndCause::ParentEnded);
        }
    }

    pub fn close(&mut self, id: LeaseId, said: EndCause) {
        let Some(lease) = self.leases.iter_mut().find(|lease| lease.id == id) else { return };
        let cause = match lease.life {
            Life::Ended { .. } => return,
            Life::Ending { cause, .. } => cause,
            Life::Reserved { .. } | Life::Live { .. } => said,
        };
        let owner = lease.owner;
        lease.life = Life::Ended { cause };
        self.end_grants(id);
        self.ended_leases.push(id);
        if self.ended_leases.len() > 3 {
            let oldest = self.ended_leases.remove(0);
            self.leases.retain(|lease| lease.id != oldest);
        }
        self.let_go(owner);
    }

    fn let_go(&mut self, n: u8) {
        let leases = self.sum(Some(n), |life| !matches!(life, Life::Ended { .. })).0;
        let charged = |step| matches!(step, Step::Issued { .. } | Step::Accepted { .. });
        let grants = self.grants.iter().any(|grant| grant.owner == n && charged(grant.step));
        if self.leaving.contains(&n) && leases == 0 && !grants {
            self.leaving.remove(&n);
            self.registered.remove(&n);
        }
    }

    pub fn end_grant(&mut self, id: GrantId, cause: EndCause) {
        let Some(grant) = self.grants.iter_mut().find(|grant| grant.id == id) else { return };
        if matches!(grant.step, Step::Ended { .. }) {
            return;
        }
        let (out, lease, owner) = (matches!(grant.step, Step::Accepted { .. }), grant.lease, grant.owner);
        if let Step::Accepted { expires, .. } = grant.step {
            grant.out_until = Some(expires);
        }
        grant.step = Step::Ended { cause };
        self.ended_grants.push(id);
        if self.ended_grants.len() > 3 {
            let oldest = self.ended_grants.remove(0);
            self.grants.retain(|grant| grant.id != oldest);
        }
        for lease in self.leases.iter_mut().filter(|l| l.id == lease) {
            lease.epoch += u32::from(out);
        }
        self.let_go(owner);
    }

    pub fn take_grant(&mut self, id: GrantId, cause: EndCause) {
        self.end_grant(id, cause);
        // Also once more: whoever asks again waits for the provider again.
        let Some(Grant { lease, out_until: Some(until), .. }) = self.grant(id).cloned() else { return };
        let there = self.lease(lease).is_some_and(|lease| !matches!(lease.life, Life::Ended { .. }));
        self.takes += usize::from(there && self.now < until + genesis().bounds.skew.0);
    }

    #[allow(clippy::too_many_arguments)]
    pub fn offer(
        &mut self,
        n: u8,
        lease: LeaseId,
        id: GrantId,
        receiver: u8,
        bytes: u64,
        ttl: u64,
        signed: bool,
    ) -> Outcome {
        self.may(n)?;
        self.live(n, lease)?;
        self.may(receiver)?;
        let row = self.lease(lease).unwrap();
        if receiver == n || bytes > row.bytes || ttl == 0 {
            return Err(Code::Range);
        }
        if self.grant(id).is_some() {
            return Err(Code::Exists);
        }
        if self.grants_of(lease) >= 3 {
            return Err(Code::Quota);
        }
        if self.active_grants() >= 6 {
            return Err(Code::Busy);
        }
        if !signed {
            return Err(Code::ContractSignature);
        }
        let step = Step::Offered { by: self.now + 100 };
        let (left, cosigner, cosigned) = (Left::default(), None, false);
        self.grants.push(Grant {
            id,
            lease,
            owner: n,
            receiver,
            bytes,
            ttl,
            step,
            left,
            cosigner,
            cosigned,
            out_until: None,
        });
        Ok(())
    }

    /// An offer that waits for a third.
    #[allow(clippy::too_many_arguments)]
    pub fn propose(
        &mut self,
        n: u8,
        lease: LeaseId,
        id: GrantId,
        (receiver, cosigner): (u8, u8),
        bytes: u64,
        ttl: u64,
        signed: bool,
        allowed: bool,
    ) -> Outcome {
        self.may(n)?;
        self.live(n, lease)?;
        self.may(receiver)?;
        if cosigner == n || cosigner == receiver {
            return Err(Code::Range);
        }
        // The rest as an offer, tried beside it: the signature comes after what is this one's own.
        let mut tried = Self { leases: self.leases.clone(), grants: self.grants.clone(), ..Self::default() };
        tried.now = self.now;
        tried.registered.clone_from(&self.registered);
        tried.leaving.clone_from(&self.leaving);
        tried.offer(n, lease, id, receiver, bytes, ttl, true)?;
        self.may(cosigner)?;
        if !allowed {
            return Err(Code::PolicyDenied);
        }
        if !signed {
            return Err(Code::ContractSignature);
        }
        let ((count, shared), quota) = (self.charged(n), Self::quota(n));
        if count + 1 > quota.grants || shared + bytes > quota.shared_bytes {
            return Err(Code::Quota);
        }
        self.grants = tried.grants;
        let step = Step::Offered { by: self.now + 700 };
        let grant = self.grants.last_mut().unwrap();
        (grant.step, grant.cosigner) = (step, Some(cosigner));
        Ok(())
    }

    pub fn cosign(&mut self, n: u8, id: GrantId, signed: bool) -> Outcome {
        self.may(n)?;
        let grant = self.seen(n, id)?;
        if grant.cosigner != Some(n) {
            return Err(Code::Denied);
        }
        let Step::Offered { by } = grant.step else { return Err(Code::ShareOrder) };
        if grant.cosigned {
            return Err(Code::ShareOrder);
        }
        if by <= self.now {
            return Err(Code::LeaseExpired);
        }
        if !signed {
            return Err(Code::ContractSignature);
        }
        self.grants.iter_mut().find(|grant| grant.id == id).unwrap().cosigned = true;
        Ok(())
    }

    /// A grant, for its co-signer as well.
    fn seen(&self, n: u8, id: GrantId) -> Result<Grant, Code> {
        match self.grant(id) {
            Some(grant) if grant.cosigner == Some(n) => Ok(grant.clone()),
            _ => self.party(n, id),
        }
    }

    /// Grants of `n` that its quota is charged for, and their bytes.
    fn charged(&self, n: u8) -> (u32, u64) {
        let charged = self.grants.iter().filter(|grant| {
            let issued = matches!(grant.step, Step::Issued { .. } | Step::Accepted { .. });
            let waits = matches!(grant.step, Step::Offered { .. }) && grant.cosigner.is_some();
            grant.owner == n && (issued || waits)
        });
        charged.fold((0, 0), |(count, bytes), grant| (count + 1, bytes + grant.bytes))
    }

    fn party(&self, n: u8, id: GrantId) -> Result<Grant, Code> {
        let of = self.grant(id).filter(|grant| n == 0 || grant.owner == n || grant.receiver == n);
        of.cloned().ok_or(Code::GrantUnknown)
    }

    pub fn issue(&mut self, n: u8, id: GrantId, allowed: bool) -> Outcome {
        self.may(n)?;
        let grant = self.seen(n, id)?;
        if grant.owner != n && grant.cosigner != Some(n) {
            return Err(Code::Denied);
        }
        let n = grant.owner;
        let Step::Offered { by } = grant.step else { return Err(Code::ShareOrder) };
        if grant.cosigner.is_some() && !grant.cosigned {
            return Err(Code::ShareOrder);
        }
        let (count, bytes) = self.charged(n);
        let quota = Self::quota(n);
        let outcome = if by <= self.now {
            Err(Code::LeaseExpired)
        } else if let Err(code) = self.live(n, grant.lease) {
            Err(code)
        } else if !allowed {
            Err(Code::PolicyDenied)
        } else if grant.cosigner.is_none()
            && (count + 1 > quota.grants || bytes + grant.bytes > quota.shared_bytes)
        {
            Err(Code::Quota)
        } else {
            Ok(())
        };
        match outcome {
            Ok(()) => {
                let expires = (self.now + grant.ttl).min(self.live(n, grant.lease).unwrap());
                self.set(id, Step::Issued { by: expires.min(self.now + 1_000), expires });
            }
            Err(_) => self.end_grant(id, EndCause::NotClaimed),
        }
        outcome
    }

    fn set(&mut self, id: GrantId, step: Step) {
        self.grants.iter_mut().filter(|grant| grant.id == id).for_each(|grant| grant.step = step);
    }

    pub fn accept(&mut self, n: u8, id: GrantId, signed: bool, tied: bool, allowed: bool) -> Outcome {
        self.may(n)?;
        let grant = self.party(n, id)?;
        if grant.receiver != n {
            return Err(Code::Denied);
        }
        let Step::Issued { by, expires } = grant.step else { return Err(Code::ShareOrder) };
        if self.grant_end(&grant).unwrap() <= self.now || self.live(grant.owner, grant.lease).is_err() {
            return Err(Code::LeaseExpired);
        }
        if !allowed {
            return Err(Code::PolicyDenied);
        }
        if !signed {
            return Err(Code::ContractSignature);
        }
        self.set(id, Step::Accepted { expires, tied, open: false, issued_by: by });
        Ok(())
    }

    pub fn opened(&mut self, id: GrantId) -> Outcome {
        self.speaks_of(self.grant(id).map(|grant| grant.lease)).map_err(unknown_grant)?;
        let grant = self.grant(id).ok_or(Code::GrantUnknown)?;
        let Step::Accepted { expires, tied, open: false, issued_by } = grant.step else {
            return Err(Code::ShareOrder);
        };
        self.set(id, Step::Accepted { expires, tied, open: true, issued_by });
        Ok(())
    }

    pub fn unaccept(&mut self, id: GrantId) {
        match self.grant(id).map(|grant| grant.step) {
            Some(Step::Accepted { expires, open: false, issued_by, .. }) => {
                self.set(id, Step::Issued { by: issued_by, expires });
            }
            _ => self.take_grant(id, EndCause::NotRecorded),
        }
    }

    pub fn unregister(&mut self, n: u8) -> Outcome {
        if n == 0 {
            return Err(Code::PrincipalUnknown);
        }
        self.may(n)?;
        let mut grants: Vec<GrantId> = self
            .grants
            .iter()
            .filter(|g| g.owner == n || g.receiver == n || g.cosigner == Some(n))
            .map(|g| g.id)
            .collect();
        grants.sort();
        grants.into_iter().for_each(|id| self.take_grant(id, EndCause::NotRecorded));
        let mut leases: Vec<LeaseId> = self.leases.iter().filter(|l| l.owner == n).map(|l| l.id).collect();
        leases.sort();
        leases.into_iter().for_each(|id| self.end(id, EndCause::NotRecorded));
        self.leaving.insert(n);
        self.let_go(n);
        Ok(())
    }

    fn concerned(&self, n: u8, id: LeaseId) -> Option<LeaseId> {
        self.lease(id).filter(|lease| n == 0 || lease.owner == n).map(|lease| lease.id)
    }

    pub fn revoke_lease(&mut self, n: u8, id: LeaseId, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        let id = self.concerned(n, id).ok_or(Code::LeaseUnknown)?;
        self.take(id, EndCause::Revoked);
        Ok(())
    }

    pub fn revoke_region(&mut self, n: u8, region: RegionId, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        let id = self.leases.iter().find(|lease| lease.region == region).map(|lease| lease.id);
        let id = id.and_then(|id| self.concerned(n, id)).ok_or(Code::LeaseUnknown)?;
        self.take(id, EndCause::Revoked);
        Ok(())
    }

    pub fn revoke_grant(&mut self, n: u8, id: GrantId, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        self.party(n, id)?;
        self.take_grant(id, EndCause::Revoked);
        Ok(())
    }

    pub fn revoke_subtree(&mut self, n: u8, root: GrantId, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        if self.party(n, root).is_ok() {
            self.take_grant(root, EndCause::Revoked);
            return Ok(());
        }
        let id = self.concerned(n, LeaseId(root.0)).ok_or(Code::GrantUnknown)?;
        self.take(id, EndCause::Revoked);
        Ok(())
    }

    pub fn revoke_holder(&mut self, n: u8, holder: u8, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        let served = |life| matches!(life, Life::Live { .. } | Life::Ending { committed: true, .. });
        let over = |lease: &&Lease| served(lease.life) && (n == 0 || lease.owner == n);
        if !self.registered.contains(&holder) && !self.leases.iter().any(|lease| over(&lease)) {
            return Err(Code::PrincipalUnknown);
        }
        let all = n == 0 || n == holder;
        let held = self.grants.iter().filter(|g| g.receiver == holder && (all || g.owner == n));
        let mut grants: Vec<GrantId> = held.map(|grant| grant.id).collect();
        grants.sort();
        // Who has leases may take anybody off them, and every one is told.
        let rest = |lease: &&Lease| over(lease) && !(all && lease.owner == holder);
        if !all && grants.is_empty() && !self.leases.iter().any(|lease| rest(&lease)) {
            return Err(Code::GrantUnknown);
        }
        let mut told: Vec<&Lease> = self.leases.iter().filter(rest).collect();
        told.sort_by_key(|lease| lease.id);
        let late =
            told.iter().filter(|lease| matches!(lease.life, Life::Live { expires } if expires <= self.now));
        let (told, late) = (told.len(), late.map(|lease| lease.id).collect::<Vec<_>>());
        let owned = self.leases.iter().filter(|lease| all && lease.owner == holder);
        let mut leases: Vec<LeaseId> = owned.map(|lease| lease.id).collect();
        leases.sort();
        grants.into_iter().for_each(|id| self.take_grant(id, EndCause::Revoked));
        late.into_iter().for_each(|id| self.end(id, EndCause::Expired));
        leases.into_iter().for_each(|id| self.take(id, EndCause::Revoked));
        self.takes += told;
        Ok(())
    }

    fn may_revoke(&self, n: u8, allowed: bool) -> Outcome {
        self.may(n)?;
        if n == 0 || allowed { Ok(()) } else { Err(Code::PolicyDenied) }
    }

    /// What is due, in the order of deadlines, leases before grants, by id.
    pub fn tick(&mut self) {
        let mut due: Vec<(u64, u8, [u8; 16])> = Vec::new();
        for lease in &self.leases {
            let at = match lease.life {
                Life::Reserved { by } => by,
                Life::Live { expires } => expires,
                Life::Ending { again, .. } => again,
                Life::Ended { .. } => continue,
            };
            due.push((at, 0, lease.id.0));
        }
        for grant in &self.grants {
            due.extend(self.grant_end(grant).map(|at| (at, 1, grant.id.0)));
        }
        due.retain(|(at, ..)| *at <= self.now);
        due.sort();
        for (_, kind, id) in due {
            if kind == 1 {
                self.end_grant(GrantId(id), EndCause::Expired);
                continue;
            }
            let (id, again) = (LeaseId(id), self.now + 50);
            match self.lease(id).map(|lease| lease.life) {
                Some(Life::Reserved { .. }) => self.end(id, EndCause::NotClaimed),
                Some(Life::Live { .. }) => self.end(id, EndCause::Expired),
                Some(Life::Ending { cause, committed, .. }) => {
                    self.takes += 1;
                    let lease = self.leases.iter_mut().find(|lease| lease.id == id).unwrap();
                    lease.life = Life::Ending { cause, again, committed };
                }
                _ => {}
            }
        }
    }

    fn grant_end(&self, grant: &Grant) -> Option<u64> {
        let end = match grant.step {
            Step::Offered { by } | Step::Issued { by, .. } => by,
            Step::Accepted { expires, .. } => expires,
            Step::Ended { .. } => return None,
        };
        Some(end.min(grant.left.until.unwrap_or(u64::MAX)))
    }

    /// `named.until` is a span here.
    pub fn narrow(&mut self, n: u8, id: GrantId, named: Left, allowed: bool) -> Outcome {
        self.may_revoke(n, allowed)?;
        let grant = self.party(n, id)?;
        if n != 0 && grant.owner != n {
            return Err(Code::Denied);
        }
        let (expires, out) = match grant.step {
            Step::Issued { expires, .. } => (expires, false),
            Step::Accepted { expires, .. } => (expires, true),
            Step::Offered { .. } | Step::Ended { .. } => return Err(Code::ShareOrder),
        };
        if self.grant_end(&grant).unwrap() <= self.now {
            return Err(Code::ShareOrder);
        }
        if named == Left::default() || named.until == Some(0) {
            return Err(Code::Range);
        }
        if named.read_only == Some(false) && grant.left.read_only == Some(true) {
            return Err(Code::Denied);
        }
        let until = named.until.map(|ttl| self.now + ttl);
        if named.bytes.is_some_and(|bytes| bytes > grant.left.bytes.unwrap_or(grant.bytes))
            || until.is_some_and(|until| until > grant.left.until.unwrap_or(expires))
        {
            return Err(Code::Range);
        }
        self.takes += usize::from(out);
        let left = &mut self.grants.iter_mut().find(|grant| grant.id == id).unwrap().left;
        *left = Left {
            read_only: named.read_only.or(left.read_only),
            bytes: named.bytes.or(left.bytes),
            until: until.or(left.until),
        };
        Ok(())
    }

    /// The present life of the provider says something of a lease.
    fn speaks_of(&self, id: Option<LeaseId>) -> Outcome {
        if self.lost {
            return Err(Code::Epoch);
        }
        let there = id.and_then(|id| self.lease(id)).is_some_and(|lease| lease.at == self.lives);
        if there { Ok(()) } else { Err(Code::LeaseUnknown) }
    }

    pub fn ended(&mut self, id: LeaseId, cause: EndCause) -> Outcome {
        self.speaks_of(Some(id))?;
        self.close(id, cause);
        Ok(())
    }

    pub fn grant_ended(&mut self, id: GrantId, cause: EndCause) -> Outcome {
        self.speaks_of(self.grant(id).map(|grant| grant.lease)).map_err(unknown_grant)?;
        let grant = self.grant(id).ok_or(Code::GrantUnknown)?;
        if cause == EndCause::Expired && self.grant_end(grant).is_some_and(|end| self.now < end) {
            return Ok(()); // a delegated token's time, not the grant's
        }
        self.end_grant(id, cause);
        Ok(())
    }

    pub fn taken(&mut self, id: LeaseId) -> Outcome {
        match self.lease(id).ok_or(Code::LeaseUnknown)?.life {
            Life::Reserved { .. } | Life::Live { .. } => Err(Code::Protocol),
            Life::Ending { cause, .. } => {
                self.close(id, cause);
                Ok(())
            }
            Life::Ended { .. } => Ok(()),
        }
    }

    /// Sessions have the numbers of their actors.
    pub fn exit(&mut self, session: u8) {
        let mut leases: Vec<LeaseId> =
            self.leases.iter().filter(|l| l.owner == session && l.tied).map(|l| l.id).collect();
        leases.sort();
        leases.into_iter().for_each(|id| self.end(id, EndCause::HolderExit));
        let tied = |step| matches!(step, Step::Accepted { tied: true, .. });
        let mut grants: Vec<GrantId> =
            self.grants.iter().filter(|g| g.receiver == session && tied(g.step)).map(|g| g.id).collect();
        grants.sort();
        grants.into_iter().for_each(|id| self.take_grant(id, EndCause::HolderExit));
    }

    pub fn provider_lost(&mut self) -> Outcome {
        if self.lost {
            return Err(Code::Exists);
        }
        self.lost = true;
        let mut ids: Vec<LeaseId> = self.leases.iter().map(|lease| lease.id).collect();
        ids.sort();
        ids.into_iter().for_each(|id| self.close(id, EndCause::ProviderLost));
        Ok(())
    }

    /// Another life of it comes, and ends the one before.
    pub fn provider_comes(&mut self) {
        let _ = self.provider_lost();
        self.lost = false;
        self.lives += 1;
    }

    pub fn lease_state(&self, lease: &Lease) -> (LeaseState, Option<EndCause>, u64) {
        match lease.life {
            Life::Reserved { .. } => (LeaseState::Reserved, None, 0),
            Life::Live { expires } if self.now < expires => (LeaseState::Live, None, expires - self.now),
            Life::Live { .. } => (LeaseState::Ending, None, 0),
            Life::Ending { cause, .. } => (LeaseState::Ending, Some(cause), 0),
            Life::Ended { cause } => (LeaseState::Ended, Some(cause), 0),
        }
    }

    pub fn grant_state(&self, grant: &Grant) -> (GrantState, Option<EndCause>) {
        let state = match grant.step {
            _ if self.grant_end(grant).is_none_or(|end| end <= self.now) => GrantState::Ended,
            Step::Offered { .. } => GrantState::Offered,
            Step::Issued { .. } => GrantState::Issued,
            Step::Accepted { open: false, .. } => GrantState::Accepted,
            Step::Accepted { .. } => GrantState::Open,
            Step::Ended { .. } => GrantState::Ended,
        };
        let cause = match grant.step {
            Step::Ended { cause } => Some(cause),
            _ => None,
        };
        (state, cause)
    }
}

fn unknown_grant(code: Code) -> Code {
    if code == Code::LeaseUnknown { Code::GrantUnknown } else { code }
}
