//! A device's scheduler and the worker threads that run its batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use volley_gpu_runtime::{LoadError, Outputs, RunError, Session};
use volley_scheduler::{Batch, Executor, GroupId, Scheduler, Worker};

use crate::catalog::{Catalog, ServedVariant};
use crate::codec::Pieces;

/// The scheduler of one device: requests in, results out.
pub(crate) type DeviceScheduler = Scheduler<Job, JobResult>;

/// The input rows of one request, as they came from the network, in the model's order of inputs.
///
/// A clone shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Values of each input.
    pub inputs: Vec<Pieces>,
    /// Samples.
    pub rows: usize,
}

/// What becomes of a job that was run.
pub(crate) type JobResult = Result<Outputs, RunError>;

/// The threads that run batches.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread for each of `workers`, and one that keeps an eye on deadlines while all of them are busy. Each
    /// worker opens its own sessions of every served variant and runs them once
    /// for each batch size, so that no request pays for a first run. Returns when all are ready.
    ///
    /// # Errors
    /// The first [`LoadError`] of any of them.
    ///
    /// # Panics
    /// If the system cannot start a thread.
    pub(crate) fn start(
        scheduler: &DeviceScheduler,
        workers: Vec<Worker<Job, JobResult>>,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, LoadError> {
        let (report, reports) = mpsc::channel();
        let count = workers.len();
        let mut threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| {
                let (catalog, report) = (Arc::clone(catalog), report.clone());
                thread::Builder::new()
                    .name(format!("volley-worker-{index}"))
                    .spawn(move || match BatchRunner::open(&catalog) {
                        Ok(runner) => {
                            let _ = report.send(Ok(()));
                            // Dropped now, so that a thread that dies without a word ends the wait below.
                            drop(report);
                            worker.run(runner);
                        }
                        Err(error) => {
                            let _ = report.send(Err(error));
                        }
                    })
                    .expect("the system can start a thread")
            })
            .collect();
        drop(report);
        for _ in 0..count {
            reports.recv().expect("a worker reports before it ends")?;
        }
        let timekeeper = scheduler.timekeeper().map(|timekeeper| {
            let thread = thread::Builder::new().name("volley-timekeeper".into());
            thread.spawn(move || timekeeper.run()).expect("the system can start a thread")
        });
        threads.extend(timekeeper);
        Ok(Self { threads })
    }

    /// Waits for the threads to end, which they do once the scheduler is closed and drained.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked outside a batch");
            }
        }
    }
}

/// One worker's sessions.
struct BatchRunner {
    lanes: HashMap<GroupId, (Arc<ServedVariant>, Session)>,
}

impl BatchRunner {
    fn open(catalog: &Catalog) -> Result<Self, LoadError> {
        let mut lanes = HashMap::new();
        for variant in catalog.variants() {
            let session = variant.model.open_warm_session()?;
            lanes.insert(variant.group, (Arc::clone(variant), session));
        }
        Ok(Self { lanes })
    }
}

impl Executor<Job, JobResult> for BatchRunner {
    fn execute(&mut self, batch: &mut Batch<Job, JobResult>) {
        let (variant, session) = self.lanes.get_mut(&batch.group()).expect("every group was opened");
        let started = Instant::now();
        let mut row = 0;
        for index in 0..batch.len() {
            let job = batch.payload(index);
            for (input, values) in job.inputs.iter().enumerate() {
                session.write(input, row, values.iter());
            }
            row += job.rows;
        }
        match session.run(row) {
            Ok(outputs) => {
                let mut start = 0;
                for index in 0..batch.len() {
                    let end = start + batch.payload(index).rows;
                    batch.complete(index, Ok(outputs.rows(start..end)));
                    start = end;
                }
            }
            Err(error) => {
                tracing::error!(model = variant.model_name, version = variant.version, rows = row, %error, "batch failed");
                for index in 0..batch.len() {
                    batch.complete(index, Err(error.clone()));
                }
            }
        }
        variant.metrics.batch_executed(u32::try_from(row).unwrap_or(u32::MAX), started.elapsed());
    }
}
