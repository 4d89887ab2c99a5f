//! The scheduler by hand: the same admission, order and decisions, without threads, tickets or a clock.
//!
//! A [`Stepper`] is told what happens and when, and says what an idle worker would do. It runs the very code that the
//! threads of a [`Scheduler`](crate::Scheduler) run, so a simulation, a test, or a caller with threads and promises of
//! its own gets the same batches. Nothing in it reads a clock or draws a number: the same calls give the same batches.
//!
//! # Examples
//!
//! One device, two requests that come while it computes a third, in virtual time:
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::time::{Duration, Instant};
//! use volley_scheduler::step::{Step, Stepper};
//! use volley_scheduler::{Config, GroupConfig, Priority, Request};
//!
//! let millis = Duration::from_millis;
//! let start = Instant::now();
//! let mut stepper = Stepper::new(Config::default(), NonZeroUsize::MIN, start);
//! let group = stepper.add_group(GroupConfig::up_to(NonZeroUsize::new(8).expect("positive")));
//!
//! stepper.submit(start, Request::new(group, "first")).expect("there is room");
//! let Step::Batch(batch) = stepper.step(start, 1) else { panic!("an idle device goes at once") };
//! assert_eq!(batch.members[0].payload, "first");
//!
//! // The device is busy until 5 ms: nobody is idle.
//! stepper.submit(start + millis(1), Request::new(group, "second")).expect("there is room");
//! let urgent = Request::new(group, "urgent").priority(Priority::High).deadline(start + millis(90));
//! stepper.submit(start + millis(2), urgent).expect("there is room");
//! assert!(!matches!(stepper.step(start + millis(2), 0), Step::Batch(_)));
//!
//! stepper.done(start + millis(5), group, batch.rows, millis(5));
//! let Step::Batch(batch) = stepper.step(start + millis(5), 1) else { panic!("two are waiting") };
//! let payloads: Vec<_> = batch.members.iter().map(|member| member.payload).collect();
//! assert_eq!(payloads, ["urgent", "second"]);
//! assert_eq!(stepper.refused().count(), 0);
//! ```

use std::convert::Infallible;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::entry::{Content, Entry, Item, Removed};
use crate::policy::{Circumstances, Decision};
use crate::queue::{Observation, Queue};
use crate::{Config, GroupConfig, GroupId, Priority, Request, SubmitError, TenantId};

/// Admission, order and decisions of a [`Scheduler`](crate::Scheduler), one step at a time.
///
/// Times must not run backwards from one call to the next.
pub struct Stepper<T> {
    config: Config,
    admission: Admission,
    queue: Queue<Bare<T>>,
    removed: Removed<Bare<T>>,
    groups: u32,
    tenants: u32,
}

/// What to do next.
#[derive(Debug)]
pub enum Step<T> {
    /// Execute this now, on one of the idle workers; then ask again for the next, and report it [`Stepper::done`].
    Batch(Batch<T>),
    /// Ask again at this time, or earlier if anything is submitted or done.
    Wait(Instant),
    /// Ask again when something was submitted.
    Idle,
}

/// Requests that go together.
#[derive(Debug)]
pub struct Batch<T> {
    /// What they have in common.
    pub group: GroupId,
    /// The requests, in order. Never empty.
    pub members: Vec<Member<T>>,
    /// How many rows they have together.
    pub rows: usize,
    /// As how many rows to execute them: see [`GroupConfig::of_sizes`].
    pub padded_rows: usize,
}

/// A request that left the queue.
#[derive(Debug)]
#[non_exhaustive]
pub struct Member<T> {
    /// What was submitted.
    pub payload: T,
    /// When it was submitted.
    pub submitted: Instant,
    /// When its answer becomes worthless.
    pub deadline: Option<Instant>,
    /// How much of a batch it takes.
    pub rows: usize,
    /// The lane that it was submitted to.
    pub lane: Priority,
    /// Its effective priority by now: its lane, raised by what it has waited.
    pub priority: Priority,
}

/// A payload that nobody can withdraw.
struct Bare<T>(T);

impl<T> Content for Bare<T> {
    type Claimed = T;
    type Withdrawn = Infallible;

    fn is_withdrawn(&self) -> bool {
        false
    }

    fn claim(self) -> Result<T, Infallible> {
        Ok(self.0)
    }
}

impl<T> From<Item<T>> for Member<T> {
    fn from(item: Item<T>) -> Self {
        Self {
            payload: item.content,
            submitted: item.submitted,
            deadline: item.deadline,
            rows: item.rows,
            lane: item.lane,
            priority: item.priority,
        }
    }
}

impl<T> Stepper<T> {
    /// Nothing waits and nothing was learned yet; `workers` is how many batches may be executed at a time. No other
    /// time that it is told may be before `start`.
    #[must_use]
    pub fn new(config: Config, workers: NonZeroUsize, start: Instant) -> Self {
        let workers = workers.get();
        Self {
            config,
            admission: Admission::new(config.lane_capacity, workers, start),
            queue: Queue::new(config.aging_interval, workers, start),
            removed: Removed::new(),
            groups: 0,
            tenants: 0,
        }
    }

    /// Adds a group: requests of different groups never share a batch.
    ///
    /// # Panics
    ///
    /// After `u32::MAX` groups.
    #[must_use]
    pub fn add_group(&mut self, config: GroupConfig) -> GroupId {
        let id = GroupId::new(self.groups, &config);
        self.queue.restrict(id, config.sizes);
        self.groups = self.groups.checked_add(1).expect("a stepper has fewer than 2^32 groups");
        id
    }

    /// Adds a tenant, as [`Scheduler::add_tenant`](crate::Scheduler::add_tenant) does.
    ///
    /// # Panics
    ///
    /// After `u32::MAX` tenants.
    #[must_use]
    pub fn add_tenant(&mut self, quota: NonZeroU32) -> TenantId {
        let id = TenantId::new(self.tenants, quota);
        self.tenants = self.tenants.checked_add(1).expect("a stepper has fewer than 2^32 tenants");
        id
    }

    /// Accepts a request, or refuses it at once.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`](crate::Scheduler::submit), except that a stepper is never closed.
    pub fn submit(&mut self, now: Instant, request: Request<T>) -> Result<(), SubmitError<T>> {
        if let Err(reason) = self.admission.enter(now, &request) {
            return Err(reason.refuse(request));
        }
        if request.deadline.is_some() {
            self.admission.forecast.count_in(request.tenant, request.priority);
        }
        self.queue.insert(Entry::new(request, now, |payload, _| Bare(payload)));
        Ok(())
    }

    /// What to do now, with `idle` workers that execute nothing.
    ///
    /// Whatever waits and can no longer be done by its deadline is [refused](Self::refused) on the way. With no idle
    /// worker that is all that happens: the answer then says when there will next be something to refuse.
    pub fn step(&mut self, now: Instant, idle: usize) -> Step<T> {
        let circumstances = Circumstances::new(&self.config, idle > 1, false);
        let before = self.removed.hopeless.len();
        let live = self.queue.len();
        self.free_workers(idle);
        let decision = self.queue.plan(now, &circumstances, live, &mut self.removed);
        let (mut items, mut padded_rows) = (Vec::new(), 0);
        if let Decision::Close(group) = decision
            && idle > 0
        {
            let freest = (0..self.queue.busy_until().len()).min_by_key(|&worker| self.queue.busy_until()[worker]);
            padded_rows = self.queue.take(group, freest.unwrap_or_default(), now, &mut items, &mut self.removed);
        }
        self.queue.publish(now, &self.admission.forecast);
        for item in self.removed.hopeless[before..].iter().chain(&items) {
            // A stepper is never closed, so nobody waits for its lanes to empty.
            let _ = self.admission.leave(item.lane, item.tenant);
        }
        match decision {
            _ if idle == 0 => self.queue.next_hopeless(now).map_or(Step::Idle, Step::Wait),
            Decision::Close(group) => {
                let rows = items.iter().map(|item| item.rows).sum();
                Step::Batch(Batch { group, members: items.into_iter().map(Member::from).collect(), rows, padded_rows })
            }
            Decision::Wait(terms) => Step::Wait(terms.until),
            Decision::Idle => Step::Idle,
        }
    }

    /// Those are idle that were to be done first.
    fn free_workers(&mut self, idle: usize) {
        let mut workers: Vec<_> = (0..self.queue.busy_until().len()).collect();
        workers.sort_by_key(|&worker| self.queue.busy_until()[worker]);
        workers.into_iter().take(idle).for_each(|worker| self.queue.vacate(worker));
    }

    /// The requests that were refused since they were last asked for: their deadlines can no longer be met.
    pub fn refused(&mut self) -> impl Iterator<Item = Member<T>> {
        self.removed.hopeless.drain(..).map(Member::from)
    }

    /// Says that a batch of `rows` was done at `now`, and `took` this long.
    pub fn done(&mut self, now: Instant, group: GroupId, rows: usize, took: Duration) {
        self.queue.learn(Observation { group, rows, took, done: now });
    }

    /// How many requests each lane holds that no batch has taken, [`Priority::Critical`] first.
    #[must_use]
    pub fn depth(&self) -> [usize; Priority::COUNT] {
        self.admission.gate.depth()
    }
}

impl<T> fmt::Debug for Stepper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepper").field("config", &self.config).field("depth", &self.depth()).finish_non_exhaustive()
    }
}
