//! Counts what happens to each request. Knows no clock: every time comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::measurement::{GeneratorUsage, Measurement, Progress, ServerUsage};
use crate::failure::{Failure, FailureKind, Failures};
use crate::histogram::LatencyHistogram;

/// The measured part of a run: from `start`, up to but not including `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) end: Instant,
}

impl Window {
    fn contains(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

#[derive(Debug)]
pub(super) struct Recorder {
    window: Window,
    offered: u64,
    completed: u64,
    failures: Failures,
    answered_in_window: u64,
    latency: LatencyHistogram,
    refusals: LatencyHistogram,
    refusals_without_retry_after: u64,
    overrun: LatencyHistogram,
    slip: LatencyHistogram,
    waited_for_connection: u64,
    connections: usize,
    due_ever: u64,
    answered_ever: u64,
    failed_ever: u64,
}

impl Recorder {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            offered: 0,
            completed: 0,
            failures: Failures::default(),
            answered_in_window: 0,
            latency: LatencyHistogram::new(),
            refusals: LatencyHistogram::new(),
            refusals_without_retry_after: 0,
            overrun: LatencyHistogram::new(),
            slip: LatencyHistogram::new(),
            waited_for_connection: 0,
            connections: 0,
            due_ever: 0,
            answered_ever: 0,
            failed_ever: 0,
        }
    }

    /// A request was due at `intended`.
    pub(super) fn due(&mut self, intended: Instant) {
        self.due_ever += 1;
        if self.window.contains(intended) {
            self.offered += 1;
        }
    }

    /// The generator turned to the arrival of `intended` at `turned`.
    pub(super) fn slipped(&mut self, intended: Instant, turned: Instant) {
        if self.window.contains(intended) {
            self.slip.record(turned.saturating_duration_since(intended));
        }
    }

    /// The arrival of `intended` found no connection free and the bound reached.
    pub(super) fn waited(&mut self, intended: Instant) {
        if self.window.contains(intended) {
            self.waited_for_connection += 1;
        }
    }

    /// So many connections were open at a time.
    pub(super) fn connections(&mut self, open: usize) {
        self.connections = self.connections.max(open);
    }

    /// The request of `intended` ended at `done`.
    pub(super) fn ended(&mut self, intended: Instant, done: Instant, outcome: Result<(), Failure>) {
        let offered = self.window.contains(intended);
        let latency = done.saturating_duration_since(intended);
        match outcome {
            Ok(()) => {
                self.answered_ever += 1;
                if self.window.contains(done) {
                    self.answered_in_window += 1;
                }
                if offered {
                    self.completed += 1;
                    self.latency.record(latency);
                    if done >= self.window.end {
                        self.overrun.record(done - self.window.end);
                    }
                }
            }
            Err(failure) => {
                self.failed_ever += 1;
                let replied = matches!(failure.kind, FailureKind::Status(_) | FailureKind::MalformedReply);
                if replied {
                    self.answered_ever += 1;
                }
                if offered {
                    if failure.kind == FailureKind::Timeout {
                        self.latency.record(latency);
                    }
                    if failure.is_refusal() {
                        self.refusals.record(latency);
                        self.refusals_without_retry_after += u64::from(!failure.retry_after);
                    }
                    self.failures.add(failure);
                }
            }
        }
    }

    /// Replies so far, good and bad, warm-up included.
    pub(super) fn answered(&self) -> u64 {
        self.answered_ever
    }

    pub(super) fn progress(&self, elapsed: Duration, planned: Duration) -> Progress {
        Progress {
            elapsed,
            planned,
            due: self.due_ever,
            answered: self.answered_ever,
            failed: self.failed_ever,
            p50: self.latency.quantile(0.50),
            p99: self.latency.quantile(0.99),
        }
    }

    pub(super) fn measurement(&self, generator: GeneratorUsage, server: Option<ServerUsage>) -> Measurement {
        Measurement {
            duration: self.window.end - self.window.start,
            offered: self.offered,
            completed: self.completed,
            failures: self.failures.clone(),
            answered_in_window: self.answered_in_window,
            latency: self.latency.clone(),
            refusals: self.refusals.clone(),
            refusals_without_retry_after: self.refusals_without_retry_after,
            overrun: self.overrun.clone(),
            slip: self.slip.clone(),
            waited_for_connection: self.waited_for_connection,
            connections: self.connections,
            generator,
            server,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_USAGE: GeneratorUsage = GeneratorUsage { busy_cores: 0.0, cpu_per_request: None };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn timeout() -> Failure {
        Failure::new(FailureKind::Timeout, "gave up")
    }

    /// A window from 1 s to 2 s after `begin`.
    fn recorder(begin: Instant) -> Recorder {
        Recorder::new(Window { start: begin + ms(1000), end: begin + ms(2000) })
    }

    #[test]
    fn warm_up_requests_count_for_throughput_only() {
        let begin = Instant::now();
        let mut recorder = recorder(begin);
        recorder.due(begin + ms(990));
        recorder.ended(begin + ms(990), begin + ms(1010), Ok(()));
        recorder.due(begin + ms(10));
        recorder.ended(begin + ms(10), begin + ms(20), Err(timeout()));
        let found = recorder.measurement(NO_USAGE, None);
        assert_eq!((found.offered, found.completed, found.failures.total()), (0, 0, 0));
        assert_eq!(found.answered_in_window, 1);
        assert!(found.latency.is_empty());
        assert_eq!(found.error_rate(), None);
    }

    #[test]
    fn a_reply_after_the_window_completes_its_request_but_is_no_throughput() {
        let begin = Instant::now();
        let mut recorder = recorder(begin);
        for (intended, done) in [(1000, 1500), (1900, 2050), (1999, 2300)] {
            recorder.due(begin + ms(intended));
            recorder.ended(begin + ms(intended), begin + ms(done), Ok(()));
        }
        recorder.due(begin + ms(2000));
        let found = recorder.measurement(NO_USAGE, None);
        assert_eq!((found.offered, found.completed), (3, 3));
        assert_eq!(found.answered_in_window, 1);
        assert_eq!(found.requests_per_second(), 1.0);
        assert_eq!(found.kept_up(ms(0)), Some(1.0 / 3.0));
        assert_eq!(found.kept_up(ms(100)), Some(2.0 / 3.0));
        assert_eq!(found.kept_up(ms(300)), Some(1.0));
    }

    #[test]
    fn a_request_given_up_counts_as_slow_and_as_failed_but_a_fast_refusal_is_not_a_latency() {
        let begin = Instant::now();
        let mut recorder = recorder(begin);
        let intended = begin + ms(1100);
        recorder.due(intended);
        recorder.ended(intended, intended + ms(700), Err(timeout()));
        recorder.due(intended);
        let full = Failure::new(FailureKind::Status(503), "full");
        recorder.ended(intended, intended + ms(1), Err(full));
        let found = recorder.measurement(NO_USAGE, None);
        assert_eq!(found.latency.len(), 1);
        assert!(found.latency.max().unwrap() >= ms(699));
        assert_eq!(found.error_rate(), Some(1.0));
        assert_eq!(found.completed, 0);
    }

    #[test]
    fn refusals_are_told_from_missed_deadlines_and_counted_if_they_do_not_say_when_to_come_back() {
        let begin = Instant::now();
        let mut recorder = recorder(begin);
        for (status, retry_after, milliseconds) in [(503, true, 2), (429, false, 3), (504, true, 4), (504, false, 50)] {
            recorder.due(begin + ms(1000));
            let failure = Failure { retry_after, ..Failure::new(FailureKind::Status(status), "") };
            recorder.ended(begin + ms(1000), begin + ms(1000 + milliseconds), Err(failure));
        }
        let found = recorder.measurement(NO_USAGE, None);
        assert_eq!((found.refusals.len(), found.refusals_without_retry_after), (3, 1));
        assert!(found.refusals.max().unwrap() < ms(5));
        assert_eq!(found.failures.total(), 4);
    }
}
