//! The tokens that were verified lately, by session, within a bound of bytes over all of them.
//!
//! A comfort: what is not remembered has its signatures checked again. So where there is no room a session forgets its
//! own oldest, and with nothing of its own to forget it remembers nothing; nobody is refused, and nobody else forgets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::rejects::Source;
use caps::token::Token;
use policy::limits::{
    SESSION_TOKENS_MAX, VERIFIED_BYTES_MAX, VERIFIED_BYTES_PER_UID_MAX, VERIFIED_TOKEN_EXTRA_BYTES,
};

/// The bytes that all sessions of a gate may remember, and who takes how many.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Bytes by source. Guards the counts; held for an addition.
    taken: Mutex<HashMap<Source, usize>>,
}

/// Bytes that one remembered token takes, given back when dropped.
#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    source: Source,
    bytes: usize,
}

impl Room {
    fn take(self: &Arc<Self>, source: Source, bytes: usize) -> Option<Taken> {
        let mut taken = self.lock();
        let all: usize = taken.values().sum();
        let own = taken.get(&source).copied().unwrap_or(0);
        if all + bytes > VERIFIED_BYTES_MAX || own + bytes > VERIFIED_BYTES_PER_UID_MAX {
            return None;
        }
        taken.insert(source, own + bytes);
        Some(Taken { room: self.clone(), source, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        if let Some(own) = taken.get_mut(&self.source) {
            *own -= self.bytes;
            if *own == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

/// What one session remembers: tokens, and what verifying each came to. Newest last. All of it is of one generation of
/// the root keys, and forgotten with it.
#[derive(Debug)]
pub(super) struct Verified<T> {
    known: Vec<(Token, Arc<T>, Taken)>,
    roots: u64,
}

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self { known: Vec::new(), roots: 0 }
    }
}

impl<T> Verified<T> {
    /// What verifying this token by the root keys of generation `roots` came to, if that is remembered.
    pub(super) fn find(&self, token: &Token, roots: u64) -> Option<Arc<T>> {
        let mut known = self.known.iter().filter(|_| self.roots == roots);
        known.find(|(known, ..)| known == token).map(|(_, verified, _)| verified.clone())
    }

    /// Remembers a token that was verified by the root keys of generation `roots`, as far as there is room.
    pub(super) fn keep(
        &mut self,
        room: &Arc<Room>,
        source: Source,
        token: &Token,
        roots: u64,
        verified: &Arc<T>,
    ) {
        if self.roots != roots {
            self.known.clear();
            self.roots = roots;
        }
        if self.known.len() == SESSION_TOKENS_MAX {
            self.known.remove(0);
        }
        let bytes = token.as_bytes().len() + VERIFIED_TOKEN_EXTRA_BYTES;
        loop {
            if let Some(taken) = room.take(source, bytes) {
                self.known.push((token.clone(), verified.clone(), taken));
                return;
            }
            if self.known.is_empty() {
                tracing::debug!(?source, "no room is left to remember a verified token");
                return;
            }
            self.known.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use caps::limits::TOKEN_BYTES_MAX;

    use super::*;

    /// A token of the largest size, told apart by `n`.
    fn token(n: usize) -> Token {
        let mut bytes = vec![0; TOKEN_BYTES_MAX];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Token::from_bytes(bytes).unwrap()
    }

    const LARGEST: usize = TOKEN_BYTES_MAX + VERIFIED_TOKEN_EXTRA_BYTES;

    #[test]
    fn a_session_remembers_its_latest_tokens() {
        let (room, mut session) = (Arc::new(Room::default()), Verified::default());
        for n in 0..=SESSION_TOKENS_MAX {
            session.keep(&room, Source::Uid(1), &token(n), 0, &Arc::new(n));
        }
        assert_eq!(session.find(&token(0), 0), None);
        assert_eq!(session.find(&token(1), 0).as_deref(), Some(&1));
        assert_eq!(session.find(&token(SESSION_TOKENS_MAX), 0).as_deref(), Some(&SESSION_TOKENS_MAX));
        assert_eq!(room.lock().values().sum::<usize>(), SESSION_TOKENS_MAX * LARGEST);
        drop(session);
        assert!(room.lock().is_empty(), "an ended session gives its room back");
    }

    #[test]
    fn what_other_root_keys_verified_is_forgotten() {
        let (room, mut session) = (Arc::new(Room::default()), Verified::default());
        session.keep(&room, Source::Uid(1), &token(1), 0, &Arc::new(1));
        assert_eq!(session.find(&token(1), 0).as_deref(), Some(&1));
        assert_eq!(session.find(&token(1), 1), None, "verified by keys that are not all believed any more");
        session.keep(&room, Source::Uid(1), &token(2), 1, &Arc::new(2));
        assert_eq!(session.find(&token(2), 1).as_deref(), Some(&2));
        assert_eq!(session.find(&token(1), 1), None);
        assert_eq!(room.lock().values().sum::<usize>(), LARGEST, "and takes no room any more");
    }

    #[test]
    fn a_user_s_bound_costs_only_its_own_sessions() {
        let room = Arc::new(Room::default());
        let mut sessions = Vec::new();
        for n in 0..SESSION_TOKENS_MAX * 64 {
            if n % SESSION_TOKENS_MAX == 0 {
                sessions.push(Verified::default());
            }
            sessions.last_mut().unwrap().keep(&room, Source::Uid(1), &token(n), 0, &Arc::new(n));
            assert!(room.lock()[&Source::Uid(1)] <= VERIFIED_BYTES_PER_UID_MAX);
        }
        assert_eq!(
            room.lock()[&Source::Uid(1)] / LARGEST,
            VERIFIED_BYTES_PER_UID_MAX / LARGEST,
            "all of it is used"
        );
        // The session that was first keeps what it has; one that is late has the room of its own tokens only.
        assert!(sessions[0].find(&token(0), 0).is_some());
        assert_eq!(sessions.last().unwrap().known.len(), 0);
        // Another user is not touched by that.
        let mut other = Verified::default();
        other.keep(&room, Source::Uid(2), &token(7), 0, &Arc::new(7));
        assert!(other.find(&token(7), 0).is_some());
    }

    #[test]
    fn the_node_s_bound_holds_over_all_users() {
        let room = Arc::new(Room::default());
        let mut sessions = Vec::new();
        for n in 0..2 * VERIFIED_BYTES_MAX / LARGEST {
            let mut session = Verified::default();
            session.keep(&room, Source::Uid((n % 64) as u32), &token(n), 0, &Arc::new(n));
            sessions.push(session);
        }
        assert_eq!(room.lock().values().sum::<usize>() / LARGEST, VERIFIED_BYTES_MAX / LARGEST);
        sessions.clear();
        assert!(room.lock().is_empty());
    }
}
