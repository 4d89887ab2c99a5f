//! A cache that begins with the results of a file of inputs.

mod common;

use std::process::Command;

use common::folder::Folder;
use common::{Connection, ServerProcess, WINDOW_BYTES, eventually, json_request, window};
use serde_json::{Value, json};

const WARM_INPUTS: &str = "VOLLEY_MODELS__CNN_LSTM__WARM_INPUTS";
/// Only a cache that never gets warm is waited for this long.
const UNTIL_WARM: (&str, &str) = ("VOLLEY_CACHE__WARMING__HOLD_READY", "60s");

/// A window that no other seed has.
fn input(seed: usize) -> Vec<f32> {
    let mut values = window(seed);
    values[0] = seed as f32;
    values
}

/// A safetensors file with these windows as rows of the tensor `name`; its path.
fn file_of(folder: &Folder, name: &str, windows: &[Vec<f32>]) -> String {
    let bytes = windows.len() * WINDOW_BYTES;
    let tensor = json!({ "dtype": "F32", "shape": [windows.len(), 50, 60], "data_offsets": [0, bytes] });
    let header = json!({ name: tensor }).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(windows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    let path = folder.path().join("inputs.safetensors");
    std::fs::write(&path, file).expect("the temporary folder is writable");
    path.display().to_string()
}

fn ask(connection: &mut Connection, seed: usize, parameters: &Value) -> Vec<f32> {
    let reply = connection.infer(&json_request(&[input(seed)], parameters));
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.values(0)
}

fn hits(server: &ServerProcess) -> f64 {
    server.metric("batch_processing_cache_hits_total{tier=\"local\"}")
}

fn said(log: &[Value], message: &str) -> Vec<Value> {
    log.iter().filter(|entry| entry["message"] == message).cloned().collect()
}

#[test]
fn what_the_file_holds_is_answered_from_the_cache_by_the_first_who_asks() {
    let folder = Folder::new("warm");
    // More than look-ups are given to prove that they pay.
    let windows: Vec<_> = (0..1100).map(input).collect();
    let file = file_of(&folder, "input", &windows);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file), UNTIL_WARM]);
    let mut connection = server.connect();
    let misses = server.metric("batch_processing_cache_misses_total{tier=\"local\"}");
    for (before, seed) in [0, 1, 550, 1098, 1099].into_iter().enumerate() {
        assert_eq!(hits(&server), before as f64);
        let answer = ask(&mut connection, seed, &json!({}));
        assert_eq!(answer, ask(&mut connection, seed, &json!({ "cache": false })), "window {seed}");
    }
    assert_eq!(hits(&server), 5.0);
    assert_eq!(server.metric("batch_processing_cache_misses_total{tier=\"local\"}"), misses);
    // What nobody asked for is no request.
    let text = server.metrics();
    let lanes = text.lines().filter(|line| line.starts_with("batch_processing_requests_total{"));
    let requests: f64 = lanes.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    assert_eq!(requests, 10.0);
}

#[test]
fn a_file_that_is_wrong_is_named_in_the_log_and_the_server_serves() {
    let folder = Folder::new("warm-wrong");
    let file = file_of(&folder, "other", &[input(1)]);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file), UNTIL_WARM]);
    ask(&mut server.connect(), 1, &json!({}));
    server.terminate();
    let (left, log) = server.wait();
    let complaints = said(&log, "no results were computed from warm_inputs");
    assert!(left && complaints.len() == 1, "{log:?}");
    let error = complaints[0]["error"].as_str().expect("a text");
    assert!(error.contains(&file) && error.contains("no tensor `input`"), "{error}");
}

#[test]
fn a_cache_that_keeps_no_such_result_is_not_called_full() {
    let folder = Folder::new("warm-unkept");
    let file = file_of(&folder, "input", &[input(1)]);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file), UNTIL_WARM, ("VOLLEY_CACHE__CAPACITY_BYTES", "300")]);
    server.terminate();
    let (_, log) = server.wait();
    let ends = said(&log, "results were computed from warm_inputs");
    assert!(ends.len() == 1 && ends[0]["ended"] == "the cache keeps no result of this model", "{log:?}");
}

#[test]
fn a_row_that_no_request_could_ask_is_named_and_the_others_are_computed() {
    let folder = Folder::new("warm-row");
    let mut windows: Vec<_> = (0..3).map(input).collect();
    windows[1][7] = f32::NAN;
    let file = file_of(&folder, "input", &windows);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file)]);
    let computed = "batch_processing_cache_entries{tier=\"local\"}";
    eventually("both results", || server.metric(computed) >= 2.0);
    server.terminate();
    let (_, log) = server.wait();
    let refusals = said(&log, "a row of warm_inputs was refused");
    assert!(refusals.len() == 1 && refusals[0]["row"] == 1 && refusals[0]["file"] == file.as_str(), "{log:?}");
    let error = refusals[0]["error"].as_str().expect("a text");
    assert!(error.contains("NaN"), "{error}");
}

#[test]
fn a_model_that_is_loaded_anew_begins_with_its_file_again() {
    let folder = Folder::new("warm-again");
    let file = file_of(&folder, "input", &[input(1), input(2)]);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file), UNTIL_WARM]);
    let scopes = json!({ "scopes": ["model/cnn_lstm"] }).to_string();
    let mut operator = Connection::to(server.admin);
    assert_eq!(operator.send("POST", "/admin/cache/invalidate", &[], scopes.as_bytes()).status, 200);
    assert_eq!(operator.send("POST", "/v2/repository/models/cnn_lstm/load", &[], b"{}").status, 200);
    let misses = "batch_processing_cache_misses_total{tier=\"local\"}";
    eventually("a second computation of both", || server.metric(misses) >= 4.0);
    server.terminate();
    assert!(server.wait().0);
}

#[test]
fn readiness_and_leaving_do_not_wait_for_what_is_not_computed_yet() {
    let folder = Folder::new("warm-slow");
    // Seconds of work, of which a server that leaves at once does next to nothing.
    let windows: Vec<_> = (0..5000).map(input).collect();
    let file = file_of(&folder, "input", &windows);
    let server = ServerProcess::start(&[(WARM_INPUTS, &file), ("VOLLEY_CACHE__WARMING__HOLD_READY", "1ms")]);
    server.terminate();
    let (left, log) = server.wait();
    assert!(left, "{log:?}");
    assert!(said(&log, "results were computed from warm_inputs").is_empty(), "{log:?}");
}

#[test]
fn leaving_does_not_wait_for_a_file_that_nobody_lets_be_read() {
    let folder = Folder::new("warm-stuck");
    let pipe = folder.path().join("inputs.safetensors").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("there is mkfifo").success());
    let server = ServerProcess::start(&[(WARM_INPUTS, &pipe), ("VOLLEY_SHUTDOWN__GRACE", "1s")]);
    ask(&mut server.connect(), 1, &json!({}));
    server.terminate();
    assert!(server.wait().0);
}

#[test]
fn what_was_invalidated_does_not_come_back_with_the_snapshot_after_a_crash() {
    let folder = Folder::new("warm-crash");
    let snapshot = folder.path().join("results");
    let path = snapshot.display().to_string();
    let secret = "07".repeat(32);
    let settings = [
        ("VOLLEY_CACHE__SNAPSHOT__PATH", path.as_str()),
        ("VOLLEY_CACHE__SNAPSHOT__INTERVAL", "1h"),
        ("VOLLEY_CACHE__SECRET", &secret),
        // Another variant's results are others.
        ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"int8\"]"),
        UNTIL_WARM,
    ];
    let first = ServerProcess::start(&settings);
    ask(&mut first.connect(), 1, &json!({}));
    first.terminate();
    assert!(first.wait().0 && snapshot.is_file());

    let second = ServerProcess::start(&settings);
    ask(&mut second.connect(), 1, &json!({}));
    assert_eq!(hits(&second), 1.0, "it begins with what the first one left");
    let scopes = json!({ "scopes": ["model/cnn_lstm"] }).to_string();
    let reply = Connection::to(second.admin).send("POST", "/admin/cache/invalidate", &[], scopes.as_bytes());
    assert_eq!(reply.json(), json!({ "reached": "here" }));
    second.signal("KILL");
    assert!(!second.wait().0);

    let third = ServerProcess::start(&settings);
    ask(&mut third.connect(), 1, &json!({}));
    assert_eq!(hits(&third), 0.0, "it was invalidated");
}
