//! The requests of one group that wait, in the leader's hands.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::GroupId;
use crate::arrivals::Arrivals;
use crate::entry::{Content, Entry, Item, Removed};
use crate::forecast::{Ahead, Bounds, DueRows, DueSlot, Forecast};
use crate::nearly_sorted::NearlySorted;
use crate::order::{Key, LEVELS, OVERDUE, Rank, SHELVES, Shelf, Ticks, effective_priority, level};
use crate::patience::Patience;
use crate::policy::Waiting;
use crate::service_time::ServiceTime;
use crate::shares::{Shares, Standing};
use crate::sizes::Sizes;
use crate::turns::{Turns, place, turn_rows};

/// How many keys of departed requests are kept, beside as many as there are of present ones, before they are swept out.
const SLACK: usize = 64;

/// The requests of one group, in order.
///
/// Each request lies in `held`; everything else holds [`Key`]s. A key whose request has gone, or has changed level, is
/// skipped when it comes up, and swept out when such keys outnumber the others: removal costs nothing by itself.
pub(crate) struct GroupQueue<C> {
    id: GroupId,
    aging_interval: Duration,
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
    epoch: Instant,
    sequence: u64,
    arrivals: Arrivals,
    patience: Patience,
    service_time: ServiceTime,
    /// What a row in a full batch is expected to cost, in nanoseconds.
    row_nanos: f64,
    sizes: Sizes,
}

struct Held<C> {
    entry: Entry<C>,
    sequence: u64,
    level: usize,
    due_slot: DueSlot,
}

/// A batch in the making.
struct Taking {
    now: Instant,
    rows: usize,
    /// How many rows it takes at most; what alone is heavier goes alone.
    limit: usize,
    raised_rows: usize,
    /// How many rows of the raised it takes, while others wait.
    raised_limit: Option<usize>,
    tightest: Option<Instant>,
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

impl<C: Content> GroupQueue<C> {
    pub(crate) fn new(id: GroupId, aging_interval: Duration, epoch: Instant) -> Self {
        Self {
            id,
            aging_interval,
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
            epoch,
            sequence: 0,
            arrivals: Arrivals::default(),
            patience: Patience::default(),
            service_time: ServiceTime::default(),
            row_nanos: 0.0,
            sizes: Sizes::any(),
        }
    }

    /// How many requests are held, the withdrawn that have not come up yet included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Batches are executed as one of these sizes.
    pub(crate) fn restrict(&mut self, sizes: Sizes) {
        self.sizes = sizes;
    }

    /// As how many rows a batch of `rows` is executed.
    pub(crate) fn padded(&self, rows: usize) -> usize {
        self.sizes.padded(rows)
    }

    pub(crate) fn learn(&mut self, rows: usize, took: Duration, now: Instant) {
        self.service_time.observe(self.padded(rows), took, now);
        let full = self.id.full_rows();
        self.row_nanos = self.mean(full).as_secs_f64() * 1e9 / full as f64;
    }

    pub(crate) fn insert(&mut self, entry: Entry<C>) {
        self.arrivals.observe(entry.submitted);
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

    /// Takes out what was withdrawn and has come up, and what can no longer be done by its deadline. A request is looked
    /// at when nothing of its level is due before it: what its own size makes hopeless may be noticed that much later.
    pub(crate) fn refuse(&mut self, now: Instant, removed: &mut Removed<C>) {
        for shelf in Shelf::ALL {
            while let Some(key) = self.first_due(shelf).filter(|&key| self.is_hopeless(key, now)) {
                self.dismiss(key, removed);
            }
        }
        while let Some(key) = self.first_overdue().filter(|&key| self.is_hopeless(key, now)) {
            self.dismiss(key, removed);
        }
        self.refuse_by_tenant(now, removed);
        self.forget_departed();
    }

    /// The more a tenant has waiting, the larger the batch in which its requests must be in time: so of what waits on a
    /// shelf, one tenant's may be hopeless while another's that is due before it is not.
    fn refuse_by_tenant(&mut self, now: Instant, removed: &mut Removed<C>) {
        let surely_in_time = Ticks::at(self.finish(now, self.id.max_rows()), self.epoch);
        // From the last on: the last takes the place of one that has nothing left.
        for position in (0..self.shares.as_ref().map_or(0, |shares| shares.len())).rev() {
            for shelf in Shelf::ALL {
                while let Some(key) = self.first_of_tenant(position, shelf)
                    && key.due < surely_in_time
                    && self.is_hopeless(key, now)
                {
                    self.dismiss(key, removed);
                }
            }
        }
    }

    fn first_of_tenant(&mut self, position: usize, shelf: Shelf) -> Option<Key> {
        let mut shares = self.shares.take()?;
        let first = shares.first_of(position, shelf, |key, shelf| self.is_at(key, shelf));
        self.shares = Some(shares);
        first
    }

    /// When the first of those that are due first in their level becomes hopeless.
    pub(crate) fn next_hopeless(&mut self, now: Instant) -> Option<Instant> {
        Shelf::ALL
            .into_iter()
            .filter_map(|shelf| {
                let key = self.first_due(shelf)?;
                self.hopeless_at(key, now)
            })
            .min()
    }

    /// Just after the last moment at which the request can still be done by its deadline.
    fn hopeless_at(&self, key: Key, now: Instant) -> Option<Instant> {
        let held = self.held[key.index as usize].as_ref()?;
        let cost = self.bound(self.company(held), now);
        Some(held.entry.deadline?.checked_sub(cost).unwrap_or(now).max(now) + Duration::from_nanos(1))
    }

    fn is_hopeless(&self, key: Key, now: Instant) -> bool {
        let Some(held) = &self.held[key.index as usize] else { return true };
        let rows = self.company(held);
        let in_time = |deadline| deadline > now && deadline >= self.finish(now, rows);
        held.entry.content.is_withdrawn() || !held.entry.deadline.is_none_or(in_time)
    }

    fn dismiss(&mut self, key: Key, removed: &mut Removed<C>) {
        let claimed = self.vacate(key.index as usize).map(|(entry, level)| entry.claim(effective_priority(level)));
        match claimed {
            Some(Ok(item)) => removed.hopeless.push(item),
            Some(Err(payload)) => removed.withdrawn.push(payload),
            None => {}
        }
    }

    /// Publishes what a batch costs; gives back the device time of all that waits, in nanoseconds.
    pub(crate) fn publish(&self, now: Instant, forecast: &Forecast) -> u64 {
        let Some(valid_until) = self.service_time.fresh_until() else { return 0 };
        let full = self.id.full_rows();
        let nanos = |cost: Duration| cost.as_nanos() as u64;
        let bounds = Bounds {
            fixed: nanos(self.service_time.bound(0, now)),
            full: nanos(self.service_time.bound(full, now)),
            mean_full: nanos(self.mean(full)),
        };
        forecast.publish_group(self.id, bounds, valid_until);
        self.nanos(self.rows)
    }

    /// Adds what a tenant has queued with deadlines to `ahead`. False if that is nothing.
    pub(crate) fn add_to(&self, tenant: usize, ahead: &mut Ahead) -> bool {
        let due_rows = match &self.shares {
            Some(shares) => shares.due_rows(tenant),
            None => Some(&self.due_rows).filter(|_| self.only_tenant == Some(tenant)),
        };
        due_rows.is_some_and(|due_rows| due_rows.add_to(ahead, self.nanos(1)))
    }

    /// The device time of one tenant's turn, in nanoseconds.
    pub(crate) fn turn_nanos(&self) -> u64 {
        self.nanos(turn_rows(self.id.full_rows()))
    }

    /// The device time of so many rows in full batches, in nanoseconds.
    pub(crate) fn nanos(&self, rows: usize) -> u64 {
        (self.row_nanos * rows as f64) as u64
    }

    /// What the largest batch costs at most.
    pub(crate) fn largest_bound(&self, now: Instant) -> Duration {
        self.service_time.bound(self.id.max_rows(), now)
    }

    /// What a batch of `rows` is expected to take; nothing if that is not known.
    pub(crate) fn mean(&self, rows: usize) -> Duration {
        self.service_time.predict(rows).unwrap_or_default()
    }

    /// What the policy must know; none if nothing waits.
    pub(crate) fn summary(&mut self, now: Instant, turns: &Turns) -> Option<Waiting> {
        let order = if turns.raised_first() { Shelf::RAISED_FIRST } else { Shelf::NATIVE_FIRST };
        let (place, first) = self.first(&order, turns)?;
        let tightest = Shelf::ALL
            .into_iter()
            .filter_map(|shelf| {
                let key = self.first_due(shelf)?;
                self.held[key.index as usize].as_ref()?.entry.deadline
            })
            .min();
        let submitted = self.held[first.index as usize].as_ref()?.entry.submitted;
        let oldest = self.oldest().unwrap_or(submitted);
        let batch_cost = self.bound(self.rows.min(self.id.max_rows()), now);
        let largest_cost = self.bound(self.id.max_rows(), now);
        Some(Waiting {
            group: self.id,
            head: Rank {
                place,
                round: turns.round(self.tenant(first)),
                due: if order[place] == Shelf::OVERDUE { Ticks::NEVER } else { first.due },
                submitted: first.submitted,
            },
            len: self.len,
            rows: self.rows,
            oldest,
            newest: self.arrivals.newest().unwrap_or(submitted),
            tightest,
            gap: self.arrivals.gap(),
            waits_pay: self.patience.is_worth(self.len, now),
            fixed_cost: self.service_time.fixed(),
            batch_cost,
            largest_cost,
        })
    }

    /// What waits is held back, until then at most.
    pub(crate) fn hold_back(&mut self, until: Instant) {
        self.patience.begin(self.len, until);
    }

    /// Takes the next batch, in order: as much of each shelf as fits in the rows that are left and would not make a
    /// member late that goes with it. Where the raised go first, they get half of it; then the others, and what is left
    /// is theirs again. Gives back how many rows it has.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        turns: &mut Turns,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) -> usize {
        self.patience.end();
        let cost = |rows| Some(self.service_time.predict(rows)?.as_secs_f64());
        let limit = self.sizes.worth_taking(self.rows.min(self.id.full_rows()), cost);
        let mut taking = Taking { now, rows: 0, limit, raised_rows: 0, raised_limit: None, tightest: None };
        if turns.raised_first() {
            taking.raised_limit = Some(self.id.full_rows().div_ceil(2));
            self.take_in_order(&Shelf::RAISED_FIRST, &mut taking, turns, batch, removed);
            taking.raised_limit = None;
        }
        self.take_in_order(&Shelf::NATIVE_FIRST, &mut taking, turns, batch, removed);
        turns.settle(taking.rows - taking.raised_rows, taking.raised_rows, self.id.max_rows());
        self.forget_departed();
        taking.rows
    }

    fn take_in_order(
        &mut self,
        order: &[Shelf; SHELVES],
        taking: &mut Taking,
        turns: &mut Turns,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) {
        if self.shares.is_none() {
            for &shelf in order {
                while let Some(key) = self.first_on(shelf)
                    && self.take_one(key, shelf, taking, turns, batch, removed)
                {}
            }
            return;
        }
        while taking.rows < taking.limit
            && let Some((place, key)) = self.first(order, turns)
        {
            let tenant = self.tenant(key);
            if !self.take_one(key, order[place], taking, turns, batch, removed)
                && let Some(shares) = &mut self.shares
            {
                shares.close(tenant, order[place]);
            }
        }
        if let Some(shares) = &mut self.shares {
            shares.open();
        }
    }

    /// Takes a request, unless there is no room for it in the batch. False if so.
    fn take_one(
        &mut self,
        key: Key,
        shelf: Shelf,
        taking: &mut Taking,
        turns: &mut Turns,
        batch: &mut Vec<Item<C::Claimed>>,
        removed: &mut Removed<C>,
    ) -> bool {
        let Some(held) = &self.held[key.index as usize] else { return false };
        let (rows, tenant) = (held.entry.rows, place(held.entry.tenant));
        let rows_with = taking.rows + rows;
        let tightest_with = taking.tightest.into_iter().chain(held.entry.deadline).min();
        let too_late =
            taking.rows > 0 && tightest_with.is_some_and(|tightest| self.finish(taking.now, rows_with) > tightest);
        let too_raised = shelf.is_raised()
            && taking.rows > 0
            && taking.raised_limit.is_some_and(|limit| taking.raised_rows + rows > limit);
        // What is heavier than a full batch goes alone.
        let fits = (taking.rows == 0 || rows_with <= taking.limit) && !too_late && !too_raised;
        // What was withdrawn keeps no place from those behind it.
        if !fits && !held.entry.content.is_withdrawn() {
            return false;
        }
        let Some((entry, level)) = self.vacate(key.index as usize) else { return false };
        match entry.claim(effective_priority(level)) {
            Ok(item) => {
                turns.serve(tenant, rows, self.id.full_rows(), taking.rows == 0);
                taking.rows = rows_with;
                taking.raised_rows += if shelf.is_raised() { rows } else { 0 };
                taking.tightest = tightest_with;
                batch.push(item);
            }
            Err(payload) => removed.withdrawn.push(payload),
        }
        true
    }

    /// Takes out everything that was withdrawn.
    pub(crate) fn sweep(&mut self, removed: &mut Removed<C>) {
        for index in 0..self.held.len() {
            let withdrawn = |held: &Held<C>| held.entry.content.is_withdrawn();
            if self.held[index].as_ref().is_some_and(withdrawn) {
                let Some((entry, level)) = self.vacate(index) else { continue };
                // Claiming gives back what is left of it.
                removed.withdrawn.extend(entry.claim(effective_priority(level)).err());
            }
        }
        self.forget_departed();
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<Entry<C>> {
        let entries = (0..self.held.len()).filter_map(|index| self.vacate(index)).map(|(entry, _)| entry).collect();
        self.forget_departed();
        entries
    }

    /// By when a batch of `rows` that starts now is all but certainly done; now, if nothing recent is known of its cost.
    fn finish(&self, now: Instant, rows: usize) -> Instant {
        now + self.bound(rows, now)
    }

    /// What a batch of `rows` hardly ever exceeds.
    fn bound(&self, rows: usize, now: Instant) -> Duration {
        self.service_time.bound(self.padded(rows), now)
    }

    /// How large a batch a request has to be in time in, to be worth one.
    ///
    /// A batch that is kept small for its tightest member wastes the device. While what goes before it or with it (at this
    /// level and before, as far as its tenant's turns let others go first) fits in one batch that costs nobody anything;
    /// with more waiting it costs others their deadlines, so a request then has to bear company: as much as is left for
    /// a second batch, up to a full one.
    fn company(&self, held: &Held<C>) -> usize {
        let full = self.id.full_rows();
        let waiting: usize = match &self.shares {
            Some(shares) => shares.rows_before(place(held.entry.tenant), held.level, turn_rows(full)),
            None => self.level_rows[..=held.level].iter().sum(),
        };
        held.entry.rows.max(waiting.saturating_sub(full).min(full))
    }

    /// The first request in order that goes, and its place in the order.
    fn first(&mut self, order: &[Shelf; SHELVES], turns: &Turns) -> Option<(usize, Key)> {
        let Some(mut shares) = self.shares.take() else {
            return order.iter().enumerate().find_map(|(place, &shelf)| Some((place, self.first_on(shelf)?)));
        };
        let first = shares.first(order, turns, |key, shelf| self.is_at(key, shelf));
        self.shares = Some(shares);
        first
    }

    /// The first request of a shelf in the order in which they go, whatever the tenants.
    fn first_on(&mut self, shelf: Shelf) -> Option<Key> {
        if shelf == Shelf::OVERDUE { self.first_overdue() } else { self.first_due(shelf) }
    }

    fn first_overdue(&mut self) -> Option<Key> {
        while let Some(&key) = self.overdue.front() {
            if self.is_present(key) {
                return Some(key);
            }
            self.overdue.pop_front();
        }
        None
    }

    /// The request of a shelf that is due first.
    fn first_due(&mut self, shelf: Shelf) -> Option<Key> {
        while let Some(&key) = self.shelves[shelf.index()].first() {
            if self.is_at(key, shelf) {
                return Some(key);
            }
            self.shelves[shelf.index()].pop();
        }
        None
    }

    fn tenant(&self, key: Key) -> usize {
        self.held[key.index as usize].as_ref().map_or(0, |held| place(held.entry.tenant))
    }

    fn oldest(&mut self) -> Option<Instant> {
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

    fn is_present(&self, key: Key) -> bool {
        self.held[key.index as usize].as_ref().is_some_and(|held| held.sequence == key.sequence)
    }

    fn is_at(&self, key: Key, shelf: Shelf) -> bool {
        self.held[key.index as usize]
            .as_ref()
            .is_some_and(|held| held.sequence == key.sequence && held.shelf() == shelf)
    }

    fn vacate(&mut self, index: usize) -> Option<(Entry<C>, usize)> {
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

    /// Keeps the keys of departed requests from outgrowing those of present ones.
    fn forget_departed(&mut self) {
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
