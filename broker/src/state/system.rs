//! What happens without a principal asking: time, the providers' notices, a new policy.

use caps::id::{LeaseId, PrincipalKey, ProviderId};
use caps::wire::link::Notice;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::command::RowId;
use super::donation::DonationEnd;
use super::lease::{Ending, Life, Lost};
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
                    Some(Life::Lost(lost)) => self.outlive_lease(id, lost, out),
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

    /// A provider says what became of leases that are there, and of their grants. Of what is elsewhere it is not believed:
    /// that is refused as if it were not there, and recorded.
    pub(super) fn notice(&mut self, provider: ProviderId, notice: &Notice, out: &mut Out) -> Result<Answer> {
        self.providers.alive(provider)?;
        let about = match *notice {
            Notice::LeaseEnded { lease, .. } => RowId::Lease(lease),
            Notice::GrantOpened { grant } | Notice::GrantEnded { grant, .. } => RowId::Grant(grant),
        };
        match self.provider_of(about) {
            Some(of) if of == provider => {}
            elsewhere => {
                let code = match about {
                    RowId::Grant(_) => Code::GrantUnknown,
                    _ => Code::LeaseUnknown,
                };
                if elsewhere.is_some()
                    && let Some(suppressed) = self.strangers.count(self.now)
                {
                    out.entries.push(entry::presumed(provider, code, about, suppressed));
                }
                return Err(Error::new(code, "the provider has no such lease or grant"));
            }
        }
        match *notice {
            Notice::LeaseEnded { lease, cause } => {
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
            // Also of a lost provider: it was the answer to what it had been told before.
            Life::Ending(Ending { cause, .. }) | Life::Lost(Lost { cause, .. }) => {
                self.close_lease(lease, cause, out);
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

    /// Where the region of a row is.
    fn provider_of(&self, row: RowId) -> Option<ProviderId> {
        let lease = match row {
            RowId::Lease(lease) => lease,
            RowId::Grant(grant) => self.grants.get(grant)?.contract.lease,
            RowId::Donation(_) | RowId::Transfer(_) => return None,
        };
        Some(self.leases.get(lease)?.provider)
    }

    fn known(&self, lease: LeaseId) -> Result<Life> {
        let known = self.leases.get(lease).map(|lease| lease.life);
        known.ok_or(Error::new(Code::LeaseUnknown, "no such lease"))
    }
}
