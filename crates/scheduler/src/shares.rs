//! What waits, by tenant.

use crate::nearly_sorted::NearlySorted;
use crate::order::{Key, SHELVES, Shelf, Ticks};
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
    keys: NearlySorted<Key>,
}

impl Shares {
    pub(crate) fn push(&mut self, shelf: Shelf, tenant: usize, key: Key) {
        // Among the overdue no deadline goes before the others: the oldest do.
        let key = if shelf == Shelf::OVERDUE { Key { due: Ticks::NEVER, ..key } } else { key };
        let shelf = &mut self.shelves[shelf.index()];
        match shelf.iter_mut().find(|share| share.tenant == tenant) {
            Some(share) => share.keys.push(key),
            None => {
                let mut keys = NearlySorted::new();
                keys.push(key);
                shelf.push(Share { tenant, keys });
            }
        }
    }

    /// The first request of the tenant whose turn it is. Takes time in proportion to the tenants that wait.
    pub(crate) fn first(&mut self, shelf: Shelf, turns: &Turns, is_at: impl Fn(Key) -> bool) -> Option<Key> {
        let shares = &mut self.shelves[shelf.index()];
        shares.retain_mut(|share| {
            while share.keys.first().is_some_and(|&key| !is_at(key)) {
                share.keys.pop();
            }
            share.keys.len() > 0
        });
        let first = shares.iter().filter_map(|share| {
            let &key = share.keys.first()?;
            Some((turns.round(share.tenant), key))
        });
        first.min().map(|(_, key)| key)
    }
}
