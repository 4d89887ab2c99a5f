//! What a submitter can know of the wait ahead of it, without a lock.
//!
//! The leader publishes, each time it has looked at the queue, how much device time goes before each tenant, lane and
//! deadline; submitters read that, and count themselves in until the leader looks again. What goes before a request is
//! what its own tenant has queued before it, weighted with the share that the tenant gets of the device, and the turn
//! that each other tenant may have first: not the backlog of a tenant that wants more than its share. Every atomic is a
//! number of
//! its own and publishes no other memory, hence `Relaxed` throughout: a submitter that reads half of one forecast
//! and half of the next gets a prediction between the two.

use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::Table;
use crate::{GroupId, Priority, TenantId};

/// How finely deadlines are told apart.
const SLOT: Duration = Duration::from_millis(16);
/// How many slots there are; what is due later than that shares one more. Loom, which keeps a history of each atomic,
/// has to do with fewer.
const SLOTS: usize = if cfg!(loom) { 2 } else { 64 };

/// Rows by submitted lane, and by when they are due.
///
/// A slot is found by the deadline alone, modulo the number of slots: what is queued is due within about `SLOTS` slots
/// from now, for what is overdue leaves the queue and what is due later is counted apart.
#[derive(Debug)]
pub(crate) struct DueRows {
    rows: [[u64; SLOTS + 1]; Priority::COUNT],
    total: usize,
}

/// Where a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DueSlot(Option<u8>);

impl DueRows {
    pub(crate) const fn new() -> Self {
        Self { rows: [[0; SLOTS + 1]; Priority::COUNT], total: 0 }
    }

    pub(crate) fn add(
        &mut self,
        lane: Priority,
        rows: usize,
        deadline: Option<Instant>,
        submitted: Instant,
        epoch: Instant,
    ) -> DueSlot {
        let Some(deadline) = deadline else { return DueSlot(None) };
        let (first, slot) = (slot_of(submitted, epoch), slot_of(deadline, epoch));
        let index = if slot < first + SLOTS as u64 { (slot % SLOTS as u64) as usize } else { SLOTS };
        let slot = DueSlot(Some(index as u8));
        self.count(lane, rows, slot);
        slot
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn count(&mut self, lane: Priority, rows: usize, slot: DueSlot) {
        if let Some(index) = slot.0 {
            self.rows[lane.lane()][usize::from(index)] += rows as u64;
            self.total += rows;
        }
    }

    pub(crate) fn remove(&mut self, lane: Priority, rows: usize, slot: DueSlot) {
        if let Some(index) = slot.0 {
            self.rows[lane.lane()][usize::from(index)] -= rows as u64;
            self.total -= rows;
        }
    }

    /// Adds this to `ahead`, at `nanos` of device time a row. False if there is nothing to add.
    pub(crate) fn add_to(&self, ahead: &mut Ahead, nanos: u64) -> bool {
        if self.total == 0 {
            return false;
        }
        for (lane, rows) in self.rows.iter().enumerate() {
            for (slot, &rows) in rows.iter().enumerate() {
                ahead.nanos[lane][slot] += rows.saturating_mul(nanos);
            }
        }
        true
    }
}

fn slot_of(time: Instant, epoch: Instant) -> u64 {
    time.saturating_duration_since(epoch).as_nanos() as u64 / SLOT.as_nanos() as u64
}

/// Device time by lane and slot: of one tenant, as it is due.
#[derive(Debug)]
pub(crate) struct Ahead {
    nanos: [[u64; SLOTS + 1]; Priority::COUNT],
}

impl Ahead {
    pub(crate) const fn new() -> Self {
        Self { nanos: [[0; SLOTS + 1]; Priority::COUNT] }
    }
}

/// What a batch of a group costs at most, in nanoseconds: without rows, and full.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) fixed: u64,
    pub(crate) full: u64,
    /// What a full batch costs on average.
    pub(crate) mean_full: u64,
}

#[derive(Default)]
struct PublishedBounds {
    fixed: AtomicU64,
    full: AtomicU64,
    mean_full: AtomicU64,
    /// In nanoseconds since the epoch.
    valid_until: AtomicU64,
}

/// What the leader publishes and submitters read.
pub(crate) struct Forecast {
    epoch: Instant,
    workers: u64,
    groups: Table<PublishedBounds>,
    /// The slot of the time at which the leader looked.
    first: AtomicU64,
    /// When the first worker will be free, in nanoseconds since the epoch.
    free_at: AtomicU64,
    /// Device time by lane and slot (counted from `first`), in microseconds: a turn of each tenant that waits, or what it
    /// has due by then in this lane and those before it, if that is less.
    turns: Published,
    without_tenant: Line,
    tenants: Table<Line>,
}

type Published = [[AtomicU32; SLOTS + 1]; Priority::COUNT];

/// What lies before a request because of its own tenant.
struct Line {
    /// What the tenant has due, by lane and slot, over its share of the device; less its own part of `turns`, so that the
    /// two add up.
    own: Published,
    /// By how much a wait in each lane grows because the tenant's lanes before it go on arriving, in hundredths.
    stretch: [AtomicU32; Priority::COUNT],
    /// The device time of a typical request, over the tenant's share of the device, in nanoseconds.
    per_request: AtomicU64,
    /// Requests with a deadline that were submitted, by submitters; and of these how many the leader has counted above.
    submitted: [CachePadded<AtomicU64>; Priority::COUNT],
    counted: [AtomicU64; Priority::COUNT],
}

fn published() -> Published {
    std::array::from_fn(|_| std::array::from_fn(|_| AtomicU32::new(0)))
}

impl Default for Line {
    fn default() -> Self {
        Self {
            own: published(),
            stretch: std::array::from_fn(|_| AtomicU32::new(100)),
            per_request: AtomicU64::new(0),
            submitted: std::array::from_fn(|_| CachePadded::new(AtomicU64::new(0))),
            counted: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// What the leader knows besides the groups' bounds: a forecast in the making.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub(crate) now: Instant,
    pub(crate) free_at: Instant,
    /// The device time of one turn, in nanoseconds.
    pub(crate) turn: u64,
    /// The first turns of those that wait, by lane and slot from now.
    turns: Ahead,
}

/// What the leader knows of a tenant.
#[derive(Debug)]
pub(crate) struct Prospect {
    pub(crate) ahead: Ahead,
    /// The share of the device that the tenant gets.
    pub(crate) share: f64,
    pub(crate) stretch: [f64; Priority::COUNT],
    /// The device time of a typical request, in nanoseconds.
    pub(crate) per_request: Option<u64>,
    pub(crate) counted: [u64; Priority::COUNT],
}

impl Outlook {
    pub(crate) const fn new(now: Instant, free_at: Instant, turn: u64) -> Self {
        Self { now, free_at, turn, turns: Ahead::new() }
    }
}

impl Forecast {
    pub(crate) fn new(epoch: Instant, workers: usize) -> Self {
        Self {
            epoch,
            workers: workers as u64,
            groups: Table::new(),
            first: AtomicU64::new(0),
            free_at: AtomicU64::new(0),
            turns: published(),
            without_tenant: Line::default(),
            tenants: Table::new(),
        }
    }

    pub(crate) const fn epoch(&self) -> Instant {
        self.epoch
    }

    /// A submitter has pushed a request with a deadline.
    #[inline]
    pub(crate) fn count_in(&self, tenant: Option<TenantId>, lane: Priority) {
        self.line(tenant).submitted[lane.lane()].fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    fn line(&self, tenant: Option<TenantId>) -> &Line {
        tenant.map_or(&self.without_tenant, |tenant| self.tenants.get(tenant.number()))
    }

    /// The predicted wait of a request that could not be done by its deadline; none if it can, or if too little is
    /// known to say.
    pub(crate) fn hopeless_wait(
        &self,
        now: Instant,
        tenant: Option<TenantId>,
        lane: Priority,
        group: GroupId,
        rows: usize,
        deadline: Instant,
    ) -> Option<Duration> {
        let cost = self.groups.get(group.number());
        let ticks = self.ticks(now);
        if ticks > cost.valid_until.load(Ordering::Relaxed) {
            return None;
        }
        let due = self.ticks(deadline);
        let slot = (due / SLOT.as_nanos() as u64).saturating_sub(self.first.load(Ordering::Relaxed));
        let slot = (slot as usize).min(SLOTS);
        let line = self.line(tenant);
        let [turns, own] = [&self.turns, &line.own].map(|ahead| ahead[lane.lane()][slot].load(Ordering::Relaxed));
        let newer: u64 = (0..=lane.lane())
            .map(|lane| {
                let submitted = line.submitted[lane].load(Ordering::Relaxed);
                submitted.saturating_sub(line.counted[lane].load(Ordering::Relaxed))
            })
            .sum();
        let ahead = (u64::from(turns) + u64::from(own)) * 1_000 + newer * line.per_request.load(Ordering::Relaxed);
        let busy = self.free_at.load(Ordering::Relaxed).saturating_sub(ticks);
        let stretch = u64::from(line.stretch[lane.lane()].load(Ordering::Relaxed));
        let wait = busy + ahead * stretch / 100 / self.workers;

        let (fixed, full) = (cost.fixed.load(Ordering::Relaxed), cost.full.load(Ordering::Relaxed));
        let full_rows = group.full_rows() as u64;
        let per_row = (cost.mean_full.load(Ordering::Relaxed) / full_rows).max(1);
        // The batch it must bear, as the queue will judge it.
        let company = (ahead / per_row).saturating_sub(full_rows).min(full_rows).max(rows as u64);
        let own = fixed + full.saturating_sub(fixed) * company / full_rows;
        (ticks + wait + own > due).then(|| Duration::from_nanos(wait))
    }

    pub(crate) fn publish_group(&self, group: GroupId, bounds: Bounds, valid_until: Instant) {
        let cost = self.groups.get(group.number());
        cost.fixed.store(bounds.fixed, Ordering::Relaxed);
        cost.full.store(bounds.full, Ordering::Relaxed);
        cost.mean_full.store(bounds.mean_full, Ordering::Relaxed);
        cost.valid_until.store(self.ticks(valid_until), Ordering::Relaxed);
    }

    /// Publishes what lies before the requests of a tenant (by its [place](crate::turns::place)), and notes its first turn
    /// in `outlook`.
    pub(crate) fn publish_tenant(&self, tenant: usize, prospect: &Prospect, outlook: &mut Outlook) {
        let number = tenant.checked_sub(1);
        let line = number.map_or(&self.without_tenant, |number| self.tenants.get(number as u32));
        let first = slot_of(outlook.now, self.epoch);
        let mut before = [0; SLOTS + 1];
        for (lane, published) in line.own.iter().enumerate() {
            let mut sum = 0;
            for (i, published) in published.iter().enumerate() {
                let slot = if i == SLOTS { SLOTS } else { ((first + i as u64) % SLOTS as u64) as usize };
                sum += prospect.ahead.nanos[lane][slot];
                before[i] += sum;
                let turn = before[i].min(outlook.turn);
                outlook.turns.nanos[lane][i] += turn;
                published.store(micros((before[i] as f64 / prospect.share) as u64 - turn), Ordering::Relaxed);
            }
        }
        for (published, stretch) in line.stretch.iter().zip(prospect.stretch) {
            published.store((stretch * 100.0) as u32, Ordering::Relaxed);
        }
        if let Some(per_request) = prospect.per_request {
            line.per_request.store((per_request as f64 / prospect.share) as u64, Ordering::Relaxed);
        }
        for (published, &counted) in line.counted.iter().zip(&prospect.counted) {
            published.store(counted, Ordering::Relaxed);
        }
    }

    /// Publishes what concerns everybody, after the tenants.
    pub(crate) fn publish(&self, outlook: &Outlook) {
        self.first.store(slot_of(outlook.now, self.epoch), Ordering::Relaxed);
        self.free_at.store(self.ticks(outlook.free_at), Ordering::Relaxed);
        for (lane, nanos) in self.turns.iter().zip(&outlook.turns.nanos) {
            for (published, &nanos) in lane.iter().zip(nanos) {
                published.store(micros(nanos), Ordering::Relaxed);
            }
        }
    }

    fn ticks(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }
}

fn micros(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000).unwrap_or(u32::MAX)
}
