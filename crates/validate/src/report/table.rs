//! The report as a table for people.

use std::fmt;
use std::time::Duration;

use super::{Report, milliseconds};
use crate::histogram::LatencyHistogram;
use crate::load::{Arrivals, Load, Measurement};
use crate::verdict::{Requirement, Verdict};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_load(f, self)?;
        write_latency(f, &self.measured.latency)?;
        write_costs(f, &self.measured)?;
        write_failures(f, &self.measured)?;
        write_verdict(f, &self.verdict)?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

fn write_load(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(f, "{}", report.target)?;
    let (warmup, duration) = (report.load.warmup(), report.load.duration());
    let measured = &report.measured;
    match &report.load {
        Load::Open(open) => {
            let arrivals = match open.arrivals {
                Arrivals::Constant { .. } => "constant",
                Arrivals::Poisson { .. } => "poisson",
                Arrivals::Trace(_) => "replayed",
            };
            let rate = open.nominal_rate();
            write!(f, "open loop, {arrivals} arrivals at {rate:.1} requests/s")?;
        }
        Load::Closed(closed) => write!(f, "closed loop, {} connections", closed.connections)?,
    }
    writeln!(f, " for {duration:?} after {warmup:?} of warm-up")?;
    writeln!(
        f,
        "{:.1} requests/s answered; {} offered, {} completed, {} failed\n",
        measured.requests_per_second(),
        measured.offered,
        measured.completed,
        measured.failures.total(),
    )
}

fn write_latency(f: &mut fmt::Formatter<'_>, latency: &LatencyHistogram) -> fmt::Result {
    write!(f, "latency")?;
    for (name, value) in [
        ("min", latency.min()),
        ("p50", latency.quantile(0.50)),
        ("p90", latency.quantile(0.90)),
        ("p95", latency.quantile(0.95)),
        ("p99", latency.quantile(0.99)),
        ("p99.9", latency.quantile(0.999)),
        ("max", latency.max()),
    ] {
        match value {
            Some(value) => write!(f, "  {name} {:.2} ms", milliseconds(value))?,
            None => write!(f, "  {name} -")?,
        }
    }
    writeln!(f)
}

fn write_costs(f: &mut fmt::Formatter<'_>, measured: &Measurement) -> fmt::Result {
    let generator = measured.generator;
    write!(
        f,
        "generator  {:.0} % of a core, {} a request, {} connections",
        generator.busy_cores * 100.0,
        per_request(generator.cpu_per_request),
        measured.connections,
    )?;
    if let (Some(p99), Some(max)) = (measured.slip.quantile(0.99), measured.slip.max()) {
        let (p99, max) = (milliseconds(p99), milliseconds(max));
        write!(f, ", late by {p99:.2} ms at p99, {max:.2} ms at most")?;
    }
    writeln!(f)?;
    if let Some(server) = measured.server {
        writeln!(
            f,
            "server     {:.0} % of a core, {} a request, {:.1} MB resident",
            server.busy_cores * 100.0,
            per_request(server.cpu_per_request),
            server.resident_bytes as f64 / 1e6,
        )?;
    }
    Ok(())
}

fn write_failures(f: &mut fmt::Formatter<'_>, measured: &Measurement) -> fmt::Result {
    for (kind, failures) in measured.failures.iter() {
        let (count, message) = (failures.count, &failures.first_message);
        writeln!(f, "failed     {count} x {kind}, the first: {message}")?;
    }
    Ok(())
}

fn write_verdict(f: &mut fmt::Formatter<'_>, verdict: &Verdict) -> fmt::Result {
    writeln!(
        f,
        "\n{:<18} {:>10} {:>10} {:>10} {:>10}  {:<10} level",
        "requirement", "measured", "target", "alert", "critical", "unit"
    )?;
    for check in &verdict.checks {
        for requirement in &check.requirements {
            write_requirement(f, requirement)?;
        }
    }
    if verdict.overall_validation_passed {
        writeln!(f, "\nPASSED")
    } else {
        writeln!(f, "\nFAILED: {}", verdict.failed_components.join(", "))
    }
}

fn write_requirement(f: &mut fmt::Formatter<'_>, requirement: &Requirement) -> fmt::Result {
    let measured = requirement.measured.map_or_else(|| "-".to_owned(), shortest);
    let thresholds = requirement.thresholds;
    write!(
        f,
        "{:<18} {:>10} {:>10} {:>10} {:>10}  {:<10} {}",
        requirement.name,
        measured,
        shortest(thresholds.target),
        shortest(thresholds.alert),
        shortest(thresholds.critical),
        requirement.unit,
        requirement.level.name(),
    )?;
    match &requirement.note {
        Some(note) => writeln!(f, " ({note})"),
        None => writeln!(f),
    }
}

/// Two digits after the point, four for small shares, none for whole numbers.
fn shortest(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else if value.abs() < 0.1 {
        format!("{value:.4}")
    } else {
        format!("{value:.2}")
    }
}

fn per_request(cpu: Option<Duration>) -> String {
    cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{:.1} us", cpu.as_secs_f64() * 1e6))
}
