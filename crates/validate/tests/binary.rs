//! The binary as a script or a CI job sees it: exit status, standard output, standard error.

mod mock;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use mock::{Behaviour, Mock};
use serde_json::Value;

fn validate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volley-validate"))
        .args(["--distinct", "4", "--warmup", "100ms"])
        .args(arguments)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line of standard output, which scripts read.
fn last_line_json(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Writes `content` for the test of this `name` alone.
fn file(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Thresholds that any machine meets that answers at all, however slow it is.
const LENIENT: &str = "
p50_latency_ms = { target = 60000, alert = 60000, critical = 60000 }
p95_latency_ms = { target = 60000, alert = 60000, critical = 60000 }
p99_latency_ms = { target = 60000, alert = 60000, critical = 60000 }
max_latency_ms = { target = 60000, alert = 60000, critical = 60000 }
error_rate = { target = 0.99, alert = 0.99, critical = 0.99 }
target_throughput = { target = 1, alert = 1, critical = 1 }
min_throughput = 1
";

#[test]
fn a_run_that_keeps_the_profile_exits_with_0_and_puts_every_figure_on_the_last_line() {
    let server = Mock::start(Behaviour::Answer);
    let profile = file("lenient.toml", LENIENT);
    let output = validate(&[
        "--url",
        &server.url(),
        "--model",
        "cnn_lstm",
        "sla",
        "--rate",
        "1500",
        "--arrivals",
        "constant",
        "--duration",
        "1s",
        "--profile",
        profile.to_str().unwrap(),
        "--server-pid",
        &std::process::id().to_string(),
        "--json",
        "-",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = last_line_json(&output);
    let figures = [
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "max_ms",
        "error_rate",
        "requests_per_second",
        "offered",
        "completed",
        "validation_passed",
    ];
    for name in figures {
        assert!(report[name].is_number(), "{name} in {report}");
    }
    assert_eq!(report["validation_passed"], 1);
    assert_eq!(report["offered"], 1500);
    assert_eq!(report["completed"], 1500);
    assert_eq!(report["overall_validation_passed"], true);
    assert_eq!(report["failed_components"], Value::Array(vec![]));
    assert!(report["server"]["rss_mb"].as_f64().unwrap() > 0.0);
    assert!(report["generator"]["cpu_us_per_request"].is_number());
    assert!(stderr(&output).contains("PASSED"));
}

#[test]
fn a_run_that_misses_the_profile_exits_with_1_and_names_what_failed() {
    let server = Mock::start(Behaviour::Status(503));
    let output = validate(&["--url", &server.url(), "sla", "--duration", "200ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("FAILED: latency, errors, throughput"), "{table}");
    assert!(table.contains("x status_503"), "{table}");
}

#[test]
fn saturation_reports_throughput_to_a_file_and_keeps_the_table() {
    let server = Mock::start(Behaviour::Answer);
    let profile = file("lenient-saturate.toml", LENIENT);
    let json = file("saturate.json", "");
    let output = validate(&[
        "saturate",
        "--url",
        &server.url(),
        "--connections",
        "2",
        "--duration",
        "1s",
        "--profile",
        profile.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("closed loop, 2 connections"));
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(report["requests_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(report["server"], Value::Null);
}

#[test]
fn a_trace_is_replayed_request_by_request() {
    let server = Mock::start(Behaviour::Answer);
    let trace = file("trace.txt", "# warm-up\n0\n0.05\n# measured\n0.1\n0.1\n0.15\n");
    let output = validate(&["--url", &server.url(), "sla", "--trace", trace.to_str().unwrap(), "--json", "-"]);
    // Five requests show nothing about a percentile.
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(server.arrived("cnn_lstm"), 5);
    let report = last_line_json(&output);
    assert_eq!(report["offered"], 3);
    assert_eq!(report["checks"][0]["requirements"][2]["level"], "not_enough");
}

#[test]
fn a_run_that_cannot_be_made_exits_with_2_and_says_what_would_be_right() {
    let server = Mock::start(Behaviour::Answer);
    let url = server.url();
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let typo = file("typo.toml", "p98_latency_ms = 5");
    let typo = typo.to_str().unwrap();
    let backwards = file("backwards.txt", "2\n1\n");
    let backwards = backwards.to_str().unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["--url", &nobody, "sla"], "start the server first"),
        (&["--url", "https://localhost", "sla"], "only http:// is spoken"),
        (&["--url", &url, "--model", "unknown", "sla"], "unknown model"),
        (&["--url", &url, "sla", "--rate", "-5"], "rate '-5'"),
        (&["--url", &url, "sla", "--duration", "1d"], "us, ms, s, m and h"),
        (&["--url", &url, "--profile", typo, "sla"], "p98_latency_ms"),
        (&["--url", &url, "sla", "--trace", backwards], "line 2"),
        (&["--url", &url, "sla", "--server-pid", "4294967295"], "4294967295"),
        (&["--url", &url], "Usage"),
    ];
    for (arguments, expected) in cases {
        let output = validate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = stderr(&output);
        assert!(message.contains(expected), "{arguments:?} should say '{expected}', not '{message}'");
    }
    assert_eq!(server.arrived("cnn_lstm"), 0);
}

#[test]
fn a_server_that_asks_for_a_key_is_told_the_one_of_the_environment_or_the_command_line() {
    let server = Mock::start(Behaviour::Keyed("open-sesame"));
    let profile = file("keyed.toml", LENIENT);
    let run = |options: &[&str], key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volley-validate"));
        command
            .args(["--distinct", "4", "--warmup", "0s", "--url", &server.url()])
            .args(options)
            .env("VALIDATE_KEY", key);
        command.args(["--profile", profile.to_str().unwrap(), "sla", "--rate", "1500", "--duration", "1s"]);
        command.output().unwrap()
    };
    for (options, key) in [(&[][..], "open-sesame"), (&["--key", "open-sesame"], "another")] {
        let output = run(options, key);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let refused = run(&[], "another");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("who are you?") && !stderr(&refused).contains("another"), "{}", stderr(&refused));
}
