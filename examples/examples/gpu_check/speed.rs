//! What a batch costs on the device, as the server runs it: rows gathered, run, and sliced for each caller.

use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;
use volley_gpu_runtime::Model;
use volley_validate::histogram::LatencyHistogram;

use crate::candidate::{BATCHES, Candidate};
use crate::golden::Golden;
use crate::ladder::{Ladder, Step, Verdict};

/// What one variant does at one batch size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) variant: &'static str,
    pub(crate) batch: usize,
    pub(crate) samples_per_second: f64,
    p50: Duration,
    p99: Duration,
}

pub(crate) fn measure(ladder: &mut Ladder, candidates: &[Candidate], golden: &Golden, seconds: f64) -> Vec<Pace> {
    let mut all: Vec<Pace> = Vec::new();
    for candidate in candidates {
        let paces = of_variant(candidate, golden, seconds);
        for pace in paces.iter().flatten() {
            let name = |what: &str| format!("{}_b{}_{what}", pace.variant, pace.batch);
            ladder.figure(&name("samples_s"), json!(pace.samples_per_second.round()));
            ladder.figure(&name("p50_ms"), json!(milliseconds(pace.p50)));
            ladder.figure(&name("p99_ms"), json!(milliseconds(pace.p99)));
            all.push(*pace);
        }
        ladder.add(Step::Speed, candidate.name, paces.map(|paces| Verdict::Passed(table(&paces))));
    }
    if let Some(best) = fastest(&all) {
        ladder.figure("fastest_variant", json!(best.variant));
        ladder.figure("fastest_samples_s", json!(best.samples_per_second.round()));
    }
    all
}

/// The most samples per second there are among `paces`.
pub(crate) fn fastest(paces: &[Pace]) -> Option<&Pace> {
    paces.iter().max_by(|a, b| a.samples_per_second.total_cmp(&b.samples_per_second))
}

fn of_variant(candidate: &Candidate, golden: &Golden, seconds: f64) -> Result<Vec<Pace>, Box<dyn Error>> {
    let mut session = candidate.on_device.open_warm_session()?;
    let model: &Model = &candidate.on_device;
    let mut paces = Vec::new();
    for batch in BATCHES {
        let inputs = golden.rows(model, batch)?;
        let mut took = LatencyHistogram::new();
        let (started, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
        while took.is_empty() || started.elapsed() < limit {
            let begun = Instant::now();
            for (index, (bytes, spec)) in inputs.iter().zip(&**model.inputs()).enumerate() {
                for (row, bytes) in bytes.chunks_exact(spec.row_bytes()).enumerate() {
                    session.write(index, row, [bytes]);
                }
            }
            let outputs = session.run(batch)?;
            for row in 0..batch {
                std::hint::black_box(outputs.rows(row..row + 1));
            }
            took.record(begun.elapsed());
        }
        let samples_per_second = took.len() as f64 * batch as f64 / started.elapsed().as_secs_f64();
        let quantile = |quantile| took.quantile(quantile).ok_or("nothing was measured");
        paces.push(Pace {
            variant: candidate.name,
            batch,
            samples_per_second,
            p50: quantile(0.5)?,
            p99: quantile(0.99)?,
        });
    }
    Ok(paces)
}

fn table(paces: &[Pace]) -> String {
    let mut text = String::from("batch  samples/s    p50 ms    p99 ms\n");
    for Pace { batch, samples_per_second, p50, p99, .. } in paces {
        let (p50, p99) = (milliseconds(*p50), milliseconds(*p99));
        let _ = writeln!(text, "{batch:>5} {samples_per_second:>10.0} {p50:>9.3} {p99:>9.3}");
    }
    text
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
