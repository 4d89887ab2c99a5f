//! The same load for either side, and what came of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// What is submitted.
pub(crate) struct Job {
    /// When it was due, whenever it was really submitted: a producer that lags behind hides nothing.
    pub(crate) submitted: Instant,
    /// How its caller hears, on the side whose tickets are not the scheduler's own.
    pub(crate) promise: Option<oneshot::Sender<()>>,
}

/// Something that takes jobs and answers them.
pub(crate) trait Server {
    type Answer;

    fn submit(&self, submitted: Instant) -> Self::Answer;

    /// Blocks until the answer is there.
    fn wait(answer: Self::Answer);
}

/// How a batch is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// The worker's core computes.
    Core,
    /// Something else computes, and the worker's thread sleeps meanwhile.
    Accelerator,
    /// Nothing is done.
    Nothing,
}

/// What the workers do, and what they saw.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) device: Device,
    /// From the moment a job was due to the end of its execution, and the sizes of the batches.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) batches: usize,
}

impl Device {
    /// What a batch takes.
    pub(crate) fn cost(self, rows: usize) -> Duration {
        let rows = u32::try_from(rows).expect("a batch has few rows");
        match self {
            Self::Core => Duration::from_micros(100) + Duration::from_micros(5) * rows,
            Self::Accelerator => Duration::from_micros(1_000) + Duration::from_micros(50) * rows,
            Self::Nothing => Duration::ZERO,
        }
    }
}

impl Work {
    pub(crate) fn on(device: Device) -> Self {
        Self { device, seen: Arc::default() }
    }

    pub(crate) fn execute(&self, rows: usize) {
        let cost = self.device.cost(rows);
        match self.device {
            Device::Core => {
                let end = Instant::now() + cost;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            }
            Device::Accelerator => thread::sleep(cost),
            Device::Nothing => {}
        }
    }

    pub(crate) fn record<'a>(&self, jobs: impl Iterator<Item = &'a Job>, now: Instant) {
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.latencies.extend(jobs.map(|job| now.saturating_duration_since(job.submitted)));
        seen.batches += 1;
    }

    /// Takes what was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().expect("no holder panics"))
    }
}

/// How many of its latest jobs the producer keeps under way: what is older was answered.
const KEPT: usize = 8_192;
/// A producer that lags this far behind was stopped from outside, with all the rest: the schedule moves on with it.
const STANDSTILL: Duration = Duration::from_millis(200);

/// Submits `pace` jobs a second for `duration`, from one thread, and waits for the last.
pub(crate) fn open_loop<S: Server>(server: &S, pace: f64, duration: Duration) {
    let mut start = Instant::now();
    let mut kept = VecDeque::with_capacity(2 * KEPT);
    let mut sent = 0_u32;
    loop {
        let since_start = Duration::from_secs_f64(f64::from(sent) / pace);
        if since_start >= duration {
            break;
        }
        let now = Instant::now();
        if now > start + since_start + STANDSTILL {
            start = now - since_start;
        }
        let due = start + since_start;
        if now < due {
            thread::sleep(due - now);
            continue;
        }
        kept.push_back(server.submit(due));
        sent += 1;
        // What was submitted so long ago has been answered: dropping it withdraws nothing.
        kept.drain(..kept.len().saturating_sub(KEPT));
    }
    kept.into_iter().for_each(S::wait);
}

/// The median round trip of one caller that parks.
pub(crate) fn round_trip<S: Server>(server: &S, trips: usize) -> Duration {
    let mut taken: Vec<_> = (0..trips)
        .map(|_| {
            let start = Instant::now();
            S::wait(server.submit(start));
            start.elapsed()
        })
        .collect();
    *taken.select_nth_unstable(trips / 2).1
}
