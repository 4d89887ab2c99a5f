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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_for_all_that_it_awaits_in_a_row_and_again_for_the_next_batch() {
        let counts = [(); 2].map(|()| Arc::<Count>::default());
        let mut delivery = Delivery::default();
        for batch in 1..=2 {
            for task in [0, 0, 0, 1, 1] {
                let waiter = Waiter::Task(Waker::from(Arc::clone(&counts[task])));
                if !delivery.will_wake(&waiter) {
                    delivery.add(waiter, None);
                }
            }
            delivery.send();
            assert_eq!([0, 1].map(|task| counts[task].0.load(Ordering::Relaxed)), [batch, batch]);
        }
    }
}
