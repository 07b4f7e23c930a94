//! The signature of a third party, where the contract names one: between the offer and the issue.
//!
//! ```text
//! OfferToCosign ──▶ Offered, charged ──Cosign──▶ the same, with the signature ──Issue──▶ Issued
//!                      └── withdrawn, or not signed in time ──▶ Ended
//! ```
//!
//! The policy is asked twice: at the offer, so that nobody is asked to sign what will not be, and at the issue, because it
//! may be another by then. The quota is charged at the offer: an offer may wait for long, and waiting offers must not fill
//! the table for nothing. So a co-signature is never given in vain for want of quota.
//!
//! `Cosign` and `Issue` come in one request of the co-signer's, ordered together: the owner's process may be gone. A
//! signature is given once. The second is `E_SHARE_ORDER`, and whoever does not know whether the first arrived looks.

use caps::id::{GrantId, PrincipalKey};
use caps::key::Signature;
use caps::share::ShareContract;
use caps::{Code, Error, Result};

use super::answer::{Answer, Out};
use super::command::Command;
use super::grant::{GrantLife, Offered};
use super::handing::MOVING;
use super::sharing::ORDER;
use super::{Broker, entry};

impl Broker {
    pub(super) fn offer_to_cosign(
        &mut self,
        by: PrincipalKey,
        contract: &ShareContract,
        signature: &Signature,
        uid: Option<u32>,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let Some(cosigner) = contract.cosigner else {
            return Err(Error::new(Code::Protocol, "a contract without a co-signer waits for none"));
        };
        self.offerable(by, contract)?;
        if self.principals.active(cosigner).is_none() {
            return Err(Error::new(Code::PrincipalUnknown, "the co-signer is not registered at this node"));
        }
        self.permitted(command)?;
        contract.verify(by, signature)?;
        // The last thing that can be refused.
        self.book_share(by, contract.range.len())?;
        let issue_by = self.now.plus(self.genesis.bounds.cosign_within);
        Ok(self.offered(contract, signature, Offered { issue_by, uid }, out))
    }

    pub(super) fn cosign(
        &mut self,
        by: PrincipalKey,
        id: GrantId,
        signature: &Signature,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let grant = self.grant_seen_by(by, id)?;
        if grant.contract.cosigner != Some(by) {
            return Err(Error::new(
                Code::Denied,
                "only the co-signer that the contract names may co-sign it",
            ));
        }
        let GrantLife::Offered(offered) = grant.life else { return Err(ORDER) };
        if grant.by_cosigner.is_some() {
            return Err(ORDER);
        }
        if offered.issue_by <= self.now {
            return Err(Error::new(Code::LeaseExpired, "the offer was not co-signed in time"));
        }
        if self.transfers.is_moving(grant.contract.lease) {
            // The issue would be refused, and end the offer: if the lease stays, it was signed for nothing.
            return Err(MOVING);
        }
        // A policy that was exchanged meanwhile is asked again, rather than that the offer ends for it.
        match self.permitted(command) {
            Err(changed) if changed.code() == Code::Busy => return Err(changed),
            Ok(()) | Err(_) => {}
        }
        grant.contract.verify(by, signature)?;

        if let Some(grant) = self.grants.rows.get_mut(&id) {
            grant.by_cosigner = Some(*signature);
            out.entries.push(entry::cosigned(grant, by, signature));
        }
        Ok(Answer::Shared(self.grant_row_of(id)?))
    }
}
