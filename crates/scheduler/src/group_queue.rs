//! The requests of one group that wait, in the leader's hands.

use std::time::{Duration, Instant};

use crate::GroupId;
use crate::arrivals::Arrivals;
use crate::entry::{Content, Entry, Item, Removed};
use crate::forecast::{Ahead, Bounds, Forecast};
use crate::holding::{Held, Holding};
use crate::order::{Key, Rank, SHELVES, Shelf, Ticks, effective_priority};
use crate::patience::Patience;
use crate::policy::Waiting;
use crate::service_time::ServiceTime;
use crate::sizes::Sizes;
use crate::turns::{Turns, place, turn_rows};

/// The requests of one group, what their batches cost, and which of them go next.
pub(crate) struct GroupQueue<C> {
    id: GroupId,
    waiting: Holding<C>,
    arrivals: Arrivals,
    patience: Patience,
    service_time: ServiceTime,
    /// What a row in a full batch is expected to cost, in nanoseconds.
    row_nanos: f64,
    sizes: Sizes,
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

impl<C: Content> GroupQueue<C> {
    pub(crate) fn new(id: GroupId, aging_interval: Duration, epoch: Instant) -> Self {
        Self {
            id,
            waiting: Holding::new(aging_interval, epoch),
            arrivals: Arrivals::default(),
            patience: Patience::default(),
            service_time: ServiceTime::default(),
            row_nanos: 0.0,
            sizes: Sizes::any(),
        }
    }

    /// How many requests are held, the withdrawn that have not come up yet included.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
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
        self.waiting.insert(entry);
    }

    /// Raises by one level what has waited another interval.
    pub(crate) fn age(&mut self, now: Instant) {
        self.waiting.age(now);
    }

    /// Takes out what was withdrawn and has come up, and what can no longer be done by its deadline. A request is looked
    /// at when nothing of its level is due before it: what its own size makes hopeless may be noticed that much later.
    pub(crate) fn refuse(&mut self, now: Instant, removed: &mut Removed<C>) {
        for shelf in Shelf::ALL {
            while let Some(key) = self.waiting.first_due(shelf).filter(|&key| self.is_hopeless(key, now)) {
                self.dismiss(key, removed);
            }
        }
        while let Some(key) = self.waiting.first_overdue().filter(|&key| self.is_hopeless(key, now)) {
            self.dismiss(key, removed);
        }
        self.refuse_by_tenant(now, removed);
        self.waiting.forget_departed();
    }

    /// The more a tenant has waiting, the larger the batch in which its requests must be in time: so of what waits on a
    /// shelf, one tenant's may be hopeless while another's that is due before it is not.
    fn refuse_by_tenant(&mut self, now: Instant, removed: &mut Removed<C>) {
        let surely_in_time = self.waiting.ticks(self.finish(now, self.id.max_rows()));
        let mut firsts = Shelf::ALL.into_iter().filter_map(|shelf| self.waiting.first_due(shelf));
        if firsts.all(|key| key.due >= surely_in_time) {
            return;
        }
        // From the last on: the last takes the place of one that has nothing left.
        for position in (0..self.waiting.tenants()).rev() {
            for shelf in Shelf::ALL {
                while let Some(key) = self.waiting.first_of_tenant(position, shelf)
                    && key.due < surely_in_time
                    && self.is_hopeless(key, now)
                {
                    self.dismiss(key, removed);
                }
            }
        }
    }

    /// When the first of those that are due first in their level becomes hopeless.
    pub(crate) fn next_hopeless(&mut self, now: Instant) -> Option<Instant> {
        Shelf::ALL
            .into_iter()
            .filter_map(|shelf| {
                let key = self.waiting.first_due(shelf)?;
                self.hopeless_at(key, now)
            })
            .min()
    }

    /// Just after the last moment at which the request can still be done by its deadline.
    fn hopeless_at(&self, key: Key, now: Instant) -> Option<Instant> {
        let held = self.waiting.get(key)?;
        let cost = self.bound(self.company(held), now);
        Some(held.entry.deadline?.checked_sub(cost).unwrap_or(now).max(now) + Duration::from_nanos(1))
    }

    fn is_hopeless(&self, key: Key, now: Instant) -> bool {
        let Some(held) = self.waiting.get(key) else { return true };
        let rows = self.company(held);
        let in_time = |deadline| deadline > now && deadline >= self.finish(now, rows);
        held.entry.content.is_withdrawn() || !held.entry.deadline.is_none_or(in_time)
    }

    fn dismiss(&mut self, key: Key, removed: &mut Removed<C>) {
        let claimed = self.waiting.vacate(key).map(|(entry, level)| entry.claim(effective_priority(level)));
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
        self.nanos(self.waiting.rows())
    }

    /// Adds what a tenant has queued with deadlines to `ahead`. False if that is nothing.
    pub(crate) fn add_to(&self, tenant: usize, ahead: &mut Ahead) -> bool {
        self.waiting.add_to(tenant, ahead, self.nanos(1))
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

    /// What the policy must know; none if nothing waits. Takes out what was withdrawn and would have gone first: it lends
    /// the group no place before others.
    pub(crate) fn summary(&mut self, now: Instant, turns: &Turns, removed: &mut Removed<C>) -> Option<Waiting> {
        let order = if turns.raised_first() { Shelf::RAISED_FIRST } else { Shelf::NATIVE_FIRST };
        let (place, first) = loop {
            let (place, first) = self.waiting.first(&order, turns)?;
            if !self.waiting.get(first)?.entry.content.is_withdrawn() {
                break (place, first);
            }
            self.dismiss(first, removed);
        };
        let tightest = Shelf::ALL
            .into_iter()
            .filter_map(|shelf| {
                let key = self.waiting.first_due(shelf)?;
                self.waiting.get(key)?.entry.deadline
            })
            .min();
        let submitted = self.waiting.get(first)?.entry.submitted;
        let oldest = self.waiting.oldest().unwrap_or(submitted);
        let batch_cost = self.bound(self.waiting.rows().min(self.id.max_rows()), now);
        let largest_cost = self.bound(self.id.max_rows(), now);
        Some(Waiting {
            group: self.id,
            head: Rank {
                place,
                round: turns.round(self.waiting.tenant(first)),
                due: if order[place] == Shelf::OVERDUE { Ticks::NEVER } else { first.due },
                submitted: first.submitted,
            },
            len: self.waiting.len(),
            rows: self.waiting.rows(),
            oldest,
            newest: self.arrivals.newest().unwrap_or(submitted),
            tightest,
            gap: self.arrivals.gap(),
            waits_pay: self.patience.is_worth(self.waiting.len(), now),
            fixed_cost: self.service_time.fixed(),
            batch_cost,
            largest_cost,
        })
    }

    /// What waits is held back, until then at most.
    pub(crate) fn hold_back(&mut self, until: Instant) {
        self.patience.begin(self.waiting.len(), until);
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
        let limit = self.sizes.worth_taking(self.waiting.rows().min(self.id.full_rows()), cost);
        let mut taking = Taking { now, rows: 0, limit, raised_rows: 0, raised_limit: None, tightest: None };
        if turns.raised_first() {
            taking.raised_limit = Some(self.id.full_rows().div_ceil(2));
            self.take_in_order(&Shelf::RAISED_FIRST, &mut taking, turns, batch, removed);
            taking.raised_limit = None;
        }
        self.take_in_order(&Shelf::NATIVE_FIRST, &mut taking, turns, batch, removed);
        turns.settle(taking.rows - taking.raised_rows, taking.raised_rows, self.id.max_rows());
        self.waiting.forget_departed();
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
        if self.waiting.tenants() == 0 {
            for &shelf in order {
                while let Some(key) = self.waiting.first_on(shelf)
                    && self.take_one(key, shelf, taking, turns, batch, removed)
                {}
            }
            return;
        }
        self.waiting.line_up(order, turns);
        while taking.rows < taking.limit
            && let Some((place, key)) = self.waiting.next(order, turns)
        {
            if !self.take_one(key, order[place], taking, turns, batch, removed) {
                self.waiting.close(key, order[place]);
            }
        }
        self.waiting.open();
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
        let Some(held) = self.waiting.get(key) else { return false };
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
        let Some((entry, level)) = self.waiting.vacate(key) else { return false };
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
        let withdrawn = self.waiting.extract(|entry| entry.content.is_withdrawn());
        // Claiming gives back what is left of it.
        removed
            .withdrawn
            .extend(withdrawn.into_iter().filter_map(|(entry, level)| entry.claim(effective_priority(level)).err()));
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) -> Vec<Entry<C>> {
        self.waiting.extract(|_| true).into_iter().map(|(entry, _)| entry).collect()
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
        let waiting = self.waiting.rows_before(held, turn_rows(full), full, full.saturating_mul(2));
        held.entry.rows.max(waiting.saturating_sub(full).min(full))
    }
}
