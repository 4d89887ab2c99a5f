//! The submitting side.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::entry::{Entry, Queued, Ticketed};
use crate::in_flight::InFlight;
use crate::intake::Intake;
use crate::queue::{Observation, Queue};
use crate::retirement::Retirement;
use crate::ring::Ring;
use crate::sync::{Arc, AtomicU32, AtomicUsize, Mutex, Ordering, Parker, yield_now};
use crate::{
    Config, Executing, GroupConfig, GroupId, Priority, Request, SubmitError, TenantId, Ticket, Timekeeper, Worker,
};

/// How often a push into a ring full of withdrawn requests is tried again, before the request is refused.
const PUSH_ATTEMPTS: usize = 64;

/// Takes requests in, orders them, and has its workers execute them in batches.
///
/// Clone it to submit from anywhere. When the last clone is dropped it is [closed](Self::close).
///
/// `T` is what a request carries, `R` what its caller gets back.
pub struct Scheduler<T, R> {
    handle: Arc<Handle<T, R>>,
}

/// Closes the scheduler when the last clone goes. The workers hold the inside, not this.
struct Handle<T, R>(Arc<Shared<T, R>>);

/// What the submitting side and the workers share.
pub(crate) struct Shared<T, R> {
    pub(crate) core: Arc<Core>,
    pub(crate) config: Config,
    rings: [Arc<Ring<Queued<T, R>>>; Priority::COUNT],
    pub(crate) observations: Arc<Ring<Observation>>,
    pub(crate) retirement: Retirement,
    /// What each worker executes.
    pub(crate) in_flight: Box<[InFlight<R>]>,
    /// The leader's, by convention: it alone locks this as a matter of course, so it finds it free. Others do only
    /// where there is no leader, or never will be.
    pub(crate) intake: Mutex<Intake<Ticketed<T, R>>>,
    /// Workers that run or may yet run. Counted down by each worker's drop; the last one settles what is left.
    pub(crate) workers: AtomicUsize,
    /// Until somebody asks for the timekeeper.
    timekeeper: Mutex<Option<Parker>>,
    /// The number of the next group.
    groups: AtomicU32,
    /// The number of the next tenant.
    tenants: AtomicU32,
}

impl<T, R> Scheduler<T, R> {
    /// A scheduler and its workers, each to be [run](Worker::run) on a thread of the caller's choosing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use std::thread;
    /// use volley_scheduler::{Batch, Config, GroupConfig, Request, Scheduler};
    ///
    /// let (scheduler, workers) = Scheduler::new(Config::default(), NonZeroUsize::MIN);
    /// let squares = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::new(32).expect("positive")));
    /// thread::scope(|scope| {
    ///     for worker in workers {
    ///         scope.spawn(|| {
    ///             worker.run(|batch: &mut Batch<u64, u64>| {
    ///                 for i in 0..batch.len() {
    ///                     batch.complete(i, batch.payload(i).pow(2));
    ///                 }
    ///             });
    ///         });
    ///     }
    ///     let ticket = scheduler.submit(Request::new(squares, 12)).expect("there is room");
    ///     assert_eq!(ticket.wait().result, Ok(144));
    ///     scheduler.close();
    /// });
    /// ```
    #[must_use]
    pub fn new(config: Config, workers: NonZeroUsize) -> (Self, Vec<Worker<T, R>>) {
        let parkers: Vec<_> = (0..workers.get()).map(|_| Parker::new()).collect();
        let timekeeper = Parker::new();
        let unparkers = parkers.iter().chain([&timekeeper]).map(|parker| parker.unparker().clone()).collect();
        let capacity = config.lane_capacity.get();
        let lanes = [(); Priority::COUNT].map(|()| Ring::with_capacity(capacity));
        let (observations, observed) = Ring::with_capacity(workers.get().saturating_mul(4));
        let rings = std::array::from_fn(|lane| Arc::clone(&lanes[lane].0));
        let consumers = lanes.map(|(_, consumer)| consumer);
        let core = Core::new(config.lane_capacity, workers.get(), unparkers);
        let queue = Queue::new(config.aging_interval, workers.get(), core.admission.forecast.epoch());
        let shared = Arc::new(Shared {
            core: Arc::new(core),
            config,
            rings,
            observations,
            retirement: Retirement::new(),
            in_flight: parkers.iter().map(|_| InFlight::new()).collect(),
            intake: Mutex::new(Intake::new(consumers, observed, queue)),
            workers: AtomicUsize::new(workers.get()),
            timekeeper: Mutex::new(Some(timekeeper)),
            groups: AtomicU32::new(0),
            tenants: AtomicU32::new(0),
        });
        let workers = parkers
            .into_iter()
            .enumerate()
            .map(|(number, parker)| Worker::new(number, parker, Arc::clone(&shared)))
            .collect();
        let handle = Arc::new(Handle(shared));
        (Self { handle }, workers)
    }

    /// Whoever keeps an eye on deadlines while every worker executes, to be [run](Timekeeper::run) on a thread of its
    /// own; none if it was asked for before. Without one, a request whose deadline becomes infeasible meanwhile is told
    /// when the first worker is done.
    #[must_use]
    pub fn timekeeper(&self) -> Option<Timekeeper<T, R>> {
        let parker = self.handle.0.timekeeper.lock().take()?;
        Some(Timekeeper::new(parker, Arc::clone(&self.handle.0)))
    }

    /// Adds a group: requests of different groups never share a batch.
    ///
    /// A group costs little while nothing of it waits. It lives until it is [removed](Self::remove_group), or as long as
    /// the scheduler.
    ///
    /// # Panics
    ///
    /// After `u32::MAX` groups.
    #[must_use]
    pub fn add_group(&self, config: GroupConfig) -> GroupId {
        let index = self.handle.0.groups.fetch_add(1, Ordering::Relaxed);
        assert!(index < u32::MAX, "a scheduler has fewer than {} groups", u32::MAX);
        let id = GroupId::new(index, &config);
        if !config.sizes.is_any() {
            self.handle.0.intake.lock().queue.restrict(id, config.sizes);
        }
        id
    }

    /// Removes a group: what was learned of it goes, at once or when nothing of it waits any more. What waits is executed
    /// as before.
    ///
    /// Nothing is to be submitted to it afterwards; what is all the same, is executed in batches of any size up to the
    /// largest. Its number is not given away again, and takes some 40 bytes for as long as the scheduler lives. Takes no
    /// lock that is held while code of the user's runs, so it may be called from anywhere.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use volley_scheduler::{Config, GroupConfig, Scheduler};
    ///
    /// let (scheduler, _workers) = Scheduler::<(), ()>::new(Config::default(), NonZeroUsize::MIN);
    /// let version_1 = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::MIN));
    /// let version_2 = scheduler.add_group(GroupConfig::up_to(NonZeroUsize::MIN));
    /// scheduler.remove_group(version_1);
    /// ```
    pub fn remove_group(&self, group: GroupId) {
        self.handle.0.retirement.add(group);
        self.handle.0.core.control.nudge();
    }

    /// Adds a tenant, of whose requests at most `quota` may be queued at a time, in all lanes together.
    ///
    /// Tenants share the device fairly whatever lanes they use and whatever their quotas; a quota keeps one from filling
    /// a lane. A tenant lives as long as the scheduler, and takes about 2 kB.
    ///
    /// # Panics
    ///
    /// After `u32::MAX` tenants.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::{NonZeroU32, NonZeroUsize};
    /// use volley_scheduler::{Config, GroupConfig, Request, Scheduler};
    ///
    /// let one = NonZeroUsize::MIN;
    /// let (scheduler, _workers) = Scheduler::<_, ()>::new(Config::default(), one);
    /// let group = scheduler.add_group(GroupConfig::up_to(one));
    /// let tenant = scheduler.add_tenant(NonZeroU32::MIN);
    ///
    /// let ticket = scheduler.submit(Request::new(group, "one").tenant(tenant)).expect("within the quota");
    /// let error = scheduler.submit(Request::new(group, "two").tenant(tenant)).expect_err("beyond it");
    /// assert!(error.is_quota_exceeded());
    /// drop(ticket);
    /// assert!(scheduler.submit(Request::new(group, "two").tenant(tenant)).is_ok());
    /// ```
    #[must_use]
    pub fn add_tenant(&self, quota: NonZeroU32) -> TenantId {
        let index = self.handle.0.tenants.fetch_add(1, Ordering::Relaxed);
        assert!(index < u32::MAX, "a scheduler has fewer than {} tenants", u32::MAX);
        TenantId::new(index, quota)
    }

    /// Accepts a request, or refuses it at once.
    ///
    /// Takes no lock and allocates nothing but the ticket. Wakes at most one worker, and none while one is awake that
    /// will find the request by itself. A thread that is preempted in here holds back only what is submitted to the
    /// same lane after it, until it runs again; no worker waits for it.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Full`] if the lane holds [`Config::lane_capacity`] requests, [`SubmitError::TooLarge`] if the
    /// request alone exceeds its group's batch, [`SubmitError::DeadlinePassed`] if it is late already,
    /// [`SubmitError::DeadlineUnmeetable`] if it would be by the time it could be done,
    /// [`SubmitError::QuotaExceeded`] if its tenant has as many queued as it may, and [`SubmitError::Closed`] after [`close`](Self::close) or when no worker is left. All give the request back.
    pub fn submit(&self, request: Request<T>) -> Result<Ticket<R>, SubmitError<T>> {
        let shared = &*self.handle.0;
        let (group, rows, lane) = (request.group, request.rows.get(), request.priority);
        let (tenant, deadline) = (request.tenant, request.deadline);
        let now = Instant::now();
        if let Err(reason) = shared.core.admission.enter(now, &request) {
            return Err(reason.refuse(request));
        }
        let (caller, entry) = Entry::ticketed(request, now);
        let ticket = Ticket::new(caller, Arc::clone(&shared.core));
        if let Err(entry) = shared.push(lane, entry) {
            // Gives its place back.
            drop(ticket);
            return Err(SubmitError::Full(entry.into_request()));
        }
        if deadline.is_some() {
            shared.core.admission.forecast.count_in(tenant, lane);
        }
        if !shared.core.control.announce(lane, group, rows, deadline) {
            shared.abandon();
        }
        Ok(ticket)
    }

    /// How long a request would wait that could not be met by its deadline, even with a single row; none if it could, or
    /// if too little is known to say.
    ///
    /// For a look before a request is prepared, where that costs something: [`submit`](Self::submit) refuses what does not
    /// pass it, and may refuse what does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use std::time::{Duration, Instant};
    /// use volley_scheduler::{Config, GroupConfig, Priority, Scheduler};
    ///
    /// let one = NonZeroUsize::MIN;
    /// let (scheduler, _workers) = Scheduler::<(), ()>::new(Config::default(), one);
    /// let group = scheduler.add_group(GroupConfig::up_to(one));
    /// let deadline = Instant::now() + Duration::from_millis(20);
    /// // Nothing was executed yet, so that nobody knows how long it takes.
    /// assert_eq!(scheduler.unmeetable_wait(group, None, Priority::Normal, deadline), None);
    /// ```
    #[must_use]
    pub fn unmeetable_wait(
        &self,
        group: GroupId,
        tenant: Option<TenantId>,
        lane: Priority,
        deadline: Instant,
    ) -> Option<Duration> {
        self.handle.0.core.admission.forecast.hopeless_wait(Instant::now(), tenant, lane, group, 1, deadline)
    }

    /// What is executed at this moment, by worker.
    ///
    /// For a watchdog: see [`replace`](Self::replace).
    #[must_use]
    pub fn executing(&self) -> Vec<Executing> {
        self.handle.0.in_flight.iter().enumerate().filter_map(|(worker, in_flight)| in_flight.look(worker)).collect()
    }

    /// Gives up on a batch, and on the worker that does not come back from it. Each request of the batch ends with
    /// [`Failure::Abandoned`]. Returned is a worker that takes the place of the stuck one, to be [run](Worker::run) on a
    /// thread of its own; none if the batch is no longer executed.
    ///
    /// Nothing ends the stuck thread. If its executor ever returns, what it completed is dropped and its
    /// [`run`](Worker::run) returns. Its payloads are dropped then, not before: they may be in use.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use std::sync::mpsc;
    /// use std::thread;
    /// use volley_scheduler::{Batch, Config, Failure, GroupConfig, Request, Scheduler};
    ///
    /// let one = NonZeroUsize::MIN;
    /// let (scheduler, mut workers) = Scheduler::new(Config::default(), one);
    /// let group = scheduler.add_group(GroupConfig::up_to(one));
    /// let (never, hang) = mpsc::channel::<()>();
    /// let stuck = workers.pop().expect("one worker");
    /// let stuck = thread::spawn(move || stuck.run(|_: &mut Batch<u32, u32>| _ = hang.recv()));
    ///
    /// let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
    /// // A watchdog would look at `started` first.
    /// let batch = loop {
    ///     if let Some(batch) = scheduler.executing().pop() { break batch }
    ///     thread::yield_now();
    /// };
    /// let successor = scheduler.replace(&batch).expect("it is still executed");
    /// assert_eq!(ticket.wait().result, Err(Failure::Abandoned));
    ///
    /// let successor = thread::spawn(move || {
    ///     successor.run(|batch: &mut Batch<u32, u32>| batch.complete(0, batch.payload(0) + 1));
    /// });
    /// let ticket = scheduler.submit(Request::new(group, 1)).expect("there is room");
    /// assert_eq!(ticket.wait().result, Ok(2));
    /// scheduler.close();
    /// successor.join().expect("it ends");
    /// drop(never);
    /// stuck.join().expect("it ends as well");
    /// ```
    ///
    /// [`Failure::Abandoned`]: crate::Failure::Abandoned
    #[must_use]
    pub fn replace(&self, stuck: &Executing) -> Option<Worker<T, R>> {
        let shared = &self.handle.0;
        let parker = shared.in_flight.get(stuck.worker)?.seize(stuck)?.abandon();
        Some(Worker::new(stuck.worker, parker, Arc::clone(shared)))
    }

    /// Stops accepting requests. What was accepted is finished; then the workers return.
    pub fn close(&self) {
        self.handle.0.core.close();
    }

    /// How many requests each lane holds that no batch has taken, [`Priority::Critical`] first.
    #[must_use]
    pub fn depth(&self) -> [usize; Priority::COUNT] {
        self.handle.0.core.admission.gate.depth()
    }

    /// What the leader sees.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn queue_for_tests(&self) -> impl std::ops::Deref<Target = Queue<Ticketed<T, R>>> {
        parking_lot::MutexGuard::map(self.handle.0.intake.lock(), |intake| &mut intake.queue)
    }
}

impl<T, R> Shared<T, R> {
    /// Pushes what the gate let in. The ring has room for it, unless withdrawn requests still lie there: then whoever
    /// leads is about to take them out, and if nobody does this thread takes them out itself.
    fn push(&self, lane: Priority, mut entry: Queued<T, R>) -> Result<(), Queued<T, R>> {
        for _ in 0..PUSH_ATTEMPTS {
            match self.rings[lane.lane()].push(entry) {
                Ok(()) => return Ok(()),
                Err(refused) => entry = refused,
            }
            self.core.control.nudge();
            if let Some(mut intake) = self.intake.try_lock() {
                intake.drain(1 << lane.lane());
            } else {
                yield_now();
            }
        }
        Err(entry)
    }

    /// Settles everything that waits: nobody will execute it.
    pub(crate) fn abandon(&self) {
        let entries = self.intake.lock().clear();
        for entry in entries {
            let (lane, tenant) = (entry.priority, entry.tenant);
            // Dropping what was claimed tells the caller.
            if entry.claim(lane).is_ok() {
                self.core.release(lane, tenant);
            }
        }
    }
}

impl<T, R> Drop for Handle<T, R> {
    fn drop(&mut self) {
        self.0.core.close();
    }
}

impl<T, R> Clone for Scheduler<T, R> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<T, R> fmt::Debug for Scheduler<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("config", &self.handle.0.config)
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}
