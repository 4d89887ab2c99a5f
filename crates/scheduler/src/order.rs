//! In which order requests go.

use std::time::Instant;

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

/// A request's place among those of its level, and where to find it in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Its deadline, except among the overdue, where its submission comes first. None comes last.
    pub(crate) due: Due,
    pub(crate) submitted: Instant,
    /// The order of arrival in the group; unique, so that a place that was given to another request is told apart.
    pub(crate) sequence: u64,
    pub(crate) index: usize,
}

/// A deadline, where no deadline comes after every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    By(Instant),
    Never,
}

impl From<Option<Instant>> for Due {
    fn from(deadline: Option<Instant>) -> Self {
        deadline.map_or(Self::Never, Self::By)
    }
}

/// What decides between the first requests of two groups: effective priority, deadline, submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) level: usize,
    pub(crate) due: Due,
    pub(crate) submitted: Instant,
}
