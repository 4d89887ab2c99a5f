//! What whoever rests waits for, where submitters can read it.

use std::time::{Duration, Instant};

use crate::GroupId;
use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering};

/// In place of a group: what waits is of no interest but for its deadline.
const DEADLINES_ONLY: u32 = u32::MAX - 1;
/// In place of a group: any arrival is of interest.
const ANY: u32 = u32::MAX;

/// When the timekeeper must look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch {
    /// When something in the queue may become hopeless; none if nothing there has a deadline.
    pub(crate) until: Option<Instant>,
    /// A request due before this may become hopeless before `until`; none if any may.
    pub(crate) due_before: Option<Instant>,
}

impl Watch {
    /// Until a request with a deadline comes.
    pub(crate) const ANY: Self = Self { until: None, due_before: None };
}

/// What a dozing leader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// When to wake in any case.
    pub(crate) until: Instant,
    /// The group that waits, and how many more rows would fill its batch. None if several do: then any arrival wakes.
    pub(crate) group: Option<(GroupId, usize)>,
    /// A request due before this might have to start before `until`.
    pub(crate) due_before: Instant,
}

/// [`Terms`] where submitters can read them. Written by the leader before the word says dozing (whose Release
/// publishes them), read by submitters after they saw it say so. One that reads them late, when another doze has
/// begun, may wake the leader for nothing or count its rows twice; the leader then decides again, no worse.
#[derive(Debug)]
pub(crate) struct PublishedTerms {
    epoch: Instant,
    /// The group's number, [`DEADLINES_ONLY`] or [`ANY`].
    group: AtomicU32,
    /// Counted down by submitters.
    rows_wanted: AtomicI64,
    /// Nanoseconds since `epoch`.
    due_before: AtomicU64,
}

impl PublishedTerms {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, group: AtomicU32::new(ANY), rows_wanted: AtomicI64::new(0), due_before: AtomicU64::new(0) }
    }

    /// A leader is about to doze.
    pub(crate) fn publish(&self, terms: Terms) {
        let (group, rows) = terms.group.map_or((ANY, 0), |(group, rows)| (group.number(), rows));
        self.group.store(group, Ordering::Relaxed);
        self.rows_wanted.store(i64::try_from(rows).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.due_before.store(self.ticks(terms.due_before), Ordering::Relaxed);
    }

    /// The timekeeper is about to doze.
    pub(crate) fn publish_watch(&self, watch: Watch) {
        let due_before = watch.due_before.map_or(u64::MAX, |due_before| self.ticks(due_before));
        self.group.store(DEADLINES_ONLY, Ordering::Relaxed);
        self.due_before.store(due_before, Ordering::Relaxed);
    }

    /// Whether a request that arrived must wake whoever dozes.
    pub(crate) fn cannot_wait(&self, group: GroupId, rows: usize, deadline: Option<Instant>) -> bool {
        let awaited = self.group.load(Ordering::Relaxed);
        let is_due = || deadline.is_some_and(|due| self.ticks(due) < self.due_before.load(Ordering::Relaxed));
        if awaited == DEADLINES_ONLY {
            return is_due();
        }
        if group.number() != awaited {
            return true;
        }
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.rows_wanted.fetch_sub(rows, Ordering::Relaxed) <= rows {
            return true;
        }
        is_due()
    }

    fn ticks(&self, time: Instant) -> u64 {
        let since: Duration = time.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
