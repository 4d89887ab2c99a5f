//! Figures held against thresholds.

use serde::Serialize;

use crate::profile::Thresholds;

/// One requirement of a profile and how a run did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Requirement {
    /// The requirement's fixed name, such as `p99_latency`.
    pub name: &'static str,
    /// Unit of the measured figure and of the thresholds.
    pub unit: &'static str,
    /// The figure; `None` when there was nothing to measure.
    pub measured: Option<f64>,
    /// What it is held against.
    #[serde(flatten)]
    pub thresholds: Thresholds,
    /// Where the figure lies.
    pub level: Level,
    /// Whether the target is met. True at the level `ok`, and at no other.
    pub passed: bool,
    /// What a reader must know to make sense of the level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where a figure lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The target is met.
    Ok,
    /// The target is missed; the alert threshold is not reached.
    Missed,
    /// The alert threshold is reached.
    Alert,
    /// The critical threshold is reached.
    Critical,
    /// Too little was measured for the claim, whatever the figure.
    NotEnough,
    /// Nothing was measured.
    NoData,
}

impl Level {
    /// The name used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missed => "missed",
            Self::Alert => "alert",
            Self::Critical => "critical",
            Self::NotEnough => "not_enough",
            Self::NoData => "no_data",
        }
    }
}

impl Requirement {
    /// A figure that is to stay below its target.
    #[must_use]
    pub fn below(name: &'static str, unit: &'static str, measured: Option<f64>, thresholds: Thresholds) -> Self {
        let level = measured.map_or(Level::NoData, |figure| {
            if figure < thresholds.target {
                Level::Ok
            } else if figure >= thresholds.critical {
                Level::Critical
            } else if figure >= thresholds.alert {
                Level::Alert
            } else {
                Level::Missed
            }
        });
        Self::at_level(name, unit, measured, thresholds, level)
    }

    /// A figure that is to reach its target.
    #[must_use]
    pub fn at_least(name: &'static str, unit: &'static str, measured: Option<f64>, thresholds: Thresholds) -> Self {
        let level = measured.map_or(Level::NoData, |figure| {
            if figure >= thresholds.target {
                Level::Ok
            } else if figure <= thresholds.critical {
                Level::Critical
            } else if figure <= thresholds.alert {
                Level::Alert
            } else {
                Level::Missed
            }
        });
        Self::at_level(name, unit, measured, thresholds, level)
    }

    /// The same requirement, not passed because too little was measured for it.
    #[must_use]
    pub fn not_enough(self, why: String) -> Self {
        Self { level: Level::NotEnough, passed: false, note: Some(why), ..self }
    }

    /// The same requirement with something a reader must know.
    #[must_use]
    pub fn noted(self, note: String) -> Self {
        Self { note: Some(note), ..self }
    }

    fn at_level(
        name: &'static str,
        unit: &'static str,
        measured: Option<f64>,
        thresholds: Thresholds,
        level: Level,
    ) -> Self {
        Self { name, unit, measured, thresholds, level, passed: level == Level::Ok, note: None }
    }
}

/// The requirements of one component: latency, throughput, errors.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckResult {
    /// The component's fixed name.
    pub component: &'static str,
    /// Whether every requirement passed.
    pub validation_passed: bool,
    /// Names of those that did not; just `no_data` when nothing was measured.
    pub failed_requirements: Vec<&'static str>,
    /// All of them.
    pub requirements: Vec<Requirement>,
}

impl CheckResult {
    /// Sums requirements up.
    #[must_use]
    pub fn of(component: &'static str, requirements: Vec<Requirement>) -> Self {
        let failed = || requirements.iter().filter(|requirement| !requirement.passed);
        let no_data =
            !requirements.is_empty() && requirements.iter().all(|requirement| requirement.level == Level::NoData);
        let failed_requirements =
            if no_data { vec!["no_data"] } else { failed().map(|requirement| requirement.name).collect() };
        Self { component, validation_passed: failed_requirements.is_empty(), failed_requirements, requirements }
    }
}

/// All checks of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether every check passed.
    pub overall_validation_passed: bool,
    /// Components whose check did not.
    pub failed_components: Vec<&'static str>,
    /// All of them.
    pub checks: Vec<CheckResult>,
}

impl Verdict {
    /// Sums checks up.
    #[must_use]
    pub fn over(checks: impl IntoIterator<Item = CheckResult>) -> Self {
        let checks: Vec<_> = checks.into_iter().collect();
        let failed_components: Vec<_> =
            checks.iter().filter(|check| !check.validation_passed).map(|check| check.component).collect();
        Self { overall_validation_passed: failed_components.is_empty(), failed_components, checks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Thresholds = Thresholds::new(50.0, 60.0, 80.0);
    const THROUGHPUT: Thresholds = Thresholds::new(200.0, 150.0, 100.0);

    #[test]
    fn a_ceiling_is_kept_below_and_a_threshold_counts_once_it_is_reached() {
        let level = |figure| Requirement::below("f", "ms", figure, LATENCY).level;
        assert_eq!(level(Some(49.9)), Level::Ok);
        assert_eq!(level(Some(50.0)), Level::Missed);
        assert_eq!(level(Some(59.9)), Level::Missed);
        assert_eq!(level(Some(60.0)), Level::Alert);
        assert_eq!(level(Some(80.0)), Level::Critical);
        assert_eq!(level(None), Level::NoData);
    }

    #[test]
    fn a_floor_is_reached_from_above() {
        let level = |figure| Requirement::at_least("f", "requests/s", figure, THROUGHPUT).level;
        assert_eq!(level(Some(200.0)), Level::Ok);
        assert_eq!(level(Some(199.9)), Level::Missed);
        assert_eq!(level(Some(150.0)), Level::Alert);
        assert_eq!(level(Some(100.0)), Level::Critical);
        assert_eq!(level(None), Level::NoData);
    }

    #[test]
    fn a_floor_without_steps_is_critical_as_soon_as_it_is_missed() {
        let floor = Thresholds::new(50.0, 50.0, 50.0);
        let level = |figure| Requirement::at_least("f", "requests/s", Some(figure), floor).level;
        assert_eq!(level(50.0), Level::Ok);
        assert_eq!(level(49.9), Level::Critical);
    }

    #[test]
    fn failures_are_named_by_requirement_and_by_component() {
        let good = Requirement::below("p50_latency", "ms", Some(1.0), LATENCY);
        let bad = Requirement::below("p99_latency", "ms", Some(70.0), LATENCY);
        let few = good.clone().not_enough("needs 20".to_owned());
        let none = Requirement::at_least("target_throughput", "requests/s", None, THROUGHPUT);
        let verdict = Verdict::over([
            CheckResult::of("latency", vec![good.clone(), bad, few]),
            CheckResult::of("errors", vec![good]),
            CheckResult::of("throughput", vec![none]),
        ]);
        assert!(!verdict.overall_validation_passed);
        assert_eq!(verdict.failed_components, ["latency", "throughput"]);
        assert_eq!(verdict.checks[0].failed_requirements, ["p99_latency", "p50_latency"]);
        assert_eq!(verdict.checks[2].failed_requirements, ["no_data"]);
    }
}
