//! When requests come, and what they ask.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use volley_scheduler::Priority;

/// A request as it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// From the start of the simulation.
    pub(crate) at: Duration,
    pub(crate) lane: Priority,
    pub(crate) tenant: usize,
    /// From its arrival.
    pub(crate) deadline: Duration,
}

/// How the rate moves with time. The mean over a whole period is the rate that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// The same at all times.
    Steady,
    /// A tenth of the time at five times the rest's rate.
    Bursts { period: Duration },
    /// A sine between a tenth of the mean and nearly twice the mean.
    Diurnal { period: Duration },
}

/// Who asks, and for what.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) shape: Shape,
    /// Requests per second of each tenant, on average. Each is a Poisson process of its own.
    pub(crate) tenants: Vec<f64>,
    /// The share of each lane, critical first; they add up to 1.
    pub(crate) lanes: [f64; Priority::COUNT],
    pub(crate) deadline: Duration,
    pub(crate) duration: Duration,
}

impl Shape {
    const BURST: f64 = 0.1;
    const BURST_OVER_REST: f64 = 5.0;
    const SWING: f64 = 0.9;

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Bursts { .. } => "bursts",
            Self::Diurnal { .. } => "diurnal",
        }
    }

    /// The rate at a time, over the mean.
    fn at(&self, seconds: f64) -> f64 {
        let rest = 1.0 / (1.0 - Self::BURST + Self::BURST * Self::BURST_OVER_REST);
        match self {
            Self::Steady => 1.0,
            Self::Bursts { period } => {
                let phase = (seconds / period.as_secs_f64()).fract();
                if phase < Self::BURST { rest * Self::BURST_OVER_REST } else { rest }
            }
            Self::Diurnal { period } => {
                1.0 - Self::SWING * (std::f64::consts::TAU * seconds / period.as_secs_f64()).cos()
            }
        }
    }

    fn greatest(&self) -> f64 {
        match self {
            Self::Steady => 1.0,
            Self::Bursts { .. } => self.at(0.0),
            Self::Diurnal { .. } => 1.0 + Self::SWING,
        }
    }
}

impl Traffic {
    /// The arrivals in order; the same for the same seed. A changing rate is had by thinning (Lewis and Shedler, 1979,
    /// "Simulation of nonhomogeneous Poisson processes by thinning").
    pub(crate) fn arrivals(self, seed: u64) -> impl Iterator<Item = Arrival> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let total: f64 = self.tenants.iter().sum();
        let peak = total * self.shape.greatest();
        let mut seconds = 0.0;
        std::iter::from_fn(move || {
            loop {
                let gap: f64 = Exp1.sample(&mut rng);
                seconds += gap / peak;
                if seconds >= self.duration.as_secs_f64() {
                    return None;
                }
                if rng.random::<f64>() * self.shape.greatest() < self.shape.at(seconds) {
                    break;
                }
            }
            let lane = pick(&self.lanes, rng.random());
            let tenant = pick(&self.tenants, rng.random::<f64>() * total);
            let at = Duration::from_secs_f64(seconds);
            Some(Arrival { at, lane: Priority::ALL[lane], tenant, deadline: self.deadline })
        })
    }
}

/// Where `point` falls when the weights are laid end to end.
fn pick(weights: &[f64], mut point: f64) -> usize {
    let found = weights.iter().position(|weight| {
        point -= weight;
        point < 0.0
    });
    found.unwrap_or(weights.len() - 1)
}

/// Reads a recorded trace: a line per request with its time in seconds, its lane, its tenant's number and its deadline
/// in milliseconds from then, separated by commas. Lines that start with `#` are skipped.
///
/// # Errors
/// When the file cannot be read, or a line does not have this form or goes back in time.
pub(crate) fn read_trace(path: &Path) -> Result<Vec<Arrival>, Box<dyn Error>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let wrong = |why: &str| format!("{}, line {}: {why}", path.display(), number + 1);
        let arrival = parse(line).ok_or_else(|| wrong("expected `seconds,lane,tenant,deadline_ms`"))?;
        if arrivals.last().is_some_and(|last| last.at > arrival.at) {
            return Err(wrong("the time lies before that of the line above").into());
        }
        arrivals.push(arrival);
    }
    Ok(arrivals)
}

fn parse(line: &str) -> Option<Arrival> {
    let mut fields = line.split(',').map(str::trim);
    let arrival = Arrival {
        at: Duration::try_from_secs_f64(fields.next()?.parse().ok()?).ok()?,
        lane: fields.next()?.parse().ok()?,
        tenant: fields.next()?.parse().ok()?,
        deadline: Duration::try_from_secs_f64(fields.next()?.parse::<f64>().ok()? / 1e3).ok()?,
    };
    fields.next().is_none().then_some(arrival)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_keeps_the_mean_rate_and_the_shares() {
        let period = Duration::from_secs(10);
        for shape in [Shape::Steady, Shape::Bursts { period }, Shape::Diurnal { period }] {
            let traffic = Traffic {
                shape: shape.clone(),
                tenants: vec![750.0, 250.0],
                lanes: [0.1, 0.2, 0.6, 0.1],
                deadline: Duration::from_millis(100),
                duration: Duration::from_secs(100),
            };
            let arrivals: Vec<_> = traffic.arrivals(1).collect();
            let share = |of: &dyn Fn(&Arrival) -> bool| arrivals.iter().filter(|&a| of(a)).count() as f64 / 1e5;
            assert!((share(&|_| true) - 1.0).abs() < 0.02, "{shape:?}");
            assert!((share(&|a| a.tenant == 1) - 0.25).abs() < 0.01, "{shape:?}");
            assert!((share(&|a| a.lane == Priority::Normal) - 0.6).abs() < 0.02, "{shape:?}");
            assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        }
    }

    #[test]
    fn a_line_of_a_trace_has_four_fields() {
        let arrival = parse("1.5, high, 3, 80").expect("well formed");
        assert_eq!((arrival.at, arrival.lane, arrival.tenant), (Duration::from_millis(1_500), Priority::High, 3));
        assert_eq!(arrival.deadline, Duration::from_millis(80));
        for wrong in ["", "1,high,3", "1,high,3,80,9", "-1,high,3,80", "1,urgent,3,80"] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
