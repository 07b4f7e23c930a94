//! What each session's holder still has to be told about its mappings: fresh segments, withdrawn ones, ended rights.
//!
//! ```text
//! rotation ──▶ survivors ──▶ Post of each session ──▶ gate::channel ──▶ the client's signal handler
//! revoke ────▶ closed ─────▶        │ one message at a time, the next after `Taken`
//! ```
//! A post is a set of what is *due*, not a queue of what happened: a segment that was rotated three times while its
//! holder was stopped is due once, and what is sent is its file at the moment of sending. So it is bounded by the
//! session's open rights and their segments, and a client that never listens costs that and delays nobody. What it has
//! not read of rights that ended, or that it never had, has bounds of its own; past them the channel is hung up.

use std::collections::BTreeSet;
use std::sync::Mutex;

use caps::error::{Code, Error, Result};
use policy::limits::{CHANNEL_STRANGERS_MAX, SLOTS_PER_SESSION_MAX};
use tokio::sync::Notify;

use super::cells::OpenKey;
use super::lock;

/// The next thing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// A segment has a fresh file.
    Segment(OpenKey, u32),
    /// The right no longer reaches a segment.
    Withdrawn(OpenKey, u32),
    /// The right is over.
    Ended(OpenKey),
}

/// What is due, by kind. A right is in `ended`, `withdrawn` and `segments` only while it is in `listening`.
#[derive(Debug, Default)]
struct Inbox {
    /// Rights whose holder said that it listens.
    listening: BTreeSet<OpenKey>,
    ended: BTreeSet<OpenKey>,
    withdrawn: BTreeSet<(OpenKey, u32)>,
    segments: BTreeSet<(OpenKey, u32)>,
    /// Rights that are not the session's, or no longer, whose holder said that it listens.
    strangers: BTreeSet<OpenKey>,
    /// An end is missing: there was no room for it.
    overrun: bool,
}

impl Inbox {
    fn forget(&mut self, open: OpenKey) {
        self.listening.remove(&open);
        self.ended.remove(&open);
        for set in [&mut self.withdrawn, &mut self.segments] {
            let of_it: Vec<_> = set.range((open, 0)..=(open, u32::MAX)).copied().collect();
            for due in of_it {
                set.remove(&due);
            }
        }
    }
}

/// One session's post.
#[derive(Debug, Default)]
pub struct Post {
    /// Guards the sets; held for an insertion or a removal.
    inbox: Mutex<Inbox>,
    wake: Notify,
}

impl Post {
    /// The holder of a right listens from now on. What changed before is the caller's to add.
    pub(super) fn listen(&self, open: OpenKey) {
        lock(&self.inbox).listening.insert(open);
    }

    /// The session has no such right, whatever it says: all it is told is that.
    ///
    /// # Errors
    /// `E_PROTOCOL` if it said so of too many, and read nothing of it.
    pub(super) fn stranger(&self, open: OpenKey) -> Result<()> {
        let mut inbox = lock(&self.inbox);
        inbox.forget(open);
        if inbox.strangers.len() >= CHANNEL_STRANGERS_MAX && !inbox.strangers.contains(&open) {
            return Err(Error::new(Code::Protocol, "too many rights that the session does not have"));
        }
        inbox.strangers.insert(open);
        drop(inbox);
        self.wake.notify_one();
        Ok(())
    }

    /// A segment of a right has a fresh file.
    pub(super) fn segment(&self, open: OpenKey, segment: u32) {
        self.add(open, |inbox| {
            inbox.segments.insert((open, segment));
        });
    }

    /// A right no longer reaches a segment.
    pub(super) fn withdrawn(&self, open: OpenKey, segment: u32) {
        self.add(open, |inbox| {
            inbox.segments.remove(&(open, segment));
            inbox.withdrawn.insert((open, segment));
        });
    }

    /// A right is over.
    pub(super) fn ended(&self, open: OpenKey) {
        self.add(open, |inbox| {
            if inbox.ended.len() < SLOTS_PER_SESSION_MAX {
                inbox.ended.insert(open);
            } else {
                inbox.overrun = true;
            }
        });
    }

    /// Whether something that the client has to know could not be kept for it: more rights of the session ended unread
    /// than it can have at one time.
    pub fn is_overrun(&self) -> bool {
        lock(&self.inbox).overrun
    }

    /// A right was given back by its holder: nobody listens any more.
    pub(super) fn forget(&self, open: OpenKey) {
        lock(&self.inbox).forget(open);
    }

    fn add(&self, open: OpenKey, change: impl FnOnce(&mut Inbox)) {
        let mut inbox = lock(&self.inbox);
        // Who is not listening yet is told when it says that it is.
        if inbox.listening.contains(&open) {
            change(&mut inbox);
            drop(inbox);
            self.wake.notify_one();
        }
    }

    /// Takes the next letter: ends first, because somebody waits for nothing until it comes.
    pub fn next(&self) -> Option<Letter> {
        let mut inbox = lock(&self.inbox);
        if let Some(open) = inbox.ended.pop_first() {
            inbox.forget(open);
            return Some(Letter::Ended(open));
        }
        if let Some(open) = inbox.strangers.pop_first() {
            return Some(Letter::Ended(open));
        }
        let withdrawn = inbox.withdrawn.pop_first().map(|(open, segment)| Letter::Withdrawn(open, segment));
        withdrawn.or_else(|| inbox.segments.pop_first().map(|(open, segment)| Letter::Segment(open, segment)))
    }

    /// Waits until there may be a letter.
    pub async fn wait(&self) {
        self.wake.notified().await; // a letter that came before this call has left its permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: OpenKey = OpenKey { index: 1, generation: 1 };
    const B: OpenKey = OpenKey { index: 2, generation: 1 };

    #[test]
    fn what_is_due_is_said_once_and_ends_come_first() {
        let post = Post::default();
        post.segment(A, 3);
        assert_eq!(post.next(), None, "A does not listen yet");
        post.listen(A);
        post.listen(B);
        post.segment(A, 3);
        post.segment(A, 3);
        post.segment(A, 1);
        post.segment(B, 0);
        post.ended(B);
        assert_eq!(post.next(), Some(Letter::Ended(B)));
        assert_eq!(post.next(), Some(Letter::Segment(A, 1)));
        post.withdrawn(A, 3);
        assert_eq!(post.next(), Some(Letter::Withdrawn(A, 3)));
        assert_eq!(post.next(), None);
        post.segment(B, 0);
        assert_eq!(post.next(), None, "B was told that it is over");
    }

    #[test]
    fn what_is_not_read_has_a_bound() {
        let key = |index: usize| OpenKey { index: index as u32, generation: 1 };
        let post = Post::default();
        (0..CHANNEL_STRANGERS_MAX).for_each(|index| post.stranger(key(index)).unwrap());
        post.stranger(key(0)).unwrap(); // known to be none already
        assert_eq!(post.stranger(key(CHANNEL_STRANGERS_MAX)).unwrap_err().code(), Code::Protocol);
        assert_eq!(post.next(), Some(Letter::Ended(key(0))));
        post.stranger(key(CHANNEL_STRANGERS_MAX)).unwrap();

        let post = Post::default();
        for index in 0..=SLOTS_PER_SESSION_MAX {
            assert!(!post.is_overrun(), "{index}");
            post.listen(key(index));
            post.ended(key(index));
        }
        assert!(post.is_overrun());
    }
}
