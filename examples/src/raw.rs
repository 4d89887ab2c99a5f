//! Plain ONNX Runtime, which everything else is measured against.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use crate::process::{pinned, programs};

/// The example `raw` of `volley-gpu-runtime`, with one model; it rests between two measurements, and ends when dropped.
#[derive(Debug)]
pub struct Raw {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Raw {
    /// Starts it on `core`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(core: usize, library: &Path, model: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = pinned(core, &programs()?.join("examples/raw"));
        command.arg(library).arg(model).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let questions = child.stdin.take().ok_or("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        Ok(Self { child, questions, answers })
    }

    /// Samples per second in batches of `batch`, over `seconds`.
    ///
    /// # Errors
    /// When it ended; what was wrong it says on standard error.
    pub fn samples_per_second(&mut self, batch: usize, seconds: f64) -> Result<f64, Box<dyn Error>> {
        writeln!(self.questions, "{batch} {seconds}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("plain ONNX Runtime could not be run".into());
        }
        let figures: Value = serde_json::from_str(&line)?;
        figures["samples_per_second"].as_f64().ok_or_else(|| "no figure".into())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
