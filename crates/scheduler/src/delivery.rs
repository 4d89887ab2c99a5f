//! Wakes the callers of a batch: all of them after the last outcome is there, and each handoff once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::Handoff;
use crate::slot::Waiter;

/// Whom to wake; kept by its worker for the memory.
#[derive(Default)]
pub(crate) struct Delivery {
    direct: Vec<Waiter>,
    handoffs: Vec<(Handoff, Vec<Waker>)>,
}

impl Delivery {
    pub(crate) fn add(&mut self, waiter: Waiter, handoff: Option<Handoff>) {
        match (waiter, handoff) {
            (Waiter::Task(waker), Some(handoff)) => {
                let known = self.handoffs.iter_mut().find(|(known, _)| known.is_same(&handoff));
                match known {
                    Some((_, wakers)) => wakers.push(waker),
                    None => self.handoffs.push((handoff, vec![waker])),
                }
            }
            (waiter, _) => self.direct.push(waiter),
        }
    }

    /// Whether whoever was added last wakes this one as well: a task that waits for several requests is woken once.
    pub(crate) fn will_wake(&self, waiter: &Waiter) -> bool {
        self.direct.last().is_some_and(|last| last.is_same_task(waiter))
    }

    /// Wakes them. A waker that panics does not keep the others waiting.
    pub(crate) fn send(&mut self) {
        for waiter in self.direct.drain(..) {
            contain(|| waiter.wake());
        }
        for (handoff, wakers) in &mut self.handoffs {
            if !wakers.is_empty() {
                contain(|| handoff.deliver(wakers));
            }
        }
    }
}

/// Whatever ends a worker, those whose outcomes are there hear of it.
impl Drop for Delivery {
    fn drop(&mut self) {
        self.send();
    }
}

/// Runs the user's code where a panic of it must not end the worker. The panic hook has reported it.
pub(crate) fn contain(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}
