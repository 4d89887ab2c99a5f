//! Deadlines while nobody leads.

use std::fmt;
use std::time::Instant;

use crate::core::Core;
use crate::delivery::Delivery;
use crate::dismissal::dismiss;
use crate::entry::{Removed, Ticketed};
use crate::scheduler::Shared;
use crate::sync::{Arc, Parker};
use crate::terms::Watch;

/// Keeps an eye on deadlines while every worker executes. From [`Scheduler::timekeeper`](crate::Scheduler::timekeeper).
///
/// It sleeps until a queued deadline may have become infeasible, tells those whose has, and never executes. While
/// nothing has a deadline, or a worker is idle, it does not wake.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::thread;
/// use std::time::{Duration, Instant};
/// use volley_scheduler::{Config, Failure, GroupConfig, Request, Scheduler};
///
/// // The worker is busy for good: it never even runs.
/// let one = NonZeroUsize::MIN;
/// let (scheduler, workers) = Scheduler::<(), ()>::new(Config::default(), one);
/// let timekeeper = scheduler.timekeeper().expect("nobody asked for it before");
/// let thread = thread::spawn(move || timekeeper.run());
///
/// let group = scheduler.add_group(GroupConfig::up_to(one));
/// let soon = Instant::now() + Duration::from_millis(1);
/// let ticket = scheduler.submit(Request::new(group, ()).deadline(soon)).expect("there is room");
/// assert_eq!(ticket.wait().result, Err(Failure::DeadlineExceeded));
///
/// drop(workers);
/// thread.join().expect("the timekeeper ends with the last worker");
/// ```
pub struct Timekeeper<T, R> {
    parker: Parker,
    shared: Arc<Shared<T, R>>,
}

impl<T, R> Timekeeper<T, R> {
    pub(crate) const fn new(parker: Parker, shared: Arc<Shared<T, R>>) -> Self {
        Self { parker, shared }
    }

    /// Watches, on the calling thread, until the last worker ends.
    pub fn run(self) {
        let core = &*self.shared.core;
        let mut delivery = Delivery::default();
        let mut removed = Removed::new();
        let mut watched = None;
        while core.control.watch(&self.parker, watched) {
            watched = self.look(core, &mut removed, &mut delivery);
        }
    }

    /// Looks at the queue, and says what to watch for; nothing if a worker has come to lead.
    fn look(&self, core: &Core, removed: &mut Removed<Ticketed<T, R>>, delivery: &mut Delivery) -> Option<Watch> {
        let now = Instant::now();
        let live = core.admission.gate.depth().iter().sum();
        let watch = {
            let mut intake = self.shared.intake.lock();
            // With the lock held: a worker that takes leadership after this waits until everything is in the queue.
            let arrivals = core.control.take_arrivals_to_watch()?;
            intake.drain(arrivals);
            intake.queue.tend(now, live, removed);
            intake.queue.publish(now, &core.admission.forecast);
            intake.queue.watch(now)
        };
        dismiss(core, removed, now, delivery);
        Some(watch)
    }
}

impl<T, R> Drop for Timekeeper<T, R> {
    fn drop(&mut self) {
        self.shared.core.control.retire();
    }
}

impl<T, R> fmt::Debug for Timekeeper<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timekeeper").finish_non_exhaustive()
    }
}
