//! What is promised, as data.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The figures a run is judged by. The default is Volley's own promise; a TOML file may change any of them.
///
/// # Examples
///
/// ```
/// use volley_validate::profile::Profile;
///
/// let strict = Profile::from_toml("p99_latency_ms = { target = 10, alert = 15, critical = 30 }")?;
/// assert_eq!(strict.p99_latency_ms.target, 10.0);
/// assert_eq!(strict.p50_latency_ms, Profile::default().p50_latency_ms);
/// # Ok::<(), volley_validate::profile::ProfileError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Median latency in milliseconds, to be below its target.
    pub p50_latency_ms: Thresholds,
    /// 95th percentile of the latency in milliseconds, to be below its target.
    pub p95_latency_ms: Thresholds,
    /// 99th percentile of the latency in milliseconds, to be below its target.
    pub p99_latency_ms: Thresholds,
    /// Greatest latency in milliseconds, to be below its target.
    pub max_latency_ms: Thresholds,
    /// Failed requests over all requests, 0 to 1, to be below its target.
    pub error_rate: Thresholds,
    /// Requests per second, to reach the target.
    pub target_throughput: Thresholds,
    /// Requests per second that are the least of all: below it the service is as good as down.
    pub min_throughput: f64,
}

/// What a figure should reach, when someone should look, and when someone must act.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The promise.
    pub target: f64,
    /// Reached or passed: someone should look.
    pub alert: f64,
    /// Reached or passed: someone must act.
    pub critical: f64,
}

impl Thresholds {
    /// Target, alert and critical, in that order.
    #[must_use]
    pub const fn new(target: f64, alert: f64, critical: f64) -> Self {
        Self { target, alert, critical }
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            p50_latency_ms: Thresholds::new(50.0, 60.0, 80.0),
            p95_latency_ms: Thresholds::new(80.0, 90.0, 120.0),
            p99_latency_ms: Thresholds::new(100.0, 120.0, 150.0),
            max_latency_ms: Thresholds::new(200.0, 250.0, 300.0),
            error_rate: Thresholds::new(0.01, 0.02, 0.05),
            target_throughput: Thresholds::new(200.0, 150.0, 100.0),
            min_throughput: 50.0,
        }
    }
}

impl Profile {
    /// Reads a profile; what the text does not name keeps its default.
    ///
    /// # Errors
    ///
    /// When the text is not TOML, names an unknown figure, or orders thresholds the wrong way round.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(ProfileError::Toml)?;
        let ceilings = [
            ("p50_latency_ms", profile.p50_latency_ms),
            ("p95_latency_ms", profile.p95_latency_ms),
            ("p99_latency_ms", profile.p99_latency_ms),
            ("max_latency_ms", profile.max_latency_ms),
            ("error_rate", profile.error_rate),
        ];
        for (figure, Thresholds { target, alert, critical }) in ceilings {
            if !(0.0 < target && target <= alert && alert <= critical && critical.is_finite()) {
                return Err(ProfileError::Order { figure, expected: "0 < target <= alert <= critical" });
            }
        }
        let Thresholds { target, alert, critical } = profile.target_throughput;
        if !(target.is_finite() && target >= alert && alert >= critical && critical > 0.0) {
            return Err(ProfileError::Order {
                figure: "target_throughput",
                expected: "target >= alert >= critical > 0",
            });
        }
        if !(profile.min_throughput.is_finite() && profile.min_throughput > 0.0) {
            return Err(ProfileError::Order {
                figure: "min_throughput",
                expected: "a number of requests per second greater than zero",
            });
        }
        Ok(profile)
    }
}

/// Why a text is no profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// Not TOML, or not of this form.
    #[error("the profile does not parse: {0}")]
    Toml(#[source] toml::de::Error),
    /// Thresholds that contradict each other.
    #[error("figure '{figure}' of the profile must be {expected}")]
    Order {
        /// Which figure.
        figure: &'static str,
        /// What would be right.
        expected: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_not_named_keeps_its_default() {
        assert_eq!(Profile::from_toml("").unwrap(), Profile::default());
        let changed = Profile::from_toml("min_throughput = 10").unwrap();
        assert_eq!(changed.min_throughput, 10.0);
        assert_eq!(changed.target_throughput, Profile::default().target_throughput);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("p42_latency_ms = 3", "p42_latency_ms"),
            ("p50_latency_ms = { target = 5 }", "alert"),
            ("p50_latency_ms = { target = 50, alert = 40, critical = 60 }", "target <= alert"),
            ("target_throughput = { target = 100, alert = 150, critical = 50 }", "target >= alert"),
            ("error_rate = { target = nan, alert = 1, critical = 1 }", "error_rate"),
            ("min_throughput = 0", "min_throughput"),
        ];
        for (text, expected) in cases {
            let message = Profile::from_toml(text).unwrap_err().to_string();
            assert!(message.contains(expected), "'{message}' should say '{expected}'");
        }
    }
}
