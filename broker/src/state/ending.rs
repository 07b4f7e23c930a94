//! How rows end, whatever the reason. Every path goes through the four functions here, so the books, the indices and
//! the log are kept in one place.

use caps::id::{GrantId, LeaseId};
use caps::wire::link::Take;
use caps::wire::row::EndCause;

use super::answer::{Effect, Out};
use super::books::Booking;
use super::command::RowId;
use super::grant::{GrantEnded, GrantLife};
use super::lease::{Ended, Ending, Life};
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
            Life::Ending(_) | Life::Ended(_) => return,
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
    }

    /// A lease's memory is gone: its bytes are back in the pool and in its owner's quota. Only the first call counts.
    pub(super) fn close_lease(&mut self, id: LeaseId, said: EndCause, out: &mut Out) {
        let Some(lease) = self.leases.get(id) else { return };
        let (life, bytes) = (lease.life, lease.range.len());
        let (owner, provider) = (lease.owner, lease.provider);
        match life {
            Life::Ended(_) => return,
            Life::Ending(_) => {}
            // It ended at the provider first.
            Life::Reserved(_) | Life::Live(_) => {
                out.entries.push(entry::ended(lease, said, None));
                self.leave_life(id);
            }
        }
        self.set_lease_life(id, Life::Ended(Ended::from(life, said, self.now)));
        self.end_grants_of(id, out);
        self.end_transfer_of(id, out);
        if matches!(life, Life::Live(_)) {
            self.book_lease(owner, provider, bytes, Booking::Release);
        }
        let was_committed = matches!(life, Life::Live(_) | Life::Ending(Ending { committed: true, .. }));
        let booking = if was_committed { Booking::Returned } else { Booking::Cancel };
        self.book_lease(owner, provider, bytes, booking);
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
        self.set_grant_life(
            id,
            GrantLife::Ended(GrantEnded { cause, at: self.now, by_receiver: was.by_receiver() }),
        );
        self.grants.retire(id, self.genesis.capacity.ended);
        if charged {
            self.book(owner, bytes, Booking::Unshare);
        }
        if let Some(lease) = self.leases.rows.get_mut(&lease) {
            lease.grants -= 1;
            lease.epoch = lease.epoch.saturating_add(u32::from(was.is_out()));
        }
    }

    /// Ends a grant and has the provider take its rights back, unless nobody can have a token of it.
    pub(super) fn take_grant(&mut self, id: GrantId, cause: EndCause, words: Words<'_>, out: &mut Out) {
        let Some(grant) = self.grants.get(id) else { return };
        let (lease, life) = (grant.contract.lease, grant.life);
        self.end_grant(id, cause, words, out);
        if let (true, Some(expires)) = (life.is_out(), life.deadline()) {
            out.effects.push(Effect::Take(Take::Grant { lease, grant: id, expires }, cause));
        }
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
