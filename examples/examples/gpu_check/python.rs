//! The same files on the same device from Python: what Volley is held against, and what CUDA graphs would gain.
//!
//! CUDA graphs are measured there because a session of `volley-gpu-runtime` cannot use one: ONNX Runtime copies what is
//! bound in page-locked memory to fresh device memory at each binding, and a captured graph reads where it read when it
//! was captured. How much they gain says whether buffers that stay on the device would be worth it.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use volley_examples::programs;
use volley_gpu_runtime::{Library, Provider};

use crate::candidate::{BATCHES, Candidate};
use crate::ladder::{Ladder, Step, Verdict};
use crate::speed::{self, Pace};

/// The least share of Python's samples per second, at the same batch, that the fastest variant must do at its best.
const SHARE: f64 = 0.95;

/// What Python did with one variant.
struct Raw {
    variant: &'static str,
    /// By batch size, as `raw.py` prints it.
    sizes: Value,
}

impl Raw {
    fn at(&self, batch: usize) -> &Value {
        &self.sizes[batch.to_string()]
    }

    /// The faster of Python's ways without CUDA graphs, in samples per second.
    fn samples_per_second(&self, batch: usize) -> Option<f64> {
        let at = self.at(batch);
        Some(at["run"].as_f64()?.max(at["bound"].as_f64()?))
    }
}

pub(crate) fn compare(
    ladder: &mut Ladder,
    provider: Provider,
    library: &Library,
    candidates: &[Candidate],
    paces: &[Pace],
    seconds: f64,
) {
    let mut all = Vec::new();
    for candidate in candidates {
        match run(provider, candidate, seconds) {
            Ok(Ok(found)) if found["version"] != library.version() => {
                let reason = format!("Python has onnxruntime {}, and this is {}", found["version"], library.version());
                return skip(ladder, &reason);
            }
            Ok(Ok(mut found)) => all.push(Raw { variant: candidate.name, sizes: found["sizes"].take() }),
            Ok(Err(reason)) => return skip(ladder, &reason),
            Err(error) => ladder.add(Step::Python, candidate.name, Verdict::Failed(error.to_string())),
        }
    }
    for raw in &all {
        graphs(ladder, provider, raw);
    }
    let fastest = speed::fastest(paces).map(|pace| pace.variant);
    for raw in &all {
        compare_one(ladder, raw, paces, fastest == Some(raw.variant));
    }
}

/// Volley's share of Python's samples per second, by batch size. Of the fastest variant the share at its best must do.
fn compare_one(ladder: &mut Ladder, raw: &Raw, paces: &[Pace], is_fastest: bool) {
    let paces: Vec<Pace> = paces.iter().filter(|pace| pace.variant == raw.variant).copied().collect();
    let share = |pace: &Pace| Some(pace.samples_per_second / raw.samples_per_second(pace.batch)?);
    let Some((best, best_share)) = speed::fastest(&paces).and_then(|best| Some((best.batch, share(best)?))) else {
        return ladder.add(Step::Python, raw.variant, Verdict::Skipped("nothing to compare".to_owned()));
    };
    ladder.figure(&format!("{}_over_python", raw.variant), json!((best_share * 1e3).round() / 1e3));
    let mut text = String::from("batch  from Python, samples/s  Volley over it\n");
    for pace in &paces {
        let (python, share) = (raw.samples_per_second(pace.batch).unwrap_or(f64::NAN), share(pace).unwrap_or(f64::NAN));
        let _ = writeln!(text, "{:>5} {python:>23.0} {share:>15.3}", pace.batch);
    }
    let _ = write!(text, "{best_share:.3} at its best batch, {best}");
    if is_fastest {
        let _ = write!(text, "; at least {SHARE} is right");
    }
    ladder.add(Step::Python, raw.variant, Verdict::of(best_share >= SHARE || !is_fastest, text));
}

fn skip(ladder: &mut Ladder, reason: &str) {
    ladder.add(Step::CudaGraphs, "", Verdict::Skipped(reason.to_owned()));
    ladder.add(Step::Python, "", Verdict::Skipped(reason.to_owned()));
}

/// What `raw.py` found, or why it cannot look.
fn run(provider: Provider, candidate: &Candidate, seconds: f64) -> Result<Result<Value, String>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let python: PathBuf = root.join(".volley/venv/bin/python");
    if !python.is_file() {
        return Ok(Err("there is no Python environment; `./setup` makes one".to_owned()));
    }
    let output = Command::new(python)
        .arg(root.join("examples/examples/gpu_check/raw.py"))
        .arg(&candidate.file.path)
        .args([provider.name(), &seconds.to_string()])
        .arg(programs()?.join("examples/liboperators.so"))
        .args(BATCHES.map(|batch| batch.to_string()))
        .stderr(Stdio::piped())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    // ONNX Runtime may have printed before.
    let printed = String::from_utf8(output.stdout)?;
    let found: Value = serde_json::from_str(printed.trim_end().lines().last().unwrap_or_default())?;
    Ok(match found["refused"].as_str() {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(found),
    })
}

/// What CUDA graphs gain over the same buffers without them.
fn graphs(ladder: &mut Ladder, provider: Provider, raw: &Raw) {
    if provider != Provider::Cuda {
        return ladder.add(Step::CudaGraphs, raw.variant, Verdict::Skipped(format!("{provider} has none")));
    }
    let mut lines = Vec::new();
    let mut refused = true;
    for batch in BATCHES {
        let at = raw.at(batch);
        if let (Some(with), Some(without)) = (at["graphs"].as_f64(), at["bound"].as_f64()) {
            refused = false;
            let gain = with / without;
            ladder.figure(&format!("{}_b{batch}_graphs_gain", raw.variant), json!((gain * 1e3).round() / 1e3));
            lines.push(format!("batch {batch:>3}: {with:.0} samples/s with, {without:.0} without ({gain:.2})"));
        } else {
            lines.push(format!("batch {batch:>3}: {}", at["graphs_refused"].as_str().unwrap_or("not measured")));
        }
    }
    // That ONNX Runtime cannot capture a graph with nodes on the processor is a finding, and no fault.
    let text = lines.join("\n");
    ladder.add(Step::CudaGraphs, raw.variant, if refused { Verdict::Skipped(text) } else { Verdict::Passed(text) });
}
