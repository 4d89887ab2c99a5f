//! Runs a batch: rows into a session's buffer, one run, outputs to those who asked.

use std::ops::Range;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use volley_gpu_runtime::{BatchOutputs, Instances, Outputs};
use volley_scheduler::{Batch, Executor};
use volley_telemetry::Fault;

use super::job::{BatchError, Computed, Job, JobResult};
use super::watchdog::Watch;
use crate::catalog::{Members, Runs, ServedVariant};
use crate::statistics::Parts;
use crate::yielding::yield_to_who_is_behind;

/// One worker's executor. Sessions are the variants'; this takes the worker's own of each.
#[derive(Debug)]
pub(super) struct BatchRunner {
    worker: usize,
    watch: Arc<Watch>,
}

impl BatchRunner {
    pub(super) fn new(worker: usize, watch: Arc<Watch>) -> Self {
        Self { worker, watch }
    }

    /// Runs the batch on `instances` of `variant` and has `then` take the outputs away. A session that failed is not
    /// used again: the next batch opens another.
    fn run<'b>(
        &self,
        variant: &Arc<ServedVariant>,
        instances: &Instances,
        batch: &'b mut Batch<Job, JobResult>,
        then: impl FnOnce(&BatchOutputs<'_>, &'b mut Batch<Job, JobResult>),
    ) -> Result<Parts, BatchError> {
        let rows = batch.rows();
        let result = self.run_session(variant, instances, batch, then);
        match &result {
            Ok(_) => variant.health.succeeded(),
            Err(error) => self.report(variant, rows, error),
        }
        result
    }

    fn run_session<'b>(
        &self,
        variant: &Arc<ServedVariant>,
        instances: &Instances,
        batch: &'b mut Batch<Job, JobResult>,
        then: impl FnOnce(&BatchOutputs<'_>, &'b mut Batch<Job, JobResult>),
    ) -> Result<Parts, BatchError> {
        let watched = self.watch.begin(self.worker, variant);
        let mut session = instances.lease(self.worker).map_err(|error| BatchError::new(Fault::NoSession, &error))?;
        let began = Instant::now();
        let mut row = 0;
        for job in batch.payloads() {
            for (input, values) in job.inputs.iter().enumerate() {
                session.write(input, row, values.iter());
            }
            row += job.rows;
        }
        session.blank(row..batch.padded_rows());
        watched.runs(session.interrupter());
        let gathered = Instant::now();
        let result = session.run(batch.padded_rows());
        let ran = Instant::now();
        drop(watched);
        let error = match result {
            Ok(outputs) => {
                then(&outputs, batch);
                return Ok(Parts { input: gathered - began, infer: ran - gathered, output: ran.elapsed() });
            }
            Err(error) => error,
        };
        // Also where one row did not find memory: what this session holds of it, the next may need.
        session.discard();
        Err(BatchError::of_run(&error))
    }

    fn report(&self, variant: &ServedVariant, rows: usize, error: &BatchError) {
        let (model, version, name) = (&variant.model_name, &variant.version, &variant.variant);
        let fault = error.fault.as_str();
        tracing::error!(model, version, variant = name, worker = self.worker, rows, fault, %error, "batch failed");
        variant.batch_failed(error.fault);
    }

    fn run_one(&self, variant: &Arc<ServedVariant>, instances: &Instances, batch: &mut Batch<Job, JobResult>) {
        let result = self.run(variant, instances, batch, |outputs, batch| {
            complete(batch, 1, |rows| outputs.rows(rows));
        });
        match result {
            Ok(parts) => variant.statistics.executed(batch.len(), batch.rows(), parts),
            Err(error) => fail(batch, &error),
        }
    }

    /// Asks every member that is not taken out. Of a request that is alone, one that fails is left out of the answer, unless
    /// all do; a batch of several fails with it, and each of its requests is tried alone.
    fn run_several(&self, variant: &ServedVariant, several: &Members, batch: &mut Batch<Job, JobResult>) {
        let mut parts = Parts::default();
        let mut opinions = several.ensemble.hear(batch.padded_rows());
        let mut last_error = None;
        for member in &several.members {
            let Runs::One(instances) = &member.variant.runs else { unreachable!("members are no ensembles") };
            if member.variant.health.is_out() {
                member.metrics.left_out();
                continue;
            }
            match self.run(&member.variant, instances, batch, |outputs, _| opinions.add(outputs)) {
                Ok(took) => parts += took,
                Err(error) => {
                    member.metrics.left_out();
                    last_error = Some(error);
                }
            }
        }
        // A member that failed in company may have failed because of one of them: alone, each gets all that it can.
        let in_company = batch.len() > 1;
        match last_error {
            Some(error) if in_company || opinions.members() == 0 => return fail(batch, &error),
            None if opinions.members() == 0 => return fail(batch, &BatchError::no_member()),
            _ => {}
        }
        complete(batch, opinions.members(), |rows| opinions.rows(rows));
        variant.statistics.executed(batch.len(), batch.rows(), parts);
    }
}

impl Executor<Job, JobResult> for BatchRunner {
    fn execute(&mut self, batch: &mut Batch<Job, JobResult>) {
        let variant = Arc::clone(&batch.payload(0).variant);
        let started = Instant::now();
        let _witness = Witness(&variant);
        match &variant.runs {
            Runs::One(instances) => self.run_one(&variant, instances, batch),
            Runs::Several(several) => self.run_several(&variant, several, batch),
        }
        variant.metrics.batch_executed(u32::try_from(batch.rows()).unwrap_or(u32::MAX), started.elapsed());
    }

    fn delivered(&mut self) {
        yield_to_who_is_behind();
    }
}

/// Gives each request its rows of the outputs.
fn complete(batch: &mut Batch<Job, JobResult>, members: usize, outputs: impl Fn(Range<usize>) -> Outputs) {
    let mut start = 0;
    for index in 0..batch.len() {
        let end = start + batch.payload(index).rows;
        batch.complete(index, Ok(Computed { outputs: outputs(start..end), members }));
        start = end;
    }
}

fn fail(batch: &mut Batch<Job, JobResult>, error: &BatchError) {
    for index in 0..batch.len() {
        batch.complete(index, Err(error.clone()));
    }
}

/// Counts a panic, which the scheduler contains.
struct Witness<'a>(&'a ServedVariant);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.batch_failed(Fault::WorkerPanicked);
        }
    }
}
