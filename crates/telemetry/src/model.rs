//! What is recorded of a model's requests and batches.

use crate::lane::{Lane, PerLane};
use crate::names;
use metrics::{Counter, Histogram};
use std::time::Duration;

/// Which variant of which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelLabels<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Its version, as its directory is called.
    pub version: &'a str,
    /// The variant of that version, such as `fp32` or `int8`.
    pub variant: &'a str,
}

/// Why a request that reached a model got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its deadline could not be met, so it was refused at once.
    DeadlineUnmeetable,
    /// Its deadline passed while it waited.
    DeadlineExceeded,
    /// Its lane was full.
    QueueFull,
    /// The server was shutting down.
    ShuttingDown,
    /// Its batch failed.
    ComputeFailed,
    /// Its variant is taken out, because its batches kept failing.
    Unavailable,
    /// Anything else on the service's side.
    Internal,
    /// The tenant used more than its quota.
    QuotaExceeded,
    /// The caller went away.
    Cancelled,
    /// The input does not fit the model.
    InvalidInput,
}

impl Failure {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::DeadlineUnmeetable,
        Self::DeadlineExceeded,
        Self::QueueFull,
        Self::ShuttingDown,
        Self::ComputeFailed,
        Self::Unavailable,
        Self::Internal,
        Self::QuotaExceeded,
        Self::Cancelled,
        Self::InvalidInput,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadlineUnmeetable => "deadline_unmeetable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::QueueFull => "queue_full",
            Self::ShuttingDown => "shutting_down",
            Self::ComputeFailed => "compute_failed",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid_input",
        }
    }

    /// Whether the caller brought it about, so that it does not count in the service's error rate.
    #[must_use]
    pub fn is_callers(self) -> bool {
        matches!(self, Self::QuotaExceeded | Self::Cancelled | Self::InvalidInput)
    }

    /// Whether a deadline was the reason.
    #[must_use]
    pub fn is_deadline(self) -> bool {
        matches!(self, Self::DeadlineUnmeetable | Self::DeadlineExceeded)
    }
}

/// Handles on every series of one variant of a model, looked up once. Recording is an atomic addition for a counter and
/// a few nanoseconds more for a histogram; it takes no lock.
#[derive(Debug)]
pub struct ModelMetrics {
    lanes: PerLane<LaneMetrics>,
    failures: [Counter; Failure::ALL.len()],
    compute: Histogram,
    batch_size: Histogram,
}

#[derive(Debug)]
struct LaneMetrics {
    latency: Histogram,
    requests: Counter,
    errors: Counter,
    deadline_misses: Counter,
    queue: Histogram,
}

impl ModelMetrics {
    /// Handles for this variant, with the recorder in force. Its counters exist from now on, at zero, so that a rate
    /// sees the first increment.
    #[must_use]
    pub fn register(labels: ModelLabels<'_>) -> Self {
        let ModelLabels { model, version, variant } = labels;
        Self {
            lanes: PerLane::new(|lane| {
                let values = [model, version, variant, lane.as_str()];
                LaneMetrics {
                    latency: names::LATENCY.histogram(&values),
                    requests: names::REQUESTS.counter(&values),
                    errors: names::ERRORS.counter(&values),
                    deadline_misses: names::DEADLINE_MISSES.counter(&values),
                    queue: names::QUEUE.histogram(&values),
                }
            }),
            failures: Failure::ALL.map(|reason| names::FAILURES.counter(&[model, version, variant, reason.as_str()])),
            compute: names::COMPUTE.histogram(&[model, version, variant]),
            batch_size: names::BATCH_SIZE.histogram(&[model, version, variant]),
        }
    }

    /// A request was answered, `latency` after it arrived.
    pub fn request_completed(&self, lane: Lane, latency: Duration) {
        let lane = self.lanes.of(lane);
        lane.requests.increment(1);
        lane.latency.record(latency);
    }

    /// As [`request_completed`](Self::request_completed), but its deadline had passed by then.
    pub fn request_completed_late(&self, lane: Lane, latency: Duration) {
        self.request_completed(lane, latency);
        self.lanes.of(lane).deadline_misses.increment(1);
    }

    /// A request ended without an answer.
    pub fn request_failed(&self, lane: Lane, reason: Failure) {
        let lane = self.lanes.of(lane);
        lane.requests.increment(1);
        if !reason.is_callers() {
            lane.errors.increment(1);
        }
        if reason.is_deadline() {
            lane.deadline_misses.increment(1);
        }
        self.failures[reason as usize].increment(1);
    }

    /// A request that was submitted to `lane` left the queue for a batch.
    pub fn request_dequeued(&self, lane: Lane, waited: Duration) {
        self.lanes.of(lane).queue.record(waited);
    }

    /// A batch of `rows` ran for `compute`.
    pub fn batch_executed(&self, rows: u32, compute: Duration) {
        self.batch_size.record(rows);
        self.compute.record(compute);
    }
}
