//! The Prometheus exposition of what is recorded: its text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use crate::names::{Kind, Metric};
use crate::recorder::{Cell, Distribution, Family, Record, gauge};
use metrics::Recorder;
use std::fmt::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Renders what was recorded, as the text that Prometheus scrapes. Clones share the same record.
///
/// It records what [`names`](crate::names) declares. A program with metrics of its own installs an exporter of its own,
/// and tells it of these with [`describe_all`](crate::names::describe_all).
#[derive(Debug, Clone)]
pub struct Exporter(Record);

/// Another recorder was installed in this process before.
#[derive(Debug, thiserror::Error)]
#[error(
    "a metrics recorder is already installed in this process; install one, once, before the first metric is registered"
)]
pub struct InstallError(());

impl Exporter {
    /// Records for the whole process from now on. Handles that were registered before stay without effect.
    ///
    /// # Errors
    ///
    /// If the process has a recorder already.
    pub fn install() -> Result<Self, InstallError> {
        let record = Record::new();
        metrics::set_global_recorder(record.clone()).map_err(|_| InstallError(()))?;
        Ok(Self(record))
    }

    /// A recorder that is not the process's, and its exporter: for tests, and for a program that keeps a record apart.
    /// Use it through [`metrics::with_local_recorder`].
    #[must_use]
    pub fn apart() -> (impl Recorder + 'static, Self) {
        let record = Record::new();
        (record.clone(), Self(record))
    }

    /// The exposition, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.with(|families| {
            fmt::from_fn(|f| families.iter().try_for_each(|family| write_family(f, family))).to_string()
        })
    }

    /// Forgets the series of variants that are gone: gauges at once; counters and histograms ten minutes after it was first
    /// called without anybody holding a handle on them, so that their last values are scraped. Call it now and then, with
    /// the time: memory and exposition grow with each version that is loaded, else.
    pub fn forget_gone(&self, now: Instant) {
        self.0.forget(now);
    }
}

fn write_family(text: &mut fmt::Formatter<'_>, Family { metric, series }: &Family) -> fmt::Result {
    let Metric { name, help, labels, .. } = metric;
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    let mut said = false;
    for (values, series) in series {
        if let Cell::Number(value) = &series.cell
            && metric.kind == Kind::Gauge
            && gauge(value).is_nan()
        {
            continue;
        }
        if !said {
            writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false))?;
            said = true;
        }
        let of = LabelSet { labels, values };
        match &series.cell {
            Cell::Number(value) if metric.kind == Kind::Gauge => writeln!(text, "{name}{of} {}", Float(gauge(value)))?,
            Cell::Number(value) => writeln!(text, "{name}{of} {}", value.load(Ordering::Relaxed))?,
            Cell::Distribution(distribution) => write_distribution(text, name, &of, distribution)?,
        }
    }
    Ok(())
}

fn write_distribution(
    text: &mut fmt::Formatter<'_>,
    name: &str,
    of: &LabelSet<'_>,
    distribution: &Distribution,
) -> fmt::Result {
    let mut within = 0;
    let edges = distribution.edges.iter().copied().chain([f64::INFINITY]);
    for (edge, count) in edges.zip(&distribution.counts) {
        within += count.load(Ordering::Relaxed);
        write!(text, "{name}_bucket{{")?;
        of.write_pairs(text)?;
        let comma = if of.labels.is_empty() { "" } else { "," };
        writeln!(text, "{comma}le=\"{}\"}} {within}", Float(edge))?;
    }
    writeln!(text, "{name}_sum{of} {}\n{name}_count{of} {within}", Float(distribution.sum()))
}

/// A number as the format has it.
struct Float(f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            finite => finite.fmt(f),
        }
    }
}

/// The labels of one series, each with its value.
struct LabelSet<'a> {
    labels: &'a [&'a str],
    values: &'a [String],
}

impl LabelSet<'_> {
    fn write_pairs(&self, to: &mut impl Write) -> fmt::Result {
        for (nth, (label, value)) in self.labels.iter().zip(self.values).enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            write!(to, "{comma}{label}=\"{}\"", escaped(value, true))?;
        }
        Ok(())
    }
}

impl fmt::Display for LabelSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels.is_empty() {
            return Ok(());
        }
        f.write_char('{')?;
        self.write_pairs(f)?;
        f.write_char('}')
    }
}

/// As the format has it: line feeds and backslashes are escaped, and within quotes those as well.
fn escaped(text: &str, quoted: bool) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        text.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '"' if quoted => f.write_str("\\\""),
            other => f.write_char(other),
        })
    })
}
