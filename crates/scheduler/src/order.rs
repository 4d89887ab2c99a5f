//! In which order requests go.

use std::time::{Duration, Instant};

use crate::Priority;

/// The effective priorities: the four lanes, and before them the overdue, whose waiting outgrew the lanes.
pub(crate) const LEVELS: usize = Priority::COUNT + 1;

/// The level of what waited so long that it goes before everything, oldest first.
pub(crate) const OVERDUE: usize = 0;

/// The level at which a request of this priority starts.
pub(crate) const fn level(priority: Priority) -> usize {
    priority.lane() + 1
}

/// The priority that a level stands for in a report.
pub(crate) const fn effective_priority(level: usize) -> Priority {
    match level {
        OVERDUE | 1 => Priority::Critical,
        2 => Priority::High,
        3 => Priority::Normal,
        _ => Priority::Low,
    }
}

/// How many shelves there are.
pub(crate) const SHELVES: usize = 2 * Priority::COUNT;

/// Where requests wait that are alike in effective priority and in how they came by it: by their lane, or by waiting.
/// The first four hold the raised, by level; the others the rest, by lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shelf(usize);

impl Shelf {
    pub(crate) const OVERDUE: Self = Self(0);

    pub(crate) const ALL: [Self; SHELVES] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7)];

    /// The order in which shelves are served where the raised go first: by level, and on each level the raised.
    pub(crate) const RAISED_FIRST: [Self; SHELVES] =
        [Self(0), Self(1), Self(4), Self(2), Self(5), Self(3), Self(6), Self(7)];

    /// The order in which they are served where the others go first.
    pub(crate) const NATIVE_FIRST: [Self; SHELVES] =
        [Self(4), Self(5), Self(6), Self(7), Self(0), Self(1), Self(2), Self(3)];

    /// Where a request of this lane waits that has reached this level.
    pub(crate) const fn of(lane: Priority, level: usize) -> Self {
        if level < self::level(lane) { Self(level) } else { Self(Priority::COUNT + lane.lane()) }
    }

    pub(crate) const fn index(self) -> usize {
        self.0
    }

    pub(crate) const fn is_raised(self) -> bool {
        self.0 < Priority::COUNT
    }
}

/// A time as keys hold it: nanoseconds since the scheduler's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u64);

impl Ticks {
    /// After every other time: no deadline.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn at(time: Instant, epoch: Instant) -> Self {
        Self(time.saturating_duration_since(epoch).as_nanos() as u64)
    }

    /// So long before; none before the beginning.
    pub(crate) fn before(self, wait: Duration) -> Option<Self> {
        Some(Self(self.0.checked_sub(u64::try_from(wait.as_nanos()).ok()?)?))
    }
}

/// A request's place among those of its level, and where to find it in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its deadline.
    pub(crate) due: Ticks,
    pub(crate) submitted: Ticks,
    /// The order of arrival in the group; unique, so that a place that was given to another request is told apart.
    pub(crate) sequence: u64,
    pub(crate) index: u32,
}

/// What decides between the first requests of two groups: their tenants' turns, when their shelf is served, deadline,
/// submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) round: u64,
    /// The shelf's place in the order of service.
    pub(crate) place: usize,
    pub(crate) due: Ticks,
    pub(crate) submitted: Ticks,
}
