//! Narrowing: a part of a grant is taken back, and the rest lives on.
//!
//! A revoke of a part, and under the rules of a revoke: it is the owner's and the administrator's, it takes effect
//! whether or not it can be recorded, and doing it again is no error. The contract stays as both signed it; what is
//! left stands beside it and only ever shrinks. The quota stays charged for what was agreed until the grant ends.

use caps::id::{GrantId, PrincipalKey};
use caps::share::Rest;
use caps::time::UnixMicros;
use caps::wire::link::Take;
use caps::wire::row::EndCause;
use caps::{Code, Error, Result};

use super::answer::{Answer, Effect, Out};
use super::command::{Command, Narrowing, RowId};
use super::grant::Grant;
use super::{Broker, entry};

impl Broker {
    pub(super) fn narrow(
        &mut self,
        by: PrincipalKey,
        narrowing: &Narrowing,
        command: &Command,
        out: &mut Out,
    ) -> Result<Answer> {
        // No policy stands between the administrator and a revoke.
        if !self.is_admin(by) {
            self.permitted(command)?;
        }
        let id = narrowing.grant;
        let grant = self.grant_of_party(by, id)?;
        if grant.contract.owner != by && !self.is_admin(by) {
            return Err(Error::new(Code::Denied, "only the grant's owner may narrow it"));
        }
        let before = self.rest_of(grant)?;
        let left = self.narrower(before, narrowing)?;
        let (lease, out_already) = (grant.contract.lease, grant.life.is_out());
        let again = left == before;
        if again {
            // It changes nothing: recorded as often as a refusal and no oftener, as a revoke of what is over.
            let draft = entry::narrowed(grant, by, &left);
            if let Some(suppressed) = self.count_denial(by) {
                out.entries.push(entry::repeated(draft, suppressed));
            }
        } else {
            out.entries.push(entry::narrowed(grant, by, &left));
            self.set_grant_rest(id, left);
        }
        // Also the second time: the second receipt, too, is sent only when the part is dead.
        if out_already {
            let Rest { rights, range, expires } = left;
            let take = Take::Narrow { lease, grant: id, rights, range, expires };
            out.effects.push(Effect::Take(take, EndCause::Narrowed));
        }
        Ok(Answer::Narrowed { left, again })
    }

    /// What a grant gives at present.
    fn rest_of(&self, grant: &Grant) -> Result<Rest> {
        let order =
            Error::new(Code::ShareOrder, "only a grant that was issued and is not over can be narrowed");
        match (grant.rest(), grant.deadline()) {
            (Some(rest), Some(deadline)) if self.now < deadline => Ok(rest),
            _ => Err(order),
        }
    }

    /// `before` with a part taken off, or why that is no part of it.
    fn narrower(&self, before: Rest, narrowing: &Narrowing) -> Result<Rest> {
        let Narrowing { grant: _, rights, range, ttl } = *narrowing;
        if rights.is_none() && range.is_none() && ttl.is_none() {
            return Err(Error::new(Code::Range, "a narrowing names rights, a range or a time"));
        }
        let left = Rest {
            rights: rights.unwrap_or(before.rights),
            range: range.unwrap_or(before.range),
            expires: ttl.map_or(before.expires, |ttl| self.now.plus(ttl)),
        };
        if left.rights.is_empty() || left.expires <= self.now {
            return Err(Error::new(Code::Range, "nothing would be left: revoke the grant instead"));
        }
        if !before.rights.contains(left.rights) {
            return Err(Error::new(
                Code::Denied,
                "a narrowing cannot add a right that the grant no longer gives",
            ));
        }
        if !before.range.contains(left.range) {
            return Err(Error::new(
                Code::Range,
                "a narrowing's range lies within what the grant still gives",
            ));
        }
        if left.expires > before.expires {
            return Err(Error::new(Code::Range, "a narrowing cannot make the grant live longer"));
        }
        Ok(left)
    }

    /// Writes down what is left, with the deadline.
    fn set_grant_rest(&mut self, id: GrantId, left: Rest) {
        if let Some(grant) = self.grants.rows.get_mut(&id) {
            let before: Option<UnixMicros> = grant.deadline();
            grant.left = Some(left);
            self.deadlines.swap(RowId::Grant(id), before, grant.deadline());
        }
    }
}
