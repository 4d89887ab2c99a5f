//! Load on a real socket. No test asserts how fast anything is, only what must be so however slow it is.

mod mock;

use std::num::NonZeroUsize;
use std::time::Duration;

use mock::{Behaviour, Mock};
use volley_validate::failure::FailureKind;
use volley_validate::load::{self, Arrivals, ClosedLoop, Load, Measurement, OpenLoop, Rate, Trace};
use volley_validate::protocol::{Encoding, RequestOptions};
use volley_validate::subject::{Subject, SubjectError};
use volley_validate::target::Target;

async fn subject(server: &Mock, model: &str) -> Subject {
    let target = Target::new(&server.url(), model).unwrap();
    let options = RequestOptions { distinct: NonZeroUsize::new(4).unwrap(), ..RequestOptions::default() };
    Subject::reach(target, &options).await.unwrap()
}

fn constant(rate: f64, milliseconds: u64, max_connections: usize) -> Load {
    Load::Open(OpenLoop {
        arrivals: Arrivals::Constant { rate: Rate::new(rate).unwrap() },
        warmup: Duration::ZERO,
        duration: Duration::from_millis(milliseconds),
        max_connections: NonZeroUsize::new(max_connections).unwrap(),
    })
}

fn closed(connections: usize, milliseconds: u64) -> Load {
    Load::Closed(ClosedLoop {
        connections: NonZeroUsize::new(connections).unwrap(),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(milliseconds),
    })
}

async fn measure(subject: &Subject, load: &Load) -> Measurement {
    load::run(subject, load, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_stall_shows_in_every_request_that_was_due_during_it_and_not_only_in_those_under_way() {
    // The server stalls until the driver's 40th request, due 195 ms after its start and never sent before.
    let server = Mock::start(Behaviour::StallUntilDriven(40));
    let open = subject(&server, "open").await;
    let looped = subject(&server, "looped").await;
    let driver = subject(&server, "driver").await;
    let (open_load, closed_load) = (constant(200.0, 300, 1), closed(1, 300));
    let driver_load = constant(200.0, 300, 64);
    // Polled in this order, so neither of the first two can begin after the driver.
    let (open, looped, driver) =
        tokio::join!(measure(&open, &open_load), measure(&looped, &closed_load), measure(&driver, &driver_load),);

    // One connection, one request on the wire: the closed loop had one sample of the stall, and stopped
    // asking until it was over.
    assert_eq!(server.arrived_during_stall("looped"), 1);
    // The open loop had no more than one on the wire either, but a request was due every 5 ms. The one due
    // k times 5 ms after the start waited at least 195 - 5k ms, so those of k < 19 for more than 100 ms.
    assert_eq!(server.arrived_during_stall("open"), 1);
    let stalled = Duration::from_millis(100);
    assert!(open.latency.count_above(stalled) >= 19);
    assert!(open.latency.max().unwrap() >= Duration::from_millis(194));
    assert!(open.waited_for_connection >= 19);
    // With connections enough nothing waits for one, and the latencies show the stall just the same.
    assert!(driver.latency.count_above(stalled) >= 19);
    assert_eq!(driver.waited_for_connection, 0);
    for measured in [&open, &looped, &driver] {
        assert_eq!(measured.completed, measured.offered);
        assert_eq!(measured.failures.total(), 0);
    }
}

#[tokio::test]
async fn an_open_loop_offers_exactly_its_schedule_and_leaves_the_warm_up_out() {
    let server = Mock::start(Behaviour::Answer);
    let arrivals = Arrivals::Poisson { rate: Rate::new(500.0).unwrap(), seed: 3 };
    let (warmup, duration) = (Duration::from_millis(100), Duration::from_millis(200));
    let schedule: Vec<_> = arrivals.schedule(warmup + duration).collect();
    let due_in_window = schedule.iter().filter(|at| **at >= warmup).count();
    let load = Load::Open(OpenLoop { arrivals, warmup, duration, max_connections: NonZeroUsize::new(256).unwrap() });
    let measured = measure(&subject(&server, "m").await, &load).await;
    assert_eq!(server.arrived("m"), schedule.len());
    assert_eq!(measured.offered, due_in_window as u64);
    assert_eq!(measured.completed, measured.offered);
    assert_eq!(measured.latency.len(), measured.offered);
    assert_eq!(measured.slip.len(), measured.offered);
}

#[tokio::test]
async fn json_travels_as_well_as_binary() {
    let server = Mock::start(Behaviour::Answer);
    let options = RequestOptions {
        encoding: Encoding::Json,
        distinct: NonZeroUsize::new(2).unwrap(),
        ..RequestOptions::default()
    };
    let target = Target::new(&server.url(), "m").unwrap();
    let subject = Subject::reach(target, &options).await.unwrap();
    let measured = measure(&subject, &closed(2, 100)).await;
    assert!(measured.offered > 0);
    assert_eq!(measured.completed, measured.offered);
}

#[tokio::test]
async fn a_malformed_reply_is_a_failure_that_says_what_is_wrong() {
    let bodies = [
        ("", "JSON part does not parse"),
        ("{}", "missing field `outputs`"),
        (r#"{"outputs":[]}"#, "output 'features' is missing"),
        (
            r#"{"outputs":[{"name":"features","datatype":"FP32","shape":[1,127],"data":[]}]}"#,
            "shape [1, 127], not [1, 128]",
        ),
    ];
    for (body, expected) in bodies {
        let server = Mock::start(Behaviour::Body(body));
        let measured = measure(&subject(&server, "m").await, &closed(1, 30)).await;
        let (kind, failures) = measured.failures.iter().next().unwrap();
        assert_eq!(kind, FailureKind::MalformedReply);
        assert!(failures.first_message.contains(expected), "'{}' should say '{expected}'", failures.first_message);
        assert_eq!(failures.count, measured.offered);
        assert_eq!(measured.completed, 0);
        assert!(measured.latency.is_empty());
    }
}

#[tokio::test]
async fn a_refusal_is_counted_by_its_status_with_what_the_server_said() {
    // The mock says when to come back with 429 alone.
    for (status, without_retry_after) in [(503, 10), (429, 0)] {
        let server = Mock::start(Behaviour::Status(status));
        let measured = measure(&subject(&server, "m").await, &constant(200.0, 50, 8)).await;
        assert_eq!(measured.failures.count(FailureKind::Status(status)), 10);
        let (_, failures) = measured.failures.iter().next().unwrap();
        assert!(failures.first_message.contains("told to refuse"));
        assert_eq!(measured.error_rate(), Some(1.0));
        assert_eq!((measured.refusals.len(), measured.refusals_without_retry_after), (10, without_retry_after));
    }
}

#[tokio::test]
async fn a_broken_connection_fails_its_request_and_the_next_one_gets_a_new_connection() {
    let server = Mock::start(Behaviour::HangUpOnEverySecond);
    let measured = measure(&subject(&server, "m").await, &closed(1, 100)).await;
    let broken = measured.failures.count(FailureKind::Disconnected);
    assert_eq!(broken, measured.offered / 2);
    assert_eq!(measured.completed, measured.offered - broken);
    assert_eq!(server.arrived("m") as u64, measured.offered);
}

#[tokio::test]
async fn a_server_that_closes_after_each_reply_breaks_nothing() {
    let server = Mock::start(Behaviour::AnswerAndClose);
    let subject = subject(&server, "m").await;
    for load in [closed(2, 50), constant(500.0, 50, 4)] {
        let measured = measure(&subject, &load).await;
        assert!(measured.offered > 0);
        assert_eq!(measured.failures.total(), 0);
        assert_eq!(measured.completed, measured.offered);
    }
}

#[tokio::test]
async fn a_request_without_a_reply_is_given_up_after_the_patience_and_counts_as_that_slow() {
    let server = Mock::start(Behaviour::Silence);
    let patience = Duration::from_millis(40);
    let subject = subject(&server, "m").await.with_patience(patience);
    let all_at_once: Trace = "0\n".repeat(50).parse().unwrap();
    let load = Load::Open(OpenLoop {
        arrivals: Arrivals::Trace(all_at_once),
        warmup: Duration::ZERO,
        duration: Duration::from_millis(10),
        max_connections: NonZeroUsize::new(2).unwrap(),
    });
    let measured = measure(&subject, &load).await;
    assert_eq!(measured.offered, 50);
    assert_eq!(measured.failures.count(FailureKind::Timeout), 50);
    assert_eq!(measured.latency.len(), 50);
    assert_eq!(measured.latency.count_above(patience / 2), 50);
    // Requests whose patience ended while they waited for a connection were never sent.
    assert_eq!(measured.connections, 2);
    assert!(server.arrived("m") <= 2);
}

#[tokio::test]
async fn a_model_the_server_does_not_know_is_told_before_any_load() {
    let server = Mock::start(Behaviour::Answer);
    let target = Target::new(&server.url(), "unknown").unwrap();
    let error = Subject::reach(target, &RequestOptions::default()).await.unwrap_err();
    assert!(matches!(error, SubjectError::Refused { .. }));
    assert!(!error.is_unreachable());
    let message = error.to_string();
    assert!(message.contains("/v2/models/unknown"), "{message}");
    assert!(message.contains("unknown model"), "{message}");
}

#[tokio::test]
async fn the_cost_of_a_watched_server_is_reported() {
    let server = Mock::start(Behaviour::Answer);
    let subject = subject(&server, "m").await;
    let watched = subject.clone().with_process(std::process::id()).unwrap();
    let measured = measure(&watched, &closed(1, 50)).await;
    let usage = measured.server.unwrap();
    assert_eq!(usage.pid, std::process::id());
    assert!(usage.resident_bytes > 0);
    assert!(measured.generator.busy_cores > 0.0);
    assert!(subject.with_process(u32::MAX).is_err());
}
