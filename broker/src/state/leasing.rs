//! Principals come, leases are reserved, committed and renewed.

use caps::id::{LeaseId, PrincipalKey, RegionId};
use caps::key::VerifyingKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};
use caps::token::Terms;
use caps::wire::Name;
use caps::wire::link::ClaimTicket;
use caps::wire::request::LeaseSpec;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::quota::Usage;
use policy::units::Span;

use super::answer::{Answer, Effect, Out};
use super::books::{Booking, Principal};
use super::command::{Command, RowId};
use super::denials::Denials;
use super::genesis::Bounds;
use super::handing::MOVING;
use super::lease::{Lease, Life, Live, Reserved};
use super::place::Ask;
use super::{Broker, entry};

/// To what is asked of a lease whose provider was lost.
const LOST: Error = Error::new(Code::ProviderLost, "the lease's provider is lost, and its memory with it");

/// The segment of a lease of `bytes`: what its owner wishes, or as few segments as there can be.
fn segment_bytes(bounds: &Bounds, bytes: u64, wish: Option<u64>) -> Result<u64> {
    let segment = match wish {
        None => bounds.segment_bytes_max,
        Some(wish) if wish.is_power_of_two() => wish,
        Some(_) => return Err(Error::new(Code::Range, "a segment is a power of two")),
    };
    if !(bounds.page_bytes..=bounds.segment_bytes_max).contains(&segment) {
        return Err(Error::new(Code::Range, "a segment is at least a page and at most 1 GiB"));
    }
    if bytes.div_ceil(segment) > bounds.segments_per_lease {
        return Err(Error::new(Code::Range, "a lease has at most 1,024 segments; choose larger ones"));
    }
    Ok(segment.min(bytes))
}

impl Broker {
    pub(super) fn principal_add(
        &mut self,
        by: PrincipalKey,
        name: &Name,
        key: PrincipalKey,
        out: &mut Out,
    ) -> Result<Answer> {
        if !self.is_admin(by) {
            return Err(Error::new(Code::NotAdmin, "only the administrator registers principals"));
        }
        VerifyingKey::parse(key)?;
        if self.principals.rows.contains_key(&key) || self.principals.by_name.contains_key(name) {
            return Err(Error::new(Code::Exists, "a principal of this name or key is registered"));
        }
        if self.principals.rows.len() >= self.genesis.capacity.principals as usize {
            return Err(Error::new(Code::Busy, "the table of principals is full"));
        }

        let (denials, usage) = (Denials::default(), Usage::default());
        self.principals.insert(Principal { name: name.clone(), key, denials, leaving: false, usage });
        out.entries.push(entry::principal_added(by, name, key));
        Ok(Answer::Done)
    }

    pub(super) fn reserve(
        &mut self,
        by: PrincipalKey,
        spec: &LeaseSpec,
        session: u64,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let bounds = self.genesis.bounds;
        let range = Some(spec.bytes)
            .filter(|bytes| (bounds.lease_bytes_min..=bounds.lease_bytes_max).contains(bytes))
            .and_then(|bytes| bytes.checked_next_multiple_of(bounds.page_bytes))
            .and_then(|bytes| ByteRange::new(0, bytes).ok())
            .ok_or(Error::new(
                Code::Range,
                "a lease is at least as large as the smallest, at most as the largest",
            ))?;
        let segment_bytes = segment_bytes(&bounds, range.len(), spec.segment_bytes)?;
        if spec.max_hops > bounds.hops_max {
            return Err(Error::new(Code::Range, "a token may be delegated at most 7 times"));
        }
        let ttl = self.checked_ttl(spec.ttl)?;
        if self.providers.present().next().is_none() {
            return Err(Error::new(Code::ProviderLost, "there is no provider at present"));
        }
        self.permitted(command)?;
        if spec.name.as_ref().is_some_and(|name| self.leases.by_name.contains_key(&(by, name.clone()))) {
            return Err(Error::new(Code::Exists, "a live lease of yours has this name"));
        }
        if self.transfers.receiving.contains(&by) {
            // Its quota was asked for that lease and must have room when it comes.
            return Err(Error::new(Code::Busy, "a lease is just being handed over to you; ask again"));
        }
        let (lease, region) = new_ids(&command.random);
        if self.leases.rows.contains_key(&lease) || self.leases.by_region.contains_key(&region) {
            return Err(Error::new(Code::Exists, "the random bytes of this command were used before"));
        }
        let zeroing = Micros::from_millis(range.len() / policy::limits::RESERVATION_BYTES_PER_MS);
        let claim_by = self.now.plus(bounds.claim_within).plus(zeroing);
        if self.leases.active() >= self.genesis.capacity.leases as usize {
            return Err(Error::new(Code::Busy, "the table of leases is full"));
        }
        let ask = Ask { bytes: range.len(), class: spec.class.as_ref(), near: spec.near.as_ref() };
        let (provider, placement) = self.book_reservation(by, &ask)?;

        let row = Lease {
            id: lease,
            region,
            owner: by,
            name: spec.name.clone(),
            class: spec.class.clone(),
            range,
            segment_bytes,
            max_hops: spec.max_hops,
            ttl,
            lifetime: spec.lifetime,
            session,
            provider,
            epoch: 0,
            life: Life::Reserved(Reserved { claim_by }),
            marks: std::collections::BTreeMap::new(),
            tried: UnixMicros(0),
            grants: 0,
            // A claim in the last moment begins its time then.
            latest: claim_by.plus(ttl),
            placement,
        };
        self.deadlines.swap(RowId::Lease(lease), None, Some(claim_by));
        if row.is_tied() {
            self.sessions.insert((session, RowId::Lease(lease)));
        }
        out.entries.push(entry::reserved(&row, &self.policy, claim_by));
        self.leases.insert(row);
        let ticket = ClaimTicket {
            lease,
            region,
            owner: by,
            bytes: range.len(),
            segment_bytes,
            ttl,
            lifetime: spec.lifetime,
            claim_by,
        };
        Ok(Answer::Reserved(ticket, provider))
    }

    pub(super) fn commit(&mut self, id: LeaseId, bytes: u64, out: &mut Out) -> Result<Answer> {
        let now = self.now;
        let lease = self.leases.rows.get_mut(&id).ok_or(Error::new(Code::LeaseUnknown, "no such lease"))?;
        let reserved = match lease.life {
            Life::Reserved(reserved) => reserved,
            Life::Live(_) => return Err(Error::new(Code::Exists, "the reservation was committed before")),
            Life::Lost(_) => return Err(LOST),
            Life::Ending(_) | Life::Ended(_) => {
                return Err(Error::new(Code::LeaseExpired, "the reservation ended before it was committed"));
            }
        };
        if reserved.claim_by <= now {
            return Err(Error::new(Code::LeaseExpired, "the reservation was not committed in time"));
        }
        if bytes != lease.range.len() {
            return Err(Error::new(Code::Internal, "the provider committed another size than was reserved"));
        }

        let live = reserved.commit(now, lease.ttl);
        lease.life = Life::Live(live);
        out.entries.push(entry::granted(lease, live.expires));
        let (owner, provider) = (lease.owner, lease.provider);
        self.deadlines.swap(RowId::Lease(id), Some(reserved.claim_by), Some(live.expires));
        self.book_lease(owner, provider, bytes, Booking::Commit);
        Ok(self.leased(id, live, live.expires))
    }

    pub(super) fn abandon(&mut self, id: LeaseId, out: &mut Out) -> Result<Answer> {
        match self.leases.get(id).map(|lease| lease.life) {
            None => Err(Error::new(Code::LeaseUnknown, "no such lease")),
            Some(Life::Reserved(_)) => {
                self.end_lease(id, EndCause::NotClaimed, None, out);
                Ok(Answer::Ending { leases: vec![id] })
            }
            Some(Life::Live(_)) => Err(Error::new(Code::Exists, "the reservation was committed")),
            // It timed out meanwhile: what was to be done is done.
            Some(Life::Ending(_) | Life::Lost(_) | Life::Ended(_)) => Ok(Answer::Done),
        }
    }

    pub(super) fn renew(
        &mut self,
        by: PrincipalKey,
        id: LeaseId,
        ttl: Micros,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let ttl = self.checked_ttl(ttl)?;
        let live = self.live_lease_of(by, id)?;
        if self.transfers.is_moving(id) {
            // Both have signed: the former owner may not choose any more how long the new one has it.
            return Err(MOVING);
        }
        self.permitted(command)?;

        let renewed = live.renew(self.now.plus(ttl));
        self.set_expiry(id, live, renewed);
        if let Some(lease) = self.leases.get(id) {
            out.entries.push(entry::renewed(lease, renewed.expires, &self.policy));
        }
        out.effects.push(Effect::Renew(id, ttl));
        Ok(self.leased(id, renewed, live.expires))
    }

    /// Moves the end of a live lease, as its provider will be told.
    pub(super) fn set_expiry(&mut self, id: LeaseId, from: Live, to: Live) {
        // The provider counts from when it hears of it, and may never hear that it was undone.
        let latest = to.expires.plus(self.genesis.bounds.claim_within);
        if let Some(lease) = self.leases.rows.get_mut(&id) {
            lease.latest = lease.latest.max(latest);
            lease.life = Life::Live(to);
            self.deadlines.swap(RowId::Lease(id), Some(from.expires), Some(to.expires));
        }
    }

    /// A span as asked for, if it lies within the bounds. One that is too long is refused and not cut: whoever counts
    /// on a week must not find out after a day.
    fn checked_ttl(&self, ttl: Micros) -> Result<Micros> {
        let (shortest, longest) = (self.genesis.bounds.ttl_min, self.genesis.bounds.ttl_max);
        if (shortest..=longest).contains(&ttl) {
            return Ok(ttl);
        }
        let (shortest, longest) = (Span(shortest), Span(longest));
        Err(Error::with(Code::Range, format!("a lease lives at least {shortest} and at most {longest}")))
    }

    /// The live state of a lease that `by` owns. To anybody else it does not exist.
    pub(super) fn live_lease_of(&self, by: PrincipalKey, id: LeaseId) -> Result<Live> {
        match self.leases.get(id).filter(|lease| lease.owner == by).map(|lease| lease.life) {
            None => Err(Error::new(Code::LeaseUnknown, "no such lease of yours")),
            Some(Life::Live(live)) if self.now < live.expires => Ok(live),
            Some(Life::Reserved(_)) => Err(Error::new(Code::Busy, "the lease is not yet committed")),
            Some(life) if life.cause() == Some(EndCause::Revoked) => {
                Err(Error::new(Code::TokenRevoked, "the lease was taken back"))
            }
            Some(life) if life.cause() == Some(EndCause::ProviderLost) => Err(LOST),
            Some(Life::Live(_) | Life::Ending(_) | Life::Lost(_) | Life::Ended(_)) => {
                Err(Error::new(Code::LeaseExpired, "the lease's time is over"))
            }
        }
    }

    pub(super) fn leased(&self, id: LeaseId, live: Live, before: UnixMicros) -> Answer {
        match self.leases.get(id) {
            Some(lease) => Answer::Leased {
                lease: self.placed_row(lease, self.now),
                terms: Terms {
                    lease: id,
                    region: lease.region,
                    grant: None,
                    range: lease.range,
                    rights: Rights::ALL,
                    holder: lease.owner,
                    not_before: live.since,
                    expires: live.expires,
                    max_hops: lease.max_hops,
                    cluster: self.genesis.cluster,
                    provider: lease.provider,
                },
                before,
            },
            // Callers have just looked the row up.
            None => Answer::Done,
        }
    }
}

/// The ids that a command's random bytes stand for.
fn new_ids(random: &[u8; 32]) -> (LeaseId, RegionId) {
    let (mut lease, mut region) = ([0; 16], [0; 16]);
    lease.copy_from_slice(&random[..16]);
    region.copy_from_slice(&random[16..]);
    (LeaseId(lease), RegionId(region))
}
