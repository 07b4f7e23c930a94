//! One closing entry for all the openings of a right in a session.
//!
//! The first opening of a right in a session is an entry of its own. A client that opens and closes it again and again
//! writes nothing more until the right or the session ends: then one `lease.close` says how often it was opened and what
//! moved. So nobody fills the log by closing, and the sums are exact.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use caps::id::{GrantId, LeaseId, PrincipalKey};
use caps::rights::Rights;
use caps::wire::row::EndCause;
use policy::limits::SESSION_RIGHTS_MAX;

/// A right as one session opens it, by whatever path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RightKey {
    pub(super) lease: LeaseId,
    pub(super) grant: Option<GrantId>,
    pub(super) rights: Rights,
}

/// What moved through the provider. What moved through a mapping leaves no trace, and the sums do not pretend it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Openings.
    pub(super) opens: u64,
    /// Reads and writes.
    pub(super) operations: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// One opening that was closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) session: u64,
    pub(super) right: RightKey,
    pub(super) holder: PrincipalKey,
    pub(super) cause: EndCause,
    pub(super) operations: u64,
    pub(super) bytes: u64,
}

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) right: RightKey,
    pub(super) holder: PrincipalKey,
    pub(super) cause: EndCause,
    pub(super) sums: Sums,
}

/// What was closed and not yet written, at most [`SESSION_RIGHTS_MAX`] rights a session.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    /// Guards the tables; held for one change, never while an entry is written.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<u64, BTreeMap<RightKey, (PrincipalKey, Sums)>>,
    /// The same rights, found by their lease.
    leases: BTreeSet<(RightKey, u64)>,
}

impl Summaries {
    /// Adds what one step closed, and takes out what is to be written now: the rights that ended, each once however
    /// often it was open, and those for which there is no room.
    pub(super) fn close(&self, closed: &[Closed]) -> Vec<Summary> {
        if closed.is_empty() {
            return Vec::new();
        }
        let mut table = self.lock();
        let mut due = Vec::new();
        for one in closed {
            let full = !table.add(one);
            // A client that closes a right may open it again; whatever else closes it is its end.
            if full || one.cause != EndCause::Released {
                let key = (one.session, one.right);
                if !due.iter().any(|(at, _)| *at == key) {
                    due.push((key, one.cause));
                }
            }
        }
        due.into_iter().filter_map(|((session, right), cause)| table.take(session, right, cause)).collect()
    }

    /// Takes out what a session has left: it is over.
    pub(super) fn of_session(&self, session: u64) -> Vec<Summary> {
        let mut table = self.lock();
        let rights: Vec<_> =
            table.sessions.get(&session).map_or_else(Vec::new, |rights| rights.keys().copied().collect());
        rights.into_iter().filter_map(|right| table.take(session, right, EndCause::HolderExit)).collect()
    }

    /// Takes out what is left of a lease, or of one grant of it: it ended while nobody had it open.
    pub(super) fn of_lease(&self, lease: LeaseId, grant: Option<GrantId>, cause: EndCause) -> Vec<Summary> {
        let mut table = self.lock();
        let first = RightKey { lease, grant, rights: Rights::NONE };
        let ended: Vec<_> = table
            .leases
            .range((first, 0)..)
            .take_while(|(right, _)| right.lease == lease && (grant.is_none() || right.grant == grant))
            .copied()
            .collect();
        ended.into_iter().filter_map(|(right, session)| table.take(session, right, cause)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Whether there was room for it without writing it at once. It is added either way.
    fn add(&mut self, closed: &Closed) -> bool {
        let rights = self.sessions.entry(closed.session).or_default();
        let room = rights.len() < SESSION_RIGHTS_MAX || rights.contains_key(&closed.right);
        let (_, sums) = rights.entry(closed.right).or_insert((closed.holder, Sums::default()));
        sums.opens += 1;
        sums.operations = sums.operations.saturating_add(closed.operations);
        sums.bytes = sums.bytes.saturating_add(closed.bytes);
        self.leases.insert((closed.right, closed.session));
        room
    }

    fn take(&mut self, session: u64, right: RightKey, cause: EndCause) -> Option<Summary> {
        let rights = self.sessions.get_mut(&session)?;
        let (holder, sums) = rights.remove(&right)?;
        if rights.is_empty() {
            self.sessions.remove(&session);
        }
        self.leases.remove(&(right, session));
        Some(Summary { right, holder, cause, sums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(lease: usize, grant: Option<u8>) -> RightKey {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&lease.to_be_bytes());
        RightKey { lease: LeaseId(id), grant: grant.map(|n| GrantId([n; 16])), rights: Rights::READ }
    }

    fn closed(session: u64, right: RightKey, cause: EndCause) -> Closed {
        Closed { session, right, holder: PrincipalKey([9; 32]), cause, operations: 2, bytes: 100 }
    }

    fn sums(opens: u64) -> Sums {
        Sums { opens, operations: 2 * opens, bytes: 100 * opens }
    }

    fn is_empty(summaries: &Summaries) -> bool {
        let table = summaries.lock();
        table.sessions.is_empty() && table.leases.is_empty()
    }

    #[test]
    fn openings_are_summed_until_the_session_ends() {
        let summaries = Summaries::default();
        for _ in 0..1_000 {
            assert_eq!(summaries.close(&[closed(1, right(1, None), EndCause::Released)]), []);
        }
        assert_eq!(summaries.close(&[closed(2, right(1, None), EndCause::Released)]), []);
        let written = summaries.of_session(1);
        assert_eq!((written.len(), written[0].sums), (1, sums(1_000)));
        assert_eq!(written[0].cause, EndCause::HolderExit);
        assert_eq!(summaries.of_session(1), [], "once");
        assert_eq!(summaries.of_session(2)[0].sums, sums(1), "sessions are apart");
        assert!(is_empty(&summaries));
    }

    #[test]
    fn a_right_that_ends_while_it_is_open_twice_is_one_entry() {
        let summaries = Summaries::default();
        assert_eq!(summaries.close(&[closed(1, right(1, None), EndCause::Released)]), []);
        let two = [closed(1, right(1, None), EndCause::Revoked); 2];
        let written = summaries.close(&two);
        assert_eq!((written.len(), written[0].sums, written[0].cause), (1, sums(3), EndCause::Revoked));
        assert!(is_empty(&summaries));
    }

    #[test]
    fn a_right_that_ends_while_nobody_has_it_open_is_written_then() {
        let summaries = Summaries::default();
        let keys = [right(1, None), right(1, Some(3)), right(1, Some(4)), right(2, None), right(2, Some(3))];
        for (session, key) in [1, 2].into_iter().flat_map(|session| keys.map(|key| (session, key))) {
            assert_eq!(summaries.close(&[closed(session, key, EndCause::Released)]), []);
        }
        let grant = summaries.of_lease(keys[1].lease, keys[1].grant, EndCause::Revoked);
        assert_eq!(grant.iter().map(|one| one.right).collect::<Vec<_>>(), [keys[1]; 2], "of both sessions");
        let lease = summaries.of_lease(keys[0].lease, None, EndCause::Expired);
        assert_eq!(lease.iter().filter(|one| one.right == keys[0]).count(), 2);
        assert_eq!((lease.len(), lease[0].cause), (4, EndCause::Expired), "with the grants that are left");
        assert_eq!(summaries.of_session(1).len() + summaries.of_session(2).len(), 4, "the other lease");
        assert!(is_empty(&summaries));
    }

    #[test]
    fn a_full_session_writes_at_once_and_loses_nothing() {
        let summaries = Summaries::default();
        let mut opens = 0;
        for n in 0..3 * SESSION_RIGHTS_MAX {
            for one in summaries.close(&[closed(1, right(n, None), EndCause::Released)]) {
                opens += one.sums.opens;
            }
            assert!(summaries.lock().sessions[&1].len() <= SESSION_RIGHTS_MAX);
        }
        assert_eq!(opens as usize, 2 * SESSION_RIGHTS_MAX);
        assert_eq!(summaries.close(&[closed(2, right(1, None), EndCause::Released)]), [], "others have room");
        assert_eq!(summaries.of_session(1).len(), SESSION_RIGHTS_MAX);
    }
}
