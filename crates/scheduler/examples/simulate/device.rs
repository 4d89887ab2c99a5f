//! What a batch costs.

use std::time::Duration;

use rand::Rng;
use rand_distr::{Distribution, LogNormal};

/// A device: `fixed + per_row * rows` for a batch, times log-normal noise of mean 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    pub(crate) fixed: Duration,
    pub(crate) per_row: Duration,
    /// The standard deviation of the noise's logarithm.
    pub(crate) noise: f64,
    pub(crate) max_batch: usize,
}

impl Device {
    /// The mean cost of a batch.
    pub(crate) fn mean(&self, rows: usize) -> Duration {
        self.fixed + self.per_row * u32::try_from(rows).expect("a batch has few rows")
    }

    /// The mean cost of the largest batch.
    pub(crate) fn largest(&self) -> Duration {
        self.mean(self.max_batch)
    }

    /// The most requests per second that one device can serve, at full batches.
    pub(crate) fn ceiling(&self) -> f64 {
        self.max_batch as f64 / self.largest().as_secs_f64()
    }

    /// The cost of a batch this time.
    pub(crate) fn draw(&self, rows: usize, rng: &mut impl Rng) -> Duration {
        let noise = LogNormal::new(-self.noise * self.noise / 2.0, self.noise).expect("the noise is finite");
        self.mean(rows).mul_f64(noise.sample(rng))
    }
}
