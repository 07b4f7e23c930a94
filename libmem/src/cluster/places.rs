//! Where providers are, as far as anybody said.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use caps::id::ProviderId;
use caps::limits::PROVIDERS_MAX;
use caps::wire::place::Place;

/// Most lives of providers whose places are remembered: each may have restarted a few times while tokens of its earlier
/// lives are still tried. Of more, the one that was heard of first is forgotten.
pub const PLACES_MAX: usize = 4 * PROVIDERS_MAX;

/// The places of providers. Each belongs to a life, and no life ever moves.
#[derive(Default)]
pub(super) struct Places(Mutex<Known>);

#[derive(Default)]
struct Known {
    places: HashMap<ProviderId, Place>,
    /// From the one that was heard of first.
    order: VecDeque<ProviderId>,
}

impl Places {
    pub(super) fn get(&self, provider: ProviderId) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).places.get(&provider).cloned()
    }

    pub(super) fn put(&self, provider: ProviderId, place: Place) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.places.insert(provider, place).is_some() {
            return;
        }
        known.order.push_back(provider);
        if known.order.len() > PLACES_MAX
            && let Some(first) = known.order.pop_front()
        {
            known.places.remove(&first);
        }
    }

    pub(super) fn forget(&self, provider: ProviderId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.places.remove(&provider);
        known.order.retain(|id| *id != provider);
    }
}

#[cfg(test)]
mod tests {
    use caps::wire::Name;

    use super::*;

    #[test]
    fn the_first_is_forgotten_when_there_are_too_many() {
        let (places, id) = (Places::default(), |number: usize| ProviderId((number as u128).to_le_bytes()));
        let place = Place { node: Name::new("a").unwrap(), address: None };
        for number in 0..=PLACES_MAX {
            places.put(id(number), place.clone());
            places.put(id(number), place.clone());
        }
        assert_eq!(places.get(id(0)), None);
        assert!((1..=PLACES_MAX).all(|number| places.get(id(number)).is_some()));
        places.forget(id(1));
        places.put(id(0), place.clone());
        assert!(
            (0..=PLACES_MAX)
                .filter(|number| places.get(id(*number)).is_some())
                .eq([0].into_iter().chain(2..=PLACES_MAX))
        );
    }
}
