//! Requests that are wrong in every way we could think of: each is told what was wrong, and the server serves on.

mod common;

use common::{Connection, ServerProcess, binary_request, window};
use serde_json::{Value, json};

const INFER: &str = "/v2/models/cnn_lstm/infer";

/// A good JSON request, to be spoilt.
fn good() -> Value {
    json!({ "inputs": [{ "name": "input", "shape": [1, 50, 60], "datatype": "FP32", "data": vec![0.5; 3000] }] })
}

fn spoilt(pointer: &str, value: Value) -> String {
    let mut request = good();
    *request.pointer_mut(pointer).expect("the field is there") = value;
    request.to_string()
}

fn added(pointer: &str, key: &str, value: Value) -> String {
    let mut request = good();
    request.pointer_mut(pointer).expect("the field is there")[key] = value;
    request.to_string()
}

fn removed(pointer: &str, key: &str) -> String {
    let mut request = good();
    request.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object").remove(key);
    request.to_string()
}

/// Bodies of JSON, with what the answer must name.
fn json_cases() -> Vec<(&'static str, String, &'static str)> {
    let mut one_value_nan = vec![json!(0.5); 3000];
    one_value_nan[7] = json!(null);
    let mut one_value_text = vec![json!(0.5); 3000];
    one_value_text[8] = json!("0.5");
    let good_text = good().to_string();
    vec![
        ("an empty body", String::new(), "body"),
        ("not JSON", "hello".into(), "body"),
        ("JSON cut short", good_text[..good_text.len() / 2].into(), "inputs[0].data"),
        ("text after the JSON", format!("{good_text}x"), "body"),
        ("a list", "[]".into(), "body"),
        ("a number", "42".into(), "body"),
        ("deep nesting", "[".repeat(100_000), "body"),
        ("no inputs", removed("", "inputs"), "inputs"),
        ("inputs of the wrong type", spoilt("/inputs", json!({})), "inputs"),
        ("an empty list of inputs", spoilt("/inputs", json!([])), "input `input` is missing"),
        ("an input that is no object", spoilt("/inputs/0", json!(3)), "inputs[0]"),
        ("an unknown input", spoilt("/inputs/0/name", json!("window")), "inputs[0].name"),
        ("an input without a name", removed("/inputs/0", "name"), "inputs[0]"),
        (
            "the same input twice",
            {
                let mut r = good();
                let i = r["inputs"][0].clone();
                r["inputs"].as_array_mut().unwrap().push(i);
                r.to_string()
            },
            "inputs[1].name",
        ),
        (
            "an input too many",
            {
                let mut r = good();
                let mut i = r["inputs"][0].clone();
                i["name"] = json!("extra");
                r["inputs"].as_array_mut().unwrap().push(i);
                r.to_string()
            },
            "inputs[1].name",
        ),
        ("no shape", removed("/inputs/0", "shape"), "inputs[0]"),
        ("an empty shape", spoilt("/inputs/0/shape", json!([])), "inputs[0].shape"),
        ("a shape without the batch axis", spoilt("/inputs/0/shape", json!([50, 60])), "inputs[0].shape"),
        ("axes exchanged", spoilt("/inputs/0/shape", json!([1, 60, 50])), "inputs[0].shape"),
        ("zero rows", spoilt("/inputs/0/shape", json!([0, 50, 60])), "inputs[0].shape"),
        ("more rows than a batch", spoilt("/inputs/0/shape", json!([33, 50, 60])), "inputs[0].shape"),
        ("a negative axis", spoilt("/inputs/0/shape/0", json!(-1)), "inputs[0].shape[0]"),
        ("an axis of 2^63", spoilt("/inputs/0/shape/0", json!(9_223_372_036_854_775_808_u64)), "inputs[0].shape"),
        (
            "axes whose product overflows",
            spoilt("/inputs/0/shape", json!([4_294_967_296_u64, 4_294_967_296_u64, 60])),
            "inputs[0].shape",
        ),
        ("a fractional axis", spoilt("/inputs/0/shape/0", json!(1.5)), "inputs[0].shape[0]"),
        ("a shape of text", spoilt("/inputs/0/shape", json!("1,50,60")), "inputs[0].shape"),
        ("no datatype", removed("/inputs/0", "datatype"), "inputs[0]"),
        ("another datatype", spoilt("/inputs/0/datatype", json!("FP64")), "inputs[0].datatype"),
        ("an unknown datatype", spoilt("/inputs/0/datatype", json!("FLOAT")), "inputs[0].datatype"),
        ("no values", removed("/inputs/0", "data"), "inputs[0].data"),
        ("too few values", spoilt("/inputs/0/data", json!([1.0, 2.0])), "inputs[0].data"),
        ("too many values", spoilt("/inputs/0/data", json!(vec![0.5; 3001])), "inputs[0].data"),
        (
            "nested lists of the wrong length",
            spoilt("/inputs/0/data", json!([vec![vec![0.5; 50]; 60]])),
            "inputs[0].data",
        ),
        ("a value that is null", spoilt("/inputs/0/data", Value::Array(one_value_nan)), "inputs[0].data"),
        ("a value that is text", spoilt("/inputs/0/data", Value::Array(one_value_text)), "inputs[0].data"),
        ("a bare NaN", good_text.replacen("0.5", "NaN", 1), "inputs[0].data"),
        ("a value beyond float32", good_text.replacen("0.5", "1e300", 1), "inputs[0].data"),
        ("a value beyond float64", good_text.replacen("0.5", "1e999", 1), "inputs[0].data"),
        (
            "values and a binary size",
            added("/inputs/0", "parameters", json!({ "binary_data_size": 12000 })),
            "inputs[0].data",
        ),
        (
            "shared memory",
            added("/inputs/0", "parameters", json!({ "shared_memory_region": "r" })),
            "inputs[0].parameters.shared_memory_region",
        ),
        ("an unknown output", added("", "outputs", json!([{ "name": "logits" }])), "outputs[0].name"),
        (
            "an output twice",
            added("", "outputs", json!([{ "name": "features" }, { "name": "features" }])),
            "outputs[1].name",
        ),
        (
            "classification",
            added("", "outputs", json!([{ "name": "prediction", "parameters": { "classification": 1 } }])),
            "outputs[0].parameters.classification",
        ),
        ("a priority out of range", added("", "parameters", json!({ "priority": 9 })), "parameters.priority"),
        ("a negative priority", added("", "parameters", json!({ "priority": -1 })), "parameters.priority"),
        ("an unknown lane", added("", "parameters", json!({ "priority": "urgent" })), "parameters.priority"),
        ("a negative timeout", added("", "parameters", json!({ "timeout": -5 })), "parameters.timeout"),
        ("a timeout of text", added("", "parameters", json!({ "timeout": "5ms" })), "parameters.timeout"),
        ("an unknown variant", added("", "parameters", json!({ "variant": "fp4" })), "parameters.variant"),
        ("a sequence", added("", "parameters", json!({ "sequence_id": 12 })), "parameters.sequence_id"),
        ("parameters that are a list", added("", "parameters", json!([])), "parameters"),
    ]
}

#[test]
fn every_malformed_json_request_is_told_what_is_wrong_and_the_server_serves_on() {
    let server = ServerProcess::start(&[]);
    let cases = json_cases();
    assert!(cases.len() >= 40);
    for (name, body, field) in &cases {
        let mut connection = server.connect();
        let reply = connection.send("POST", INFER, &[], body.as_bytes());
        assert!((400..500).contains(&reply.status), "{name}: {} {}", reply.status, reply.error());
        assert!(reply.error().contains(field), "{name}: {:?} does not name {field}", reply.error());
        let good = connection.send("POST", INFER, &[], good().to_string().as_bytes());
        assert_eq!(good.status, 200, "after {name}");
    }
}

#[test]
fn binary_bodies_that_do_not_add_up_are_told_so() {
    let server = ServerProcess::start(&[]);
    let good = binary_request(&[window(1)], &json!({}));
    let json_length = good.json_length.expect("binary");
    let resized = |from: &str, to: &str| {
        let json = String::from_utf8(good.bytes[..json_length].to_vec()).expect("JSON").replace(from, to);
        ([json.as_bytes(), &good.bytes[json_length..]].concat(), json.len().to_string())
    };
    let with_nan = |value: f32| {
        let mut bytes = good.bytes.clone();
        bytes[json_length + 400..json_length + 404].copy_from_slice(&value.to_le_bytes());
        (bytes, json_length.to_string())
    };
    let plain = |length: &str| (good.bytes.clone(), length.to_owned());
    let mut cases = vec![
        ("a body of values alone", plain("0"), "raw values alone is not offered"),
        ("a header longer than the body", plain("999999"), "Inference-Header-Content-Length"),
        ("a header of 2^63", plain("9223372036854775808"), "Inference-Header-Content-Length"),
        ("a header of 2^64", plain("18446744073709551616"), "Inference-Header-Content-Length"),
        ("a negative header", plain("-1"), "Inference-Header-Content-Length"),
        ("a header that is no number", plain("many"), "Inference-Header-Content-Length"),
        ("a header that is empty", plain(""), "Inference-Header-Content-Length"),
        ("a header of zero", plain("0"), "body"),
        ("a header that cuts the JSON", plain("20"), "inputs[0]"),
        ("a header that reaches into the tensor", plain(&(json_length + 4).to_string()), "body"),
        ("a size that is too small", resized("12000", "11996"), "inputs[0].parameters.binary_data_size"),
        ("a size that is too large", resized("12000", "12004"), "inputs[0].parameters.binary_data_size"),
        ("a negative size", resized("12000", "-12000"), "inputs[0].parameters.binary_data_size"),
        ("a size of 2^63", resized("12000", "9223372036854775808"), "inputs[0].parameters.binary_data_size"),
        ("a size of text", resized("12000", "\"12000\""), "inputs[0].parameters.binary_data_size"),
        ("NaN", with_nan(f32::NAN), "inputs[0].data"),
        ("infinity", with_nan(f32::INFINITY), "inputs[0].data"),
        ("negative infinity", with_nan(f32::NEG_INFINITY), "inputs[0].data"),
    ];
    cases.push((
        "a tensor cut short",
        (good.bytes[..good.bytes.len() - 1].to_vec(), json_length.to_string()),
        "inputs[0].parameters.binary_data_size",
    ));
    cases.push(("bytes left over", ([&good.bytes[..], &[0; 3]].concat(), json_length.to_string()), "body"));
    for (name, (body, length), field) in &cases {
        let mut connection = server.connect();
        let reply = connection.send("POST", INFER, &[("Inference-Header-Content-Length", length)], body);
        assert_eq!(reply.status, 400, "{name}: {}", reply.error());
        assert!(reply.error().contains(field), "{name}: {:?} does not name {field}", reply.error());
        assert_eq!(connection.infer(&good).status, 200, "after {name}");
    }
}

#[test]
fn broken_http_gets_a_4xx_or_a_closed_connection_and_the_server_serves_on() {
    let server = ServerProcess::start(&[("VOLLEY_HTTP__MAX_BODY_BYTES", "100000")]);
    let mut connection = server.connect();
    for path in [
        "/v2/models/other/infer",
        "/v2/models/cnn_lstm/versions/2/infer",
        "/v2/models/cnn_lstm/versions/x/infer",
        "/v2/models/cnn_lstm/versions/01/infer",
        "/v2/models//infer",
    ] {
        let reply = connection.send("POST", path, &[], good().to_string().as_bytes());
        assert_eq!(reply.status, 404, "{path}: {}", reply.error());
    }
    assert_eq!(connection.send("GET", INFER, &[], b"").status, 405);
    let twice = [("Inference-Header-Content-Length", "2"), ("Inference-Header-Content-Length", "3")];
    assert!(connection.send("POST", INFER, &twice, b"{}").error().contains("given twice"));
    let encoded = connection.send("POST", INFER, &[("Content-Encoding", "br")], b"x");
    assert_eq!(encoded.status, 415, "{}", encoded.error());
    let transferred = [("Transfer-Encoding", "gzip, chunked")];
    let reply = server.connect().send("POST", INFER, &transferred, b"");
    assert_eq!(reply.status, 415);
    assert!(reply.error().contains("header Transfer-Encoding: `gzip, chunked` is not offered"), "{}", reply.error());
    let not_gzip = connection.send("POST", INFER, &[("Content-Encoding", "gzip")], b"x");
    assert_eq!(not_gzip.status, 400, "{}", not_gzip.error());

    let mut connection = server.connect();
    let reply = connection.send("POST", INFER, &[], &vec![b' '; 150_000]);
    assert_eq!(reply.status, 413, "a caller that sends it all sees why");
    assert!(reply.error().contains("http.max_body_bytes"), "{}", reply.error());
    for (length, waits) in [("200001", "Accept"), ("100001", "Expect")] {
        let mut connection = server.connect();
        connection.write("POST", INFER, &[("Content-Length", length), (waits, "100-continue")], b"");
        assert_eq!(connection.read().expect("refused before it is sent").status, 413, "{waits}");
    }

    let mut connection = server.connect();
    connection.write_raw(format!("POST {INFER} HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
    for _ in 0..40 {
        connection.write_raw(format!("1000\r\n{}\r\n", " ".repeat(4096)).as_bytes());
    }
    connection.write_raw(b"0\r\n\r\n");
    assert_eq!(connection.read().expect("refused once it is too long").status, 413);

    for (name, bytes) in [
        ("not HTTP", "hello\r\n\r\n".to_owned()),
        ("a length that is no number", format!("POST {INFER} HTTP/1.1\r\nHost: v\r\nContent-Length: x\r\n\r\n")),
        ("two lengths", format!("POST {INFER} HTTP/1.1\r\nHost: v\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")),
        ("a header of 2 MB", format!("POST {INFER} HTTP/1.1\r\nHost: v\r\nX: {}\r\n\r\n", "x".repeat(2 << 20))),
        ("a body that ends early", format!("POST {INFER} HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n\r\nshort")),
    ] {
        let mut connection = server.connect();
        connection.write_raw(bytes.as_bytes());
        connection.finish_sending();
        if let Some(reply) = connection.read() {
            assert!((400..500).contains(&reply.status), "{name}: {}", reply.status);
        }
        assert_eq!(server.connect().infer(&binary_request(&[window(1)], &json!({}))).status, 200, "after {name}");
    }
}

#[test]
fn values_that_are_not_finite_are_let_through_where_the_configuration_says_so() {
    let server = ServerProcess::start(&[("VOLLEY_MODELS__CNN_LSTM__ALLOW_NON_FINITE", "true")]);
    let mut values = window(1);
    values[3] = f32::NAN;
    let reply = Connection::to(server.http).infer(&binary_request(&[values], &json!({})));
    assert_eq!(reply.status, 200);
}
