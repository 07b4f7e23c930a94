//! Revoking below a grant: one block of a token, or one person as a delegate.
//!
//! The books know nothing of what holders make of their tokens offline. What is taken back of it is known by its marks,
//! which stand beside the lease until the last token that carries them has ended, at the provider and here: here so that
//! it is known who has taken back what, and how much of the room for it is left.
//!
//! The room is the owner's. The other side of a grant, and those to whom it delegated, may fill half of it; beyond that,
//! and for the owner beyond all of it, the next larger thing is taken instead that is the asker's to take, or nothing
//! with an error, and never nothing without one.

use caps::id::{GrantId, LeaseId, PrincipalKey};
use caps::range::ByteRange;
use caps::time::UnixMicros;
use caps::token::Mark;
use caps::wire::link::Take;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};
use policy::limits::{MARKS_OF_DELEGATES_MAX, MARKS_PER_REGION_MAX};

use super::answer::{Answer, Effect, Out};
use super::command::{Actor, Command, TokenCut};
use super::grant::Grant;
use super::lease::{Ending, Lease, Life, Lost};
use super::{Broker, entry};

/// What the one who asks is to the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The lease is its own, or it is the administrator.
    Owner,
    /// The grant is its own, from either side.
    Party(GrantId),
    /// It held the token, and nothing else.
    Holder,
}

/// What is marked, and for how long.
#[derive(Clone, Copy)]
struct Marking {
    lease: LeaseId,
    grant: Option<GrantId>,
    marks: [Option<Mark>; 2],
    /// `None`: all that the lease has.
    range: Option<ByteRange>,
    /// When the time of what carries them began, at the latest.
    not_before: UnixMicros,
    until: UnixMicros,
}

impl Marking {
    const fn of(cut: &TokenCut) -> Self {
        let &TokenCut { lease, grant, marks, range, not_before, until, .. } = cut;
        Self { lease, grant, marks, range, not_before, until }
    }
}

/// What marking came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marked {
    /// It is remembered from now on.
    New,
    /// It was, or nothing could use such a token any more.
    Before,
    /// There is no room.
    Full,
}

impl Broker {
    pub(super) fn revoke_token(
        &mut self,
        cut: &TokenCut,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        let Actor::Principal(by) = command.by else {
            return Err(Error::new(Code::Protocol, "only a principal may ask for this"));
        };
        // Whoever holds a token need not be registered, and may give up what it holds.
        if !cut.held {
            self.principal(command)?;
        }
        if !self.is_admin(by) {
            self.permitted(command)?;
        }
        let lease = self.leases.get(cut.lease);
        let owner = lease.ok_or(Error::new(Code::LeaseUnknown, "no such lease"))?.owner;
        // Where there is no room for marks it is the grant that goes: whoever says which must not name another lease's.
        let of_lease =
            |grant| self.grants.get(grant).is_some_and(|row: &Grant| row.contract.lease == cut.lease);
        if cut.grant.is_some_and(|grant| !of_lease(grant)) {
            return Err(Error::new(Code::GrantUnknown, "the lease has no such grant"));
        }
        let standing = match cut.grant {
            _ if by == owner || self.is_admin(by) => Standing::Owner,
            Some(grant) if self.grant_of_party(by, grant).is_ok() => Standing::Party(grant),
            _ if cut.held => Standing::Holder,
            _ => {
                return Err(Error::new(
                    Code::Denied,
                    "only who held the token up to that block, and whose lease or grant it is, may revoke it",
                ));
            }
        };
        self.proved(cut.lease)?;
        self.revoke_block(by, standing, cut, out)
    }

    /// Takes back what carries the marks of one block.
    pub(super) fn revoke_block(
        &mut self,
        by: PrincipalKey,
        standing: Standing,
        cut: &TokenCut,
        out: &mut Out,
    ) -> Result<Answer> {
        let words = entry::Revoked { by, reason: &cut.reason };
        match self.mark(standing, &Marking::of(cut), out) {
            Marked::New => {
                let owner = self.leases.get(cut.lease).map(|lease| lease.owner);
                out.entries.push(entry::block_revoked(cut, owner, &words));
                Ok(Answer::Ending { leases: Vec::new() })
            }
            Marked::Before => {
                let leases = match self.leases.get(cut.lease).map(|lease| lease.life) {
                    Some(Life::Ending(_)) => vec![cut.lease],
                    _ => Vec::new(),
                };
                if let Some(suppressed) = self.count_denial(by) {
                    let draft = entry::block_revoked(cut, None, &words);
                    out.entries.push(entry::repeated(draft, suppressed));
                }
                Ok(Answer::EndedBefore { leases })
            }
            Marked::Full => {
                let instead = match (standing, cut.grant) {
                    (Standing::Party(grant), _) | (Standing::Owner, Some(grant)) => Some(grant),
                    (Standing::Owner, None) => None,
                    (Standing::Holder, _) => {
                        return Err(Error::new(
                            Code::Quota,
                            "the lease remembers as many revocations as others than its owner may add; ask the owner",
                        ));
                    }
                };
                let leases = match instead {
                    Some(grant) => {
                        self.take_grant(grant, EndCause::Revoked, Some(&words), out);
                        Vec::new()
                    }
                    None => self.take_leases([cut.lease], EndCause::Revoked, Some(&words), out),
                };
                Ok(Answer::Ending { leases })
            }
        }
    }

    /// Remembers marks and has the provider end what carries them. Also the second time: the second receipt, too, is
    /// sent only when it is dead.
    fn mark(&mut self, standing: Standing, marking: &Marking, out: &mut Out) -> Marked {
        let now = self.now;
        let over =
            marking.grant.and_then(|grant| self.grants.get(grant)).is_some_and(|row| row.life.is_ended());
        if matches!(self.leases.get(marking.lease), Some(Lease { life: Life::Live(live), .. }) if live.expires <= now)
        {
            // Its tick is still to come.
            self.end_lease(marking.lease, EndCause::Expired, None, out);
        }
        let Some(lease) = self.leases.rows.get_mut(&marking.lease) else { return Marked::Before };
        if let Life::Ending(Ending { cause, .. }) | Life::Lost(Lost { cause, .. }) = lease.life {
            // Its provider may serve such tokens until the memory is back, and hears of no marks any more. Memory that is
            // going back is waited for, as by any revoke; of a lost one whoever asks hears how long it may be served.
            out.effects.push(Effect::Take(Take::Lease(marking.lease), cause));
            return Marked::Before;
        }
        // A token of a former owner's time is refused everywhere already. Whoever still holds one must not reach, by its
        // marks, what the present owner's delegates have open, nor fill the present owner's room.
        let live = matches!(
            lease.life,
            Life::Live(live) if now < live.expires && live.since <= marking.not_before
        );
        if !live || over || marking.until <= now {
            return Marked::Before;
        }
        let marks = || marking.marks.iter().flatten().copied();
        let new = marks().filter(|mark| lease.marks.get(mark).is_none_or(|&until| until < marking.until));
        let marked = if new.count() == 0 { Marked::Before } else { Marked::New };
        if marked == Marked::New {
            lease.marks.retain(|_, until| *until > now);
            let room = match standing {
                Standing::Owner => MARKS_PER_REGION_MAX,
                Standing::Party(_) | Standing::Holder => MARKS_OF_DELEGATES_MAX,
            };
            let added = marks().filter(|mark| !lease.marks.contains_key(mark)).count();
            if lease.marks.len() + added > room && added > 0 {
                return Marked::Full;
            }
            for mark in marks() {
                let known = lease.marks.entry(mark).or_insert(marking.until);
                *known = marking.until.max(*known);
            }
        }
        let take = Take::Marks {
            lease: marking.lease,
            marks: marking.marks,
            grant: marking.grant,
            range: marking.range.unwrap_or(lease.range),
            expires: marking.until,
        };
        out.effects.push(Effect::Take(take, EndCause::Revoked));
        marked
    }

    /// Takes `holder` back as a delegate on these leases: whatever was, and will be, delegated to it by whomever.
    /// Leases without room for it go as a whole. Returns those.
    pub(super) fn revoke_delegate(
        &mut self,
        holder: PrincipalKey,
        leases: Vec<LeaseId>,
        words: &entry::Revoked<'_>,
        out: &mut Out,
    ) -> Vec<LeaseId> {
        let (mut full, mut new) = (Vec::new(), 0);
        for lease in leases {
            let marks = [Some(Mark::delegate(holder)), None];
            // The lease may be renewed, and its owner's tokens with it.
            let (not_before, until) = (UnixMicros::MAX, UnixMicros::MAX);
            let marking = Marking { lease, grant: None, marks, range: None, not_before, until };
            match self.mark(Standing::Owner, &marking, out) {
                Marked::New => new += 1,
                Marked::Before => {}
                Marked::Full => full.push(lease),
            }
        }
        if new > 0 {
            out.entries.push(entry::delegate_revoked(holder, new, words));
        }
        full
    }

    /// The leases that are `by`'s to take people off, live ones and those that may still be served: its own, and all for
    /// the administrator. Of a reservation nobody has a token.
    pub(super) fn leases_over(&self, by: PrincipalKey) -> Vec<LeaseId> {
        let all = self.is_admin(by);
        let live = |id: &LeaseId| {
            self.leases.get(*id).is_some_and(|lease| {
                matches!(
                    lease.life,
                    Life::Live(_) | Life::Ending(Ending { committed: true, .. }) | Life::Lost(_)
                )
            })
        };
        if all {
            self.leases.rows.keys().copied().filter(live).collect()
        } else {
            self.leases.of(by, None).filter(live).collect()
        }
    }
}
