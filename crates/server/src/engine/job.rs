//! What goes to a worker, and what comes back.

use std::fmt;
use std::sync::Arc;

use volley_gpu_runtime::{Outputs, RunError};
use volley_telemetry::Fault;

use crate::catalog::ServedVariant;
use crate::codec::Pieces;

/// The input rows of one request, as they came from the network, in the model's order of inputs, and what is to answer
/// them. It keeps the variant loaded until it is answered.
///
/// A clone shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// What answers.
    pub variant: Arc<ServedVariant>,
    /// Values of each input.
    pub inputs: Arc<[Pieces]>,
    /// Samples.
    pub rows: usize,
}

/// The answer to a job. A clone shares the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    /// The outputs of its rows.
    pub outputs: Outputs,
    /// How many models were asked: the members of an ensemble that answered, else one.
    pub members: usize,
}

/// What becomes of a job that was run.
pub(crate) type JobResult = Result<Computed, BatchError>;

/// Why a batch failed. Cheap to clone: every request of the batch is told.
#[derive(Debug, Clone)]
pub(crate) struct BatchError {
    /// What kind of failure it is.
    pub fault: Fault,
    message: Arc<str>,
}

impl BatchError {
    pub(super) fn new(fault: Fault, error: &dyn std::error::Error) -> Self {
        Self { fault, message: error.to_string().into() }
    }

    pub(super) fn of_run(error: &RunError) -> Self {
        let fault = if error.is_out_of_memory() {
            Fault::OutOfMemory
        } else if error.is_interrupted() {
            Fault::Interrupted
        } else {
            Fault::SessionFailed
        };
        Self::new(fault, error)
    }

    /// No member of an ensemble is left to ask.
    pub(super) fn no_member() -> Self {
        Self { fault: Fault::NoSession, message: "every member of the ensemble is taken out".into() }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
