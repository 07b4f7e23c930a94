//! What a session remembers of the rights that it opened.

use std::collections::{HashMap, HashSet};

use caps::id::{GrantId, LeaseId, SlotHandle};
use caps::time::BootNanos;
use caps::token::{RevocationId, VerifiedToken};
use caps::wire::request::Path;
use policy::limits;

use super::verified::Verified;
use crate::runtime::{Provider, Terms};

/// A right that a session opened: its opening is on record, and with it by which token where the token was made of
/// another.
pub(super) type Known = (LeaseId, Option<GrantId>, caps::rights::Rights, Path, Option<RevocationId>);

/// What a session remembers of its rights. Bounded, and gone with it.
#[derive(Default)]
pub(super) struct Rights {
    /// Tokens that were verified in this session. A hit is judged again for time, possession, epoch and revocation; only
    /// the signatures are not checked twice.
    pub(super) verified: Verified<VerifiedToken>,
    /// Rights whose opening is on record.
    recorded: HashSet<Known>,
    /// The handles that it was given, the latest of each slot, and which were mapped.
    given: HashMap<u32, Given>,
    mapped: bool,
}

#[derive(Clone, Copy)]
struct Given {
    epoch: u32,
    mapped: bool,
    lease: LeaseId,
}

impl Rights {
    /// Whether a mapping was ever handed to this session.
    pub(super) const fn mapped_ever(&self) -> bool {
        self.mapped
    }

    /// Whether the opening of such a right is on record.
    pub(super) fn is_recorded(&self, known: &Known) -> bool {
        self.recorded.contains(known)
    }

    /// Remembers that it is, as far as there is room.
    pub(super) fn record(&mut self, known: Known) {
        if self.recorded.len() < limits::SESSION_RIGHTS_MAX {
            self.recorded.insert(known);
        }
    }

    /// A right to this lease was opened, and is called so.
    pub(super) fn give(&mut self, SlotHandle { slot, epoch }: SlotHandle, mapped: bool, lease: LeaseId) {
        self.mapped |= mapped;
        if self.given.len() < limits::SESSION_HANDLES_KEPT_MAX || self.given.contains_key(&slot) {
            self.given.insert(slot, Given { epoch, mapped, lease });
        }
    }

    /// Of which lease the right was that this handle stood for, also once the provider has forgotten it.
    pub(super) fn lease_of(&self, SlotHandle { slot, epoch }: SlotHandle) -> Option<LeaseId> {
        self.given.get(&slot).filter(|given| given.epoch == epoch).map(|given| given.lease)
    }

    /// Whether a handle that the provider has forgotten was this session's: its generation is compared with the one
    /// that the session was given.
    pub(super) fn was_given(&self, SlotHandle { slot, epoch }: SlotHandle) -> bool {
        self.given.get(&slot).is_some_and(|given| given.epoch == epoch)
    }

    /// The mapped right that ended last, and when.
    pub(super) fn lost_last(&self, provider: &Provider) -> Option<(Terms, BootNanos)> {
        let mapped = self.given.iter().filter(|(_, given)| given.mapped);
        mapped
            .filter_map(|(&slot, given)| provider.ended(SlotHandle { slot, epoch: given.epoch }))
            .max_by_key(|&(_, fenced)| fenced)
    }
}
