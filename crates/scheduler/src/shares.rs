//! What waits in a group, by tenant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Priority;
use crate::forecast::{DueRows, DueSlot};
use crate::nearly_sorted::NearlySorted;
use crate::order::{Key, LEVELS, SHELVES, Shelf, Ticks};
use crate::turns::Turns;

/// The tenants that wait. What concerns all of them takes time in proportion to their number; it is done once a batch.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    waiting: Vec<Share>,
    /// Where in `waiting` a tenant is found.
    positions: Vec<Option<usize>>,
    /// While a batch is formed, each tenant's turn, first request and number, as they were when it was last looked at: what
    /// has happened since can only have put them back.
    line: BinaryHeap<Reverse<(Turned, usize)>>,
}

/// What decides between tenants' first requests: the round of the turn, the shelf's place in the order of service, and
/// the request.
type Turned = (u64, usize, Key);

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

    /// The first request in `order` on a shelf that has room.
    fn head(&mut self, order: &[Shelf; SHELVES], turns: &Turns, is_at: &impl Fn(Key, Shelf) -> bool) -> Option<Turned> {
        order.iter().enumerate().find_map(|(place, &shelf)| {
            let key = if self.is_closed[shelf.index()] { None } else { self.first(shelf, is_at) };
            Some((turns.round(self.tenant), place, key?))
        })
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
        let mut first: Option<Turned> = None;
        for share in &mut self.waiting {
            if first.is_none_or(|(earliest, ..)| earliest >= turns.round(share.tenant)) {
                first = first.into_iter().chain(share.head(order, turns, &is_at)).min();
            }
        }
        first.map(|(_, place, key)| (place, key))
    }

    /// A batch is about to be formed in `order`, by asking for the [next](Self::next) request again and again.
    pub(crate) fn line_up(&mut self, order: &[Shelf; SHELVES], turns: &Turns, is_at: impl Fn(Key, Shelf) -> bool) {
        self.line.clear();
        let heads = self.waiting.iter_mut().filter_map(|share| {
            let tenant = share.tenant;
            share.head(order, turns, &is_at).map(|head| Reverse((head, tenant)))
        });
        self.line.extend(heads);
    }

    /// The [first](Self::first) request, found without a look at every tenant since they were [lined up](Self::line_up).
    pub(crate) fn next(
        &mut self,
        order: &[Shelf; SHELVES],
        turns: &Turns,
        is_at: impl Fn(Key, Shelf) -> bool,
    ) -> Option<(usize, Key)> {
        while let Some(Reverse((known, tenant))) = self.line.pop() {
            let head = self.share_mut(tenant).and_then(|share| share.head(order, turns, &is_at));
            // It stays in line, to be looked at again when it has been taken or has found no room.
            self.line.extend(head.map(|head| Reverse((head, tenant))));
            if head == Some(known) {
                return Some((known.1, known.2));
            }
        }
        None
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
    /// `turn` rows, each other tenant gets as many turns, and at most one more. Counts no further than to `enough`.
    pub(crate) fn rows_before(&self, tenant: usize, level: usize, turn: usize, enough: usize) -> usize {
        let own = self.share(tenant).map_or(0, |share| share.rows(level));
        let before = |share: &Share| {
            let rows = share.rows(level);
            if share.tenant == tenant { rows } else { rows.min(own + turn) }
        };
        let mut sum = 0;
        for share in &self.waiting {
            sum += before(share);
            if sum >= enough {
                return enough;
            }
        }
        sum
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
