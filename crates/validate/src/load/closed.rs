//! Closed loop: every connection asks again as soon as it has its answer.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::SharedRecorder;
use crate::failure::FailureKind;
use crate::subject::Subject;

/// A number of connections kept busy.
///
/// Finds the throughput at saturation. Its latencies say how long a request takes when exactly
/// this many are under way; they do not say what independent users would see.
#[derive(Debug, Clone)]
pub struct ClosedLoop {
    /// Connections, each with one request under way at all times.
    pub connections: NonZeroUsize,
    /// Time under load before anything is measured.
    pub warmup: Duration,
    /// Length of the measured window.
    pub duration: Duration,
}

/// A server that refuses connections is asked again after this long, not in a hot loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(100);

pub(super) async fn drive(subject: &Subject, plan: &ClosedLoop, end: Instant, recorder: &SharedRecorder) {
    recorder.lock().connections(plan.connections.get());
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections.get() {
        let subject = subject.clone();
        let recorder = recorder.clone();
        connections.spawn(async move { keep_asking(&subject, end, &recorder).await });
    }
    connections.join_all().await;
}

async fn keep_asking(subject: &Subject, end: Instant, recorder: &SharedRecorder) {
    let mut link = None;
    loop {
        let sent = Instant::now();
        if sent >= end {
            return;
        }
        recorder.lock().due(sent);
        let outcome = subject.ask(&mut link, sent).await;
        let refused = outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Connect);
        recorder.lock().ended(sent, Instant::now(), outcome);
        if refused {
            sleep(PAUSE_AFTER_REFUSAL).await;
        }
    }
}
