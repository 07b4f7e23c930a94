//! What clients asked for last that cannot be done twice, and what they were answered: a client that lost its connection
//! asks again on another one, with the same number, and nothing is done a second time.
//!
//! ```text
//!  Effects ── (holder, client) ──▶ Table ── number ──▶ answered: identity, frames   the same bytes: the same answer
//!                                    ▲                                              other bytes: E_FRAME_DUP
//!                                    │             └──▶ under way                   E_BUSY: ask again
//!              connections, at most EFFECTS_CONNECTIONS_MAX    (unknown)            it is done
//! ```
//! A client says which one it is (`Resume`), and only under the key that it has proven does that name anything. A
//! connection that never said so has a table of its own, which ends with it.
//!
//! **What is kept.** Answers to `WRITE`, `SCATTER`, `CAS`, `FETCH_ADD`, `CREATE`, `DELETE`, and to requests inside `CONTROL`
//! that leave something behind which outlives the connection. A request that failed before it was all there, or a data
//! request that failed, is not kept: nothing came of it that a repetition would do twice, because bytes that are written
//! again are the same bytes, and a word that was changed was answered. So what broke off is done again as a whole.
//!
//! **Identity.** What a data request is about is its lease, not the handle: after a reconnect the same right has another
//! one. Its bytes are told apart by their CRC32C, which nobody is deceived by but who made two requests with one number
//! and one checksum. Frames may be cut differently the second time.
//!
//! **How long.** [`EFFECTS_KEPT_MS`](policy::limits::EFFECTS_KEPT_MS) after the last connection of the client went, and
//! within bounds of clients and bytes, of one principal and of all, before that: where there is no room, the client that
//! has been away the longest is forgotten. Answers may hold tokens, and are erased when they go.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{ClientId, PrincipalKey, RequestId};
use caps::time::BootNanos;
use policy::limits::{
    EFFECTS_ANSWERS_MAX, EFFECTS_BYTES_MAX, EFFECTS_CLIENT_BYTES_MAX, EFFECTS_CLIENTS_MAX,
    EFFECTS_CLIENTS_PER_HOLDER_MAX, EFFECTS_CONNECTIONS_MAX, EFFECTS_HOLDER_BYTES_MAX, EFFECTS_KEPT_MS,
    EFFECTS_LOOK_MS_MAX,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::gate::answered::{Answered, Identity, Known};
use crate::gate::visitor::Visitor;

const KEPT_NS: u64 = EFFECTS_KEPT_MS * 1_000_000;

/// A client: the key that it has proven, and what it calls itself.
type Key = (PrincipalKey, ClientId);

/// What is known of all clients. One for a node.
pub(super) struct Effects {
    /// Guards the rows; held for a look or a change, and while a row's table is looked at.
    rows: Mutex<Rows>,
    /// Bytes of the answers in all tables.
    bytes: AtomicUsize,
    /// The counts of those of one holder each, for as long as one of its tables is there. Guarded for a look.
    counts: Mutex<HashMap<PrincipalKey, Weak<AtomicUsize>>>,
    /// Told when a row has come to have an end.
    changed: Arc<Notify>,
    boot: Box<dyn Fn() -> BootNanos + Send + Sync>,
}

/// The clients. Pure: the time is told.
#[derive(Default)]
struct Rows(HashMap<Key, Row>);

struct Row {
    table: Arc<Table>,
    connections: usize,
    /// When the last connection went, if none is there.
    away: Option<BootNanos>,
}

impl Row {
    /// Whether it may be forgotten: nobody is there, and nothing of it is under way.
    fn is_at_rest(&self) -> bool {
        self.connections == 0 && self.table.lock().under_way.is_empty()
    }
}

impl Rows {
    /// Drops what is over. When the next one will be.
    fn drop_due(&mut self, now: BootNanos) -> Option<BootNanos> {
        let end = |row: &Row| row.away.map(|away| BootNanos(away.0.saturating_add(KEPT_NS)));
        self.0.retain(|_, row| end(row).is_none_or(|end| end > now) || !row.is_at_rest());
        // One whose time is over and that is still at work is looked at again in a while.
        self.0.values().filter_map(end).map(|end| end.max(BootNanos(now.0.saturating_add(1)))).min()
    }

    /// Forgets the client among these that has been away the longest. Whether there was one.
    fn make_room(&mut self, among: impl Fn(&Key) -> bool) -> bool {
        let at_rest = self.0.iter().filter(|(key, row)| among(key) && row.is_at_rest());
        let oldest = at_rest.min_by_key(|(key, row)| (row.away, **key)).map(|(key, _)| *key);
        oldest.is_some_and(|key| self.0.remove(&key).is_some())
    }

    fn connect(
        &mut self,
        now: BootNanos,
        key: Key,
        table: impl FnOnce() -> Table,
    ) -> Result<(Arc<Table>, bool)> {
        self.drop_due(now);
        let busy = |detail| Err(Error::new(Code::Busy, detail));
        if let Some(row) = self.0.get_mut(&key) {
            if row.connections == EFFECTS_CONNECTIONS_MAX {
                return busy("the client has as many connections as it may");
            }
            (row.connections, row.away) = (row.connections + 1, None);
            return Ok((row.table.clone(), true));
        }
        let of_holder = |other: &Key| other.0 == key.0;
        if self.0.keys().filter(|other| of_holder(other)).count() == EFFECTS_CLIENTS_PER_HOLDER_MAX
            && !self.make_room(of_holder)
        {
            return busy("as many clients of this principal are connected as may be");
        }
        if self.0.len() == EFFECTS_CLIENTS_MAX && !self.make_room(|_| true) {
            return busy("as many clients are connected as may be");
        }
        let table = Arc::new(table());
        self.0.insert(key, Row { table: table.clone(), connections: 1, away: None });
        Ok((table, false))
    }

    fn disconnect(&mut self, now: BootNanos, key: Key) {
        if let Some(row) = self.0.get_mut(&key) {
            row.connections -= 1;
            row.away = (row.connections == 0).then_some(now);
        }
    }
}

impl Effects {
    /// Nothing is known yet. Its task ends rows by the clock `boot`, in the runtime that this is called in.
    pub(super) fn start(boot: impl Fn() -> BootNanos + Send + Sync + 'static) -> Arc<Self> {
        let effects = Arc::new(Self::new(boot));
        let (weak, changed) = (Arc::downgrade(&effects), effects.changed.clone());
        tokio::spawn(async move {
            loop {
                let Some(effects) = weak.upgrade() else { return };
                let now = (effects.boot)();
                let next = effects.lock().drop_due(now);
                drop(effects);
                match next {
                    None => changed.notified().await,
                    Some(next) => {
                        // Rounded up: waking before the end would find nothing due.
                        let left = Duration::from_micros(next.since(now).0 + 1);
                        let bound = Duration::from_millis(EFFECTS_LOOK_MS_MAX);
                        let _ = timeout(left.min(bound), changed.notified()).await; // either is a reason to look
                    }
                }
            }
        });
        effects
    }

    fn new(boot: impl Fn() -> BootNanos + Send + Sync + 'static) -> Self {
        Self {
            rows: Mutex::default(),
            bytes: AtomicUsize::new(0),
            counts: Mutex::default(),
            changed: Arc::default(),
            boot: Box::new(boot),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a client, for one connection of it. `holder` is the key that the connection has proven.
    ///
    /// # Errors
    /// `E_BUSY` if the client, its principal or the node has as many as it may.
    pub(super) fn connect(self: &Arc<Self>, holder: PrincipalKey, client: ClientId) -> Result<Connected> {
        let (key, home) = ((holder, client), self.home_of(holder));
        let (table, known) = self.lock().connect((self.boot)(), key, || Table {
            state: Mutex::new(State::bounded(EFFECTS_ANSWERS_MAX, EFFECTS_CLIENT_BYTES_MAX)),
            home: Some(home),
        })?;
        Ok(Connected { table, known, left: Some((self.clone(), key)) })
    }

    /// What is known of a connection of this holder that has not said which client it is: within the bounds of a local
    /// session, counted with the rest, and gone with it.
    pub(super) fn alone(self: &Arc<Self>, holder: PrincipalKey) -> Connected {
        let state = State { answered: Answered::default(), under_way: HashSet::new() };
        let table = Table { state: Mutex::new(state), home: Some(self.home_of(holder)) };
        Connected { table: Arc::new(table), known: false, left: None }
    }

    /// Where a table of this holder's is counted: with all of its others.
    fn home_of(self: &Arc<Self>, holder: PrincipalKey) -> Home {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.get(&holder).and_then(Weak::upgrade);
        let bytes = known.unwrap_or_else(|| {
            counts.retain(|_, count| count.strong_count() > 0);
            let bytes = Arc::default();
            counts.insert(holder, Arc::downgrade(&bytes));
            bytes
        });
        Home { effects: Arc::downgrade(self), holder, bytes }
    }

    /// Counts `bytes` of a holder's in, if there is room or some can be made.
    fn reserve(&self, bytes: usize, home: &Home) -> bool {
        let own = |key: &Key| key.0 == home.holder;
        if !self.count(bytes, &home.bytes, EFFECTS_HOLDER_BYTES_MAX, own) {
            return false;
        }
        let fits = self.count(bytes, &self.bytes, EFFECTS_BYTES_MAX, |_| true);
        if !fits {
            home.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Counts `bytes` in, if that makes at most `most`. Clients `among` those of the count are forgotten for it.
    fn count(&self, bytes: usize, count: &AtomicUsize, most: usize, among: impl Fn(&Key) -> bool) -> bool {
        loop {
            let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= most);
            if count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
                return true;
            }
            if !self.lock().make_room(&among) {
                return false;
            }
        }
    }

    fn release(&self, bytes: usize, home: &Home) {
        for count in [&self.bytes, &*home.bytes] {
            let before = count.fetch_sub(bytes, Ordering::Relaxed);
            debug_assert!(before >= bytes, "what is released was reserved");
        }
    }
}

impl Visitor {
    /// Answers `Resume`: what is known of the client that it says it is. It takes the place of what the connection had, so
    /// it is asked for before anything else is.
    ///
    /// # Errors
    /// Those of [`Effects::connect`].
    pub(super) fn resume(&self, effects: &Arc<Effects>, client: ClientId) -> Result<Connected> {
        effects.connect(self.opener.proven.holder(), client)
    }
}

/// One connection's hold on what is known of its client.
pub(super) struct Connected {
    table: Arc<Table>,
    /// Whether the table was there before this connection.
    known: bool,
    /// Whom to tell that it went; `None` where nobody else can know the client.
    left: Option<(Arc<Effects>, Key)>,
}

impl Connected {
    /// For a trial with one connection: counted nowhere.
    pub(super) fn alone() -> Self {
        let table = Table {
            state: Mutex::new(State { answered: Answered::default(), under_way: HashSet::new() }),
            home: None,
        };
        Self { table: Arc::new(table), known: false, left: None }
    }

    /// Whether what the client was answered over other connections is still known.
    pub(super) const fn is_known(&self) -> bool {
        self.known
    }

    /// Whether a request with this number was answered, or is under way.
    pub(super) fn has(&self, id: RequestId) -> bool {
        let state = self.table.lock();
        state.answered.knows(id) || state.under_way.contains(&id)
    }

    /// What becomes of a changing request with this number.
    ///
    /// # Errors
    /// `E_BUSY` if the same number is under way, on whatever connection: to be asked again.
    pub(super) fn begin(&self, id: RequestId) -> Result<Begun> {
        let mut state = self.table.lock();
        if state.answered.knows(id) {
            return Ok(Begun::Answered);
        }
        if !state.under_way.insert(id) {
            return Err(Error::new(Code::Busy, "the request is being worked on; ask again"));
        }
        drop(state);
        let mark = Mark { table: self.table.clone(), id, answered: AtomicBool::new(false) };
        Ok(Begun::New(UnderWay(Arc::new(mark))))
    }

    /// The frames that a request was answered with, once all of it is here and says what it is; `None` for one that only
    /// reads, whose number must be nobody else's.
    ///
    /// # Errors
    /// `E_FRAME_DUP` if the number is that of another request; `E_UNCERTAIN` if the answer is not kept any more: what was
    /// asked for was done, or refused.
    pub(super) fn again(&self, id: RequestId, identity: Option<Identity>) -> Result<Zeroizing<Vec<u8>>> {
        match self.table.lock().answered.find(id, identity) {
            Known::Answered(frames) => Ok(Zeroizing::new(frames.to_vec())),
            Known::Other => {
                Err(Error::new(Code::FrameDuplicate, "the number is that of another request of this client"))
            }
            // It was there when its first frame came, and made room for others since.
            Known::NotRepeatable | Known::New => Err(Error::new(
                Code::Uncertain,
                "the request was answered, and its answer is not kept any more",
            )),
        }
    }

    /// Refuses a number of a request that only reads, if it is that of a changing one.
    ///
    /// # Errors
    /// `E_FRAME_DUP`.
    pub(super) fn refuse_known(&self, id: RequestId) -> Result<()> {
        if self.has(id) {
            return Err(Error::new(
                Code::FrameDuplicate,
                "the number is that of another request of this client",
            ));
        }
        Ok(())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some((effects, key)) = self.left.take() {
            let now = (effects.boot)();
            effects.lock().disconnect(now, key);
            effects.changed.notify_one();
        }
    }
}

/// What becomes of a request.
pub(super) enum Begun {
    /// It is done, and was not before.
    New(UnderWay),
    /// It was answered, or is another request with the number of one that was: [`Connected::again`] says which, once the
    /// rest of it is here.
    Answered,
}

/// What is known of one client.
pub(super) struct Table {
    /// Held for a look or a change.
    state: Mutex<State>,
    /// Where its bytes are counted.
    home: Option<Home>,
}

/// Where the bytes of a client's answers are counted.
struct Home {
    effects: Weak<Effects>,
    holder: PrincipalKey,
    /// Those of all clients of this holder.
    bytes: Arc<AtomicUsize>,
}

struct State {
    answered: Answered,
    under_way: HashSet<RequestId>,
}

impl State {
    fn bounded(answers: usize, bytes: usize) -> Self {
        Self { answered: Answered::bounded(answers, bytes), under_way: HashSet::new() }
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self) -> Option<(Arc<Effects>, &Home)> {
        self.home.as_ref().and_then(|home| Some((home.effects.upgrade()?, home)))
    }

    fn keep(&self, id: RequestId, identity: Identity, frames: &[u8]) {
        let home = self.home();
        if let Some((effects, home)) = &home {
            // Its own oldest answers go before anybody else's.
            let mut state = self.lock();
            let before = state.answered.bytes();
            state.answered.make_room(frames.len());
            effects.release(before - state.answered.bytes(), home);
        }
        // Without the table's lock: making room looks at tables under the rows' lock.
        let has_room = home.as_ref().is_none_or(|(effects, home)| effects.reserve(frames.len(), home));
        let mut state = self.lock();
        let before = state.answered.bytes();
        state.answered.keep(id, identity, has_room.then_some(frames));
        state.under_way.remove(&id);
        let after = state.answered.bytes();
        drop(state);
        if let Some((effects, home)) = home {
            let reserved = if has_room { frames.len() } else { 0 };
            effects.release(before + reserved - after, home);
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let bytes = self.lock().answered.bytes();
        if let Some((effects, home)) = self.home() {
            effects.release(bytes, home);
        }
    }
}

/// A changing request that is being worked on. Once every clone is dropped without an answer its number is nobody's
/// again: what broke off, and whatever it left is undone, is done again.
#[derive(Clone)]
pub(super) struct UnderWay(Arc<Mark>);

struct Mark {
    table: Arc<Table>,
    id: RequestId,
    /// Whether its answer is kept: the number is under way no more, and may be again, in somebody else's hands.
    answered: AtomicBool,
}

impl UnderWay {
    /// Keeps its answer: whole frames. Before they are sent, since whoever asks again may do so because sending failed.
    pub(super) fn answered(&self, identity: Identity, frames: &[u8]) {
        self.0.answered.store(true, Ordering::Relaxed);
        self.0.table.keep(self.0.id, identity, frames);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if !*self.answered.get_mut() {
            self.table.lock().under_way.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests;
