//! The executing side.

use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::control::{Control, Role};
use crate::delivery::{Delivery, contain};
use crate::dismissal::{dismiss, release};
use crate::entry::{Removed, Taken, Ticketed};
use crate::in_flight::{Facts, Held, InFlight, Promise};
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
    at_hand: AtHand,
    shared: Arc<Shared<T, R>>,
}

/// Where a worker's parker is: the sign that the worker counts.
enum AtHand {
    Parker(Parker),
    /// With the batch of this number, in the [`InFlight`](crate::in_flight::InFlight). Whoever takes the batch out takes the
    /// worker's place.
    Deposited(u64),
}

/// What a worker keeps from batch to batch for its memory.
struct Memory<T, R> {
    items: Vec<Taken<T, R>>,
    results: Vec<Option<R>>,
    promises: Vec<Promise<R>>,
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
        Self { number, at_hand: AtHand::Parker(parker), shared }
    }

    /// Between batches it is at hand.
    fn parker(&self) -> &Parker {
        match &self.at_hand {
            AtHand::Parker(parker) => parker,
            AtHand::Deposited(_) => unreachable!("a worker rests between batches only"),
        }
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
    ///
    /// Returns also if the worker was [replaced](crate::Scheduler::replace), as soon as its executor does.
    pub fn run(mut self, mut executor: impl Executor<T, R>) {
        let mut delivery = Delivery::default();
        let mut removed = Removed::new();
        let mut memory = Memory { items: Vec::new(), results: Vec::new(), promises: Vec::new() };
        loop {
            let mut role = self.shared.core.control.join(self.number);
            if role == Role::Follow {
                role = self.shared.core.control.follow(self.number, self.parker());
            }
            if role == Role::End {
                return;
            }
            match self.lead(memory.items, &mut removed, &mut delivery) {
                Lead::Drained => return,
                Lead::Batch { group, items, padded_rows, formed } => {
                    let batch = Batch::new(group, items, padded_rows, memory.results, formed);
                    match self.execute(batch, memory.promises, &mut executor, &mut delivery) {
                        Some(kept) => memory = kept,
                        None => return,
                    }
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
                if self.shared.retirement.take(|group| intake.queue.retire(group)) {
                    // What was submitted to them before may have come since the arrivals were taken.
                    intake.drain(core.control.take_arrivals());
                }
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
                Decision::Idle => core.control.sleep(self.number, self.parker()),
            }
        }
    }

    fn wait(&self, terms: Terms) {
        let control = &self.shared.core.control;
        let now = Instant::now();
        if terms.until.saturating_duration_since(now) > SHORT {
            control.doze(self.number, self.parker(), terms);
            return;
        }
        while !control.has_arrivals() && Instant::now() < terms.until {
            yield_now();
        }
    }

    /// Executes the batch, and gives the memory back; nothing if the worker was replaced meanwhile.
    fn execute(
        &mut self,
        mut batch: Batch<T, R>,
        mut promises: Vec<Promise<R>>,
        executor: &mut impl Executor<T, R>,
        delivery: &mut Delivery,
    ) -> Option<Memory<T, R>> {
        let shared = Arc::clone(&self.shared);
        let in_flight = &shared.in_flight[self.number];
        batch.promises(&mut promises);
        let facts = batch.facts();
        self.deposit(in_flight, promises, facts);
        let succeeded = contain(|| executor.execute(&mut batch));
        let done = Instant::now();
        let Some(mut promises) = self.reclaim(in_flight) else {
            batch.let_go();
            return None;
        };
        let took = done.saturating_duration_since(facts.started);
        let observation = Observation { group: facts.group, rows: facts.rows, took, done };
        let (items, results) = batch.settle(&mut promises, done, !succeeded, delivery);
        delivery.send();
        // Where they share this core, who was answered has a turn before the next batch: else answers would lie, and what
        // follows on them would not be in it. With full batches there is no time to lose.
        if facts.rows < facts.group.full_rows() {
            yield_now();
        }
        if succeeded {
            // A full ring means that the leader has plenty to learn from already.
            let _ = shared.observations.push(observation);
        }
        contain(|| executor.delivered());
        Some(Memory { items, results, promises })
    }

    /// Leaves the parker with the promises of a batch.
    fn deposit(&mut self, in_flight: &InFlight<R>, promises: Vec<Promise<R>>, facts: Facts) {
        // It is about to be replaced by the batch's number, which is not known before.
        if let AtHand::Parker(parker) = mem::replace(&mut self.at_hand, AtHand::Deposited(0)) {
            self.at_hand = AtHand::Deposited(in_flight.begin(Held { promises, parker, facts }));
        }
    }

    /// Takes the parker and the promises back, unless the worker was replaced.
    fn reclaim(&mut self, in_flight: &InFlight<R>) -> Option<Vec<Promise<R>>> {
        let AtHand::Deposited(serial) = self.at_hand else { return None };
        let Held { promises, parker, .. } = in_flight.take(serial)?;
        self.at_hand = AtHand::Parker(parker);
        Some(promises)
    }
}

impl<T, R> Drop for Worker<T, R> {
    fn drop(&mut self) {
        if let AtHand::Deposited(serial) = self.at_hand
            && self.shared.in_flight[self.number].take(serial).is_none()
        {
            // Its successor counts in its place.
            return;
        }
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
