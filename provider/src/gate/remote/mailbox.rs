//! What other threads tell a shard.
//!
//! Nothing here is bounded by itself: a letter is about a connection that was admitted, and each has at most one errand
//! under way and one rotation that it waits for. What it waited for before may be told late, and its end more than once,
//! by each take-back that cuts it off; both mean nothing then. What it holds is told of once, under a name of its own.

use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use caps::error::Error;

use super::admission::Seat;
use super::control::Errand;
use super::greeting::Greeted;
use super::table::Key;

/// One thing that a shard is told.
pub(super) enum Letter {
    /// A connection was accepted. With why it is refused, once it can be told.
    New(TcpStream, IpAddr, Seat, Option<Error>),
    /// It is known who has the key that a connection proved.
    Greeted(Key, Box<Greeted>),
    /// A control request was worked on, or given up.
    Back(Key, Box<Errand>),
    /// What a connection waited for is over.
    GoOn(Key),
    /// A connection is to end.
    End(Key),
    /// Certificates are to be judged again.
    Judge,
    /// A connection is to end that holds, under this name, what the gate has no room for.
    TooMuch(Key, u64),
    /// All are to end, and the shard with them.
    Stop,
}

/// A shard's mailbox.
pub(super) struct Mailbox {
    /// Guards the letters; held to put one in or to take all out.
    letters: Mutex<Vec<Letter>>,
    waker: mio::Waker,
    /// Whether nobody reads them any more.
    closed: AtomicBool,
}

impl Mailbox {
    pub(super) fn new(waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self { letters: Mutex::default(), waker, closed: AtomicBool::new(false) })
    }

    /// The shard is over: what it is told is forgotten.
    pub(super) fn close(&self) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        let left = std::mem::take(&mut *letters);
        drop(letters);
        drop(left); // what drops a visitor or a connection may tell somebody
    }

    /// Whether somebody reads them.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Tells the shard.
    pub(super) fn put(&self, letter: Letter) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_open() {
            drop(letters);
            return;
        }
        letters.push(letter);
        let first = letters.len() == 1;
        drop(letters);
        // Whoever put in the first one wakes the shard, and it takes all.
        if first && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a thread of the remote gate cannot be woken");
        }
    }

    /// Everything that was told, in order.
    pub(super) fn take(&self) -> Vec<Letter> {
        std::mem::take(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
