//! What waits in a group, by tenant.

use crate::Priority;
use crate::forecast::{DueRows, DueSlot};
use crate::nearly_sorted::NearlySorted;
use crate::order::{Key, LEVELS, SHELVES, Shelf, Ticks};
use crate::turns::Turns;

/// The tenants that wait. What concerns all of them takes time in proportion to their number.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    waiting: Vec<Share>,
    /// Where in `waiting` a tenant is found.
    positions: Vec<Option<usize>>,
}

/// What waits of one tenant.
#[derive(Debug)]
struct Share {
    tenant: usize,
    len: usize,
    level_rows: [usize; LEVELS],
    due_rows: DueRows,
    /// Each shelf by deadline, then submission. Keys of departed requests are skipped when they come up, as those of the
    /// queue are.
    shelves: [NearlySorted<Key>; SHELVES],
    /// Whether a shelf's first request found no room in the batch that is being formed.
    is_closed: [bool; SHELVES],
}

/// A request's standing: whose it is, and for what it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) tenant: usize,
    pub(crate) lane: Priority,
    pub(crate) level: usize,
    pub(crate) rows: usize,
    pub(crate) due: DueSlot,
}

impl Share {
    const fn new(tenant: usize) -> Self {
        Self {
            tenant,
            len: 0,
            level_rows: [0; LEVELS],
            due_rows: DueRows::new(),
            shelves: [const { NearlySorted::new() }; SHELVES],
            is_closed: [false; SHELVES],
        }
    }

    /// The rows at this level and before it.
    fn rows(&self, level: usize) -> usize {
        self.level_rows[..=level].iter().sum()
    }

    fn first(&mut self, shelf: Shelf, is_at: &impl Fn(Key, Shelf) -> bool) -> Option<Key> {
        let keys = &mut self.shelves[shelf.index()];
        while let Some(&key) = keys.first() {
            if is_at(key, shelf) {
                return Some(key);
            }
            keys.pop();
        }
        None
    }
}

impl Shares {
    pub(crate) fn insert(&mut self, standing: Standing, shelf: Shelf, key: Key) {
        let Standing { tenant, lane, level, rows, due } = standing;
        if self.positions.len() <= tenant {
            self.positions.resize(tenant + 1, None);
        }
        let position = *self.positions[tenant].get_or_insert_with(|| {
            self.waiting.push(Share::new(tenant));
            self.waiting.len() - 1
        });
        let share = &mut self.waiting[position];
        share.len += 1;
        share.level_rows[level] += rows;
        share.due_rows.count(lane, rows, due);
        self.push(tenant, shelf, key);
    }

    /// A request was raised from the level at which it stood, to this shelf.
    pub(crate) fn raise(&mut self, standing: Standing, shelf: Shelf, key: Key) {
        let Standing { tenant, level, rows, .. } = standing;
        if let Some(share) = self.share_mut(tenant) {
            share.level_rows[level] -= rows;
            share.level_rows[level - 1] += rows;
        }
        self.push(tenant, shelf, key);
    }

    pub(crate) fn remove(&mut self, standing: Standing) {
        let Standing { tenant, lane, level, rows, due } = standing;
        let Some(share) = self.share_mut(tenant) else { return };
        share.len -= 1;
        share.level_rows[level] -= rows;
        share.due_rows.remove(lane, rows, due);
        if share.len > 0 {
            return;
        }
        if let Some(position) = self.positions[tenant].take() {
            self.waiting.swap_remove(position);
            if let Some(moved) = self.waiting.get(position) {
                self.positions[moved.tenant] = Some(position);
            }
        }
    }

    /// The first request that is to go: of the tenant whose turn it is the first in `order`, and where it is the turn of
    /// several, the first of theirs. Gives back its place in `order` as well.
    pub(crate) fn first(
        &mut self,
        order: &[Shelf; SHELVES],
        turns: &Turns,
        is_at: impl Fn(Key, Shelf) -> bool,
    ) -> Option<(usize, Key)> {
        let mut first: Option<(u64, usize, Key)> = None;
        for share in &mut self.waiting {
            let round = turns.round(share.tenant);
            if first.is_some_and(|(earliest, ..)| earliest < round) {
                continue;
            }
            let its_first = order.iter().enumerate().find_map(|(place, &shelf)| {
                let key = if share.is_closed[shelf.index()] { None } else { share.first(shelf, &is_at) };
                Some((round, place, key?))
            });
            first = first.into_iter().chain(its_first).min();
        }
        first.map(|(_, place, key)| (place, key))
    }

    /// The first request of the tenant at `position`, of those that wait, on a shelf.
    pub(crate) fn first_of(
        &mut self,
        position: usize,
        shelf: Shelf,
        is_at: impl Fn(Key, Shelf) -> bool,
    ) -> Option<Key> {
        self.waiting.get_mut(position)?.first(shelf, &is_at)
    }

    /// How many tenants wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Another batch will have room.
    pub(crate) fn open(&mut self) {
        self.waiting.iter_mut().for_each(|share| share.is_closed = [false; SHELVES]);
    }

    /// The first request on the tenant's shelf found no room in the batch, so that none behind it may overtake it.
    pub(crate) fn close(&mut self, tenant: usize, shelf: Shelf) {
        if let Some(share) = self.share_mut(tenant) {
            share.is_closed[shelf.index()] = true;
        }
    }

    /// The rows that go before, or together with, what the tenant has at this level: while that waits for its turns of
    /// `turn` rows, each other tenant gets as many turns, and at most one more.
    pub(crate) fn rows_before(&self, tenant: usize, level: usize, turn: usize) -> usize {
        let own = self.share(tenant).map_or(0, |share| share.rows(level));
        let before = |share: &Share| {
            let rows = share.rows(level);
            if share.tenant == tenant { rows } else { rows.min(own + turn) }
        };
        self.waiting.iter().map(before).sum()
    }

    /// The tenant's rows that have deadlines.
    pub(crate) fn due_rows(&self, tenant: usize) -> Option<&DueRows> {
        self.share(tenant).map(|share| &share.due_rows)
    }

    fn push(&mut self, tenant: usize, shelf: Shelf, key: Key) {
        // Among the overdue no deadline goes before the others: the oldest do.
        let key = if shelf == Shelf::OVERDUE { Key { due: Ticks::NEVER, ..key } } else { key };
        if let Some(share) = self.share_mut(tenant) {
            share.shelves[shelf.index()].push(key);
        }
    }

    fn share(&self, tenant: usize) -> Option<&Share> {
        let position = (*self.positions.get(tenant)?)?;
        self.waiting.get(position)
    }

    fn share_mut(&mut self, tenant: usize) -> Option<&mut Share> {
        let position = (*self.positions.get(tenant)?)?;
        self.waiting.get_mut(position)
    }
}
