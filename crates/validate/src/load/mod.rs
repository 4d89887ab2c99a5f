//! Load on a live server, and what was measured under it.
//!
//! An open loop sends at times fixed beforehand, as independent users do, and counts each latency from
//! the time a request *should* have been sent. A generator that waits for a reply before it sends the
//! next request stops asking exactly while the server is slow ("coordinated omission", Gil Tene, "How
//! NOT to Measure Latency"); here such a wait is part of the latency. A closed loop keeps a number of
//! connections busy and finds the most a server can do.

mod arrivals;
mod closed;
mod measurement;
mod open;
mod recorder;
mod timer;
mod trace;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep_until};

pub use arrivals::{Arrivals, Rate, RateError, Schedule};
pub use closed::ClosedLoop;
pub use measurement::{GeneratorUsage, Measurement, Progress, ServerUsage};
pub use open::OpenLoop;
pub use trace::{Trace, TraceError};

use crate::subject::Subject;
use crate::usage::{ProcessUsage, own_cpu};
use recorder::{Recorder, Window};

/// A load to put on the server.
#[derive(Debug, Clone)]
pub enum Load {
    /// Requests at times fixed beforehand.
    Open(OpenLoop),
    /// As many requests as the connections carry.
    Closed(ClosedLoop),
}

impl Load {
    /// Time under load before anything is measured.
    #[must_use]
    pub fn warmup(&self) -> Duration {
        match self {
            Self::Open(open) => open.warmup,
            Self::Closed(closed) => closed.warmup,
        }
    }

    /// Length of the measured window.
    #[must_use]
    pub fn duration(&self) -> Duration {
        match self {
            Self::Open(open) => open.duration,
            Self::Closed(closed) => closed.duration,
        }
    }
}

/// Why a load could not be generated.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The system gave no timer.
    #[error("no timer for the arrival schedule: {0}")]
    Timer(#[source] io::Error),
}

/// Puts `load` on `subject` and measures. Calls `on_progress` about once a second.
///
/// Returns when every request sent was answered or given up, so at the latest one patience after the
/// window. Dropping the future stops the load. For faithful figures run it on a current-thread runtime
/// that does nothing else: processor time is that of the whole process.
///
/// # Errors
///
/// When the system does not give what the generator needs. Failures of requests are part of the
/// measurement.
pub async fn run(
    subject: &Subject,
    load: &Load,
    mut on_progress: impl FnMut(&Progress),
) -> Result<Measurement, LoadError> {
    let begin = Instant::now();
    let window = Window { start: begin + load.warmup(), end: begin + load.warmup() + load.duration() };
    let recorder = SharedRecorder::new(window);
    let mut drive = std::pin::pin!(async {
        match load {
            Load::Open(open) => open::drive(subject, open, begin, &recorder).await,
            Load::Closed(closed) => {
                closed::drive(subject, closed, window.end, &recorder).await;
                Ok(())
            }
        }
    });

    let mut driven = false;
    let mut at_start = None;
    let mut at_end = None;
    let mut next_report = begin + SECOND;
    while !driven || at_end.is_none() {
        let next_sample = match (&at_start, &at_end) {
            (None, _) => window.start,
            (_, None) => window.end,
            _ => next_report,
        };
        tokio::select! {
            biased;
            () = sleep_until(next_sample.min(next_report)) => {}
            outcome = &mut drive, if !driven => {
                outcome?;
                driven = true;
            }
        }
        let now = Instant::now();
        if at_start.is_none() && now >= window.start {
            at_start = Some(Sample::take(subject, &recorder));
        }
        if at_end.is_none() && now >= window.end {
            at_end = Some(Sample::take(subject, &recorder));
        }
        if now >= next_report {
            on_progress(&recorder.lock().progress(now - begin, window.end - begin));
            next_report += SECOND;
        }
    }
    let (Some(first), Some(last)) = (at_start, at_end) else {
        unreachable!("the loop ends only after both samples were taken");
    };
    Ok(recorder.lock().measurement(GeneratorUsage::between(&first, &last), ServerUsage::between(&first, &last)))
}

const SECOND: Duration = Duration::from_secs(1);

/// The recorder, shared by the connections of a run.
#[derive(Debug, Clone)]
struct SharedRecorder(Arc<Mutex<Recorder>>);

impl SharedRecorder {
    fn new(window: Window) -> Self {
        Self(Arc::new(Mutex::new(Recorder::new(window))))
    }

    /// A panic cannot leave a recorder half-written in a way that matters, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Usage at one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    answered: u64,
    generator_cpu: Duration,
    server: Option<(u32, ProcessUsage)>,
}

impl Sample {
    fn take(subject: &Subject, recorder: &SharedRecorder) -> Self {
        Self {
            at: Instant::now(),
            answered: recorder.lock().answered(),
            generator_cpu: own_cpu(),
            server: subject.process().and_then(|pid| Some((pid, ProcessUsage::of(pid).ok()?))),
        }
    }
}
