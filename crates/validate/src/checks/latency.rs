//! `p50_latency`, `p95_latency`, `p99_latency`, `max_latency`.

use crate::load::Measurement;
use crate::profile::Profile;
use crate::verdict::{CheckResult, Requirement};

/// A percentile is claimed only when about this many samples lie beyond it. With ten, the sampling error
/// of the share beyond it is about a third; with fewer, a single stall decides the verdict.
pub const SAMPLES_BEYOND_PERCENTILE: f64 = 10.0;

/// Samples without which the percentile `quantile` (0 to 1) is not claimed: 20 for the median, 200 for
/// the 95th percentile, 1000 for the 99th.
#[must_use]
pub fn samples_needed(quantile: f64) -> u64 {
    // Rounded, because 1 - 0.99 is not quite a hundredth in binary.
    (SAMPLES_BEYOND_PERCENTILE / (1.0 - quantile)).round() as u64
}

/// Judges the latencies of a run.
///
/// A run without a single good reply has `no_data`. The greatest latency needs no number of samples: it
/// is what it is.
#[must_use]
pub fn judge(measured: &Measurement, profile: &Profile) -> CheckResult {
    let latency = &measured.latency;
    let samples = latency.len();
    let milliseconds = |duration: Option<std::time::Duration>| {
        duration.filter(|_| measured.completed > 0).map(|duration| duration.as_micros() as f64 / 1000.0)
    };
    let percentiles = [
        ("p50_latency", 0.50, profile.p50_latency_ms),
        ("p95_latency", 0.95, profile.p95_latency_ms),
        ("p99_latency", 0.99, profile.p99_latency_ms),
    ];
    let mut requirements: Vec<_> = percentiles
        .into_iter()
        .map(|(name, quantile, thresholds)| {
            let figure = milliseconds(latency.quantile(quantile));
            let requirement = Requirement::below(name, "ms", figure, thresholds);
            let needed = samples_needed(quantile);
            if figure.is_some() && samples < needed {
                requirement.not_enough(format!("{samples} samples, {needed} needed: run longer"))
            } else {
                requirement
            }
        })
        .collect();
    requirements.push(Requirement::below("max_latency", "ms", milliseconds(latency.max()), profile.max_latency_ms));
    CheckResult::of("latency", requirements)
}
