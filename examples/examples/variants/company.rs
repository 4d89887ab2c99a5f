//! How far an answer moves with the company it is computed in.

use std::error::Error;
use std::fmt;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use volley_gpu_runtime::{Model, Session};

const WINDOWS: usize = 256;
const BATCHES: usize = 1_000;

/// For each batch, the largest change of any value of any of its answers.
pub(crate) struct Company {
    changes: Vec<f32>,
    pub(crate) batches: usize,
    pub(crate) largest: usize,
}

/// Computes windows alone, and then in random batches; a third of the windows are outliers.
pub(crate) fn measure(model: &Model) -> Result<Company, Box<dyn Error>> {
    let mut session = model.open_warm_session()?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let spec = &model.inputs()[0];
    let windows: Vec<Vec<u8>> = (0..WINDOWS).map(|index| window(&mut random, index, &spec.row_shape)).collect();
    let mut alone = Vec::new();
    for index in 0..WINDOWS {
        alone.append(&mut answers(&mut session, &windows, &[index])?);
    }
    let mut changes = Vec::new();
    for _ in 0..BATCHES {
        let size = random.random_range(1..=session.max_rows());
        let batch: Vec<usize> = (0..size).map(|_| random.random_range(0..WINDOWS)).collect();
        let together = answers(&mut session, &windows, &batch)?;
        let change = |(answer, &index): (&Vec<f32>, &usize)| {
            answer.iter().zip(&alone[index]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        changes.push(together.iter().zip(&batch).map(change).fold(0.0, f32::max));
    }
    changes.sort_by(f32::total_cmp);
    Ok(Company { changes, batches: BATCHES, largest: session.max_rows() })
}

/// A random walk in each channel, which is what the model knows; every third window is an outlier: a walk, noise, or
/// all the same value, magnified up to a millionfold.
fn window(random: &mut Xoshiro256PlusPlus, index: usize, shape: &[usize]) -> Vec<u8> {
    let (channels, steps) = (shape[0], shape[1]);
    let (kind, magnified) = match index % 9 {
        outlier @ (0 | 3 | 6) => (outlier / 3, 10_f32.powf(random.random_range(1.0..6.0))),
        _ => (0, 1.0),
    };
    let constant = random.random_range(-10.0..10.0);
    let mut bytes = Vec::new();
    for _ in 0..channels {
        let mut walk = 0.0;
        for _ in 0..steps {
            let noise = random.random_range(-1.0..1.0);
            walk += noise;
            let value: f32 = magnified * [walk, noise, constant][kind];
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

/// The values of all outputs, for each window of a batch.
fn answers(session: &mut Session, windows: &[Vec<u8>], batch: &[usize]) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
    for (row, &index) in batch.iter().enumerate() {
        session.write(0, row, [&windows[index][..]]);
    }
    let outputs = session.run(batch.len())?;
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
    Ok((0..batch.len()).map(|row| floats(&outputs.rows(row..row + 1).to_joined())).collect())
}

impl Company {
    pub(crate) fn max(&self) -> f32 {
        self.changes.last().copied().unwrap_or(f32::NAN)
    }
}

impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = |share: f64| self.changes[((self.changes.len() - 1) as f64 * share) as usize];
        let same = self.changes.iter().filter(|&&change| change == 0.0).count();
        let [half, nine, nines, all] = [0.5, 0.9, 0.99, 1.0].map(quantile);
        write!(f, "p50 {half:.1e}, p90 {nine:.1e}, p99 {nines:.1e}, max {all:.1e}; {same} batches the same to the bit")
    }
}
