//! What a client did wrong: one value for every kind, one way into the log, one place where the operator's reaction
//! follows.
//!
//! | kind | entry | is |
//! |---|---|---|
//! | access | `fault.access` | use after the right ended, a foreign or forged handle, bytes outside of the region |
//! | right | `fault.right` | an operation or bytes that the right does not have |
//! | protocol | `fault.protocol` | a malformed or misplaced message, an answer that is not read |
//! | quota | `fault.quota` | one refusal by quota too many in a window |
//!
//! The entry says who: principal, uid, pid, hash of the executable; the right that was held (`rights`, `range`, `lease`,
//! `grant`), what was asked for (`asked`, `offset`, `bytes`), the handle's `epoch`, how long after the right's end
//! (`after_us`), what was wrong with it (`cause`), and what followed (`reaction`). How a killed process died is in its
//! `holder.exit`, read from the pidfd, with the same `reaction`.
//!
//! The client is told none of this: a forged handle is answered like one whose right has ended.

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error};
use caps::id::{LeaseId, SlotHandle};
use caps::rights::Rights;
use policy::fault::{FaultKind, FaultPolicy, Reaction};

use super::visitor::Visitor;
use crate::runtime::{Client, Force, Misuse, Terms, Violation};

/// One fault.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    kind: FaultKind,
    code: Code,
    /// Which, in a word.
    cause: Option<&'static str>,
    /// By which way.
    method: Option<&'static str>,
    handle: Option<SlotHandle>,
    held: Option<Terms>,
    after_us: Option<u64>,
    asked: Option<Access>,
    /// Refusals by quota.
    count: Option<u32>,
    /// Whether an honest client does it too, at the end of a right: then it does not count towards the session's end.
    honest: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) rights: Rights,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Fault {
    fn new(kind: FaultKind, code: Code) -> Self {
        Self {
            kind,
            code,
            cause: None,
            method: None,
            handle: None,
            held: None,
            after_us: None,
            asked: None,
            count: None,
            honest: false,
        }
    }

    /// A message that the protocol does not allow.
    pub(super) fn protocol(error: &Error) -> Self {
        Self::new(FaultKind::Protocol, error.code())
    }

    /// A request by a handle that is malformed in itself: too long, of other bytes than its checksum.
    pub(super) fn malformed(error: &Error, handle: SlotHandle) -> Self {
        Self { handle: Some(handle), method: Some("mediated"), ..Self::protocol(error) }
    }

    /// One refusal too many.
    pub(super) fn quota(refusals: u32) -> Self {
        Self { count: Some(refusals), ..Self::new(FaultKind::Quota, Code::Quota) }
    }

    /// An access by a handle that must not be made.
    pub(super) fn access(
        violation: Violation,
        code: Code,
        handle: SlotHandle,
        asked: Option<Access>,
    ) -> Self {
        let (kind, cause) = match violation.misuse {
            Misuse::AfterEnd => (FaultKind::Access, "after_end"),
            Misuse::Foreign => (FaultKind::Access, "foreign"),
            Misuse::Forged => (FaultKind::Access, "forged"),
            Misuse::Stale => (FaultKind::Access, "stale"),
            Misuse::Outside => (FaultKind::Access, "outside"),
            Misuse::Right => (FaultKind::Right, "right"),
        };
        Self {
            cause: Some(cause),
            method: Some(if asked.is_some() { "mediated" } else { "handle" }),
            handle: Some(handle),
            held: violation.held,
            after_us: violation.after.map(|after| after.0),
            asked,
            honest: violation.misuse == Misuse::AfterEnd,
            ..Self::new(kind, code)
        }
    }

    /// A plain access to memory that was gone, of which the process died: inferred from its death.
    pub(super) fn mapped(lost: Option<(Terms, u64)>) -> Self {
        Self {
            cause: Some(if lost.is_some() { "after_end" } else { "bus_error" }),
            method: Some("mapped"),
            held: lost.map(|(held, _)| held),
            after_us: lost.map(|(_, after_us)| after_us),
            ..Self::new(FaultKind::Access, Code::Revoked)
        }
    }

    /// The entry, but for who and what followed.
    pub(super) fn entry(&self) -> Draft {
        let event = match self.kind {
            FaultKind::Access => Entry::FaultAccess,
            FaultKind::Right => Entry::FaultRight,
            FaultKind::Protocol => Entry::FaultProtocol,
            FaultKind::Quota => Entry::FaultQuota,
        };
        let mut entry = Draft::deny(event, self.code)
            .maybe(self.cause, Draft::cause)
            .maybe(self.method, Draft::method)
            .maybe(self.handle, |draft, handle| draft.epoch(handle.epoch.into()))
            .maybe(self.after_us, Draft::after_us)
            .maybe(self.count, |draft, count| draft.count(count.into()));
        if let Some(held) = self.held {
            entry =
                entry.lease(held.lease).maybe(held.grant, Draft::grant).rights(held.rights).range(held.range);
        }
        if let Some(asked) = self.asked {
            entry = entry.asked(asked.rights).offset(asked.offset).bytes(asked.bytes);
        }
        entry
    }

    /// The region that it is about.
    fn lease(&self) -> Option<LeaseId> {
        self.held.map(|held| held.lease)
    }
}

/// What a session has done wrong so far.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// Faults that count.
    faults: u32,
    /// What followed the worst of them.
    worst: Option<Reaction>,
    /// Whether the process was killed for it.
    killed: bool,
}

impl Conduct {
    /// Whether the session ends after the answer.
    pub(super) fn ends(&self) -> bool {
        self.worst.is_some_and(|worst| worst >= Reaction::Fault)
    }

    /// The word for the entry of the process' end.
    pub(super) fn killed(&self) -> bool {
        self.killed
    }
}

impl Visitor {
    /// Records a fault and does what the operator said. A session that the gate ends anyway is recorded as ended.
    pub(super) fn fault(&mut self, fault: &Fault, at_least: Reaction) {
        if !fault.honest && fault.kind != FaultKind::Quota {
            self.conduct.faults = self.conduct.faults.saturating_add(1);
        }
        let policy = &self.shared.config.faults;
        let mut reaction = policy.react(fault.kind, self.conduct.faults).max(at_least);
        let quarantine = fault.lease().filter(|_| policy.quarantines(fault.kind));
        if reaction >= Reaction::Kill {
            let node = self.shared.provider.node();
            self.conduct.killed = Client::new(self.opener, self.process.clone()).kill(Force::Policy, node);
            if !self.conduct.killed && reaction == Reaction::Kill {
                reaction = Reaction::Fault;
            }
        }
        self.conduct.worst = self.conduct.worst.max(Some(reaction));
        let entry = self.opener.identified(fault.entry()).reaction(reaction.name());
        self.shared.rejects.deny(self.opener.origin.source(), entry);
        if let Some(lease) = quarantine {
            let provider = self.shared.provider.clone();
            let cause = fault.kind.name();
            tokio::spawn(async move {
                if let Err(error) = provider.quarantine(lease, cause).await {
                    tracing::debug!(%error, "a region was gone before it could be put into quarantine");
                }
            });
        }
        if reaction == Reaction::Revoke {
            let (shared, holder) = (self.shared.clone(), self.opener.proven.holder());
            tokio::spawn(async move {
                if let Err(error) = shared.control.revoke_holder(holder).await {
                    tracing::error!(%error, "what a violator holds could not be taken back");
                }
            });
        }
    }
}
