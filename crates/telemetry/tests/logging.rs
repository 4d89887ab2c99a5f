//! Log lines as a collector reads them.

use serde_json::Value;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing::{debug, error, info, info_span, warn};
use tracing_subscriber::fmt::MakeWriter;
use volley_telemetry::RequestId;
use volley_telemetry::logs::{self, LogFormat};

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("logs are UTF-8")
    }

    fn objects(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Page {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn log(format: LogFormat, filter: &str, events: impl FnOnce()) -> Page {
    let page = Page::default();
    let (subscriber, _) = logs::subscriber(format, filter, page.clone()).expect("the filter is valid");
    tracing::subscriber::with_default(subscriber, events);
    page
}

#[test]
fn a_json_line_carries_time_level_target_message_fields_and_the_request_id() {
    let id = RequestId::from_caller(Some(b"order-\"7\""));
    let page = log(LogFormat::Json, "info", || {
        id.span().in_scope(|| {
            let batch = info_span!("batch", rows = 4);
            batch.in_scope(|| info!(model = "cnn_lstm", took_ms = 1.5, "batch\nexecuted"));
        });
    });
    let lines = page.objects();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert!(line["timestamp"].as_str().is_some_and(|time| time.contains('T') && time.ends_with('Z')), "{line}");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], module_path!());
    assert_eq!(line["message"], "batch\nexecuted");
    assert_eq!((&line["model"], &line["took_ms"]), (&Value::from("cnn_lstm"), &Value::from(1.5)));
    assert_eq!(line["spans"][0]["request_id"], "order-\"7\"");
    assert_eq!(line["spans"][1]["rows"], 4);
}

#[test]
fn the_request_id_survives_a_filter_for_errors_only() {
    let id = RequestId::from_caller(None);
    let page = log(LogFormat::Json, "error", || {
        id.span().in_scope(|| {
            warn!("not this");
            error!("this");
        });
    });
    let lines = page.objects();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["spans"][0]["request_id"], id.to_string());
}

#[test]
fn a_human_line_carries_message_fields_and_the_request_id() {
    let page = log(LogFormat::Human, logs::DEFAULT_FILTER, || {
        RequestId::from_caller(Some(b"order-7")).span().in_scope(|| info!(rows = 4, "batch executed"));
        debug!("below the default level");
    });
    let text = page.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["INFO", "batch executed", "rows", "order-7"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn targets_have_levels_of_their_own() {
    let page = log(LogFormat::Json, "off,noisy=debug", || {
        debug!(target: "noisy::part", "heard");
        error!(target: "quiet", "not heard");
    });
    assert_eq!(page.objects().len(), 1);
}

#[test]
fn a_second_set_up_is_an_error_and_no_panic() {
    logs::init(LogFormat::Json, "off").expect("the first");
    assert!(logs::init(LogFormat::Human, "info").expect_err("the second").is_already_set());
    assert!(!logs::init(LogFormat::Human, "loud").expect_err("no level").is_already_set());
}
