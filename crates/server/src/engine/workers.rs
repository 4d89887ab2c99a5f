//! The threads that run batches.

use std::fmt;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use volley_gpu_runtime::pin_current_thread;
use volley_scheduler::Worker;

use super::DeviceScheduler;
use super::job::{Job, JobResult};
use super::runner::BatchRunner;
use super::watchdog::{Watch, Watchdog};
use crate::catalog::{Catalog, ServedVariant};
use crate::yielding::yield_to_workers;

/// Which processors workers are kept on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pinning(pub Vec<usize>);

impl Pinning {
    /// Keeps the calling thread, worker `worker`, on its processor; leaves it alone where none is named.
    fn apply(&self, worker: usize) {
        let Some(&core) = self.0.get(worker % self.0.len().max(1)) else { return };
        if let Err(error) = pin_current_thread(&[core]) {
            tracing::warn!(worker, core, %error, "the worker could not be kept on its processor");
        }
    }
}

/// All threads of one device, and what keeps them going.
#[derive(Debug)]
pub(crate) struct Workers {
    crew: Arc<Crew>,
    timekeeper: Option<JoinHandle<()>>,
    watchdog: JoinHandle<()>,
    stop_watchdog: Sender<()>,
}

/// The workers that run, which changes when one is given up.
pub(super) struct Crew {
    threads: Mutex<Vec<(usize, JoinHandle<()>)>>,
    watch: Arc<Watch>,
    pinning: Pinning,
    catalog: Arc<Catalog>,
}

impl Workers {
    /// Starts one thread for each of `workers`, one that keeps an eye on deadlines while all of them are busy, and one
    /// that gives up a worker whose batch runs for longer than `run_limit`.
    ///
    /// # Panics
    /// If the system cannot start a thread.
    pub(crate) fn start(
        scheduler: &DeviceScheduler,
        workers: Vec<Worker<Job, JobResult>>,
        catalog: &Arc<Catalog>,
        pinning: Pinning,
        run_limit: Duration,
    ) -> Self {
        let watch = Arc::new(Watch::new(workers.len()));
        let crew = Crew { threads: Mutex::default(), watch: Arc::clone(&watch), pinning, catalog: Arc::clone(catalog) };
        let crew = Arc::new(crew);
        for worker in workers {
            crew.start(worker);
        }
        let timekeeper = scheduler.timekeeper().map(|timekeeper| {
            let thread = thread::Builder::new().name("volley-timekeeper".into());
            let run = move || {
                yield_to_workers();
                timekeeper.run();
            };
            thread.spawn(run).expect("the system can start a thread")
        });
        let watchdog = Watchdog { watch, crew: Arc::clone(&crew), scheduler: scheduler.clone(), limit: run_limit };
        let (stop_watchdog, stop) = mpsc::channel();
        let thread = thread::Builder::new().name("volley-watchdog".into());
        let watchdog = thread.spawn(move || watchdog.run(&stop)).expect("the system can start a thread");
        Self { crew, timekeeper, watchdog, stop_watchdog }
    }

    /// Waits for the threads to end, which they do once the scheduler is closed and drained. A worker that was given up
    /// is not waited for.
    pub(crate) fn join(self) {
        // Polled: one that hangs is not joined, but given up and replaced meanwhile.
        while self.crew.is_at_work() {
            thread::sleep(Duration::from_millis(2));
        }
        self.timekeeper.into_iter().for_each(end);
        drop(self.stop_watchdog);
        end(self.watchdog);
    }
}

impl Crew {
    /// Starts a thread for `worker`; one with the same number is given up.
    pub(super) fn start(&self, worker: Worker<Job, JobResult>) {
        let number = worker.number();
        let runner = BatchRunner::new(number, Arc::clone(&self.watch));
        let pinning = self.pinning.clone();
        let thread = thread::Builder::new().name(format!("volley-worker-{number}"));
        let thread = thread.spawn(move || {
            pinning.apply(number);
            worker.run(runner);
        });
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|(other, _)| *other != number);
        threads.push((number, thread.expect("the system can start a thread")));
    }

    /// Everything that is served.
    pub(super) fn variants(&self) -> Vec<Arc<ServedVariant>> {
        self.catalog.variants()
    }

    /// Whether a worker is left that has not ended.
    fn is_at_work(&self) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<_> = threads.extract_if(.., |(_, thread)| thread.is_finished()).collect();
        ended.into_iter().for_each(|(_, thread)| end(thread));
        !threads.is_empty()
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").finish_non_exhaustive()
    }
}

fn end(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the engine panicked outside a batch");
    }
}
