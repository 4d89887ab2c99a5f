//! The workers' half of a request, with the guarantee that it gets exactly one outcome.
//!
//! Dropping either form settles the request with [`Failure::ShutDown`]: whatever path an entry takes, its caller hears.

use std::time::Instant;

use crate::outcome::BatchInfo;
use crate::slot::{CallerHalf, Debt, Promise, Waiter, pair};
use crate::{Failure, Outcome, Priority, TenantId, Timings};

/// What both halves know of the request.
pub(crate) struct Submission {
    pub(crate) at: Instant,
    pub(crate) priority: Priority,
    pub(crate) tenant: Option<TenantId>,
}

/// The caller's half.
pub(crate) type Caller<R> = CallerHalf<Outcome<R>, Submission>;

/// A request that is queued: its caller may still withdraw it.
pub(crate) struct Pending<R>(Option<Promise<Outcome<R>, Submission>>);

/// A request that its caller can no longer withdraw.
pub(crate) struct Owed<R>(Option<Debt<Outcome<R>, Submission>>);

/// The two halves of a new request.
pub(crate) fn halves<R>(submission: Submission) -> (Caller<R>, Pending<R>) {
    let (caller, promise) = pair(submission);
    (caller, Pending(Some(promise)))
}

impl<R> Pending<R> {
    /// Takes the request out of the queue; the taker gives its place back. None if it was withdrawn, when its place was
    /// given back already.
    pub(crate) fn claim(mut self) -> Option<Owed<R>> {
        let debt = self.0.take()?.claim()?;
        Some(Owed(Some(debt)))
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.as_ref().is_none_or(Promise::is_withdrawn)
    }
}

impl<R> Owed<R> {
    /// Takes the debt over; what is left owes nothing.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Hands the outcome over; gives back whom to wake, unless it `will_wake` anyway.
    pub(crate) fn settle(
        mut self,
        result: Result<R, Failure>,
        batch: Option<BatchInfo>,
        completed: Instant,
        will_wake: impl FnOnce(&Waiter) -> bool,
    ) -> Option<Waiter> {
        let debt = self.0.take()?;
        let &Submission { at, priority, .. } = debt.context();
        let timings = Timings { submitted: at, priority, batch, completed };
        debt.settle(Outcome { result, timings }, will_wake)
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        drop(self.0.take().and_then(Promise::claim).map(|debt| Owed(Some(debt))));
    }
}

impl<R> Drop for Owed<R> {
    fn drop(&mut self) {
        if let Some(debt) = self.0.take() {
            let waiter = Self(Some(debt)).settle(Err(Failure::ShutDown), None, Instant::now(), |_| false);
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}
