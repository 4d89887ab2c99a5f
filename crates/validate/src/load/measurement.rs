//! What a run found.

use std::time::Duration;

use super::Sample;
use crate::failure::Failures;
use crate::histogram::LatencyHistogram;

/// Everything measured within the window of one run.
///
/// A request belongs to the window when its intended send time does, whenever its reply comes.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Length of the window.
    pub duration: Duration,
    /// Requests that were due within the window.
    pub offered: u64,
    /// How many of them were answered well.
    pub completed: u64,
    /// How the others failed.
    pub failures: Failures,
    /// Good replies that arrived within the window, whenever their requests were sent: the achieved
    /// throughput, free of edge effects at a steady state.
    pub answered_in_window: u64,
    /// Latency of every good reply, and of every request given up for lack of one (at the time of giving
    /// up, a lower bound: leaving those out would flatter). Fast failures are not in it.
    pub latency: LatencyHistogram,
    /// How long each refusal took to come: replies of status 429 or 503, and others than 200 with `Retry-After`.
    pub refusals: LatencyHistogram,
    /// How many of the refusals did not say when to come back.
    pub refusals_without_retry_after: u64,
    /// How long after the end of the window the good replies came that came after it.
    pub overrun: LatencyHistogram,
    /// Open loop: how late the generator turned to each arrival. Waiting for a connection is not in it.
    pub slip: LatencyHistogram,
    /// Open loop: how many requests had to wait because the bound on connections was reached.
    pub waited_for_connection: u64,
    /// Most connections open at a time.
    pub connections: usize,
    /// What the generator itself cost.
    pub generator: GeneratorUsage,
    /// What the server cost, when its process was watched and outlived the window.
    pub server: Option<ServerUsage>,
}

impl Measurement {
    /// Share of the requests due in the window that failed; `None` when there were none.
    #[must_use]
    pub fn error_rate(&self) -> Option<f64> {
        (self.offered > 0).then(|| self.failures.total() as f64 / self.offered as f64)
    }

    /// Good replies per second of the window.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.answered_in_window as f64 / self.duration.as_secs_f64()
    }

    /// Share of the requests due in the window that were answered well no later than `grace` after its
    /// end; `None` when there were none.
    #[must_use]
    pub fn kept_up(&self, grace: Duration) -> Option<f64> {
        let in_time = self.completed - self.overrun.count_above(grace);
        (self.offered > 0).then(|| in_time as f64 / self.offered as f64)
    }
}

/// Cost of the generator's process over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratorUsage {
    /// Processor time over wall time: 1 is one core, fully busy.
    pub busy_cores: f64,
    /// Processor time per reply; `None` without replies.
    pub cpu_per_request: Option<Duration>,
}

/// Cost of the server's process over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerUsage {
    /// The process.
    pub pid: u32,
    /// Processor time used.
    pub cpu: Duration,
    /// Processor time over wall time: 1 is one core, fully busy.
    pub busy_cores: f64,
    /// Processor time per reply; `None` without replies.
    pub cpu_per_request: Option<Duration>,
    /// Resident memory in bytes at the end of the window.
    pub resident_bytes: u64,
}

impl GeneratorUsage {
    pub(super) fn between(first: &Sample, last: &Sample) -> Self {
        let cpu = last.generator_cpu.saturating_sub(first.generator_cpu);
        Self { busy_cores: busy(cpu, first, last), cpu_per_request: per_request(cpu, first, last) }
    }
}

impl ServerUsage {
    /// `None` when the process was not watched, or one sample found it gone.
    pub(super) fn between(first: &Sample, last: &Sample) -> Option<Self> {
        let (pid, before) = first.server?;
        let (_, after) = last.server?;
        let cpu = after.cpu.saturating_sub(before.cpu);
        Some(Self {
            pid,
            cpu,
            busy_cores: busy(cpu, first, last),
            cpu_per_request: per_request(cpu, first, last),
            resident_bytes: after.resident_bytes,
        })
    }
}

fn busy(cpu: Duration, first: &Sample, last: &Sample) -> f64 {
    let wall = last.at.saturating_duration_since(first.at);
    if wall.is_zero() { 0.0 } else { cpu.as_secs_f64() / wall.as_secs_f64() }
}

fn per_request(cpu: Duration, first: &Sample, last: &Sample) -> Option<Duration> {
    let answered = last.answered - first.answered;
    (answered > 0).then(|| cpu.div_f64(answered as f64))
}

/// How a run is getting on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the run began.
    pub elapsed: Duration,
    /// Warm-up and window together.
    pub planned: Duration,
    /// Requests due so far, warm-up included.
    pub due: u64,
    /// Replies so far, good and bad.
    pub answered: u64,
    /// Failed requests so far.
    pub failed: u64,
    /// Median latency within the window so far; `None` while warming up.
    pub p50: Option<Duration>,
    /// 99th percentile of the latency within the window so far.
    pub p99: Option<Duration>,
}
