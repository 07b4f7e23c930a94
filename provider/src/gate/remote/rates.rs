//! How many handshakes a network may have begun in a time: each costs the node a signature before anything is known of who
//! asks for it.
//!
//! A bucket of tokens for each network, kept as the one time at which it would be full again (the virtual scheduling of
//! ATM's cell rates). A token is taken when a ClientHello has come and before it is looked at: who only connects takes none
//! from its neighbours. Who finds the bucket empty waits for its token while that is not for long, as one of those whose
//! session has not begun, of which there is a bound for all networks together; more are hung up on. So what a network does
//! to the node is bounded, however many of its connections it begins, and other networks have buckets of their own.
//!
//! Pure: time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use audit::rejects::Source;
use caps::error::{Code, Error, Result};
use policy::limits::{
    REMOTE_HANDSHAKE_WAIT_MS_MAX, REMOTE_HANDSHAKES_BURST, REMOTE_HANDSHAKES_PER_S, REMOTE_RATED_NETWORKS_MAX,
};

/// In which time one handshake is earned.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / REMOTE_HANDSHAKES_PER_S as u64);
/// For how much longer than now a bucket may lack tokens while there is one for who comes now.
const SLACK: Duration =
    Duration::from_nanos(INTERVAL.as_nanos() as u64 * (REMOTE_HANDSHAKES_BURST as u64 - 1));

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When the bucket of a network is full again. One that is not here is full.
    full_at: HashMap<Source, Instant>,
}

impl Rates {
    /// Takes a token, and says how long it is until that is there.
    ///
    /// # Errors
    /// `E_BUSY` if it would take too long; then none is taken.
    pub(super) fn take(&mut self, source: Source, now: Instant) -> Result<Duration> {
        let source = self.row(source, now);
        let full_at = self.full_at.get(&source).map_or(now, |&at| at.max(now));
        let wait = full_at.saturating_duration_since(now).saturating_sub(SLACK);
        if wait > Duration::from_millis(REMOTE_HANDSHAKE_WAIT_MS_MAX) {
            return Err(Error::new(Code::Busy, "the network begins more handshakes than the node takes"));
        }
        self.full_at.insert(source, full_at + INTERVAL);
        Ok(wait)
    }

    /// With whom a network is counted: by itself, while there is room for a row of its own.
    fn row(&mut self, source: Source, now: Instant) -> Source {
        if self.full_at.contains_key(&source) || self.full_at.len() < REMOTE_RATED_NETWORKS_MAX {
            return source;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        // One row more, for all of these together.
        if self.full_at.len() < REMOTE_RATED_NETWORKS_MAX { source } else { Source::Other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Source = Source::Net4([192, 0, 2]);
    const THERE: Source = Source::Net4([198, 51, 100]);

    /// Takes until it is refused; how long each had to wait.
    fn all(rates: &mut Rates, source: Source, now: Instant) -> Vec<Duration> {
        std::iter::from_fn(|| rates.take(source, now).ok()).collect()
    }

    #[test]
    fn a_burst_is_taken_at_once_and_more_in_its_time() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let waits = all(&mut rates, HERE, now);
        let waiting = (REMOTE_HANDSHAKES_PER_S as u64 * REMOTE_HANDSHAKE_WAIT_MS_MAX / 1_000) as usize;
        assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), REMOTE_HANDSHAKES_BURST as usize);
        assert_eq!(waits.len(), REMOTE_HANDSHAKES_BURST as usize + waiting);
        assert!(waits.is_sorted());
        assert_eq!(*waits.last().unwrap(), INTERVAL * waiting as u32);
        assert_eq!(rates.take(HERE, now).unwrap_err().code(), Code::Busy);
        assert_eq!(rates.take(THERE, now), Ok(Duration::ZERO), "another network has a bucket of its own");
        // One is earned at a time, and all of them in the end.
        assert!(rates.take(HERE, now + INTERVAL).is_ok());
        assert!(rates.take(HERE, now + INTERVAL).is_err());
        let later = now + Duration::from_secs(60);
        assert_eq!(all(&mut rates, HERE, later).len(), waits.len());
    }

    #[test]
    fn networks_beyond_the_table_share_a_bucket_until_there_is_room() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let network = |n: usize| {
            let [a, b, ..] = n.to_le_bytes();
            Source::Net4([10, a, b])
        };
        for n in 0..REMOTE_RATED_NETWORKS_MAX {
            assert_eq!(rates.take(network(n), now), Ok(Duration::ZERO));
        }
        all(&mut rates, network(REMOTE_RATED_NETWORKS_MAX), now);
        assert!(rates.take(network(REMOTE_RATED_NETWORKS_MAX + 1), now).is_err(), "they share one");
        assert_eq!(rates.take(network(0), now), Ok(Duration::ZERO), "those that have a row keep it");
        assert_eq!(rates.full_at.len(), REMOTE_RATED_NETWORKS_MAX + 1);
        let later = now + INTERVAL * 2;
        assert_eq!(rates.take(network(REMOTE_RATED_NETWORKS_MAX + 1), later), Ok(Duration::ZERO));
        assert!(rates.full_at.len() < REMOTE_RATED_NETWORKS_MAX, "buckets that are full need no row");
    }
}
