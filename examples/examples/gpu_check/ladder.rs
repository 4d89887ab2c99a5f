//! The steps by name, and what became of each.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value, json};

/// A step of the ladder, in the order they are climbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Device,
    Library,
    Placement,
    Correctness,
    Speed,
    CudaGraphs,
    Python,
    Utilisation,
    OutOfMemory,
}

impl Step {
    pub(crate) const ALL: [Self; 9] = [
        Self::Device,
        Self::Library,
        Self::Placement,
        Self::Correctness,
        Self::Speed,
        Self::CudaGraphs,
        Self::Python,
        Self::Utilisation,
        Self::OutOfMemory,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Library => "library",
            Self::Placement => "placement",
            Self::Correctness => "correctness",
            Self::Speed => "speed",
            Self::CudaGraphs => "cuda_graphs",
            Self::Python => "python",
            Self::Utilisation => "utilisation",
            Self::OutOfMemory => "out_of_memory",
        }
    }
}

/// What became of a step, with what was seen or why it was skipped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Passed(String),
    Failed(String),
    Skipped(String),
}

impl Verdict {
    /// Of something seen that may be as it should.
    pub(crate) fn of(good: bool, seen: String) -> Self {
        if good { Self::Passed(seen) } else { Self::Failed(seen) }
    }

    fn words(&self) -> (&'static str, &str) {
        match self {
            Self::Passed(seen) => ("passed", seen),
            Self::Failed(seen) => ("failed", seen),
            Self::Skipped(reason) => ("skipped", reason),
        }
    }
}

/// A step that could not be finished has failed.
impl From<Result<Self, Box<dyn Error>>> for Verdict {
    fn from(result: Result<Self, Box<dyn Error>>) -> Self {
        result.unwrap_or_else(|error| Self::Failed(error.to_string()))
    }
}

/// A step, or its part about one subject (a variant, a rate).
#[derive(Debug)]
struct Row {
    step: Step,
    subject: String,
    verdict: Verdict,
}

impl Row {
    fn name(&self) -> String {
        if self.subject.is_empty() {
            self.step.name().to_owned()
        } else {
            format!("{} {}", self.step.name(), self.subject)
        }
    }
}

/// All rows so far, and the figures of the last line.
#[derive(Debug, Default)]
pub(crate) struct Ladder {
    rows: Vec<Row>,
    figures: Map<String, Value>,
}

impl Ladder {
    /// Adds what became of `step` for `subject` (empty: for all), and tells whoever waits.
    pub(crate) fn add(&mut self, step: Step, subject: &str, verdict: impl Into<Verdict>) {
        let row = Row { step, subject: subject.to_owned(), verdict: verdict.into() };
        eprintln!("{}: {}", row.name(), row.verdict.words().0);
        self.rows.push(row);
    }

    /// Skips every step that has no row yet.
    pub(crate) fn skip_the_rest(&mut self, reason: &str) {
        for step in Step::ALL {
            if !self.rows.iter().any(|row| row.step == step) {
                self.add(step, "", Verdict::Skipped(reason.to_owned()));
            }
        }
    }

    /// Sets a figure of the last line.
    pub(crate) fn figure(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.verdict, Verdict::Failed(_)))
    }

    /// The last line: the figures, and the names of the steps that failed and that were skipped.
    pub(crate) fn figures(&self) -> Value {
        let names = |word: &str| -> Vec<String> {
            self.rows.iter().filter(|row| row.verdict.words().0 == word).map(Row::name).collect()
        };
        let mut figures = self.figures.clone();
        figures.insert("failed".into(), json!(names("failed")));
        figures.insert("skipped".into(), json!(names("skipped")));
        Value::Object(figures)
    }
}

/// A line for each row; what was seen keeps its own lines, indented.
impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let (word, seen) = row.verdict.words();
            let seen = seen.trim_end().replace('\n', &format!("\n{:33}", ""));
            writeln!(f, "{:<22} {word:<9} {seen}", row.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_skipped_by_name_and_what_has_a_row_keeps_it() {
        let mut ladder = Ladder::default();
        ladder.add(Step::Library, "", Verdict::Passed("1.32.0".into()));
        ladder.add(Step::Speed, "fp16", Verdict::Skipped("no file".into()));
        ladder.skip_the_rest("no GPU");
        let skipped = [
            "speed fp16",
            "device",
            "placement",
            "correctness",
            "cuda_graphs",
            "python",
            "utilisation",
            "out_of_memory",
        ];
        assert_eq!(ladder.figures(), json!({ "failed": [], "skipped": skipped }));
        assert!(!ladder.has_failed());
    }

    #[test]
    fn a_step_that_could_not_be_finished_has_failed_and_is_named() {
        let mut ladder = Ladder::default();
        ladder.add(Step::Device, "", Verdict::Passed(String::new()));
        assert!(!ladder.has_failed());
        ladder.add(Step::Placement, "int8", Err::<Verdict, Box<dyn Error>>("first line\nsecond".into()));
        assert!(ladder.has_failed());
        assert_eq!(ladder.figures()["failed"], json!(["placement int8"]));
        let indented = format!("{:<22} failed    first line\n{:33}second", "placement int8", "");
        assert!(ladder.to_string().contains(&indented), "{ladder}");
    }
}
