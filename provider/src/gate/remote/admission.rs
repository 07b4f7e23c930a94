//! How many connections there may be, and whose.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use audit::rejects::Source;
use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use policy::limits::{REMOTE_GREETINGS_MAX, REMOTE_REFUSALS_MAX, REMOTE_SESSIONS_PER_PRINCIPAL_MAX};
use tokio::sync::Notify;

use super::rates::Rates;

/// The places of one gate.
#[derive(Debug)]
pub(super) struct Admission {
    most: usize,
    most_of_one: usize,
    /// Guards the counts; held for an addition.
    taken: Mutex<Taken>,
    /// Connections whose session has not begun.
    greetings: AtomicUsize,
    /// Told when there is one greeting less.
    eased: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<Source, usize>,
    /// Sessions, by the key that was proven.
    of: HashMap<PrincipalKey, usize>,
    /// Connections beyond these, which are only told so.
    refused: usize,
    /// Handshakes, by network.
    rates: Rates,
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its place.
    pub(super) seat: Seat,
    /// Why it is to be refused, once it can be told.
    pub(super) refused: Option<Error>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    admission: Arc<Admission>,
    source: Source,
    /// Whether it is beyond the bounds, and there to be told so.
    beyond: bool,
    /// Whose session it is, once one has begun.
    holder: Option<PrincipalKey>,
    /// Whether its session has not begun.
    greeting: bool,
}

const FULL: Error = Error::new(Code::Busy, "the node has its most connections");

impl Admission {
    pub(super) fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_one,
            taken: Mutex::default(),
            greetings: AtomicUsize::new(0),
            eased: Notify::new(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection.
    ///
    /// # Errors
    /// `E_BUSY` if there is not even room to tell it.
    pub(super) fn admit(self: &Arc<Self>, source: Source) -> Result<Admitted> {
        let mut taken = self.taken();
        let own = taken.by.get(&source).copied().unwrap_or(0);
        let beyond = taken.all >= self.most || own >= self.most_of_one;
        if beyond && taken.refused >= REMOTE_REFUSALS_MAX {
            return Err(FULL);
        }
        if beyond {
            taken.refused += 1;
        } else {
            taken.all += 1;
            taken.by.insert(source, own + 1);
        }
        self.greetings.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { admission: self.clone(), source, beyond, holder: None, greeting: true };
        Ok(Admitted { seat, refused: beyond.then_some(FULL) })
    }

    /// Whether as many sessions are beginning as may.
    pub(super) fn is_crowded(&self) -> bool {
        self.greetings.load(Ordering::Relaxed) >= REMOTE_GREETINGS_MAX
    }

    /// Waits until one fewer is.
    pub(super) async fn eased(&self) {
        self.eased.notified().await;
    }
}

impl Seat {
    /// Its client asks for a handshake `now`: how long that has to wait.
    ///
    /// # Errors
    /// `E_BUSY` if its network asks for too many.
    pub(super) fn handshake(&self, now: Instant) -> Result<Duration> {
        self.admission.taken().rates.take(self.source, now)
    }

    /// Its session has begun.
    pub(super) fn greeted(&mut self) {
        if std::mem::take(&mut self.greeting) {
            self.admission.greetings.fetch_sub(1, Ordering::Relaxed);
            self.admission.eased.notify_one();
        }
    }

    /// Counts it as a session of this key. One principal may have certificates and addresses in many networks.
    ///
    /// # Errors
    /// `E_BUSY` if the principal has its most.
    pub(super) fn take_for(&mut self, holder: PrincipalKey) -> Result<()> {
        let mut taken = self.admission.taken();
        let own = taken.of.entry(holder).or_default();
        if *own >= self.admission.most_of_one.min(REMOTE_SESSIONS_PER_PRINCIPAL_MAX) {
            return Err(Error::new(Code::Busy, "the principal has its most sessions over TLS"));
        }
        *own += 1;
        self.holder = Some(holder);
        Ok(())
    }

    /// With whom it is counted.
    pub(super) const fn source(&self) -> Source {
        self.source
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.greeted();
        let mut taken = self.admission.taken();
        if let Some(holder) = self.holder
            && let Some(own) = taken.of.get_mut(&holder)
        {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&holder);
            }
        }
        if self.beyond {
            taken.refused -= 1;
            return;
        }
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Source = Source::Net4([10, 0, 0]);
    const THERE: Source = Source::Net4([10, 0, 1]);

    /// Lets one in: why it is refused.
    fn admit(admission: &Arc<Admission>, source: Source) -> Result<(Seat, Option<Error>)> {
        let Admitted { seat, refused } = admission.admit(source)?;
        Ok((seat, refused))
    }

    #[test]
    fn one_network_leaves_room_for_others_and_who_is_refused_is_told() {
        let admission = Admission::new(4, 3);
        let mut seats: Vec<_> = (0..3)
            .map(|_| {
                let (seat, refused) = admit(&admission, HERE).unwrap();
                assert_eq!(refused, None);
                seat
            })
            .collect();
        assert_eq!(admit(&admission, HERE).unwrap().1, Some(FULL));
        let (there, refused) = admit(&admission, THERE).unwrap();
        assert_eq!(refused, None, "the last place is another network's");
        assert_eq!(admit(&admission, THERE).unwrap().1, Some(FULL), "the node is full");
        drop(there);
        seats.pop();
        assert_eq!(admit(&admission, HERE).unwrap().1, None, "a place that was given back");
        drop(seats);
        assert!(admission.taken().by.is_empty());
        assert_eq!(admission.taken().all, 0);
    }

    #[test]
    fn one_principal_leaves_room_for_others_wherever_it_comes_from() {
        let admission = Admission::new(8, 2);
        let (one, other) = (PrincipalKey([1; 32]), PrincipalKey([2; 32]));
        let seat = |net| admit(&admission, Source::Net4([10, 0, net])).unwrap().0;
        let mut seats: Vec<_> = (0..3).map(seat).collect();
        assert_eq!(seats[0].take_for(one), Ok(()));
        assert_eq!(seats[1].take_for(one), Ok(()));
        assert_eq!(seats[2].take_for(one).map_err(|error| error.code()), Err(Code::Busy));
        assert_eq!(seats[2].take_for(other), Ok(()));
        seats.remove(0);
        assert_eq!(seat(9).take_for(one), Ok(()), "a place that was given back");
        drop(seats);
        assert!(admission.taken().of.is_empty());
    }

    #[test]
    fn there_is_a_bound_on_telling_too() {
        let admission = Admission::new(1, 1);
        let _in = admit(&admission, HERE).unwrap();
        let told: Vec<_> = (0..REMOTE_REFUSALS_MAX).map(|_| admit(&admission, HERE).unwrap()).collect();
        assert_eq!(admit(&admission, THERE).unwrap_err().code(), Code::Busy);
        drop(told);
        assert_eq!(admit(&admission, THERE).unwrap().1, Some(FULL));
    }

    #[tokio::test]
    async fn a_greeting_is_over_once_and_whoever_waits_is_told() {
        let admission = Admission::new(usize::MAX, usize::MAX);
        let mut seats: Vec<_> =
            (1..REMOTE_GREETINGS_MAX).map(|_| admit(&admission, HERE).unwrap().0).collect();
        assert!(!admission.is_crowded());
        seats.push(admit(&admission, THERE).unwrap().0);
        assert!(admission.is_crowded());
        seats[0].greeted();
        seats[0].greeted();
        admission.eased().await;
        assert!(!admission.is_crowded());
        drop(seats);
        assert_eq!(admission.greetings.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_asks_for_no_handshake_takes_none_from_its_neighbours() {
        let admission = Admission::new(usize::MAX, usize::MAX);
        let now = Instant::now();
        let silent: Vec<_> =
            (0..4 * REMOTE_GREETINGS_MAX).map(|_| admit(&admission, HERE).unwrap().0).collect();
        let (asks, _) = admit(&admission, HERE).unwrap();
        assert_eq!(asks.handshake(now), Ok(Duration::ZERO), "the first that asks");
        while silent[0].handshake(now).is_ok() {}
        assert_eq!(asks.handshake(now).unwrap_err().code(), Code::Busy);
        assert_eq!(admit(&admission, THERE).unwrap().0.handshake(now), Ok(Duration::ZERO));
    }
}
