//! The executing side.

use std::fmt;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::control::{Control, Role};
use crate::delivery::{Delivery, contain};
use crate::dismissal::{dismiss, release};
use crate::entry::{Removed, Taken, Ticketed};
use crate::policy::{Circumstances, Decision};
use crate::queue::Observation;
use crate::scheduler::Shared;
use crate::sync::{Arc, Ordering, Parker, yield_now};
use crate::terms::{Terms, Watch};
use crate::{Executor, GroupId};

/// A wait shorter than this is spent awake, yielding the core: to sleep and to be woken costs as much, and the timer is
/// no finer.
const SHORT: Duration = Duration::from_micros(50);

/// One stream of execution: a core, a GPU stream. From [`Scheduler::new`](crate::Scheduler::new).
///
/// Workers that have nothing to execute take turns leading: the leader forms a batch, passes leadership on, and
/// executes the batch itself.
pub struct Worker<T, R> {
    number: usize,
    parker: Parker,
    shared: Arc<Shared<T, R>>,
}

/// What a leader came away with.
enum Lead<T, R> {
    Batch { group: GroupId, items: Vec<Taken<T, R>>, padded_rows: usize, formed: Instant },
    Drained,
}

/// Leadership: dropping it, also in a panic, passes it on.
struct Leadership<'a> {
    control: &'a Control,
    work_remains: bool,
    watch: Watch,
    now: Instant,
}

impl Drop for Leadership<'_> {
    fn drop(&mut self) {
        self.control.leave(self.work_remains, self.watch, self.now);
    }
}

impl<T, R> Worker<T, R> {
    pub(crate) const fn new(number: usize, parker: Parker, shared: Arc<Shared<T, R>>) -> Self {
        Self { number, parker, shared }
    }

    /// The worker's number, from 0.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Executes batches on the calling thread until the scheduler is closed and everything accepted has been taken.
    ///
    /// A worker that is dropped without running, or whose thread dies, leaves its share to the others. When the last
    /// one goes, what still waits fails with [`Failure::ShutDown`](crate::Failure::ShutDown).
    pub fn run(self, mut executor: impl Executor<T, R>) {
        let mut delivery = Delivery::default();
        let mut removed = Removed::new();
        let (mut items, mut results) = (Vec::new(), Vec::new());
        loop {
            let mut role = self.shared.core.control.join(self.number);
            if role == Role::Follow {
                role = self.shared.core.control.follow(self.number, &self.parker);
            }
            if role == Role::End {
                return;
            }
            match self.lead(items, &mut removed, &mut delivery) {
                Lead::Drained => return,
                Lead::Batch { group, items: taken, padded_rows, formed } => {
                    let batch = Batch::new(group, taken, padded_rows, results, formed);
                    (items, results) = self.execute(batch, &mut executor, &mut delivery);
                }
            }
        }
    }

    /// Leads until there is a batch to execute. `items` is for its memory.
    fn lead(
        &self,
        mut items: Vec<Taken<T, R>>,
        removed: &mut Removed<Ticketed<T, R>>,
        delivery: &mut Delivery,
    ) -> Lead<T, R> {
        let core = &*self.shared.core;
        let now = Instant::now();
        let mut leadership = Leadership { control: &core.control, work_remains: true, watch: Watch::ANY, now };
        loop {
            let now = Instant::now();
            leadership.now = now;
            let arrivals = core.control.take_arrivals();
            let draining = core.admission.gate.is_closed();
            let circumstances = Circumstances::new(&self.shared.config, core.control.has_followers(), draining);
            let mut padded_rows = 0;
            let live = core.admission.gate.depth().iter().sum();
            let decision = {
                let mut intake = self.shared.intake.lock();
                intake.drain(arrivals);
                let queue = &mut intake.queue;
                queue.vacate(self.number);
                let decision = queue.plan(now, &circumstances, live, removed);
                if let Decision::Close(group) = decision {
                    padded_rows = queue.take(group, self.number, now, &mut items, removed);
                    leadership.work_remains = queue.len() > 0;
                    leadership.watch = queue.watch(now);
                }
                queue.publish(now, &core.admission.forecast);
                decision
            };
            release(core, &items);
            dismiss(core, removed, now, delivery);
            match decision {
                // Everything may have been withdrawn since the decision.
                Decision::Close(_) if items.is_empty() => {}
                Decision::Close(group) => return Lead::Batch { group, items, padded_rows, formed: now },
                Decision::Wait(terms) => self.wait(terms),
                Decision::Idle if core.admission.gate.is_drained() => {
                    core.control.end();
                    return Lead::Drained;
                }
                Decision::Idle => core.control.sleep(self.number, &self.parker),
            }
        }
    }

    fn wait(&self, terms: Terms) {
        let control = &self.shared.core.control;
        let now = Instant::now();
        if terms.until.saturating_duration_since(now) > SHORT {
            control.doze(self.number, &self.parker, terms);
            return;
        }
        while !control.has_arrivals() && Instant::now() < terms.until {
            yield_now();
        }
    }

    fn execute(
        &self,
        mut batch: Batch<T, R>,
        executor: &mut impl Executor<T, R>,
        delivery: &mut Delivery,
    ) -> (Vec<Taken<T, R>>, Vec<Option<R>>) {
        let succeeded = contain(|| executor.execute(&mut batch));
        let done = Instant::now();
        let observation = Observation {
            group: batch.group(),
            rows: batch.rows(),
            took: done.saturating_duration_since(batch.started()),
            done,
        };
        let memory = batch.settle(done, !succeeded, delivery);
        delivery.send();
        if succeeded {
            // A full ring means that the leader has plenty to learn from already.
            let _ = self.shared.observations.push(observation);
        }
        memory
    }
}

impl<T, R> Drop for Worker<T, R> {
    fn drop(&mut self) {
        if self.shared.workers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.core.close();
            self.shared.core.control.end();
            self.shared.abandon();
        }
    }
}

impl<T, R> fmt::Debug for Worker<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("number", &self.number).finish_non_exhaustive()
    }
}
