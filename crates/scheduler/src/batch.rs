//! What an executor gets: requests that go together.

use std::fmt;
use std::time::Instant;

use crate::answer::Owed;
use crate::delivery::{Delivery, contain};
use crate::entry::Taken;
use crate::in_flight::{Facts, Promise};
use crate::outcome::BatchInfo;
use crate::{Failure, GroupId, Handoff, Priority};

/// Requests of one group that go together, at most [`GroupConfig::up_to`](crate::GroupConfig::up_to) of rows.
/// Never empty.
///
/// They are numbered from 0 in the order in which they were taken: effective priority, deadline, submission.
pub struct Batch<T, R> {
    group: GroupId,
    items: Vec<Taken<T, R>>,
    results: Vec<Option<R>>,
    rows: usize,
    padded_rows: usize,
    formed: Instant,
    started: Instant,
}

/// Does the work. One worker calls it with one batch at a time, so it may own what the work needs, without a lock.
///
/// Any `FnMut(&mut Batch<T, R>)` is an executor.
pub trait Executor<T, R> {
    /// Works on a batch and [completes](Batch::complete) each of its requests.
    ///
    /// The answers are delivered together when this returns. A request that was not completed fails with
    /// [`Failure::Unanswered`]. If this panics, all of the batch fails with [`Failure::WorkerPanicked`], also what was
    /// completed before, and the worker goes on.
    fn execute(&mut self, batch: &mut Batch<T, R>);

    /// This worker has delivered the answers of a batch, also of one that panicked, and has not formed its next. What is
    /// done here delays that one, and [`Scheduler::executing`](crate::Scheduler::executing) does not show it. If this
    /// panics, the worker goes on.
    ///
    /// Does nothing, unless an executor has something to do then: to give way, for example, to threads that share its core
    /// and are behind.
    fn delivered(&mut self) {}
}

impl<T, R, F: FnMut(&mut Batch<T, R>)> Executor<T, R> for F {
    fn execute(&mut self, batch: &mut Batch<T, R>) {
        self(batch);
    }
}

impl<T, R> Batch<T, R> {
    /// A batch of `items`, about to be executed; `results` is for its memory.
    pub(crate) fn new(
        group: GroupId,
        items: Vec<Taken<T, R>>,
        padded_rows: usize,
        mut results: Vec<Option<R>>,
        formed: Instant,
    ) -> Self {
        results.clear();
        results.resize_with(items.len(), || None);
        let rows = items.iter().map(|item| item.rows).sum();
        Self { group, items, results, rows, padded_rows, formed, started: Instant::now() }
    }

    /// What the requests have in common.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// How many requests there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// How many rows the requests have together.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// As how many rows to execute it: the least of the group's [sizes](crate::GroupConfig::of_sizes) that holds its rows;
    /// without sizes, its rows.
    #[must_use]
    pub const fn padded_rows(&self) -> usize {
        self.padded_rows
    }

    /// When the batch was closed.
    #[must_use]
    pub const fn formed(&self) -> Instant {
        self.formed
    }

    /// When the executor was called.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The payload of request `i`.
    ///
    /// # Panics
    ///
    /// If there is no request `i`.
    #[must_use]
    pub fn payload(&self, i: usize) -> &T {
        &self.items[i].content.payload
    }

    /// The payloads, in order.
    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &T> {
        self.items.iter().map(|item| &item.content.payload)
    }

    /// How many rows request `i` has.
    ///
    /// # Panics
    ///
    /// If there is no request `i`.
    #[must_use]
    pub fn rows_of(&self, i: usize) -> usize {
        self.items[i].rows
    }

    /// When request `i` was submitted.
    ///
    /// # Panics
    ///
    /// If there is no request `i`.
    #[must_use]
    pub fn submitted(&self, i: usize) -> Instant {
        self.items[i].submitted
    }

    /// The lane that request `i` was submitted to.
    ///
    /// # Panics
    ///
    /// If there is no request `i`.
    #[must_use]
    pub fn priority(&self, i: usize) -> Priority {
        self.items[i].lane
    }

    /// Answers request `i`. Its caller gets the value when the executor returns.
    ///
    /// # Panics
    ///
    /// If there is no request `i`, or if it was completed before.
    pub fn complete(&mut self, i: usize, value: R) {
        let result = &mut self.results[i];
        assert!(result.is_none(), "request {i} of the batch was completed twice");
        *result = Some(value);
    }

    /// What there is to know of it while it is executed.
    pub(crate) fn facts(&self) -> Facts {
        Facts { group: self.group, rows: self.rows, formed: self.formed, started: self.started }
    }

    /// Takes out what its requests are owed, into `promises`.
    pub(crate) fn promises(&mut self, promises: &mut Vec<Promise<R>>) {
        promises.extend(self.items.iter_mut().map(|item| Promise {
            owed: item.content.owed.take(),
            handoff: item.content.handoff.take(),
            priority: item.priority,
        }));
    }

    /// Settles every request, `panicked` or not, and takes down whom to wake. Gives the memory back, and the payloads.
    pub(crate) fn settle(
        mut self,
        promises: &mut Vec<Promise<R>>,
        completed: Instant,
        panicked: bool,
        delivery: &mut Delivery,
    ) -> (Vec<Taken<T, R>>, Vec<Option<R>>) {
        let (facts, len) = (self.facts(), self.items.len());
        for ((item, value), promise) in self.items.drain(..).zip(self.results.drain(..)).zip(promises.drain(..)) {
            let result = match value {
                value if panicked => {
                    contain(|| drop(value));
                    Err(Failure::WorkerPanicked)
                }
                Some(value) => Ok(value),
                None => Err(Failure::Unanswered),
            };
            let settlement = Settlement { result, batch: Some(facts.info(len, promise.priority)) };
            settle_one(promise.owed, promise.handoff, settlement, completed, delivery);
            contain(|| drop(item.content.payload));
        }
        (self.items, self.results)
    }

    /// Lets go of everything: somebody else has settled the requests. What panics when it is dropped ends nothing.
    pub(crate) fn let_go(self) {
        for item in self.items {
            contain(|| drop(item.content.payload));
        }
        for value in self.results {
            contain(|| drop(value));
        }
    }
}

/// How a request ends.
pub(crate) struct Settlement<R> {
    pub(crate) result: Result<R, Failure>,
    /// The batch it went in.
    pub(crate) batch: Option<BatchInfo>,
}

/// Hands one outcome over and takes down whom to wake.
pub(crate) fn settle_one<R>(
    owed: Owed<R>,
    handoff: Option<Handoff>,
    settlement: Settlement<R>,
    completed: Instant,
    delivery: &mut Delivery,
) {
    let Settlement { result, batch } = settlement;
    // Where the caller has gone, its result is dropped here, which runs the user's code.
    let mut waiter = None;
    contain(|| {
        waiter = owed.settle(result, batch, completed, |waiter| handoff.is_none() && delivery.will_wake(waiter));
    });
    if let Some(waiter) = waiter {
        delivery.add(waiter, handoff);
    }
}

impl<T, R> fmt::Debug for Batch<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("group", &self.group)
            .field("len", &self.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
