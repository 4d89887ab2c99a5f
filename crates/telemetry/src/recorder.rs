//! What is recorded: one cell a series, which all its handles share.
//!
//! The well-known exporter of the `metrics` facade forgets a series only where it was quiet for some time, held or not, and
//! keeps each observation of a histogram by itself until somebody folds it. Here a series of a variant goes once nobody
//! holds a handle on it, so that a server that is given a new version every hour does not show a year of them; and an
//! observation is counted in its bucket at once.

use crate::names::{self, Kind, Metric};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long counters of a variant are kept that nobody counts on any more: any scrape comes by in that time.
pub(crate) const KEPT: Duration = Duration::from_mins(10);

/// All series. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Record(Arc<Mutex<Vec<Family>>>);

/// The series of one metric, by the values of its labels, in the order in which the metric declares them.
#[derive(Debug)]
pub(crate) struct Family {
    pub metric: &'static Metric,
    pub series: BTreeMap<Vec<String>, Series>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub cell: Cell,
    /// Since when nobody was found to hold a handle on it.
    unheld: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// A counter's value, or the bits of a gauge's.
    Number(Arc<AtomicU64>),
    Distribution(Arc<Distribution>),
}

/// How many observations fell into which bucket.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub edges: &'static [f64],
    /// One for each edge, and one for what lies beyond the last.
    pub counts: Box<[AtomicU64]>,
    /// The bits of the sum of all observations.
    sum: AtomicU64,
}

impl Record {
    pub(crate) fn new() -> Self {
        let families = names::ALL.iter().map(|metric| Family { metric, series: BTreeMap::new() });
        Self(Arc::new(Mutex::new(families.collect())))
    }

    /// Has `look` see all series, in the order of their declarations. Nobody registers meanwhile; recording goes on.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&[Family]) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets series whose subjects are gone: see [`Series::is_over`].
    pub(crate) fn forget(&self, now: Instant) {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Family { metric, series } in families.iter_mut() {
            series.retain(|_, series| !series.is_over(metric, now));
        }
    }

    /// The cell of the series that `key` names; none if no metric of that name and kind is declared, with these labels.
    fn cell(&self, key: &Key, kind: fn(Kind) -> bool) -> Option<Cell> {
        let mut families = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Family { metric, series } = families.iter_mut().find(|family| family.metric.name == key.name())?;
        let value = |label: &&str| key.labels().find(|of| of.key() == *label).map(|of| of.value().to_owned());
        let values: Vec<String> = metric.labels.iter().map(value).collect::<Option<_>>()?;
        if !kind(metric.kind) || key.labels().len() != values.len() {
            return None;
        }
        let series = series.entry(values).or_insert_with(|| Series { cell: Cell::new(metric), unheld: None });
        series.unheld = None;
        Some(series.cell.clone())
    }
}

impl Series {
    /// Whether nobody holds a handle on it and it is a gauge that says so itself, or it counted for a variant, [`KEPT`] ago.
    ///
    /// What is not a variant's stays: there is little of it, and it may be recorded without a handle that lasts.
    fn is_over(&mut self, metric: &Metric, now: Instant) -> bool {
        if self.cell.is_held() {
            self.unheld = None;
            return false;
        }
        let unheld = *self.unheld.get_or_insert(now);
        match &self.cell {
            Cell::Number(value) if metric.kind == Kind::Gauge => gauge(value).is_nan(),
            _ => metric.labels.contains(&"version") && now.saturating_duration_since(unheld) >= KEPT,
        }
    }
}

impl Cell {
    fn new(metric: &Metric) -> Self {
        match metric.kind {
            // One of many is not there before it is set; the others count from zero.
            Kind::Gauge if !metric.labels.is_empty() => Self::Number(Arc::new(f64::NAN.to_bits().into())),
            Kind::Counter | Kind::Gauge => Self::Number(Arc::default()),
            Kind::Histogram(edges) => {
                let counts = (0..=edges.len()).map(|_| AtomicU64::new(0)).collect();
                Self::Distribution(Arc::new(Distribution { edges, counts, sum: AtomicU64::default() }))
            }
        }
    }

    /// Whether anybody but the record has it.
    fn is_held(&self) -> bool {
        let holders = match self {
            Self::Number(value) => Arc::strong_count(value),
            Self::Distribution(distribution) => Arc::strong_count(distribution),
        };
        holders > 1
    }
}

/// What a gauge's cell holds.
pub(crate) fn gauge(value: &AtomicU64) -> f64 {
    f64::from_bits(value.load(Ordering::Relaxed))
}

impl Distribution {
    pub(crate) fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        // An edge belongs to the bucket below it.
        let bucket = self.edges.partition_point(|edge| *edge < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// Registers what is declared in [`names`], and nothing else: a handle on another metric does nothing.
impl Recorder for Record {
    // Units and helps are declared, too.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.cell(key, |kind| kind == Kind::Counter) {
            Some(Cell::Number(value)) => Counter::from_arc(value),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.cell(key, |kind| kind == Kind::Gauge) {
            Some(Cell::Number(value)) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.cell(key, |kind| matches!(kind, Kind::Histogram(_))) {
            Some(Cell::Distribution(distribution)) => Histogram::from_arc(distribution),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_whose_subject_is_gone_takes_no_room() {
        let (record, now) = (Record::new(), Instant::now());
        metrics::with_local_recorder(&record, || {
            let gauge = names::ROW_LIMIT.gauge(&["net", "1", "int8"]);
            gauge.set(f64::NAN);
            record.forget(now);
            assert_eq!(
                record.with(|families| families.iter().map(|family| family.series.len()).sum::<usize>()),
                1,
                "held"
            );
        });
        record.forget(now);
        assert!(record.with(|families| families.iter().all(|family| family.series.is_empty())));
    }
}
