//! The learned cost of executing a batch.

use std::time::{Duration, Instant};

/// The least weight of a new observation: the estimate follows a change within some 32 batches.
const LEAST_WEIGHT: f64 = 1.0 / 32.0;
/// How many times the predicted cost a batch may count for: a page fault or a preempted worker is not the rule.
const OUTLIER: f64 = 4.0;
/// Below this, in seconds, any cost is as good as none; keeps the outlier rule from pinning a prediction to zero.
const LEAST_COST: f64 = 1e-6;
/// The spread of batch sizes, relative to their mean, that it takes to tell fixed cost from cost per row.
const LEAST_SPREAD: f64 = 0.05;
/// How many standard deviations a [bound](ServiceTime::bound) lies above the prediction: for noise that is log-normal
/// about its mean, fewer than one batch in 2,000 takes longer, and the more the noise the more so.
const DEVIATIONS: f64 = 3.3;
/// The noise assumed before anything was seen, as the squared deviation of the logarithm, and for how many
/// observations that assumption counts.
const ASSUMED_NOISE: f64 = 0.04;
const ASSUMED_WEIGHT: f64 = 4.0;
/// The least weight of an observation for the noise, which takes longer to tell than the mean does.
const LEAST_NOISE_WEIGHT: f64 = 1.0 / 256.0;
/// How long a prediction stays good enough to refuse work on it. Longer, and a prediction that became wrong would
/// refuse the very requests that could correct it.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// What a batch costs: `fixed + per_row * rows`, fitted by exponentially weighted least squares.
///
/// Deadlines are judged by a quantile and not by the mean (as Orloj does): a batch that takes its mean makes every
/// second one late. The noise is taken to be multiplicative: one factor for all sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ServiceTime {
    observations: u32,
    last: Option<Instant>,
    mean_rows: f64,
    mean_seconds: f64,
    variance: f64,
    covariance: f64,
    /// Kept when the sizes no longer vary enough to tell.
    per_row: f64,
    /// The mean square of the logarithm of what a batch took over what was predicted, as those tell that took longer.
    noise: f64,
    /// The bound over the prediction.
    margin: f64,
}

impl Default for ServiceTime {
    fn default() -> Self {
        Self {
            observations: 0,
            last: None,
            mean_rows: 0.0,
            mean_seconds: 0.0,
            variance: 0.0,
            covariance: 0.0,
            per_row: 0.0,
            noise: ASSUMED_NOISE,
            margin: margin(ASSUMED_NOISE),
        }
    }
}

impl ServiceTime {
    /// Learns that a batch of `rows`, done at `now`, `took` this long.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration, now: Instant) {
        let rows = rows as f64;
        let mut seconds = took.as_secs_f64();
        if self.observations > 0 {
            seconds = seconds.min(OUTLIER * self.seconds(rows).max(LEAST_COST));
        }
        // What a batch of another size took, before the cost of a row is known, says nothing of the noise.
        let is_comparable = self.tells_per_row() || (rows - self.mean_rows).abs() <= LEAST_SPREAD * self.mean_rows;
        if self.observations > 0 && is_comparable {
            // Only what takes longer makes a bound exceed the prediction; half of what is symmetric does.
            let off = (seconds.max(LEAST_COST) / self.seconds(rows).max(LEAST_COST)).ln().max(0.0);
            let weight = (1.0 / (f64::from(self.observations) + ASSUMED_WEIGHT)).max(LEAST_NOISE_WEIGHT);
            self.noise += weight * (2.0 * off * off - self.noise);
            self.margin = margin(self.noise);
        }
        self.observations = self.observations.saturating_add(1);
        self.last = Some(now);
        let weight = (1.0 / f64::from(self.observations)).max(LEAST_WEIGHT);
        let off_rows = rows - self.mean_rows;
        let off_seconds = seconds - self.mean_seconds;
        self.mean_rows += weight * off_rows;
        self.mean_seconds += weight * off_seconds;
        self.variance = (1.0 - weight) * (self.variance + weight * off_rows * off_rows);
        self.covariance = (1.0 - weight) * (self.covariance + weight * off_rows * off_seconds);
        if self.tells_per_row() {
            self.per_row = self.covariance / self.variance;
        }
        self.per_row = self.per_row.clamp(0.0, self.mean_seconds / self.mean_rows);
    }

    /// Whether the sizes varied enough to tell the cost of a row.
    fn tells_per_row(&self) -> bool {
        self.variance > (LEAST_SPREAD * self.mean_rows).powi(2)
    }

    /// What a batch of `rows` is expected to take; none before the first observation.
    pub(crate) fn predict(&self, rows: usize) -> Option<Duration> {
        (self.observations > 0).then(|| Duration::from_secs_f64(self.seconds(rows as f64)))
    }

    /// What a batch of `rows` hardly ever exceeds; nothing where nothing recent is known, when it is no ground to refuse.
    pub(crate) fn bound(&self, rows: usize, now: Instant) -> Duration {
        if !self.is_fresh(now) {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.seconds(rows as f64) * self.margin)
    }

    /// Until when [`bound`](Self::bound) holds; none before the first observation.
    pub(crate) fn fresh_until(&self) -> Option<Instant> {
        self.last.map(|last| last + STALE_AFTER)
    }

    /// The part of the cost that a batch pays once.
    pub(crate) fn fixed(&self) -> Option<Duration> {
        self.predict(0)
    }

    /// Whether the prediction is recent enough at `now` to refuse work on it.
    fn is_fresh(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) <= STALE_AFTER)
    }

    fn seconds(&self, rows: f64) -> f64 {
        (self.mean_seconds + self.per_row * (rows - self.mean_rows)).max(0.0)
    }
}

/// How far the bound lies above the prediction.
fn margin(noise: f64) -> f64 {
    (DEVIATIONS * noise.sqrt()).exp()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn near(found: Option<Duration>, expected: Duration) {
        let found = found.expect("something was observed");
        let off = found.abs_diff(expected).as_secs_f64() / expected.as_secs_f64();
        assert!(off < 0.05, "found {found:?}, expected about {expected:?}");
    }

    #[test]
    fn the_fixed_cost_and_the_cost_per_row_are_told_apart() {
        let mut model = ServiceTime::default();
        for rows in (1..=32).chain(1..=32) {
            model.observe(rows, micros(400 + 30 * rows as u64), Instant::now());
        }
        near(model.fixed(), micros(400));
        near(model.predict(32), micros(400 + 30 * 32));
    }

    #[test]
    fn a_slope_once_learned_survives_batches_of_one_size() {
        let mut model = ServiceTime::default();
        for rows in 1..=32 {
            model.observe(rows, micros(400 + 30 * rows as u64), Instant::now());
        }
        for _ in 0..1_000 {
            model.observe(32, micros(400 + 30 * 32), Instant::now());
        }
        near(model.predict(1), micros(430));
    }

    #[test]
    fn an_outlier_among_the_first_batches_does_not_refuse_what_follows() {
        for stalled in 0..8 {
            let (mut model, now) = (ServiceTime::default(), Instant::now());
            for batch in 0..12 {
                model.observe(1, if batch == stalled { micros(30_000) } else { micros(50) }, now);
                // The first of all is all that is known, until there is another.
                let worst = if batch == stalled && stalled == 0 { micros(60_000) } else { micros(40_000) };
                let bound = model.bound(1, now);
                assert!(bound < worst, "{bound:?} after batch {batch}, where batch {stalled} stalled");
            }
        }
    }

    #[test]
    fn one_outlier_does_not_move_the_prediction_far() {
        let mut model = ServiceTime::default();
        for _ in 0..100 {
            model.observe(8, micros(1_000), Instant::now());
        }
        model.observe(8, Duration::from_secs(10), Instant::now());
        assert!(model.predict(8).expect("observed") < micros(1_200));
    }

    #[test]
    fn a_lasting_change_is_followed() {
        let mut model = ServiceTime::default();
        for _ in 0..100 {
            model.observe(8, micros(1_000), Instant::now());
        }
        for _ in 0..200 {
            model.observe(8, micros(20_000), Instant::now());
        }
        near(model.predict(8), micros(20_000));
    }

    #[test]
    fn a_bound_is_the_prediction_where_there_is_no_noise_and_is_hardly_ever_exceeded_where_there_is() {
        let now = Instant::now();
        let mut model = ServiceTime::default();
        for _ in 0..10_000 {
            model.observe(8, micros(1_000), now);
        }
        near(Some(model.bound(8, now)), micros(1_000));

        // Log-normal about 1 ms with a deviation of 30 %: a normal variable as the sum of twelve uniform ones.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut exceeded = 0;
        for i in 0..40_000 {
            let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            let took = Duration::from_secs_f64(0.001 * (0.3 * normal - 0.045).exp());
            exceeded += u32::from(i >= 1_000 && took > model.bound(8, now));
            model.observe(8, took, now);
        }
        assert!(exceeded < 39, "{exceeded} of 39,000");
        assert!(model.bound(8, now) < micros(3_500), "{:?}", model.bound(8, now));
    }

    #[test]
    fn the_first_large_batch_after_small_ones_is_not_taken_for_noise() {
        let now = Instant::now();
        let mut model = ServiceTime::default();
        let cost = |rows: u64| micros(4_000 + 300 * rows);
        model.observe(1, cost(1), now);
        model.observe(32, cost(32), now);
        model.observe(32, cost(32), now);
        let bound = model.bound(32, now);
        assert!(bound < 2 * cost(32), "{bound:?}");
    }

    #[test]
    fn an_old_prediction_is_no_ground_to_refuse_work() {
        let now = Instant::now();
        let mut model = ServiceTime::default();
        assert!(!model.is_fresh(now));
        model.observe(1, Duration::from_secs(5), now);
        assert!(model.is_fresh(now + Duration::from_millis(999)));
        assert!(!model.is_fresh(now + Duration::from_millis(1_001)));
    }
}
