//! How many may be at the door: connections that have not said who they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::limits::{LINK_GREETINGS_MAX, LINK_GREETINGS_PER_ADDRESS_MAX};

/// The door.
#[derive(Default)]
pub(super) struct Door(Mutex<State>);

#[derive(Default)]
struct State {
    all: usize,
    /// At most as many entries as there are connections at the door.
    by_address: HashMap<IpAddr, usize>,
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

    /// Somebody comes from `address`; `None` if there are too many already.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AtDoor> {
        let address = address.to_canonical();
        let mut state = self.state();
        if state.all >= LINK_GREETINGS_MAX {
            return None;
        }
        let of_address = state.by_address.entry(address).or_default();
        if *of_address >= LINK_GREETINGS_PER_ADDRESS_MAX {
            return None;
        }
        *of_address += 1;
        state.all += 1;
        drop(state);
        Some(AtDoor { door: Arc::clone(self), address })
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
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_all_of_them_have_a_bound() {
        let door = Arc::new(Door::default());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut inside: Vec<_> =
            (0..LINK_GREETINGS_PER_ADDRESS_MAX).map(|_| door.enter(address(1)).unwrap()).collect();
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert!(door.enter(address(1)).is_none() && door.enter(mapped).is_none());
        for n in 0..(LINK_GREETINGS_MAX - LINK_GREETINGS_PER_ADDRESS_MAX) as u8 {
            inside.push(door.enter(address(2 + n)).unwrap());
        }
        assert!(door.enter(address(200)).is_none(), "full");
        inside.remove(0);
        inside.push(door.enter(address(1)).unwrap());
        inside.clear();
        let state = door.state();
        assert_eq!((state.all, state.by_address.len()), (0, 0), "nothing is left behind");
    }
}
