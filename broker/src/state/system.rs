//! What happens without a principal asking: time, the providers' notices, a new policy.

use caps::id::{LeaseId, PrincipalKey};
use caps::wire::link::Notice;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::command::RowId;
use super::donation::DonationEnd;
use super::lease::Life;
use super::{Broker, entry};

/// Rows that one tick ends at most, so that a burst of expiries does not hold up a revoke. The next tick goes on.
pub const TICK_ROWS_MAX: usize = 256;

impl Broker {
    pub(super) fn tick(&mut self, out: &mut Out) -> Answer {
        for row in self.deadlines.due(self.now, TICK_ROWS_MAX) {
            match row {
                RowId::Lease(id) => match self.leases.get(id).map(|lease| lease.life) {
                    Some(Life::Reserved(_)) => self.end_lease(id, EndCause::NotClaimed, None, out),
                    Some(Life::Live(_)) => self.end_lease(id, EndCause::Expired, None, out),
                    Some(Life::Ending(ending)) => self.take_again(id, ending, out),
                    Some(Life::Ended(_)) | None => {}
                },
                // Its token says when it ends, so the provider needs no telling.
                RowId::Grant(id) => self.end_grant(id, EndCause::Expired, None, out),
                RowId::Donation(id) => self.end_donation(id, DonationEnd::Expired, out),
                RowId::Transfer(id) => {
                    self.accepted_in_vain(id, EndCause::NotClaimed, out);
                    if self.transfers.get(id).is_some_and(|row| row.life.deadline() <= Some(self.now)) {
                        self.end_transfer(id, EndCause::Expired, out);
                    }
                }
            }
        }
        Answer::Done
    }

    pub(super) fn notice(&mut self, notice: &Notice, out: &mut Out) -> Result<Answer> {
        match *notice {
            Notice::LeaseEnded { lease, cause } => {
                self.known(lease)?;
                self.close_lease(lease, cause, out);
                Ok(Answer::Done)
            }
            Notice::GrantOpened { grant } => self.opened(grant, out),
            Notice::GrantEnded { grant, cause } => {
                let row = self.grants.get(grant).ok_or(Error::new(Code::GrantUnknown, "no such grant"))?;
                // What a receiver delegates may end before the grant does, and says nothing about it. That its own
                // time is over this state knows by itself, by the deadline that the token was minted with.
                if cause == EndCause::Expired && row.deadline().is_some_and(|deadline| self.now < deadline) {
                    return Ok(Answer::Done);
                }
                self.end_grant(grant, cause, None, out);
                Ok(Answer::Done)
            }
        }
    }

    pub(super) fn taken(&mut self, lease: LeaseId, out: &mut Out) -> Result<Answer> {
        match self.known(lease)? {
            Life::Reserved(_) | Life::Live(_) => {
                Err(Error::new(Code::Protocol, "the provider was not told to take this lease back"))
            }
            Life::Ending(ending) => {
                self.close_lease(lease, ending.cause, out);
                Ok(Answer::Done)
            }
            Life::Ended(_) => Ok(Answer::Done),
        }
    }

    pub(super) fn holder_exit(&mut self, session: u64, out: &mut Out) -> Answer {
        let first = (session, RowId::Lease(LeaseId([0; 16])));
        let rows: Vec<RowId> =
            self.sessions.range(first..).take_while(|(of, _)| *of == session).map(|(_, row)| *row).collect();
        let mut leases = Vec::new();
        for row in rows {
            match row {
                RowId::Lease(id) => {
                    self.end_lease(id, EndCause::HolderExit, None, out);
                    leases.push(id);
                }
                RowId::Grant(id) => self.take_grant(id, EndCause::HolderExit, None, out),
                // Donations are of principals, not of sessions.
                RowId::Donation(_) => {}
                RowId::Transfer(id) => self.accepted_in_vain(id, EndCause::HolderExit, out),
            }
        }
        Answer::Ending { leases }
    }

    pub(super) fn policy_load(&mut self, hash: &[u8; 32], out: &mut Out) -> Answer {
        self.policy = *hash;
        out.entries.push(entry::policy_loaded(hash));
        Answer::Done
    }

    /// Records a refusal that was decided outside.
    pub(super) fn refused(
        &mut self,
        who: PrincipalKey,
        code: Code,
        about: Option<RowId>,
        out: &mut Out,
    ) -> Answer {
        if let Some(suppressed) = self.count_denial(who) {
            out.entries.push(entry::refused(who, code, about, suppressed));
        }
        Answer::Done
    }

    fn known(&self, lease: LeaseId) -> Result<Life> {
        let known = self.leases.get(lease).map(|lease| lease.life);
        known.ok_or(Error::new(Code::LeaseUnknown, "no such lease"))
    }
}
