//! What the caller holds while its request is under way.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::answer::Caller;
use crate::core::Core;
use crate::slot::Waiter;
use crate::sync::{Arc, current_thread, park_thread, park_thread_until};

/// A request under way: a future of its [`Outcome`], on any runtime, or something for a plain thread to wait on.
///
/// Dropping it withdraws the request: unless a batch has taken it already it is never computed, and its place in the
/// lane is free at once.
///
/// # Panics
///
/// Polling it again after it was ready panics, as futures do.
#[must_use = "dropping a ticket withdraws its request"]
pub struct Ticket<R> {
    caller: Caller<R>,
    /// Where its place is given back. Here rather than with the outcome: it comes and goes on the caller's threads, and
    /// its reference count stays with them.
    core: Arc<Core>,
}

impl<R> Ticket<R> {
    pub(crate) const fn new(caller: Caller<R>, core: Arc<Core>) -> Self {
        Self { caller, core }
    }

    /// Whether the outcome is there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.caller.is_done()
    }

    /// Blocks the calling thread until the outcome is there.
    #[must_use]
    pub fn wait(mut self) -> Outcome<R> {
        loop {
            if let Some(outcome) = self.caller.take() {
                return outcome;
            }
            if self.caller.wait(Waiter::Thread(current_thread())) {
                while !self.caller.is_done() {
                    park_thread();
                }
            }
        }
    }

    /// Blocks the calling thread until the outcome is there, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// Gives the ticket back if the time runs out; the request stays under way.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use std::time::Duration;
    /// use volley_scheduler::{Config, GroupConfig, Request, Scheduler};
    ///
    /// let one = NonZeroUsize::MIN;
    /// let (scheduler, workers) = Scheduler::<(), ()>::new(Config::default(), one);
    /// let group = scheduler.add_group(GroupConfig::up_to(one));
    /// let ticket = scheduler.submit(Request::new(group, ())).expect("there is room");
    ///
    /// // No worker runs yet.
    /// let ticket = ticket.wait_timeout(Duration::from_millis(1)).expect_err("not done yet");
    /// drop(ticket);
    /// assert_eq!(scheduler.depth(), [0; 4]);
    /// # drop(workers);
    /// ```
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Outcome<R>, Self> {
        let Some(until) = Instant::now().checked_add(timeout) else {
            return Ok(self.wait());
        };
        loop {
            if let Some(outcome) = self.caller.take() {
                return Ok(outcome);
            }
            if Instant::now() >= until {
                self.caller.forget_waiter();
                return self.try_take();
            }
            if self.caller.wait(Waiter::Thread(current_thread())) {
                park_thread_until(until);
            }
        }
    }

    /// The outcome, if it is there.
    ///
    /// # Errors
    ///
    /// Gives the ticket back if it is not.
    pub fn try_take(mut self) -> Result<Outcome<R>, Self> {
        self.caller.take().ok_or(self)
    }

    /// Withdraws the request, and says whether that was in time: it was not computed, and will not be.
    ///
    /// # Errors
    ///
    /// Gives the ticket back if a batch has taken the request, or if its outcome is there.
    pub fn withdraw(mut self) -> Result<(), Self> {
        if self.caller.withdraw() {
            self.give_place_back();
            return Ok(());
        }
        Err(self)
    }

    fn give_place_back(&self) {
        let submission = self.caller.context();
        self.core.release(submission.priority, submission.tenant);
    }
}

impl<R> Future for Ticket<R> {
    type Output = Outcome<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<R>> {
        if !self.caller.is_done() && self.caller.wait(Waiter::Task(context.waker().clone())) {
            return Poll::Pending;
        }
        Poll::Ready(self.caller.take().expect("a ticket is not polled after it was ready"))
    }
}

impl<R> Drop for Ticket<R> {
    fn drop(&mut self) {
        if self.caller.withdraw() {
            self.give_place_back();
        } else {
            self.caller.forget_waiter();
        }
    }
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_done", &self.is_done()).finish_non_exhaustive()
    }
}
