//! How many may be at the door: connections that have not said who they are, all of them and those of one address, and how
//! many of one address may come there in a time. An address is that of a network that one host has: all of an IPv4 one, of an
//! IPv6 one the first half.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use policy::limits::{LINK_GREETINGS_MAX, LINK_GREETINGS_PER_ADDRESS_MAX};

use super::rates::Rates;

/// The door.
#[derive(Default)]
pub(super) struct Door(Mutex<State>);

#[derive(Default)]
struct State {
    all: usize,
    /// At most as many entries as there are connections at the door.
    by_address: HashMap<IpAddr, usize>,
    rates: Rates,
}

/// One connection at the door, until it is dropped.
pub(super) struct AtDoor {
    door: Arc<Door>,
    address: IpAddr,
}

impl Door {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody comes from `address`; `None` if there are too many already, or too many of its address have come just now.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<AtDoor> {
        let address = network(address);
        let mut state = self.state();
        if state.all >= LINK_GREETINGS_MAX {
            return None;
        }
        let of_address = state.by_address.get(&address).copied().unwrap_or(0);
        if of_address >= LINK_GREETINGS_PER_ADDRESS_MAX {
            return None;
        }
        if !state.rates.take(address, now) {
            return None;
        }
        *state.by_address.entry(address).or_default() += 1;
        state.all += 1;
        drop(state);
        Some(AtDoor { door: Arc::clone(self), address })
    }
}

/// With whom an address is counted: who has one of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Drop for AtDoor {
    fn drop(&mut self) {
        let mut state = self.door.state();
        state.all -= 1;
        if let Some(of_address) = state.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::limits::{LINK_GREETINGS_BURST, LINK_GREETINGS_PER_S};

    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_all_of_them_have_a_bound() {
        let door = Arc::new(Door::default());
        let now = Instant::now();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut inside: Vec<_> =
            (0..LINK_GREETINGS_PER_ADDRESS_MAX).map(|_| door.enter(address(1), now).unwrap()).collect();
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert!(door.enter(address(1), now).is_none() && door.enter(mapped, now).is_none());
        for n in 0..(LINK_GREETINGS_MAX - LINK_GREETINGS_PER_ADDRESS_MAX) as u8 {
            inside.push(door.enter(address(2 + n), now).unwrap());
        }
        assert!(door.enter(address(200), now).is_none(), "full");
        inside.remove(0);
        inside.push(door.enter(address(1), now).unwrap());
        inside.clear();
        let state = door.state();
        assert_eq!((state.all, state.by_address.len()), (0, 0), "nothing is left behind");
    }

    #[test]
    fn an_address_that_comes_again_and_again_waits_and_others_do_not() {
        let (door, now) = (Arc::new(Door::default()), Instant::now());
        let here = |host: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, host]);
        let there = IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]);
        // None of them stays, and each has an address of its own.
        let come = |now: Instant| (0..).take_while(|host| door.enter(here(*host), now).is_some()).count();
        assert_eq!(come(now), LINK_GREETINGS_BURST as usize);
        assert!(door.enter(there, now).is_some());
        let second = now + std::time::Duration::from_secs(1);
        assert_eq!(come(second), LINK_GREETINGS_PER_S as usize);
        // One that finds no place has cost no handshake.
        let later = second + std::time::Duration::from_secs(60);
        let inside: Vec<_> = (0..LINK_GREETINGS_PER_ADDRESS_MAX as u16)
            .map(|host| door.enter(here(host), later).unwrap())
            .collect();
        assert_eq!(come(later), 0);
        drop(inside);
        assert_eq!(come(later), LINK_GREETINGS_BURST as usize - LINK_GREETINGS_PER_ADDRESS_MAX);
    }
}
