//! When which connection has to be looked at: one entry a connection.
//!
//! A connection's deadline moves with everything it does, and mostly away. So an entry stands at a deadline or before it,
//! and is moved only if it stands too late; a connection that is looked at too early is put off.

use std::collections::BTreeSet;
use std::time::Instant;

use super::table::Key;

/// The deadlines of a shard.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Instant, Key)>);

impl Deadlines {
    /// Sees to it that `key` is looked at by `at`. `stands` is where its entry stands, which the connection keeps.
    pub(super) fn by(&mut self, key: Key, stands: &mut Option<Instant>, at: Option<Instant>) {
        let Some(at) = at else { return };
        if stands.is_some_and(|stands| stands <= at) {
            return;
        }
        self.forget(key, stands);
        self.0.insert((at, key));
        *stands = Some(at);
    }

    /// Takes a connection's entry out.
    pub(super) fn forget(&mut self, key: Key, stands: &mut Option<Instant>) {
        if let Some(at) = stands.take() {
            self.0.remove(&(at, key));
        }
    }

    /// The connections whose entries are due, each once; the entries are gone, which the caller tells the connections. An
    /// entry that is put in for one of them meanwhile is not among them, however early it stands: the others come first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.0.first()
            && at <= now
        {
            self.0.pop_first();
            due.push(key);
        }
        due
    }

    /// When the next one is.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::Token;

    use super::*;

    #[test]
    fn an_entry_moves_forward_at_once_and_back_when_it_is_met() {
        let mut deadlines = Deadlines::default();
        let (key, mut stands) = (Key::of(Token(7)), None);
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        deadlines.by(key, &mut stands, at(50));
        deadlines.by(key, &mut stands, at(90));
        assert_eq!(deadlines.next(), at(50), "later: it stays");
        deadlines.by(key, &mut stands, at(20));
        assert_eq!(deadlines.next(), at(20));
        assert_eq!(deadlines.due(now), []);
        assert_eq!(deadlines.due(at(20).unwrap()), [key]);
        assert_eq!(deadlines.next(), None, "one entry a connection");
        stands = None;
        deadlines.by(key, &mut stands, at(60));
        deadlines.forget(key, &mut stands);
        assert_eq!((deadlines.next(), stands), (None, None));
    }

    #[test]
    fn who_is_due_again_at_once_waits_for_the_others() {
        let mut deadlines = Deadlines::default();
        let (eager, other) = (Key::of(Token(1)), Key::of(Token(2)));
        let (mut stands, mut stood) = (None, None);
        let (now, before) = (Instant::now(), Duration::from_millis(9));
        deadlines.by(eager, &mut stands, now.checked_sub(before));
        deadlines.by(other, &mut stood, Some(now));
        let mut seen = Vec::new();
        for key in deadlines.due(now) {
            seen.push(key);
            if key == eager {
                // Its deadline is one that has passed for good.
                stands = None;
                deadlines.by(eager, &mut stands, now.checked_sub(before));
            }
        }
        assert_eq!(seen, [eager, other], "one look each");
        assert_eq!(deadlines.due(now), [eager], "and again in the next round");
    }
}
