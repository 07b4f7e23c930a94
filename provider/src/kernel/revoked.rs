//! Revocations to remember: a grant that was revoked here stays refused until its token would have expired.

use std::collections::{BTreeSet, HashMap};

use caps::id::GrantId;
use caps::time::UnixMicros;

/// A bounded set of revoked grants, dropped by expiry.
#[derive(Debug)]
pub struct Revocations {
    until: HashMap<GrantId, UnixMicros>,
    order: BTreeSet<(UnixMicros, GrantId)>,
    capacity: usize,
}

impl Revocations {
    pub fn new(capacity: usize) -> Self {
        Self { until: HashMap::new(), order: BTreeSet::new(), capacity }
    }

    /// Remembers `grant` until `expires`. `false` if the set is full of revocations that still matter: the caller
    /// must end the grant by stronger means.
    pub fn insert(&mut self, grant: GrantId, expires: UnixMicros) -> bool {
        if let Some(&known) = self.until.get(&grant) {
            if known < expires {
                self.order.remove(&(known, grant));
                self.order.insert((expires, grant));
                self.until.insert(grant, expires);
            }
            return true;
        }
        if self.until.len() == self.capacity {
            return false;
        }
        self.until.insert(grant, expires);
        self.order.insert((expires, grant));
        true
    }

    /// Drops what no token can use any more.
    pub fn expire(&mut self, now: UnixMicros) {
        while let Some(&(expires, grant)) = self.order.first() {
            if expires > now {
                break;
            }
            self.order.remove(&(expires, grant));
            self.until.remove(&grant);
        }
    }

    pub fn contains(&self, grant: GrantId) -> bool {
        self.until.contains_key(&grant)
    }

    pub fn check(&self) -> Result<(), &'static str> {
        let equal = self.until.len() == self.order.len()
            && self.order.iter().all(|(expires, grant)| self.until.get(grant) == Some(expires));
        (equal && self.until.len() <= self.capacity)
            .then_some(())
            .ok_or("the revocation set's two indexes differ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_kept_exactly_as_long_as_it_matters() {
        let mut set = Revocations::new(2);
        let [a, b, c] = [1, 2, 3].map(|n| GrantId([n; 16]));
        assert!(set.insert(a, UnixMicros(10)) && set.insert(b, UnixMicros(20)));
        assert!(set.insert(a, UnixMicros(15)), "a known one moves, later only");
        assert!(set.insert(a, UnixMicros(5)));
        assert!(!set.insert(c, UnixMicros(30)), "full");
        set.expire(UnixMicros(14));
        assert!(set.contains(a));
        set.expire(UnixMicros(15));
        assert!(!set.contains(a) && set.contains(b));
        assert!(set.insert(c, UnixMicros(30)));
        set.check().unwrap();
    }
}
