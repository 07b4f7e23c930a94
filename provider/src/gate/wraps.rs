//! Tokens that wait in the node to be fetched once, and who fetched them.
//!
//! ```text
//!            put            take            fetched
//!  (no row) ─────▶ waiting ──────▶ leaving ─────────▶ fetched ──▶ (no row)
//!                     │  ▲            │                              ▲ deadline, of any state
//!                     │  └────────────┘ stay: it could not be recorded
//!                     └───────────────────────────────────────────────┘
//! ```
//! The token's bytes are in the table only while it waits, and erase themselves when they leave it. That it was fetched,
//! by whom and when, stays until the row's end, so that whoever comes second is told so: that is how a thief is seen.
//!
//! Rows end by a deadline: a task waits for the next one ([`Wraps::start`]), and nobody needs to ask for a row to make it
//! go. Deadlines are on `CLOCK_BOOTTIME`. What outlived its own because the machine slept is refused all the same, and
//! erased within [`WRAP_LOOK_MS_MAX`] of waking.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use audit::salt::TokenHmac;
use caps::error::{Code, Error, Result};
use caps::id::{GrantId, LeaseId, PrincipalKey};
use caps::time::{BootNanos, UnixMicros};
use caps::token::Token;
use caps::wire::wrap::{Fetched, WrapId, WrapRow};
use policy::limits::{WRAP_LOOK_MS_MAX, WRAPS_MAX, WRAPS_PER_HOLDER_MAX, WRAPS_PER_WRAPPER_MAX};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What is known of a wrapped token, besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Who put it in.
    pub(super) by: PrincipalKey,
    /// Who alone may fetch it.
    pub(super) to: Option<PrincipalKey>,
    /// The first holder of the token, whom the broker made it for. Keys of delegates can be drawn at will, and these
    /// cannot.
    pub(super) payer: PrincipalKey,
    /// The lease that the token is of.
    pub(super) lease: LeaseId,
    /// The grant, if it is of one.
    pub(super) grant: Option<GrantId>,
    /// Names the token in the log.
    pub(super) hmac: TokenHmac,
    /// When it was put in.
    pub(super) since: UnixMicros,
    /// When the row ends.
    pub(super) until: BootNanos,
}

/// Why a token was not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such row.
    Unknown,
    /// It is for somebody else.
    Foreign(Box<About>),
    /// Somebody has it.
    Again(Box<About>, Fetched),
    /// Somebody is being given it, which is not on record yet.
    Leaving,
}

enum State {
    Waiting(Token),
    /// With the fetch that records it.
    Leaving,
    Fetched(Fetched),
}

struct Row {
    about: About,
    state: State,
    refused: u32,
}

/// The rows. Pure but for the ids that it draws: the time is told.
#[derive(Default)]
struct Table {
    rows: HashMap<WrapId, Row>,
    /// The gate is gone: nothing comes in any more.
    closed: bool,
}

impl Table {
    fn put(&mut self, now: BootNanos, about: About, token: Token) -> Result<WrapId> {
        self.drop_due(now);
        if self.closed {
            return Err(Error::new(Code::Unreachable, "the node is stopping"));
        }
        if self.rows.len() >= WRAPS_MAX {
            return Err(Error::new(Code::Busy, "as many tokens are wrapped at this node as may be"));
        }
        let count = |is: &dyn Fn(&About) -> bool| self.rows.values().filter(|row| is(&row.about)).count();
        // Its delegates share what is beside a first holder's own: none of them can use that up.
        let delegates = |other: &About| other.payer == about.payer && other.by != other.payer;
        let delegates_max = WRAPS_PER_HOLDER_MAX - WRAPS_PER_WRAPPER_MAX;
        if count(&|other| other.by == about.by) >= WRAPS_PER_WRAPPER_MAX
            || about.by != about.payer && count(&delegates) >= delegates_max
        {
            return Err(Error::new(
                Code::Quota,
                "as many tokens of this holder are wrapped as may be; each counts until its time is over",
            ));
        }
        let id = WrapId::random();
        self.rows.insert(id, Row { about, state: State::Waiting(token), refused: 0 });
        Ok(id)
    }

    fn take(&mut self, now: BootNanos, id: WrapId, who: PrincipalKey) -> Result<(Token, About), Refusal> {
        let row = self.live(now, id).ok_or(Refusal::Unknown)?;
        let about = row.about;
        if about.to.is_some_and(|to| to != who) {
            row.refused = row.refused.saturating_add(1);
            return Err(Refusal::Foreign(Box::new(about)));
        }
        match std::mem::replace(&mut row.state, State::Leaving) {
            State::Waiting(token) => Ok((token, about)),
            State::Leaving => Err(Refusal::Leaving),
            State::Fetched(first) => {
                row.state = State::Fetched(first);
                row.refused = row.refused.saturating_add(1);
                Err(Refusal::Again(Box::new(about), first))
            }
        }
    }

    fn show(&mut self, now: BootNanos, id: WrapId) -> Option<WrapRow> {
        let row = self.live(now, id)?;
        let About { by, to, lease, since, until, .. } = row.about;
        let fetched = if let State::Fetched(first) = row.state { Some(first) } else { None };
        Some(WrapRow { by, to, lease, since, expires_in: until.since(now), fetched, refused: row.refused })
    }

    /// A row whose time is not over, dropped or not.
    fn live(&mut self, now: BootNanos, id: WrapId) -> Option<&mut Row> {
        self.rows.get_mut(&id).filter(|row| row.about.until > now)
    }

    /// Ends what is due. The next deadline, if there is one.
    fn drop_due(&mut self, now: BootNanos) -> Option<BootNanos> {
        self.rows.retain(|_, row| row.about.until > now);
        self.rows.values().map(|row| row.about.until).min()
    }
}

/// The table of a gate.
pub(super) struct Wraps {
    /// Guards the table; held for one look or change.
    table: Mutex<Table>,
    /// Told of a row that may end before all others, and of the end of all.
    changed: Arc<Notify>,
}

impl Wraps {
    /// An empty table, and the task that ends its rows by the clock `boot`.
    pub(super) fn start(boot: impl Fn() -> BootNanos + Send + 'static) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let wraps = Arc::new(Self { table: Mutex::default(), changed: changed.clone() });
        let weak = Arc::downgrade(&wraps);
        tokio::spawn(async move {
            loop {
                let Some(wraps) = weak.upgrade() else { return };
                let now = boot();
                let next = wraps.lock().drop_due(now);
                drop(wraps);
                match next {
                    None => changed.notified().await,
                    Some(next) => {
                        // Rounded up: waking before the deadline would find nothing due.
                        let left = Duration::from_micros(next.since(now).0 + 1);
                        let bound = Duration::from_millis(WRAP_LOOK_MS_MAX);
                        let _ = timeout(left.min(bound), changed.notified()).await; // either is a reason to look
                    }
                }
            }
        });
        wraps
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token in.
    ///
    /// # Errors
    /// `E_BUSY` if the table is full, `E_QUOTA` if the share of who wraps or of the token's first holder is,
    /// `E_UNREACHABLE` once the gate is closed.
    pub(super) fn put(&self, now: BootNanos, about: About, token: Token) -> Result<WrapId> {
        let id = self.lock().put(now, about, token)?;
        self.changed.notify_one();
        Ok(id)
    }

    /// Forgets a token that could not be recorded.
    pub(super) fn forget(&self, id: WrapId) {
        self.lock().rows.remove(&id);
    }

    /// Takes a token out for `who`. What follows is [`Self::fetched`] or [`Self::stay`].
    pub(super) fn take(
        &self,
        now: BootNanos,
        id: WrapId,
        who: PrincipalKey,
    ) -> Result<(Token, About), Refusal> {
        self.lock().take(now, id, who)
    }

    /// It is on record who has it.
    pub(super) fn fetched(&self, id: WrapId, fetched: Fetched) {
        if let Some(row) = self.lock().rows.get_mut(&id) {
            row.state = State::Fetched(fetched);
        }
    }

    /// Nobody was given it after all. If its time is over meanwhile, the bytes erase themselves here.
    pub(super) fn stay(&self, id: WrapId, token: Token) {
        if let Some(row) = self.lock().rows.get_mut(&id) {
            row.state = State::Waiting(token);
        }
    }

    /// What is known of a row.
    pub(super) fn show(&self, now: BootNanos, id: WrapId) -> Option<WrapRow> {
        self.lock().show(now, id)
    }

    /// Erases everything and takes nothing in any more: the gate closes, and sessions that still run have a hold on
    /// this.
    pub(super) fn close(&self) {
        let mut table = self.lock();
        table.closed = true;
        table.rows.clear();
    }
}

impl Drop for Wraps {
    fn drop(&mut self) {
        self.changed.notify_one(); // the task finds the table gone
    }
}

#[cfg(test)]
mod tests {
    use audit::salt::Salt;
    use caps::time::Micros;

    use super::*;

    const KEYS: [PrincipalKey; 3] = [PrincipalKey([1; 32]), PrincipalKey([2; 32]), PrincipalKey([3; 32])];
    const NOW: BootNanos = BootNanos(1_000_000_000);
    const SOON: BootNanos = BootNanos(2_000_000_000);

    fn token() -> Token {
        Token::from_bytes(vec![7; 100]).unwrap()
    }

    fn about(by: PrincipalKey, to: Option<PrincipalKey>) -> About {
        About {
            by,
            to,
            payer: by,
            lease: LeaseId([9; 16]),
            grant: None,
            hmac: Salt::new(&[4; 32]).token(token().as_bytes()),
            since: UnixMicros(5),
            until: SOON,
        }
    }

    /// Whether the table has the bytes of a row's token.
    fn holds(table: &Table, id: WrapId) -> bool {
        table.rows.get(&id).is_some_and(|row| matches!(row.state, State::Waiting(_)))
    }

    #[test]
    fn a_token_is_given_once_and_its_bytes_are_gone_with_it() {
        let [alice, bob, mallory] = KEYS;
        let wraps = Wraps { table: Mutex::default(), changed: Arc::default() };
        let id = wraps.put(NOW, about(alice, None), token()).unwrap();
        assert!(holds(&wraps.lock(), id));
        let (given, _) = wraps.take(NOW, id, mallory).unwrap();
        assert_eq!(given, token());
        assert!(!holds(&wraps.lock(), id), "who fetches it has the only copy");
        // Two at one time: the second is not told of a fetch that may yet fail.
        assert_eq!(wraps.take(NOW, id, bob).unwrap_err(), Refusal::Leaving);
        let first = Fetched { by: mallory, at: UnixMicros(6) };
        wraps.fetched(id, first);
        for who in [bob, mallory, alice] {
            assert_eq!(
                wraps.take(NOW, id, who).unwrap_err(),
                Refusal::Again(Box::new(about(alice, None)), first)
            );
        }
        let row = wraps.show(NOW, id).unwrap();
        assert_eq!((row.fetched, row.refused, row.expires_in), (Some(first), 3, Micros(1_000_000)));
    }

    #[test]
    fn what_could_not_be_recorded_can_be_fetched_again() {
        let [alice, bob, _] = KEYS;
        let wraps = Wraps { table: Mutex::default(), changed: Arc::default() };
        let id = wraps.put(NOW, about(alice, Some(bob)), token()).unwrap();
        let (given, _) = wraps.take(NOW, id, bob).unwrap();
        wraps.stay(id, given);
        assert_eq!(wraps.show(NOW, id).unwrap().fetched, None);
        assert_eq!(wraps.take(NOW, id, bob).unwrap().0, token());
        // And one whose time was over meanwhile does not come back.
        wraps.lock().drop_due(SOON);
        wraps.stay(id, token());
        assert!(wraps.lock().rows.is_empty());
    }

    #[test]
    fn somebody_else_is_refused_and_takes_nothing() {
        let [alice, bob, mallory] = KEYS;
        let mut table = Table::default();
        let id = table.put(NOW, about(alice, Some(bob)), token()).unwrap();
        for who in [mallory, alice] {
            assert_eq!(
                table.take(NOW, id, who).unwrap_err(),
                Refusal::Foreign(Box::new(about(alice, Some(bob))))
            );
        }
        assert_eq!(table.show(NOW, id).unwrap().refused, 2);
        assert_eq!(table.take(NOW, WrapId::random(), bob).unwrap_err(), Refusal::Unknown);
        assert_eq!(table.take(NOW, id, bob).unwrap().0, token());
        // Not even that it was fetched.
        assert_eq!(
            table.take(NOW, id, mallory).unwrap_err(),
            Refusal::Foreign(Box::new(about(alice, Some(bob))))
        );
    }

    #[test]
    fn a_row_ends_at_its_deadline_whatever_became_of_it() {
        let [alice, bob, _] = KEYS;
        let mut table = Table::default();
        let early = About { until: BootNanos(SOON.0 - 1), ..about(alice, None) };
        let ids =
            [table.put(NOW, early, token()).unwrap(), table.put(NOW, about(alice, None), token()).unwrap()];
        assert_eq!(table.drop_due(NOW), Some(early.until));
        assert_eq!(table.rows.len(), 2);
        // Due, and not dropped yet: as if it were.
        assert_eq!(table.take(early.until, ids[0], bob).unwrap_err(), Refusal::Unknown);
        assert!(table.show(early.until, ids[0]).is_none());
        assert_eq!(table.drop_due(early.until), Some(SOON));
        assert!(!holds(&table, ids[0]) && holds(&table, ids[1]));
        assert_eq!(table.drop_due(SOON), None);
        assert!(table.rows.is_empty());
    }

    #[test]
    fn one_client_cannot_take_the_room_of_others() {
        let [alice, bob, _] = KEYS;
        let mut table = Table::default();
        for _ in 0..WRAPS_PER_WRAPPER_MAX {
            table.put(NOW, about(alice, None), token()).unwrap();
        }
        assert_eq!(table.put(NOW, about(alice, None), token()).unwrap_err().code(), Code::Quota);
        // Nor with keys that it draws and delegates to: they are all of one first holder.
        let mut keys = 4..;
        let mut of_alice = || About { payer: alice, ..about(PrincipalKey([keys.next().unwrap(); 32]), None) };
        for _ in WRAPS_PER_WRAPPER_MAX..WRAPS_PER_HOLDER_MAX {
            table.put(NOW, of_alice(), token()).unwrap();
        }
        assert_eq!(table.put(NOW, of_alice(), token()).unwrap_err().code(), Code::Quota);
        // And they take nothing of the first holder's own.
        let mut other = Table::default();
        while other.put(NOW, of_alice(), token()).is_ok() {}
        for _ in 0..WRAPS_PER_WRAPPER_MAX {
            other.put(NOW, about(alice, None), token()).unwrap();
        }
        table.put(NOW, about(bob, None), token()).unwrap();
        // Once their time is over there is room again.
        assert!(table.put(SOON, About { until: BootNanos(u64::MAX), ..about(alice, None) }, token()).is_ok());
        assert_eq!(table.rows.len(), 1);
    }

    #[test]
    fn the_table_has_its_bound() {
        let mut table = Table::default();
        let by = |n: usize| PrincipalKey(std::array::from_fn(|i| (n >> (8 * i.min(7))) as u8));
        for n in 0..WRAPS_MAX {
            table.put(NOW, about(by(n), None), token()).unwrap();
        }
        assert_eq!(table.put(NOW, about(by(WRAPS_MAX), None), token()).unwrap_err().code(), Code::Busy);
        assert_eq!(table.rows.len(), WRAPS_MAX);
    }

    #[tokio::test]
    async fn nobody_has_to_ask_for_a_row_to_make_it_go() {
        let began = std::time::Instant::now();
        let boot = move || BootNanos(began.elapsed().as_nanos() as u64);
        let wraps = Wraps::start(boot);
        // The task waits for the later one when the earlier one comes.
        let until =
            |millis: u64| About { until: boot().plus(Micros::from_millis(millis)), ..about(KEYS[0], None) };
        wraps.put(boot(), until(WRAP_LOOK_MS_MAX), token()).unwrap();
        tokio::task::yield_now().await;
        wraps.put(boot(), until(20), token()).unwrap();
        let one_is_gone = async {
            while wraps.lock().rows.len() > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = Duration::from_millis(WRAP_LOOK_MS_MAX / 2);
        timeout(patience, one_is_gone).await.expect("it is erased at its deadline");
        assert_eq!(wraps.lock().rows.len(), 1, "and the other is not");
    }

    #[test]
    fn a_closed_table_is_empty_and_stays_so() {
        let wraps = Wraps { table: Mutex::default(), changed: Arc::default() };
        let id = wraps.put(NOW, about(KEYS[0], None), token()).unwrap();
        wraps.close();
        assert_eq!(wraps.take(NOW, id, KEYS[0]).unwrap_err(), Refusal::Unknown);
        assert_eq!(wraps.put(NOW, about(KEYS[0], None), token()).unwrap_err().code(), Code::Unreachable);
    }
}
