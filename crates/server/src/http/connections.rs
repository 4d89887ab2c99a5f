//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::LimitsConfig;

/// Counts open connections. Shared by all listeners.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    /// A place for a connection from `address`; none where the limits are reached.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, limits: &LimitsConfig) -> Option<Place> {
        let mut counts = self.lock();
        if counts.all >= limits.connections.get() {
            return None;
        }
        match counts.by_address.entry(address) {
            Entry::Occupied(count) if *count.get() >= limits.connections_per_address.get() => return None,
            entry => *entry.or_default() += 1,
        }
        counts.all += 1;
        Some(Place { connections: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.connections.lock();
        counts.all -= 1;
        if let Entry::Occupied(mut count) = counts.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let count = |count| NonZeroUsize::new(count).expect("not zero");
        let limits =
            LimitsConfig { connections: count(3), connections_per_address: count(2), ..LimitsConfig::default() };
        let connections = Arc::new(Connections::default());
        let [one, two]: [IpAddr; 2] = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().expect("an address"));
        let first = connections.enter(one, &limits);
        let second = connections.enter(one, &limits);
        assert!(first.is_some() && second.is_some());
        assert!(connections.enter(one, &limits).is_none(), "the address has its share");
        let third = connections.enter(two, &limits);
        assert!(third.is_some());
        assert!(connections.enter(two, &limits).is_none(), "there are as many as there may be");
        drop(first);
        assert!(connections.enter(two, &limits).is_some());
        drop((second, third));
        assert_eq!(connections.lock().by_address.len(), 0, "nothing is kept of who left");
    }
}
