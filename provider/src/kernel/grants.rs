//! What a region knows of the grants under which it was shared: which are revoked, which were narrowed and to what,
//! and which were opened before.
//!
//! Each region has its own, so that an owner who revokes without end fills nobody's memory but its own region's. A
//! revocation is remembered until the revoked token would have ended by itself; a narrowing as long as the region,
//! because the token, which knows nothing of it, may outlive what it was narrowed to.

use std::collections::BTreeMap;

use caps::id::GrantId;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;

/// What a narrowed grant gives at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceiling {
    pub(super) rights: Rights,
    /// `None`: no byte.
    pub(super) range: Option<ByteRange>,
    pub(super) expires: UnixMicros,
}

impl Ceiling {
    /// What both allow.
    fn intersect(self, other: Self) -> Self {
        Self {
            rights: self.rights.intersect(other.rights),
            range: self.range.zip(other.range).and_then(|(a, b)| a.intersect(b)),
            expires: self.expires.min(other.expires),
        }
    }
}

/// What is taken off a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Whole,
    Within(Ceiling),
    Revoked,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Until when it matters.
    until: UnixMicros,
    opened: bool,
    limit: Limit,
}

/// At most `capacity` grants, which the caller gives with every call that adds one: a word less in every region.
#[derive(Clone, Debug, Default)]
pub(super) struct Grants(BTreeMap<GrantId, Known>);

impl Grants {
    /// What is taken off `grant`.
    pub(super) fn limit(&self, grant: GrantId, now: UnixMicros) -> Limit {
        self.0.get(&grant).filter(|known| known.until > now).map_or(Limit::Whole, |known| known.limit)
    }

    /// Remembers that a right under `grant` was opened whose token ends at `expires`. Whether it is the first; a grant
    /// that there is no room to remember is opened for the first time each time.
    pub(super) fn opened(
        &mut self,
        grant: GrantId,
        expires: UnixMicros,
        now: UnixMicros,
        capacity: usize,
    ) -> bool {
        self.drop_if_past(grant, now);
        if let Some(known) = self.0.get_mut(&grant) {
            known.until = known.until.max(expires);
            return !std::mem::replace(&mut known.opened, true);
        }
        if self.0.len() >= capacity {
            self.0.retain(|_, known| known.until > now);
        }
        if self.0.len() < capacity {
            self.0.insert(grant, Known { until: expires, opened: true, limit: Limit::Whole });
        }
        true
    }

    /// Remembers that `grant` is revoked, at least until `expires`. `false` if there is no room: the caller must end
    /// the grant by stronger means.
    #[must_use]
    pub(super) fn revoke(
        &mut self,
        grant: GrantId,
        expires: UnixMicros,
        now: UnixMicros,
        capacity: usize,
    ) -> bool {
        self.restrict(grant, expires, now, capacity, |_| Limit::Revoked).is_some()
    }

    /// Narrows `grant`: ceilings add up, and none widens another. What it allows from now on, or `None` if there is no
    /// room to remember it: as for [`Self::revoke`].
    pub(super) fn narrow(
        &mut self,
        grant: GrantId,
        ceiling: Ceiling,
        now: UnixMicros,
        capacity: usize,
    ) -> Option<Limit> {
        self.restrict(grant, UnixMicros::MAX, now, capacity, |limit| match limit {
            Limit::Whole => Limit::Within(ceiling),
            Limit::Within(before) => Limit::Within(before.intersect(ceiling)),
            Limit::Revoked => Limit::Revoked,
        })
    }

    fn restrict(
        &mut self,
        grant: GrantId,
        until: UnixMicros,
        now: UnixMicros,
        capacity: usize,
        limit: impl FnOnce(Limit) -> Limit,
    ) -> Option<Limit> {
        self.drop_if_past(grant, now);
        if !self.0.contains_key(&grant) && self.0.len() >= capacity {
            self.0.retain(|_, known| known.until > now);
            if self.0.len() >= capacity {
                // That one was opened before is worth less than what is taken off another.
                let least = self.0.iter().find(|(_, known)| known.limit == Limit::Whole);
                let (&least, _) = least?;
                self.0.remove(&least);
            }
        }
        let known = self.0.entry(grant).or_insert(Known { until, opened: false, limit: Limit::Whole });
        known.until = known.until.max(until);
        known.limit = limit(known.limit);
        Some(known.limit)
    }

    /// Takes off grants what is taken off them in `others`. `false` if there is no room for all of it.
    #[must_use]
    pub(super) fn add(&mut self, others: Self, now: UnixMicros, capacity: usize) -> bool {
        let limited = others.0.into_iter().filter(|(_, known)| known.until > now);
        let mut limited = limited.filter(|(_, known)| known.limit != Limit::Whole);
        limited.all(|(grant, known)| match known.limit {
            Limit::Within(ceiling) => self.narrow(grant, ceiling, now, capacity).is_some(),
            Limit::Revoked | Limit::Whole => self.revoke(grant, known.until, now, capacity),
        })
    }

    fn drop_if_past(&mut self, grant: GrantId, now: UnixMicros) {
        if self.0.get(&grant).is_some_and(|known| known.until <= now) {
            self.0.remove(&grant);
        }
    }

    /// Number of grants remembered.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 2;

    const fn grant(n: u8) -> GrantId {
        GrantId([n; 16])
    }

    #[test]
    fn a_revocation_is_kept_exactly_as_long_as_it_matters() {
        let (mut grants, now) = (Grants::default(), UnixMicros(0));
        let mut revoke = |n, until, now| grants.revoke(grant(n), UnixMicros(until), UnixMicros(now), FULL);
        assert!(revoke(1, 10, 0) && revoke(2, 20, 0));
        assert!(revoke(1, 15, 0) && revoke(1, 5, 0), "a known one moves, later only");
        assert!(!revoke(3, 30, 14), "full");
        assert_eq!(grants.limit(grant(1), UnixMicros(14)), Limit::Revoked);
        assert_eq!(grants.limit(grant(1), UnixMicros(15)), Limit::Whole);
        assert!(grants.revoke(grant(3), UnixMicros(30), UnixMicros(15), FULL), "the first is past");
        assert_eq!(grants.limit(grant(2), now), Limit::Revoked);
        assert_eq!(grants.len(), 2);
    }

    #[test]
    fn what_was_only_opened_makes_room() {
        let (mut grants, now, later) = (Grants::default(), UnixMicros(0), UnixMicros(9));
        assert!(grants.opened(grant(1), later, now, FULL) && grants.opened(grant(2), later, now, FULL));
        assert!(!grants.opened(grant(1), later, now, FULL), "the second time");
        assert!(grants.opened(grant(3), later, now, FULL) && grants.opened(grant(3), later, now, FULL));
        assert!(grants.revoke(grant(3), later, now, FULL) && grants.revoke(grant(4), later, now, FULL));
        assert!(!grants.revoke(grant(5), later, now, FULL));
        assert_eq!(grants.len(), FULL);
    }

    #[test]
    fn ceilings_only_come_down_and_outlive_their_own_end() {
        let (mut grants, now) = (Grants::default(), UnixMicros(0));
        let ceiling = |rights, start, end, expires| Ceiling {
            rights,
            range: ByteRange::new(start, end).ok(),
            expires: UnixMicros(expires),
        };
        grants.narrow(grant(1), ceiling(Rights::READ, 0, 8, 50), now, FULL);
        let limit = grants.narrow(grant(1), ceiling(Rights::READ_WRITE, 4, 12, 90), now, FULL);
        assert_eq!(limit, Some(Limit::Within(ceiling(Rights::READ, 4, 8, 50))));
        assert_eq!(grants.limit(grant(1), UnixMicros(1_000)), limit.unwrap(), "the token may live longer");
        let nothing = grants.narrow(grant(1), ceiling(Rights::READ, 8, 9, 50), now, FULL);
        assert!(matches!(nothing, Some(Limit::Within(Ceiling { range: None, .. }))));
        assert!(grants.revoke(grant(1), UnixMicros(2), now, FULL));
        assert_eq!(grants.limit(grant(1), UnixMicros(1_000)), Limit::Revoked, "for the same reason");
        let again = grants.narrow(grant(1), ceiling(Rights::READ, 0, 8, 50), now, FULL);
        assert_eq!(again, Some(Limit::Revoked));
    }
}
