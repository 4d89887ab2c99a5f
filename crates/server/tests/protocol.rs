//! Whole journeys over HTTP through the real program.

mod common;

use std::time::{Duration, Instant};

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Connection, ServerProcess, binary_request, eventually, json_request, window};
use serde_json::json;

const BOTH_VARIANTS: (&str, &str) = ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", r#"["int8","fp32"]"#);

#[test]
fn health_and_metadata_answer_as_the_protocol_says() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let mut get = |path: &str| connection.send("GET", path, &[], b"");
    for path in
        ["/v2/health/live", "/v2/health/ready", "/v2/models/cnn_lstm/ready", "/v2/models/cnn_lstm/versions/1/ready"]
    {
        assert_eq!(get(path).status, 200, "{path}");
    }
    let metadata = get("/v2/models/cnn_lstm").json();
    assert_eq!(metadata["versions"], json!(["1"]));
    assert_eq!(metadata["inputs"], json!([{ "name": "input", "datatype": "FP32", "shape": [-1, 50, 60] }]));
    assert_eq!(metadata["outputs"][1], json!({ "name": "prediction", "datatype": "FP32", "shape": [-1, 3] }));
    assert_eq!(get("/v2").json()["name"], "volley");
    let missing = get("/v2/models/other");
    assert_eq!(missing.status, 404);
    assert!(missing.error().contains("`other` is not served; served: cnn_lstm"), "{}", missing.error());
    assert_eq!(get("/v2/models/cnn_lstm/versions/9").status, 404);
    assert_eq!(get("/elsewhere").status, 404);
    assert_eq!(connection.send("DELETE", "/v2", &[], b"").status, 405);
}

#[test]
fn a_kubernetes_service_of_the_same_name_does_not_keep_the_server_from_starting() {
    let server = ServerProcess::start(&[
        ("VOLLEY_SERVICE_HOST", "10.0.0.7"),
        ("VOLLEY_SERVICE_PORT_HTTP", "8000"),
        ("VOLLEY_PORT", "tcp://10.0.0.7:8000"),
        ("VOLLEY_PORT_8000_TCP_ADDR", "10.0.0.7"),
    ]);
    assert_eq!(server.connect().send("GET", "/v2/health/ready", &[], b"").status, 200);
}

#[test]
fn json_and_binary_requests_get_the_same_answer_and_keep_their_id() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let windows: Vec<_> = (0..7).map(window).collect();
    let binary = connection.infer(&binary_request(&windows, &json!({ "cache": false })));
    let text = connection.infer(&json_request(&windows, &json!({ "cache": false })));
    assert_eq!((binary.status, text.status), (200, 200));
    assert_eq!(text.json()["outputs"][0]["shape"], json!([7, 128]));
    for output in [0, 1] {
        assert_eq!(binary.values(output), text.values(output), "output {output}");
    }
    let sums = binary.values(1).chunks(3).map(|row| row.iter().sum::<f32>()).collect::<Vec<_>>();
    assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "probabilities add up to one: {sums:?}");

    let mut body = json_request(&windows[..1], &json!({}));
    body.bytes = String::from_utf8(body.bytes).expect("JSON").replacen('{', r#"{"id":"order 66","#, 1).into_bytes();
    let headers = [("x-request-id", "edge-42")];
    let reply = connection.send("POST", "/v2/models/cnn_lstm/versions/1/infer", &headers, &body.bytes);
    assert_eq!(reply.json()["id"], "order 66");
    assert_eq!(reply.header("x-request-id"), Some("edge-42"));
}

#[test]
fn only_the_outputs_asked_for_come_back_in_the_order_asked() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let mut request: serde_json::Value =
        serde_json::from_slice(&json_request(&[window(1)], &json!({})).bytes).expect("JSON");
    let all = connection.send("POST", "/v2/models/cnn_lstm/infer", &[], request.to_string().as_bytes());
    request["outputs"] = json!([{ "name": "prediction", "parameters": { "binary_data": true } }]);
    let one = connection.send("POST", "/v2/models/cnn_lstm/infer", &[], request.to_string().as_bytes());
    assert_eq!(one.values(0), all.values(1));
    assert_eq!(one.body.len(), one.header("inference-header-content-length").unwrap().parse::<usize>().unwrap() + 12);
}

#[test]
fn the_variant_parameter_picks_among_those_that_are_served() {
    let server = ServerProcess::start(&[BOTH_VARIANTS]);
    let mut connection = server.connect();
    let mut values =
        |variant: &str| connection.infer(&binary_request(&[window(2)], &json!({ "variant": variant }))).values(0);
    let (int8, fp32) = (values("int8"), values("fp32"));
    assert_ne!(int8, fp32);
    let mean = int8.iter().zip(&fp32).map(|(a, b)| (a - b).abs()).sum::<f32>() / 128.0;
    assert!(mean < 0.1, "they approximate each other: {mean}");
    let default = connection.infer(&binary_request(&[window(2)], &json!({})));
    assert_eq!(default.values(0), int8, "the first that is configured is the default");
    let other = connection.infer(&binary_request(&[window(2)], &json!({ "variant": "fp16" })));
    assert_eq!(other.status, 400);
    assert!(other.error().contains("expected one of: int8, fp32"), "{}", other.error());
}

#[test]
fn a_repeated_request_is_answered_from_the_cache_with_the_same_values() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let request = binary_request(&[window(3), window(4)], &json!({}));
    let first = connection.infer(&request);
    let second = connection.infer(&json_request(&[window(3), window(4)], &json!({})));
    assert_eq!((first.values(0), first.values(1)), (second.values(0), second.values(1)));
    connection.infer(&binary_request(&[window(3), window(4)], &json!({ "cache": false })));
    let text = metrics(&server);
    assert_eq!(sample(&text, "batch_processing_cache_hits_total"), 1.0, "{text}");
    assert_eq!(sample(&text, "batch_processing_requests_total"), 3.0, "{text}");
    assert_eq!(sample(&text, "batch_processing_batch_size_count"), 2.0, "two of three were computed\n{text}");
}

#[test]
fn a_deadline_that_cannot_be_met_is_told_and_one_that_can_is_met() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let late = connection.infer(&binary_request(&[window(5)], &json!({ "timeout": 1 })));
    assert_eq!(late.status, 504);
    assert!(late.error().starts_with("parameters.timeout"), "{}", late.error());
    let relaxed = json!({ "timeout": 50_000_000, "priority": "critical" });
    assert_eq!(connection.infer(&binary_request(&[window(5)], &relaxed)).status, 200);
}

#[test]
fn what_could_not_be_in_time_is_refused_before_its_values_are_looked_at() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let mut ask = |value, timeout: u64| {
        connection.infer(&binary_request(&[vec![value; 3000]], &json!({ "cache": false, "timeout": timeout }))).status
    };
    assert_eq!(ask(f32::NAN, 50_000_000), 400);
    // As soon as some were computed, the server knows that this takes longer than a microsecond.
    eventually("the refusal for want of time", || {
        assert_eq!(ask(0.5, 50_000_000), 200);
        ask(f32::NAN, 1) == 504
    });
}

#[test]
fn a_request_whose_caller_hangs_up_is_counted_as_cancelled() {
    let server = ServerProcess::start(&[("VOLLEY_RUNTIME__WORKERS", "1")]);
    let request = binary_request(&[window(9)], &json!({ "cache": false }));
    let length = request.json_length.expect("it is binary").to_string();
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    // Whether a request was read, and not yet answered, when its caller left is for the system to say: some soon are, if
    // callers have more patience and less.
    let until = Instant::now() + Duration::from_secs(60);
    let mut patience = [0, 1, 2, 4, 8, 16, 32].map(Duration::from_millis).into_iter().cycle();
    let text = loop {
        let mut callers: Vec<_> = (0..32).map(|_| server.connect()).collect();
        for caller in &mut callers {
            caller.write("POST", "/v2/models/cnn_lstm/infer", &headers, &request.bytes);
        }
        std::thread::sleep(patience.next().expect("it goes round"));
        drop(callers);
        let text = metrics(&server);
        let cancelled = text.lines().filter(|line| line.contains(r#"reason="cancelled""#));
        if cancelled.into_iter().any(|line| !line.ends_with(" 0")) {
            break text;
        }
        assert!(Instant::now() < until, "none was counted\n{text}");
    };
    assert!(sample(&text, "batch_processing_requests_total") >= 1.0, "{text}");
    assert_eq!(sample(&text, "batch_processing_errors_total"), 0.0, "it is no fault of the service\n{text}");
}

#[test]
fn answers_do_not_depend_on_who_else_asks_at_the_same_time() {
    let server = ServerProcess::start(&[]);
    let uncached = json!({ "cache": false });
    let alone: Vec<_> =
        (0..8).map(|seed| server.connect().infer(&binary_request(&[window(seed)], &uncached)).values(0)).collect();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (server, alone, uncached) = (&server, &alone, &uncached);
            scope.spawn(move || {
                let mut connection = server.connect();
                for turn in 0..40 {
                    let seeds: Vec<_> = (0..=(turn + caller) % 3).map(|i| (caller + turn * 3 + i) % 8).collect();
                    let windows: Vec<_> = seeds.iter().map(|&seed| window(seed)).collect();
                    let values = connection.infer(&binary_request(&windows, uncached)).values(0);
                    for (row, &seed) in values.chunks(128).zip(&seeds) {
                        let diff = row.iter().zip(&alone[seed]).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs()));
                        assert!(diff <= 1e-6, "window {seed} moved by {diff:e}");
                    }
                }
            });
        }
    });
    let text = metrics(&server);
    let batches = sample(&text, "batch_processing_batch_size_count");
    assert!(batches < 8.0 + 8.0 * 40.0, "requests that came together shared batches: {batches}");
}

#[test]
fn an_urgent_request_is_not_held_back_by_an_idle_one_with_the_same_content() {
    const FLOOD: usize = 12;
    let settings = [("VOLLEY_RUNTIME__WORKERS", "1"), ("VOLLEY_SCHEDULER__AGING_INTERVAL", "1h")];
    let server = ServerProcess::start(&settings);
    let (over, answered, flowing) = (AtomicBool::new(false), AtomicUsize::new(0), Barrier::new(FLOOD + 1));
    std::thread::scope(|scope| {
        for _ in 0..FLOOD {
            scope.spawn(|| {
                let request = binary_request(&vec![window(9); 32], &json!({ "cache": false, "priority": "high" }));
                let mut connection = server.connect();
                connection.infer(&request);
                flowing.wait();
                // An end, should the urgent request never be answered.
                for _ in 0..2000 {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    connection.infer(&request);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        flowing.wait();
        let mut idle = server.connect();
        let body = binary_request(&[window(7)], &json!({ "priority": "low" }));
        let length = body.json_length.expect("binary").to_string();
        idle.write("POST", "/v2/models/cnn_lstm/infer", &[("Inference-Header-Content-Length", &length)], &body.bytes);
        let before = answered.load(Ordering::SeqCst);
        let urgent = server.connect().infer(&binary_request(&[window(7)], &json!({ "priority": "critical" })));
        let meanwhile = answered.load(Ordering::SeqCst) - before;
        over.store(true, Ordering::SeqCst);
        // It goes with the next batch or the one after; an idle one under this flood goes never.
        assert!(meanwhile <= 2 * FLOOD, "{meanwhile} others were answered first");
        assert_eq!(idle.read().expect("both are answered").values(0), urgent.values(0));
    });
}

#[test]
fn metrics_keep_requests_and_errors_comparable() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    connection.infer(&binary_request(&[window(6)], &json!({ "priority": 1 })));
    connection.send("POST", "/v2/models/cnn_lstm/infer", &[], b"{\"inputs\":[]}");
    let text = metrics(&server);
    assert_eq!(sample(&text, "batch_processing_requests_total"), 2.0, "{text}");
    assert_eq!(sample(&text, "batch_processing_errors_total"), 0.0, "the caller was at fault\n{text}");
    assert!(text.contains("reason=\"invalid_input\"} 1"), "{text}");
    assert_eq!(sample(&text, "batch_processing_latency_seconds_count"), 1.0, "{text}");
    assert_eq!(sample(&text, "batch_processing_queue_seconds_count"), 1.0, "{text}");
    assert!(text.contains("batch_processing_memory_utilization_percent"), "{text}");
}

fn metrics(server: &ServerProcess) -> String {
    let reply = Connection::to(server.metrics).send("GET", "/metrics", &[], b"");
    assert_eq!(reply.status, 200);
    let text = String::from_utf8(reply.body).expect("text");
    text.lines().filter(|line| !line.contains("_bucket{")).flat_map(|line| [line, "\n"]).collect()
}

/// The sum over all label sets of a metric.
fn sample(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a sample"))
        .sum()
}

#[test]
fn callers_of_v1_are_told_at_the_root_that_the_server_is_alive() {
    let server = ServerProcess::start(&[]);
    assert_eq!(server.connect().send("GET", "/", &[], b"").json(), json!({ "status": "alive" }));
}
