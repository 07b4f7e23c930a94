//! Release and revoke: by lease, grant, holder, subtree or region.
//!
//! Who may not know of a row is told that it does not exist. A second revoke of the same is not an error: the one who
//! asks wants it gone, and it is. A lease that is still going back is taken again, so that the second receipt, too, is
//! sent only when the memory is dead. Its entry counts towards the rate of refusals.

use std::collections::BTreeSet;

use caps::id::{GrantId, LeaseId, PrincipalKey, TransferId};
use caps::time::UnixMicros;
use caps::token::{Mark, RevocationId};
use caps::wire::Reason;
use caps::wire::link::Take;
use caps::wire::row::{EndCause, Revocation, Target};
use caps::{Code, Error, Result};

use super::answer::{Answer, Effect, Out};
use super::command::{Command, TokenCut};
use super::cut::Standing;
use super::lease::{Ended, Ending, Life, Lost};
use super::{Broker, entry};

/// What a revocation reaches.
#[derive(Default)]
struct Reach {
    leases: BTreeSet<LeaseId>,
    grants: BTreeSet<GrantId>,
    /// Leases to take somebody off as a delegate.
    delegate: Option<(PrincipalKey, Vec<LeaseId>)>,
    /// Offers of a lease to somebody who is to have nothing.
    transfers: BTreeSet<TransferId>,
}

impl Broker {
    pub(super) fn release(&mut self, by: PrincipalKey, id: LeaseId, out: &mut Out) -> Result<Answer> {
        if self.leases.get(id).is_none_or(|lease| lease.owner != by) {
            return Err(Error::new(Code::LeaseUnknown, "no such lease of yours"));
        }
        self.proved(id)?;
        Ok(Answer::Ending { leases: self.take_leases([id], EndCause::Released, None, out) })
    }

    pub(super) fn revoke(
        &mut self,
        by: PrincipalKey,
        revocation: &Revocation,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        // No policy stands between the administrator and a revoke.
        if !self.is_admin(by) {
            self.permitted(command)?;
        }
        if let Target::Block { lease, id } = revocation.target {
            return self.revoke_id(by, lease, id, &revocation.reason, out);
        }
        let mut reach = self.reach(by, &revocation.target)?;
        self.provable(&revocation.target, &reach)?;
        let words = entry::Revoked { by, reason: &revocation.reason };
        let before = out.entries.len();
        for &grant in &reach.grants {
            self.take_grant(grant, EndCause::Revoked, Some(&words), out);
        }
        for &transfer in &reach.transfers {
            self.end_transfer(transfer, EndCause::Revoked, out);
        }
        if let Some((holder, leases)) = reach.delegate.take() {
            reach.leases.extend(self.revoke_delegate(holder, leases, &words, out));
        }
        let leases = self.take_leases(reach.leases, EndCause::Revoked, Some(&words), out);
        if out.entries.len() > before {
            return Ok(Answer::Ending { leases });
        }
        // Nothing was left to take. That it was asked for is recorded all the same, but as often as a refusal and no
        // oftener: it changes nothing either, and whoever repeats it must not fill the log.
        if let Some(suppressed) = self.count_denial(by) {
            out.entries.push(entry::revoked_again(&revocation.target, &words, suppressed));
        }
        Ok(Answer::EndedBefore { leases })
    }

    /// Refuses a receipt for a lease, or a grant of one, that is over and of which nobody ever said that its memory is gone.
    /// What is taken back of a whole principal is judged by what is left of it.
    fn provable(&self, target: &Target, reach: &Reach) -> Result<()> {
        if matches!(target, Target::Holder(_)) {
            return Ok(());
        }
        let of_grants = reach.grants.iter().filter_map(|grant| self.grants.get(*grant));
        let mut leases = of_grants.map(|grant| grant.contract.lease).chain(reach.leases.iter().copied());
        leases.try_for_each(|lease| self.proved(lease))
    }

    /// Refuses a receipt for a lease that is over and of which nobody ever said that its memory is gone.
    pub(super) fn proved(&self, id: LeaseId) -> Result<()> {
        let life = self.leases.get(id).map(|lease| lease.life);
        if matches!(life, Some(Life::Ended(Ended { unproved: true, .. }))) {
            return Err(Error::new(
                Code::ProviderLost,
                "its provider was lost, and its time was over there before anything was known of it: there is no receipt",
            ));
        }
        Ok(())
    }

    /// Takes a block back that is known by its id alone: in how far is for the lease's owner to answer for.
    fn revoke_id(
        &mut self,
        by: PrincipalKey,
        lease: LeaseId,
        id: RevocationId,
        reason: &Reason,
        out: &mut Out,
    ) -> Result<Answer> {
        let lease = self.revocable(by, lease)?;
        self.proved(lease)?;
        let marks = [Some(Mark::signature(&id)), None];
        // Nobody knows whose grant's it is, what it reaches or when it ends: the lease, and renewals of it, bound it.
        let until = UnixMicros::MAX;
        let cut = TokenCut {
            lease,
            grant: None,
            id,
            marks,
            range: None,
            not_before: UnixMicros::MAX,
            until,
            held: false,
            reason: reason.clone(),
        };
        self.revoke_block(by, Standing::Owner, &cut, out)
    }

    /// Ends leases, and tells the provider again about those that are ending. Returns those whose memory is going
    /// back.
    pub(super) fn take_leases(
        &mut self,
        ids: impl IntoIterator<Item = LeaseId>,
        cause: EndCause,
        words: super::ending::Words<'_>,
        out: &mut Out,
    ) -> Vec<LeaseId> {
        let mut taken = Vec::new();
        for id in ids {
            match self.leases.get(id).map(|lease| lease.life) {
                Some(Life::Reserved(_) | Life::Live(_)) => self.end_lease(id, cause, words, out),
                // Of a lost one nobody is there to be told: that is the answer, until its time is over.
                Some(Life::Ending(Ending { cause, .. }) | Life::Lost(Lost { cause, .. })) => {
                    out.effects.push(Effect::Take(Take::Lease(id), cause));
                }
                Some(Life::Ended(_)) | None => continue,
            }
            taken.push(id);
        }
        taken
    }

    /// The rows that `by` may revoke by naming `target`.
    fn reach(&self, by: PrincipalKey, target: &Target) -> Result<Reach> {
        let mut reach = Reach::default();
        match target {
            Target::Lease(id) => {
                reach.leases.insert(self.revocable(by, *id)?);
            }
            Target::Region(region) => {
                let id = self.leases.by_region.get(region).copied();
                let unknown = Error::new(Code::LeaseUnknown, "no lease of this region that concerns you");
                reach.leases.insert(id.and_then(|id| self.revocable(by, id).ok()).ok_or(unknown)?);
            }
            Target::Grant(id) => {
                self.grant_of_party(by, *id)?;
                reach.grants.insert(*id);
            }
            // A subtree is named by its root, which is a grant or, all of it, a lease.
            Target::Subtree(root) => {
                if self.grant_of_party(by, *root).is_ok() {
                    reach.grants.insert(*root);
                } else if let Ok(lease) = self.revocable(by, LeaseId(root.0)) {
                    reach.leases.insert(lease);
                } else {
                    return Err(Error::new(Code::GrantUnknown, "no such subtree that concerns you"));
                }
            }
            Target::Holder(holder) => self.reach_holder(by, *holder, &mut reach)?,
            Target::Block { .. } => {}
        }
        Ok(reach)
    }

    /// What `holder` holds: for the administrator and the holder itself all of it, for others what they gave; and what
    /// it may have been delegated, by others and without anybody here knowing, on the leases of the one who asks. Who
    /// gave it nothing and has no lease is refused: a receipt for nothing would look as if something had been taken.
    fn reach_holder(&self, by: PrincipalKey, holder: PrincipalKey, reach: &mut Reach) -> Result<()> {
        let mut over = self.leases_over(by);
        if over.is_empty() && !self.principals.rows.contains_key(&holder) {
            return Err(Error::new(Code::PrincipalUnknown, "no such principal"));
        }
        let all = self.is_admin(by) || by == holder;
        if all {
            reach.leases.extend(self.leases.of(holder, None));
        }
        for id in self.grants.of(holder, None) {
            let held = self.grants.get(id).is_some_and(|grant| {
                grant.contract.receiver == holder && (all || grant.contract.owner == by)
            });
            if held {
                reach.grants.insert(id);
            }
        }
        for id in self.transfers.of(holder, None) {
            let offered = self.transfers.get(id).is_some_and(|row| {
                row.contract.to == holder && (all || row.contract.from == by) && !row.life.is_over()
            });
            if offered {
                reach.transfers.insert(id);
            }
        }
        over.retain(|id| !reach.leases.contains(id));
        if !all && reach.grants.is_empty() && over.is_empty() {
            return Err(Error::new(Code::GrantUnknown, "this principal was given nothing of yours"));
        }
        reach.delegate = Some((holder, over));
        Ok(())
    }

    /// A lease that `by` owns, or any for the administrator.
    fn revocable(&self, by: PrincipalKey, id: LeaseId) -> Result<LeaseId> {
        self.leases
            .get(id)
            .filter(|lease| lease.owner == by || self.is_admin(by))
            .map(|lease| lease.id)
            .ok_or(Error::new(Code::LeaseUnknown, "no such lease that concerns you"))
    }
}
