//! Measures on this machine what the best batch size is.
//!
//! A larger batch costs less a row until its working set no longer fits the caches (or the device is full); past that
//! only latency grows. Where that is depends on the model and the machine, and is cheap to find out.

use std::time::{Duration, Instant};

use crate::error::RunError;
use crate::session::Session;

/// Each size is run this often; the fastest run counts, because noise only ever adds.
const RUNS: usize = 3;
/// A smaller batch is preferred as long as it does at least this share of the best rows per second.
const GOOD_ENOUGH: f64 = 0.98;

/// Powers of two up to `max`, and `max` itself.
pub(crate) fn batch_sizes(max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |size| size.checked_mul(2)).take_while(move |&size| size < max).chain([max])
}

/// The smallest of [`batch_sizes`] that does nearly the most rows per second.
pub(crate) fn best_batch(session: &mut Session) -> Result<usize, RunError> {
    let mut measured = Vec::new();
    for rows in batch_sizes(session.max_rows()) {
        // The first run of a size prepares it.
        session.run(rows)?;
        let mut fastest = Duration::MAX;
        for _ in 0..RUNS {
            let started = Instant::now();
            session.run(rows)?;
            fastest = fastest.min(started.elapsed());
        }
        measured.push((rows, fastest));
    }
    Ok(choose(&measured))
}

fn choose(measured: &[(usize, Duration)]) -> usize {
    let rate = |&(rows, took): &(usize, Duration)| rows as f64 / took.as_secs_f64();
    let best = measured.iter().map(rate).fold(0.0, f64::max);
    measured.iter().find(|size| rate(size) >= best * GOOD_ENOUGH).map_or(1, |&(rows, _)| rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_and_the_largest() {
        let sizes = |max| batch_sizes(max).collect::<Vec<_>>();
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(32), [1, 2, 4, 8, 16, 32]);
        assert_eq!(sizes(20), [1, 2, 4, 8, 16, 20]);
    }

    #[test]
    fn the_smallest_batch_that_is_nearly_the_best_is_chosen() {
        let us = Duration::from_micros;
        // Rates of 5, 8, 9.9 and 10 rows/ms, then falling.
        let measured = [(1, us(200)), (4, us(500)), (8, us(808)), (16, us(1600)), (32, us(3600))];
        assert_eq!(choose(&measured), 8);
        assert_eq!(choose(&measured[..2]), 4);
    }
}
