//! Samples per second of both variants by batch size, as the server runs them and as plain ONNX Runtime does.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use volley_examples::{Raw, Spread, message};
use volley_gpu_runtime::{Model, Session};

use crate::{CORE, VARIANTS};

const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

pub(crate) struct Plan {
    /// For each figure, in each round.
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
}

/// Samples per second of a variant at a batch size, round by round.
#[derive(Default)]
struct Rates {
    path: Spread,
    raw: Spread,
}

/// By variant and batch size.
pub(crate) struct Speed(Vec<[Rates; BATCHES.len()]>);

pub(crate) fn measure(plan: &Plan, library: &Path, models: &[(Model, PathBuf)]) -> Result<Speed, Box<dyn Error>> {
    let mut sessions = models.iter().map(|(model, _)| model.open_warm_session()).collect::<Result<Vec<_>, _>>()?;
    let mut raw = models.iter().map(|(_, file)| Raw::start(CORE, library, file)).collect::<Result<Vec<_>, _>>()?;
    let windows = windows();
    let mut speed = Speed(models.iter().map(|_| Default::default()).collect());
    let half = plan.seconds / 2.0;
    for _ in 0..plan.rounds {
        for (index, &batch) in BATCHES.iter().enumerate() {
            // There and back, so that all are measured around the same moment, and a drift favours none.
            let mut before = Vec::new();
            for session in &mut sessions {
                before.push(path(session, &windows[..batch], half)?);
            }
            for (raw, rates) in raw.iter_mut().zip(&mut speed.0) {
                rates[index].raw.push(raw.samples_per_second(batch, plan.seconds)?);
            }
            for ((session, rates), before) in sessions.iter_mut().zip(&mut speed.0).zip(before).rev() {
                let after = path(session, &windows[..batch], half)?;
                rates[index].path.push(f64::midpoint(before, after));
            }
        }
    }
    Ok(speed)
}

/// A window for each row of the largest batch, as bytes, the very ones that plain ONNX Runtime gets; each lies apart, as
/// requests do.
fn windows() -> Vec<Vec<u8>> {
    let bytes = |row| message::window(row).into_iter().flat_map(f32::to_le_bytes).collect();
    (0..BATCHES[BATCHES.len() - 1]).map(bytes).collect()
}

/// Gathers the windows, runs them, and hands each caller its slice, for some time; samples per second. As plain ONNX Runtime
/// does, it runs a few batches first that do not count.
fn path(session: &mut Session, windows: &[Vec<u8>], seconds: f64) -> Result<f64, Box<dyn Error>> {
    let mut run = || -> Result<(), Box<dyn Error>> {
        for (row, window) in windows.iter().enumerate() {
            session.write(0, row, [&window[..]]);
        }
        let batch = session.run(windows.len())?;
        for row in 0..windows.len() {
            std::hint::black_box(batch.rows(row..row + 1));
        }
        Ok(())
    };
    for _ in 0..3 {
        run()?;
    }
    let (started, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut samples = 0;
    while started.elapsed() < limit {
        run()?;
        samples += windows.len();
    }
    Ok(f64::from(u32::try_from(samples)?) / started.elapsed().as_secs_f64())
}

impl Speed {
    fn best(&self, variant: usize) -> usize {
        let median = |index: &usize| self.0[variant][*index].path.median();
        (0..BATCHES.len()).max_by(|a, b| median(a).total_cmp(&median(b))).unwrap_or(0)
    }

    /// At the variant's best batch size.
    pub(crate) fn samples_per_second(&self, variant: usize) -> f64 {
        self.0[variant][self.best(variant)].path.median()
    }

    /// Each at its best batch size.
    pub(crate) fn int8_over_fp32(&self) -> Spread {
        self.0[1][self.best(1)].path.over(&self.0[0][self.best(0)].path)
    }

    /// The lower of the two variants', each at its best batch size.
    pub(crate) fn path_over_raw(&self) -> f64 {
        let ratio = |variant: usize| {
            let rates = &self.0[variant][self.best(variant)];
            rates.path.over(&rates.raw).median()
        };
        (0..self.0.len()).map(ratio).fold(f64::INFINITY, f64::min)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "samples/s on one core, and over plain ONNX Runtime: median [least .. greatest]")?;
        writeln!(f, "  batch  {:<32}{:<28}{:<32}{:<28}int8 / fp32", "fp32", "over raw", "int8", "over raw")?;
        for (index, batch) in BATCHES.iter().enumerate() {
            write!(f, "  {batch:>5}  ")?;
            for rates in &self.0 {
                let (path, over) = (format!("{:.0}", rates[index].path), rates[index].path.over(&rates[index].raw));
                write!(f, "{path:<32}{:<28}", format!("{over:.3}"))?;
            }
            writeln!(f, "{:.2}", self.0[1][index].path.over(&self.0[0][index].path))?;
        }
        for (variant, name) in VARIANTS.iter().enumerate() {
            let (index, rates) = (self.best(variant), &self.0[variant][self.best(variant)]);
            writeln!(f, "  {name}: best at {}, {:.1} us a sample", BATCHES[index], 1e6 / rates.path.median())?;
        }
        writeln!(f, "  int8 over fp32, each at its best: {:.2}", self.int8_over_fp32())
    }
}
