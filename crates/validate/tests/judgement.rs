//! Checks against cases worked out by hand.

use std::num::NonZeroUsize;
use std::time::Duration;

use volley_validate::checks::{errors, latency, throughput};
use volley_validate::failure::Failures;
use volley_validate::histogram::LatencyHistogram;
use volley_validate::load::{Arrivals, ClosedLoop, GeneratorUsage, Load, Measurement, OpenLoop, Rate};
use volley_validate::profile::Profile;
use volley_validate::verdict::{CheckResult, Level, Requirement};

/// A minute in which `completed` of `offered` requests were answered, each within a millisecond.
fn minute(offered: u64, completed: u64) -> Measurement {
    let mut latency = LatencyHistogram::new();
    (0..completed).for_each(|_| latency.record(Duration::from_millis(1)));
    Measurement {
        duration: Duration::from_secs(60),
        offered,
        completed,
        failures: Failures::default(),
        answered_in_window: completed,
        latency,
        refusals: LatencyHistogram::new(),
        refusals_without_retry_after: 0,
        overrun: LatencyHistogram::new(),
        slip: LatencyHistogram::new(),
        waited_for_connection: 0,
        connections: 1,
        generator: GeneratorUsage { busy_cores: 0.0, cpu_per_request: None },
        server: None,
    }
}

fn with_latencies(milliseconds: impl IntoIterator<Item = u64>) -> Measurement {
    let mut latency = LatencyHistogram::new();
    for ms in milliseconds {
        latency.record(Duration::from_millis(ms));
    }
    Measurement { offered: latency.len(), completed: latency.len(), latency, ..minute(0, 0) }
}

fn open(rate: f64) -> Load {
    Load::Open(OpenLoop {
        arrivals: Arrivals::Poisson { rate: Rate::new(rate).unwrap(), seed: 1 },
        warmup: Duration::ZERO,
        duration: Duration::from_secs(60),
        max_connections: NonZeroUsize::MIN,
    })
}

fn closed() -> Load {
    Load::Closed(ClosedLoop {
        connections: NonZeroUsize::MIN,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(60),
    })
}

fn named<'a>(check: &'a CheckResult, name: &str) -> &'a Requirement {
    let mut requirements = check.requirements.iter();
    requirements.find(|r| r.name == name).unwrap()
}

fn level(check: &CheckResult, name: &str) -> Level {
    named(check, name).level
}

#[test]
fn each_percentile_is_held_against_its_own_thresholds() {
    // 1000 samples: 940 of 10 ms, 40 of 85 ms, 15 of 130 ms, 5 of 400 ms.
    let samples = [(10, 940), (85, 40), (130, 15), (400, 5)].into_iter().flat_map(|(ms, count)| vec![ms; count]);
    let check = latency::judge(&with_latencies(samples), &Profile::default());
    assert_eq!(level(&check, "p50_latency"), Level::Ok);
    assert_eq!(level(&check, "p95_latency"), Level::Missed);
    assert_eq!(level(&check, "p99_latency"), Level::Alert);
    assert_eq!(level(&check, "max_latency"), Level::Critical);
    assert_eq!(check.failed_requirements, ["p95_latency", "p99_latency", "max_latency"]);
    assert!(!check.validation_passed);
    let p95 = named(&check, "p95_latency").measured.unwrap();
    assert!((p95 - 85.0).abs() < 0.1, "{p95}");
}

#[test]
fn a_percentile_needs_ten_samples_beyond_it() {
    let judged = |count| latency::judge(&with_latencies(vec![1; count]), &Profile::default());
    assert_eq!(level(&judged(999), "p99_latency"), Level::NotEnough);
    assert_eq!(level(&judged(1000), "p99_latency"), Level::Ok);
    assert_eq!(level(&judged(199), "p95_latency"), Level::NotEnough);
    assert_eq!(level(&judged(200), "p95_latency"), Level::Ok);
    assert_eq!(level(&judged(19), "p50_latency"), Level::NotEnough);
    assert_eq!(level(&judged(20), "p50_latency"), Level::Ok);
    let few = judged(500);
    assert_eq!(few.failed_requirements, ["p99_latency"]);
    let note = named(&few, "p99_latency").note.as_deref().unwrap();
    assert_eq!(note, "500 samples, 1000 needed: run longer");
}

#[test]
fn without_a_single_good_reply_there_is_no_data_even_though_timeouts_took_their_time() {
    let timeouts_only = Measurement { completed: 0, ..with_latencies(vec![10_000; 2000]) };
    let check = latency::judge(&timeouts_only, &Profile::default());
    assert_eq!(check.failed_requirements, ["no_data"]);
    assert!(!check.validation_passed);
}

#[test]
fn no_failure_among_few_requests_shows_no_low_error_rate() {
    let judged = |offered| errors::judge(&minute(offered, offered), &Profile::default());
    assert_eq!(level(&judged(299), "error_rate"), Level::NotEnough);
    assert_eq!(level(&judged(300), "error_rate"), Level::Ok);
    assert_eq!(judged(0).failed_requirements, ["no_data"]);
}

#[test]
fn a_poisson_schedule_that_drew_fewer_arrivals_than_its_mean_still_shows_its_rate() {
    // 199.4/s were offered by a schedule of 200/s, and every one was answered.
    let check = throughput::judge(&minute(11_964, 11_964), &open(200.0), &Profile::default());
    assert!(check.validation_passed);
    assert_eq!(named(&check, "target_throughput").measured, Some(200.0), "the schedule's nominal rate was sustained");
}

#[test]
fn a_server_that_can_do_190_of_200_fails_although_it_answers_everything_in_the_end() {
    // The backlog after a minute is 600 requests; they are answered over the next 600/190 = 3.2 s.
    let mut behind = Measurement { answered_in_window: 11_400, ..minute(12_000, 12_000) };
    (1..=600).for_each(|n| behind.overrun.record(Duration::from_millis(n * 1000 / 190)));
    let check = throughput::judge(&behind, &open(200.0), &Profile::default());
    let target = named(&check, "target_throughput");
    assert_eq!(target.level, Level::Missed);
    assert_eq!(target.measured, Some(190.0));
    // The 19 answered within the grace of 100 ms are forgiven: 11419 of 12000.
    let note = target.note.as_deref().unwrap();
    assert_eq!(note, "kept up with 95.2 % of 200.0 requests/s offered");
    assert_eq!(level(&check, "min_throughput"), Level::Ok);
}

#[test]
fn a_server_swamped_by_far_more_than_the_target_is_credited_with_what_it_answered() {
    // 1000/s offered, 300/s answered, all of it backlog from the warm-up: none that was due in the window.
    let swamped = Measurement { answered_in_window: 18_000, ..minute(60_000, 0) };
    let check = throughput::judge(&swamped, &open(1000.0), &Profile::default());
    let target = named(&check, "target_throughput");
    assert_eq!((target.level, target.measured), (Level::Ok, Some(300.0)));
}

#[test]
fn requests_under_way_when_the_window_ends_are_no_backlog() {
    // 200/s at a latency of 90 ms: 18 requests are under way at the end of any window.
    let mut steady = minute(12_000, 12_000);
    (1..=18).for_each(|n| steady.overrun.record(Duration::from_millis(5 * n)));
    let check = throughput::judge(&steady, &open(200.0), &Profile::default());
    assert!(check.validation_passed);
}

#[test]
fn in_a_short_window_a_backlog_cannot_hide_in_the_grace() {
    // One second at 200/s, 96 % served: 8 are left over. 100 ms of grace would forgive them all.
    let mut short = Measurement { duration: Duration::from_secs(1), answered_in_window: 192, ..minute(200, 200) };
    (1..=8).for_each(|n| short.overrun.record(Duration::from_millis(n * 5 + 20)));
    let check = throughput::judge(&short, &open(200.0), &Profile::default());
    assert_eq!(level(&check, "target_throughput"), Level::Missed);
}

#[test]
fn failures_lower_the_throughput_once_they_pass_the_error_target() {
    let judged = |completed| {
        let check = throughput::judge(&minute(12_000, completed), &open(200.0), &Profile::default());
        named(&check, "target_throughput").level
    };
    assert_eq!(judged(11_881), Level::Ok);
    assert_eq!(judged(11_879), Level::Missed);
    assert_eq!(judged(8_900), Level::Alert);
    assert_eq!(judged(5_900), Level::Critical);
}

#[test]
fn a_schedule_below_the_target_cannot_show_it() {
    let check = throughput::judge(&minute(6_000, 6_000), &open(100.0), &Profile::default());
    assert_eq!(level(&check, "min_throughput"), Level::Ok);
    assert_eq!(level(&check, "target_throughput"), Level::NotEnough);
    let note = named(&check, "target_throughput").note.as_deref().unwrap();
    assert_eq!(note, "100.0 requests/s offered, 200 needed: raise the rate");
}

#[test]
fn a_closed_loop_is_judged_by_what_was_answered_within_the_window() {
    let judged = |answered| throughput::judge(&minute(answered, answered), &closed(), &Profile::default());
    assert!(judged(12_000).validation_passed);
    assert_eq!(level(&judged(11_999), "target_throughput"), Level::Missed);
    assert_eq!(level(&judged(2_999), "min_throughput"), Level::Critical);
    assert_eq!(judged(0).failed_requirements, ["no_data"]);
}
