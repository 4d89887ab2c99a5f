//! The exposition as Prometheus reads it, checked strictly against the declarations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use volley_telemetry::names::{self, Kind, Metric};
use volley_telemetry::{
    CacheReading, CacheTierMetrics, DeviceMetrics, EdgeMetrics, Exporter, Failure, Fault, GpuMetrics, GpuReading, Lane,
    MemberMetrics, ModelLabels, ModelMetrics, RecoveryMetrics, Rejection, SharedCacheMetrics, SharedCacheReading,
    host::Host, model_load_failed, model_loaded, model_unloaded,
};

/// Every latency figure of the service-level agreement, in seconds.
const SLA_FIGURES: [f64; 10] = [0.05, 0.06, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3];

const MODEL: ModelLabels<'_> = ModelLabels { model: "cnn \"lstm\"\n", version: "1", variant: "int8" };

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What the text declares and holds. Panics on anything that the text format 0.0.4 does not allow.
#[derive(Debug, Default)]
struct Exposition {
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut read = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a name and a help");
                assert_eq!(read.helps.insert(name.to_owned(), help.to_owned()), None, "{name} has two HELP lines");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert_eq!(read.types.insert(name.to_owned(), kind.to_owned()), None, "{name} has two TYPE lines");
            } else {
                let sample = parse_sample(line);
                assert!(
                    !read.samples.iter().any(|other| (&other.name, &other.labels) == (&sample.name, &sample.labels)),
                    "a series occurs twice: {line}"
                );
                read.samples.push(sample);
            }
        }
        read
    }

    fn of(&self, name: &str) -> Vec<&Sample> {
        self.samples.iter().filter(|sample| sample.name == name).collect()
    }

    fn label_sets(&self, name: &str) -> BTreeSet<&BTreeMap<String, String>> {
        self.of(name).into_iter().map(|sample| &sample.labels).collect()
    }

    /// The value of the only series of `name` that has this label, or the only one at all.
    fn value(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let mut found = self.of(name);
        found.retain(|sample| label.is_none_or(|(label, value)| sample.labels.get(label).is_some_and(|v| v == value)));
        assert_eq!(found.len(), 1, "{name} {label:?}");
        found[0].value
    }
}

fn parse_sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a name, then labels or a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect("a label and its quoted value");
            let (value, after) = unquote(after);
            assert_eq!(labels.insert(label.to_owned(), value), None, "a label occurs twice: {line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("one space before the value");
    assert!(!value.ends_with("inf"), "infinity is +Inf: {line}");
    Sample { name: name.to_owned(), labels, value: value.parse().expect("a number and nothing after it") }
}

/// The value up to the closing quote, without its escapes, and what follows the quote.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next().expect("a closing quote") {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => value.push(match characters.next().expect("an escaped character").1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                other => panic!("no such escape: \\{other}"),
            }),
            (_, other) => value.push(other),
        }
    }
}

/// Records something of everything, twice scraped, and returns the second scrape.
fn everything() -> Exposition {
    let (recorder, exporter) = Exporter::apart();
    metrics::with_local_recorder(&recorder, || {
        model_loaded(MODEL, "cpu");
        let model = ModelMetrics::register(MODEL);
        model.request_completed(Lane::Critical, Duration::from_millis(125));
        model.request_completed(Lane::Critical, Duration::from_millis(250));
        model.request_completed_late(Lane::Low, Duration::from_millis(400));
        for reason in Failure::ALL {
            model.request_failed(Lane::Normal, reason);
        }
        model.request_dequeued(Lane::High, Duration::from_micros(150));
        model.batch_executed(12, Duration::from_millis(2));
        model.batch_executed(13, Duration::from_millis(2));

        let recovery = RecoveryMetrics::register(MODEL);
        for fault in Fault::ALL {
            recovery.batch_failed(fault);
        }
        recovery.batch_failed(Fault::Abandoned);
        recovery.request_retried();
        recovery.set_row_limit(16);
        recovery.set_healthy(false);
        MemberMetrics::register(MODEL).left_out();
        model_load_failed(MODEL.model, "golden");

        DeviceMetrics::register("cpu").set_queue_depth(Lane::High, 5);
        GpuMetrics::of("cuda:0").publish(GpuReading {
            utilization_percent: Some(61.0),
            memory_used_bytes: 1 << 30,
            memory_total_bytes: 1 << 36,
            temperature_celsius: Some(55.0),
            power_watts: Some(310.5),
        });
        EdgeMetrics::register().request_rejected(Rejection::Malformed);
        let cache = CacheTierMetrics::register("local");
        cache.publish(CacheReading {
            hits: 5,
            misses: 4,
            shared: 3,
            stale: 8,
            cut_off: 9,
            invalidations: 10,
            evictions: 2,
            expirations: 1,
            entries: 6,
            bytes: 7,
        });
        let shared = SharedCacheReading {
            hits: 11,
            misses: 12,
            stale: 13,
            failures: [14, 15, 16, 17],
            answered: (18, 19),
            writes: [20, 21, 22],
            queued: 23,
            pending_invalidations: 24,
            breakers_open: [true, false],
            connected: true,
            confirmed_ago: Some(0.25),
        };
        SharedCacheMetrics::register().publish(&shared);
        let mut host = Host::new();
        host.sample(Instant::now());
        Exposition::parse(&exporter.render());
        cache.publish(CacheReading { hits: 4, entries: 2, ..CacheReading::default() });
    });
    Exposition::parse(&exporter.render())
}

#[test]
fn every_sample_belongs_to_a_declared_metric_and_carries_exactly_its_labels() {
    let read = everything();
    for Sample { name, labels, .. } in &read.samples {
        let of = |metric: &&Metric| match metric.kind {
            Kind::Histogram(_) => {
                name.strip_prefix(metric.name).is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix))
            }
            Kind::Counter | Kind::Gauge => metric.name == name,
        };
        let metric = names::ALL.iter().find(of).unwrap_or_else(|| panic!("{name} is not declared"));
        let mut expected: BTreeSet<&str> = metric.labels.iter().copied().collect();
        if name.ends_with("_bucket") {
            expected.insert("le");
        }
        assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{name}");
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        assert_eq!(read.types.get(metric.name).map(String::as_str), Some(kind), "the TYPE of {name}");
        assert_eq!(read.helps.get(metric.name).map(String::as_str), Some(metric.help), "the HELP of {name}");
    }
}

#[test]
fn everything_declared_is_exposed_but_what_this_machine_cannot_tell() {
    let read = everything();
    let missing: Vec<_> = names::ALL.iter().map(|m| m.name).filter(|name| !read.types.contains_key(*name)).collect();
    // A share of processor time takes two samples some time apart.
    assert_eq!(missing, [names::CPU_UTILIZATION.name]);
}

#[test]
fn what_the_shared_tier_counts_is_told_by_reason_outcome_and_operation() {
    let read = everything();
    let value = |name: &str, label: &str, is: &str| {
        let of = |sample: &&Sample| {
            sample.name == name && sample.labels["tier"] == "redis" && (label.is_empty() || sample.labels[label] == is)
        };
        read.samples.iter().find(of).unwrap_or_else(|| panic!("no {name} of {is}")).value
    };
    for (name, label, is, expected) in [
        ("batch_processing_cache_hits_total", "", "", 11.0),
        ("batch_processing_cache_stale_total", "", "", 13.0),
        ("batch_processing_cache_lookup_failures_total", "reason", "corrupt", 14.0),
        ("batch_processing_cache_lookup_failures_total", "reason", "not_sent", 17.0),
        ("batch_processing_cache_lookup_microseconds_total", "", "", 19.0),
        ("batch_processing_cache_writes_total", "outcome", "dropped", 21.0),
        ("batch_processing_cache_breaker_open", "operation", "lookup", 1.0),
        ("batch_processing_cache_breaker_open", "operation", "write", 0.0),
        ("batch_processing_cache_confirmed_ago_seconds", "", "", 0.25),
    ] {
        assert_eq!(value(name, label, is), expected, "{name} {is}");
    }
}

#[test]
fn histograms_count_upwards_over_edges_that_contain_every_sla_figure() {
    let read = everything();
    for metric in names::ALL {
        let Kind::Histogram(declared) = metric.kind else { continue };
        let buckets = read.of(&format!("{}_bucket", metric.name));
        assert!(!buckets.is_empty(), "{} is not exposed", metric.name);
        let mut by_series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for Sample { labels, value, .. } in buckets {
            let mut series = labels.clone();
            let edge = series.remove("le").expect("a bucket's edge").parse().expect("a number or +Inf");
            by_series.entry(series).or_default().push((edge, *value));
        }
        for (series, buckets) in by_series {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{} {series:?}", metric.name);
            let edges: Vec<f64> = buckets.iter().map(|(edge, _)| *edge).collect();
            assert_eq!(edges, [declared, &[f64::INFINITY]].concat(), "{}", metric.name);
            if metric.name.ends_with("_seconds") {
                assert!(SLA_FIGURES.iter().all(|figure| edges.contains(figure)), "{}", metric.name);
                assert!(edges.contains(&0.0001));
            }
        }
    }
}

#[test]
fn requests_and_errors_have_the_same_series_from_the_first_scrape_on() {
    let (recorder, exporter) = Exporter::apart();
    metrics::with_local_recorder(&recorder, || _ = ModelMetrics::register(MODEL));
    for read in [Exposition::parse(&exporter.render()), everything()] {
        assert_eq!(read.label_sets(names::REQUESTS.name).len(), Lane::ALL.len());
        assert_eq!(read.label_sets(names::REQUESTS.name), read.label_sets(names::ERRORS.name));
    }
}

#[test]
fn what_was_recorded_is_what_is_exposed() {
    let read = everything();
    let lane = |lane: Lane| Some(("lane", lane.as_str()));
    assert_eq!(read.value(names::REQUESTS.name, lane(Lane::Critical)), 2.0);
    assert_eq!(read.value(names::ERRORS.name, lane(Lane::Critical)), 0.0);
    assert_eq!(read.value("batch_processing_latency_seconds_count", lane(Lane::Critical)), 2.0);
    assert_eq!(read.value("batch_processing_latency_seconds_sum", lane(Lane::Critical)), 0.375);
    assert_eq!(read.value(names::DEADLINE_MISSES.name, lane(Lane::Low)), 1.0);

    assert_eq!(read.value(names::REQUESTS.name, lane(Lane::Normal)), 10.0);
    assert_eq!(read.value(names::ERRORS.name, lane(Lane::Normal)), 7.0, "three reasons are the caller's own");
    assert_eq!(read.value(names::DEADLINE_MISSES.name, lane(Lane::Normal)), 2.0);
    for reason in Failure::ALL {
        assert_eq!(read.value(names::FAILURES.name, Some(("reason", reason.as_str()))), 1.0);
    }
    assert_eq!(read.value("batch_processing_queue_seconds_sum", lane(Lane::High)), 0.000_15);
    assert_eq!(read.value("batch_processing_batch_size_sum", None), 25.0);
    assert_eq!(read.value("batch_processing_compute_seconds_count", None), 2.0);
    assert_eq!(read.value(names::QUEUE_DEPTH.name, lane(Lane::High)), 5.0);
    assert_eq!(read.value(names::REJECTIONS.name, Some(("reason", "malformed"))), 1.0);
    let fault = |fault: Fault| Some(("fault", fault.as_str()));
    assert_eq!(read.value(names::FAULTS.name, fault(Fault::Abandoned)), 2.0);
    assert_eq!(read.value(names::FAULTS.name, fault(Fault::OutOfMemory)), 1.0);
    assert_eq!(read.value(names::RETRIES.name, None), 1.0);
    assert_eq!(read.value(names::ROW_LIMIT.name, None), 16.0);
    assert_eq!(read.value(names::MODEL_HEALTHY.name, None), 0.0);
    assert_eq!(read.value(names::MEMBER_FAILURES.name, Some(("member", MODEL.variant))), 1.0);
    assert_eq!(read.value(names::LOAD_FAILURES.name, Some(("reason", "golden"))), 1.0);
    assert_eq!(read.value(names::GPU_POWER.name, None), 310.5);
    assert_eq!(read.value(names::CACHE_HITS.name, Some(("tier", "local"))), 5.0, "a counter never falls");
    assert_eq!(read.value(names::CACHE_ENTRIES.name, Some(("tier", "local"))), 2.0);
    assert_eq!(read.value(names::MODEL_INFO.name, Some(("model", MODEL.model))), 1.0);
    assert_eq!(read.value(names::MODELS_LOADED.name, None), 1.0);
}

#[test]
fn an_observation_on_an_sla_figure_counts_as_within_it() {
    let (recorder, exporter) = Exporter::apart();
    metrics::with_local_recorder(&recorder, || {
        let model = ModelMetrics::register(MODEL);
        for figure in SLA_FIGURES {
            model.request_completed(Lane::Normal, Duration::from_secs_f64(figure));
        }
    });
    let read = Exposition::parse(&exporter.render());
    for (within, figure) in (1..).map(f64::from).zip(SLA_FIGURES) {
        let mut buckets = read.of("batch_processing_latency_seconds_bucket");
        buckets.retain(|bucket| bucket.labels["lane"] == "normal" && bucket.labels["le"] == figure.to_string());
        assert_eq!(buckets[0].value, within, "at most {figure} s");
    }
}

#[test]
fn a_gauge_of_many_is_there_once_it_is_set_and_infinity_is_written_as_the_format_has_it() {
    let (recorder, exporter) = Exporter::apart();
    let gauge = metrics::with_local_recorder(&recorder, || names::CACHE_CONFIRMED_AGO.gauge(&["redis"]));
    assert_eq!(exporter.render(), "");
    gauge.set(f64::INFINITY);
    assert!(exporter.render().ends_with("{tier=\"redis\"} +Inf\n"), "{}", exporter.render());
}

#[test]
fn an_unloaded_model_is_shown_as_gone() {
    let (recorder, exporter) = Exporter::apart();
    metrics::with_local_recorder(&recorder, || {
        model_loaded(MODEL, "cpu");
        model_unloaded(MODEL, "cpu");
    });
    let read = Exposition::parse(&exporter.render());
    assert_eq!(read.of(names::MODEL_INFO.name), [] as [&Sample; 0]);
    assert_eq!(read.value(names::MODELS_LOADED.name, None), 0.0);
}

#[test]
fn series_of_a_variant_go_ten_minutes_after_its_last_handle() {
    let (recorder, exporter) = Exporter::apart();
    let at = |minutes| Instant::now() + Duration::from_mins(minutes);
    metrics::with_local_recorder(&recorder, || {
        model_loaded(MODEL, "cpu");
        model_load_failed("another", "golden");
        let (model, recovery) = (ModelMetrics::register(MODEL), RecoveryMetrics::register(MODEL));
        let member = MemberMetrics::register(MODEL);
        recovery.set_row_limit(8);
        model.request_completed(Lane::Normal, Duration::from_millis(1));

        exporter.forget_gone(at(60));
        let loaded = Exposition::parse(&exporter.render());
        assert_eq!(loaded.value(names::REQUESTS.name, Some(("lane", "normal"))), 1.0, "it is held");
        assert_eq!(loaded.value(names::MODEL_INFO.name, None), 1.0, "it is not gone");

        model_unloaded(MODEL, "cpu");
        drop((model, recovery, member));
        exporter.forget_gone(at(61));
        exporter.forget_gone(at(70));
        let unloaded = Exposition::parse(&exporter.render());
        assert_eq!(unloaded.value(names::REQUESTS.name, Some(("lane", "normal"))), 1.0, "nine minutes ago");

        // The same again, in time: its counters go on.
        let model = ModelMetrics::register(MODEL);
        exporter.forget_gone(at(72));
        model.request_completed(Lane::Normal, Duration::from_millis(1));
        let again = Exposition::parse(&exporter.render());
        assert_eq!(again.value(names::REQUESTS.name, Some(("lane", "normal"))), 2.0);
        drop(model);
        exporter.forget_gone(at(80));
        // Taken and let go of between two looks: its ten minutes begin anew.
        drop(ModelMetrics::register(MODEL));
        exporter.forget_gone(at(91));
        assert!(exporter.render().contains(names::REQUESTS.name));
        exporter.forget_gone(at(102));
    });
    let read = Exposition::parse(&exporter.render());
    let left: BTreeSet<&str> = read.samples.iter().map(|sample| sample.name.as_str()).collect();
    assert_eq!(
        left,
        BTreeSet::from([names::MODELS_LOADED.name, names::LOAD_FAILURES.name]),
        "what is no variant's stays"
    );
}

#[test]
fn what_is_not_declared_is_not_recorded() {
    let (recorder, exporter) = Exporter::apart();
    metrics::with_local_recorder(&recorder, || {
        metrics::counter!("a_stranger_total").increment(1);
        metrics::gauge!(names::LATENCY.name).set(1.0);
        metrics::counter!(names::REJECTIONS.name, "reason" => "malformed", "caller" => "7").increment(1);
    });
    assert_eq!(exporter.render(), "");
}

#[test]
fn the_process_takes_one_recorder_and_says_so_to_the_second() {
    let exporter = Exporter::install().expect("the first");
    names::MODELS_LOADED.gauge(&[]).set(3.0);
    assert_eq!(Exposition::parse(&exporter.render()).value(names::MODELS_LOADED.name, None), 3.0);
    assert!(Exporter::install().expect_err("the second").to_string().contains("already installed"));
}
