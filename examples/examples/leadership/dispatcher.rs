//! The plain alternative: one thread does all the ordering and hands batches to worker threads.
//!
//! It runs the scheduler's own order and policy through [`step`](volley_scheduler::step), so that nothing but the
//! division of labour differs.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use volley_scheduler::step::{Batch, Step, Stepper};
use volley_scheduler::{Config, GroupConfig, GroupId, Request};

use crate::load::{Job, Server, Work};

/// As the scheduler's own: a shorter wait is spent awake.
const SHORT: Duration = Duration::from_micros(50);

pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    group: GroupId,
    dispatcher: Option<JoinHandle<()>>,
}

struct Shared {
    arrived: ArrayQueue<Request<Job>>,
    done: ArrayQueue<Done>,
    closed: AtomicBool,
}

struct Done {
    worker: usize,
    group: GroupId,
    rows: usize,
    took: Duration,
    at: Instant,
}

impl Dispatcher {
    pub(crate) fn start(config: Config, group: GroupConfig, workers: NonZeroUsize, work: Work) -> Self {
        let shared = Arc::new(Shared {
            arrived: ArrayQueue::new(config.lane_capacity.get()),
            done: ArrayQueue::new(2 * workers.get()),
            closed: AtomicBool::new(false),
        });
        let mut stepper = Stepper::new(config, workers, Instant::now());
        let group = stepper.add_group(group);
        let of_dispatcher = Arc::clone(&shared);
        let dispatcher = thread::spawn(move || of_dispatcher.dispatch(stepper, workers, &work));
        Self { shared, group, dispatcher: Some(dispatcher) }
    }
}

impl Shared {
    fn dispatch(&self, mut stepper: Stepper<Job>, workers: NonZeroUsize, work: &Work) {
        let me = thread::current();
        thread::scope(|scope| {
            let hands: Vec<SyncSender<Batch<Job>>> = (0..workers.get())
                .map(|worker| {
                    let (hand, batches) = sync_channel(1);
                    let me = me.clone();
                    scope.spawn(move || self.work(worker, &batches, work, &me));
                    hand
                })
                .collect();
            let mut idle: Vec<_> = (0..workers.get()).collect();
            while !self.closed.load(Ordering::Relaxed) {
                let now = Instant::now();
                while let Some(request) = self.arrived.pop() {
                    // A refused job ends with its promise, as on the other side.
                    let _ = stepper.submit(now, request);
                }
                while let Some(done) = self.done.pop() {
                    stepper.done(done.at, done.group, done.rows, done.took);
                    idle.push(done.worker);
                }
                let step = stepper.step(now, idle.len());
                stepper.refused().for_each(drop);
                match step {
                    Step::Batch(batch) => {
                        let worker = idle.pop().expect("a batch is formed for an idle worker only");
                        hands[worker].send(batch).expect("the worker lives as long as its hand");
                    }
                    Step::Wait(until) => self.wait(until),
                    Step::Idle => thread::park(),
                }
            }
        });
    }

    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        if left > SHORT {
            return thread::park_timeout(left);
        }
        while self.arrived.is_empty() && self.done.is_empty() && Instant::now() < until {
            thread::yield_now();
        }
    }

    fn work(&self, worker: usize, batches: &Receiver<Batch<Job>>, work: &Work, dispatcher: &Thread) {
        for batch in batches {
            let started = Instant::now();
            work.execute(batch.rows);
            let at = Instant::now();
            let (group, rows, took) = (batch.group, batch.rows, at - started);
            work.record(batch.members.iter().map(|member| &member.payload), at);
            let promises = batch.members.into_iter().map(|member| member.payload.promise);
            promises.for_each(|promise| {
                // Whoever no longer waits needs no answer.
                let _ = promise.expect("every job of this side has a promise").send(());
            });
            let reported = self.done.push(Done { worker, group, rows, took, at });
            assert!(reported.is_ok(), "a worker reports one batch at a time");
            dispatcher.unpark();
        }
    }
}

impl Server for Dispatcher {
    type Answer = tokio::sync::oneshot::Receiver<()>;

    fn submit(&self, submitted: Instant) -> Self::Answer {
        let (promise, answer) = tokio::sync::oneshot::channel();
        let pushed = self.shared.arrived.push(Request::new(self.group, Job { submitted, promise: Some(promise) }));
        assert!(pushed.is_ok(), "there is room");
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.thread().unpark();
        }
        answer
    }

    fn wait(answer: Self::Answer) {
        answer.blocking_recv().expect("every job is answered");
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.thread().unpark();
            dispatcher.join().expect("the dispatcher ends");
        }
    }
}
