//! Looks at, checks and measures model files, the way the server would run them.

mod bench;
mod compare;
mod compile;
mod evaluate;
mod gate;
mod inspect;
mod samples;
mod subject;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use subject::{Running, Subject};

/// Looks at, checks and measures model files, the way the server would run them.
///
/// A VERSION is the folder of one version of a model, such as `models/repository/cnn_lstm/1`: `model.onnx`, other variants
/// beside it as `model.<variant>.onnx`, and perhaps `golden.safetensors`. What the model's config.toml or config.pbtxt
/// says holds here too, unless an option says otherwise.
///
/// Exit status: 0 when all is well, 1 when a check failed, 2 when it could not be made.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show inputs, outputs, size, and each operator of the optimised graph: who runs it, and whether in eight bits
    Inspect {
        /// A VERSION, or one ONNX file
        path: PathBuf,
    },
    /// Hold every variant against the version's golden outputs; exit with 1 if one does not reproduce them
    Gate {
        /// The VERSION
        path: PathBuf,
    },
    /// Measure rows per second and latency by batch size, one session; the last line is JSON
    Bench {
        /// The VERSION
        path: PathBuf,
        /// Seconds for each variant and batch size
        #[arg(long, default_value_t = 0.5, value_name = "S")]
        seconds: f64,
    },
    /// Put the variants side by side: size, speed, difference from the baseline, and what batch mates do to an answer
    Compare {
        /// The VERSION
        path: PathBuf,
        /// A safetensors file with the inputs to compare on, under their names; the version's golden file if not given
        #[arg(long, value_name = "FILE")]
        inputs: Option<PathBuf>,
    },
    /// Optimise and measure anew and keep that, so that a server starts fast; to be run while the machine is idle
    Compile {
        /// The VERSION
        path: PathBuf,
    },
    /// Find the accuracy of every variant as a classifier on labelled data; the last line is JSON
    Evaluate {
        /// The VERSION
        path: PathBuf,
        /// A safetensors file with the inputs under their names, and the labels
        #[arg(long, value_name = "FILE")]
        data: PathBuf,
        /// The tensor with the labels: one integer for each row
        #[arg(long, default_value = "labels", value_name = "NAME")]
        labels: String,
        /// The output with a value for each class, of which the largest is the answer; the last output if not given
        #[arg(long, value_name = "NAME")]
        output: Option<String>,
    },
}

/// Whether what was asked about is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
}

fn main() -> ExitCode {
    let Arguments { command, running } = Arguments::parse();
    match run(command, &running) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        // Whoever reads has seen enough, as `head` does.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // There is nobody left to tell if this fails.
            let _ = writeln!(io::stderr(), "volley-model: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command, running: &Running) -> Result<Verdict, Box<dyn Error>> {
    match command {
        Command::Inspect { path } => inspect::run(&Subject::open(&path, running)?),
        Command::Gate { path } => gate::run(&Subject::open(&path, running)?),
        Command::Bench { path, seconds } => bench::run(&Subject::open(&path, running)?, seconds),
        Command::Compare { path, inputs } => compare::run(&Subject::open(&path, running)?, inputs),
        Command::Compile { path } => compile::run(&Subject::open(&path, running)?),
        Command::Evaluate { path, data, labels, output } => {
            evaluate::run(&Subject::open(&path, running)?, &data, &labels, output.as_deref())
        }
    }
}
