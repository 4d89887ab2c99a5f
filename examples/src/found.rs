//! What a load found out.

use std::time::Duration;

use volley_validate::histogram::LatencyHistogram;

/// What was measured in a window, or in several that were put together.
#[derive(Debug, Default)]
pub struct Found {
    /// Length of the window.
    pub duration: Duration,
    /// Good replies that came in the window.
    pub answered: u64,
    /// Requests that were due in the window.
    pub offered: u64,
    /// How many of them had no good reply, refusals included.
    pub failed: u64,
    /// How the first that failed did.
    pub first_failure: Option<String>,
    /// How long good replies took from when their requests were due.
    pub latency: LatencyHistogram,
    /// How long replies of status 429 and 503 took from when their requests were due.
    pub refusals: LatencyHistogram,
    /// How many of these did not say when to come back.
    pub refusals_without_retry_after: u64,
    /// Replies of status 504: the deadline passed, or came too near, while the request waited.
    pub given_up: u64,
    /// Open loop: how late the generator turned to each arrival.
    pub slip: LatencyHistogram,
    /// Processor time of the server.
    pub server_cpu: Option<Duration>,
}

impl Found {
    /// Good replies per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.duration.as_secs_f64()
    }

    /// Microseconds of the server's processor time for each good reply, if its process was watched.
    #[must_use]
    pub fn server_us(&self) -> Option<f64> {
        self.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.answered as f64)
    }

    /// Puts what another window found to this.
    pub fn add(&mut self, other: Self) {
        // The first window is put to none.
        self.server_cpu = match (self.server_cpu, other.server_cpu) {
            (None, other) if self.duration.is_zero() => other,
            (this, other) => this.zip(other).map(|(this, other)| this + other),
        };
        self.duration += other.duration;
        self.answered += other.answered;
        self.offered += other.offered;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.latency.merge(&other.latency);
        self.refusals.merge(&other.refusals);
        self.refusals_without_retry_after += other.refusals_without_retry_after;
        self.given_up += other.given_up;
        self.slip.merge(&other.slip);
    }

    /// This, if nothing failed.
    ///
    /// # Errors
    /// How many requests failed, and how the first of them did.
    pub fn without_failures(self) -> Result<Self, String> {
        match self.first_failure {
            None => Ok(self),
            Some(failure) => Err(format!("{} requests failed, the first: {failure}", self.failed)),
        }
    }
}

/// Within how many milliseconds so large a share of the times was; NaN without any.
#[must_use]
pub fn milliseconds(times: &LatencyHistogram, share: f64) -> f64 {
    times.quantile(share).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}
