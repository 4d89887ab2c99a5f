//! What may share a batch.

use std::num::NonZeroUsize;

/// Names what may share a batch: a model version and shape, a table, a file. From [`Scheduler::add_group`].
///
/// It carries the group's limits with it, so that submitting looks nothing up.
///
/// [`Scheduler::add_group`]: crate::Scheduler::add_group
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId {
    index: u32,
    max_rows: NonZeroUsize,
}

impl GroupId {
    pub(crate) const fn new(index: u32, config: GroupConfig) -> Self {
        Self { index, max_rows: config.max_rows }
    }

    /// The group's number: 0, 1, 2 ... in the order in which the groups were added.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The most rows that one batch of this group holds.
    #[must_use]
    pub const fn max_rows(self) -> usize {
        self.max_rows.get()
    }
}

/// The limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupConfig {
    /// The most rows (the sum of [`Request::rows`](crate::Request::rows)) in one batch. Take the size past which
    /// the cost of a row stops falling: more only adds latency. A single request heavier than this is refused.
    pub max_rows: NonZeroUsize,
}
