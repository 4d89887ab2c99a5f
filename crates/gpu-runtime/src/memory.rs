//! How many rows to run at once where memory runs out. More is tried on time, whatever the size of the batches that come.
//!
//! ```text
//!                 out of memory: half of what failed
//!        ┌────────────────────────────────────────────────┐
//!        ▼                                                │
//!   limited to n ── interval over: try up to 2 n ── it fails: the interval doubles, up to a minute
//!                                      │
//!                                      └ it works: limited to 2 n, interval as at first; at the largest: no limit
//! ```

use std::time::{Duration, Instant};

/// How long a limit stands before more is tried, at first and at most.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// The learned limit of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLimit {
    max: usize,
    limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    rows: usize,
    interval: Duration,
    probe_at: Instant,
}

impl RowLimit {
    /// No limit but `max`.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, limit: None }
    }

    /// Rows that are known to fit.
    pub(crate) fn rows(&self) -> usize {
        self.limit.map_or(self.max, |limit| limit.rows)
    }

    /// Whether any limit was learned; while none was, nothing here needs to know the time.
    pub(crate) fn is_learned(&self) -> bool {
        self.limit.is_some()
    }

    /// Rows to try now: those that are known to fit, or twice as many once it is time to find out.
    pub(crate) fn attempt(&self, now: Instant) -> usize {
        match self.limit {
            None => self.max,
            Some(limit) if now >= limit.probe_at => (limit.rows * 2).min(self.max),
            Some(limit) => limit.rows,
        }
    }

    /// `rows` rows fitted.
    pub(crate) fn succeeded(&mut self, rows: usize, now: Instant) {
        let Some(limit) = &mut self.limit else { return };
        if rows >= self.max {
            self.limit = None;
        } else if rows > limit.rows {
            *limit = Limit { rows, interval: FIRST_INTERVAL, probe_at: now + FIRST_INTERVAL };
        }
    }

    /// `rows` rows did not fit. Returns how many to try instead, if one row alone was not too much.
    pub(crate) fn failed(&mut self, rows: usize, now: Instant) -> Option<usize> {
        let before = self.limit;
        let interval = match before {
            // A probe: what was known still holds.
            Some(limit) if rows > limit.rows => (limit.interval * 2).min(LONGEST_INTERVAL),
            _ => FIRST_INTERVAL,
        };
        let smaller = match before {
            Some(limit) if rows > limit.rows => limit.rows,
            _ => rows / 2,
        };
        self.limit = Some(Limit { rows: smaller.max(1), interval, probe_at: now + interval });
        (rows > 1).then_some(smaller)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_learned_by_halves_and_unlearned_by_doubles() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut limit = RowLimit::new(32);
        assert_eq!(limit.attempt(start), 32);
        assert_eq!(limit.failed(32, start), Some(16));
        assert_eq!(limit.failed(16, start), Some(8));
        limit.succeeded(8, start);
        assert_eq!((limit.rows(), limit.attempt(start)), (8, 8));
        assert_eq!(limit.attempt(start + second), 16, "after an interval more is tried");
        assert_eq!(limit.failed(16, start + second), Some(8), "a probe that fails changes nothing else");
        assert_eq!(limit.attempt(start + 2 * second), 8, "and the next comes later");
        assert_eq!(limit.attempt(start + 3 * second), 16);
        limit.succeeded(16, start + 3 * second);
        assert_eq!(limit.rows(), 16);
        limit.succeeded(32, start + 4 * second);
        assert!(!limit.is_learned());
    }

    #[test]
    fn one_row_that_does_not_fit_cannot_be_halved() {
        let mut limit = RowLimit::new(2);
        let now = Instant::now();
        assert_eq!(limit.failed(2, now), Some(1));
        assert_eq!(limit.failed(1, now), None);
        assert_eq!(limit.attempt(now), 1);
    }

    proptest! {
        /// Memory for `capacity` rows, which changes now and then.
        #[test]
        fn whatever_fits_is_run_and_the_limit_follows_the_memory(
            max in 1_usize..200,
            phases in prop::collection::vec((1_usize..300, 1_u64..200), 1..8),
        ) {
            let mut limit = RowLimit::new(max);
            let mut now = Instant::now();
            for (capacity, seconds) in phases {
                for _ in 0..seconds {
                    now += Duration::from_secs(1);
                    let mut rows = limit.attempt(now);
                    let mut failures = 0;
                    while rows > capacity {
                        rows = limit.failed(rows, now).expect("one row always fits");
                        failures += 1;
                        prop_assert!(failures <= 9, "halving ends");
                    }
                    limit.succeeded(rows, now);
                    prop_assert!((1..=max).contains(&rows) && limit.rows() <= max);
                    prop_assert!(limit.rows() <= capacity || !limit.is_learned());
                }
                // Longer than the longest interval for each doubling.
                for _ in 0..9 {
                    now += LONGEST_INTERVAL;
                    let rows = limit.attempt(now);
                    if rows <= capacity { limit.succeeded(rows, now) } else { _ = limit.failed(rows, now) }
                }
                prop_assert!(limit.rows() * 2 > capacity.min(max), "{} of {capacity}", limit.rows());
            }
        }
    }
}
