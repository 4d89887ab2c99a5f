//! What Triton's and KServe's callers ask besides V2's core: configuration, statistics, compressed bodies, V1.

mod common;

use std::io::{Read as _, Write as _};

use common::{ServerProcess, binary_request, json_request, window};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

const INFER: &str = "/v2/models/cnn_lstm/infer";
const STATISTICS: &str = "/v2/models/cnn_lstm/stats";

fn packed(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    if encoding == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
    } else {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory")
    }
}

fn unpacked(encoding: &str, bytes: &[u8]) -> Value {
    let mut text = String::new();
    let read = if encoding == "gzip" {
        GzDecoder::new(bytes).read_to_string(&mut text)
    } else {
        ZlibDecoder::new(bytes).read_to_string(&mut text)
    };
    read.unwrap_or_else(|error| panic!("not {encoding}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_configuration_says_what_triton_would() {
    let server = ServerProcess::start(&[]);
    let config = server.connect().send("GET", "/v2/models/cnn_lstm/config", &[], b"").json();
    assert_eq!(config["input"], json!([{ "name": "input", "data_type": "TYPE_FP32", "dims": [50, 60] }]));
    assert_eq!(config["output"][1], json!({ "name": "prediction", "data_type": "TYPE_FP32", "dims": [3] }));
    assert_eq!((&config["max_batch_size"], &config["backend"]), (&json!(32), &json!("onnxruntime")));
    let missing = server.connect().send("GET", "/v2/models/cnn_lstm/versions/9/config", &[], b"");
    assert_eq!(missing.status, 404, "{}", missing.error());
}

#[test]
fn statistics_count_requests_rows_batches_and_the_cache() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let mut statistics = |path: &str| connection.send("GET", path, &[], b"").json()["model_stats"][0].clone();
    let before = statistics(STATISTICS);
    assert_eq!((&before["inference_count"], &before["batch_stats"]), (&json!(0), &json!([])));
    let mut caller = server.connect();
    for request in [
        binary_request(&[window(1), window(2), window(3)], &json!({})),
        binary_request(&[window(1), window(2), window(3)], &json!({})),
        binary_request(&[window(4)], &json!({ "cache": false })),
    ] {
        assert_eq!(caller.infer(&request).status, 200);
    }
    assert_eq!(caller.send("POST", INFER, &[], br#"{"inputs":[]}"#).status, 400);
    let after = statistics(STATISTICS);
    let count = |name: &str| after["inference_stats"][name]["count"].as_u64().expect("a count");
    assert_eq!((count("success"), count("fail")), (3, 1));
    assert_eq!((count("queue"), count("compute_input"), count("compute_infer"), count("compute_output")), (3, 2, 2, 2));
    assert_eq!((count("cache_hit"), count("cache_miss")), (1, 1));
    assert_eq!((&after["inference_count"], &after["execution_count"]), (&json!(4), &json!(2)));
    let sizes: Vec<_> =
        after["batch_stats"].as_array().expect("batches").iter().map(|b| b["batch_size"].clone()).collect();
    assert_eq!(sizes, [1, 3]);
    let time = |name: &str| after["inference_stats"][name]["ns"].as_u64().expect("a time");
    assert!(time("success") > time("compute_infer") && time("compute_infer") > 0, "{after}");
    assert!(after["last_inference"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000), "{after}");
    assert_eq!(statistics("/v2/models/stats"), after);
    assert_eq!(statistics("/v2/models/cnn_lstm/versions/1/stats"), after);
    assert_eq!(server.connect().send("GET", "/v2/models/other/stats", &[], b"").status, 404);
}

#[test]
fn compressed_bodies_are_read_and_text_comes_back_compressed_where_it_is_asked_for() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let text = json_request(&[window(1)], &json!({}));
    let binary = binary_request(&[window(1)], &json!({}));
    let plain = connection.infer(&text).json();
    for encoding in ["gzip", "deflate"] {
        let body = packed(encoding, &text.bytes);
        let reply = connection.send("POST", INFER, &[("Content-Encoding", encoding)], &body);
        assert_eq!((reply.status, reply.json()), (200, plain.clone()));
        let reply = connection.send("POST", INFER, &[("Accept-Encoding", encoding)], &text.bytes);
        assert_eq!(reply.header("content-encoding"), Some(encoding));
        assert_eq!(unpacked(encoding, &reply.body), plain);
        let length = binary.json_length.expect("binary").to_string();
        let headers = [
            ("Content-Encoding", encoding),
            ("Accept-Encoding", encoding),
            ("Inference-Header-Content-Length", length.as_str()),
        ];
        let reply = connection.send("POST", INFER, &headers, &packed(encoding, &binary.bytes));
        assert_eq!((reply.status, reply.header("content-encoding")), (200, None), "raw tensors stay as they are");
        assert_eq!(reply.values(1).len(), 3);
        let bomb = packed(encoding, &vec![b' '; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let reply = connection.send("POST", INFER, &[("Content-Encoding", encoding)], &bomb);
        assert_eq!(reply.status, 413, "{}", reply.error());
    }
}

#[test]
fn old_callers_get_predictions_for_rows_and_for_whole_tensors() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    assert_eq!(connection.send("GET", "/v1/models", &[], b"").json(), json!({ "models": ["cnn_lstm"] }));
    let model = connection.send("GET", "/v1/models/cnn_lstm", &[], b"");
    assert_eq!(model.json(), json!({ "name": "cnn_lstm", "ready": true }));
    let expected = connection.infer(&binary_request(&[window(1), window(2)], &json!({}))).values(1);
    let nested: Vec<Vec<Vec<f32>>> = [1, 2].map(|seed| window(seed).chunks(60).map(<[f32]>::to_vec).collect()).into();
    let by_name = json!([{ "input": nested[0] }, { "input": nested[1] }]);
    let mut predict = |body: &Value| {
        let body = body.to_string();
        connection.send("POST", "/v1/models/cnn_lstm:predict", &[("traceparent", "00-1-2-01")], body.as_bytes())
    };
    for (body, at) in [
        (json!({ "instances": nested }), "/predictions/1/prediction"),
        (json!({ "instances": by_name }), "/predictions/1/prediction"),
        (json!({ "inputs": nested }), "/outputs/prediction/1"),
        (json!({ "inputs": { "input": nested } }), "/outputs/prediction/1"),
    ] {
        let reply = predict(&body);
        assert_eq!((reply.status, reply.header("traceparent")), (200, Some("00-1-2-01")));
        let answer = reply.json();
        let row: Vec<f32> = serde_json::from_value(answer.pointer(at).expect("a row").clone()).expect("numbers");
        assert_eq!(row, expected[3..]);
    }
    let wrong = predict(&json!({ "instances": [[1, 2]] }));
    assert_eq!(wrong.status, 400);
    assert!(wrong.error().starts_with("instances"), "{}", wrong.error());
    assert_eq!(server.connect().send("POST", "/v1/models/other:predict", &[], br#"{"instances":[[1]]}"#).status, 404);
}

#[test]
fn the_document_names_every_path_and_refusals_outside_inference_are_json_too() {
    let server = ServerProcess::start(&[]);
    let mut connection = server.connect();
    let document = connection.send("GET", "/openapi.json", &[], b"").json();
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/v2", INFER, "/v1/models/{model}:predict", "/v2/repository/index", "/v2/models/stats"] {
        assert!(paths.contains_key(&path.replace("cnn_lstm", "{model}")), "{path} is not among {:?}", paths.keys());
    }
    for (path, operations) in paths {
        if let Some(get) = operations.get("get") {
            let reply =
                connection.send("GET", &path.replace("{model}", "cnn_lstm").replace("{version}", "1"), &[], b"");
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.body.is_empty(), get["responses"]["200"].get("content").is_none(), "{path}");
        }
    }
    assert!(connection.send("GET", "/v2/models/%ff", &[], b"").error().starts_with("path"));
    assert!(connection.send("POST", "/v2/repository/index", &[], b"[]").error().starts_with("body"));
    let shared = connection.send("GET", "/v2/systemsharedmemory/status", &[], b"");
    assert!(shared.status == 404 && shared.error().contains("shared memory is not offered"), "{}", shared.error());
}
