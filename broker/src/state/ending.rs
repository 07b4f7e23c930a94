//! How rows end, whatever the reason. Every path goes through the functions here, so the books, the indices and
//! the log are kept in one place.

use caps::id::{GrantId, LeaseId};
use caps::time::UnixMicros;
use caps::wire::link::Take;
use caps::wire::row::EndCause;

use super::answer::{Effect, Out};
use super::books::Booking;
use super::command::RowId;
use super::grant::{GrantEnded, GrantLife};
use super::lease::{Booked, Ended, Ending, Life, Lost};
use super::{Broker, entry};

/// Why, in the words of whoever revoked.
pub(super) type Words<'a> = Option<&'a entry::Revoked<'a>>;

impl Broker {
    /// A reserved or live lease begins to end: its grants end, its name and session are free, the provider is to take
    /// its memory back. A lease that has begun to end before is left alone.
    pub(super) fn end_lease(&mut self, id: LeaseId, cause: EndCause, words: Words<'_>, out: &mut Out) {
        let again_at = self.now.plus(self.genesis.bounds.take_again);
        let Some(lease) = self.leases.get(id) else { return };
        let ending = match lease.life {
            Life::Reserved(reserved) => reserved.cancel(cause, again_at),
            Life::Live(live) => live.end(cause, again_at),
            Life::Ending(_) | Life::Lost(_) | Life::Ended(_) => return,
        };
        out.entries.push(entry::ended(lease, cause, words));
        let (owner, provider, bytes) = (lease.owner, lease.provider, lease.range.len());
        if ending.committed {
            self.book_lease(owner, provider, bytes, Booking::Release);
        }
        // The provider ends a lease at its time without being told, and tells: only silence makes it be told.
        if cause != EndCause::Expired {
            out.effects.push(Effect::Take(Take::Lease(id), cause));
        }
        self.leave_life(id);
        self.set_lease_life(id, Life::Ending(ending));
        self.end_grants_of(id, out);
        self.end_transfer_of(id, out);
        // What was still to be told of it goes with it.
        self.untold.forget(provider, id);
    }

    /// The provider of a lease is lost without proof: nothing of the lease is anybody's any more, but it may be served
    /// until its time is over, and is in its owner's book until then. The provider's own book is the caller's to close.
    pub(super) fn lose_lease(&mut self, id: LeaseId, out: &mut Out) {
        let Some(lease) = self.leases.get(id) else { return };
        let was = lease.life;
        let Some(lost) = was.lose(self.ends_by(lease.latest)) else { return };
        if matches!(was, Life::Reserved(_) | Life::Live(_)) {
            out.entries.push(entry::ended(lease, EndCause::ProviderLost, None));
            self.leave_life(id);
        }
        self.set_lease_life(id, Life::Lost(lost));
        self.end_grants_of(id, out);
        self.end_transfer_of(id, out);
    }

    /// When a provider has ended what it was told to end at `latest`, whatever its clock says.
    pub(super) fn ends_by(&self, latest: UnixMicros) -> UnixMicros {
        latest.plus(self.genesis.bounds.skew)
    }

    /// The time of a lost lease is over wherever it may have been served. Nobody said that its memory is gone.
    pub(super) fn outlive_lease(&mut self, id: LeaseId, lost: Lost, out: &mut Out) {
        self.close_lease(id, lost.cause, out);
        if let Some(Life::Ended(ended)) = self.leases.rows.get_mut(&id).map(|lease| &mut lease.life) {
            ended.unproved = true;
        }
    }

    /// A lease's memory is gone: its bytes are back in the pool and in its owner's quota. Only the first call counts.
    pub(super) fn close_lease(&mut self, id: LeaseId, said: EndCause, out: &mut Out) {
        let Some(lease) = self.leases.get(id) else { return };
        let (life, bytes) = (lease.life, lease.range.len());
        let (owner, provider) = (lease.owner, lease.provider);
        match life {
            Life::Ended(_) => return,
            Life::Ending(_) | Life::Lost(_) => {}
            // It ended at the provider first.
            Life::Reserved(_) | Life::Live(_) => {
                out.entries.push(entry::ended(lease, said, None));
                self.leave_life(id);
            }
        }
        self.set_lease_life(id, Life::Ended(Ended::from(life, said, self.now)));
        self.end_grants_of(id, out);
        self.end_transfer_of(id, out);
        self.untold.forget(provider, id);
        match life {
            Life::Reserved(_) | Life::Ending(Ending { committed: false, .. }) => {
                self.book_lease(owner, provider, bytes, Booking::Cancel);
            }
            Life::Live(_) => {
                self.book_lease(owner, provider, bytes, Booking::Release);
                self.book_lease(owner, provider, bytes, Booking::Returned);
            }
            Life::Ending(Ending { committed: true, .. }) => {
                self.book_lease(owner, provider, bytes, Booking::Returned);
            }
            // The provider's book went with the provider.
            Life::Lost(Lost { booked: Booked::Reserved, .. }) => self.book(owner, bytes, Booking::Cancel),
            Life::Lost(Lost { booked: Booked::Live, .. }) => {
                self.book(owner, bytes, Booking::Release);
                self.book(owner, bytes, Booking::Returned);
            }
            Life::Lost(Lost { booked: Booked::Going, .. }) => self.book(owner, bytes, Booking::Returned),
            Life::Ended(_) => {}
        }
        self.leases.retire(id, self.genesis.capacity.ended);
    }

    /// A grant ends, and its receiver's rights with it. A grant that ended before is left alone. The effect is the
    /// caller's: a lease that goes takes its grants along.
    pub(super) fn end_grant(&mut self, id: GrantId, cause: EndCause, words: Words<'_>, out: &mut Out) {
        let Some(grant) = self.grants.get(id) else { return };
        if grant.life.is_ended() {
            return;
        }
        let (lease, owner, was) = (grant.contract.lease, grant.contract.owner, grant.life);
        let charged = grant.is_charged();
        let bytes = grant.contract.range.len();
        out.entries.push(entry::share_ended(grant, cause, words));
        let out_until = if was.is_out() { was.deadline() } else { None };
        let by_receiver = was.by_receiver();
        self.set_grant_life(id, GrantLife::Ended(GrantEnded { cause, at: self.now, by_receiver, out_until }));
        self.grants.retire(id, self.genesis.capacity.ended);
        if charged {
            self.book(owner, bytes, Booking::Unshare);
        }
        if let Some(lease) = self.leases.rows.get_mut(&lease) {
            lease.grants -= 1;
            lease.epoch = lease.epoch.saturating_add(u32::from(was.is_out()));
        }
    }

    /// Ends a grant and has the provider take its rights back, unless nobody can have a token of it. Of one that ended
    /// before, the provider is told again: whoever asks waits for its answer, as the first one did, who may be waiting
    /// still, or have waited in vain.
    pub(super) fn take_grant(&mut self, id: GrantId, cause: EndCause, words: Words<'_>, out: &mut Out) {
        self.end_grant(id, cause, words, out);
        let Some(grant) = self.grants.get(id) else { return };
        let (lease, GrantLife::Ended(ended)) = (grant.contract.lease, grant.life) else { return };
        let Some(expires) = ended.out_until.filter(|until| self.now < self.ends_by(*until)) else {
            return;
        };
        let effect = match self.leases.get(lease).map(|lease| lease.life) {
            // Its rights go with the lease's memory.
            Some(Life::Ending(Ending { cause, .. }) | Life::Lost(Lost { cause, .. })) => {
                Effect::Take(Take::Lease(lease), cause)
            }
            Some(Life::Reserved(_) | Life::Live(_)) => {
                Effect::Take(Take::Grant { lease, grant: id, expires }, cause)
            }
            Some(Life::Ended(_)) | None => return,
        };
        out.effects.push(effect);
    }

    fn end_grants_of(&mut self, lease: LeaseId, out: &mut Out) {
        for grant in self.grants.under(lease) {
            self.end_grant(grant, EndCause::ParentEnded, None, out);
        }
    }

    /// Name and session of a lease that is about to leave `Reserved` or `Live`.
    fn leave_life(&mut self, id: LeaseId) {
        self.leases.free_name(id);
        if let Some(lease) = self.leases.get(id) {
            self.sessions.remove(&(lease.session, RowId::Lease(id)));
        }
    }

    /// The provider has not answered: it is told again, and again later.
    pub(super) fn take_again(&mut self, id: LeaseId, ending: Ending, out: &mut Out) {
        out.effects.push(Effect::Take(Take::Lease(id), ending.cause));
        let again_at = self.now.plus(self.genesis.bounds.take_again);
        self.set_lease_life(id, Life::Ending(ending.again(again_at)));
    }

    fn set_lease_life(&mut self, id: LeaseId, to: Life) {
        if let Some(lease) = self.leases.rows.get_mut(&id) {
            let from = std::mem::replace(&mut lease.life, to);
            if !matches!(to, Life::Live(_)) {
                lease.marks.clear();
            }
            self.deadlines.swap(RowId::Lease(id), from.deadline(), to.deadline());
        }
    }
}
