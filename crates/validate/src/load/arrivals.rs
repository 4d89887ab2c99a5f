//! When requests are due.

use std::str::FromStr;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use thiserror::Error;

use super::Trace;

/// How requests arrive, independently of how they are answered.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use volley_validate::load::{Arrivals, Rate};
///
/// let arrivals = Arrivals::Constant { rate: Rate::new(200.0)? };
/// let due: Vec<Duration> = arrivals.schedule(Duration::from_millis(20)).collect();
/// assert_eq!(due, [0, 5, 10, 15].map(Duration::from_millis));
/// # Ok::<(), volley_validate::load::RateError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// One request every 1/rate: a metronome. Kinder to a server than any real traffic.
    Constant {
        /// Requests per second.
        rate: Rate,
    },
    /// Independent users: gaps follow the exponential distribution of mean 1/rate.
    Poisson {
        /// Mean requests per second.
        rate: Rate,
        /// The same seed gives the same schedule.
        seed: u64,
    },
    /// Recorded send times, replayed.
    Trace(Trace),
}

impl Arrivals {
    /// The times from the start of the run at which requests are due, up to but not including `length`.
    /// They never decrease.
    #[must_use]
    pub fn schedule(&self, length: Duration) -> Schedule<'_> {
        let state = match self {
            Self::Constant { rate } => State::Constant { rate: rate.0, sent: 0 },
            Self::Poisson { rate, seed } => {
                State::Poisson { rate: rate.0, rng: Box::new(Xoshiro256PlusPlus::seed_from_u64(*seed)), seconds: 0.0 }
            }
            Self::Trace(trace) => State::Trace(trace.offsets().iter()),
        };
        Schedule { length, state }
    }
}

/// A number of requests per second, greater than zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Takes `per_second` for a rate.
    ///
    /// # Errors
    ///
    /// When it is not greater than zero, or not finite.
    pub fn new(per_second: f64) -> Result<Self, RateError> {
        if per_second.is_finite() && per_second > 0.0 {
            Ok(Self(per_second))
        } else {
            Err(RateError(per_second.to_string()))
        }
    }

    /// Requests per second.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        given.parse().map_err(|_| RateError(given.to_owned())).and_then(Self::new)
    }
}

/// A rate that is none.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("rate '{0}' is not a number of requests per second greater than zero, such as 200")]
pub struct RateError(String);

/// Iterator over the times at which requests are due.
#[derive(Debug, Clone)]
pub struct Schedule<'a> {
    length: Duration,
    state: State<'a>,
}

#[derive(Debug, Clone)]
enum State<'a> {
    Constant { rate: f64, sent: u64 },
    Poisson { rate: f64, rng: Box<Xoshiro256PlusPlus>, seconds: f64 },
    Trace(std::slice::Iter<'a, Duration>),
}

impl Iterator for Schedule<'_> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.state {
            State::Constant { rate, sent } => {
                // From the count, not by adding gaps: rounding must not add up over an hour.
                let seconds = *sent as f64 / *rate;
                *sent += 1;
                seconds
            }
            State::Poisson { rate, rng, seconds } => {
                // Inverse transform; 1 - [0, 1) keeps the logarithm finite.
                *seconds -= (1.0 - rng.random::<f64>()).ln() / *rate;
                *seconds
            }
            State::Trace(offsets) => {
                return offsets.next().copied().filter(|at| *at < self.length);
            }
        };
        (seconds < self.length.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arrivals() -> impl Strategy<Value = (Arrivals, f64)> {
        let rate = 1.0..2000.0_f64;
        prop_oneof![
            rate.clone().prop_map(|per_second| {
                let rate = Rate::new(per_second).unwrap();
                (Arrivals::Constant { rate }, per_second)
            }),
            (rate, any::<u64>()).prop_map(|(per_second, seed)| {
                let rate = Rate::new(per_second).unwrap();
                (Arrivals::Poisson { rate, seed }, per_second)
            }),
        ]
    }

    proptest! {
        #[test]
        fn times_never_decrease_and_end_before_the_length(
            (arrivals, _) in arrivals(),
            milliseconds in 0_u64..3000,
        ) {
            let length = Duration::from_millis(milliseconds);
            let times: Vec<_> = arrivals.schedule(length).collect();
            prop_assert!(times.is_sorted());
            prop_assert!(times.iter().all(|at| *at < length));
        }

        #[test]
        fn the_mean_rate_is_the_one_asked_for((arrivals, rate) in arrivals()) {
            // Eight standard deviations of a Poisson count: about one false alarm in 10^13 cases.
            let expected = 1000.0;
            let length = Duration::from_secs_f64(expected / rate);
            let count = arrivals.schedule(length).count() as f64;
            prop_assert!((count - expected).abs() <= 8.0 * expected.sqrt(), "{count} arrivals");
        }

        #[test]
        fn a_seed_fixes_the_schedule_and_a_longer_run_only_adds_to_it(
            (arrivals, _) in arrivals(),
            milliseconds in 0_u64..1000,
        ) {
            let length = Duration::from_millis(milliseconds);
            let short: Vec<_> = arrivals.schedule(length).collect();
            let long: Vec<_> = arrivals.schedule(2 * length).collect();
            prop_assert_eq!(&long[..short.len()], &short[..]);
        }
    }

    #[test]
    fn poisson_gaps_vary_as_exponential_ones_do() {
        let arrivals = Arrivals::Poisson { rate: Rate::new(100.0).unwrap(), seed: 7 };
        let times: Vec<_> = arrivals.schedule(Duration::from_secs(200)).collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 100.0).collect();
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        // For exponential gaps the standard deviation equals the mean; for a metronome it is zero.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[test]
    fn different_seeds_give_different_schedules() {
        let schedule = |seed| {
            let rate = Rate::new(50.0).unwrap();
            let arrivals = Arrivals::Poisson { rate, seed };
            arrivals.schedule(Duration::from_secs(1)).collect::<Vec<_>>()
        };
        assert_ne!(schedule(1), schedule(2));
    }

    #[test]
    fn a_rate_is_a_finite_number_above_zero() {
        for given in ["0", "-1", "NaN", "inf", "fast"] {
            let message = given.parse::<Rate>().unwrap_err().to_string();
            assert!(message.contains(given), "{message}");
        }
        assert_eq!("0.5".parse::<Rate>().unwrap().per_second(), 0.5);
    }
}
