//! How leases ended that are gone. The last few thousand, so that a late client is told what happened.

use std::collections::{HashMap, VecDeque};

use caps::id::LeaseId;
use caps::wire::row::EndCause;

/// A bounded memory; the oldest end is forgotten first.
#[derive(Debug)]
pub(super) struct Ended {
    causes: HashMap<LeaseId, EndCause>,
    order: VecDeque<LeaseId>,
    capacity: usize,
}

impl Ended {
    pub(super) fn new(capacity: usize) -> Self {
        Self { causes: HashMap::new(), order: VecDeque::new(), capacity }
    }

    pub(super) fn insert(&mut self, lease: LeaseId, cause: EndCause) {
        if self.capacity == 0 || self.causes.insert(lease, cause).is_some() {
            return;
        }
        if self.order.len() == self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.causes.remove(&oldest);
        }
        self.order.push_back(lease);
    }

    /// Whether the lease is known to have ended.
    pub(super) fn contains(&self, lease: LeaseId) -> bool {
        self.causes.contains_key(&lease)
    }

    /// How the lease ended; [`EndCause::Revoked`] for one that is no longer remembered. Only for leases that are
    /// known to have been here, by the signature on their token.
    pub(super) fn cause(&self, lease: LeaseId) -> EndCause {
        self.causes.get(&lease).copied().unwrap_or(EndCause::Revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut ended = Ended::new(2);
        let [a, b, c] = [1, 2, 3].map(|n| LeaseId([n; 16]));
        for lease in [a, b, c] {
            ended.insert(lease, EndCause::Expired);
        }
        assert_eq!((ended.cause(a), ended.cause(c)), (EndCause::Revoked, EndCause::Expired));
        assert_eq!(ended.causes.len(), 2);
    }
}
