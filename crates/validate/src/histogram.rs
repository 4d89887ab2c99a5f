//! Latency distributions.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Distribution of durations: 1 microsecond to 60 seconds, each value known to 0.1 %.
///
/// `HdrHistogram` (Gil Tene): constant memory and constant cost per value however long the run, and two
/// of them merge without losing anything. Durations beyond the range are counted at its edge.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use volley_validate::histogram::LatencyHistogram;
///
/// let mut latencies = LatencyHistogram::new();
/// (1..=100).for_each(|ms| latencies.record(Duration::from_millis(ms)));
/// let p99 = latencies.quantile(0.99).unwrap();
/// assert!((p99.as_secs_f64() - 0.099).abs() < 0.0001);
/// ```
#[derive(Debug, Clone)]
pub struct LatencyHistogram {
    microseconds: Histogram<u64>,
}

const HIGHEST_MICROSECONDS: u64 = 60_000_000;

impl LatencyHistogram {
    /// An empty distribution.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the bounds are valid constants")]
    pub fn new() -> Self {
        Self {
            microseconds: Histogram::new_with_bounds(1, HIGHEST_MICROSECONDS, 3)
                .expect("1 microsecond to 60 seconds at three digits are valid bounds"),
        }
    }

    /// Counts one duration, rounded up to whole microseconds: rounding never flatters.
    pub fn record(&mut self, duration: Duration) {
        let microseconds = duration.as_nanos().div_ceil(1000);
        self.microseconds.saturating_record(u64::try_from(microseconds).unwrap_or(u64::MAX));
    }

    /// Adds every value of `other`.
    #[expect(clippy::missing_panics_doc, reason = "all histograms have the same bounds")]
    pub fn merge(&mut self, other: &Self) {
        self.microseconds.add(&other.microseconds).expect("all histograms have the same bounds");
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.microseconds.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.microseconds.is_empty()
    }

    /// The least recorded value which a share `quantile` (0 to 1) of all values does not exceed.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        self.when_any(|h| h.value_at_quantile(quantile))
    }

    /// The least value.
    #[must_use]
    pub fn min(&self) -> Option<Duration> {
        self.when_any(Histogram::min)
    }

    /// The greatest value.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        self.when_any(Histogram::max)
    }

    /// The arithmetic mean.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| Duration::from_secs_f64(self.microseconds.mean() / 1e6))
    }

    /// How many values are greater than `bound` (by more than the resolution of 0.1 %).
    #[must_use]
    pub fn count_above(&self, bound: Duration) -> u64 {
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        if bound >= HIGHEST_MICROSECONDS {
            return 0;
        }
        self.len() - self.microseconds.count_between(0, bound)
    }

    fn when_any(&self, microseconds: impl FnOnce(&Histogram<u64>) -> u64) -> Option<Duration> {
        (!self.is_empty()).then(|| Duration::from_micros(microseconds(&self.microseconds)))
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_milliseconds(values: impl IntoIterator<Item = u64>) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        values.into_iter().for_each(|ms| histogram.record(Duration::from_millis(ms)));
        histogram
    }

    fn assert_close(measured: Option<Duration>, milliseconds: f64) {
        let measured = measured.unwrap().as_secs_f64() * 1000.0;
        assert!((measured / milliseconds - 1.0).abs() <= 0.001, "{measured} ms is not {milliseconds} ms");
    }

    #[test]
    fn quantiles_agree_with_sorted_values() {
        let histogram = of_milliseconds(1..=1000);
        assert_close(histogram.quantile(0.50), 500.0);
        assert_close(histogram.quantile(0.95), 950.0);
        assert_close(histogram.quantile(0.99), 990.0);
        assert_close(histogram.max(), 1000.0);
        assert_close(histogram.min(), 1.0);
        assert_close(histogram.mean(), 500.5);
    }

    #[test]
    fn merging_equals_recording_in_one() {
        let mut left = of_milliseconds(1..=500);
        left.merge(&of_milliseconds(501..=1000));
        let whole = of_milliseconds(1..=1000);
        assert_eq!(left.len(), whole.len());
        for quantile in [0.0, 0.25, 0.5, 0.999, 1.0] {
            assert_eq!(left.quantile(quantile), whole.quantile(quantile));
        }
    }

    #[test]
    fn an_empty_histogram_has_no_figures() {
        let histogram = LatencyHistogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        assert_eq!(histogram.max(), None);
        assert_eq!(histogram.mean(), None);
    }

    #[test]
    fn durations_out_of_range_are_counted_at_its_edge() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_nanos(1));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.len(), 3);
        assert!(histogram.max().unwrap() >= Duration::from_secs(59));
        assert!(histogram.quantile(0.5).unwrap() <= Duration::from_micros(1));
    }

    #[test]
    fn values_above_a_bound_are_counted() {
        let histogram = of_milliseconds([10, 20, 30, 40]);
        assert_eq!(histogram.count_above(Duration::from_millis(25)), 2);
        assert_eq!(histogram.count_above(Duration::ZERO), 4);
        assert_eq!(histogram.count_above(Duration::from_secs(61)), 0);
    }
}
