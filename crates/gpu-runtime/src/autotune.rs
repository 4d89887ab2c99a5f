//! Measures on this machine what the batch sizes cost.
//!
//! A larger batch costs less a row until its working set no longer fits the caches (or the device is full); past that
//! only latency grows. Where that is depends on the model and the machine, and is cheap to find out.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::RunError;
use crate::session::Session;

/// Each size is run this often; the fastest run counts, because noise only ever adds.
const RUNS: usize = 3;
/// Runs that were not disturbed are this close to each other.
const STEADY: f64 = 1.1;
/// A smaller batch is preferred as long as it does at least this share of the best rows per second.
const GOOD_ENOUGH: f64 = 0.98;

/// Seconds that a batch costs a server besides its run: a worker and the threads that answer take turns on a core, and
/// each finds the caches full of the other's. Measured on one core, as what a request costs in batches of 4, 16 and 32
/// beyond what they differ by in its run: 50 to 230 microseconds.
const AROUND: f64 = 150e-6;

/// What one batch size costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Rows of the batch.
    pub rows: usize,
    /// Seconds that the fastest of a few runs took.
    pub seconds: f64,
}

impl Measured {
    /// Rows per second at this size.
    #[must_use]
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.seconds
    }

    /// Rows per second where nothing else happens but batches of this size, one after the other.
    fn served_per_second(&self) -> f64 {
        self.rows as f64 / (self.seconds + AROUND)
    }
}

/// Powers of two up to `max`, and `max` itself.
pub(crate) fn powers_of_two(max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |size| size.checked_mul(2)).take_while(move |&size| size < max).chain([max])
}

/// What all batch sizes cost.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) sizes: Vec<Measured>,
    /// Whether it came out alike more than once. It does not where something else keeps the processor busy, and is then
    /// good enough for now, and not for ever.
    pub(crate) steady: bool,
}

/// Runs each of `sizes`.
pub(crate) fn measure(session: &mut Session, sizes: &[usize]) -> Result<Measurement, RunError> {
    let mut measurement = Measurement { sizes: Vec::new(), steady: true };
    for &rows in sizes {
        // The first run of a size prepares it.
        session.run(rows)?;
        let mut runs = [Duration::ZERO; RUNS];
        for took in &mut runs {
            let started = Instant::now();
            session.run(rows)?;
            *took = started.elapsed();
        }
        measurement.add(rows, runs);
    }
    Ok(measurement)
}

impl Measurement {
    fn add(&mut self, rows: usize, mut runs: [Duration; RUNS]) {
        runs.sort_unstable();
        // A clock may be too coarse to see a run.
        let [fastest, next, ..] = runs.map(|took| took.as_secs_f64().max(1e-9));
        self.steady &= next <= fastest * STEADY;
        self.sizes.push(Measured { rows, seconds: fastest });
    }
}

/// The smallest batch by which nearly the most rows per second are served.
pub(crate) fn best(measured: &[Measured]) -> Measured {
    let most = measured.iter().map(Measured::served_per_second).fold(0.0, f64::max);
    let nearly = measured.iter().find(|size| size.served_per_second() >= most * GOOD_ENOUGH);
    nearly.copied().unwrap_or(Measured { rows: 1, seconds: f64::INFINITY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_and_the_largest() {
        let sizes = |max| powers_of_two(max).collect::<Vec<_>>();
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(32), [1, 2, 4, 8, 16, 32]);
        assert_eq!(sizes(20), [1, 2, 4, 8, 16, 20]);
    }

    #[test]
    fn a_measurement_is_steady_if_every_size_came_out_alike_twice() {
        let mut measurement = Measurement { sizes: vec![], steady: true };
        let us = Duration::from_micros;
        measurement.add(1, [us(900), us(105), us(100)]);
        assert!(measurement.steady && (measurement.sizes[0].seconds - 1e-4).abs() < 1e-12);
        measurement.add(2, [us(100), us(120), us(130)]);
        measurement.add(4, [us(100), us(100), us(100)]);
        assert!(!measurement.steady);
    }

    #[test]
    fn the_smallest_batch_that_is_nearly_the_best_is_chosen() {
        // Rates of 0.5, 0.8, 0.99 and 1 rows/ms, then falling.
        let measured = [(1, 2000), (4, 5000), (8, 8080), (16, 16000), (32, 36000)]
            .map(|(rows, us)| Measured { rows, seconds: f64::from(us) / 1e6 });
        assert_eq!(best(&measured).rows, 8);
        assert!((best(&measured).rows_per_second() - 8e6 / 8080.0).abs() < 1e-6);
        assert_eq!(best(&measured[..2]).rows, 4);
    }

    #[test]
    fn what_a_batch_costs_besides_its_run_makes_very_short_ones_dear() {
        // As many rows a second at any size, each short against what a batch costs besides.
        let measured = [1, 2, 4, 8, 16, 32].map(|rows| Measured { rows, seconds: AROUND / 0.6 * rows as f64 });
        assert_eq!(best(&measured).rows, 16);
        let long = measured.map(|size| Measured { seconds: size.seconds * 100.0, ..size });
        assert_eq!(best(&long).rows, 1);
    }
}
