//! What a run says of itself, to a machine and to a person.

mod json;
mod progress;
mod table;

use std::time::Duration;

pub use progress::ProgressLine;

use crate::load::{Load, Measurement};
use crate::subject::Subject;
use crate::target::Target;
use crate::verdict::Verdict;

/// A finished run: what was asked, measured and judged.
///
/// [`Report::json`] is for machines; displaying it gives a table for people.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was measured.
    pub target: Target,
    /// Under which load.
    pub load: Load,
    /// What was found.
    pub measured: Measurement,
    /// How that compares with the profile.
    pub verdict: Verdict,
    /// What a reader must know before believing the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// Puts a report together and finds what is notable about the measurement itself.
    #[must_use]
    pub fn new(subject: &Subject, load: Load, measured: Measurement, verdict: Verdict) -> Self {
        Self { target: subject.target().clone(), notes: notes(subject, &load, &measured), load, measured, verdict }
    }

    /// The figures at the top level, the detail below them, on one line when displayed.
    ///
    /// Figures are numbers or null, `validation_passed` among them (0 or 1), so that they can be plotted
    /// and compared as they are. A number that could not be measured is null, never zero.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json::render(self)
    }

    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict.overall_validation_passed
    }
}

/// A generator busier than this may be what limits the run.
const BUSY_GENERATOR: f64 = 0.9;
/// A generator that turns to one arrival in a hundred later than this adds visibly to the latencies.
const LATE_GENERATOR: Duration = Duration::from_millis(2);

fn notes(subject: &Subject, load: &Load, measured: &Measurement) -> Vec<String> {
    let mut notes = Vec::new();
    let busy = measured.generator.busy_cores;
    if busy > BUSY_GENERATOR {
        notes.push(format!(
            "the load generator used {:.0} % of a core: it may be what limits these figures",
            busy * 100.0
        ));
    }
    let late = measured.slip.quantile(0.99).unwrap_or_default();
    if late > LATE_GENERATOR {
        notes.push(format!(
            "the load generator itself was late by {late:.1?} at its 99th percentile, which the latencies \
             include: give it a core of its own"
        ));
    }
    if measured.waited_for_connection > 0
        && let Load::Open(open) = load
    {
        notes.push(format!(
            "{} requests waited for one of {} connections, which their latencies include",
            measured.waited_for_connection, open.max_connections
        ));
    }
    if let Some(pid) = subject.process()
        && measured.server.is_none()
    {
        notes.push(format!("process {pid} was gone before the run ended"));
    }
    notes
}

/// `duration` in milliseconds, from whole microseconds: more digits were not measured.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
