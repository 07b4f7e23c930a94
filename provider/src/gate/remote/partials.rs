//! The bytes of frames that are not whole, counted over all connections of a gate.
//!
//! A frame is held until it is whole: nothing of it is judged, or has an effect, before its checksum and its bounds are. So
//! one connection may hold as much as the largest frame has, and all of them together more than a node has to spare. When
//! they hold more than [`REMOTE_PARTIALS_BYTES_MAX`] whoever has held a piece the longest is told to end, on whatever shard
//! it is: a client that means it sends the rest of its frame at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::limits::REMOTE_PARTIALS_BYTES_MAX;

use super::mailbox::{Letter, Mailbox};
use super::table::Key;

/// What the connections of a gate hold.
#[derive(Default)]
pub(super) struct Partials(Mutex<State>);

#[derive(Default)]
struct State {
    /// Names are given in order, and never again.
    next: u64,
    /// Of all of these together.
    bytes: usize,
    /// By name, so the oldest comes first.
    held: BTreeMap<u64, Piece>,
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
    /// What it holds is called so, and has so many bytes.
    now: Option<(u64, usize)>,
}

impl Partials {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new connection holds: nothing.
    pub(super) fn held(self: &Arc<Self>, mailbox: Arc<Mailbox>, key: Key) -> Held {
        Held { partials: self.clone(), mailbox, key, now: None }
    }
}

impl State {
    /// Forgets a piece, if it was not told to end.
    fn forget(&mut self, name: u64) {
        if let Some(piece) = self.held.remove(&name) {
            self.bytes -= piece.bytes;
        }
    }

    /// Those that have to end so that the rest is no more than may be held, the oldest first. Counted no more.
    fn too_many(&mut self) -> Vec<(u64, Piece)> {
        let mut ending = Vec::new();
        while self.bytes > REMOTE_PARTIALS_BYTES_MAX
            && let Some((name, piece)) = self.held.pop_first()
        {
            self.bytes -= piece.bytes;
            ending.push((name, piece));
        }
        ending
    }
}

impl Held {
    /// The connection holds so many bytes now; `anew` if they are of another frame than those that it held before.
    pub(super) fn set(&mut self, bytes: usize, anew: bool) {
        if self.now.map_or(bytes == 0, |(_, before)| before == bytes && !anew) {
            return;
        }
        let mut state = self.partials.lock();
        match self.now {
            Some((name, _)) if !anew && bytes > 0 => {
                let Some(piece) = state.held.get_mut(&name) else { return }; // it was told to end
                let before = std::mem::replace(&mut piece.bytes, bytes);
                state.bytes = state.bytes - before + bytes;
                self.now = Some((name, bytes));
            }
            before => {
                if let Some((name, _)) = before {
                    state.forget(name);
                }
                self.now = None;
                if bytes > 0 {
                    let name = state.next;
                    state.next += 1;
                    state.bytes += bytes;
                    let piece = Piece { bytes, mailbox: self.mailbox.clone(), key: self.key };
                    state.held.insert(name, piece);
                    self.now = Some((name, bytes));
                }
            }
        }
        let ending = state.too_many();
        drop(state);
        for (name, piece) in ending {
            piece.mailbox.put(Letter::TooMuch(piece.key, name));
        }
    }

    /// Whether it still holds what has this name.
    pub(super) fn is(&self, name: u64) -> bool {
        self.now.is_some_and(|(now, _)| now == name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::remote::table::Table;

    const BYTES: usize = 1 << 20;
    const FIT: usize = REMOTE_PARTIALS_BYTES_MAX / BYTES;

    /// A gate with two shards, and connections that hold nothing.
    fn gate(connections: usize) -> (Arc<Partials>, [Arc<Mailbox>; 2], Vec<Held>, [mio::Poll; 2]) {
        let (partials, polls) = (Arc::new(Partials::default()), [(); 2].map(|()| mio::Poll::new().unwrap()));
        let waker = |poll: &mio::Poll| mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let shards = [0, 1].map(|at: usize| Mailbox::new(waker(&polls[at])));
        let mut table = Table::default();
        let held = (0..connections)
            .map(|at| partials.held(shards[at % 2].clone(), table.insert(Ok::<_, ()>).unwrap()))
            .collect();
        (partials, shards, held, polls)
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
        held[..FIT].iter_mut().for_each(|held| held.set(BYTES, false));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX);
        assert!(told(&shards[0]).is_empty() && told(&shards[1]).is_empty(), "as many as may");
        // The first begins another frame, so that of the second is the oldest: on the other shard.
        held[0].set(BYTES, true);
        held[FIT].set(1, false);
        assert!(told(&shards[0]).is_empty());
        assert_eq!(told(&shards[1]), [1]);
        assert!(held[1].is(1) && !held[0].is(0));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        // Told once: what it holds until it ends counts no more, and neither does its end.
        held[1].set(2 * BYTES, false);
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        drop(held.remove(1));
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - BYTES + 1);
        drop(held);
        let state = partials.lock();
        assert_eq!((state.bytes, state.held.len()), (0, 0));
    }

    #[test]
    fn a_frame_that_grows_is_as_old_as_its_first_byte() {
        let (partials, shards, mut held, _polls) = gate(FIT + 1);
        held[0].set(1, false);
        held[1..FIT].iter_mut().for_each(|held| held.set(BYTES, false));
        held[0].set(BYTES, false);
        held[FIT].set(1, false);
        assert_eq!(told(&shards[0]), [0]);
        held[2].set(0, false);
        held[2].set(0, true);
        assert_eq!(partials.lock().bytes, REMOTE_PARTIALS_BYTES_MAX - 2 * BYTES + 1);
    }
}
