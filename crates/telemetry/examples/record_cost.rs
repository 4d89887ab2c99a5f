//! What telemetry costs a request, on one thread: `cargo run --release --example record_cost`.
#![expect(clippy::print_stdout, reason = "its output is the example's purpose")]

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};
use volley_telemetry::logs::{self, DEFAULT_FILTER, LogFormat};
use volley_telemetry::{Exporter, Failure, Lane, ModelLabels, ModelMetrics, RequestId};

const REPEATS: u32 = 1_000_000;

fn main() {
    let (recorder, exporter) = Exporter::apart();
    let labels = ModelLabels { model: "cnn_lstm", version: "1", variant: "int8" };
    let model = metrics::with_local_recorder(&recorder, || ModelMetrics::register(labels));
    let took = black_box(Duration::from_millis(3));

    let repeat = |what, step: &dyn Fn()| {
        let start = Instant::now();
        (0..REPEATS).for_each(|_| step());
        report(what, start.elapsed());
    };
    repeat("request completed", &|| model.request_completed(Lane::Normal, took));
    repeat("request failed", &|| model.request_failed(Lane::Normal, Failure::QueueFull));
    repeat("request dequeued", &|| model.request_dequeued(Lane::Normal, took));
    repeat("batch executed", &|| model.batch_executed(16, took));

    let (subscriber, _) =
        logs::subscriber(LogFormat::Json, DEFAULT_FILTER, io::sink).expect("the default filter is valid");
    tracing::subscriber::with_default(subscriber, || {
        repeat("request id taken from the caller", &|| {
            black_box(RequestId::from_caller(Some(b"0f3a9c1e-55d1-4c1c")));
        });
        let id = RequestId::from_caller(None);
        repeat("request span, entered once", &|| id.span().in_scope(|| ()));
    });
    println!("{} bytes in a scrape of one model", exporter.render().len());
}

fn report(what: &str, took: Duration) {
    println!("{what:<36}{:>8.0} ns", took.as_secs_f64() * 1e9 / f64::from(REPEATS));
}
