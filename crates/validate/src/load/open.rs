//! Open loop: requests leave at times fixed beforehand, over as many connections as that takes.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;

use super::timer::Timer;
use super::{Arrivals, LoadError, SharedRecorder};
use crate::link::Link;
use crate::subject::Subject;

/// Requests at times fixed beforehand.
///
/// Each takes a free connection, or opens one. At the bound it waits for one, and the wait is part of
/// its latency; so is opening a connection, which a warm-up therefore should see to.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    /// When requests are due.
    pub arrivals: Arrivals,
    /// Time under load before anything is measured; the schedule's own first part.
    pub warmup: Duration,
    /// Length of the measured window.
    pub duration: Duration,
    /// Most connections at a time.
    pub max_connections: NonZeroUsize,
}

impl OpenLoop {
    /// Requests per second that the schedule stands for: the rate asked for, or, for a trace, that of
    /// its arrivals within the window.
    #[must_use]
    pub fn nominal_rate(&self) -> f64 {
        match &self.arrivals {
            Arrivals::Constant { rate } | Arrivals::Poisson { rate, .. } => rate.per_second(),
            Arrivals::Trace(trace) => {
                let due = trace.count_within(self.warmup, self.warmup + self.duration);
                due as f64 / self.duration.as_secs_f64()
            }
        }
    }
}

pub(super) async fn drive(
    subject: &Subject,
    plan: &OpenLoop,
    begin: Instant,
    recorder: &SharedRecorder,
) -> Result<(), LoadError> {
    let mut timer = Timer::new().map_err(LoadError::Timer)?;
    let mut pool = Pool::new(subject, plan.max_connections, recorder);
    for offset in plan.arrivals.schedule(plan.warmup + plan.duration) {
        let intended = begin + offset;
        timer.wait_until(intended).await.map_err(LoadError::Timer)?;
        let turned = Instant::now();
        {
            let mut recorder = recorder.lock();
            recorder.due(intended);
            recorder.slipped(intended, turned);
        }
        pool.send(intended);
        // A schedule that has fallen behind must not keep the connections from their replies.
        yield_now().await;
    }
    pool.finish().await;
    Ok(())
}

/// Connections, each a task, and what waits for one.
struct Pool<'a> {
    subject: &'a Subject,
    bound: usize,
    recorder: &'a SharedRecorder,
    shared: Arc<Mutex<Queue>>,
    inboxes: Vec<UnboundedSender<Instant>>,
    tasks: JoinSet<()>,
}

/// What the pool and its connections share. An entry is the intended send time of a request.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Instant>,
    /// Connections without a request, the latest used last: it is taken first, its buffers are warm.
    idle: Vec<usize>,
}

impl<'a> Pool<'a> {
    fn new(subject: &'a Subject, bound: NonZeroUsize, recorder: &'a SharedRecorder) -> Self {
        Self {
            subject,
            bound: bound.get(),
            recorder,
            shared: Arc::default(),
            inboxes: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    fn send(&mut self, intended: Instant) {
        let mut queue = lock(&self.shared);
        if let Some(connection) = queue.idle.pop() {
            self.inboxes[connection].send(intended).expect("connections outlive their inboxes");
        } else if self.inboxes.len() < self.bound {
            drop(queue);
            self.open(intended);
        } else {
            queue.waiting.push_back(intended);
            self.recorder.lock().waited(intended);
        }
    }

    fn open(&mut self, first: Instant) {
        let (inbox, requests) = unbounded_channel();
        let connection = PooledConnection {
            number: self.inboxes.len(),
            subject: self.subject.clone(),
            recorder: self.recorder.clone(),
            queue: Arc::clone(&self.shared),
            requests,
            link: None,
        };
        self.inboxes.push(inbox);
        self.tasks.spawn(connection.serve(first));
        self.recorder.lock().connections(self.inboxes.len());
    }

    /// Waits until every request sent has ended.
    async fn finish(mut self) {
        self.inboxes.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

struct PooledConnection {
    number: usize,
    subject: Subject,
    recorder: SharedRecorder,
    queue: Arc<Mutex<Queue>>,
    requests: UnboundedReceiver<Instant>,
    link: Option<Link>,
}

impl PooledConnection {
    async fn serve(mut self, first: Instant) {
        let mut next = Some(first);
        while let Some(intended) = next {
            let outcome = self.subject.ask(&mut self.link, intended).await;
            self.recorder.lock().ended(intended, Instant::now(), outcome);
            next = match self.next_waiting() {
                Some(waiting) => Some(waiting),
                None => self.next_sent().await,
            };
        }
    }

    /// The request that has waited longest; when none waits, this connection is idle from here on.
    fn next_waiting(&self) -> Option<Instant> {
        let mut queue = lock(&self.queue);
        let waiting = queue.waiting.pop_front();
        if waiting.is_none() {
            queue.idle.push(self.number);
        }
        waiting
    }

    /// The request the pool hands over; `None` when there will be no more.
    async fn next_sent(&mut self) -> Option<Instant> {
        if let Some(link) = &mut self.link {
            tokio::select! {
                biased;
                sent = self.requests.recv() => return sent,
                () = link.closed() => self.link = None,
            }
        }
        self.requests.recv().await
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
