//! The requests of one group that wait, and the orders in which they can be found.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::entry::{Content, Entry};
use crate::forecast::{Ahead, DueRows, DueSlot};
use crate::nearly_sorted::NearlySorted;
use crate::order::{Key, LEVELS, OVERDUE, SHELVES, Shelf, Ticks, level};
use crate::shares::{Shares, Standing};
use crate::turns::{Turns, place};

/// How many keys of departed requests are kept, beside as many as there are of present ones, before they are swept out.
const SLACK: usize = 64;

/// The requests of one group, by shelf, tenant and age.
///
/// Each request lies in `held`; everything else holds [`Key`]s. A key whose request has gone, or has changed level, is
/// skipped when it comes up, and swept out when such keys outnumber the others: removal costs nothing by itself.
pub(crate) struct Holding<C> {
    aging_interval: Duration,
    epoch: Instant,
    held: Vec<Option<Held<C>>>,
    free: Vec<u32>,
    /// Each shelf by deadline, then submission. Holds the overdue as well, to find their deadlines.
    shelves: [NearlySorted<Key>; SHELVES],
    /// The same by tenant, once there is more than one.
    shares: Option<Box<Shares>>,
    /// The tenant of the first request.
    only_tenant: Option<usize>,
    /// The overdue by submission: the order in which they go.
    overdue: VecDeque<Key>,
    /// By submission, those that have waited at least this many intervals (the last: or more).
    ages: [VecDeque<Key>; LEVELS],
    len: usize,
    rows: usize,
    /// The rows of each level.
    level_rows: [usize; LEVELS],
    /// The rows that have deadlines, for the forecast.
    due_rows: DueRows,
    sequence: u64,
}

/// A request that waits.
pub(crate) struct Held<C> {
    pub(crate) entry: Entry<C>,
    sequence: u64,
    /// Its effective priority.
    level: usize,
    due_slot: DueSlot,
}

impl<C> Held<C> {
    const fn shelf(&self) -> Shelf {
        Shelf::of(self.entry.priority, self.level)
    }

    fn standing(&self) -> Standing {
        Standing {
            tenant: place(self.entry.tenant),
            lane: self.entry.priority,
            level: self.level,
            rows: self.entry.rows,
            due: self.due_slot,
        }
    }
}

impl<C: Content> Holding<C> {
    pub(crate) fn new(aging_interval: Duration, epoch: Instant) -> Self {
        Self {
            aging_interval,
            epoch,
            held: Vec::new(),
            free: Vec::new(),
            shelves: [const { NearlySorted::new() }; SHELVES],
            shares: None,
            only_tenant: None,
            overdue: VecDeque::new(),
            ages: std::array::from_fn(|_| VecDeque::new()),
            len: 0,
            rows: 0,
            level_rows: [0; LEVELS],
            due_rows: DueRows::new(),
            sequence: 0,
        }
    }

    /// How many requests are held, the withdrawn that have not come up yet included.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How many rows they have.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// The request of a key, if it is still there.
    pub(crate) fn get(&self, key: Key) -> Option<&Held<C>> {
        self.held[key.index as usize].as_ref().filter(|held| held.sequence == key.sequence)
    }

    /// The time in a key's terms.
    pub(crate) fn ticks(&self, time: Instant) -> Ticks {
        Ticks::at(time, self.epoch)
    }

    pub(crate) fn insert(&mut self, entry: Entry<C>) {
        self.sequence += 1;
        self.len += 1;
        self.rows += entry.rows;
        let index = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            u32::try_from(self.held.len() - 1).expect("memory holds fewer than 2^32 requests")
        });
        let key = Key {
            due: entry.deadline.map_or(Ticks::NEVER, |deadline| Ticks::at(deadline, self.epoch)),
            submitted: Ticks::at(entry.submitted, self.epoch),
            sequence: self.sequence,
            index,
        };
        let level = level(entry.priority);
        let shelf = Shelf::of(entry.priority, level);
        self.level_rows[level] += entry.rows;
        let due_slot = self.due_rows.add(entry.priority, entry.rows, entry.deadline, entry.submitted, self.epoch);
        let held = Held { entry, sequence: key.sequence, level, due_slot };
        let standing = held.standing();
        self.held[index as usize] = Some(held);
        self.shelves[shelf.index()].push(key);
        match &mut self.shares {
            Some(shares) => shares.insert(standing, shelf, key),
            None if *self.only_tenant.get_or_insert(standing.tenant) == standing.tenant => {}
            None => self.share_out(),
        }
        insert_by_submission(&mut self.ages[0], key);
    }

    /// Raises by one level what has waited another interval.
    pub(crate) fn age(&mut self, now: Instant) {
        for intervals in 0..LEVELS - 1 {
            let wait = self.aging_interval.saturating_mul(u32::try_from(intervals + 1).unwrap_or(u32::MAX));
            let Some(aged) = Ticks::at(now, self.epoch).before(wait) else { break };
            while let Some(&key) = self.ages[intervals].front() {
                if self.is_present(key) {
                    if key.submitted > aged {
                        break;
                    }
                    insert_by_submission(&mut self.ages[intervals + 1], key);
                    self.raise(key);
                }
                self.ages[intervals].pop_front();
            }
        }
    }

    /// The first request in order that goes, and its place in the order.
    pub(crate) fn first(&mut self, order: &[Shelf; SHELVES], turns: &Turns) -> Option<(usize, Key)> {
        let Some(mut shares) = self.shares.take() else {
            return order.iter().enumerate().find_map(|(place, &shelf)| Some((place, self.first_on(shelf)?)));
        };
        let first = shares.first(order, turns, |key, shelf| self.is_at(key, shelf));
        self.shares = Some(shares);
        first
    }

    /// A batch is about to be formed in this order.
    pub(crate) fn line_up(&mut self, order: &[Shelf; SHELVES], turns: &Turns) {
        if let Some(mut shares) = self.shares.take() {
            shares.line_up(order, turns, |key, shelf| self.is_at(key, shelf));
            self.shares = Some(shares);
        }
    }

    /// The first request in order that goes and its place in the order, where tenants were [lined up](Self::line_up).
    pub(crate) fn next(&mut self, order: &[Shelf; SHELVES], turns: &Turns) -> Option<(usize, Key)> {
        let mut shares = self.shares.take()?;
        let next = shares.next(order, turns, |key, shelf| self.is_at(key, shelf));
        self.shares = Some(shares);
        next
    }

    /// The first request of a shelf in the order in which they go, whatever the tenants.
    pub(crate) fn first_on(&mut self, shelf: Shelf) -> Option<Key> {
        if shelf == Shelf::OVERDUE { self.first_overdue() } else { self.first_due(shelf) }
    }

    /// The request of a shelf that is due first.
    pub(crate) fn first_due(&mut self, shelf: Shelf) -> Option<Key> {
        while let Some(&key) = self.shelves[shelf.index()].first() {
            if self.is_at(key, shelf) {
                return Some(key);
            }
            self.shelves[shelf.index()].pop();
        }
        None
    }

    pub(crate) fn first_overdue(&mut self) -> Option<Key> {
        while let Some(&key) = self.overdue.front() {
            if self.is_present(key) {
                return Some(key);
            }
            self.overdue.pop_front();
        }
        None
    }

    /// How many tenants wait; none where there is only one.
    pub(crate) fn tenants(&self) -> usize {
        self.shares.as_ref().map_or(0, |shares| shares.len())
    }

    /// The first request of the tenant at `position`, of those that wait, on a shelf.
    pub(crate) fn first_of_tenant(&mut self, position: usize, shelf: Shelf) -> Option<Key> {
        let mut shares = self.shares.take()?;
        let first = shares.first_of(position, shelf, |key, shelf| self.is_at(key, shelf));
        self.shares = Some(shares);
        first
    }

    /// The first request on the shelf of this one's tenant found no room in the batch: none behind it may overtake it.
    pub(crate) fn close(&mut self, key: Key, shelf: Shelf) {
        let tenant = self.tenant(key);
        if let Some(shares) = &mut self.shares {
            shares.close(tenant, shelf);
        }
    }

    /// Another batch will have room.
    pub(crate) fn open(&mut self) {
        if let Some(shares) = &mut self.shares {
            shares.open();
        }
    }

    /// The tenant of a request, as [`Turns`] counts tenants.
    pub(crate) fn tenant(&self, key: Key) -> usize {
        self.held[key.index as usize].as_ref().map_or(0, |held| place(held.entry.tenant))
    }

    /// When the first of those that wait was submitted.
    pub(crate) fn oldest(&mut self) -> Option<Instant> {
        for intervals in (0..LEVELS).rev() {
            while let Some(&key) = self.ages[intervals].front() {
                if self.is_present(key) {
                    return self.held[key.index as usize].as_ref().map(|held| held.entry.submitted);
                }
                self.ages[intervals].pop_front();
            }
        }
        None
    }

    /// The rows that go before or together with what this one's tenant has at its level and before; `turn` rows are a turn.
    /// Exact where that lies between `few` and `enough`: elsewhere not every tenant is looked at.
    pub(crate) fn rows_before(&self, held: &Held<C>, turn: usize, few: usize, enough: usize) -> usize {
        let of_all = self.level_rows[..=held.level].iter().sum();
        match &self.shares {
            Some(shares) if of_all > few => shares.rows_before(place(held.entry.tenant), held.level, turn, enough),
            _ => of_all,
        }
    }

    /// Adds what a tenant has queued with deadlines to `ahead`, at `nanos` of device time a row. False if that is nothing.
    pub(crate) fn add_to(&self, tenant: usize, ahead: &mut Ahead, nanos: u64) -> bool {
        let due_rows = match &self.shares {
            Some(shares) => shares.due_rows(tenant),
            None => Some(&self.due_rows).filter(|_| self.only_tenant == Some(tenant)),
        };
        due_rows.is_some_and(|due_rows| due_rows.add_to(ahead, nanos))
    }

    /// Takes a request out; gives back its level as well.
    pub(crate) fn vacate(&mut self, key: Key) -> Option<(Entry<C>, usize)> {
        self.vacate_at(key.index as usize)
    }

    /// Takes out everything of this kind.
    pub(crate) fn extract(&mut self, is_meant: impl Fn(&Entry<C>) -> bool) -> Vec<(Entry<C>, usize)> {
        let meant = |held: &Option<Held<C>>| held.as_ref().is_some_and(|held| is_meant(&held.entry));
        let extracted = (0..self.held.len())
            .filter_map(|index| if meant(&self.held[index]) { self.vacate_at(index) } else { None });
        let extracted = extracted.collect();
        self.forget_departed();
        extracted
    }

    /// Keeps the keys of departed requests from outgrowing those of present ones.
    pub(crate) fn forget_departed(&mut self) {
        let keys = self.overdue.len()
            + self.shelves.iter().map(NearlySorted::len).sum::<usize>()
            + self.ages.iter().map(VecDeque::len).sum::<usize>();
        // A present request has two keys, three once it is overdue.
        if keys <= 6 * self.len + SLACK {
            return;
        }
        let mut shelves = std::mem::replace(&mut self.shelves, [const { NearlySorted::new() }; SHELVES]);
        for (keys, shelf) in shelves.iter_mut().zip(Shelf::ALL) {
            keys.retain(|&key| self.is_at(key, shelf));
        }
        self.shelves = shelves;
        if self.shares.is_some() {
            self.share_out();
        }
        let mut ages = std::mem::take(&mut self.ages);
        let mut overdue = std::mem::take(&mut self.overdue);
        for keys in ages.iter_mut().chain([&mut overdue]) {
            keys.retain(|&key| self.is_present(key));
        }
        self.ages = ages;
        self.overdue = overdue;
    }

    fn raise(&mut self, key: Key) {
        let Some(held) = &mut self.held[key.index as usize] else { return };
        if held.level == OVERDUE {
            return;
        }
        let standing = held.standing();
        self.level_rows[held.level] -= held.entry.rows;
        held.level -= 1;
        self.level_rows[held.level] += held.entry.rows;
        let shelf = held.shelf();
        self.shelves[shelf.index()].push(key);
        if let Some(shares) = &mut self.shares {
            shares.raise(standing, shelf, key);
        }
        if shelf == Shelf::OVERDUE {
            insert_by_submission(&mut self.overdue, key);
        }
    }

    /// Sorts what waits by tenant: there is a second one.
    fn share_out(&mut self) {
        let mut shares = Shares::default();
        for shelf in Shelf::ALL {
            for &key in self.shelves[shelf.index()].iter() {
                if let Some(held) = self.held[key.index as usize].as_ref().filter(|_| self.is_at(key, shelf)) {
                    shares.insert(held.standing(), shelf, key);
                }
            }
        }
        self.shares = Some(Box::new(shares));
    }

    fn is_present(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    fn is_at(&self, key: Key, shelf: Shelf) -> bool {
        self.get(key).is_some_and(|held| held.shelf() == shelf)
    }

    fn vacate_at(&mut self, index: usize) -> Option<(Entry<C>, usize)> {
        let held = self.held[index].take()?;
        if let Some(shares) = &mut self.shares {
            shares.remove(held.standing());
        }
        self.free.push(index as u32);
        self.len -= 1;
        self.rows -= held.entry.rows;
        self.level_rows[held.level] -= held.entry.rows;
        self.due_rows.remove(held.entry.priority, held.entry.rows, held.due_slot);
        Some((held.entry, held.level))
    }
}

/// Inserts from the back: submissions come in order but for the skew between lanes.
fn insert_by_submission(keys: &mut VecDeque<Key>, key: Key) {
    let order = |key: &Key| (key.submitted, key.sequence);
    if keys.back().is_none_or(|last| order(last) < order(&key)) {
        return keys.push_back(key);
    }
    let behind = keys.iter().rev().take_while(|other| order(other) > order(&key)).count();
    keys.insert(keys.len() - behind, key);
}
