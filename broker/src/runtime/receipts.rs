//! The receipts that were given last, so that who revokes the same again gets the same receipt: the one that says how
//! it was taken and where the log tells of it, not one about nothing.
//!
//! A comfort and no part of the state. A receipt that is forgotten is signed anew, with nothing closed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caps::id::PrincipalKey;
use caps::receipt::Receipt;
use caps::share::Rest;
use caps::wire::row::Target;
use policy::limits::{RECEIPTS_KEPT_MAX, RECEIPTS_LEASES_KEPT_MAX};

/// By whom and for what, the latest last.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// Guards the list; held for one walk along it.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    receipts: VecDeque<(PrincipalKey, Receipt)>,
    /// Leases that they name, in all.
    leases: usize,
}

impl Receipts {
    /// The receipt that `by` was given for `target`. Another's is not shown: it may name leases that `by` may not know.
    pub(super) fn find(&self, by: PrincipalKey, target: &Target, left: Option<Rest>) -> Option<Receipt> {
        let kept = self.lock();
        let mut same = kept.receipts.iter().rev().filter(|(to, receipt)| is(*to, receipt, by, target, left));
        let (_, receipt) = same.next()?;
        Some(receipt.clone())
    }

    /// Keeps a receipt, in the place of the one before for the same and of the oldest where there is no room. One
    /// without a place in the log is not kept: the next one may have it.
    pub(super) fn keep(&self, by: PrincipalKey, receipt: &Receipt) {
        let leases = receipt.body.leases.len();
        if receipt.body.log_index.is_none() || leases > RECEIPTS_LEASES_KEPT_MAX {
            return;
        }
        let mut kept = self.lock();
        let same = kept
            .receipts
            .iter()
            .position(|(to, old)| is(*to, old, by, &receipt.body.target, receipt.body.left));
        if let Some(same) = same {
            kept.drop_at(same);
        }
        while kept.receipts.len() >= RECEIPTS_KEPT_MAX || kept.leases + leases > RECEIPTS_LEASES_KEPT_MAX {
            kept.drop_at(0);
        }
        kept.leases += leases;
        kept.receipts.push_back((by, receipt.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // The sum is changed before the list: a panic between the two cannot be, both only move memory.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn drop_at(&mut self, index: usize) {
        if let Some((_, receipt)) = self.receipts.remove(index) {
            self.leases -= receipt.body.leases.len();
        }
    }
}

/// A grant that was narrowed and then revoked has a receipt for each.
fn is(to: PrincipalKey, receipt: &Receipt, by: PrincipalKey, target: &Target, left: Option<Rest>) -> bool {
    to == by && receipt.body.target == *target && receipt.body.left == left
}

#[cfg(test)]
mod tests {
    use caps::id::{GrantId, LeaseId, ReceiptId};
    use caps::key::SigningKey;
    use caps::receipt::ReceiptBody;
    use caps::time::Micros;
    use caps::wire::link::Method;

    use super::*;

    const ALICE: PrincipalKey = PrincipalKey([1; 32]);
    const BOB: PrincipalKey = PrincipalKey([2; 32]);

    fn target(n: usize) -> Target {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        Target::Grant(GrantId(id))
    }

    fn receipt(target: Target, leases: usize, log_index: Option<u64>) -> Receipt {
        let key = SigningKey::from_seed(&[8; 32]);
        let body = ReceiptBody {
            id: ReceiptId::random(),
            target,
            leases: vec![LeaseId([3; 16]); leases],
            mappings_closed: 0,
            method: Method::Fence,
            fence: Micros(1),
            dead: Micros(2),
            wiped_bytes: 0,
            log_index,
            issuer: key.public(),
            left: None,
            quarantined_bytes: 0,
        };
        body.sign(&key)
    }

    /// Receipts, and the leases that they name.
    fn size(receipts: &Receipts) -> (usize, usize) {
        let kept = receipts.lock();
        (kept.receipts.len(), kept.leases)
    }

    #[test]
    #[cfg_attr(miri, ignore = "signatures take minutes there")]
    fn the_latest_of_the_same_is_found_and_only_by_its_owner() {
        let receipts = Receipts::default();
        receipts.keep(ALICE, &receipt(target(1), 1, Some(4)));
        let latest = receipt(target(1), 2, Some(5));
        receipts.keep(ALICE, &latest);
        receipts.keep(ALICE, &receipt(target(1), 0, None));
        assert_eq!(receipts.find(ALICE, &target(1), None), Some(latest), "one without a place is not kept");
        assert_eq!(receipts.find(BOB, &target(1), None), None);
        assert_eq!(receipts.find(ALICE, &target(2), None), None);
        assert_eq!(size(&receipts), (1, 2));
    }

    #[test]
    #[cfg_attr(miri, ignore = "signatures take minutes there")]
    fn both_bounds_push_out_the_oldest() {
        let receipts = Receipts::default();
        let mut one = receipt(target(0), 1, Some(1));
        for n in 0..=RECEIPTS_KEPT_MAX {
            one.body.target = target(n);
            receipts.keep(ALICE, &one);
        }
        assert_eq!(receipts.lock().receipts.len(), RECEIPTS_KEPT_MAX);
        assert_eq!(receipts.find(ALICE, &target(0), None), None);
        assert!(receipts.find(ALICE, &target(1), None).is_some());

        receipts.keep(BOB, &receipt(target(0), RECEIPTS_LEASES_KEPT_MAX, Some(1)));
        assert_eq!(size(&receipts), (1, RECEIPTS_LEASES_KEPT_MAX));
        receipts.keep(BOB, &receipt(target(9), RECEIPTS_LEASES_KEPT_MAX + 1, Some(1)));
        assert_eq!(receipts.find(BOB, &target(9), None), None, "too large on its own");
    }
}
