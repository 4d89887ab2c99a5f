//! How a request ended, and when each thing happened to it.

use std::time::{Duration, Instant};

use crate::{Failure, Priority};

/// How a request ended. Every accepted request whose ticket is kept gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome<R> {
    /// The executor's value, or why there is none.
    pub result: Result<R, Failure>,
    /// When each thing happened.
    pub timings: Timings,
}

/// When each thing happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// When the request was submitted.
    pub submitted: Instant,
    /// The lane it was submitted to.
    pub priority: Priority,
    /// The batch it went in; none if it never was in one.
    pub batch: Option<BatchInfo>,
    /// When its outcome was decided.
    pub completed: Instant,
}

impl Timings {
    /// From submission to the moment a batch took the request, or to its end if none did.
    #[must_use]
    pub fn queue_time(&self) -> Duration {
        let end = self.batch.map_or(self.completed, |batch| batch.formed);
        end.saturating_duration_since(self.submitted)
    }

    /// How long the executor took over the batch; zero if the request never was in one.
    #[must_use]
    pub fn execute_time(&self) -> Duration {
        self.batch.map_or(Duration::ZERO, |batch| self.completed.saturating_duration_since(batch.started))
    }

    /// From submission to outcome.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.completed.saturating_duration_since(self.submitted)
    }
}

/// The batch that a request went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// When the batch was closed.
    pub formed: Instant,
    /// When the executor was called.
    pub started: Instant,
    /// How many requests it held.
    pub len: usize,
    /// How many rows they had together.
    pub rows: usize,
    /// The request's effective priority by then: its lane, raised by what it had waited.
    pub priority: Priority,
}
