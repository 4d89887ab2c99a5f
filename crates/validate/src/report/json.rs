//! The report as one JSON object.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Report, milliseconds};
use crate::histogram::LatencyHistogram;
use crate::load::{Arrivals, Load};

pub(super) fn render(report: &Report) -> Value {
    let measured = &report.measured;
    let latency = &measured.latency;
    let quantile = |q| figure(latency.quantile(q).map(milliseconds));
    json!({
        "p50_ms": quantile(0.50),
        "p95_ms": quantile(0.95),
        "p99_ms": quantile(0.99),
        "max_ms": figure(latency.max().map(milliseconds)),
        "error_rate": figure(measured.error_rate()),
        "requests_per_second": figure(Some(measured.requests_per_second())),
        "offered": measured.offered,
        "completed": measured.completed,
        "validation_passed": u8::from(report.passed()),
        "overall_validation_passed": report.verdict.overall_validation_passed,
        "failed_components": report.verdict.failed_components,
        "checks": report.verdict.checks,
        "target": report.target.to_string(),
        "load": load_json(&report.load),
        "latency_ms": distribution(latency),
        "refusal_ms": distribution(&measured.refusals),
        "refusals_without_retry_after": measured.refusals_without_retry_after,
        "failures": measured.failures.iter().map(|(kind, failures)| json!({
            "kind": kind.to_string(),
            "count": failures.count,
            "first_message": failures.first_message,
        })).collect::<Vec<_>>(),
        "generator": {
            "busy_cores": figure(Some(measured.generator.busy_cores)),
            "cpu_us_per_request": figure(measured.generator.cpu_per_request.map(microseconds)),
            "slip_ms": distribution(&measured.slip),
            "connections": measured.connections,
            "waited_for_connection": measured.waited_for_connection,
        },
        "server": measured.server.map(|server| json!({
            "pid": server.pid,
            "busy_cores": figure(Some(server.busy_cores)),
            "cpu_s": figure(Some(server.cpu.as_secs_f64())),
            "cpu_us_per_request": figure(server.cpu_per_request.map(microseconds)),
            "rss_mb": figure(Some(server.resident_bytes as f64 / 1e6)),
        })),
        "notes": report.notes,
    })
}

fn load_json(load: &Load) -> Value {
    let warmup_s = load.warmup().as_secs_f64();
    let duration_s = load.duration().as_secs_f64();
    match load {
        Load::Closed(closed) => json!({
            "mode": "closed",
            "connections": closed.connections,
            "warmup_s": warmup_s,
            "duration_s": duration_s,
        }),
        Load::Open(open) => {
            let (arrivals, seed) = match &open.arrivals {
                Arrivals::Constant { .. } => ("constant", None),
                Arrivals::Poisson { seed, .. } => ("poisson", Some(seed)),
                Arrivals::Trace(_) => ("trace", None),
            };
            json!({
                "mode": "open",
                "arrivals": arrivals,
                "seed": seed,
                "rate": figure(Some(open.nominal_rate())),
                "max_connections": open.max_connections,
                "warmup_s": warmup_s,
                "duration_s": duration_s,
            })
        }
    }
}

fn distribution(of: &LatencyHistogram) -> Value {
    let quantile = |q| figure(of.quantile(q).map(milliseconds));
    json!({
        "samples": of.len(),
        "min": figure(of.min().map(milliseconds)),
        "mean": figure(of.mean().map(milliseconds)),
        "p50": quantile(0.50),
        "p90": quantile(0.90),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "p999": quantile(0.999),
        "max": figure(of.max().map(milliseconds)),
    })
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// To a ten-thousandth: more digits would claim more than was measured. Small shares keep theirs.
fn figure(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| {
        let rounded = (value * 1e4).round() / 1e4;
        json!(if rounded == 0.0 { value } else { rounded })
    })
}
