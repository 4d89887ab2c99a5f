//! What may share a batch.

use std::num::NonZeroUsize;

use crate::sizes::Sizes;

/// Names what may share a batch: a model version and shape, a table, a file. From [`Scheduler::add_group`].
///
/// It carries the group's limits with it, so that submitting looks nothing up. It means nothing to another scheduler.
///
/// [`Scheduler::add_group`]: crate::Scheduler::add_group
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupId {
    index: u32,
    // Small: every queued request carries it.
    max_rows: u32,
    full_rows: u32,
}

impl GroupId {
    pub(crate) const fn new(index: u32, config: &GroupConfig) -> Self {
        Self { index, max_rows: capped(config.max_rows), full_rows: capped(config.full_rows) }
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
        self.max_rows as usize
    }

    /// The rows at which a batch of this group is full.
    #[must_use]
    pub const fn full_rows(self) -> usize {
        self.full_rows as usize
    }
}

/// More rows than any executor has memory for are as good as that.
const fn capped(rows: NonZeroUsize) -> u32 {
    if rows.get() < u32::MAX as usize { rows.get() as u32 } else { u32::MAX }
}

/// The limits of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupConfig {
    max_rows: NonZeroUsize,
    full_rows: NonZeroUsize,
    pub(crate) sizes: Sizes,
}

impl GroupConfig {
    /// Batches of at most `max_rows` rows (the sum of [`Request::rows`](crate::Request::rows)). A single request heavier
    /// than this is refused.
    #[must_use]
    pub const fn up_to(max_rows: NonZeroUsize) -> Self {
        Self { max_rows, full_rows: max_rows, sizes: Sizes::any() }
    }

    /// Batches for an executor that is made for these sizes only, such as an engine compiled for each: it executes a batch
    /// as one of [`Batch::padded_rows`](crate::Batch::padded_rows), and what it learns a batch to cost is what that size
    /// costs. Where the rows that wait fill no size, all go, padded, or only as many as fill the next smaller size,
    /// whichever gets more rows done per unit of time. A single request heavier than the largest size is refused.
    ///
    /// # Panics
    ///
    /// Without any size.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use volley_scheduler::GroupConfig;
    ///
    /// let compiled = [1, 8, 32].map(|rows| NonZeroUsize::new(rows).expect("positive"));
    /// let config = GroupConfig::of_sizes(compiled);
    /// ```
    #[must_use]
    pub fn of_sizes(sizes: impl IntoIterator<Item = NonZeroUsize>) -> Self {
        let sizes = Sizes::these(sizes);
        let largest = sizes.largest().expect("a batch has at least one size");
        Self { max_rows: largest, full_rows: largest, sizes }
    }

    /// Closes a batch as full at `rows` already. Take the size past which the cost of a row stops falling: more only
    /// adds latency. A single request that is heavier goes alone. More than the largest batch means the largest batch;
    /// what is not one of the [sizes](Self::of_sizes) means the next larger of them, but for 1, at which no two requests share
    /// a batch, padded as it may be.
    #[must_use]
    pub fn full_at(mut self, rows: NonZeroUsize) -> Self {
        let padded = NonZeroUsize::new(self.sizes.padded(rows.get())).filter(|_| rows > NonZeroUsize::MIN);
        self.full_rows = padded.unwrap_or(rows).min(self.max_rows);
        self
    }
}
