//! What happens to a client that breaks a rule. The kernel of the provider marks a fault and stops; what follows is
//! the operator's choice, made here.

use serde::{Deserialize, Serialize};

/// What a client did. The names are those of the audit events `fault.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// It touched memory that it no longer has.
    Access,
    /// It asked for more than its right.
    Right,
    /// It broke the protocol: a malformed frame, a message out of order.
    Protocol,
    /// It ran against its quota.
    Quota,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Access, Self::Right, Self::Protocol, Self::Quota];

    /// The key in the configuration, and the second half of the audit event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Right => "right",
            Self::Protocol => "protocol",
            Self::Quota => "quota",
        }
    }
}

/// What the provider does about a fault. Each reaction includes the ones before it: everything is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// Refuse the request and record it.
    Log,
    /// Also end the session and what was opened in it.
    Fault,
    /// Also kill the process, through its pidfd. Never the node itself, process 1, or an unconfined process of the
    /// node's own user or root, who could kill the node as well: for those it is [`Reaction::Fault`].
    Kill,
    /// Also take back everything that the principal holds, at once.
    Revoke,
}

impl Reaction {
    /// Every reaction, the mildest first.
    pub const ALL: [Self; 4] = [Self::Log, Self::Fault, Self::Kill, Self::Revoke];

    /// The word in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Fault => "fault",
            Self::Kill => "kill",
            Self::Revoke => "revoke",
        }
    }
}

/// Decides what follows a fault. The provider takes one, so that tests can be stricter than any configuration.
pub trait FaultPolicy {
    /// The reaction to a fault in a session that has `count` faults which count, this one included.
    fn react(&self, kind: FaultKind, count: u32) -> Reaction;

    /// Whether the region that a fault is about goes into quarantine.
    fn quarantines(&self, kind: FaultKind) -> bool;
}

/// One reaction a kind: the `[faults]` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// To use after revoke. The process dies of its own SIGBUS in the usual case; this is about mediated access.
    pub access: Reaction,
    /// To asking for more than a right.
    pub right: Reaction,
    /// To breaking the protocol.
    pub protocol: Reaction,
    /// To running against a quota.
    pub quota: Reaction,
    /// The kinds after which the region is taken from everybody and kept as it is for an investigator. A receiver can
    /// so end its owner's lease.
    pub quarantine: Quarantine,
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine([bool; FaultKind::ALL.len()]);

impl Quarantine {
    /// Adds a kind.
    pub const fn insert(&mut self, kind: FaultKind) {
        self.0[kind as usize] = true;
    }

    /// Whether it has a kind.
    #[must_use]
    pub const fn contains(&self, kind: FaultKind) -> bool {
        self.0[kind as usize]
    }

    /// Its kinds.
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl Default for Faults {
    /// Honest programs meet their quota and learn of a revoke by an error; only broken ones break the protocol.
    fn default() -> Self {
        Self {
            access: Reaction::Log,
            right: Reaction::Log,
            protocol: Reaction::Fault,
            quota: Reaction::Log,
            quarantine: Quarantine::default(),
        }
    }
}

impl Faults {
    /// The configured reaction to one fault of a kind.
    #[must_use]
    pub const fn reaction(&self, kind: FaultKind) -> Reaction {
        match kind {
            FaultKind::Access => self.access,
            FaultKind::Right => self.right,
            FaultKind::Protocol => self.protocol,
            FaultKind::Quota => self.quota,
        }
    }

    /// Sets the reaction to a kind.
    pub const fn set(&mut self, kind: FaultKind, reaction: Reaction) {
        match kind {
            FaultKind::Access => self.access = reaction,
            FaultKind::Right => self.right = reaction,
            FaultKind::Protocol => self.protocol = reaction,
            FaultKind::Quota => self.quota = reaction,
        }
    }
}

impl FaultPolicy for Faults {
    /// A session that goes on breaking rules ends even where the reaction is `log`.
    fn react(&self, kind: FaultKind, count: u32) -> Reaction {
        let reaction = self.reaction(kind);
        if count > crate::limits::FAULTS_PER_SESSION_MAX { reaction.max(Reaction::Fault) } else { reaction }
    }

    fn quarantines(&self, kind: FaultKind) -> bool {
        self.quarantine.contains(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FAULTS_PER_SESSION_MAX;

    #[test]
    fn patience_ends() {
        let mut faults = Faults::default();
        for kind in FaultKind::ALL {
            faults.set(kind, Reaction::Log);
            assert_eq!(faults.react(kind, FAULTS_PER_SESSION_MAX), Reaction::Log);
            assert_eq!(faults.react(kind, FAULTS_PER_SESSION_MAX + 1), Reaction::Fault);
        }
        faults.set(FaultKind::Protocol, Reaction::Kill);
        assert_eq!(faults.react(FaultKind::Protocol, u32::MAX), Reaction::Kill);
    }

    #[test]
    fn quarantine_is_a_set() {
        let mut faults = Faults::default();
        assert_eq!(faults.quarantine.iter().count(), 0);
        faults.quarantine.insert(FaultKind::Right);
        assert!(faults.quarantines(FaultKind::Right) && !faults.quarantines(FaultKind::Access));
        assert!(faults.quarantine.iter().eq([FaultKind::Right]));
    }
}
