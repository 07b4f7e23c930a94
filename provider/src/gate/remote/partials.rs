//! The bytes of frames that are not whole, counted over all connections of a gate.
//!
//! A frame is held until it is whole: nothing of it is judged, or has an effect, before its checksum and its bounds are. So
//! one connection may hold as much as the largest frame has, and all of them together more than a node has to spare. When
//! they hold more than [`REMOTE_PARTIALS_BYTES_MAX`] the oldest ends of those of the principal that holds most, on whatever
//! shard it is: a client that means it sends the rest of its frame at once, and whoever opens many connections to hold much
//! is the one who loses them.
//!
//! What waits for the node, because the turn of its connection has not come or it is held up, is not the client's fault, and
//! nobody ends for it. It is counted apart: while there is much of it, less is read at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use audit::rejects::Source;
use caps::id::PrincipalKey;
use policy::limits::{REMOTE_PARTIALS_BYTES_MAX, REMOTE_READ_BYTES, REMOTE_SCARCE_READ_BYTES};

use super::mailbox::{Letter, Mailbox};
use super::table::Key;

/// What the connections of a gate hold.
#[derive(Default)]
pub(super) struct Partials {
    /// Guards the pieces; held to put one in or take one out.
    state: Mutex<State>,
    /// Bytes that wait for the node.
    waiting: AtomicUsize,
}

/// With whom a piece is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Holder {
    /// A network, while it is not known who it is.
    Network(Source),
    /// Whose session it is.
    Principal(PrincipalKey),
}

#[derive(Default)]
struct State {
    /// Names are given in order, and never again.
    next: u64,
    /// Of all of these together.
    bytes: usize,
    of: HashMap<Holder, Pieces>,
    /// The same holders by their bytes, so whoever holds most comes last.
    most: BTreeSet<(usize, Holder)>,
}

/// What one holder holds: at least one piece.
#[derive(Default)]
struct Pieces {
    /// Of all of them together.
    bytes: usize,
    /// By age and name, so the oldest comes first.
    held: BTreeMap<(Instant, u64), Piece>,
}

struct Piece {
    bytes: usize,
    mailbox: Arc<Mailbox>,
    key: Key,
}

/// What one connection holds. Holds nothing once it is dropped.
pub(super) struct Held {
    partials: Arc<Partials>,
    mailbox: Arc<Mailbox>,
    key: Key,
    holder: Holder,
    now: Option<Now>,
    /// Bytes that wait for the node.
    waiting: usize,
}

/// What a connection holds now.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Now {
    /// When the oldest byte of it came, and what it is called.
    at: (Instant, u64),
    bytes: usize,
}

impl Partials {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new connection of `holder` holds: nothing.
    pub(super) fn held(self: &Arc<Self>, mailbox: Arc<Mailbox>, key: Key, holder: Holder) -> Held {
        Held { partials: self.clone(), mailbox, key, holder, now: None, waiting: 0 }
    }

    /// How many bytes are read from a connection at once.
    pub(super) fn read_bytes(&self) -> usize {
        let is_scarce = self.waiting.load(Ordering::Relaxed) >= REMOTE_PARTIALS_BYTES_MAX;
        if is_scarce { REMOTE_SCARCE_READ_BYTES } else { REMOTE_READ_BYTES }
    }
}

impl State {
    /// Puts a piece there, or takes away the one that is. Returns the one that was.
    fn put(&mut self, holder: Holder, at: (Instant, u64), piece: Option<Piece>) -> Option<Piece> {
        let pieces = self.of.entry(holder).or_default();
        self.most.remove(&(pieces.bytes, holder));
        let bytes = |piece: &Option<Piece>| piece.as_ref().map_or(0, |piece| piece.bytes);
        let more = bytes(&piece);
        let before = match piece {
            Some(piece) => pieces.held.insert(at, piece),
            None => pieces.held.remove(&at),
        };
        let less = bytes(&before);
        pieces.bytes = pieces.bytes + more - less;
        self.bytes = self.bytes + more - less;
        if pieces.held.is_empty() {
            self.of.remove(&holder);
        } else {
            self.most.insert((pieces.bytes, holder));
        }
        before
    }

    /// Those that have to end so that the rest is no more than may be held. Counted no more.
    fn too_many(&mut self) -> Vec<(u64, Piece)> {
        let mut ending = Vec::new();
        while self.bytes > REMOTE_PARTIALS_BYTES_MAX
            && let Some(&(_, holder)) = self.most.last()
            && let Some(&at) = self.of.get(&holder).and_then(|pieces| pieces.held.keys().next())
        {
            ending.extend(self.put(holder, at, None).map(|piece| (at.1, piece)));
        }
        ending
    }
}

impl Held {
    /// The connection holds so many bytes now of a frame whose rest its client has not sent, and whose oldest byte came at
    /// `began`. Of another frame than before if that is another time.
    pub(super) fn set(&mut self, bytes: usize, began: Instant) {
        let is_it = |now: &Now| now.at.0 == began && bytes > 0;
        if self.now.map_or(bytes == 0, |now| now.bytes == bytes && is_it(&now)) {
            return;
        }
        let mut state = self.partials.lock();
        let at = match self.now.filter(is_it) {
            Some(now) => {
                if state.put(self.holder, now.at, None).is_none() {
                    return; // it was told to end
                }
                now.at
            }
            None => {
                if let Some(now) = self.now {
                    state.put(self.holder, now.at, None);
                }
                state.next += 1;
                (began, state.next - 1)
            }
        };
        self.now = (bytes > 0).then_some(Now { at, bytes });
        if bytes > 0 {
            let piece = Piece { bytes, mailbox: self.mailbox.clone(), key: self.key };
            state.put(self.holder, at, Some(piece));
        }
        let ending = state.too_many();
        drop(state);
        for (name, piece) in ending {
            piece.mailbox.put(Letter::TooMuch(piece.key, name));
        }
    }

    /// So many bytes that came wait for the node now.
    pub(super) fn wait(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.waiting, bytes);
        // Only a sum: whoever reads it a moment late reads a little more.
        if bytes > before {
            self.partials.waiting.fetch_add(bytes - before, Ordering::Relaxed);
        } else if bytes < before {
            self.partials.waiting.fetch_sub(before - bytes, Ordering::Relaxed);
        }
    }

    /// Holds nothing.
    pub(super) fn clear(&mut self) {
        if let Some(now) = self.now.take() {
            self.partials.lock().put(self.holder, now.at, None);
        }
        self.wait(0);
    }

    /// It is known whose it is. What it holds is counted with them from the next time on that this is told.
    pub(super) fn belongs_to(&mut self, holder: Holder) {
        self.clear();
        self.holder = holder;
    }

    /// Whether it still holds what has this name.
    pub(super) fn is(&self, name: u64) -> bool {
        self.now.is_some_and(|now| now.at.1 == name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gate::remote::table::Table;

    const BYTES: usize = 1 << 20;
    const FIT: usize = REMOTE_PARTIALS_BYTES_MAX / BYTES;

    fn principal(n: u8) -> Holder {
        Holder::Principal(PrincipalKey([n; 32]))
    }

    /// A gate with two shards, and connections of one principal that hold nothing.
    fn gate(connections: usize) -> (Arc<Partials>, [Arc<Mailbox>; 2], Vec<Held>, [mio::Poll; 2]) {
        let (partials, polls) = (Arc::new(Partials::default()), [(); 2].map(|()| mio::Poll::new().unwrap()));
        let waker = |poll: &mio::Poll| mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let shards = [0, 1].map(|at: usize| Mailbox::new(waker(&polls[at])));
        let mut table = Table::default();
        let held = (0..connections)
            .map(|at| {
                let key = table.insert(Ok::<_, ()>).unwrap();
                partials.held(shards[at % 2].clone(), key, principal(0))
            })
            .collect();
        (partials, shards, held, polls)
    }

    /// A clock that goes on by one whenever it is asked.
    fn clock() -> impl FnMut() -> Instant {
        let mut now = Instant::now();
        move || {
            now += Duration::from_millis(1);
            now
        }
    }

    fn told(shard: &Mailbox) -> Vec<u64> {
        shard
            .take()
            .into_iter()
            .map(|letter| match letter {
                Letter::TooMuch(_, name) => name,
                _ => panic!("nothing else is told"),
            })
            .collect()
    }

    #[test]
    fn beyond_the_bound_the_oldest_ends_wherever_it_is() {
        let (partials, shards, mut held, _polls) = gate(FIT + 3);
        let mut now = clock();
        held[..FIT].iter_mut().for_each(|held| held.set(BYTES, now()));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX);
        assert!(told(&shards[0]).is_empty() && told(&shards[1]).is_empty(), "as many as may");
        // The first begins another frame, so that of the second is the oldest: on the other shard.
        held[0].set(BYTES, now());
        held[FIT].set(1, now());
        assert!(told(&shards[0]).is_empty());
        assert_eq!(told(&shards[1]), [1]);
        assert!(held[1].is(1) && !held[0].is(0));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        // Told once: what it holds until it ends counts no more, and neither does its end.
        let began = held[1].now.unwrap().at.0;
        held[1].set(2 * BYTES, began);
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        drop(held.remove(1));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        drop(held);
        let state = partials.lock();
        assert_eq!((state.bytes, state.of.len(), state.most.len()), (0, 0, 0));
    }

    #[test]
    fn a_frame_that_grows_is_as_old_as_its_first_byte() {
        let (partials, shards, mut held, _polls) = gate(FIT + 1);
        let mut now = clock();
        let first = now();
        held[0].set(1, first);
        held[1..FIT].iter_mut().for_each(|held| held.set(BYTES, now()));
        held[0].set(BYTES, first);
        held[FIT].set(1, now());
        assert_eq!(told(&shards[0]), [0]);
        held[2].set(0, now());
        held[2].set(0, now());
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - 2 * BYTES + 1);
    }

    #[test]
    fn who_holds_most_makes_room_and_nobody_who_holds_less() {
        let (partials, shards, mut held, _polls) = gate(FIT + 2);
        let mut now = clock();
        // The oldest of all, of somebody who holds little.
        held[0].belongs_to(principal(1));
        held[0].set(BYTES, now());
        // However often whoever holds most begins anew.
        for _ in 0..3 {
            held[1..FIT].iter_mut().for_each(|held| held.set(BYTES, now()));
        }
        held[FIT].belongs_to(Holder::Network(Source::Net4([192, 0, 2])));
        held[FIT].set(BYTES, now());
        let ended = [told(&shards[0]), told(&shards[1])].concat();
        assert_eq!(ended.len(), 1);
        assert!(held[1].is(ended[0]), "the oldest of the principal with most");
        // What a connection holds goes with it to whom it turns out to be.
        held[FIT].belongs_to(principal(1));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES);
        held[FIT].set(BYTES, now());
        assert_eq!(partials.lock().of[&principal(1)].bytes, 2 * BYTES);
    }

    #[test]
    fn while_much_waits_for_the_node_less_is_read_and_nobody_ends() {
        let (partials, shards, mut held, _polls) = gate(2);
        held[0].wait(REMOTE_PARTIALS_BYTES_MAX - 1);
        assert_eq!(partials.read_bytes(), REMOTE_READ_BYTES);
        held[1].wait(2);
        assert_eq!(partials.read_bytes(), REMOTE_SCARCE_READ_BYTES);
        assert!(told(&shards[0]).is_empty() && told(&shards[1]).is_empty());
        held[0].wait(1);
        assert_eq!(partials.read_bytes(), REMOTE_READ_BYTES);
        drop(held);
        assert_eq!(partials.waiting.load(Ordering::Relaxed), 0);
    }
}
