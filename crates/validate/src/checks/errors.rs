//! `error_rate`.

use crate::load::Measurement;
use crate::profile::Profile;
use crate::verdict::{CheckResult, Requirement};

/// Requests without which an error rate below `target` is not claimed, even when none failed.
///
/// The rule of three (Hanley and Lippman-Hand, 1983): no failure among n requests shows a rate below 3/n
/// with 95 % confidence. 300 requests for a target of 1 %.
#[must_use]
pub fn requests_needed(target: f64) -> u64 {
    (3.0 / target).ceil() as u64
}

/// Judges the share of failed requests: refused, broken, given up, answered with an error, or answered
/// with something else than the model's metadata promises.
#[must_use]
pub fn judge(measured: &Measurement, profile: &Profile) -> CheckResult {
    let thresholds = profile.error_rate;
    let requirement = Requirement::below("error_rate", "fraction", measured.error_rate(), thresholds);
    let needed = requests_needed(thresholds.target);
    let requirement = if requirement.passed && measured.offered < needed {
        let offered = measured.offered;
        requirement.not_enough(format!("{offered} requests, {needed} needed: run longer"))
    } else {
        requirement
    };
    CheckResult::of("errors", vec![requirement])
}
