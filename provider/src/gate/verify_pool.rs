//! Whose token's signatures are checked next.
//!
//! Checking a token of eight blocks keeps a worker of the gate busy for up to a millisecond, and whoever makes tokens offline
//! can present one that was never seen with every request. So only some of the workers do that at any time, and never the
//! last one: the others answer everybody else. A session has one request in work, so it waits for one turn at most; and
//! turns go round by where they come from, so that many sessions of one user, or of one network, wait for each other and not
//! before anybody else's.
//!
//! ```text
//!             ┌ user 1: session, session, session ... ┐
//!   turns ──▶ ┼ user 2: session                       ┼──▶ one of each in turn ──▶ permits
//!             └ network 3: session, session           ┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::rejects::Source;
use tokio::sync::oneshot;

/// The turns of one gate.
#[derive(Debug)]
pub(super) struct VerifyPool {
    /// Guards the queues; held to put one session in or to take one out.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Permits that nobody has. None while somebody waits.
    free: usize,
    /// Where somebody waits from, each once, the next first.
    turns: VecDeque<Source>,
    /// Their sessions, the first first. Nowhere without any is here. One entry a session that waits, and
    /// those of sessions that ended since the last turn from there.
    waiting: HashMap<Source, VecDeque<oneshot::Sender<Permit>>>,
}

/// A turn, over when dropped.
#[derive(Debug)]
#[must_use = "the turn is over when this is dropped"]
pub(super) struct Permit(Option<Arc<VerifyPool>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.pass_on();
        }
    }
}

impl State {
    /// Takes out the session whose turn it is, and those of its user before it that wait no longer: they cost nobody a
    /// turn, and the queue is never longer than there are sessions and turns between.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        while let Some(source) = self.turns.pop_front() {
            let sessions = self.waiting.get_mut(&source)?;
            let next = std::iter::from_fn(|| sessions.pop_front()).find(|session| !session.is_closed());
            if sessions.is_empty() {
                self.waiting.remove(&source);
            } else {
                self.turns.push_back(source);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl VerifyPool {
    /// Turns for a gate whose tasks run on as many workers as this machine has cores for it.
    pub(super) fn for_this_machine() -> Arc<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new(workers.saturating_sub(1).max(1))
    }

    fn new(permits: usize) -> Arc<Self> {
        let state = State { free: permits, turns: VecDeque::new(), waiting: HashMap::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Waits for a turn of this source's. Whoever stops waiting loses its place, and nobody else does.
    pub(super) async fn turn(self: &Arc<Self>, source: Source) -> Permit {
        let waits = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return self.permit();
            }
            let (ours, waits) = oneshot::channel();
            let sessions = state.waiting.entry(source).or_default();
            sessions.push_back(ours);
            if sessions.len() == 1 {
                state.turns.push_back(source);
            }
            waits
        };
        // What the queue has is sent or still there, and this keeps the queue.
        waits.await.expect("a place in the queue is not lost")
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit(Some(self.clone()))
    }

    /// A turn is over: the next one's begins.
    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let Some(next) = state.next() else {
                    state.free += 1;
                    return;
                };
                next
            };
            match next.send(self.permit()) {
                Ok(()) => return,
                // It does not wait any more. The permit is passed on here, not by its own end, which would come here.
                Err(mut permit) => drop(permit.0.take()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Turn = Pin<Box<dyn Future<Output = Permit>>>;

    fn ask(pool: &Arc<VerifyPool>, uid: u32) -> Turn {
        let pool = pool.clone();
        Box::pin(async move { pool.turn(Source::Uid(uid)).await })
    }

    fn poll(turn: &mut Turn) -> Option<Permit> {
        match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    fn now(pool: &Arc<VerifyPool>, uid: u32) -> Option<Permit> {
        match pin!(pool.turn(Source::Uid(uid))).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    /// Lets one turn end after another and says whose each was.
    fn order(mut running: Permit, mut waiting: Vec<(u32, Turn)>) -> Vec<u32> {
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(running);
            let ready = waiting.iter_mut().enumerate().find_map(|(n, (_, turn))| Some((n, poll(turn)?)));
            let (n, permit) = ready.expect("somebody's turn begins when one ends");
            order.push(waiting.remove(n).0);
            running = permit;
        }
        order
    }

    #[test]
    fn no_more_than_there_are_permits() {
        let pool = VerifyPool::new(2);
        let (one, two) = (now(&pool, 1).unwrap(), now(&pool, 1).unwrap());
        let mut third = ask(&pool, 2);
        assert!(poll(&mut third).is_none());
        drop(one);
        let three = poll(&mut third).unwrap();
        assert!(now(&pool, 3).is_none(), "a session that left keeps no place");
        drop((two, three));
        assert_eq!(pool.lock().free, 2);
        assert!(pool.lock().turns.is_empty() && pool.lock().waiting.is_empty());
    }

    #[test]
    fn a_user_with_hundreds_of_sessions_is_before_nobody_twice() {
        let pool = VerifyPool::new(1);
        let running = now(&pool, 1).unwrap();
        let mut waiting: Vec<_> = (0..512).map(|_| (1, ask(&pool, 1))).collect();
        waiting.extend([2, 3, 2].map(|uid| (uid, ask(&pool, uid))));
        // An async function runs when it is polled: here is where they queue, in this order.
        assert!(waiting.iter_mut().all(|(_, turn)| poll(turn).is_none()));
        let order = order(running, waiting);
        assert_eq!(order[..7], [1, 2, 3, 1, 2, 1, 1]);
        assert_eq!(order.len(), 515, "and everybody has a turn");
    }

    #[test]
    fn who_leaves_while_it_waits_or_with_a_turn_that_it_never_saw_holds_nobody_up() {
        let pool = VerifyPool::new(1);
        let running = now(&pool, 1).unwrap();
        let (mut gone, mut unseen, mut last) = (ask(&pool, 1), ask(&pool, 2), ask(&pool, 3));
        for turn in [&mut gone, &mut unseen, &mut last] {
            assert!(poll(turn).is_none());
        }
        drop(gone);
        drop(running);
        // The turn is `unseen`'s, which never looks.
        assert!(poll(&mut last).is_none());
        drop(unseen);
        drop(poll(&mut last).unwrap());
        assert_eq!(pool.lock().free, 1);
    }
}
