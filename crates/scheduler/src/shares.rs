//! What waits, by tenant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::order::{Due, Key, SHELVES, Shelf};
use crate::turns::Turns;

/// The keys of each shelf by tenant, then by deadline and submission. Keys of departed requests are skipped when they
/// come up, as those of the queue are.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    shelves: [Vec<Share>; SHELVES],
}

#[derive(Debug)]
struct Share {
    tenant: usize,
    keys: BinaryHeap<Reverse<Key>>,
}

impl Shares {
    pub(crate) fn push(&mut self, shelf: Shelf, tenant: usize, key: Key) {
        // Among the overdue no deadline goes before the others: the oldest do.
        let key = if shelf == Shelf::OVERDUE { Key { due: Due::Never, ..key } } else { key };
        let shelf = &mut self.shelves[shelf.index()];
        match shelf.iter_mut().find(|share| share.tenant == tenant) {
            Some(share) => share.keys.push(Reverse(key)),
            None => shelf.push(Share { tenant, keys: BinaryHeap::from([Reverse(key)]) }),
        }
    }

    /// The first request of the tenant whose turn it is. Takes time in proportion to the tenants that wait.
    pub(crate) fn first(&mut self, shelf: Shelf, turns: &Turns, is_at: impl Fn(Key) -> bool) -> Option<Key> {
        let shares = &mut self.shelves[shelf.index()];
        shares.retain_mut(|share| {
            while share.keys.peek().is_some_and(|&Reverse(key)| !is_at(key)) {
                share.keys.pop();
            }
            !share.keys.is_empty()
        });
        let first = shares.iter().filter_map(|share| {
            let &Reverse(key) = share.keys.peek()?;
            Some((turns.round(share.tenant), key))
        });
        first.min().map(|(_, key)| key)
    }
}
