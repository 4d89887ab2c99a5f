//! Models that come and go while requests are answered, and versions that must not take traffic.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use common::repository::Repository;
use common::{Connection, ServerProcess, binary_request, window};
use serde_json::{Value, json};

const FILES: [&str; 2] = ["model.onnx", "golden.safetensors"];

/// The bundled model in fp32, as version 1.
fn bundled(name: &str) -> Repository {
    let repository = Repository::new(&format!("loading-{name}"));
    repository.add_bundled(1, &FILES);
    repository
}

fn serve(repository: &Repository) -> ServerProcess {
    ServerProcess::start(&[("VOLLEY_MODEL_REPOSITORY", repository.path())])
}

fn load(server: &ServerProcess) -> common::Reply {
    server.connect().send("POST", "/v2/repository/models/cnn_lstm/load", &[], b"")
}

fn index(server: &ServerProcess) -> Value {
    server.connect().send("POST", "/v2/repository/index", &[], b"").json()
}

fn served_version(connection: &mut Connection) -> String {
    let reply = connection.infer(&common::json_request(&[window(1)], &json!({ "cache": false })));
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()["model_version"].as_str().expect("a version").to_owned()
}

#[test]
fn a_start_says_once_what_the_library_lacks_and_of_each_file_when_it_was_measured() {
    let server = ServerProcess::start(&[]);
    server.terminate();
    let (_, log) = server.wait();
    let said = |message: &str| log.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    assert!(said("execution provider not available").len() <= 1, "{log:?}");
    let loaded = said("model loaded");
    assert!(loaded.len() > 1, "the bundled model has several variants: {log:?}");
    for line in loaded {
        let measured = line["measured"].as_str().unwrap_or_default();
        assert!(["at an earlier start", "now"].iter().any(|start| measured.starts_with(start)), "{line}");
    }
}

#[test]
fn a_load_takes_in_a_new_version_and_an_unload_takes_the_model_out() {
    let repository = bundled("versions");
    let server = serve(&repository);
    let mut connection = server.connect();
    assert_eq!(served_version(&mut connection), "1");
    assert_eq!(index(&server), json!([{ "name": "cnn_lstm", "version": "1", "state": "READY", "reason": "" }]));

    repository.add_bundled(2, &FILES);
    assert_eq!(served_version(&mut connection), "1", "not before it is told to load");
    assert_eq!(load(&server).status, 200);
    assert_eq!(served_version(&mut connection), "2");

    let unload = connection.send("POST", "/v2/repository/models/cnn_lstm/unload", &[], b"");
    assert_eq!(unload.status, 200);
    assert_eq!(connection.infer(&binary_request(&[window(1)], &json!({}))).status, 404);
    let unloaded = json!([{ "name": "cnn_lstm", "state": "UNAVAILABLE", "reason": "not loaded" }]);
    assert_eq!(index(&server), unloaded);
    for gone in ["cnn_lstm", "nobody"] {
        let path = format!("/v2/repository/models/{gone}/unload");
        assert_eq!(connection.send("POST", &path, &[], b"").status, 200, "it is not served: nothing is left to do");
    }
    let metrics = server.metrics();
    assert!(metrics.contains("batch_processing_models_loaded 0"));
    for gauge in GAUGES {
        assert!(!metrics.contains(gauge), "there is nothing to be healthy: {gauge}");
    }

    assert_eq!(load(&server).status, 200);
    assert_eq!(served_version(&mut connection), "2");
    let metrics = server.metrics();
    assert!(metrics.contains("batch_processing_models_loaded 1"));
    for gauge in GAUGES {
        assert!(metrics.contains(gauge), "{gauge}");
    }
}

/// What there is of a model while it is loaded.
const GAUGES: [&str; 2] =
    [r#"batch_processing_model_healthy{model="cnn_lstm""#, r#"batch_processing_row_limit{model="cnn_lstm""#];

#[test]
fn a_body_that_is_no_object_is_refused() {
    let repository = bundled("bodies");
    let server = serve(&repository);
    let mut connection = server.connect();
    for path in ["/v2/repository/index", "/v2/repository/models/cnn_lstm/load"] {
        for body in ["[]", " [true]", "1", "null"] {
            let reply = connection.send("POST", path, &[], body.as_bytes());
            assert_eq!(reply.status, 400, "{path} {body}");
            assert!(reply.error().starts_with("body: "), "{}", reply.error());
        }
        assert_eq!(connection.send("POST", path, &[], b" {}").status, 200, "{path}");
    }
}

#[test]
fn a_variant_that_is_named_twice_is_served_once() {
    let repository = Repository::new("loading-twice");
    repository.add_bundled(1, &["model.onnx", "model.int8.onnx", "golden.safetensors"]);
    let variants = "[\"fp32\", \"int8\", \"fp32\"]";
    let settings = [("VOLLEY_MODEL_REPOSITORY", repository.path()), ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", variants)];
    let server = ServerProcess::start(&settings);
    let health = Connection::to(server.admin).send("GET", "/admin/health", &[], b"").json();
    let served: Vec<_> = health["variants"].as_array().expect("a list").iter().map(|one| &one["variant"]).collect();
    assert_eq!(served, ["fp32", "int8"]);
}

/// A way to spoil version 2, and what must be said of it.
type Spoiling = (&'static str, fn(&Path), &'static str, &'static [&'static str]);

#[test]
fn a_version_that_is_not_right_takes_no_traffic_and_the_old_one_serves_on() {
    let spoilings: [Spoiling; 5] = [
        ("more than memory can hold", huge, "memory", &["memory does not suffice", "beside what serves"]),
        ("golden outputs that are off", golden_off, "golden", &["golden", "output `prediction`"]),
        ("a truncated file", truncated, "refused", &["model.onnx"]),
        ("an input of another name", renamed_input, "golden", &["no tensor", "input"]),
        ("not a model at all", no_model, "refused", &["model.onnx"]),
    ];
    let repository = bundled("spoilt");
    let server = serve(&repository);
    let mut connection = server.connect();
    let before = connection.infer(&binary_request(&[window(7)], &json!({ "cache": false }))).values(0);
    for (what, spoil, reason, words) in spoilings {
        let folder = repository.add_bundled(2, &FILES);
        spoil(&folder);
        let refused = load(&server);
        assert_eq!(refused.status, 400, "{what}");
        let text = refused.error();
        assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
        assert_eq!(served_version(&mut connection), "1", "{what}");
        let after = connection.infer(&binary_request(&[window(7)], &json!({ "cache": false }))).values(0);
        assert_eq!(before, after, "{what}");
        let line = &index(&server)[0];
        assert_eq!((&line["version"], &line["state"]), (&json!("1"), &json!("READY")), "{what}");
        assert!(line["reason"].as_str().is_some_and(|text| text.contains(words[0])), "{what}: {line}");
        let series = format!("batch_processing_model_load_failures_total{{model=\"cnn_lstm\",reason=\"{reason}\"}}");
        assert!(server.metrics().contains(&series), "{what}: no {series}");
        fs::remove_dir_all(folder).expect("it was made above");
    }
    assert_eq!(load(&server).status, 200, "it is as it was at first");
    assert_eq!(index(&server)[0]["reason"], "");
    server.terminate();
    let (_, log) = server.wait();
    let refusals = log.iter().filter(|entry| entry["message"].as_str().is_some_and(|text| text.contains("not loaded")));
    assert_eq!(refusals.count(), spoilings.len(), "{log:?}");
}

#[test]
fn a_server_does_not_start_with_a_version_that_is_not_right() {
    let repository = bundled("start");
    golden_off(&repository.0.join("cnn_lstm/1"));
    let text = ServerProcess::refusal(&[("VOLLEY_MODEL_REPOSITORY", repository.path())]);
    assert!(text.contains("golden") && text.contains("prediction"), "{text}");
}

#[test]
fn only_what_the_repository_lists_can_be_loaded_and_what_it_cannot_be_loaded_as_is_said() {
    let repository = bundled("names");
    let outside = bundled("outside");
    let server = serve(&repository);
    let mut connection = server.connect();
    let elsewhere = format!("{}/cnn_lstm", outside.path()).replace('/', "%2F");
    let beside = format!("..%2F{}%2Fcnn_lstm", outside.0.file_name().expect("a name").to_str().expect("UTF-8"));
    for name in [elsewhere.as_str(), &beside, "cnn_lstm%2F", "nope", "..", "%0A"] {
        let reply = connection.send("POST", &format!("/v2/repository/models/{name}/load"), &[], b"");
        assert_eq!(reply.status, 404, "{name}: {}", String::from_utf8_lossy(&reply.body));
    }
    assert_eq!(index(&server).as_array().map(Vec::len), Some(1), "and none of it is remembered");
    for (config, words) in [
        ("variants = []", ["config.toml", "variants: empty; expected"]),
        ("max_batch = 1000000000", ["1000000000", "at most 65536"]),
        ("max_batch = \"many\"", ["config.toml:1:13: max_batch: ", "expected a whole number of at least 1"]),
    ] {
        repository.configure("cnn_lstm", config);
        let text = load(&server).error();
        assert!(words.iter().all(|word| text.contains(word)), "{config}: {text}");
    }
    assert_eq!(served_version(&mut connection), "1");
}

#[test]
fn the_server_answers_all_else_while_a_load_takes_its_time() {
    let repository = Repository::new("loading-slow");
    repository.add_bundled(1, &FILES);
    repository.add_breaking();
    let fault = repository.fault_file();
    let server = ServerProcess::start(&[
        ("VOLLEY_MODEL_REPOSITORY", repository.path()),
        ("FAULT_OPERATOR_FILE", fault.to_str().expect("a path in UTF-8")),
    ]);
    repository.fault("hang-once");
    let address = server.http;
    let path = "/v2/repository/models/breaking/load";
    let loading = std::thread::spawn(move || Connection::to(address).send("POST", path, &[], b"").status);
    // The run that hangs takes the order away.
    while repository.fault_file().exists() {
        std::thread::yield_now();
    }
    let mut connection = server.connect();
    assert_eq!(index(&server).as_array().map(Vec::len), Some(2));
    assert_eq!(served_version(&mut connection), "1");
    assert_eq!(connection.send("GET", "/v2/health/live", &[], b"").status, 200);
    let mut waiting = server.connect();
    waiting.write("POST", "/v2/repository/models/cnn_lstm/unload", &[], b"");
    assert_eq!(served_version(&mut connection), "1", "one change at a time");
    repository.fault("pass");
    assert_eq!(loading.join().expect("it ends"), 200);
    assert_eq!(waiting.read().expect("a reply").status, 200);
    assert_eq!(connection.infer(&binary_request(&[window(1)], &json!({}))).status, 404);
}

#[test]
fn of_seventeen_changes_at_once_one_is_refused_without_waiting_for_the_others() {
    let repository = bundled("crowd");
    repository.add_breaking();
    let fault = repository.fault_file();
    let server = ServerProcess::start(&[
        ("VOLLEY_MODEL_REPOSITORY", repository.path()),
        ("FAULT_OPERATOR_FILE", fault.to_str().expect("a path in UTF-8")),
    ]);
    let change = |path: &'static str, done: &mpsc::Sender<(u16, Option<String>)>| {
        let (address, done) = (server.http, done.clone());
        std::thread::spawn(move || {
            let reply = Connection::to(address).send("POST", path, &[], b"");
            let _ = done.send((reply.status, reply.header("retry-after").map(str::to_owned)));
        });
    };
    let (done, replies) = mpsc::channel();
    repository.fault("hang-once");
    change("/v2/repository/models/breaking/load", &done);
    while repository.fault_file().exists() {
        std::thread::yield_now();
    }
    for _ in 0..16 {
        change("/v2/repository/models/nobody/unload", &done);
    }
    drop(done);
    // The load hangs, so whoever is answered did not wait for it.
    assert_eq!(replies.recv().expect("a reply"), (503, Some("1".into())));
    repository.fault("pass");
    let mut statuses: Vec<u16> = replies.iter().map(|(status, _)| status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200; 16], "the others wait, and are done in turn");
}

#[test]
fn a_configuration_that_lists_no_variant_keeps_the_server_from_starting_and_is_named() {
    let repository = bundled("none");
    let settings = [("VOLLEY_MODEL_REPOSITORY", repository.path()), ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[]")];
    let text = ServerProcess::refusal(&settings);
    assert!(text.contains("cnn_lstm: variants: empty; expected"), "{text}");
}

#[test]
fn loading_anew_again_and_again_fails_no_request() {
    let repository = bundled("again");
    let server = serve(&repository);
    let address = server.http;
    let over = Arc::new(AtomicBool::new(false));
    let expected = server.connect().infer(&binary_request(&[window(3)], &json!({ "cache": false }))).values(1);
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (over, expected) = (Arc::clone(&over), expected.clone());
            std::thread::spawn(move || {
                let mut connection = Connection::to(address);
                let mut answered = 0;
                while !over.load(Ordering::Relaxed) {
                    let reply = connection.infer(&binary_request(&[window(3)], &json!({ "cache": false })));
                    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                    assert_eq!(reply.values(1), expected);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..10 {
        if round % 2 == 1 {
            golden_off(&repository.add_bundled(2, &FILES));
        }
        assert_eq!(load(&server).status, if round % 2 == 1 { 400 } else { 200 });
        let _ = fs::remove_dir_all(repository.0.join("cnn_lstm/2"));
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.join().expect("every request was answered") > 0);
    }
}

/// Changes the last bytes: they belong to the last tensor.
fn golden_off(folder: &Path) {
    let path = folder.join("golden.safetensors");
    let mut bytes = fs::read(&path).expect("it was copied");
    let at = prediction_at(&bytes);
    bytes[at..at + 4].copy_from_slice(&0.75_f32.to_le_bytes());
    fs::write(path, bytes).expect("it was written before");
}

/// Where `fp32.prediction` begins in a safetensors file: eight bytes of length, a JSON header, then the tensors.
fn prediction_at(bytes: &[u8]) -> usize {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a JSON header");
    8 + length + header["fp32.prediction"]["data_offsets"][0].as_u64().expect("an offset") as usize
}

fn truncated(folder: &Path) {
    let path = folder.join("model.onnx");
    let bytes = fs::read(&path).expect("it was copied");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("it was written before");
}

/// Renames the golden inputs, which is how a graph with an input of another name looks to them. Of the same length, so
/// that the file stays as it is otherwise.
fn renamed_input(folder: &Path) {
    let path = folder.join("golden.safetensors");
    let mut bytes = fs::read(&path).expect("it was copied");
    let at = bytes.windows(7).position(|window| window == b"\"input\"").expect("the header names the input");
    bytes[at..at + 7].copy_from_slice(b"\"inpot\"");
    fs::write(path, bytes).expect("it was written before");
}

/// A file that takes up next to nothing on the disk.
fn huge(folder: &Path) {
    let file = fs::File::options().write(true).open(folder.join("model.onnx")).expect("it was copied");
    file.set_len(1 << 42).expect("the file system has files with holes");
}

fn no_model(folder: &Path) {
    fs::write(folder.join("model.onnx"), "a text").expect("it was written before");
}

#[test]
fn a_model_that_is_configured_and_gone_keeps_no_other_from_being_loaded() {
    let repository = bundled("load-gone");
    let folder = Path::new(repository.path());
    let (model, gone) = (folder.join("cnn_lstm"), folder.join("gone"));
    assert!(Command::new("cp").arg("-r").args([&model, &gone]).status().expect("there is cp").success());
    let server = ServerProcess::start(&[
        ("VOLLEY_MODEL_REPOSITORY", repository.path()),
        ("VOLLEY_MODELS__GONE__VARIANTS", "[\"fp32\"]"),
        ("VOLLEY_MODELS__CNN_LSTM__VARIANTS", "[\"fp32\"]"),
    ]);
    let say = |model: &str, what: &str| {
        Connection::to(server.admin).send("POST", &format!("/v2/repository/models/{model}/{what}"), &[], b"")
    };
    assert_eq!(say("gone", "unload").status, 200);
    fs::remove_dir_all(&gone).expect("it is there");
    assert_eq!(load(&server).status, 200);
    assert_eq!(say("gone", "load").status, 404);
    let settings = json!({ "models": { "cnn_lstm": { "cache": false } } }).to_string();
    assert_eq!(Connection::to(server.admin).send("PATCH", "/admin/config", &[], settings.as_bytes()).status, 200);
}
