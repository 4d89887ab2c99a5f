//! The workers' half of a request, with the guarantee that it gets exactly one outcome.
//!
//! Dropping either form settles the request with [`Failure::ShutDown`]: whatever path an entry takes, its caller hears.

use std::time::Instant;

use crate::core::Core;
use crate::outcome::BatchInfo;
use crate::slot::{CallerHalf, Debt, Promise, Waiter, pair};
use crate::sync::Arc;
use crate::{Failure, Outcome, Priority, TenantId, Timings};

/// What both halves of a request know.
pub(crate) struct Place {
    pub(crate) core: Arc<Core>,
    pub(crate) priority: Priority,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) submitted: Instant,
}

/// The caller's half.
pub(crate) type Caller<R> = CallerHalf<Outcome<R>, Place>;

/// A request that is queued: its caller may still withdraw it.
pub(crate) struct Pending<R>(Option<Promise<Outcome<R>, Place>>);

/// A request that its caller can no longer withdraw.
pub(crate) struct Owed<R>(Option<Debt<Outcome<R>, Place>>);

/// The two halves of a request that was let in through the gate.
pub(crate) fn halves<R>(place: Place) -> (Caller<R>, Pending<R>) {
    let (caller, promise) = pair(place);
    (caller, Pending(Some(promise)))
}

impl<R> Pending<R> {
    /// Takes the request out of the queue; the taker gives its place back (see [`Core::release`]). None if it was
    /// withdrawn, when its place was given back already.
    pub(crate) fn claim(mut self) -> Option<Owed<R>> {
        let debt = self.0.take()?.claim()?;
        Some(Owed(Some(debt)))
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.as_ref().is_none_or(Promise::is_withdrawn)
    }
}

impl<R> Owed<R> {
    /// Hands the outcome over; gives back whom to wake.
    pub(crate) fn settle(
        mut self,
        result: Result<R, Failure>,
        batch: Option<BatchInfo>,
        completed: Instant,
    ) -> Option<Waiter> {
        let debt = self.0.take()?;
        let place = debt.context();
        let timings = Timings { submitted: place.submitted, priority: place.priority, batch, completed };
        debt.settle(Outcome { result, timings })
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        let Some(promise) = self.0.take() else { return };
        let core = Arc::clone(&promise.context().core);
        let (lane, tenant) = (promise.context().priority, promise.context().tenant);
        if let Some(debt) = promise.claim() {
            core.release(lane, tenant);
            drop(Owed(Some(debt)));
        }
    }
}

impl<R> Drop for Owed<R> {
    fn drop(&mut self) {
        if let Some(debt) = self.0.take() {
            let waiter = Self(Some(debt)).settle(Err(Failure::ShutDown), None, Instant::now());
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}
