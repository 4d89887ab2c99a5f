//! What is recorded of batches that fail, and of what is done about it.

use metrics::Counter;

use crate::model::ModelLabels;
use crate::names;

/// How a batch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The session reported an error.
    SessionFailed,
    /// There was no session, and none could be opened.
    NoSession,
    /// It ran for too long and was interrupted.
    Interrupted,
    /// It ran for too long and did not stop when interrupted: its worker was given up.
    Abandoned,
    /// The worker panicked.
    WorkerPanicked,
    /// One row alone needs more memory than there is.
    OutOfMemory,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::SessionFailed,
        Self::NoSession,
        Self::Interrupted,
        Self::Abandoned,
        Self::WorkerPanicked,
        Self::OutOfMemory,
    ];

    /// The value of the label `fault`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionFailed => "session_failed",
            Self::NoSession => "no_session",
            Self::Interrupted => "interrupted",
            Self::Abandoned => "abandoned",
            Self::WorkerPanicked => "worker_panicked",
            Self::OutOfMemory => "out_of_memory",
        }
    }
}

/// Handles on the series that tell how one variant fails and recovers.
#[derive(Debug)]
pub struct RecoveryMetrics {
    /// Of its gauges, which are there once they are set: a load that fails leaves none behind.
    labels: [String; 3],
    faults: [Counter; Fault::ALL.len()],
    retries: Counter,
}

impl RecoveryMetrics {
    /// Handles for this variant, with the recorder in force.
    #[must_use]
    pub fn register(labels: ModelLabels<'_>) -> Self {
        let ModelLabels { model, version, variant } = labels;
        let values = [model, version, variant];
        Self {
            labels: values.map(str::to_owned),
            faults: Fault::ALL.map(|fault| names::FAULTS.counter(&[model, version, variant, fault.as_str()])),
            retries: names::RETRIES.counter(&values),
        }
    }

    /// A batch failed.
    pub fn batch_failed(&self, fault: Fault) {
        self.faults[fault as usize].increment(1);
    }

    /// A request of a failed batch is tried again.
    pub fn request_retried(&self) {
        self.retries.increment(1);
    }

    /// Whether the variant takes requests, from now on.
    pub fn set_healthy(&self, healthy: bool) {
        names::MODEL_HEALTHY.gauge(&self.labels()).set(if healthy { 1.0 } else { 0.0 });
    }

    /// How many rows are run at once at most.
    pub fn set_row_limit(&self, rows: u32) {
        names::ROW_LIMIT.gauge(&self.labels()).set(rows);
    }

    fn labels(&self) -> [&str; 3] {
        self.labels.each_ref().map(String::as_str)
    }
}

/// Handles on the series of one member of an ensemble.
#[derive(Debug)]
pub struct MemberMetrics {
    failures: Counter,
}

impl MemberMetrics {
    /// Handles for the member, a variant of the version, with the recorder in force.
    #[must_use]
    pub fn register(member: ModelLabels<'_>) -> Self {
        Self { failures: names::MEMBER_FAILURES.counter(&[member.model, member.version, member.variant]) }
    }

    /// A batch was answered without the member.
    pub fn left_out(&self) {
        self.failures.increment(1);
    }
}
