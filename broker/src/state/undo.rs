//! Taking back what was applied and could not be recorded. Each is an ordered command like any other, so every
//! replica takes back the same; and its own entry says so, for a device may fail and have stored all the same.

use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Effect, Out};
use super::command::Undo;
use super::donation::DonationEnd;
use super::grant::GrantLife;
use super::lease::Life;
use super::{Broker, entry};

impl Broker {
    pub(super) fn undo(&mut self, undo: &Undo, out: &mut Out) -> Result<Answer> {
        let cause = EndCause::NotRecorded;
        match *undo {
            Undo::PrincipalAdd { key } => {
                if key == self.genesis.admin || self.principals.active(key).is_none() {
                    return Err(Error::new(Code::PrincipalUnknown, "no such principal to remove"));
                }
                for id in self.grants.of(key, None).collect::<Vec<_>>() {
                    self.take_grant(id, cause, None, out);
                }
                for id in self.leases.of(key, None).collect::<Vec<_>>() {
                    self.end_lease(id, cause, None, out);
                }
                self.end_donations_of(key, out);
                for id in self.transfers.of(key, None).collect::<Vec<_>>() {
                    self.end_transfer(id, cause, out);
                }
                out.entries.push(entry::principal_undone(key));
                if let Some(principal) = self.principals.rows.get_mut(&key) {
                    principal.leaving = true;
                    self.let_go(key);
                }
            }
            Undo::Lease { lease } => self.end_lease(lease, cause, None, out),
            Undo::Renew { lease: id, expires, since } => {
                if let Some((lease, Life::Live(live))) = self.leases.get(id).map(|lease| (lease, lease.life))
                    && live.since == since
                {
                    out.entries.push(entry::renewal_undone(lease, expires));
                    out.effects.push(Effect::Renew(id, expires.since(self.now)));
                    self.set_expiry(id, live, live.renew(expires));
                }
            }
            Undo::Offer { grant } => self.take_grant(grant, cause, None, out),
            Undo::Accept { grant: id } => {
                if let Some((grant, GrantLife::Accepted(accepted))) =
                    self.grants.get(id).map(|grant| (grant, grant.life))
                {
                    out.entries.push(entry::acceptance_undone(grant));
                    self.set_grant_life(id, GrantLife::Issued(accepted.unaccept()));
                } else {
                    // It was opened, so somebody has its token: only ending it is safe.
                    self.take_grant(id, cause, None, out);
                }
            }
            Undo::QuotaGive { id } => self.end_donation(id, DonationEnd::NotRecorded, out),
            Undo::TransferOffer { transfer } => self.end_transfer(transfer, cause, out),
            Undo::TransferAccept { transfer, since } => self.transfer_back(transfer, since, cause, out)?,
        }
        Ok(Answer::Done)
    }
}
