//! Handing a lease over: offer, accept, done; and every way in which an offer ends.
//!
//! Between accept and done the provider takes back all that came from the former owner. So the order is that of a lease's
//! beginning: what is refused is refused before the provider is told; the provider may refuse; and what it did for an
//! acceptance that came to nothing is taken back by telling it the former owner. The lease is in one owner's books at any
//! time: the former one's until it is done, the new one's from then on. The new one's quota is asked when it accepts, and
//! once more when it is done. In between it is leased nothing else and lends nothing; what others lent it may go back
//! nevertheless, and then it comes to nothing after all.
//!
//! An acceptance may be taken back while the provider is still at it, and the offer be accepted again. What is said of an
//! acceptance afterwards therefore names it, by the time at which its new owner's was to begin: no two have the same.

use caps::id::{LeaseId, PrincipalKey, TransferId};
use caps::key::Signature;
use caps::share::TransferContract;
use caps::time::{Micros, UnixMicros};
use caps::wire::link::Take;
use caps::wire::row::{EndCause, Lifetime, TransferRow, TransferState};
use caps::{Code, Error, Result};

use super::answer::{Answer, Effect, Out};
use super::command::{Command, RowId, TransferAcceptance};
use super::lease::{Life, Live};
use super::transfer::{Accepted, Done, Ended, Offered, Transfer, TransferLife};
use super::{Broker, entry};

const ORDER: Error = Error::new(Code::ShareOrder, "the offer is not at the step before this one");
/// To what may not happen to a lease between the acceptance and the end of it.
pub(super) const MOVING: Error = Error::new(Code::Busy, "the lease is just being handed over");
const STALE: Error = Error::new(Code::LeaseExpired, "the acceptance was taken back before it was done");

impl Broker {
    pub(super) fn transfer_offer(
        &mut self,
        by: PrincipalKey,
        contract: &TransferContract,
        signature: &Signature,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        if contract.cluster != self.genesis.cluster {
            return Err(Error::new(Code::Epoch, "the contract is of another life of the control plane"));
        }
        let live = self.live_lease_of(by, contract.lease)?;
        let lease = self.leases.get(contract.lease).ok_or(Code::LeaseUnknown)?;
        if contract.from != by || contract.region != lease.region {
            return Err(Error::new(
                Code::LeaseUnknown,
                "the contract's owner and region are not the lease's",
            ));
        }
        if self.principals.active(contract.to).is_none() {
            return Err(Error::new(Code::PrincipalUnknown, "the receiver is not registered at this node"));
        }
        if contract.to == by {
            return Err(Error::new(Code::Range, "a lease is handed over to somebody else"));
        }
        if contract.ttl.0 == 0 || contract.ttl.0 > UnixMicros::MAX.0 {
            return Err(Error::new(Code::Range, "a span has 1 to 2^63 - 1 microseconds"));
        }
        if self.transfers.rows.contains_key(&contract.transfer) {
            return Err(Error::new(Code::Exists, "an offer of this id was made before"));
        }
        if self.transfers.by_lease.contains_key(&contract.lease) {
            return Err(Error::new(Code::Exists, "the lease is offered to somebody; withdraw that first"));
        }
        self.permitted(command)?;
        // Last, because it costs most.
        contract.verify(by, signature)?;

        let accept_by = self.now.plus(contract.ttl).min(live.expires);
        let life = TransferLife::Offered(Offered { accept_by });
        let transfer = Transfer { contract: *contract, by_owner: *signature, life };
        out.entries.push(entry::transfer_offered(&transfer, accept_by, &self.policy));
        self.deadlines.swap(RowId::Transfer(contract.transfer), None, Some(accept_by));
        self.transfers.insert(transfer);
        Ok(Answer::Transfer(self.transfer_row_of(contract.transfer)?))
    }

    pub(super) fn transfer_accept(
        &mut self,
        by: PrincipalKey,
        acceptance: &TransferAcceptance,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let TransferAcceptance { transfer: id, signature, lifetime, session } = *acceptance;
        let transfer = self.transfer_of_party(by, id)?;
        let contract = transfer.contract;
        if contract.to != by {
            return Err(Error::new(Code::Denied, "only the one whom the lease is offered to may accept it"));
        }
        let TransferLife::Offered(offered) = transfer.life else { return Err(ORDER) };
        if offered.accept_by <= self.now {
            return Err(Error::new(Code::LeaseExpired, "the offer's time is over"));
        }
        let live = self.live_lease_of(contract.from, contract.lease)?;
        let lease = self.leases.get(contract.lease).ok_or(Code::LeaseUnknown)?;
        let (bytes, tried) = (lease.range.len(), lease.tried);
        self.permitted(command)?;
        if self.transfers.receiving.contains(&by) {
            return Err(Error::new(Code::Busy, "another lease is just being handed over to you"));
        }
        self.has_quota(by, bytes)?;
        contract.verify(by, &signature)?;

        let copying = Micros::from_millis(bytes / policy::limits::RESERVATION_BYTES_PER_MS);
        let done_by = self.now.plus(self.genesis.bounds.claim_within).plus(copying);
        // Later than every token there is, and none is issued until it is done; and no time of another acceptance, so that
        // taking one back takes back that one.
        let since = self.now.max(live.since).max(tried).plus(Micros(1));
        let by_receiver = signature;
        let accepted = Accepted { offered, done_by, since, by_receiver, lifetime, session };
        self.set_transfer_life(id, TransferLife::Accepted(accepted));
        if let Some(transfer) = self.transfers.get(id) {
            out.entries.push(entry::transfer_accepted(transfer, &accepted, &self.policy));
        }
        if let Some(lease) = self.leases.rows.get_mut(&contract.lease) {
            lease.tried = since;
        }
        let lease = contract.lease;
        let give = Take::Owner { lease, to: by, since, until: done_by, undoes: None };
        let back = back(lease, contract.from, live, &accepted);
        let at = self.whereabouts(lease).ok_or(Code::LeaseUnknown)?;
        Ok(Answer::HandingOver { give, back, at })
    }

    /// The provider has taken back all that came from the former owner: the lease is the new one's.
    pub(super) fn transfer_done(
        &mut self,
        id: TransferId,
        since: UnixMicros,
        out: &mut Out,
    ) -> Result<Answer> {
        let transfer =
            self.transfers.get(id).ok_or(Error::new(Code::GrantUnknown, "no such offer of a lease"))?;
        let contract = transfer.contract;
        let accepted = match transfer.life {
            TransferLife::Accepted(accepted) if accepted.since == since => accepted,
            TransferLife::Done(done) if done.since == since => {
                return Err(Error::new(Code::Exists, "the lease was handed over before"));
            }
            _ => return Err(STALE),
        };
        if accepted.done_by <= self.now {
            return Err(Error::new(Code::LeaseExpired, "the lease was not handed over in time"));
        }
        let live = self.live_lease_of(contract.from, contract.lease)?;
        let bytes = self.leases.get(contract.lease).ok_or(Code::LeaseUnknown)?.range.len();
        self.has_quota(contract.to, bytes)?;

        for grant in self.grants.under(contract.lease) {
            // The provider refuses their tokens by their time: they began before the new owner's.
            self.end_grant(grant, EndCause::Transfer, None, out);
        }
        self.rebook_lease(contract.from, contract.to, bytes)?;
        let live = Live { since: accepted.since, expires: live.expires };
        if let Some(lease) = self.leases.get(contract.lease) {
            out.entries.push(entry::handed_over(lease, &contract, live.since));
        }
        self.change_owner(&contract, &accepted, live);
        if let Some(lease) = self.leases.get(contract.lease) {
            out.entries.push(entry::taken_over(lease, &contract, live));
        }
        let done = Done { at: self.now, since, by_receiver: accepted.by_receiver };
        self.set_transfer_life(id, TransferLife::Done(done));
        self.transfers.retire(id, self.genesis.capacity.ended);
        Ok(self.leased(contract.lease, live, live.expires))
    }

    /// An acceptance comes to nothing: the offer stands again, and the provider is told whose the lease is. It may not
    /// have been told anything else before. Another acceptance of the same offer is left alone.
    pub(super) fn transfer_back(
        &mut self,
        id: TransferId,
        since: UnixMicros,
        cause: EndCause,
        out: &mut Out,
    ) -> Result<()> {
        match self.transfers.get(id).map(|row| row.life) {
            Some(TransferLife::Accepted(accepted)) if accepted.since == since => {
                self.unaccept(id, accepted, cause, out);
                Ok(())
            }
            _ => Err(STALE),
        }
    }

    /// As [`Self::transfer_back`], for whichever acceptance there is.
    pub(super) fn accepted_in_vain(&mut self, id: TransferId, cause: EndCause, out: &mut Out) {
        if let Some(TransferLife::Accepted(accepted)) = self.transfers.get(id).map(|row| row.life) {
            self.unaccept(id, accepted, cause, out);
        }
    }

    fn unaccept(&mut self, id: TransferId, accepted: Accepted, cause: EndCause, out: &mut Out) {
        if accepted.offered.accept_by <= self.now {
            return self.end_transfer(id, cause, out);
        }
        self.tell_owner(id, out);
        if let Some(transfer) = self.transfers.get(id) {
            out.entries.push(entry::transfer_stands(transfer, accepted.since));
        }
        self.set_transfer_life(id, TransferLife::Offered(accepted.offered));
    }

    /// An offer ends, and the lease stays where it is. One that is over is left alone.
    pub(super) fn end_transfer(&mut self, id: TransferId, cause: EndCause, out: &mut Out) {
        let Some(transfer) = self.transfers.get(id) else { return };
        if transfer.life.is_over() {
            return;
        }
        out.entries.push(entry::transfer_ended(transfer, cause));
        self.tell_owner(id, out);
        self.set_transfer_life(id, TransferLife::Ended(Ended { cause, at: self.now }));
        self.transfers.retire(id, self.genesis.capacity.ended);
    }

    /// Ends the offer of a lease that is ending.
    pub(super) fn end_transfer_of(&mut self, lease: LeaseId, out: &mut Out) {
        if let Some(&id) = self.transfers.by_lease.get(&lease) {
            self.end_transfer(id, EndCause::ParentEnded, out);
        }
    }

    pub(super) fn transfer_withdraw(
        &mut self,
        by: PrincipalKey,
        id: TransferId,
        out: &mut Out,
    ) -> Result<Answer> {
        match self.transfer_of_party(by, id)?.life {
            TransferLife::Offered(_) => {
                self.end_transfer(id, EndCause::Released, out);
                Ok(Answer::Transfer(self.transfer_row_of(id)?))
            }
            TransferLife::Accepted(_) | TransferLife::Done(_) | TransferLife::Ended(_) => Err(ORDER),
        }
    }

    /// An offer, for both sides and the administrator. To anybody else it does not exist.
    pub(super) fn transfer_of_party(&self, by: PrincipalKey, id: TransferId) -> Result<&Transfer> {
        self.transfers
            .get(id)
            .filter(|row| row.contract.from == by || row.contract.to == by || self.is_admin(by))
            .ok_or(Error::new(Code::GrantUnknown, "no such offer of a lease that concerns you"))
    }

    pub(super) fn transfer_row(&self, transfer: &Transfer, now: UnixMicros) -> TransferRow {
        let contract = &transfer.contract;
        let state = transfer.life.state(now);
        let over = matches!(state, TransferState::Done | TransferState::Ended);
        // Once it is over, the lease is no business of one of them.
        let lease = self.leases.get(contract.lease).filter(|_| !over);
        TransferRow {
            id: contract.transfer,
            lease: contract.lease,
            region: contract.region,
            bytes: lease.map_or(0, |lease| lease.range.len()),
            from: contract.from,
            from_name: self.principals.name(contract.from).cloned(),
            to: contract.to,
            to_name: self.principals.name(contract.to).cloned(),
            ttl: contract.ttl,
            stands_for: transfer.life.deadline().map_or(Micros(0), |deadline| deadline.since(now)),
            expires_in: lease.map_or(Micros(0), |lease| lease.life.left(now)),
            state,
            cause: transfer.life.cause(),
        }
    }

    fn transfer_row_of(&self, id: TransferId) -> Result<TransferRow> {
        let transfer = self.transfers.get(id).ok_or(Code::GrantUnknown)?;
        Ok(self.transfer_row(transfer, self.now))
    }

    /// Has the provider go back to the present owner, if it may have been told another.
    fn tell_owner(&self, id: TransferId, out: &mut Out) {
        let Some(transfer) = self.transfers.get(id) else { return };
        let TransferLife::Accepted(accepted) = transfer.life else { return };
        if let Some((Life::Live(live), lease)) =
            self.leases.get(transfer.contract.lease).map(|lease| (lease.life, lease))
        {
            let back = back(lease.id, lease.owner, live, &accepted);
            out.effects.push(Effect::Take(back, EndCause::Transfer));
        }
    }

    /// Moves an offer to another state, with its deadline, its session and its receiver's mark.
    fn set_transfer_life(&mut self, id: TransferId, to: TransferLife) {
        let Some(transfer) = self.transfers.rows.get_mut(&id) else { return };
        let from = std::mem::replace(&mut transfer.life, to);
        let receiver = transfer.contract.to;
        let row = RowId::Transfer(id);
        self.deadlines.swap(row, from.deadline(), to.deadline());
        if let Some(session) = from.session() {
            self.sessions.remove(&(session, row));
        }
        if let Some(session) = to.session() {
            self.sessions.insert((session, row));
        }
        if matches!(to, TransferLife::Accepted(_)) {
            self.transfers.receiving.insert(receiver);
        } else if matches!(from, TransferLife::Accepted(_)) {
            self.transfers.receiving.remove(&receiver);
        }
    }

    /// The row of a live lease under its new owner, with every index of it. A name that the new owner has given to
    /// another lease of its own stays that one's: the lease comes without.
    fn change_owner(&mut self, contract: &TransferContract, accepted: &Accepted, live: Live) {
        let (id, row) = (contract.lease, RowId::Lease(contract.lease));
        self.leases.free_name(id);
        self.leases.by_owner.remove(&(contract.from, id));
        self.leases.by_owner.insert((contract.to, id));
        let Some(lease) = self.leases.rows.get_mut(&id) else { return };
        self.sessions.remove(&(lease.session, row));
        lease.owner = contract.to;
        (lease.lifetime, lease.session) = (accepted.lifetime, accepted.session);
        lease.life = Life::Live(live);
        // What was taken back below the former owner's tokens died with them.
        lease.marks.clear();
        lease.epoch = lease.epoch.saturating_add(1);
        if lease.lifetime == Lifetime::Process {
            self.sessions.insert((lease.session, row));
        }
        if let Some(name) = lease.name.take() {
            let key = (contract.to, name.clone());
            if let std::collections::btree_map::Entry::Vacant(free) = self.leases.by_name.entry(key) {
                free.insert(id);
                lease.name = Some(name);
            }
        }
    }
}

/// What takes an acceptance back at the provider, that one and no other.
const fn back(lease: LeaseId, owner: PrincipalKey, live: Live, accepted: &Accepted) -> Take {
    let (since, undoes) = (live.since, Some(accepted.since));
    Take::Owner { lease, to: owner, since, until: UnixMicros::MAX, undoes }
}
