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
    config: GroupConfig,
}

impl GroupId {
    pub(crate) const fn new(index: u32, config: GroupConfig) -> Self {
        Self { index, config }
    }

    /// The group's number: 0, 1, 2 ... in the order in which the groups were added.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    pub(crate) const fn number(self) -> u32 {
        self.index
    }

    /// The most rows that one batch of this group holds.
    #[must_use]
    pub const fn max_rows(self) -> usize {
        self.config.max_rows.get()
    }

    /// The rows at which a batch of this group is full.
    #[must_use]
    pub const fn full_rows(self) -> usize {
        self.config.full_rows.get()
    }
}

/// The limits of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupConfig {
    max_rows: NonZeroUsize,
    full_rows: NonZeroUsize,
}

impl GroupConfig {
    /// Batches of at most `max_rows` rows (the sum of [`Request::rows`](crate::Request::rows)). A single request heavier
    /// than this is refused.
    #[must_use]
    pub const fn up_to(max_rows: NonZeroUsize) -> Self {
        Self { max_rows, full_rows: max_rows }
    }

    /// Closes a batch as full at `rows` already. Take the size past which the cost of a row stops falling: more only
    /// adds latency. A single request that is heavier goes alone. More than the largest batch means the largest batch.
    #[must_use]
    pub fn full_at(mut self, rows: NonZeroUsize) -> Self {
        self.full_rows = rows.min(self.max_rows);
        self
    }
}
