//! Every metric once, as data: name, kind, unit, help and labels.
//!
//! Handles are made from these descriptions only, so a metric cannot be recorded under labels that are not declared
//! here. Label values come from configuration (models, versions, variants, devices) or from enums of this crate, never
//! from callers, so the number of series is bounded by what is deployed.
//!
//! # Requests, errors and failures
//!
//! [`REQUESTS`] counts each request that reached a model, when it ends, however it ends. [`ERRORS`] counts those of them
//! that the service failed. Both carry the same labels and both exist from the moment a model is registered, so
//!
//! ```text
//! rate(batch_processing_errors_total[5m]) / rate(batch_processing_requests_total[5m])
//! ```
//!
//! is the error rate of each series, without `on`, `ignoring` or `or vector(0)`: between 0 and 1, and not a number while
//! nothing is asked. The reason would break that were it a label of the errors, so it is the label of a counter of its
//! own, [`FAILURES`], which counts what the caller brought about as well (cancelled, invalid, over quota).
//!
//! [`LATENCY`] holds answered requests only: a refusal within microseconds would flatter the percentiles.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Unit};

/// What a metric's value does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size, up to each of these edges, which ascend.
    Histogram(&'static [f64]),
}

/// One metric as it is exposed.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The whole name, as scraped.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is counted in.
    pub unit: Unit,
    /// One sentence for whoever reads the exposition.
    pub help: &'static str,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

/// Edges for durations, in seconds: every latency figure of the service-level agreement (50, 60, 80, 90, 100, 120, 150,
/// 200, 250 and 300 ms), so that each is read off exactly, and finer ones below, down to 100 µs.
pub const SECONDS: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.09,
    0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.5,
];

/// Edges for rows in a batch: powers of two and, in between, halves of the way.
pub const ROWS: &[f64] =
    &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 192.0, 256.0, 512.0];

const MODEL: &[&str] = &["model", "version", "variant"];
const MODEL_AND_LANE: &[&str] = &["model", "version", "variant", "lane"];
const TIER: &[&str] = &["tier"];

/// Time from arrival to answer.
pub const LATENCY: Metric = Metric {
    name: "batch_processing_latency_seconds",
    kind: Kind::Histogram(SECONDS),
    unit: Unit::Seconds,
    help: "Time from the arrival of a request to its answer, of answered requests.",
    labels: MODEL_AND_LANE,
};

/// Requests that reached a model.
pub const REQUESTS: Metric = Metric {
    name: "batch_processing_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests that reached a model, counted when they end, however they end.",
    labels: MODEL_AND_LANE,
};

/// Requests that the service failed.
pub const ERRORS: Metric = Metric {
    name: "batch_processing_errors_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests among batch_processing_requests_total that the service failed; callers' own faults are not among them.",
    labels: MODEL_AND_LANE,
};

/// Requests without an answer, by reason.
pub const FAILURES: Metric = Metric {
    name: "batch_processing_failures_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests that reached a model and got no answer, by reason, callers' own faults included.",
    labels: &["model", "version", "variant", "reason"],
};

/// Requests that missed their deadline.
pub const DEADLINE_MISSES: Metric = Metric {
    name: "batch_processing_deadline_misses_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests that missed their deadline: refused or dropped because of it, or answered too late.",
    labels: MODEL_AND_LANE,
};

/// Time from submission to the start of the batch.
pub const QUEUE: Metric = Metric {
    name: "batch_processing_queue_seconds",
    kind: Kind::Histogram(SECONDS),
    unit: Unit::Seconds,
    help: "Time from the submission of a request to the start of its batch, by the lane it was submitted to.",
    labels: MODEL_AND_LANE,
};

/// Time that a batch ran.
pub const COMPUTE: Metric = Metric {
    name: "batch_processing_compute_seconds",
    kind: Kind::Histogram(SECONDS),
    unit: Unit::Seconds,
    help: "Time that a batch ran on its device.",
    labels: MODEL,
};

/// Rows in a batch.
pub const BATCH_SIZE: Metric = Metric {
    name: "batch_processing_batch_size",
    kind: Kind::Histogram(ROWS),
    unit: Unit::Count,
    help: "Rows in a batch that ran.",
    labels: MODEL,
};

/// Requests refused before a model was found for them.
pub const REJECTIONS: Metric = Metric {
    name: "batch_processing_rejections_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests refused before they reached a model, by reason.",
    labels: &["reason"],
};

/// Requests waiting in a device's scheduler.
pub const QUEUE_DEPTH: Metric = Metric {
    name: "batch_processing_queue_depth",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Requests waiting for a batch, by device and lane.",
    labels: &["device", "lane"],
};

/// Model variants that are ready.
pub const MODELS_LOADED: Metric = Metric {
    name: "batch_processing_models_loaded",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Variants of model versions that are loaded.",
    labels: &[],
};

/// What runs each loaded variant.
pub const MODEL_INFO: Metric = Metric {
    name: "batch_processing_model_info",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "1 while a variant is loaded, with the execution provider that really runs it; absent while it is not.",
    labels: &["model", "version", "variant", "provider"],
};

/// Loads of a model that failed.
pub const LOAD_FAILURES: Metric = Metric {
    name: "batch_processing_model_load_failures_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Loads of a model that failed, by reason; what was served before is served on.",
    labels: &["model", "reason"],
};

/// Whether a variant takes requests.
pub const MODEL_HEALTHY: Metric = Metric {
    name: "batch_processing_model_healthy",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "1 while a loaded variant takes requests; 0 while it is taken out because its batches kept failing; \
           absent while it is not loaded.",
    labels: MODEL,
};

/// Batches that were given up and repaired after.
pub const FAULTS: Metric = Metric {
    name: "batch_processing_faults_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Batches that failed, by kind of fault; each is followed by a fresh session, and its requests are tried once more.",
    labels: &["model", "version", "variant", "fault"],
};

/// Requests that were tried again.
pub const RETRIES: Metric = Metric {
    name: "batch_processing_retries_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Requests that were tried again, alone, because their batch failed.",
    labels: MODEL,
};

/// The learned limit of rows.
pub const ROW_LIMIT: Metric = Metric {
    name: "batch_processing_row_limit",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Rows that are run at once at most: the largest batch, or less where memory ran out.",
    labels: MODEL,
};

/// Members of an ensemble that failed.
pub const MEMBER_FAILURES: Metric = Metric {
    name: "batch_processing_ensemble_member_failures_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Batches that an ensemble answered without one of its members, by member.",
    labels: &["model", "version", "member"],
};

/// Look-ups answered from a cache tier.
pub const CACHE_HITS: Metric = Metric {
    name: "batch_processing_cache_hits_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups answered from the cache.",
    labels: TIER,
};

/// Look-ups that a cache tier could not answer.
pub const CACHE_MISSES: Metric = Metric {
    name: "batch_processing_cache_misses_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups that had to compute.",
    labels: TIER,
};

/// Look-ups answered by somebody else's computation.
pub const CACHE_SHARED: Metric = Metric {
    name: "batch_processing_cache_shared_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups answered by a computation that another request had begun.",
    labels: TIER,
};

/// Entries that made room.
pub const CACHE_EVICTIONS: Metric = Metric {
    name: "batch_processing_cache_evictions_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Entries that left the cache to make room.",
    labels: TIER,
};

/// Entries whose time was over.
pub const CACHE_EXPIRATIONS: Metric = Metric {
    name: "batch_processing_cache_expirations_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Entries that left the cache and whose time was over: when they were asked for, or made room.",
    labels: TIER,
};

/// Entries held.
pub const CACHE_ENTRIES: Metric = Metric {
    name: "batch_processing_cache_entries",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Entries in the cache, also such as are not served any more and have not made room yet.",
    labels: TIER,
};

/// Bytes held.
pub const CACHE_BYTES: Metric = Metric {
    name: "batch_processing_cache_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Bytes that the cache's entries take, bookkeeping included.",
    labels: TIER,
};

/// Look-ups that found what was invalidated.
pub const CACHE_STALE: Metric = Metric {
    name: "batch_processing_cache_stale_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups that found a result which was invalidated.",
    labels: TIER,
};

/// Look-ups without recent word of invalidations.
pub const CACHE_CUT_OFF: Metric = Metric {
    name: "batch_processing_cache_cut_off_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups while invalidations may have been missed for longer than allowed.",
    labels: TIER,
};

/// Invalidations.
pub const CACHE_INVALIDATIONS: Metric = Metric {
    name: "batch_processing_cache_invalidations_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Invalidations made by this process.",
    labels: &[],
};

/// Look-ups in a shared tier that failed.
pub const CACHE_FAILURES: Metric = Metric {
    name: "batch_processing_cache_lookup_failures_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups in the shared tier that failed, by reason; requests do not fail with them.",
    labels: &["tier", "reason"],
};

/// Look-ups that a shared tier answered.
pub const CACHE_LOOKUPS: Metric = Metric {
    name: "batch_processing_cache_lookups_answered_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Look-ups that the shared tier answered, whatever it said.",
    labels: TIER,
};

/// What those took.
pub const CACHE_LOOKUP_MICROSECONDS: Metric = Metric {
    name: "batch_processing_cache_lookup_microseconds_total",
    kind: Kind::Counter,
    unit: Unit::Microseconds,
    help: "Time that the look-ups which the shared tier answered took together.",
    labels: TIER,
};

/// Values that were to be written to a shared tier.
pub const CACHE_WRITES: Metric = Metric {
    name: "batch_processing_cache_writes_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Results that were to be written to the shared tier, by what became of them.",
    labels: &["tier", "outcome"],
};

/// Values that wait to be written.
pub const CACHE_QUEUED_WRITES: Metric = Metric {
    name: "batch_processing_cache_queued_writes",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Results that wait to be written to the shared tier.",
    labels: TIER,
};

/// Invalidations that wait to be told to others.
pub const CACHE_PENDING_INVALIDATIONS: Metric = Metric {
    name: "batch_processing_cache_pending_invalidations",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Invalidations made here that the shared tier has not heard of.",
    labels: TIER,
};

/// Whether a shared tier's breaker is open.
pub const CACHE_BREAKER_OPEN: Metric = Metric {
    name: "batch_processing_cache_breaker_open",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "1 while the breaker keeps look-ups or writes from the shared tier.",
    labels: &["tier", "operation"],
};

/// Whether a shared tier is connected.
pub const CACHE_CONNECTED: Metric = Metric {
    name: "batch_processing_cache_connected",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "1 while there is a connection to the shared tier.",
    labels: TIER,
};

/// How long ago a shared tier was last heard of.
pub const CACHE_CONFIRMED_AGO: Metric = Metric {
    name: "batch_processing_cache_confirmed_ago_seconds",
    kind: Kind::Gauge,
    unit: Unit::Seconds,
    help: "Time since it was last known that no invalidation was missed.",
    labels: TIER,
};

/// How busy a GPU is. Published by whoever reads the device; a machine without one has no such series, because zero
/// would read as an idle GPU.
pub const GPU_UTILIZATION: Metric = Metric {
    name: "batch_processing_gpu_utilization_percent",
    kind: Kind::Gauge,
    unit: Unit::Percent,
    help: "Share of the time in which the GPU ran a kernel, in percent.",
    labels: &["device"],
};

/// Memory of a GPU that is in use.
pub const GPU_MEMORY_USED: Metric = Metric {
    name: "batch_processing_gpu_memory_used_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Memory of the GPU that is in use, by whatever process.",
    labels: &["device"],
};

/// Memory of a GPU.
pub const GPU_MEMORY_TOTAL: Metric = Metric {
    name: "batch_processing_gpu_memory_total_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    help: "Memory that the GPU has.",
    labels: &["device"],
};

/// How warm a GPU is.
pub const GPU_TEMPERATURE: Metric = Metric {
    name: "batch_processing_gpu_temperature_celsius",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Temperature of the GPU, in degrees Celsius.",
    labels: &["device"],
};

/// What a GPU draws.
pub const GPU_POWER: Metric = Metric {
    name: "batch_processing_gpu_power_watts",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Power that the GPU draws.",
    labels: &["device"],
};

/// How busy the processors are.
pub const CPU_UTILIZATION: Metric = Metric {
    name: "batch_processing_cpu_utilization_percent",
    kind: Kind::Gauge,
    unit: Unit::Percent,
    help: "Share of the processors available (the container's quota, or the machine) that was busy since the last sample, in percent.",
    labels: &[],
};

/// How full the memory is.
pub const MEMORY_UTILIZATION: Metric = Metric {
    name: "batch_processing_memory_utilization_percent",
    kind: Kind::Gauge,
    unit: Unit::Percent,
    help: "Share of the memory available (the container's limit, or the machine) that is in use, reclaimable caches apart, in percent.",
    labels: &[],
};

/// All of the above.
pub const ALL: &[Metric] = &[
    LATENCY,
    REQUESTS,
    ERRORS,
    FAILURES,
    DEADLINE_MISSES,
    QUEUE,
    COMPUTE,
    BATCH_SIZE,
    REJECTIONS,
    QUEUE_DEPTH,
    MODELS_LOADED,
    MODEL_INFO,
    LOAD_FAILURES,
    MODEL_HEALTHY,
    FAULTS,
    RETRIES,
    ROW_LIMIT,
    MEMBER_FAILURES,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_SHARED,
    CACHE_STALE,
    CACHE_CUT_OFF,
    CACHE_INVALIDATIONS,
    CACHE_FAILURES,
    CACHE_LOOKUPS,
    CACHE_LOOKUP_MICROSECONDS,
    CACHE_WRITES,
    CACHE_QUEUED_WRITES,
    CACHE_PENDING_INVALIDATIONS,
    CACHE_BREAKER_OPEN,
    CACHE_CONNECTED,
    CACHE_CONFIRMED_AGO,
    CACHE_EVICTIONS,
    CACHE_EXPIRATIONS,
    CACHE_ENTRIES,
    CACHE_BYTES,
    GPU_UTILIZATION,
    GPU_MEMORY_USED,
    GPU_MEMORY_TOTAL,
    GPU_TEMPERATURE,
    GPU_POWER,
    CPU_UTILIZATION,
    MEMORY_UTILIZATION,
];

const METADATA: Metadata<'static> = Metadata::new("volley", Level::INFO, Some(module_path!()));

impl Metric {
    /// A handle on the series with these label values, with the recorder in force. Looking it up takes about a
    /// microsecond, using it a few nanoseconds: keep it.
    ///
    /// # Panics
    ///
    /// If the metric is no counter, or `values` are not as many as its labels.
    pub fn counter(&self, values: &[&str]) -> Counter {
        assert_eq!(self.kind, Kind::Counter, "{} is no counter", self.name);
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
    }

    /// As [`counter`](Self::counter), for a gauge.
    ///
    /// # Panics
    ///
    /// If the metric is no gauge, or `values` are not as many as its labels.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        assert_eq!(self.kind, Kind::Gauge, "{} is no gauge", self.name);
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA))
    }

    /// As [`counter`](Self::counter), for a histogram.
    ///
    /// # Panics
    ///
    /// If the metric is no histogram, or `values` are not as many as its labels.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        assert!(matches!(self.kind, Kind::Histogram(_)), "{} is no histogram", self.name);
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
    }

    fn key(&self, values: &[&str]) -> Key {
        assert_eq!(values.len(), self.labels.len(), "{} takes the labels {:?}", self.name, self.labels);
        let labels = self.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned()));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

/// Tells the recorder in force the unit and the help of every metric.
pub fn describe_all() {
    metrics::with_recorder(|recorder| {
        for metric in ALL {
            let (name, unit, help) = (metric.name.into(), Some(metric.unit), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, unit, help),
            }
        }
    });
}

/// All metrics as a page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n`cargo run -p volley-telemetry --example metrics_reference > docs/metrics.md` writes this page.\n\n\
         `GET /metrics` on port 8002 answers with these, as Prometheus scrapes them. Edges of histograms lie on every figure \
         of the service-level agreement. Series of a model's variant are there from its load until ten minutes after it was \
         unloaded, gauges until then; what this machine cannot tell (of a GPU, say) is left out rather than zero.\n\n\
         The error rate is `rate(batch_processing_errors_total[5m]) / rate(batch_processing_requests_total[5m])`: both have \
         the same series.\n\n\
         | metric | kind | labels | |\n|---|---|---|---|\n",
    );
    for Metric { name, kind, help, labels, .. } in ALL {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        page += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", "));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_page_in_docs_is_what_is_declared() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        let kept = fs::read_to_string(page).expect("docs/metrics.md");
        assert!(
            kept == reference(),
            "write docs/metrics.md anew: `cargo run -p volley-telemetry --example metrics_reference`"
        );
    }

    #[test]
    fn every_name_is_declared_once_under_the_prefix() {
        let names: HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.starts_with("batch_processing_")));
    }

    #[test]
    fn exactly_the_counters_end_in_total() {
        for metric in ALL {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        }
    }

    #[test]
    fn durations_end_in_seconds_and_shares_in_percent() {
        for metric in ALL {
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_percent"), metric.unit == Unit::Percent, "{}", metric.name);
        }
    }

    #[test]
    fn requests_and_errors_carry_the_same_labels() {
        assert_eq!(REQUESTS.labels, ERRORS.labels);
    }

    #[test]
    fn edges_ascend() {
        for edges in [SECONDS, ROWS] {
            assert!(edges.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    #[should_panic(expected = "takes the labels")]
    fn a_series_with_other_labels_than_declared_is_refused() {
        let _ = REQUESTS.counter(&["a model"]);
    }
}
