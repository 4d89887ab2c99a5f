//! What is recorded of batches that fail, and of what is done about it.

use metrics::{Counter, Gauge};

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
    healthy: Gauge,
    faults: [Counter; Fault::ALL.len()],
    retries: Counter,
    row_limit: Gauge,
}

impl RecoveryMetrics {
    /// Handles for this variant, which is healthy, with the recorder in force.
    #[must_use]
    pub fn register(labels: ModelLabels<'_>) -> Self {
        let ModelLabels { model, version, variant } = labels;
        let values = [model, version, variant];
        let healthy = names::MODEL_HEALTHY.gauge(&values);
        healthy.set(1.0);
        Self {
            healthy,
            faults: Fault::ALL.map(|fault| names::FAULTS.counter(&[model, version, variant, fault.as_str()])),
            retries: names::RETRIES.counter(&values),
            row_limit: names::ROW_LIMIT.gauge(&values),
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
        self.healthy.set(if healthy { 1.0 } else { 0.0 });
    }

    /// How many rows are run at once at most.
    pub fn set_row_limit(&self, rows: u32) {
        self.row_limit.set(rows);
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
