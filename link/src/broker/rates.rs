//! How many of one address may come to the door in a time: each costs the broker a handshake before anything is known of who
//! it is, however short it stays.
//!
//! A bucket of tokens for each address, kept as the one time at which it would be full again. Pure: time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use policy::limits::{LINK_GREETINGS_BURST, LINK_GREETINGS_PER_S, LINK_RATED_ADDRESSES_MAX};

/// In which time one is earned.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / LINK_GREETINGS_PER_S as u64);
/// For how much longer than now a bucket may lack tokens while there is one for who comes now.
const SLACK: Duration = Duration::from_nanos(INTERVAL.as_nanos() as u64 * (LINK_GREETINGS_BURST as u64 - 1));

/// The buckets.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When the bucket of an address is full again; `None`: that of all for which there is no room. One that is not here is
    /// full.
    full_at: HashMap<Option<IpAddr>, Instant>,
}

impl Rates {
    /// Takes a token; `false` if there is none.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let row = self.row(address, now);
        let full_at = self.full_at.get(&row).map_or(now, |&at| at.max(now));
        let there = full_at.saturating_duration_since(now) <= SLACK;
        if there {
            self.full_at.insert(row, full_at + INTERVAL);
        }
        there
    }

    /// With whom an address is counted: by itself, while there is room for a row of its own.
    fn row(&mut self, address: IpAddr, now: Instant) -> Option<IpAddr> {
        let own = Some(address);
        if self.full_at.contains_key(&own) || self.full_at.len() < LINK_RATED_ADDRESSES_MAX {
            return own;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        // One row more, for all of these together.
        if self.full_at.len() < LINK_RATED_ADDRESSES_MAX { own } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_those_beyond_share_a_row() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        for n in 0..2 * LINK_RATED_ADDRESSES_MAX as u32 {
            let took = rates.take(IpAddr::from(n.to_be_bytes()), now);
            let beyond = (n as usize).saturating_sub(LINK_RATED_ADDRESSES_MAX);
            assert_eq!(took, beyond < LINK_GREETINGS_BURST as usize, "{n}");
        }
        assert_eq!(rates.full_at.len(), LINK_RATED_ADDRESSES_MAX + 1);
        assert!(rates.take(IpAddr::from([0, 0, 0, 1]), now), "who has a row is left alone");
        let later = now + Duration::from_secs(60);
        assert!(rates.take(IpAddr::from([99; 4]), later), "and rows of who was quiet are free");
        assert_eq!(rates.full_at.len(), 1);
    }
}
